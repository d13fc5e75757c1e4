"""Where data code gets dataset keys from: the agent inside a TEE, the owner's own key store outside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from casemate.crypto.secret import Secret
from casemate.model import DatasetName

__all__ = ["DatasetKey", "KeyProvider", "RememberedKeys"]


@dataclass(frozen=True)
class DatasetKey:
    """One version of a dataset key (KEK, 32 bytes). It wraps file keys and never encrypts data itself."""

    dataset: DatasetName
    version: int  # from 1
    secret: Secret


class KeyProvider(Protocol):
    """Hands out dataset keys. Both methods raise ``KeyDeniedError``, or an ``UndecidedError`` when out of reach."""

    def current_key(self, dataset: DatasetName) -> DatasetKey:
        """The newest version, for writing."""
        ...

    def key(self, dataset: DatasetName, version: int) -> DatasetKey:
        """That version, for reading."""
        ...


class RememberedKeys:
    """A ``KeyProvider`` for the length of one operation: asks ``keys`` once for each key, not once for each file.

    All files of the operation are written under one version, also when the dataset's key is rotated meanwhile."""

    def __init__(self, keys: KeyProvider) -> None:
        self._keys = keys
        self._current: dict[DatasetName, DatasetKey] = {}
        self._versions: dict[tuple[DatasetName, int], DatasetKey] = {}

    def current_key(self, dataset: DatasetName) -> DatasetKey:
        found = self._current.get(dataset)
        if found is None:
            found = self._current.setdefault(dataset, self._keys.current_key(dataset))
            self._versions[dataset, found.version] = found
        return found

    def key(self, dataset: DatasetName, version: int) -> DatasetKey:
        found = self._versions.get((dataset, version))
        if found is None:
            found = self._versions.setdefault((dataset, version), self._keys.key(dataset, version))
        return found
