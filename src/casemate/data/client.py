"""The agent's socket from a Python program: dataset keys, recorded generations, the session, refusals to report.

Each message is four bytes of length (big endian, at most 16 MiB) and a JSON object; one reply for each request.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import os
import socket
import threading
from dataclasses import dataclass
from typing import Any

from casemate.crypto.secret import KEY_SIZE, Secret
from casemate.data.errors import AgentUnreachableError
from casemate.data.generations import Generation
from casemate.data.keys import DatasetKey
from casemate.data.zones import PlaintextOutput, ZoneMap
from casemate.errors import CasemateError, UsageError, error_class
from casemate.model import Access, ColumnKeys, DatasetName, Role, Zone

__all__ = ["SOCKET_VARIABLE", "AgentClient", "AgentSession", "agent_socket"]

SOCKET_VARIABLE = "CASEMATE_AGENT_SOCKET"
_MAX_MESSAGE = 16 * 2**20  # bytes
_TIMEOUT = 60.0  # seconds; the agent may have to ask a broker


@dataclass(frozen=True)
class AgentSession:
    """What the attested job is and may do."""

    job: str
    role: Role
    workload: str  # SHA-384 of the workload manifest, hex
    simulated: bool
    strict: bool
    plaintext_output: PlaintextOutput
    private_prefixes: tuple[str, ...]
    zones: tuple[Zone, ...]

    def zone_map(self) -> ZoneMap:
        return ZoneMap(self.zones, self.plaintext_output, self.private_prefixes)


def agent_socket() -> str | None:
    """The agent's socket as ``casemate run`` set it for its program; ``None`` outside."""
    return os.environ.get(SOCKET_VARIABLE)


class AgentClient:
    """One connection to the agent: ``KeyProvider`` and ``GenerationRecords``. Safe to use from threads and after fork.

    Every method raises ``AgentUnreachableError``, or the error whose code the agent answered."""

    def __init__(self, socket_path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(socket_path)
        self._lock = threading.Lock()
        self._connection: socket.socket | None = None
        self._pid = os.getpid()
        self._keys: dict[tuple[DatasetName, int], DatasetKey] = {}

    @classmethod
    def from_environment(cls) -> AgentClient:
        path = agent_socket()
        if path is None:
            raise AgentUnreachableError(f"{SOCKET_VARIABLE} is not set: this program does not run under `casemate run`")
        return cls(path)

    def session(self) -> AgentSession:
        reply = self._call({"op": "session"})
        try:
            zones = tuple(
                Zone(
                    zone["prefix"],
                    DatasetName.parse(zone["dataset"]),
                    Access(zone["access"]),
                    ColumnKeys.from_json(zone["parquet"]) if "parquet" in zone else None,
                )
                for zone in reply["zones"]
            )
            return AgentSession(
                job=str(reply["job"]),
                role=Role(reply["role"]),
                workload=str(reply["workload"]),
                simulated=reply["simulated"] is not False,
                strict=reply["strict"] is not False,
                plaintext_output="allow" if reply["plaintext_output"] == "allow" else "deny",
                private_prefixes=tuple(reply["private_prefixes"]),
                zones=zones,
            )
        except (KeyError, TypeError, ValueError, UsageError) as exc:
            raise AgentUnreachableError(f"agent {self.path}: session reply has no usable {exc}") from exc

    def current_key(self, dataset: DatasetName) -> DatasetKey:
        return self._key(dataset, None)

    def key(self, dataset: DatasetName, version: int) -> DatasetKey:
        return self._keys.get((dataset, version)) or self._key(dataset, version)

    def _key(self, dataset: DatasetName, version: int | None) -> DatasetKey:
        reply = self._call({"op": "key", "dataset": str(dataset), "version": version})
        got, raw = reply.get("version"), reply.get("key")
        try:
            secret = Secret(base64.b64decode(str(raw), validate=True)).require_size(KEY_SIZE)
        except (binascii.Error, CasemateError):
            raise AgentUnreachableError(f"agent {self.path}: reply holds no {KEY_SIZE}-byte key") from None
        if type(got) is not int or reply.get("dataset") != str(dataset) or version not in (None, got):
            raise AgentUnreachableError(f"agent {self.path}: reply is not for the key of {dataset} that was asked for")
        return self._keys.setdefault((dataset, got), DatasetKey(dataset, got, secret))

    def generation(self, dataset: DatasetName, location: str) -> Generation:
        reply = self._call({"op": "generation", "dataset": str(dataset), "location": location})
        number, digest = reply.get("generation"), reply.get("digest")
        try:
            if type(number) is not int or not isinstance(digest, str | None):
                raise ValueError(f"generation {number!r}")
            return Generation(number, digest)
        except ValueError as exc:
            raise AgentUnreachableError(f"agent {self.path}: reply has no usable generation") from exc

    def record(self, dataset: DatasetName, location: str, generation: Generation) -> None:
        self._call(
            {
                "op": "commit",
                "dataset": str(dataset),
                "location": location,
                "generation": generation.number,
                "digest": generation.digest,
            }
        )

    def report(self, error: CasemateError) -> None:
        """Tell the agent of a refusal, so that `casemate run` can print it; never raises, the refusal stands anyway."""
        with contextlib.suppress(CasemateError):
            self._call({"op": "report", "code": error.code, "message": error.message})

    def close(self) -> None:
        with self._lock:
            self._disconnect()

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _call(self, request: dict[str, Any]) -> dict[str, Any]:
        payload = json.dumps(request).encode()
        with self._lock:
            if self._pid != os.getpid():  # after fork: the parent's connection is not ours to use
                self._disconnect()
                self._pid = os.getpid()
            try:
                reply = json.loads(self._exchange(len(payload).to_bytes(4, "big") + payload))
            except (OSError, ValueError) as exc:
                self._disconnect()
                raise AgentUnreachableError(f"agent {self.path}: {exc}") from exc
            except BaseException:
                self._disconnect()  # an interrupted exchange must not leave its reply for the next request
                raise
        if not isinstance(reply, dict):
            raise AgentUnreachableError(f"agent {self.path}: reply is not a JSON object")
        error = reply.get("error")
        if error is not None:
            code, message = (error.get("code"), error.get("message")) if isinstance(error, dict) else (None, None)
            cls = error_class(str(code))
            raise cls(str(message or code) if cls.code == code else f"{code}: {message}")
        return reply

    def _exchange(self, message: bytes) -> bytes:
        if self._connection is None:
            self._connection = self._connect()
            self._connection.sendall(message)
        else:
            try:
                self._connection.sendall(message)
            except BrokenPipeError:  # the agent was restarted since
                self._disconnect()
                self._connection = self._connect()
                self._connection.sendall(message)
        size = int.from_bytes(self._receive(self._connection, 4), "big")
        if size > _MAX_MESSAGE:
            raise ValueError(f"reply of {size} bytes")
        return self._receive(self._connection, size)

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(_TIMEOUT)
            connection.connect(self.path)
        except BaseException:
            connection.close()
            raise
        return connection

    @staticmethod
    def _receive(connection: socket.socket, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            piece = connection.recv(size - len(data))
            if not piece:
                raise ConnectionResetError("the agent closed the connection")
            data += piece
        return bytes(data)
