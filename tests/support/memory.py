"""Key provider and generation records in memory, for tests of everything that needs one."""

from __future__ import annotations

import threading

from casemate.crypto.secret import Secret
from casemate.data.errors import (
    KeyDeniedError,
)
from casemate.data.generations import NOTHING_RECORDED, Generation
from casemate.data.keys import DatasetKey
from casemate.errors import GenerationConflictError
from casemate.model import DatasetName


class MemoryKeys:
    """``KeyProvider``: the datasets named at the start have version 1; ``rotate`` adds a version."""

    def __init__(self, *datasets: str) -> None:
        self._keys: dict[DatasetName, list[Secret]] = {}
        for name in datasets:
            self.rotate(DatasetName.parse(name))

    @property
    def datasets(self) -> set[DatasetName]:
        return set(self._keys)

    def rotate(self, dataset: DatasetName, secret: Secret | None = None) -> DatasetKey:
        self._keys.setdefault(dataset, []).append(secret or Secret.random())
        return self.current_key(dataset)

    def deny(self, dataset: DatasetName) -> None:
        self._keys.pop(dataset, None)

    def current_key(self, dataset: DatasetName) -> DatasetKey:
        return self.key(dataset, len(self._keys.get(dataset, [])))

    def key(self, dataset: DatasetName, version: int) -> DatasetKey:
        versions = self._keys.get(dataset, [])
        if not 1 <= version <= len(versions):
            raise KeyDeniedError(f"{dataset}: no key of version {version} for this reader")
        return DatasetKey(dataset, version, versions[version - 1])


class MemoryRecords:
    """``GenerationRecords``; ``lookups`` counts what was asked, ``fail_with`` is raised by the next ``record``."""

    def __init__(self) -> None:
        self._records: dict[tuple[DatasetName, str], Generation] = {}
        self._lock = threading.Lock()
        self.lookups = 0
        self.fail_with: Exception | None = None

    def generation(self, dataset: DatasetName, location: str) -> Generation:
        with self._lock:
            self.lookups += 1
            return self._records.get((dataset, location), NOTHING_RECORDED)

    def record(self, dataset: DatasetName, location: str, generation: Generation) -> None:
        with self._lock:
            if self.fail_with is not None:
                error, self.fail_with = self.fail_with, None
                raise error
            recorded = self._records.get((dataset, location), NOTHING_RECORDED).number
            if recorded != generation.number - 1:
                raise GenerationConflictError(
                    f"{location}: generation {recorded} is recorded, not {generation.number - 1}"
                )
            self._records[dataset, location] = generation
