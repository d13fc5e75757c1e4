"""What a session of ``casemate bench scan`` does when asked: read or write one format, and say how it was split."""

from __future__ import annotations

import time
import uuid
from typing import Any

__all__ = ["COLUMNS", "FORMATS", "layout", "scan", "write"]

FORMATS = ("csv", "json", "text", "parquet", "orc")
COLUMNS = "id long, amount double, code string, note string"
_GENERATED = (
    "id",
    "rand(7) * 1000 as amount",
    "substr(sha1(cast(id as string)), 1, 12) as code",
    "concat('note ', sha1(cast(id * 31 as string))) as note",
)


def scan(spark: Any, kind: str, path: str) -> dict[str, Any]:
    """Read every value of every row, and keep none; seconds, rows' tasks."""
    frame = _frame(spark, kind, path)
    group = uuid.uuid4().hex
    spark.sparkContext.setJobGroup(group, f"scan {kind}")
    begin = time.perf_counter()
    frame.write.format("noop").mode("overwrite").save()
    return {"seconds": time.perf_counter() - begin, "tasks": _tasks(spark, group)}


def write(spark: Any, kind: str, path: str, rows: int, partitions: int) -> dict[str, Any]:
    """Make rows up and write them; seconds and tasks."""
    frame = spark.range(0, rows, 1, partitions).selectExpr(*_GENERATED)
    if kind == "text":
        frame = frame.selectExpr("concat_ws(' ', id, amount, code, note) as value")
    group = uuid.uuid4().hex
    spark.sparkContext.setJobGroup(group, f"write {kind}")
    begin = time.perf_counter()
    frame.write.format(kind).mode("overwrite").save(path)
    return {"seconds": time.perf_counter() - begin, "tasks": _tasks(spark, group)}


def layout(spark: Any, kind: str, path: str) -> dict[str, Any]:
    """Rows, splits (file name, start, length of what each task reads) and blocks, as Spark and Hadoop see them."""
    frame = _frame(spark, kind, path)
    splits = [
        [[str(part.filePath()).rpartition("/")[2], part.start(), part.length()] for part in partition.files()]
        for partition in frame._jdf.queryExecution().toRdd().partitions()
    ]
    jvm = spark._jvm
    directory = jvm.org.apache.hadoop.fs.Path(path)
    system = directory.getFileSystem(spark._jsc.hadoopConfiguration())
    blocks = []
    for status in system.listStatus(directory):
        name = status.getPath().getName()
        if not name.startswith(("_", ".")):
            locations = system.getFileBlockLocations(status, 0, status.getLen())
            spans = [[location.getOffset(), location.getLength(), list(location.getHosts())] for location in locations]
            blocks.append([name, status.getLen(), status.getBlockSize(), spans])
    return {"rows": frame.count(), "splits": splits, "blocks": sorted(blocks)}


def _frame(spark: Any, kind: str, path: str) -> Any:
    reader = spark.read.format(kind)
    if kind in ("csv", "json"):
        reader = reader.schema(COLUMNS)
    return reader.load(path)


def _tasks(spark: Any, group: str) -> int:
    """Tasks of all stages of the group's jobs."""
    tracker = spark.sparkContext.statusTracker()
    total = 0
    for job in tracker.getJobIdsForGroup(group):
        info = tracker.getJobInfo(job)
        for stage in info.stageIds if info is not None else ():
            found = tracker.getStageInfo(stage)
            total += found.numTasks if found is not None else 0
    return total
