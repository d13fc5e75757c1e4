"""What every ``KeyProvider`` and every ``GenerationRecords`` has to do, wherever keys and records come from."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from casemate.crypto.canonical import sha256_hex
from casemate.data.errors import (
    KeyDeniedError,
)
from casemate.data.generations import NOTHING_RECORDED, Generation, GenerationRecords
from casemate.data.keys import KeyProvider
from casemate.errors import GenerationConflictError
from casemate.model import DatasetName

KNOWN = DatasetName.parse("hospital/patients")
OTHER = DatasetName.parse("hospital/report")
UNKNOWN = DatasetName.parse("nobody/nothing")
LOCATION = "file:///vault/pätients ä%20b"


class KeyProviderContract:
    """Subclasses provide ``keys``: version 1 of the keys of ``KNOWN`` and ``OTHER``, and nothing of ``UNKNOWN``."""

    def test_the_current_key_is_found_again_by_its_version(self, keys: KeyProvider) -> None:
        current = keys.current_key(KNOWN)
        assert (current.dataset, current.version, len(current.secret)) == (KNOWN, 1, 32)
        assert keys.key(KNOWN, 1) == current == keys.current_key(KNOWN)

    def test_each_dataset_has_a_key_of_its_own(self, keys: KeyProvider) -> None:
        assert keys.current_key(KNOWN).secret != keys.current_key(OTHER).secret

    def test_an_unknown_dataset_is_denied(self, keys: KeyProvider) -> None:
        with pytest.raises(KeyDeniedError):
            keys.current_key(UNKNOWN)
        with pytest.raises(KeyDeniedError):
            keys.key(UNKNOWN, 1)

    @pytest.mark.parametrize("version", [2, 0, -1, 2**31 - 1])
    def test_a_version_that_does_not_exist_is_denied(self, keys: KeyProvider, version: int) -> None:
        with pytest.raises(KeyDeniedError):
            keys.key(KNOWN, version)

    def test_a_denial_does_not_spoil_later_answers(self, keys: KeyProvider) -> None:
        with pytest.raises(KeyDeniedError):
            keys.current_key(UNKNOWN)
        assert keys.current_key(KNOWN).version == 1

    def test_keys_are_handed_out_to_threads(self, keys: KeyProvider) -> None:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda i: keys.current_key([KNOWN, OTHER][i % 2]), range(64)))
        assert [key.dataset for key in found] == [KNOWN, OTHER] * 32

    def test_a_key_does_not_print(self, keys: KeyProvider) -> None:
        assert "<32 bytes>" in repr(keys.current_key(KNOWN))


def generation(number: int) -> Generation:
    return Generation(number, sha256_hex(str(number).encode()))


class GenerationRecordsContract:
    """Subclasses provide ``records``, empty."""

    def test_nothing_is_recorded_at_first(self, records: GenerationRecords) -> None:
        assert records.generation(KNOWN, LOCATION) == NOTHING_RECORDED

    def test_what_is_recorded_is_found(self, records: GenerationRecords) -> None:
        for number in (1, 2, 3):
            records.record(KNOWN, LOCATION, generation(number))
            assert records.generation(KNOWN, LOCATION) == generation(number)

    @pytest.mark.parametrize("number", [1, 2, 4, 5, 100])
    def test_only_the_next_number_is_recorded(self, records: GenerationRecords, number: int) -> None:
        records.record(KNOWN, LOCATION, generation(1))
        records.record(KNOWN, LOCATION, generation(2))
        with pytest.raises(GenerationConflictError):
            records.record(KNOWN, LOCATION, generation(number))
        assert records.generation(KNOWN, LOCATION) == generation(2)

    def test_datasets_and_locations_are_counted_apart(self, records: GenerationRecords) -> None:
        records.record(KNOWN, LOCATION, generation(1))
        for dataset, location in ((OTHER, LOCATION), (KNOWN, LOCATION + "/deeper"), (KNOWN, LOCATION.upper())):
            assert records.generation(dataset, location) == NOTHING_RECORDED
        records.record(OTHER, LOCATION, generation(1))
        assert records.generation(KNOWN, LOCATION) == generation(1)

    def test_one_of_many_commits_at_once_is_recorded(self, records: GenerationRecords) -> None:
        def commit(i: int) -> bool:
            try:
                records.record(KNOWN, LOCATION, Generation(1, sha256_hex(str(i).encode())))
            except GenerationConflictError:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(commit, range(16)))
        assert won.count(True) == 1
        assert records.generation(KNOWN, LOCATION).digest == sha256_hex(str(won.index(True)).encode())
