"""An attested session: one process in a TEE, its key pair, and what each broker released to it.

Keys are fetched once and kept in this process's memory: those of zones at the start, those of single columns when they
are first used, since a grant may leave them out. ``renew`` proves the process anew to every broker and asks for
every dataset again, so that a withdrawn grant is noticed while the program runs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

from casemate.attestation.evidence import Attester
from casemate.crypto.jose import KeyPair
from casemate.crypto.secret import Secret
from casemate.data.errors import KeyDeniedError
from casemate.data.generations import Generation
from casemate.data.keys import DatasetKey
from casemate.data.zones import is_within, local_uri
from casemate.model import DatasetName, Role, Zone
from casemate.workload.kbs import JobCertificate, KeyBroker
from casemate.workload.manifest import WorkloadManifest

__all__ = ["AttestedSession"]


class AttestedSession:
    """``KeyProvider`` and ``GenerationRecords`` for one attested process. Safe to use from threads.

    ``private_dir`` is memory that only this TEE sees; ``bundle_dir`` in it holds the verified program files."""

    def __init__(
        self,
        manifest: WorkloadManifest,
        attester: Attester,
        *,
        job: str,
        role: Role,
        private_dir: Path,
        program: Path,
        simulated: bool,
    ) -> None:
        self.manifest, self.job, self.role = manifest, job, role
        self.private_dir, self.program = private_dir, program
        self.simulated = simulated
        self.workload = manifest.digest()
        self.key_pair = KeyPair.generate()
        self.certificate: JobCertificate | None = None
        self.job_secret: Secret | None = None
        self._keys: dict[tuple[DatasetName, int], DatasetKey] = {}
        self._current: dict[DatasetName, DatasetKey] = {}
        self._lock = threading.Lock()
        init_data = manifest.canonical().decode()
        needed = {manifest.coordinator} | ({z.broker for z in manifest.zones} if role.opens_datasets else set())
        self._brokers = {
            name: KeyBroker(manifest.brokers[name], attester, self.key_pair, job=job, role=role, init_data=init_data)
            for name in sorted(needed)
        }

    @property
    def bundle_dir(self) -> Path:
        return self.private_dir / "bundle"

    @property
    def agent_socket(self) -> Path:
        return self.private_dir / "agent.sock"

    @property
    def temporary_dir(self) -> Path:
        """Where the program's temporary files go; a short name, since Spark makes sockets there."""
        return self.private_dir / "t"

    @property
    def zones(self) -> tuple[Zone, ...]:
        """The zones this role may open: none for a master or a worker."""
        return self.manifest.plain_zones() if self.role.opens_datasets else ()

    @property
    def private_prefixes(self) -> tuple[str, ...]:
        """Where plaintext may be written although it is outside all zones."""
        return (local_uri(self.private_dir),)

    @property
    def coordinator(self) -> KeyBroker:
        return self._brokers[self.manifest.coordinator]

    @property
    def expires(self) -> datetime | None:
        """When the first of the tokens ends."""
        return min((b.expires for b in self._brokers.values() if b.expires is not None), default=None)

    @property
    def attested_at(self) -> datetime | None:
        """When the oldest of the tokens was earned."""
        return min((b.attested_at for b in self._brokers.values() if b.attested_at is not None), default=None)

    def open(self, *, names: tuple[str, ...] = (), with_certificate: bool = True) -> None:
        """Attest to every broker, fetch the current dataset keys and, from the coordinator, certificate and job secret.

        Raises the first refusal, in the manifest's order of brokers; no key is kept then."""
        self._each(lambda name: self._attest_and_fetch(name, names if with_certificate else None))

    def renew(self) -> None:
        """Prove this process anew and ask for every dataset again; raises what ``open`` raises."""
        self._each(lambda name: self._attest_and_fetch(name, None))

    def renew_certificate(self, names: tuple[str, ...] = ()) -> JobCertificate:
        """A fresh job certificate for the same key."""
        self.certificate = self.coordinator.certificate(names)
        return self.certificate

    def close(self) -> None:
        """Drop connections and keys."""
        for broker in self._brokers.values():
            broker.close()
        with self._lock:
            self._keys.clear()
            self._current.clear()

    # --- KeyProvider ---

    def current_key(self, dataset: DatasetName) -> DatasetKey:
        broker = self._broker_of(dataset)
        with self._lock:
            known = self._current.get(dataset)
        return known or self._keep(broker.dataset_key(dataset), current=True)

    def key(self, dataset: DatasetName, version: int) -> DatasetKey:
        broker = self._broker_of(dataset)
        with self._lock:
            known = self._keys.get((dataset, version))
        return known or self._keep(broker.dataset_key(dataset, version), current=False)

    # --- GenerationRecords ---

    def generation(self, dataset: DatasetName, location: str) -> Generation:
        self._zone_of(dataset, location)
        return self._broker_of(dataset).generation(dataset, location)

    def record(self, dataset: DatasetName, location: str, generation: Generation) -> None:
        zone = self._zone_of(dataset, location)
        if not zone.access.can_write:
            raise KeyDeniedError(f"{dataset}: zone {zone.prefix} is only for reading, nothing is committed there")
        self._broker_of(dataset).record(dataset, location, generation)

    # --- inside ---

    def _attest_and_fetch(self, name: str, certificate_names: tuple[str, ...] | None) -> None:
        broker = self._brokers[name]
        broker.attest()
        if self.role.opens_datasets:
            needed = self.manifest.datasets_of(name, columns=False)
            for dataset in self.manifest.datasets_of(name):
                if dataset in needed or self._has_key(dataset):
                    self._keep(broker.dataset_key(dataset), current=True)
        if certificate_names is not None and name == self.manifest.coordinator:
            self.certificate = broker.certificate(certificate_names)
            self.job_secret = broker.job_secret()

    def _each(self, work: Callable[[str], None]) -> None:
        names: Iterable[str] = self._brokers
        if len(self._brokers) == 1:
            for name in names:
                work(name)
            return
        with ThreadPoolExecutor(len(self._brokers), thread_name_prefix="broker") as pool:
            for future in [pool.submit(work, name) for name in names]:
                future.result()

    def _keep(self, key: DatasetKey, *, current: bool) -> DatasetKey:
        with self._lock:
            self._keys[key.dataset, key.version] = key
            if current:
                self._current[key.dataset] = key
        return key

    def _has_key(self, dataset: DatasetName) -> bool:
        with self._lock:
            return any(name == dataset for name, _ in self._keys)

    def _broker_of(self, dataset: DatasetName) -> KeyBroker:
        if not self.role.opens_datasets:
            raise KeyDeniedError(f"{dataset}: the role {self.role} opens no dataset")
        for entry in self.manifest.zones:
            if dataset in entry.zone.datasets:
                return self._brokers[entry.broker]
        raise KeyDeniedError(f"{dataset}: no zone of this workload names it")

    def _zone_of(self, dataset: DatasetName, location: str) -> Zone:
        inside = [z for z in self.manifest.plain_zones() if z.dataset == dataset and is_within(location, z.prefix)]
        if not inside:
            raise KeyDeniedError(f"{dataset}: {location} is in none of its zones")
        return max(inside, key=lambda zone: len(zone.prefix))
