"""An agent on a Unix socket, with keys and records in memory: the other end of ``casemate.data.client`` in tests."""

from __future__ import annotations

import base64
import json
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.memory import MemoryKeys, MemoryRecords

from casemate.data.generations import Generation
from casemate.errors import CasemateError
from casemate.model import DatasetName


class MemoryAgent:
    """Answers the agent protocol. ``requests`` is what was asked; ``answer_raw`` replaces the next reply's bytes."""

    def __init__(self, keys: MemoryKeys, records: MemoryRecords, session: dict[str, Any]) -> None:
        self.keys, self.records, self.session = keys, records, session
        self.requests: list[dict[str, Any]] = []
        self.reports: list[tuple[str, str]] = []
        self.answer_raw: bytes | None = None
        self.connections: list[socket.socket] = []

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        operation = request["op"]
        if operation == "session":
            return self.session
        if operation == "report":
            self.reports.append((request["code"], request["message"]))
            return {}
        dataset = DatasetName.parse(request["dataset"])
        if operation == "key":
            version = request["version"]
            key = self.keys.current_key(dataset) if version is None else self.keys.key(dataset, version)
            raw = base64.b64encode(key.secret.reveal()).decode()
            return {"dataset": str(dataset), "version": key.version, "key": raw}
        if operation == "generation":
            found = self.records.generation(dataset, request["location"])
            return {"generation": found.number, "digest": found.digest}
        generation = Generation(request["generation"], request["digest"])
        self.records.record(dataset, request["location"], generation)
        return {"generation": generation.number}

    def handle(self, connection: socket.socket) -> None:
        self.connections.append(connection)
        stream = connection.makefile("rb")
        while header := stream.read(4):
            request = json.loads(stream.read(int.from_bytes(header, "big")))
            self.requests.append(request)
            if self.answer_raw is not None:
                raw, self.answer_raw = self.answer_raw, None
                connection.sendall(raw)
                continue
            try:
                reply = self.answer(request)
            except CasemateError as exc:
                reply = {"error": {"code": exc.code, "message": exc.message}}
            body = json.dumps(reply).encode()
            connection.sendall(len(body).to_bytes(4, "big") + body)


@contextmanager
def serve(agent: MemoryAgent, path: Path) -> Iterator[Path]:
    """Serve ``agent`` at the socket ``path`` until the block ends."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            agent.handle(self.request)

    class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
        daemon_threads = True
        block_on_close = False

    with Server(str(path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield path
        finally:
            server.shutdown()
            thread.join()
            path.unlink()
