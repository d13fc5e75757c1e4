"""Clients of the SIMULATED machine: the attester inside a TEE, and the launcher's client outside."""

from __future__ import annotations

import base64
import contextlib
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from casemate.attestation.evidence import REPORT_DATA_SIZE, Evidence
from casemate.attestation.platforms.simulator.errors import (
    LaunchRequestError,
    SimulatorProtocolError,
    SimulatorUnreachableError,
)
from casemate.attestation.platforms.simulator.wire import connect, receive, send
from casemate.errors import UsageError, error_class

__all__ = ["TEE_SOCKET_VARIABLE", "LauncherClient", "RunningTee", "SimulatorAttester"]

TEE_SOCKET_VARIABLE = "CASEMATE_TEE_SOCKET"


class SimulatorAttester:
    """The attester inside a SIMULATED TEE: asks the machine for quotes over the TEE's own socket."""

    tee = "tdx"

    def __init__(self, path: Path) -> None:
        self._path = path

    def collect(self, report_data: bytes) -> Evidence:
        """A SIMULATED TDX quote over ``report_data`` (64 bytes); raises ``NoTeeError`` or ``OutsideTeeError``."""
        if len(report_data) != REPORT_DATA_SIZE:
            raise UsageError(f"report data: got {len(report_data)} bytes, need {REPORT_DATA_SIZE}")
        reply = self._ask({"op": "quote", "report_data": base64.b64encode(report_data).decode()})
        return Evidence(str(reply["tee"]), {"quote": reply["quote"]})

    def report(self, **fields: Any) -> None:
        """Tell the launcher what is going on: ``phase``, or ``outcome`` with ``code`` and ``message``."""
        self._ask({**fields, "op": "report"})

    def info(self) -> dict[str, Any]:
        """``{"tee": id, "workload": hex digest, "measurement": hex, "simulated": true}``."""
        return self._ask({"op": "info"})

    def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        with connect(self._path) as sock:
            _send_unless_closed(sock, message)
            reply = receive(sock)
        if reply is None:
            raise SimulatorUnreachableError("SIMULATED TEE host: closed the connection without an answer")
        _raise_error(reply)
        return reply


class RunningTee:
    """One launched TEE. Closing it, or this process ending, kills everything that runs inside."""

    def __init__(self, sock: socket.socket, started: Mapping[str, Any]) -> None:
        self._sock = sock
        self.id = str(started["tee"])
        self.pid = int(started["pid"])
        self.measurement = str(started["measurement"])
        self.workload = str(started["workload"])
        self.status: int | None = None

    def fileno(self) -> int:
        """For ``select``: readable when an event waits."""
        return self._sock.fileno()

    def next_event(self) -> dict[str, Any] | None:
        """The next ``report`` or ``exited`` event, waiting for it; ``None`` after ``exited``.

        Raises ``SimulatorUnreachableError`` when the machine went away; the program is dead then."""
        if self.status is not None:
            return None
        event = receive(self._sock)
        if event is None:
            raise SimulatorUnreachableError("SIMULATED TEE host: ended while the program ran")
        _raise_error(event)
        if event.get("event") == "exited":
            self.status = int(event["status"])
        return event

    def events(self) -> Iterator[dict[str, Any]]:
        """All events up to and including ``exited``."""
        while (event := self.next_event()) is not None:
            yield event

    def wait(self) -> int:
        """Wait for the end; the program's exit status, 128 + n when signal n ended it."""
        for _ in self.events():
            pass
        return self.status if self.status is not None else 1

    def terminate(self) -> None:
        """Ask the TEE's first process to end (SIGTERM)."""
        if self.status is None:
            send(self._sock, {"op": "terminate"})

    def kill(self) -> None:
        """Kill everything that runs inside the TEE and wait until nothing is left."""
        if self.status is None:
            with contextlib.suppress(SimulatorUnreachableError):
                send(self._sock, {"op": "kill"})
                self.wait()
        self.close()

    def close(self) -> None:
        """Drop the connection; whatever still runs inside is killed."""
        self._sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class LauncherClient:
    """Asks the SIMULATED machine to start programs."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def ping(self) -> dict[str, Any]:
        """Raises ``SimulatorUnreachableError`` unless the machine answers; gives its version and process id."""
        with connect(self._path) as sock:
            send(sock, {"op": "ping"})
            reply = receive(sock)
        if reply is None:
            raise SimulatorUnreachableError("SIMULATED TEE host: closed the connection without an answer")
        return reply

    def launch(
        self,
        manifest: Mapping[str, Any],
        *,
        job: str,
        role: str,
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdio: tuple[int, int, int] = (0, 1, 2),
        image: Sequence[str] | None = None,
    ) -> RunningTee:
        """Start the Casemate runtime for ``manifest`` in a new SIMULATED TEE, on this process's stdin, stdout, stderr.

        ``environment`` is not secret. ``image`` starts another program, which then is what the measurement says.
        Raises ``LaunchRequestError``, ``SimulatorUnreachableError``."""
        request: dict[str, Any] = {
            "op": "launch",
            "manifest": dict(manifest),
            "job": job,
            "role": role,
            "environment": dict(environment or {}),
            "cwd": str(cwd or Path.cwd()),
        }
        if image is not None:
            request["image"] = list(image)
        sock = connect(self._path)
        try:
            with _three_open(stdio) as fds:
                _send_unless_closed(sock, request, fds)
            started = receive(sock)
            if started is None:
                raise SimulatorUnreachableError("SIMULATED TEE host: closed the connection without an answer")
            _raise_error(started)
            if started.get("event") != "started":
                raise SimulatorProtocolError(f"expected a started event, got {started.get('event')}")
            return RunningTee(sock, started)
        except BaseException:
            sock.close()
            raise


def _send_unless_closed(sock: socket.socket, message: dict[str, Any], fds: list[int] | None = None) -> None:
    """Send a request. A host that hung up in the middle has said why, and that is read next."""
    with contextlib.suppress(SimulatorUnreachableError):
        send(sock, message, fds)


@contextlib.contextmanager
def _three_open(stdio: tuple[int, int, int]) -> Iterator[list[int]]:
    """The three descriptors, /dev/null in place of closed ones."""
    null = os.open(os.devnull, os.O_RDWR)
    try:
        yield [fd if _is_open(fd) else null for fd in stdio]
    finally:
        os.close(null)


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _raise_error(reply: Mapping[str, Any]) -> None:
    error = reply.get("error")
    if isinstance(error, Mapping):
        code, message = str(error.get("code")), str(error.get("message"))
        cls = error_class(code, 400)
        raise (LaunchRequestError if cls is UsageError else cls)(message)
