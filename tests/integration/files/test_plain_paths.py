"""Programs in any language that know only plain paths: through a mount, and on copies in private memory."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.stage import Job, Stage

from casemate.model import Access
from casemate.workload.build import zone_entry

CANARY = "Ada-Lovelace-0815"

needs_fuse = pytest.mark.skipif(
    not os.access("/dev/fuse", os.R_OK | os.W_OK) or not any(Path("/usr/lib").rglob("libfuse3.so.3")),
    reason="no /dev/fuse or no libfuse3 here",
)
BOTH = pytest.mark.parametrize("how", [pytest.param("mount", marks=needs_fuse), "stage"])


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(tmp_path_factory.mktemp("stage")) as stage:
        plain = stage.root / "plain"
        (plain / "ä b").mkdir(parents=True)
        (plain / "rows.csv").write_text("id,name\n" + "".join(f"{i},{CANARY}\n" for i in range(20_000)))
        (plain / "ä b" / "empty").touch()
        with sqlite3.connect(plain / "base.db") as base:
            base.execute("create table visits (id integer primary key, name text)")
            base.executemany("insert into visits values (?, ?)", [(i, CANARY) for i in range(5000)])
        base.close()
        stage.encrypt("patients", plain, stage.root / "vault" / "patients")
        yield stage


def run(stage: Stage, how: str, script: str, *, name: str, compiled: Path | None = None) -> Job:
    """A shell script as the job's program; its arguments are the zone it reads and the one it writes."""
    program = compiled or stage.root / f"{name}.sh"
    if compiled is None:
        program.write_text(f"#!/bin/sh\nset -eu\n{script}\n")
    zones = [
        zone_entry(stage.dataset("patients"), str(stage.root / "vault" / "patients"), Access.READ),
        zone_entry(stage.dataset(f"report-{name}"), str(stage.root / "vault" / name), Access.READ | Access.WRITE),
    ]
    job = stage.job(
        program,
        ["vault/patients", f"vault/{name}"],
        zones,
        engine="plain",
        command=("{program}", "{args}"),
        engine_settings={"files": how},
    )
    stage.run(job)
    return job


def stored(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())


@BOTH
def test_shell_tools_read_and_write_a_zone_under_its_own_path(stage: Stage, tmp_path: Path, how: str) -> None:
    script = """
    wc -l < "$1/rows.csv"; ls "$1"; test -e "$1/ä b/empty"; test ! -s "$1/ä b/empty"
    cat "$1/rows.csv" > "$2/copy.csv"
    mkdir "$2/deep"; tail -n 1 "$1/rows.csv" > "$2/deep/last"; echo more >> "$2/deep/last"
    cp -p "$2/copy.csv" "$2/second.csv"; mv "$2/second.csv" "$2/deep/moved.csv"; cmp "$2/copy.csv" "$2/deep/moved.csv"
    touch "$2/gone"; rm "$2/gone"; printf x | dd of="$2/copy.csv" bs=1 seek=3 conv=notrunc 2>/dev/null
    """
    job = run(stage, how, script, name=f"shell-{how}")
    assert job.outcome.outcome == "done", (job.outcome, job.output)
    assert "20001" in job.output
    vault = stage.root / "vault" / f"shell-{how}"
    assert CANARY.encode() not in stored(vault)
    stage.decrypt(vault, tmp_path / "clear")
    original = (stage.root / "plain" / "rows.csv").read_bytes()
    assert (tmp_path / "clear" / "copy.csv").read_bytes() == original[:3] + b"x" + original[4:]
    assert (tmp_path / "clear" / "deep" / "moved.csv").read_bytes() == original
    assert (tmp_path / "clear" / "deep" / "last").read_text() == f"19999,{CANARY}\nmore\n"
    assert not (tmp_path / "clear" / "gone").exists()


@BOTH
def test_a_database_is_read_changed_in_place_and_made(stage: Stage, tmp_path: Path, how: str) -> None:
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
    job = run(stage, how, script, name=f"sqlite-{how}")
    assert job.outcome.outcome == "done", (job.outcome, job.output)
    assert "rows 5000" in job.output
    vault = stage.root / "vault" / f"sqlite-{how}"
    assert CANARY.encode() not in stored(vault)
    stage.decrypt(vault, tmp_path / "clear")
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
def test_a_c_program_reads_and_writes(stage: Stage, tmp_path: Path, how: str) -> None:
    (tmp_path / "count.c").write_text(C_PROGRAM)
    subprocess.run(["cc", "-o", tmp_path / f"count-{how}", tmp_path / "count.c"], check=True)
    job = run(stage, how, "", name=f"c-{how}", compiled=tmp_path / f"count-{how}")
    assert job.outcome.outcome == "done", (job.outcome, job.output)
    stage.decrypt(stage.root / "vault" / f"c-{how}", tmp_path / "clear")
    assert (tmp_path / "clear" / "count").read_text() == "20000   "


@BOTH
@pytest.mark.skipif(shutil.which("Rscript") is None, reason="R is not installed (Debian: r-base-core)")
def test_an_r_program_reads_and_writes(stage: Stage, tmp_path: Path, how: str) -> None:
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
    job = run(stage, how, script, name=f"r-{how}")
    assert job.outcome.outcome == "done", (job.outcome, job.output)
    stage.decrypt(stage.root / "vault" / f"r-{how}", tmp_path / "clear")
    assert (tmp_path / "clear" / "sums.csv").read_text() == f'"name","id"\n"{CANARY}",199990000\n'


@needs_fuse
def test_a_mounted_program_can_write_nowhere_else_but_into_private_memory(stage: Stage) -> None:
    script = f"""
    for place in /tmp {stage.root} /dev/shm "$1"; do
      if (echo plain > "$place/spilled") 2>/dev/null; then echo "WRITTEN in $place"; fi
    done
    echo kept > "$TMPDIR/file"; cat "$TMPDIR/file"; echo done > "$2/done"
    """
    job = run(stage, "mount", script, name="nowhere")
    assert job.outcome.outcome == "done", (job.outcome, job.output)
    assert "WRITTEN" not in job.output
    assert "kept" in job.output
    assert not Path("/tmp/spilled").exists()


@BOTH
def test_a_damaged_file_fails_the_program_and_the_job(stage: Stage, how: str) -> None:
    victim = stage.root / "vault" / "patients" / "rows.csv"
    good = victim.read_bytes()
    victim.write_bytes(good[:-40] + bytes([good[-40] ^ 1]) + good[-39:])
    try:
        job = run(stage, how, 'cat "$1/rows.csv" > "$2/copy.csv" || true', name=f"damaged-{how}")
    finally:
        victim.write_bytes(good)
    assert (job.outcome.outcome, job.outcome.code) == ("refused", "file-tampered"), job.output
    assert str(victim) in job.outcome.message


@BOTH
def test_a_program_that_fails_commits_nothing(stage: Stage, how: str) -> None:
    job = run(stage, how, 'echo half > "$2/half"; exit 7', name=f"fails-{how}")
    assert (job.outcome.outcome, job.outcome.code) == ("failed", "program-ended")
    assert not list((stage.root / "vault" / f"fails-{how}").rglob("manifest-*"))


@needs_fuse
def test_nothing_is_mounted_when_the_job_has_ended_even_with_children_left_behind(stage: Stage) -> None:
    job = run(stage, "mount", '(sleep 300 & ) ; echo kept > "$2/kept"', name="left")
    assert job.outcome.outcome == "done", (job.outcome, job.output)
    assert "casemate" not in Path("/proc/self/mounts").read_text().replace(str(stage.root), "")
    assert list((stage.root / "vault" / "left").rglob("manifest-*"))
