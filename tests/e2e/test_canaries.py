"""A canary in the data is nowhere outside a TEE's private memory, in no format, whatever way the program goes in;
and the same search finds it in every one of these files once they are decrypted."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.plain_programs import needs_fuse

from casemate.demo.sandbox import Finished, Sandbox
from casemate.demo.search import Watcher, search_tree

pytestmark = [pytest.mark.spark, pytest.mark.timeout(400)]

CANARY = f"CANARY{secrets.token_hex(8).upper()}"
NEEDLES = {"canary": CANARY.encode(), "canary (UTF-16)": CANARY.encode("utf-16-le")}

SPARK_PROGRAM = """
import sys
import fsspec
from pyspark.sql import SparkSession

source, target = sys.argv[1:]
spark = SparkSession.builder.getOrCreate()
spark.conf.set("spark.sql.shuffle.partitions", "2")
rows = spark.read.csv(source, header=True).repartition(3, "id").cache()
plain = {"compression": "none"}
for kind, options in {"csv": {}, "json": {}, "xml": {"rowTag": "row"}, "parquet": plain, "orc": plain}.items():
    rows.write.format(kind).options(**options).save(f"{target}/{kind}")
rows.select("name").write.text(f"{target}/text")
files = fsspec.filesystem("zone")
files.pipe(f"{target}/binary", "".join(row.name for row in rows.collect()).encode("utf-16-le"))
with files.open(f"{target}/arrow", "wb") as file:
    rows.toPandas().to_feather(file, compression="uncompressed")
stream = spark.readStream.schema(rows.schema).parquet(f"{target}/parquet")
for name, frame, mode, sink in (
    ("stream", stream, "append", "parquet"),
    ("state", stream.groupBy("name").count(), "complete", "noop"),
):
    writer = frame.writeStream.format(sink).outputMode(mode).option("checkpointLocation", f"{target}/{name}-checkpoint")
    if sink == "parquet":
        writer = writer.option("compression", "none").option("path", f"{target}/{name}")
    writer.trigger(availableNow=True).start().awaitTermination()
spark.stop()
"""

PLAIN_PROGRAM = """#!/bin/sh
set -eu
python3 - "$1" "$2" <<'END'
import pathlib, sqlite3, sys, tempfile, time
source, target = map(pathlib.Path, sys.argv[1:])
rows = source.joinpath("rows.csv").read_text()
target.joinpath("copy.csv").write_text(rows)
base = sqlite3.connect(target / "base.db")
base.execute("create table rows (line text)")
base.executemany("insert into rows values (?)", [(line,) for line in rows.splitlines()])
base.commit()
with open(target / "changed", "w+") as file, tempfile.NamedTemporaryFile("w") as scratch:
    file.write(rows), file.flush(), file.seek(5), file.write(rows), file.flush()
    scratch.write(rows), scratch.flush()
    time.sleep(1.5)  # under the watcher's eyes
base.close()
END
"""


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    base = tmp_path_factory.mktemp("canary")
    plain = base / "plain"
    plain.mkdir()
    (plain / "rows.csv").write_text("id,name\n" + "".join(f"{n},{CANARY}-{n}\n" for n in range(500)))
    (base / "spark.py").write_text(SPARK_PROGRAM)
    (base / "plain.sh").write_text(PLAIN_PROGRAM)
    with Sandbox(base / "home") as sandbox:
        for dataset in ("o/in", "o/out"):
            sandbox.casemate("key", "create", dataset).check()
        sandbox.casemate("encrypt", str(plain), str(base / "vault/in"), "--dataset", "o/in").check()
        yield sandbox


def watched(sandbox: Sandbox, target: Path, program: str, *options: str) -> Finished:
    """Run a program on the vault, searching all the while for the canary outside of private memory."""
    base = sandbox.home.parent
    # What a TEE keeps in its private memory is its own; everything else is the storage and host owner's to read.
    private = list(Path("/dev/shm").glob("casemate-*"))
    target.mkdir()
    roots, shared = [base], [Path("/dev/shm"), Path("/tmp")]
    with Watcher(NEEDLES, roots, shared=shared, skip=[*private, base / "plain"], environ=False) as watcher:
        finished = sandbox.casemate(
            *("submit", str(base / program), str(base / "vault/in"), str(target)),
            *("--read", f"o/in={base}/vault/in", *options),
            *(word for access in ("--read", "--write") for word in (access, f"o/out={target}")),
        )
    assert finished.check().status == 0
    assert watcher.files_searched > 10
    assert watcher.hits == set()
    left = {hit for path in private for hit in search_tree(path, NEEDLES)}
    assert left == set(), "private memory outlived the job"
    return finished


def in_clear(sandbox: Sandbox, target: Path) -> set[str]:
    """The entries of what was written that hold the canary once they are decrypted."""
    clear = sandbox.home.parent / "plain" / f"clear-{target.name}"
    sandbox.casemate("decrypt", str(target), str(clear), "--insecure-skip-manifest").check()
    return {Path(hit.place).relative_to(clear).parts[0] for hit in search_tree(clear, NEEDLES)}


FORMATS = {"csv", "json", "xml", "text", "parquet", "orc", "binary", "arrow"}


def test_no_format_and_no_stream_of_spark_shows_the_canary(sandbox: Sandbox) -> None:
    target = sandbox.home.parent / "vault" / "spark"
    fast = ("--conf", "spark.driver.extraJavaOptions=-XX:TieredStopAtLevel=1")
    watched(sandbox, target, "spark.py", "--master", "local[2]", *fast)
    assert in_clear(sandbox, target) == FORMATS | {"stream", "state-checkpoint"}


@pytest.mark.parametrize("how", [pytest.param("--mount", marks=needs_fuse), "--stage"])
def test_no_plain_file_shows_the_canary(sandbox: Sandbox, how: str) -> None:
    target = sandbox.home.parent / "vault" / how.strip("-")
    watched(sandbox, target, "plain.sh", "--engine", "plain", how)
    assert in_clear(sandbox, target) == {"copy.csv", "base.db", "changed"}
