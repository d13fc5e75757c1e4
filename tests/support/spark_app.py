"""Spark applications of their own, each a job, that tests drive line by line: to run two at once, and to kill one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.fake_agent import FakeAgent
from tests.support.zone_spark import zone_settings

__all__ = ["SparkApp"]

_PROGRAM = """
import json, sys, traceback
from pyspark.sql import SparkSession
builder = SparkSession.builder.master("local[2]").appName("app")
for name, value in json.loads(sys.argv[1]).items():
    builder = builder.config(name, value)
scope = {"spark": builder.getOrCreate()}
print(json.dumps({"pid": scope["spark"].sparkContext._gateway.proc.pid}), flush=True)
for line in sys.stdin:
    try:
        exec(json.loads(line), scope)
        print(json.dumps({"result": scope.get("result")}), flush=True)
    except Exception as exc:
        print(json.dumps({"error": str(exc)}), flush=True)
"""


class SparkApp:
    """One application and its JVM; ``kill`` ends both as a machine's failure would."""

    def __init__(self, agent: FakeAgent, private: Path) -> None:
        private.mkdir(exist_ok=True)
        settings = {**zone_settings(private), "spark.log.level": "OFF"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=private,
            env=agent.environment(),
        )
        self._jvm = int(self._answer()["pid"])  # type: ignore[call-overload]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self, code: str) -> None:
        """Run Python code with ``spark`` in it; ``finish`` waits for it."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(code) + "\n")
        self._process.stdin.flush()

    def finish(self) -> object:
        """What the code assigned to ``result``; raises ``RuntimeError`` with the application's error."""
        answer = self._answer()
        if "error" in answer:
            raise RuntimeError(str(answer["error"]))
        return answer["result"]

    def run(self, code: str) -> object:
        self.start(code)
        return self.finish()

    def kill(self) -> None:
        for pid in (self._jvm, self._process.pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    continue

    def _answer(self) -> dict[str, object]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the application is gone")
        found: dict[str, object] = json.loads(line)
        return found
