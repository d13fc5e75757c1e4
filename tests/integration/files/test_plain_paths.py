"""Programs in any language that know only plain paths: through a mount, and on copies in private memory."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.fake_agent import FakeAgent
from tests.support.plain_programs import BOTH, Programs, needs_fuse

from casemate.data.dataset import decrypt_tree, encrypt_tree
from casemate.model import DatasetName

CANARY = "Ada-Lovelace-0815"
PATIENTS = DatasetName.parse("hospital/patients")
NAMES = ("shell", "sqlite", "c", "r", "nowhere")


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    base = tmp_path_factory.mktemp("programs")
    plain = base / "plain"
    (plain / "ä b").mkdir(parents=True)
    (plain / "rows.csv").write_text("id,name\n" + "".join(f"{i},{CANARY}\n" for i in range(20_000)))
    (plain / "ä b" / "empty").touch()
    with sqlite3.connect(plain / "base.db") as visits:
        visits.execute("create table visits (id integer primary key, name text)")
        visits.executemany("insert into visits values (?, ?)", [(i, CANARY) for i in range(5000)])
    visits.close()
    places = [f"{name}-{how}" for name in NAMES for how in ("mount", "stage")]
    zones = [FakeAgent.zone(base / place, f"hospital/{place}") for place in places]
    with Programs(base, [FakeAgent.zone(base / "patients", str(PATIENTS), "read"), *zones]) as programs:
        keys, records = programs.agent.keys, programs.agent.records
        encrypt_tree(plain, base / "patients", dataset=PATIENTS, keys=keys, records=records)
        yield programs


def run(programs: Programs, how: str, script: str, *, name: str, compiled: Path | None = None) -> str:
    """Run a shell script, whose arguments are the zone it reads and the one it writes; what it printed."""
    arguments = ["patients", f"{name}-{how}"]
    if compiled is not None:
        ran = programs.run(how, [str(compiled), *arguments])
    else:
        ran = programs.shell(how, script, *arguments)
    assert ran.status == 0, ran
    return ran.output


def decrypted(programs: Programs, place: str, target: Path) -> Path:
    """A copy of what was committed, after a look that nothing of it is stored in clear."""
    assert CANARY.encode() not in stored(programs.base / place)
    decrypt_tree(programs.base / place, target, keys=programs.agent.keys, records=programs.agent.records)
    return target


def stored(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())


@BOTH
def test_shell_tools_read_and_write_a_zone_under_its_own_path(programs: Programs, tmp_path: Path, how: str) -> None:
    script = """
    wc -l < "$1/rows.csv"; ls "$1"; test -e "$1/ä b/empty"; test ! -s "$1/ä b/empty"
    cat "$1/rows.csv" > "$2/copy.csv"
    mkdir "$2/deep"; tail -n 1 "$1/rows.csv" > "$2/deep/last"; echo more >> "$2/deep/last"
    cp -p "$2/copy.csv" "$2/second.csv"; mv "$2/second.csv" "$2/deep/moved.csv"; cmp "$2/copy.csv" "$2/deep/moved.csv"
    touch "$2/gone"; rm "$2/gone"; printf x | dd of="$2/copy.csv" bs=1 seek=3 conv=notrunc 2>/dev/null
    """
    output = run(programs, how, script, name="shell")
    assert "20001" in output
    decrypted(programs, f"shell-{how}", tmp_path / "clear")
    original = (programs.base / "plain" / "rows.csv").read_bytes()
    assert (tmp_path / "clear" / "copy.csv").read_bytes() == original[:3] + b"x" + original[4:]
    assert (tmp_path / "clear" / "deep" / "moved.csv").read_bytes() == original
    assert (tmp_path / "clear" / "deep" / "last").read_text() == f"19999,{CANARY}\nmore\n"
    assert not (tmp_path / "clear" / "gone").exists()


@BOTH
def test_a_database_is_read_changed_in_place_and_made(programs: Programs, tmp_path: Path, how: str) -> None:
    script = """
    python3 - "$1/base.db" "$2/new.db" <<'END'
import sqlite3, sys
old = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
print("rows", old.execute("select count(*) from visits").fetchone()[0])
new = sqlite3.connect(sys.argv[2])
new.execute("create table visits (id integer primary key, name text)")
new.executemany("insert into visits values (?, ?)", old.execute("select * from visits"))
new.commit()
new.execute("update visits set name = 'nobody' where id % 2 = 0")
new.execute("delete from visits where id > 100")
new.commit()
new.execute("vacuum")
new.close()
END
    """
    output = run(programs, how, script, name="sqlite")
    assert "rows 5000" in output
    decrypted(programs, f"sqlite-{how}", tmp_path / "clear")
    assert sorted(path.name for path in (tmp_path / "clear").iterdir()) == ["new.db"]
    with sqlite3.connect(tmp_path / "clear" / "new.db") as base:
        assert base.execute("select count(*) from visits where name = 'nobody'").fetchone() == (51,)
        assert base.execute("pragma integrity_check").fetchone() == ("ok",)
    base.close()


C_PROGRAM = r"""
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv) {
  char path[4096], buffer[65536];
  long lines = 0, got;
  snprintf(path, sizeof path, "%s/rows.csv", argv[1]);
  int in = open(path, O_RDONLY);
  if (in < 0 || lseek(in, 8, SEEK_SET) != 8) return 2;
  while ((got = read(in, buffer, sizeof buffer)) > 0)
    for (long i = 0; i < got; i++) lines += buffer[i] == '\n';
  snprintf(path, sizeof path, "%s/count", argv[2]);
  FILE *out = fopen(path, "w+");
  if (!out || fprintf(out, "        ") < 0 || fseek(out, 0, SEEK_SET) || fprintf(out, "%ld", lines) < 0) return 3;
  return fclose(out) ? 4 : 0;
}
"""


@BOTH
@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here")
def test_a_c_program_reads_and_writes(programs: Programs, tmp_path: Path, how: str) -> None:
    (tmp_path / "count.c").write_text(C_PROGRAM)
    subprocess.run(["cc", "-o", tmp_path / f"count-{how}", tmp_path / "count.c"], check=True)
    run(programs, how, "", name="c", compiled=tmp_path / f"count-{how}")
    decrypted(programs, f"c-{how}", tmp_path / "clear")
    assert (tmp_path / "clear" / "count").read_text() == "20000   "


@BOTH
@pytest.mark.skipif(shutil.which("Rscript") is None, reason="R is not installed (Debian: r-base-core)")
def test_an_r_program_reads_and_writes(programs: Programs, tmp_path: Path, how: str) -> None:
    script = """
    cat > "$TMPDIR/program.R" <<'END'
paths <- commandArgs(trailingOnly = TRUE)
rows <- read.csv(file.path(paths[1], "rows.csv"))
write.csv(aggregate(id ~ name, rows, sum), file.path(paths[2], "sums.csv"), row.names = FALSE)
saveRDS(rows, file.path(paths[2], "rows.rds"))
stopifnot(identical(readRDS(file.path(paths[2], "rows.rds")), rows))
END
    Rscript "$TMPDIR/program.R" "$1" "$2"
    """
    run(programs, how, script, name="r")
    decrypted(programs, f"r-{how}", tmp_path / "clear")
    assert (tmp_path / "clear" / "sums.csv").read_text() == f'"name","id"\n"{CANARY}",199990000\n'


@needs_fuse
def test_a_mounted_program_can_write_nowhere_else_but_into_private_memory(programs: Programs) -> None:
    script = f"""
    for place in /tmp {programs.base} /dev/shm "$1"; do
      if (echo plain > "$place/spilled") 2>/dev/null; then echo "WRITTEN in $place"; fi
    done
    echo kept > "$TMPDIR/file"; cat "$TMPDIR/file"; echo done > "$2/done"
    """
    output = run(programs, "mount", script, name="nowhere")
    assert "WRITTEN" not in output
    assert "kept" in output
    assert not Path("/tmp/spilled").exists()
