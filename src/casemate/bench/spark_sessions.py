"""Long-lived Spark sessions, one for each set-up of a comparison, to send the same work to in turn.

The protected ones are jobs of ``casemate submit`` in SIMULATED TEEs: attested, their keys released by a broker.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from casemate.attestation.private_memory import private_memory
from casemate.bench.errors import BenchSessionError
from casemate.bench.spark_daemons import Shape
from casemate.demo.sandbox import Sandbox

__all__ = ["SETUPS", "Session", "SparkSessions", "open_sessions", "processor_seconds"]

SETUPS = ("plain", "zone", "parquet_encryption", "full")
_PROGRAM = Path(__file__).with_name("spark_inside.py")
_START_SECONDS = 900.0  # all start at once; on a busy machine that takes minutes
_STOP_SECONDS = 60.0


@dataclass
class Session:
    """One set-up's Spark, as this process sees it."""

    setup: str
    process: subprocess.Popen[str]
    log: Path

    def ask(self, request: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """The reply to one request; raises ``BenchSessionError`` when it fails or takes longer than ``timeout`` s."""
        assert self.process.stdin is not None  # noqa: S101 - for the type checker
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except OSError as exc:
            raise self._error("ended") from exc
        return self.reply(timeout)

    def reply(self, timeout: float) -> dict[str, Any]:
        assert self.process.stdout is not None  # noqa: S101
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            if not selector.select(timeout):
                raise self._error(f"did not answer within {timeout:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            raise self._error("ended")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise self._error(f"failed: {reply['error'][:600]}")
        return reply

    def _error(self, what: str) -> BenchSessionError:
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return BenchSessionError(
            f"session {self.setup} {what}; log {self.log}: {lines[-1][:300] if lines else 'empty'}"
        )

    def close(self) -> None:
        """The session ends when its input does."""
        if self.process.stdin is not None:
            try:
                self.process.stdin.close()
            except OSError:
                self.process.kill()
        try:
            self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.terminate()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


@dataclass(frozen=True)
class SparkSessions:
    """The sessions by set-up, and the versions they said."""

    by_setup: Mapping[str, Session]
    versions: Mapping[str, str]

    def __getitem__(self, setup: str) -> Session:
        return self.by_setup[setup]


def processor_seconds() -> float:
    """What all processes below this one have computed; the sessions that wait add next to nothing meanwhile."""
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system
    return total


@contextmanager
def open_sessions(
    sandbox: Sandbox,
    setups: Sequence[str],
    zones: Mapping[str, Sequence[str]],
    *,
    shape: Shape,
    logs: Path,
    progress: Callable[[str], None] = lambda line: None,
) -> Iterator[SparkSessions]:
    """Start a session of each of ``setups`` at once and give them when all are up; they end with the block.

    ``zones``: for each protected set-up the ``--read`` and ``--write`` options of its job."""
    logs.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        sessions = {}
        for setup in setups:
            log = logs / f"{setup}.log"
            with log.open("w") as file:
                process = sandbox.start(
                    _command(setup, zones.get(setup, ()), shape), stdin=subprocess.PIPE, stderr=file
                )
            sessions[setup] = Session(setup, process, log)
            stack.callback(sessions[setup].close)
        deadline = time.monotonic() + _START_SECONDS
        versions: dict[str, str] = {}
        for setup, session in sessions.items():
            ready = session.reply(max(1.0, deadline - time.monotonic()))
            versions = {"spark": ready["ready"], "java": ready["java"]}
            progress(f"session {setup} is up{'' if setup == 'plain' else ' (SIMULATED TEE)'}")
        yield SparkSessions(sessions, versions)


def _command(setup: str, zones: Sequence[str], shape: Shape) -> list[str]:
    arguments = [setup, "--shape", str(shape)]
    if setup == "plain":
        return [sys.executable, str(_PROGRAM), *arguments, "--scratch", str(private_memory())]
    if setup == "full":
        conf = shape.settings()
        how = ["--launcher", "python", "--master", shape.master, "--workers", str(shape.workers or 1)]
        how += [item for name, value in conf.items() for item in ("--conf", f"{name}={value}")]
    else:
        how = ["--engine", "plain"]
        if "JAVA_HOME" in os.environ:
            how += ["--env", f"JAVA_HOME={os.environ['JAVA_HOME']}"]
    command = [sys.executable, "-m", "casemate", "submit", *how, "--grant-for", "12h", *zones, str(_PROGRAM)]
    return [*command, "--", *arguments]
