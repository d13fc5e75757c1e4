"""What lies in real directories: nothing, strange names, links, ways up. As on plain storage, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.support.memory import MemoryKeys, MemoryRecords

from casemate.data.dataset import decrypt_tree, encrypt_tree, verify_tree
from casemate.data.errors import ManifestFileMissingError, OutsideZonesError, ZoneAccessError
from casemate.data.filesystem import ZoneFileSystem
from casemate.data.session import ZoneSession
from casemate.data.zones import ZoneMap
from casemate.errors import UsageError
from casemate.model import Access, DatasetName, Zone

NAMES = {
    "empty.parquet": b"",
    "header only.csv": b"id,name\n",
    "données/naïve – 文件.txt": "ü".encode() * 1000,
    "no extension": b"\x00\x01unknown format\xff" * 5000,
    "%20#?&=+;'\"$(x)[1]{2}*": b"shell and URL characters",
    "a" * 250: b"long name",
    ".hidden/.file": b"hidden",
    "new\nline": b"line break",
}


@pytest.fixture
def names(keys: MemoryKeys, records: MemoryRecords) -> dict[str, Any]:
    return {"keys": keys, "records": records}


@pytest.fixture
def vault(tmp_path: Path, dataset: DatasetName, names: dict[str, Any]) -> Path:
    for name, data in NAMES.items():
        path = tmp_path / "plain" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (tmp_path / "plain/empty directory/in one").mkdir(parents=True)
    encrypt_tree(tmp_path / "plain", tmp_path / "vault", dataset=dataset, **names)
    return tmp_path / "vault"


def zone_files(vault: Path, dataset: DatasetName, names: dict[str, Any], access: Access) -> ZoneFileSystem:
    zones = ZoneMap([Zone(f"file://{vault}", dataset, access)], working_directory=str(vault.parent))
    return ZoneFileSystem(ZoneSession(zones, names["keys"], names["records"]))


def test_strange_names_and_empty_things_come_back(vault: Path, names: dict[str, Any], tmp_path: Path) -> None:
    decrypt_tree(vault, tmp_path / "back", **names)
    found = {
        p.relative_to(tmp_path / "back").as_posix(): p.read_bytes()
        for p in (tmp_path / "back").rglob("*")
        if p.is_file()
    }
    assert found == NAMES
    assert (vault / "empty directory/in one").is_dir()


def test_programs_see_them_as_on_plain_storage(vault: Path, dataset: DatasetName, names: dict[str, Any]) -> None:
    files = zone_files(vault, dataset, names, Access.READ)
    assert {path[len(str(vault)) + 1 :] for path in files.find(str(vault))} == set(NAMES)
    for name, data in NAMES.items():
        assert files.cat_file(f"{vault}/{name}") == data, name
        assert files.size(f"{vault}/{name}") == len(data), name
    assert files.isdir(f"{vault}/empty directory")
    assert files.ls(f"{vault}/empty directory/in one") == []


def test_no_way_leads_out_of_a_zone(vault: Path, dataset: DatasetName, names: dict[str, Any], tmp_path: Path) -> None:
    files = zone_files(vault, dataset, names, Access.READ_WRITE)
    (tmp_path / "outside").mkdir()
    for way in (f"{vault}/../outside/leak", f"{vault}/a/../../outside/leak", f"{vault}/./../outside/leak"):
        with pytest.raises(OutsideZonesError):
            files.open(way, "wb")
    assert files.cat_file(f"{vault}/données/../no extension") == NAMES["no extension"]
    (vault / "link").symlink_to(tmp_path / "outside")
    for use in (lambda: files.open(f"{vault}/link/leak", "wb"), lambda: files.ls(f"{vault}/link")):
        with pytest.raises(ZoneAccessError, match="symbolic link"):
            use()
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_link_in_place_of_a_file_is_a_missing_file(vault: Path, names: dict[str, Any]) -> None:
    (vault / "no extension").rename(vault.parent / "elsewhere")
    (vault / "no extension").symlink_to(vault.parent / "elsewhere")
    with pytest.raises(ManifestFileMissingError, match="no extension"):
        verify_tree(vault, **names)


def test_sources_with_a_way_up_keep_inside_the_destination(
    tmp_path: Path, dataset: DatasetName, names: dict[str, Any]
) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/file").write_bytes(b"x")
    encrypt_tree([tmp_path / "a/b/../file"], tmp_path / "vault", dataset=dataset, **names)
    assert (tmp_path / "vault/file").exists()
    with pytest.raises(UsageError):
        encrypt_tree([tmp_path / "a/b/.."], tmp_path / "a/vault", dataset=dataset, **names)
