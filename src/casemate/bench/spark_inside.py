"""Inside one of a benchmark's Spark sessions: do what each line on standard input asks, until there is no more.

A request is a JSON object on one line, ``{"op": "sql", "text": "…"}``, and so is the reply; a failure is replied as
``{"error": "…"}``. The same program runs in every set-up, so that all that differs is the protection:

* ``plain``: no Casemate at all. ``zone``: the zone file system alone, keys from the agent of ``casemate run``.
  ``parquet_encryption``: Parquet's own encryption alone. These start a standalone cluster of Spark's own; the two have
  AES-GCM compiled early, as every job of ``casemate run`` has.
* ``full``: what ``casemate run`` prepared for any program; nothing is set here.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from casemate.bench import scan_work
from casemate.bench.answers import cell
from casemate.bench.spark_daemons import Shape, cluster

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Serve requests; the reply to the first, made when the session is up, is ``{"ready": …}``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("setup", choices=("plain", "zone", "parquet_encryption", "full"))
    parser.add_argument("--shape", type=Shape.parse, required=True)
    parser.add_argument("--scratch", default=None)
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # clean up also when the one who asks was killed
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever else prints, prints to the log
    with ExitStack() as stack:
        if options.setup == "full":
            spark = _builder(options.shape).getOrCreate()
        else:
            scratch = Path(tempfile.mkdtemp(prefix="bench-", dir=options.scratch))
            stack.callback(shutil.rmtree, scratch, ignore_errors=True)
            master = stack.enter_context(cluster(options.shape, scratch))
            builder = _builder(options.shape).master(master)
            for name, value in _settings(options.setup, options.shape, scratch).items():
                builder = builder.config(name, value)
            spark = builder.getOrCreate()
        stack.callback(spark.stop)
        _reply(replies, {"ready": spark.version, "java": _java(spark)})
        _serve(spark, sys.stdin, replies)


def _builder(shape: Shape) -> Any:
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.appName("bench")
    for name, value in shape.sql_settings().items():
        builder = builder.config(name, value)
    return builder


def _settings(setup: str, shape: Shape, scratch: Path) -> dict[str, str]:
    """What ``casemate run`` would set apart from protection, and of that what ``setup`` is about."""
    from casemate.engines.spark_cluster import COMPILE_EARLY
    from casemate.engines.spark_conf import filesystems
    from casemate.engines.spark_home import find_spark
    from casemate.engines.spark_parquet import FACTORY

    settings = {
        **shape.settings(),
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.local.dir": f"{scratch}/local",
        "spark.sql.warehouse.dir": f"file://{scratch}/warehouse",
        "spark.python.unix.domain.socket.enabled": "true",
        "spark.log.level": "WARN",
    }
    if setup == "plain":
        return settings
    jar = str(find_spark(dict(os.environ)).jar)
    for process in ("driver", "executor"):
        settings[f"spark.{process}.extraClassPath"] = jar
        settings[f"spark.{process}.extraJavaOptions"] = " ".join(COMPILE_EARLY)
    return settings | (filesystems() if setup == "zone" else FACTORY)


def _serve(spark: Any, requests: IO[str], replies: IO[str]) -> None:
    operations: dict[str, Callable[..., dict[str, Any]]] = {
        "tables": _tables,
        "sql": _sql,
        "tidy": _tidy,
        "scan": scan_work.scan,
        "write": scan_work.write,
        "layout": scan_work.layout,
    }
    for line in requests:
        request = json.loads(line)
        try:
            reply = operations[request.pop("op")](spark, **request)
        except Exception as exc:  # the one who asks decides
            reply = {"error": f"{type(exc).__name__}: {exc}"[:4000]}
        _reply(replies, reply)


def _reply(replies: IO[str], reply: dict[str, Any]) -> None:
    replies.write(json.dumps(reply) + "\n")
    replies.flush()


def _java(spark: Any) -> str:
    return str(spark._jvm.System.getProperty("java.version"))


def _tables(spark: Any, directory: str, names: list[str]) -> dict[str, Any]:
    """Make each directory of Parquet files below ``directory`` a table of that name."""
    for name in names:
        spark.read.parquet(f"file://{directory}/{name}").createOrReplaceTempView(name)
    return {"tables": len(names)}


def _sql(spark: Any, text: str) -> dict[str, Any]:
    """The answer and the seconds from the text of the query to the last row in this process."""
    begin = time.perf_counter()
    rows = spark.sql(text).collect()
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "rows": [[cell(value) for value in row] for row in rows]}


def _tidy(spark: Any) -> dict[str, Any]:
    """Have Spark remove what earlier queries have shuffled: it does when the driver's heap is collected."""
    spark._jvm.System.gc()
    return {}


if __name__ == "__main__":
    main(sys.argv[1:])
