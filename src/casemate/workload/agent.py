"""The local agent: hands keys to the program's own libraries over a Unix socket in TEE-private memory.

Each message is four bytes of length (big endian, at most 16 MiB) and a JSON object; one reply for each request, any
number of requests on a connection. Only processes of the same user may connect. Nothing that passes is ever logged.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any

from casemate.data.generations import Generation
from casemate.data.zones import normalise
from casemate.errors import CasemateError, FailedError, UsageError
from casemate.model import DatasetName
from casemate.workload.session import AttestedSession
from casemate.workload.storage import storage_credential

__all__ = ["MAX_MESSAGE", "Agent", "ReportHandler"]

MAX_MESSAGE = 16 * 1024 * 1024  # bytes
_MAX_CONNECTIONS = 1024
_MAX_REPORT = 4096  # characters
_UCRED = struct.Struct("3i")  # pid, uid, gid; unix(7) SO_PEERCRED

ReportHandler = Callable[[str, str], None]
"""Takes the code and the one-line message of a refusal that a library in the program ran into."""


class Agent:
    """Serves one session until closed. Each connection has its own thread; a broken one ends only itself."""

    def __init__(self, session: AttestedSession, on_report: ReportHandler) -> None:
        self._session = session
        self._on_report = on_report
        self._slots = threading.BoundedSemaphore(_MAX_CONNECTIONS)
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._closing = False

    def start(self) -> None:
        """Listen on the session's socket, mode 0600."""
        path = str(self._session.agent_socket)
        previous = os.umask(0o177)
        try:
            self._listener.bind(path)
        except OSError as exc:
            self._listener.close()
            raise FailedError(f"agent socket {path} ({len(os.fsencode(path))} bytes, at most 107): {exc}") from exc
        finally:
            os.umask(previous)
        self._listener.listen(128)
        threading.Thread(target=self._accept, name="agent", daemon=True).start()

    def close(self) -> None:
        """Stop listening and drop every connection."""
        self._closing = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            self._session.agent_socket.unlink()

    def _accept(self) -> None:
        while not self._closing:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            if not self._slots.acquire(blocking=False):
                connection.close()
                continue
            with self._lock:
                self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), name="agent-connection", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, contextlib.suppress(OSError, EOFError, ValueError):
                if _peer_uid(connection) != os.getuid():
                    return
                while True:
                    request = _receive(connection)
                    reply = json.dumps(self._answer(request), separators=(",", ":")).encode()
                    connection.sendall(len(reply).to_bytes(4, "big") + reply)
        finally:
            with self._lock:
                self._open.discard(connection)
            self._slots.release()

    def _answer(self, request: bytes) -> dict[str, Any]:
        try:
            message = json.loads(request)
            if not isinstance(message, dict):
                raise UsageError("agent: need a JSON object")
            operation = _OPERATIONS.get(str(message.get("op")))
            if operation is None:
                raise UsageError(f"agent: unknown operation {str(message.get('op'))[:40]!r}")
            return operation(self, message)
        except CasemateError as exc:
            return {"error": {"code": exc.code, "message": exc.message}}
        except (KeyError, TypeError, ValueError, RecursionError) as exc:
            return {"error": {"code": UsageError.code, "message": f"agent: malformed request ({type(exc).__name__})"}}

    def session(self, _message: dict[str, Any]) -> dict[str, Any]:
        session = self._session
        return {
            "job": session.job,
            "role": str(session.role),
            "workload": session.workload,
            "simulated": session.simulated,
            "strict": session.manifest.strict,
            "plaintext_output": session.manifest.plaintext_output,
            "private_prefixes": list(session.private_prefixes),
            "zones": [zone.to_json() for zone in session.zones],
        }

    def key(self, message: dict[str, Any]) -> dict[str, Any]:
        dataset, version = DatasetName.parse(_text(message, "dataset")), message.get("version")
        if version is None:
            found = self._session.current_key(dataset)
        else:
            found = self._session.key(dataset, _number(message, "version"))
        secret = base64.b64encode(found.secret.reveal()).decode()
        return {"dataset": str(dataset), "version": found.version, "key": secret}

    def generation(self, message: dict[str, Any]) -> dict[str, Any]:
        found = self._session.generation(DatasetName.parse(_text(message, "dataset")), _location(message))
        return {"generation": found.number, "digest": found.digest}

    def commit(self, message: dict[str, Any]) -> dict[str, Any]:
        generation = Generation(_number(message, "generation"), _text(message, "digest"))
        self._session.record(DatasetName.parse(_text(message, "dataset")), _location(message), generation)
        return {"generation": generation.number}

    def storage_credential(self, message: dict[str, Any]) -> dict[str, Any]:
        return {"value": storage_credential(_text(message, "name"), os.environ)}

    def report(self, message: dict[str, Any]) -> dict[str, Any]:
        self._on_report(_text(message, "code")[:80], " ".join(_text(message, "message")[:_MAX_REPORT].split()))
        return {}


_OPERATIONS: dict[str, Callable[[Agent, dict[str, Any]], dict[str, Any]]] = {
    "session": Agent.session,
    "key": Agent.key,
    "generation": Agent.generation,
    "commit": Agent.commit,
    "storage-credential": Agent.storage_credential,
    "report": Agent.report,
}


def _text(message: dict[str, Any], name: str) -> str:
    value = message[name]
    if not isinstance(value, str):
        raise TypeError(name)
    return value


def _number(message: dict[str, Any], name: str) -> int:
    value = message[name]
    if type(value) is not int or value < 1:
        raise TypeError(name)
    return value


def _location(message: dict[str, Any]) -> str:
    location = _text(message, "location")
    if normalise(location) != location:
        raise UsageError(f"location {location!r}: need {normalise(location)!r}")
    return location


def _peer_uid(connection: socket.socket) -> int:
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return int(_UCRED.unpack(raw)[1])


def _receive(connection: socket.socket) -> bytes:
    size = int.from_bytes(_exactly(connection, 4), "big")
    if size > MAX_MESSAGE:
        raise ValueError(f"message of {size} bytes")
    return _exactly(connection, size)


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = connection.recv(min(size - len(data), 1 << 20))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)
