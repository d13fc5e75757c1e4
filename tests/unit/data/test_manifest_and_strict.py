from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.memory import MemoryKeys, MemoryRecords

from casemate.crypto.canonical import canonical_json, sha256_hex
from casemate.data.changes import Changes
from casemate.data.commit import commit_directory
from casemate.data.errors import (
    FileMalformedError,
    FileTamperedError,
    FileWrongDatasetError,
    ManifestFileForeignError,
    ManifestFileMissingError,
    ManifestFileSwappedError,
    ManifestMissingError,
    ManifestRolledBackError,
    ManifestTamperedError,
)
from casemate.data.fileid import FileIds
from casemate.data.generations import Generation
from casemate.data.local import files_below
from casemate.data.manifest import ManifestFile, build_manifest, manifest_number, manifest_path, verify_manifest
from casemate.data.strict import StrictReads, check_file
from casemate.data.writer import EncryptedWriter
from casemate.data.zones import local_uri
from casemate.errors import GenerationConflictError
from casemate.model import DatasetName

FILE_ID = base64.b64encode(bytes(16)).decode()
LOCATION = "file:///vault/patients"


# The manifest itself


def make(
    keys: MemoryKeys, dataset: DatasetName, *, location: str = LOCATION, generation: int = 7
) -> tuple[bytes, Generation]:
    files = [ManifestFile(path, 600 + i, FILE_ID) for i, path in enumerate(["b", "a/x", "ü", "a.csv", "\U0001f600"])]
    raw = build_manifest(keys.current_key(dataset), location, generation, files)
    return raw, Generation(generation, sha256_hex(raw))


def verify(raw: bytes, recorded: Generation, keys: MemoryKeys, dataset: DatasetName) -> object:
    return verify_manifest(raw, recorded, dataset=dataset, location=LOCATION, keys=keys, name="the manifest")


def test_a_manifest_verifies_against_its_record(keys: MemoryKeys, dataset: DatasetName) -> None:
    raw, recorded = make(keys, dataset)
    manifest = verify_manifest(raw, recorded, dataset=dataset, location=LOCATION, keys=keys, name="m")
    assert [file.path for file in manifest.files] == ["a.csv", "a/x", "b", "ü", "\U0001f600"]
    assert manifest.by_path["b"] == ManifestFile("b", 600, FILE_ID)
    assert (manifest.generation, manifest.location, manifest.dataset) == (7, LOCATION, dataset)
    assert canonical_json(json.loads(raw)) == raw


def test_no_changed_byte_of_a_manifest_verifies(keys: MemoryKeys, dataset: DatasetName) -> None:
    raw, recorded = make(keys, dataset)
    for i in range(len(raw)):
        damaged = raw[:i] + bytes([raw[i] ^ 1]) + raw[i + 1 :]
        with pytest.raises((ManifestTamperedError, ManifestRolledBackError)):
            verify(damaged, recorded, keys, dataset)
        # not even by somebody who can record another digest, but has no dataset key
        with pytest.raises((ManifestTamperedError, ManifestRolledBackError)):
            verify(damaged, Generation(7, sha256_hex(damaged)), keys, dataset)


def test_a_mac_in_another_spelling_does_not_verify(keys: MemoryKeys, dataset: DatasetName) -> None:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    document = json.loads(make(keys, dataset)[0])
    mac = document["mac"]
    respelled = mac[:-2] + alphabet[alphabet.index(mac[-2]) ^ 1] + "="
    assert base64.b64decode(respelled) == base64.b64decode(mac)
    raw = canonical_json({**document, "mac": respelled})
    with pytest.raises(ManifestTamperedError):
        verify(raw, Generation(7, sha256_hex(raw)), keys, dataset)


def test_an_older_manifest_is_named_a_rollback(keys: MemoryKeys, dataset: DatasetName) -> None:
    old, _ = make(keys, dataset, generation=5)
    _, recorded = make(keys, dataset, generation=7)
    with pytest.raises(ManifestRolledBackError, match="rolled back from generation 7 to 5"):
        verify(old, recorded, keys, dataset)


def test_a_manifest_of_another_place_generation_or_dataset_does_not_verify(
    keys: MemoryKeys, dataset: DatasetName
) -> None:
    elsewhere, _ = make(keys, dataset, location="file:///vault/other")
    later, _ = make(keys, dataset, generation=8)
    other, _ = make(keys, DatasetName.parse("hospital/report"))
    for raw in (elsewhere, later, other):
        with pytest.raises(ManifestTamperedError):
            verify(raw, Generation(7, sha256_hex(raw)), keys, dataset)


def _resigned(keys: MemoryKeys, dataset: DatasetName, change: Callable[[dict[str, object]], object]) -> bytes:
    """A manifest with something wrong in it, by somebody who has the key: form is checked for its own sake."""
    from casemate.crypto.mac import compute_mac

    document = json.loads(make(keys, dataset)[0])
    document.pop("mac")
    change(document)
    mac = compute_mac(keys.current_key(dataset).secret, canonical_json(document), purpose="casemate:manifest:v1")
    return canonical_json({**document, "mac": base64.b64encode(mac).decode()})


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(version=2),
        lambda d: d.update(version=True),
        lambda d: d.update(extra=1),
        lambda d: d.pop("files"),
        lambda d: d.update(files={}),
        lambda d: d.update(files=[1]),
        lambda d: d["files"].reverse(),
        lambda d: d["files"].append(d["files"][-1]),
        lambda d: d["files"][0].update(path="../x"),
        lambda d: d["files"][0].update(path="/x"),
        lambda d: d["files"][0].update(path=""),
        lambda d: d["files"][0].update(path="_casemate/x"),
        lambda d: d["files"][0].update(path="_temporary/x"),
        lambda d: d["files"][0].update(path=7),
        lambda d: d["files"][0].update(length=-1),
        lambda d: d["files"][0].update(length=567),
        lambda d: d["files"][0].update(length=600.5),
        lambda d: d["files"][0].update(file_id="AAAA"),
        lambda d: d["files"][0].update(extra=1),
        lambda d: d.update(generation=0),
        lambda d: d.update(kek="1"),
        lambda d: d.update(location=None),
    ],
)
def test_a_manifest_of_another_form_is_refused(
    keys: MemoryKeys, dataset: DatasetName, change: Callable[[dict[str, object]], object]
) -> None:
    raw = _resigned(keys, dataset, change)
    with pytest.raises(ManifestTamperedError):
        verify(raw, Generation(7, sha256_hex(raw)), keys, dataset)


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"mac":1}'])
def test_what_is_no_manifest_is_refused(keys: MemoryKeys, dataset: DatasetName, raw: bytes) -> None:
    with pytest.raises(ManifestTamperedError):
        verify(raw, Generation(7, sha256_hex(raw)), keys, dataset)


def test_a_manifests_name_carries_its_generation() -> None:
    digest = "0123456789abcdef" * 4
    assert manifest_path(Generation(7, digest)) == "_casemate/manifest-0000000007-0123456789abcdef.json"
    assert manifest_number("manifest-0000000007-0123456789abcdef.json") == 7
    assert manifest_number("manifest-12345678901-0123456789abcdef.json") == 12345678901
    for name in ("manifest-7", "manifest-00000000007", "manifest-0000000007.tmp", "x", "manifest-0000000007-"):
        assert manifest_number(f"{name}-0123456789abcdef.json") is None
    for name in ("manifest-0000000007.json", "manifest-0000000007-0123456789ABCDEF.json", "x"):
        assert manifest_number(name) is None


# A committed directory under attack


class Place:
    """A committed directory with four files in it."""

    def __init__(self, root: Path, keys: MemoryKeys, records: MemoryRecords, dataset: DatasetName) -> None:
        self.root, self.keys, self.records, self.dataset = root, keys, records, dataset
        self.uri = local_uri(root)
        self.ids, self.changes = FileIds("job"), Changes()
        for path in ("part-0", "part-1", "day=1/part-0", "day=2/part-0"):
            self.write(path)
        self.commit()

    def write(self, path: str, data: bytes = b"same length", dataset: DatasetName | None = None) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        place = (self.ids, local_uri(target))
        with target.open("wb") as raw, EncryptedWriter(raw, self.keys, dataset or self.dataset, place=place) as writer:
            writer.write(data)
        self.changes.wrote(local_uri(target), writer.preamble.file_id)

    def commit(self, path: str = "") -> Generation:
        root = self.root / path
        return commit_directory(
            root, local_uri(root), self.dataset, self.keys, self.records, ids=self.ids, changes=self.changes
        )

    def manifest(self) -> Path:
        return self.root / manifest_path(self.records.generation(self.dataset, self.uri))

    def check(self, path: str = "", strict: StrictReads | None = None) -> dict[str, int | None]:
        strict = strict or StrictReads(self.keys, self.records)
        directory = local_uri(self.root / path)
        found = strict.check_tree(self.dataset, directory, dict(files_below(self.root / path)), top=self.uri)
        return {name: one and one.manifest.generation for name, one in found.items()}


@pytest.fixture
def place(tmp_path: Path, keys: MemoryKeys, records: MemoryRecords, dataset: DatasetName) -> Place:
    return Place(tmp_path / "vault", keys, records, dataset)


def test_a_directory_as_committed_is_accepted_at_every_depth(place: Place) -> None:
    assert place.check() == dict.fromkeys(["part-0", "part-1", "day=1/part-0", "day=2/part-0"], 1)
    assert place.check("day=1") == {"part-0": 1}


def test_a_deleted_file_is_missing(place: Place) -> None:
    (place.root / "day=1/part-0").unlink()
    for path in ("", "day=1"):
        with pytest.raises(ManifestFileMissingError, match="vault/day=1/part-0"):
            place.check(path)
    assert place.check("day=2")


def test_a_deleted_directory_is_missing(place: Place) -> None:
    (place.root / "day=1/part-0").unlink()
    (place.root / "day=1").rmdir()
    with pytest.raises(ManifestFileMissingError):
        place.check()


def test_a_file_replaced_by_a_link_or_directory_is_missing(place: Place) -> None:
    (place.root / "part-0").unlink()
    (place.root / "part-0").symlink_to(place.root / "part-1")
    with pytest.raises(ManifestFileMissingError):
        place.check()
    (place.root / "part-0").unlink()
    (place.root / "part-0").mkdir()
    for path in ("", "part-0"):
        with pytest.raises(ManifestFileMissingError):
            place.check(path)


def test_an_added_genuine_file_is_foreign(place: Place) -> None:
    (place.root / "part-2").write_bytes((place.root / "part-1").read_bytes())
    with pytest.raises(ManifestFileForeignError, match="part-2"):
        place.check()


def test_a_file_of_another_length_is_swapped(place: Place) -> None:
    place.write("part-0", b"another length")
    with pytest.raises(ManifestFileSwappedError, match="part-0"):
        place.check()


def test_two_swapped_files_of_one_length_are_told_apart_by_their_ids(place: Place) -> None:
    first, second = place.root / "part-0", place.root / "part-1"
    a, b = first.read_bytes(), second.read_bytes()
    first.write_bytes(b)
    second.write_bytes(a)
    governed = StrictReads(place.keys, place.records).governing(place.dataset, place.uri, top=place.uri)
    assert governed
    from casemate.data.format import parse_preamble

    with pytest.raises(ManifestFileSwappedError, match="part-0"):
        check_file(governed, place.uri + "/part-0", len(b), parse_preamble(b).file_id)
    check_file(governed, place.uri + "/part-0", len(a), parse_preamble(a).file_id)


def test_an_old_copy_of_the_whole_directory_is_rolled_back(place: Place, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(place.root, tmp_path / "copy")
    old = place.manifest()
    for _ in range(2):
        place.write("part-0", b"new")
        place.commit()
    shutil.rmtree(place.root)
    shutil.copytree(tmp_path / "copy", place.root)
    with pytest.raises(ManifestRolledBackError, match="rolled back from generation 3 to 1"):
        place.check()
    old.rename(place.manifest())
    with pytest.raises(ManifestRolledBackError, match="rolled back from generation 3 to 1"):
        place.check()


def test_a_removed_manifest_is_missing_and_does_not_unprotect(place: Place) -> None:
    place.manifest().unlink()
    with pytest.raises(ManifestMissingError):
        place.check()
    (place.root / "_casemate").rmdir()
    with pytest.raises(ManifestMissingError):
        place.check("day=1")


def test_a_committed_directory_moved_elsewhere_is_governed_by_nothing(place: Place, tmp_path: Path) -> None:
    place.root.rename(tmp_path / "moved")
    place.root = tmp_path / "moved"
    place.uri = local_uri(place.root)
    assert set(place.check().values()) == {None}


def test_a_commit_further_down_governs_there_and_the_upper_one_stays_whole(place: Place) -> None:
    place.write("day=1/part-1")
    assert place.commit("day=1").number == 1
    place.commit("day=1")
    assert place.check() == {"part-0": 1, "part-1": 1, "day=1/part-0": 2, "day=1/part-1": 2, "day=2/part-0": 1}
    (place.root / "day=1/part-1").unlink()
    with pytest.raises(ManifestFileMissingError):
        place.check()


def test_the_nearest_record_governs_and_nothing_above_the_top_is_asked(place: Place) -> None:
    strict = StrictReads(place.keys, place.records)
    deep = place.uri + "/day=1/x/y"
    governed = strict.governing(place.dataset, deep, top=place.uri)
    assert governed
    assert governed.location == place.uri
    before = place.records.lookups
    assert strict.governing(place.dataset, deep, top=place.uri + "/day=1") is None
    assert place.records.lookups == before, "answers are remembered"
    assert strict.governing(place.dataset, place.uri.rpartition("/")[0], top=place.uri) is None


def test_a_commit_by_another_process_is_noticed(place: Place) -> None:
    strict = StrictReads(place.keys, place.records)
    assert strict.checked(lambda: place.check(strict=strict))
    place.write("part-9")
    place.commit()
    place.write("part-9")
    place.commit()  # the manifest that was remembered is two generations old
    assert strict.checked(lambda: place.check(strict=strict))["part-9"] == 3


# Committing


def test_a_commit_keeps_the_manifest_before_and_drops_older_ones(place: Place) -> None:
    for _ in range(3):
        place.commit()
    kept = sorted(path.name for path in (place.root / "_casemate").iterdir())
    assert [manifest_number(name) for name in kept] == [3, 4]


def test_the_number_comes_from_the_record_and_not_from_files(place: Place) -> None:
    (place.root / manifest_path(Generation(99, "0" * 64))).write_bytes(b"{}")
    assert place.commit().number == 2


def test_unfinished_files_are_not_committed(place: Place) -> None:
    (place.root / "_temporary/0").mkdir(parents=True)
    (place.root / "_temporary/0/half").write_bytes(b"CSMT")
    assert place.commit().number == 2
    assert "_temporary/0/half" not in place.check()


def test_what_is_not_the_datasets_file_is_not_committed(place: Place) -> None:
    (place.root / "plain.csv").write_bytes(b"id,name\n" * 100)
    with pytest.raises(FileMalformedError, match=r"plain\.csv"):
        place.commit()
    place.write("plain.csv", dataset=DatasetName.parse("hospital/report"))
    with pytest.raises(FileWrongDatasetError, match=r"plain\.csv"):
        place.commit()
    stranger = MemoryKeys(str(place.dataset))
    with (place.root / "plain.csv").open("wb") as raw:
        EncryptedWriter(raw, stranger, place.dataset).close()
    with pytest.raises(FileTamperedError, match=r"plain\.csv"):
        place.commit()
    assert place.records.generation(place.dataset, place.uri).number == 1


def test_a_commit_that_lost_a_race_looks_again_and_leaves_no_manifest_behind(place: Place) -> None:
    place.records.fail_with = GenerationConflictError("generation 2 is recorded")
    place.write("part-7")
    assert place.commit().number == 2
    assert place.check()["part-7"] == 2
    assert len(list((place.root / "_casemate").iterdir())) == 2
