"""Attacks on stored datasets, through every reader in Python. The JVM's reader: ``tests/integration/java``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.dataset_attacks import ATTACKS, Attack, Scene, refusal
from tests.support.memory import MemoryKeys, MemoryRecords

from casemate.data.dataset import decrypt_tree, verify_tree
from casemate.data.filesystem import ZoneFileSystem
from casemate.data.session import ZoneSession
from casemate.data.zones import ZoneMap, local_uri
from casemate.model import Access, DatasetName, Zone

Reader = Callable[[Scene, Path], object]


def by_file_system(access: Access) -> Reader:
    def read(scene: Scene, scratch: Path) -> object:
        zones = ZoneMap([Zone(local_uri(scene.victim), scene.dataset, access)])
        fs = ZoneFileSystem(ZoneSession(zones, scene.keys, scene.records))
        return [fs.cat(path) for path in fs.find(str(scene.victim))]

    return read


READERS: dict[str, Reader] = {
    "fsspec, reading": by_file_system(Access.READ),
    "fsspec, reading and writing": by_file_system(Access.READ_WRITE),
    "decrypt": lambda s, scratch: decrypt_tree(s.victim, scratch / "out", keys=s.keys, records=s.records, threads=1),
    "verify": lambda s, _: verify_tree(s.victim, keys=s.keys, records=s.records, dataset=s.dataset, threads=1),
}


@pytest.mark.parametrize("reader", READERS)
def test_an_untouched_dataset_is_read(
    reader: str, tmp_path: Path, keys: MemoryKeys, records: MemoryRecords, dataset: DatasetName
) -> None:
    scene = Scene(tmp_path / "vault", tmp_path / "scratch", keys, records, dataset)
    assert refusal(lambda: READERS[reader](scene, tmp_path)) == ""


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_every_reader_refuses_and_names_what_was_attacked(
    attack: Attack, tmp_path: Path, keys: MemoryKeys, records: MemoryRecords, dataset: DatasetName
) -> None:
    scene = Scene(tmp_path / "vault", tmp_path / "scratch", keys, records, dataset)
    attack.act(scene)
    for name, reader in READERS.items():
        message = refusal(lambda reader=reader: reader(scene, tmp_path))  # type: ignore[misc]
        assert message.startswith(attack.codes), f"{name}: {message}"
        assert attack.named in message, name
    assert not (tmp_path / "out").exists()
