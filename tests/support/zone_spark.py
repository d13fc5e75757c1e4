"""A real Spark session in this process whose JVM sees zones through a fake agent."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.support.fake_agent import FakeAgent

from casemate.engines.spark_conf import filesystems

__all__ = ["JAR", "zone_settings", "zone_spark"]

JAR = Path(__file__).resolve().parents[2] / "src/casemate/jars/casemate-spark.jar"


def zone_settings(private: Path) -> dict[str, str]:
    """What a Spark needs to see zones, with a directory for plaintext; and no retries, so that a failure is one."""
    return {
        **filesystems(),
        "spark.driver.extraClassPath": str(JAR),
        "spark.driver.extraJavaOptions": f"-Djava.io.tmpdir={private} -Dderby.system.home={private}",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.local.dir": str(private),
        "spark.sql.warehouse.dir": f"file://{private}/warehouse",
        "spark.sql.shuffle.partitions": "2",
        "spark.task.maxFailures": "1",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.log.level": "FATAL",
    }


@contextlib.contextmanager
def zone_spark(agent: FakeAgent, private: Path, more: Mapping[str, str] | None = None) -> Iterator[Any]:
    """A ``local[2]`` session; ``private`` is a directory for plaintext, ``more`` are further settings.

    While it lives, this process is the agent's client as well."""
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    os.environ["CASEMATE_AGENT_SOCKET"] = str(agent.socket)
    builder = SparkSession.builder.master("local[2]").appName("zones")
    for name, value in {**zone_settings(private), **(more or {})}.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    try:
        yield session
    finally:
        session.stop()
        gateway = SparkContext._gateway
        SparkContext._gateway = SparkContext._jvm = None
        gateway.shutdown()
        gateway.proc.stdin.close()
        gateway.proc.wait(30)
        del os.environ["CASEMATE_AGENT_SOCKET"]
