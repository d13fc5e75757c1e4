"""Framed JSON over Unix sockets: a 4-byte big-endian length, then that many bytes of one UTF-8 JSON object."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from casemate.attestation.platforms.simulator.errors import SimulatorProtocolError, SimulatorUnreachableError

__all__ = ["MAX_MESSAGE", "FrameBuffer", "connect", "encode", "receive", "send", "socket_address"]

MAX_MESSAGE = 16 * 1024 * 1024  # bytes
_PATH_LIMIT = 107  # bytes; sun_path in unix(7)


def encode(message: dict[str, Any]) -> bytes:
    """One message as it goes over the wire."""
    body = json.dumps(message, separators=(",", ":"), allow_nan=False).encode()
    if len(body) > MAX_MESSAGE:
        raise SimulatorProtocolError(f"message: got {len(body)} bytes, need at most {MAX_MESSAGE}")
    return len(body).to_bytes(4, "big") + body


class FrameBuffer:
    """Collects received bytes and gives whole messages; memory stays below one message's limit."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """The messages completed by ``data``; raises ``SimulatorProtocolError`` for anything but JSON objects."""
        self._data += data
        messages = []
        while len(self._data) >= 4:
            size = int.from_bytes(self._data[:4], "big")
            if size > MAX_MESSAGE:
                raise SimulatorProtocolError(f"message: announces {size} bytes, need at most {MAX_MESSAGE}")
            if len(self._data) < 4 + size:
                break
            messages.append(_decode(bytes(self._data[4 : 4 + size])))
            del self._data[: 4 + size]
        return messages


def _decode(body: bytes) -> dict[str, Any]:
    try:
        message = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise SimulatorProtocolError("message: not JSON") from exc
    if not isinstance(message, dict):
        raise SimulatorProtocolError(f"message: need a JSON object, got {type(message).__name__}")
    return message


@contextlib.contextmanager
def socket_address(path: Path) -> Iterator[str]:
    """An address for ``path`` that fits a Unix socket's 107 bytes: a longer one goes through its directory's fd."""
    if len(os.fsencode(path)) <= _PATH_LIMIT:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def connect(path: Path) -> socket.socket:
    """A connected blocking stream socket; raises ``SimulatorUnreachableError``."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with socket_address(path) as address:
            sock.connect(address)
    except OSError as exc:
        sock.close()
        raise SimulatorUnreachableError(f"SIMULATED TEE host: no answer on {path}: {exc.strerror or exc}") from exc
    return sock


def send(sock: socket.socket, message: dict[str, Any], fds: list[int] | None = None) -> None:
    """Send one message, with file descriptors beside its first byte when given."""
    data = encode(message)
    try:
        sent = socket.send_fds(sock, [data], fds) if fds else 0
        sock.sendall(data[sent:])
    except OSError as exc:
        raise SimulatorUnreachableError(f"SIMULATED TEE host: connection lost: {exc.strerror or exc}") from exc


def receive(sock: socket.socket) -> dict[str, Any] | None:
    """The next message; ``None`` when the other side has closed between two messages."""
    head = _exactly(sock, 4, whole=False)
    if head is None:
        return None
    size = int.from_bytes(head, "big")
    if size > MAX_MESSAGE:
        raise SimulatorProtocolError(f"message: announces {size} bytes, need at most {MAX_MESSAGE}")
    return _decode(_exactly(sock, size, whole=True) or b"")


def _exactly(sock: socket.socket, size: int, *, whole: bool) -> bytes | None:
    data = bytearray()
    while len(data) < size:
        try:
            chunk = sock.recv(min(size - len(data), 1 << 20))
        except OSError as exc:
            raise SimulatorUnreachableError(f"SIMULATED TEE host: connection lost: {exc.strerror or exc}") from exc
        if not chunk:
            if data or whole:
                raise SimulatorUnreachableError("SIMULATED TEE host: connection closed within a message")
            return None
        data += chunk
    return bytes(data)
