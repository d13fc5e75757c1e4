"""The edge of Rego policies: a worker process with a deadline (needs the extra ``rego``)."""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib.util
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from casemate.attestation.errors import MalformedPolicyError
from casemate.attestation.rego import Evaluation, RegoFailedError, RegoTimeoutError, RegoUnavailableError

__all__ = ["RegoWorker", "shared_worker"]

_MAX_ANSWER = 4 * 1024 * 1024  # bytes
_START_SECONDS = 20.0  # Python and the engine
_PATIENCE = 10  # seconds by the clock for each second of work


class RegoWorker:
    """A ``RegoEngine``: one child, started when first needed, killed when it takes too long. A context manager.

    Safe to use from threads, which take turns; each evaluation has ``deadline_seconds`` of its own."""

    def __init__(self, *, deadline_seconds: float = 1.0) -> None:
        self._deadline = deadline_seconds
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None

    def check(self, policy: str) -> None:
        try:
            self._ask({"op": "check", "policy": policy})
        except RegoFailedError as exc:
            raise MalformedPolicyError(f"Rego policy: {exc.message}") from exc

    def evaluate(
        self, policy: str, rule: str, *, document: Mapping[str, Any], reference_values: Mapping[str, Any]
    ) -> Evaluation:
        request = {"op": "evaluate", "policy": policy, "rule": rule, "input": dict(document)}
        answer = self._ask({**request, "reference_values": dict(reference_values)})
        return Evaluation(answer.get("value"), tuple(map(str, answer.get("unknown") or ())))

    @property
    def pid(self) -> int | None:
        """The child's process id, while there is one."""
        return None if self._child is None else self._child.pid

    def close(self) -> None:
        with self._lock:
            self._kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        raw = json.dumps(request).encode()
        with self._lock:
            try:
                if self._child is not None and self._child.poll() is not None:
                    self._kill()
                child = self._child or self._start()
                answer = self._exchange(child, raw, self._deadline)
            except BaseException:
                self._kill()  # whatever state it is in, the next question gets a new one
                raise
        if "error" in answer:
            raise RegoFailedError(str(answer["error"]))
        return answer

    def _start(self) -> subprocess.Popen[bytes]:
        if importlib.util.find_spec("regorus") is None:
            raise RegoUnavailableError("Rego: the engine is not installed; need `pip install 'casemate[rego]'`")
        child = subprocess.Popen(
            [sys.executable, "-I", "-m", "casemate.attestation.rego_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # The engine's allocator would reserve a gigabyte at once, more than the child may have.
            env={"PATH": os.defpath, "LC_ALL": "C.UTF-8", "MIMALLOC_ARENA_RESERVE": "32MiB"},
            cwd="/",
            start_new_session=True,
        )
        self._child = child
        ready = json.dumps({"op": "check", "policy": "package casemate.policy"}).encode()
        answer = self._exchange(child, ready, _START_SECONDS)  # its start does not count against a policy
        if "error" in answer:
            raise RegoFailedError(f"Rego worker: does not start: {answer['error']}")
        return child

    def _exchange(self, child: subprocess.Popen[bytes], raw: bytes, seconds: float) -> dict[str, Any]:
        if child.stdin is None or child.stdout is None:
            raise RegoFailedError("Rego worker: has no pipes")
        end = _Deadline(child.pid, seconds)
        _write(child.stdin.fileno(), len(raw).to_bytes(4, "big") + raw, end)
        size = int.from_bytes(_read(child.stdout.fileno(), 4, end), "big")
        if size > _MAX_ANSWER:
            raise RegoFailedError(f"Rego worker: an answer of {size} bytes, at most {_MAX_ANSWER}")
        answer: dict[str, Any] = json.loads(_read(child.stdout.fileno(), size, end))
        return answer

    def _kill(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()


@functools.cache
def shared_worker() -> RegoWorker:
    """The one worker of this process, for callers that have no better moment to end it than the process's end."""
    worker = RegoWorker()
    atexit.register(worker.close)
    return worker


class _Deadline:
    """So many seconds of a process's own time, and ten times as many by the clock.

    A machine that is busy with other things is no reason to refuse."""

    def __init__(self, pid: int, seconds: float) -> None:
        self._clock = ~pid << 3 | 2  # of the process's CPU time; see clock_getcpuclockid(3)
        self._end = time.monotonic() + _PATIENCE * seconds
        self._limit = self._used() + seconds

    def _used(self) -> float:
        try:
            return time.clock_gettime(self._clock)
        except OSError:
            return 0.0

    @property
    def left(self) -> float:
        """Seconds to wait before asking again; nothing is left at zero."""
        return max(0.0, min(self._limit - self._used(), self._end - time.monotonic()))


def _wait(fd: int, end: _Deadline, *, write: bool) -> None:
    while left := end.left:
        ready = select.select([] if write else [fd], [fd] if write else [], [], max(left, 0.001))
        if ready[0] or ready[1]:
            return
    raise RegoTimeoutError("Rego policy: not evaluated before its deadline; its process was ended")


def _write(fd: int, raw: bytes, end: _Deadline) -> None:
    os.set_blocking(fd, False)
    rest = memoryview(raw)
    while rest:
        _wait(fd, end, write=True)
        try:
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:
            continue
        except BrokenPipeError as exc:
            raise RegoFailedError("Rego worker: ended before it read the question") from exc


def _read(fd: int, size: int, end: _Deadline) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        _wait(fd, end, write=False)
        chunk = os.read(fd, min(65536, size - len(parts)))
        if not chunk:
            raise RegoFailedError("Rego worker: ended without an answer (too much memory?)")
        parts += chunk
    return bytes(parts)
