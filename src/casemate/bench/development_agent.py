"""The agent without attestation, for benchmarks on this machine: made-up keys in memory, zones as given.

It protects nothing: any process of the same user gets the keys. Protocol and code are those of ``casemate run``."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from casemate.crypto.secret import Secret
from casemate.data.client import SOCKET_VARIABLE
from casemate.data.errors import KeyDeniedError
from casemate.data.generations import NOTHING_RECORDED, Generation
from casemate.data.keys import DatasetKey
from casemate.data.zones import PlaintextOutput, local_uri
from casemate.errors import GenerationConflictError
from casemate.model import DatasetName, Role, Zone
from casemate.workload.agent import Agent
from casemate.workload.session import AttestedSession

__all__ = ["development_agent"]


@dataclass
class _Session:
    """What the agent asks of an attested session; ``datasets`` are the ones that have a key."""

    agent_socket: Path
    zones: tuple[Zone, ...]
    datasets: frozenset[DatasetName]
    manifest: SimpleNamespace  # strict, plaintext_output
    private_prefixes: tuple[str, ...]
    job: str = "development"
    role: Role = Role.DRIVER
    workload: str = "0" * 96
    simulated: bool = True
    _keys: dict[DatasetName, DatasetKey] = field(default_factory=dict)
    _records: dict[tuple[DatasetName, str], Generation] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def current_key(self, dataset: DatasetName) -> DatasetKey:
        if dataset not in self.datasets:
            raise KeyDeniedError(f"{dataset}: the development agent has no key for it")
        with self._lock:
            return self._keys.setdefault(dataset, DatasetKey(dataset, 1, Secret.random()))

    def key(self, dataset: DatasetName, version: int) -> DatasetKey:
        found = self.current_key(dataset)
        if version != found.version:
            raise KeyDeniedError(f"{dataset}: the development agent has no version {version}")
        return found

    def generation(self, dataset: DatasetName, location: str) -> Generation:
        with self._lock:
            return self._records.get((dataset, location), NOTHING_RECORDED)

    def record(self, dataset: DatasetName, location: str, generation: Generation) -> None:
        with self._lock:
            latest = self._records.get((dataset, location), NOTHING_RECORDED)
            if generation.number != latest.number + 1:
                raise GenerationConflictError(f"{location}: got {generation.number} after {latest.number}")
            self._records[dataset, location] = generation


@contextlib.contextmanager
def development_agent(
    socket: Path,
    *,
    zones: Iterable[Zone] = (),
    datasets: Iterable[DatasetName] = (),
    private: Iterable[Path] = (),
    plaintext_output: PlaintextOutput = "deny",
    strict: bool = True,
) -> Iterator[dict[str, str]]:
    """Serve ``zones`` and fresh keys of their datasets and of ``datasets`` on ``socket`` (at most 107 bytes of path).

    Yields the environment that a program needs to find it. ``private`` are directories where plaintext may be."""
    own = tuple(zones)
    named = {zone.dataset for zone in own} | {name for zone in own if zone.parquet for name in zone.parquet.datasets}
    session = _Session(
        agent_socket=socket,
        zones=own,
        datasets=frozenset(named | set(datasets)),
        manifest=SimpleNamespace(strict=strict, plaintext_output=plaintext_output),
        private_prefixes=tuple(local_uri(path) for path in private),
    )
    agent = Agent(cast(AttestedSession, session), on_report=lambda _code, _message: None)
    agent.start()
    try:
        yield {SOCKET_VARIABLE: str(socket)}
    finally:
        agent.close()
