"""Python and Java read each other's files and manifests, and neither takes a damaged one."""

from __future__ import annotations

import base64
import hashlib
import io
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.conformance import KIT, VECTORS
from tests.support.damage import damages
from tests.support.jvm import JavaError

from casemate.crypto.canonical import sha256_hex
from casemate.data.commit import commit_directory
from casemate.data.dataset import decrypt_tree, encrypt_tree, verify_tree
from casemate.data.errors import IntegrityError
from casemate.data.fileid import FileIds
from casemate.data.generations import Generation
from casemate.data.manifest import ManifestFile, build_manifest, manifest_path
from casemate.data.reader import EncryptedReader
from casemate.data.writer import EncryptedWriter
from casemate.data.zones import local_uri
from casemate.model import DatasetName

PATIENTS = DatasetName.parse("hospital/patients")
FIRST, FULL = 65480, 65520  # plaintext bytes of the first segment and of every other
SIZES = [0, 1, 100, FIRST - 1, FIRST, FIRST + 1, FIRST + FULL - 1, FIRST + FULL, FIRST + FULL + 1, 1_000_000]


def content(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def encrypted(data: bytes, world) -> bytes:
    raw = io.BytesIO()
    with EncryptedWriter(raw, world.agent.keys, PATIENTS) as out:
        out.write(data)
    return raw.getvalue()


def decrypted(path: Path, world) -> bytes:
    raw = path.open("rb", buffering=0)
    with EncryptedReader(raw, path.stat().st_size, world.agent.keys, dataset=PATIENTS, name=str(path)) as reader:
        return reader.read()


@pytest.fixture
def rw(world, request: pytest.FixtureRequest) -> Path:
    """A directory of this test's own in the zone to read and write."""
    path = world.rw / f"{request.node.name.replace('[', '-').rstrip(']')}"
    path.mkdir()
    return path


@pytest.mark.parametrize("size", SIZES)
def test_java_reads_what_python_writes(world, rw: Path, size: int) -> None:
    (rw / "file").write_bytes(encrypted(content(size), world))
    assert world.read(rw / "file") == content(size)
    assert world.list(rw) == {"file": size}


@pytest.mark.parametrize("size", SIZES)
def test_python_reads_what_java_writes(world, rw: Path, size: int) -> None:
    world.write(rw / "file", content(size))
    assert decrypted(rw / "file", world) == content(size)


def test_random_reads_by_java_match(world, rw: Path) -> None:
    data, rng = content(1_000_000), random.Random(7)
    (rw / "file").write_bytes(encrypted(data, world))
    ranges = []
    for _ in range(200):
        start = rng.randrange(len(data))
        ranges.append((start, min(rng.choice([1, 100, 8192, 200_000]), len(data) - start)))
    assert world.read_ranges(rw / "file", ranges) == [data[start : start + size] for start, size in ranges]


def test_files_of_an_older_key_version_stay_readable_and_new_ones_use_the_newest(world) -> None:
    visits = DatasetName.parse("clinic/visits")
    raw = io.BytesIO()
    with EncryptedWriter(raw, world.agent.keys, visits) as out:
        out.write(b"old")
    (world.other / "old").write_bytes(raw.getvalue())
    world.agent.keys.rotate(visits)
    assert world.read(world.other / "old") == b"old"
    world.write(world.other / "new", b"new")
    header = (world.other / "new").read_bytes()[:512]
    assert b'"kek":2' in header


def test_no_damaged_file_is_accepted(world, rw: Path) -> None:
    accepted, codes, total = [], set(), 0
    for name, bad in damages(encrypted(content(230_000), world)):
        path = rw / str(total)
        path.write_bytes(bad)
        total += 1
        try:
            world.read(path)
        except JavaError as exc:
            codes.add(exc.code if str(path) in exc.message else f"{exc} does not name {path}")
        else:
            accepted.append(name)
    assert total > 150
    assert accepted == []
    assert codes <= {"file-malformed", "file-tampered", "file-truncated", "file-wrong-dataset", "key-denied"}


def test_no_damaged_file_gets_into_a_listing_as_an_empty_one(world, rw: Path) -> None:
    """Engines pass over files of length 0 without opening them."""
    empty = []
    for number, (name, bad) in enumerate(damages(encrypted(content(230_000), world))):
        path = rw / str(number)
        path.mkdir()
        (path / "file").write_bytes(bad)
        try:
            if world.list(path)["file"] <= 0:
                empty.append(name)
        except JavaError as exc:
            if not exc.code.startswith("file-"):
                empty.append(f"{name}: {exc}")
    assert empty == []


def test_a_manifest_has_the_same_bytes_whoever_writes_it(world) -> None:
    key = world.agent.keys.current_key(PATIENTS)
    paths = ["z", "a/b", "a", "ä ö/ü", "\U0001f600", "\uffff", 'quote"back\\slash', "tab\tnewline\n", "a b", "A"]
    files = [ManifestFile(path, 568 + i, base64.b64encode(bytes([i]) * 16).decode()) for i, path in enumerate(paths)]
    by_java = world.call(
        "manifest",
        "/",
        dataset=str(PATIENTS),
        version=key.version,
        key=base64.b64encode(key.secret.reveal()).decode(),
        location="file:///vault/ä",
        generation=12,
        files={file.path: [file.length, file.file_id] for file in files},
    )
    assert base64.b64decode(by_java) == build_manifest(key, "file:///vault/ä", 12, files)


def test_java_reads_a_directory_that_python_committed(world, tmp_path: Path) -> None:
    source = tmp_path / "plain"
    (source / "sub dir").mkdir(parents=True)
    (source / "a.csv").write_bytes(content(70_000))
    (source / "sub dir" / "ü.csv").write_bytes(b"x")
    destination = world.ro / "by-python"
    records = world.agent.records
    encrypt_tree(source, destination, dataset=PATIENTS, keys=world.agent.keys, records=records)
    assert world.list(destination) == {"a.csv": 70_000, "sub dir": -1}
    assert world.read(destination / "a.csv") == content(70_000)
    assert world.list(destination / "sub dir") == {"ü.csv": 1}
    assert world.read(destination / "sub dir" / "ü.csv") == b"x"


def test_python_reads_directories_that_java_committed(world, rw: Path, tmp_path: Path) -> None:
    for job in ("first", "second"):
        world.write(rw / job / "part=1" / "data", content(70_000))
        world.write(rw / job / "part=ü" / "data", b"more")
        world.commit(rw / job)
    result = verify_tree(rw, keys=world.agent.keys, records=world.agent.records)
    assert result.generation == 1
    assert result.files == 6
    decrypt_tree(rw / "first", tmp_path / "out", keys=world.agent.keys, records=world.agent.records)
    assert (tmp_path / "out" / "part=1" / "data").read_bytes() == content(70_000)


@pytest.fixture
def committed(world, request: pytest.FixtureRequest) -> Path:
    """A committed directory of three files, in the zone that is only read."""
    path = world.ro / request.node.name
    path.mkdir()
    for name in ("one", "two", "three"):
        (path / name).write_bytes(encrypted(name.encode() * 10_000, world))
    commit(world, path)
    return path


def commit(world, path: Path) -> None:
    """Commit whatever lies there, as its owner may."""
    commit_directory(path, local_uri(path), PATIENTS, world.agent.keys, world.agent.records, ids=FileIds(), adopt=True)


def manifest_of(world, directory: Path) -> Path:
    return directory / manifest_path(world.agent.records.generation(PATIENTS, local_uri(directory)))


def refused_by_both(world, directory: Path, name: str | None = None) -> Iterator[str]:
    """The codes with which Java and Python refuse the directory, or one file of it."""
    world.call("forget", "/")
    error = world.refused("read" if name else "list", directory / name if name else directory)
    assert str(directory) in error.message
    yield error.code
    with pytest.raises(IntegrityError) as caught:
        verify_tree(directory, keys=world.agent.keys, records=world.agent.records)
    yield caught.value.code


def test_a_deleted_file_is_missed(world, committed: Path) -> None:
    (committed / "two").unlink()
    assert set(refused_by_both(world, committed)) == {"manifest-file-missing"}
    assert world.refused("read", committed / "two").code == "manifest-file-missing"


def test_a_directory_in_place_of_a_file_is_refused(world, committed: Path) -> None:
    (committed / "two").unlink()
    (committed / "two").mkdir()
    assert set(refused_by_both(world, committed)) == {"manifest-file-missing"}


def test_a_foreign_file_is_refused_even_with_a_valid_header(world, committed: Path) -> None:
    (committed / "four").write_bytes(encrypted(b"old news", world))
    assert set(refused_by_both(world, committed)) == {"manifest-file-foreign"}
    assert world.refused("read", committed / "four").code == "manifest-file-foreign"


def test_swapped_files_are_refused(world, committed: Path) -> None:
    (committed / "one").rename(committed / "x")
    (committed / "two").rename(committed / "one")
    (committed / "x").rename(committed / "two")
    assert set(refused_by_both(world, committed, "one")) == {"manifest-file-swapped"}
    assert world.refused("read", committed / "two").code == "manifest-file-swapped"


def test_swapped_files_of_different_length_are_refused_in_the_listing(world, committed: Path) -> None:
    (committed / "one").write_bytes((committed / "three").read_bytes())
    assert set(refused_by_both(world, committed)) == {"manifest-file-swapped"}


def test_an_older_version_of_one_file_is_refused(world, committed: Path) -> None:
    (committed / "one").write_bytes(encrypted(b"one" * 10_000, world))
    assert set(refused_by_both(world, committed, "one")) == {"manifest-file-swapped"}


def test_a_truncated_file_is_refused_in_the_listing(world, committed: Path) -> None:
    data = (committed / "one").read_bytes()
    (committed / "one").write_bytes(data[:-100])
    assert next(refused_by_both(world, committed)) == "file-truncated"


def test_a_directory_rolled_back_as_a_whole_is_refused_with_both_generations(world, committed: Path) -> None:
    before = {path.relative_to(committed): path.read_bytes() for path in committed.rglob("*") if path.is_file()}
    (committed / "two").write_bytes(encrypted(b"two, corrected", world))
    commit(world, committed)
    manifest_of(world, committed).unlink()
    for path, data in before.items():
        (committed / path).write_bytes(data)
    world.call("forget", "/")
    error = world.refused("list", committed)
    assert error.code == "manifest-rolled-back"
    assert "from generation 2 to 1" in error.message


def test_an_older_manifest_under_the_newest_name_is_refused_with_both_generations(world, committed: Path) -> None:
    old = manifest_of(world, committed).read_bytes()
    commit(world, committed)
    manifest_of(world, committed).write_bytes(old)
    world.call("forget", "/")
    assert "from generation 2 to 1" in world.refused("list", committed).message


def test_every_changed_byte_of_a_manifest_is_noticed(world, committed: Path) -> None:
    path = manifest_of(world, committed)
    good = path.read_bytes()
    for position in range(0, len(good), 7):
        path.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
        world.call("forget", "/")
        assert world.refused("list", committed).code in ("manifest-tampered", "manifest-rolled-back")


def test_a_manifest_is_not_taken_from_another_place_or_dataset_even_if_recorded(world, committed: Path) -> None:
    """A broker that records what it is told does not help an owner of the storage who cannot compute the MAC."""
    other = world.ro / "elsewhere"
    recorded = world.agent.records.generation(PATIENTS, local_uri(committed))
    manifest = (committed / manifest_path(recorded)).read_bytes()
    (other / manifest_path(recorded)).parent.mkdir(parents=True)
    (other / manifest_path(recorded)).write_bytes(manifest)
    for name in ("one", "two", "three"):
        (other / name).write_bytes((committed / name).read_bytes())
    world.agent.records.record(PATIENTS, local_uri(other), recorded)
    assert world.refused("list", other).code == "manifest-tampered"
    forged = manifest.replace(b'"files":[', b'"files":[ ').replace(b"[ ", b"[")[:-10] + b'AAAAAAA="}'
    third = world.ro / "forged"
    generation = Generation(1, sha256_hex(forged))
    (third / manifest_path(generation)).parent.mkdir(parents=True)
    (third / manifest_path(generation)).write_bytes(forged)
    world.agent.records.record(PATIENTS, local_uri(third), generation)
    assert world.refused("list", third).code == "manifest-tampered"


def test_a_deleted_manifest_does_not_free_its_directory(world, committed: Path) -> None:
    manifest_of(world, committed).unlink()
    world.call("forget", "/")
    assert world.refused("list", committed).code == "manifest-missing"
    assert world.refused("read", committed / "one").code == "manifest-missing"


def test_what_was_never_committed_cannot_be_read_where_a_job_only_reads(world) -> None:
    (world.ro / "loose").mkdir()
    (world.ro / "loose" / "file").write_bytes(encrypted(b"x", world))
    assert world.refused("read", world.ro / "loose" / "file").code == "manifest-missing"
    assert world.refused("list", world.ro / "loose").code == "manifest-missing"


def test_java_gets_the_conformance_kit_right(world) -> None:
    wrong = []
    for entry in [*VECTORS["valid"], *VECTORS["damaged"]]:
        path = world.kit / entry["file"]
        path.parent.mkdir(exist_ok=True)
        path.write_bytes((KIT / entry["file"]).read_bytes())
        try:
            found = hashlib.sha256(world.read(path)).hexdigest()
        except JavaError as exc:
            found = (
                None if exc.code in ("key-denied", "file-wrong-dataset") or exc.code.startswith("file-") else str(exc)
            )
        if found != entry.get("plaintext_sha256"):
            wrong.append((entry, found))
    assert wrong == []
