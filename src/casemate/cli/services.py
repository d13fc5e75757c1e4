"""Background processes of ``casemate up``: started, found again, and stopped exactly once, never by name.

A process record holds the process id and its start time, so that a recycled process id is never mistaken for ours.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from casemate.cli.errors import StartFailedError, StateBusyError
from casemate.files import write_whole
from casemate.settings import Settings

__all__ = ["BROKER", "SERVICES", "TEE_HOST", "Service", "exclusive", "find", "start", "stop"]

BROKER = "broker"
TEE_HOST = "tee-host"
SERVICES = (BROKER, TEE_HOST)  # in the order of stopping: the broker refuses new work before the machine ends
_LOG_TAIL = 4096  # bytes of a log searched for its last words
_STOP_SECONDS = 10.0
_PR_SET_PDEATHSIG = 1  # prctl(2)
_LIBC = ctypes.CDLL(None)  # loaded before any fork
_CHILDREN: dict[int, subprocess.Popen[bytes]] = {}  # those of this process, to be waited for


@dataclass(frozen=True)
class Service:
    """One running background process. ``started`` is the kernel's start time, seconds since the epoch."""

    name: str
    pid: int
    started: float
    log: Path

    def to_json(self) -> dict[str, object]:
        return {"name": self.name, "pid": self.pid, "started": self.started, "log": str(self.log)}


def _record(settings: Settings, name: str) -> Path:
    return settings.run_dir / f"{name}.json"


def log_path(settings: Settings, name: str) -> Path:
    return settings.run_dir / f"{name}.log"


@contextmanager
def exclusive(settings: Settings) -> Iterator[None]:
    """Hold the lock of ``up`` and ``down``; raises ``StateBusyError`` when another command has it."""
    settings.prepare()
    with (settings.run_dir / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StateBusyError(f"another `casemate up` or `down` is at work in {settings.home}") from None
        yield


def find(settings: Settings, name: str) -> Service | None:
    """The running service of that name, or None; a record of a process that is gone counts as none."""
    try:
        value = json.loads(_record(settings, name).read_text(encoding="utf-8"))
        service = Service(name, int(value["pid"]), float(value["started"]), Path(value["log"]))
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None
    return service if _process(service) is not None else None


def _process(service: Service) -> psutil.Process | None:
    try:
        process = psutil.Process(service.pid)
        same = abs(process.create_time() - service.started) < 0.02
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def start(
    settings: Settings,
    name: str,
    module: str,
    arguments: Sequence[str],
    ready: Callable[[], bool],
    *,
    tied: bool = False,
    seconds: float = 60,
) -> Service:
    """Start ``python -m module`` in the background and wait until ``ready``.

    Whatever goes wrong, Ctrl-C included, the process is stopped again; raises ``StartFailedError`` with its last
    words. The child gets no terminal and no standard input; its output goes to a log. ``tied``: the kernel stops it
    when this process ends."""
    log = log_path(settings, name)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        begin = os.fstat(descriptor).st_size
        child = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            start_new_session=True,
            preexec_fn=_end_with_parent if tied else None,
            cwd="/",
            env=_environment(),
        )
    finally:
        os.close(descriptor)
    try:
        service = Service(name, child.pid, psutil.Process(child.pid).create_time(), log)
        _wait(child, name, log, begin, ready, seconds)
        write_whole(_record(settings, name), json.dumps(service.to_json()).encode() + b"\n", durable=False)
    except BaseException:
        _end(child)
        raise
    _CHILDREN[child.pid] = child
    return service


def _end_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _environment() -> dict[str, str]:
    """This environment without what must not reach a daemon: a TEE's own variables, were we started inside one."""
    keep = {name: value for name, value in os.environ.items() if not name.startswith("CASEMATE_")}
    return {**keep, "PYTHONUNBUFFERED": "1"}


def _wait(
    child: subprocess.Popen[bytes], name: str, log: Path, begin: int, ready: Callable[[], bool], seconds: float
) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        if child.poll() is not None:
            raise StartFailedError(
                f"{name} ended with status {child.returncode}: {_last_words(log, begin)} (log: {log})"
            )
        if time.monotonic() > deadline:
            raise StartFailedError(f"{name} was not ready within {seconds:.0f} s (log: {log})")
        time.sleep(0.03)


def _last_words(log: Path, begin: int) -> str:
    """The line of this start's log that says most: a typed error when there is one, else the last line."""
    with log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(begin, size - _LOG_TAIL))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    for line in reversed(lines):
        if line.startswith(("failed:", "refused:", "usage:", "undecided:")):
            return line
    return lines[-1] if lines else "no output"


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def stop(settings: Settings, name: str) -> Service | None:
    """Stop the service if it runs, its children with it; gives the service that was stopped."""
    service = find(settings, name)
    if service is not None and (process := _process(service)) is not None:
        with suppress(psutil.NoSuchProcess):
            children = process.children(recursive=True)
            process.terminate()
            _, alive = psutil.wait_procs([process], timeout=_STOP_SECONDS)
            for one in alive:
                one.kill()
            _, alive = psutil.wait_procs(children, timeout=_STOP_SECONDS)
            for one in alive:
                with suppress(psutil.NoSuchProcess):
                    one.kill()
        if (child := _CHILDREN.pop(service.pid, None)) is not None:
            child.wait()
    _record(settings, name).unlink(missing_ok=True)
    return service
