"""Owners at the broker: one client per identity on this machine, and the two interfaces that data code asks for."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from casemate.broker.client import BrokerClient
from casemate.cli import identities
from casemate.cli.errors import IdentityMissingError, NotRunningError
from casemate.data.generations import Generation
from casemate.data.keys import DatasetKey
from casemate.errors import UsageError
from casemate.model import DatasetName
from casemate.settings import Settings

__all__ = ["Owners"]


class Owners:
    """Clients of the broker by identity, made when first asked for. A context manager.

    It is a ``KeyProvider`` and the ``GenerationRecords`` of every owner whose identity is on this machine; each key is
    fetched once, sealed to a key pair that lives for that request."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._clients: dict[str, BrokerClient] = {}
        self._keys: dict[tuple[DatasetName, int], DatasetKey] = {}
        self._current: dict[DatasetName, DatasetKey] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    def client(self, name: str) -> BrokerClient:
        """The broker as ``name`` sees it; raises ``IdentityMissingError`` or ``NotRunningError``."""
        if name not in self._clients:
            key = identities.load(self.settings, name)
            self._clients[name] = BrokerClient(self.settings.broker_url, self._authority(), key)
        return self._clients[name]

    def admin(self) -> BrokerClient:
        return self.client(identities.ADMIN)

    def reader(self) -> BrokerClient:
        """The identity that sees most of the audit log: the administrator, else the first owner."""
        names = [identities.ADMIN, *identities.local_owners(self.settings)]
        for name in names:
            if identities.exists(self.settings, name):
                return self.client(name)
        raise IdentityMissingError(f"no identity of an owner or administrator in {self.settings.identities_dir}")

    def _authority(self) -> str:
        try:
            return self.settings.broker_ca.read_text(encoding="ascii")
        except FileNotFoundError:
            raise NotRunningError(f"no broker is set up: {self.settings.broker_ca} does not exist") from None

    # --- owners and datasets ---

    def ensure_owner(self, name: str, say: Callable[[str], None]) -> BrokerClient:
        """The client of owner ``name``, whose identity is made and registered when it does not exist.

        An identity that could not be registered is not kept."""
        if name == identities.ADMIN:
            raise UsageError(f"owner {name!r}: this name is the administrator's; choose another one")
        if identities.exists(self.settings, name):
            client = self.client(name)
            self._register(name, identities.load(self.settings, name).public)
            return client
        if not identities.exists(self.settings, identities.ADMIN):
            raise IdentityMissingError(f"the identity {name!r} is not on this machine, and no administrator to add it")
        self.admin().health()  # a broker out of reach shows before anything is made
        key = identities.create(self.settings, name)
        try:
            self.admin().register_owner(name, key.public)
        except BaseException:
            identities.remove(self.settings, name)
            raise
        say(f"created the identity {name} ({identities.path(self.settings, name)}) and registered it with the broker")
        return self.client(name)

    def _register(self, name: str, public: dict[str, object]) -> None:
        if identities.exists(self.settings, identities.ADMIN):
            self.admin().register_owner(name, public)  # the same key again changes nothing

    def has_dataset(self, dataset: DatasetName) -> bool:
        return any(row["name"] == str(dataset) for row in self.client(dataset.owner).datasets())

    # --- KeyProvider ---

    def current_key(self, dataset: DatasetName) -> DatasetKey:
        if dataset not in self._current:
            version, secret = self.client(dataset.owner).dataset_key(dataset)
            self._current[dataset] = self._keys[dataset, version] = DatasetKey(dataset, version, secret)
        return self._current[dataset]

    def key(self, dataset: DatasetName, version: int) -> DatasetKey:
        if (dataset, version) not in self._keys:
            found, secret = self.client(dataset.owner).dataset_key(dataset, version)
            self._keys[dataset, version] = DatasetKey(dataset, found, secret)
        return self._keys[dataset, version]

    # --- GenerationRecords ---

    def generation(self, dataset: DatasetName, location: str) -> Generation:
        number, digest = self.client(dataset.owner).generation(dataset, location)
        return Generation(number, digest)

    def record(self, dataset: DatasetName, location: str, generation: Generation) -> None:
        self.client(dataset.owner).record_generation(dataset, location, generation.number, generation.digest or "")
