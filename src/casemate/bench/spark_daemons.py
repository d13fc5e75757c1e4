"""A standalone cluster of Spark's own, unprotected: the other side of what ``casemate run`` starts for a job.

It has the same shape, the same Java options and the same kind of scratch directory, so that a comparison of the two
is one of protection alone.
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from casemate.bench.errors import BenchSessionError
from casemate.demo.sandbox import die_with_parent
from casemate.engines.spark_cluster import logging
from casemate.engines.spark_home import find_spark

__all__ = ["Shape", "cluster"]

_OPTIONS = ("-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:-UsePerfData")
_READY_SECONDS = 300


@dataclass(frozen=True)
class Shape:
    """What every set-up of a comparison has alike: workers of one executor each, their cores, and heap sizes."""

    workers: int  # 0: no cluster, all in the driver's JVM
    cores: int  # of each worker, or of the driver where there is none
    executor_memory: str
    driver_memory: str
    partitions: int  # of a shuffle

    @classmethod
    def of_this_machine(cls, *, local: bool = False) -> Shape:
        """Two workers that share the cores, so that every shuffle has something to send over the network."""
        cores = os.cpu_count() or 1
        large = psutil.virtual_memory().total >= 48 << 30  # four set-ups with a driver and two executors each
        heap = "2g" if large else "1g"
        if local:
            return cls(0, cores, heap, "2g", max(4, 2 * cores))
        driver = "2g" if large else "1536m"  # query 35 broadcasts tables that 1g does not hold
        return cls(2, max(1, cores // 2), heap, driver, max(4, 2 * cores))

    @classmethod
    def parse(cls, text: str) -> Shape:
        """The inverse of ``str``."""
        workers, cores, executor, driver, partitions = text.split(",")
        return cls(int(workers), int(cores), executor, driver, int(partitions))

    def __str__(self) -> str:
        return f"{self.workers},{self.cores},{self.executor_memory},{self.driver_memory},{self.partitions}"

    @property
    def master(self) -> str:
        """The value of ``casemate submit --master``."""
        return "standalone" if self.workers else f"local[{self.cores}]"

    def settings(self) -> dict[str, str]:
        """What has to be said when the job starts: heaps, and that executors of one machine use the network."""
        return {
            "spark.executor.memory": self.executor_memory,
            "spark.driver.memory": self.driver_memory,
            "spark.shuffle.readHostLocalDisk": "false",
        }

    def sql_settings(self) -> dict[str, str]:
        return {"spark.sql.shuffle.partitions": str(self.partitions), "spark.ui.showConsoleProgress": "false"}


@contextmanager
def cluster(shape: Shape, scratch: Path) -> Iterator[str]:
    """A master and its workers until the block ends; gives the master's address. Raises ``BenchSessionError``."""
    if not shape.workers:
        yield shape.master
        return
    home = find_spark(dict(os.environ))
    environment = {
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_HOME": str(home.spark),
        "SPARK_SCALA_VERSION": "2.13",
        "SPARK_LOCAL_DIRS": f"{scratch}/local",
        "JAVA_HOME": str(home.java),
    }
    with ExitStack() as stack:

        def daemon(name: str, main_class: str, announced: str, *arguments: str) -> str:
            configuration = scratch / name
            configuration.mkdir()
            (configuration / "log4j2.properties").write_text(logging(informative=(main_class,)))
            command = [str(home.java / "bin" / "java"), "-cp", home.class_path(configuration), *_OPTIONS]
            command += [f"-Djava.io.tmpdir={configuration}", main_class, "--host", "127.0.0.1", *arguments]
            process = subprocess.Popen(
                command,
                env={**os.environ, **environment, "SPARK_CONF_DIR": str(configuration)},  # executors log as this does
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                preexec_fn=die_with_parent(),
            )
            stack.callback(_end, process)
            return _wait(process, re.compile(announced), name)

        url = daemon(
            *("master", "org.apache.spark.deploy.master.Master", r"Starting Spark master at (spark://\S+)"),
            *("--port", "0", "--webui-port", "0"),
        )
        for number in range(shape.workers):
            daemon(
                *(f"worker-{number}", "org.apache.spark.deploy.worker.Worker", r"(Successfully registered)"),
                *("--webui-port", "0", "--cores", str(shape.cores), "--work-dir", f"{scratch}/work-{number}", url),
            )
        yield url


def _wait(process: subprocess.Popen[str], announced: re.Pattern[str], name: str) -> str:
    """What the daemon announces; afterwards its log is read on, and dropped, so that it never waits for us."""
    timer = threading.Timer(_READY_SECONDS, process.kill)
    timer.start()
    last = ""
    try:
        for line in process.stderr or ():
            last = line.strip() or last
            if found := announced.search(line):
                threading.Thread(target=_drain, args=(process.stderr,), daemon=True).start()
                return found[1]
    finally:
        timer.cancel()
    raise BenchSessionError(f"Spark's own {name} did not start: {last}")


def _drain(stream: Any) -> None:
    for _ in stream:
        pass


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
