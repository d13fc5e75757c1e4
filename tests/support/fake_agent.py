"""An agent for tests: the protocol of ``casemate run``'s agent, over keys and generations in memory.

with FakeAgent(tmp_path / "agent.sock", zones=[FakeAgent.zone(root, "hospital/patients", "read")]) as agent:
    subprocess.run(..., env=agent.environment())
"""

from __future__ import annotations

import base64
import json
import os
import socketserver
import threading
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.memory import MemoryKeys, MemoryRecords

from casemate.data.generations import Generation
from casemate.data.zones import ZoneMap, local_uri
from casemate.errors import CasemateError
from casemate.model import Access, DatasetName, Zone

__all__ = ["FakeAgent"]


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        agent: FakeAgent = self.server.agent  # type: ignore[attr-defined]
        while True:
            head = self.rfile.read(4)
            if len(head) < 4:
                return
            request = json.loads(self.rfile.read(int.from_bytes(head, "big")))
            try:
                reply = agent.answer(request)
            except CasemateError as exc:
                reply = {"error": {"code": exc.code, "message": exc.message}}
            raw = json.dumps(reply).encode()
            self.wfile.write(len(raw).to_bytes(4, "big") + raw)


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64


class FakeAgent:
    """Serves ``keys`` and ``records`` (given, or fresh ones for the zones' datasets) until the ``with`` block ends.

    ``requests`` holds every request, ``reports`` every refusal that clients reported as ``code: message``."""

    def __init__(
        self,
        socket: Path,
        zones: Iterable[Zone] = (),
        *,
        keys: MemoryKeys | None = None,
        records: MemoryRecords | None = None,
        plaintext_output: str = "deny",
        private_prefixes: Iterable[str] = (),
        strict: bool = True,
        job: str = "test",
    ) -> None:
        self.socket = socket
        self.job = job
        self.zones = list(zones)
        self.keys = keys or MemoryKeys(*sorted({str(zone.dataset) for zone in self.zones}))
        self.records = records or MemoryRecords()
        self.plaintext_output = plaintext_output
        self.private_prefixes = list(private_prefixes)
        self.strict = strict
        self.storage_credentials: dict[str, str] = {}  # by Hadoop's name
        self.requests: list[dict[str, Any]] = []
        self.reports: list[str] = []
        self._server: _Server | None = None

    @staticmethod
    def zone(path: Path | str, dataset: str, access: str = "read-write") -> Zone:
        """A zone over a local directory."""
        return Zone(local_uri(path), DatasetName.parse(dataset), Access(access))

    @property
    def zone_map(self) -> ZoneMap:
        return ZoneMap(self.zones, self.plaintext_output, self.private_prefixes)  # type: ignore[arg-type]

    def environment(self) -> dict[str, str]:
        """This process's environment with the agent's socket in it."""
        return {**os.environ, "CASEMATE_AGENT_SOCKET": str(self.socket)}

    def __enter__(self) -> Self:
        self._server = _Server(str(self.socket), _Handler)
        self.socket.chmod(0o600)
        self._server.agent = self  # type: ignore[attr-defined]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        self.socket.unlink(missing_ok=True)

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The reply to one request; raises what the real agent would answer with an error."""
        self.requests.append(request)
        match request["op"]:
            case "session":
                return self._session()
            case "key":
                name, version = DatasetName.parse(request["dataset"]), request["version"]
                key = self.keys.current_key(name) if version is None else self.keys.key(name, version)
                encoded = base64.b64encode(key.secret.reveal()).decode()
                return {"dataset": str(key.dataset), "version": key.version, "key": encoded}
            case "generation":
                found = self.records.generation(DatasetName.parse(request["dataset"]), request["location"])
                return {"generation": found.number, "digest": found.digest}
            case "commit":
                generation = Generation(request["generation"], request["digest"])
                self.records.record(DatasetName.parse(request["dataset"]), request["location"], generation)
                return {"generation": generation.number}
            case "storage-credential":
                return {"value": self.storage_credentials.get(request["name"])}
            case "report":
                self.reports.append(f"{request['code']}: {request['message']}")
                return {}
        return {"error": {"code": "usage", "message": f"no operation {request['op']!r}"}}

    def _session(self) -> dict[str, Any]:
        return {
            "job": self.job,
            "role": "driver",
            "workload": "0" * 96,
            "simulated": True,
            "strict": self.strict,
            "plaintext_output": self.plaintext_output,
            "private_prefixes": self.private_prefixes,
            "zones": [zone.to_json() for zone in self.zones],
        }
