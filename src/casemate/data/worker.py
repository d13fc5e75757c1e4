"""A process that encrypts or decrypts for another one: AES-GCM holds Python's interpreter lock, so threads do not help.

Started as ``python -m casemate.data.worker`` by ``casemate.data.pool``. Tasks and answers go over standard input and
output, four bytes of length (big endian) and JSON; keys come that way too, never by argument, environment or file.
The process ends when its input does, and so never outlives the one that started it.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import sys
from dataclasses import dataclass
from typing import Any, BinaryIO

from casemate.crypto.secret import Secret
from casemate.data.keys import DatasetKey, KeyProvider
from casemate.data.pieces import Count, Decrypting, Encrypting, FilePart
from casemate.errors import CasemateError, error_class
from casemate.model import DatasetName

__all__ = ["Channel", "describe_error", "main", "part_arguments", "perform", "raise_error"]


@dataclass
class Channel:
    """JSON values with a peer."""

    source: BinaryIO
    sink: BinaryIO

    def send(self, value: object) -> None:
        text = json.dumps(value).encode()
        self.sink.write(len(text).to_bytes(4, "big") + text)
        self.sink.flush()

    def receive(self) -> Any:
        """The next value; ``None`` when the peer is gone."""
        head = self.source.read(4)
        size = int.from_bytes(head, "big")
        text = self.source.read(size) if len(head) == 4 else b""
        return json.loads(text) if text and len(text) == size else None


def perform(work: Encrypting | Decrypting, operation: str, arguments: Any, count: Count) -> Any:
    """Do one task. What goes in and comes out is plain JSON."""
    if isinstance(work, Encrypting):
        if operation == "files":
            return [work.file(path, source, identity, count) for path, source, identity in arguments]
        path, source, size, dek, preamble, header, first, end = arguments
        secret, head, start = Secret(_raw(dek)), _raw(preamble), _raw(header)
        return work.part(FilePart(path, source, size, secret, head, start, first, end), count)
    if operation == "files":
        return [work.file(path, uri, size, file_id, count) for path, uri, size, file_id in arguments]
    path, uri, size, file_id, start_at, end = arguments
    return work.part(path, uri, size, file_id, start_at, end, count)


def part_arguments(part: FilePart) -> list[Any]:
    """The arguments of the operation ``part`` for an encrypting worker."""
    dek = base64.b64encode(part.dek.reveal()).decode()
    preamble, header = base64.b64encode(part.preamble).decode(), base64.b64encode(part.header).decode()
    return [part.path, part.source, part.size, dek, preamble, header, part.first, part.end]


def describe_error(error: Exception) -> dict[str, Any]:
    """An error as JSON, for ``raise_error`` on the other side."""
    if isinstance(error, CasemateError):
        return {"code": error.code, "message": error.message}
    if isinstance(error, OSError):
        name = error.filename if isinstance(error.filename, str) else None
        return {"errno": error.errno, "message": error.strerror or str(error), "file": name}
    return {"message": f"{type(error).__name__}: {error}"}


def raise_error(described: dict[str, Any]) -> None:
    """Raise what ``describe_error`` described."""
    if "code" in described:
        raise error_class(described["code"])(described["message"])
    if "errno" in described:
        raise OSError(described["errno"], described["message"], described["file"])
    raise RuntimeError(described["message"])


class _AskedKeys:
    """A ``KeyProvider`` that asks the other process."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def current_key(self, dataset: DatasetName) -> DatasetKey:
        raise NotImplementedError("a worker that decrypts needs no current key")

    def key(self, dataset: DatasetName, version: int) -> DatasetKey:
        self._channel.send({"key": version})
        answer = self._channel.receive()
        if answer is None:
            raise SystemExit(1)
        if "error" in answer:
            raise_error(answer["error"])
        return DatasetKey(dataset, version, Secret(_raw(answer["key"])))


def _raw(text: str) -> bytes:
    return base64.b64decode(text)


def _set_up(hello: dict[str, Any], keys: KeyProvider) -> Encrypting | Decrypting:
    dataset = DatasetName.parse(hello["dataset"])
    if hello["kind"] == "encrypt":
        key = DatasetKey(dataset, hello["version"], Secret(_raw(hello["key"])))
        return Encrypting(hello["root"], hello["location"], key, hello["job"], durable=hello["durable"])
    return Decrypting(hello["root"], dataset, keys, durable=hello["durable"])


def main() -> None:
    """Serve the process on the other end of standard input until it closes it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other process gets it too, and closes our input
    channel = Channel(sys.stdin.buffer, os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)  # whatever prints must not get between the answers
    hello = channel.receive()
    if hello is None:
        return
    work = _set_up(hello, _AskedKeys(channel))
    while (task := channel.receive()) is not None:
        channel.send(_answer(work, task))


def _answer(work: Encrypting | Decrypting, task: list[Any]) -> dict[str, Any]:
    done = 0

    def count(size: int) -> None:
        nonlocal done
        done += size

    try:
        return {"value": perform(work, task[0], task[1], count), "done": done}
    except Exception as exc:  # carried over to the process that waits for it
        return {"error": describe_error(exc)}


if __name__ == "__main__":
    main()
