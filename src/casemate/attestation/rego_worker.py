"""The edge of Rego policies: a worker process with a deadline (needs the extra ``rego``)."""

from __future__ import annotations

import contextlib
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
from casemate.attestation.rego import RegoFailedError, RegoTimeoutError

__all__ = ["RegoWorker"]

_MAX_ANSWER = 4 * 1024 * 1024  # bytes
_START_SECONDS = 20.0  # Python and the engine, on a busy machine


class RegoWorker:
    """A ``RegoEngine``: one child, started when first needed, killed when it takes too long. A context manager.

    Safe to use from threads, which take turns; each evaluation has ``deadline_seconds`` of its own."""

    def __init__(self, *, deadline_seconds: float = 1.0) -> None:
        if importlib.util.find_spec("regorus") is None:
            raise RegoFailedError("Rego policies need `pip install 'casemate[rego]'`")
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
    ) -> Any:
        request = {"op": "evaluate", "policy": policy, "rule": rule, "input": dict(document)}
        return self._ask({**request, "reference_values": dict(reference_values)})

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

    def _ask(self, request: dict[str, Any]) -> Any:
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
        return answer.get("value")

    def _start(self) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(
            [sys.executable, "-I", "-m", "casemate.attestation.rego_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
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
        end = time.monotonic() + seconds
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


def _wait(fd: int, end: float, *, write: bool) -> None:
    left = end - time.monotonic()
    ready = select.select([] if write else [fd], [fd] if write else [], [], max(0.0, left))
    if not (ready[0] or ready[1]):
        raise RegoTimeoutError("Rego policy: not evaluated before its deadline; its process was ended")


def _write(fd: int, raw: bytes, end: float) -> None:
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


def _read(fd: int, size: int, end: float) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        _wait(fd, end, write=False)
        chunk = os.read(fd, min(65536, size - len(parts)))
        if not chunk:
            raise RegoFailedError("Rego worker: ended without an answer (too much memory?)")
        parts += chunk
    return bytes(parts)
