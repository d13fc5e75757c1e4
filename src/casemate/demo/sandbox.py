"""A Casemate of one's own for a while: a fresh home, a broker, a simulated machine; gone without a trace afterwards.

The services are children of this process and die with it, whatever ends it, unlike those of a plain ``casemate up``.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from casemate.errors import FailedError

__all__ = ["Finished", "Sandbox", "die_with_parent", "free_port"]

_PR_SET_PDEATHSIG = 1  # prctl(2)
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(signal_number: int = signal.SIGTERM) -> Callable[[], None]:
    """For ``preexec_fn``: the kernel sends the child ``signal_number`` when this process ends, even by SIGKILL."""

    def arrange() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal_number)

    return arrange


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on at this moment."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@dataclass(frozen=True)
class Finished:
    """A command that ended: its status, what it printed, and the one line that says why when it was refused."""

    command: str
    status: int
    stdout: str
    stderr: str

    @property
    def value(self) -> Any:
        """The JSON on standard output of a ``--format json`` command; raises ``FailedError`` when there is none."""
        try:
            return json.loads(self.stdout)
        except ValueError as exc:
            raise FailedError(f"{self.command}: no JSON on standard output: {self.line}") from exc

    @property
    def line(self) -> str:
        """The line a person would read first: the refusal, or the last one."""
        lines = [line.strip() for line in self.stderr.splitlines() if line.strip()]
        words = ("refused:", "undecided:", "failed:", "usage:")
        return next((line for line in lines if line.startswith(words)), lines[-1] if lines else "")

    @property
    def code(self) -> str | None:
        """The stable error code in ``line``."""
        parts = self.line.split(":")
        return parts[1].strip() if len(parts) > 2 else None

    def check(self) -> Finished:
        """This, or ``FailedError`` when the command did not succeed."""
        if self.status != 0:
            raise FailedError(f"{self.command} ended with status {self.status}: {self.line}")
        return self


class Sandbox:
    """Runs ``casemate`` commands against services of its own. A context manager.

    ``keep``: what an earlier sandbox left in ``home`` (keys, records, grants) is still there."""

    def __init__(self, home: Path, *, echo: Callable[[str], None] = lambda line: None, keep: bool = False) -> None:
        self.home = home.absolute()
        self.echo = echo
        self._keep = keep
        self._services: subprocess.Popen[bytes] | None = None
        self._running: list[subprocess.Popen[str]] = []

    @property
    def pid(self) -> int:
        """The process that all services, and every program they launch, descend from."""
        if self._services is None:
            raise FailedError("the sandbox's services do not run")
        return self._services.pid

    @property
    def environment(self) -> dict[str, str]:
        keep = {name: value for name, value in os.environ.items() if not name.startswith(("CASEMATE_", "SPARK_"))}
        keep["PATH"] = f"{Path(sys.executable).parent}:{keep.get('PATH', os.defpath)}"
        return {**keep, "CASEMATE_HOME": str(self.home), "COLUMNS": "160"}

    def __enter__(self) -> Self:
        if not self._keep:
            shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir(parents=True, mode=0o700, exist_ok=self._keep)
        command = ["up", "--foreground", "--port", str(free_port())]
        self.echo(f"$ casemate {' '.join(command[:1])}")
        self._services = subprocess.Popen(
            [sys.executable, "-m", "casemate", *command],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is ours to pass on, in order
            preexec_fn=die_with_parent(),
        )
        said = []
        for raw in self._services.stdout or ():
            said.append(raw.decode(errors="replace").rstrip())
            self.echo(said[-1])
            if said[-1].startswith("ready"):
                return self
        self.__exit__(None, None, None)
        raise FailedError(f"casemate up did not become ready: {said[-1] if said else 'no output'}")

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        processes: list[subprocess.Popen[Any]] = [*self._running]
        if self._services is not None:
            processes.append(self._services)
        for process in processes:
            with suppress(ProcessLookupError):
                process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._services is not None and self._services.stdout is not None:
            self._services.stdout.close()
        self._running, self._services = [], None

    def start(
        self,
        command: Sequence[str],
        *,
        stdin: IO[str] | int = subprocess.DEVNULL,
        stdout: IO[str] | int = subprocess.PIPE,
        stderr: IO[str] | int = subprocess.PIPE,
    ) -> subprocess.Popen[str]:
        """Start a program that ends, at the latest, with this sandbox."""
        process = subprocess.Popen(
            list(command),
            env=self.environment,
            cwd=self.home.parent,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            text=True,
            start_new_session=True,
            preexec_fn=die_with_parent(),
        )
        self._running.append(process)
        return process

    def finish(self, process: subprocess.Popen[str], shown: str) -> Finished:
        """Wait for a started program."""
        stdout, stderr = process.communicate()
        self._running.remove(process)
        return Finished(shown, process.returncode, stdout or "", stderr or "")

    def casemate(self, *arguments: str, silent: bool = False) -> Finished:
        """Run one ``casemate`` command to its end. Ctrl-C ends it and everything it started."""
        shown = f"casemate {' '.join(arguments)}"
        if not silent:
            self.echo(f"$ {shown}")
        return self.finish(self.start([sys.executable, "-m", "casemate", *arguments]), shown)
