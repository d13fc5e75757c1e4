"""Datasets in a real object store: whole, resumable, and refused when the store's owner changes anything."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.memory import MemoryKeys, MemoryRecords
from tests.support.s3_server import S3Server

from casemate.data.dataset import decrypt_stream, decrypt_tree, encrypt_stream, encrypt_tree, inspect, verify_tree
from casemate.data.errors import (
    DestinationExistsError,
    FileTamperedError,
    IntegrityError,
    ManifestFileForeignError,
    ManifestFileMissingError,
    ManifestFileSwappedError,
    ManifestMissingError,
    ManifestRolledBackError,
    OutsideZonesError,
    SourceMissingError,
    UnsupportedOperationError,
    ZoneAccessError,
)
from casemate.data.filesystem import ZoneFileSystem
from casemate.data.objects import object_store
from casemate.data.session import ZoneSession
from casemate.data.zones import ZoneMap
from casemate.errors import UndecidedError
from casemate.model import Access, DatasetName, Zone

FILES = {
    "a.csv": b"id\n" * 50_000,
    "b ü/c.parquet": os.urandom(200_000),
    "b ü/empty": b"",
    "big": os.urandom(10_000_000),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("s3") / "server") as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture
def place(server: S3Server, request: pytest.FixtureRequest) -> str:
    return f"s3://bucket/{request.node.name}"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for name, data in FILES.items():
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "source"


class Owner:
    def __init__(self) -> None:
        self.dataset = DatasetName.parse("hospital/patients")
        self.keys, self.records = MemoryKeys(str(self.dataset)), MemoryRecords()

    @property
    def names(self) -> dict[str, Any]:
        return {"keys": self.keys, "records": self.records}

    def encrypt(self, source: Any, destination: str, **options: Any) -> Any:
        return encrypt_tree(source, destination, dataset=self.dataset, **{**self.names, **options})


@pytest.fixture
def owner() -> Owner:
    return Owner()


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def objects(place: str) -> dict[str, bytes]:
    store = object_store(place)
    return {path: store.read(one.uri) for path, one in store.found(place)}


def test_everything_comes_back_from_s3_and_nothing_of_it_is_readable_there(
    owner: Owner, source: Path, place: str, tmp_path: Path
) -> None:
    result = owner.encrypt(source, place)
    assert (result.files, result.generation, result.location) == (4, 1, place)
    assert not any(FILES["a.csv"][:30] in data for data in objects(place).values())
    assert {info.path.removeprefix(place + "/") for info in inspect(place)} == set(FILES)
    decrypt_tree(place, tmp_path / "back", **owner.names)
    assert contents(tmp_path / "back") == FILES
    decrypt_tree(f"{place}/*.csv", tmp_path / "some", **owner.names)
    assert contents(tmp_path / "some") == {"a.csv": FILES["a.csv"]}
    decrypt_tree(place, f"{place}-plain", **owner.names)
    owner.encrypt(f"{place}-plain", f"{place}-again")
    assert verify_tree(f"{place}-again", **owner.names).plaintext_size == result.plaintext_size
    with (tmp_path / "stream").open("xb") as out:
        decrypt_stream(f"{place}/big", out, **owner.names)
    assert (tmp_path / "stream").read_bytes() == FILES["big"]
    with (tmp_path / "stream").open("rb") as stream:
        encrypt_stream(stream, "dump", f"{place}-stream", dataset=owner.dataset, **owner.names)
    assert verify_tree(f"{place}-stream", **owner.names).plaintext_size == len(FILES["big"])


def test_replacing_a_dataset_leaves_nothing_of_the_old_one(owner: Owner, source: Path, place: str) -> None:
    owner.encrypt(source, place)
    with pytest.raises(DestinationExistsError):
        owner.encrypt(source, place)
    (source / "a.csv").write_bytes(b"new")
    (source / "big").unlink()
    assert owner.encrypt(source, place, overwrite=True).generation == 2
    names = set(objects(place))
    assert {name for name in names if not name.startswith("_casemate/")} == set(FILES) - {"big"}
    assert verify_tree(place, **owner.names).files == 3
    object_store(place).write(f"{place}-other/mine", b"mine")
    with pytest.raises(DestinationExistsError, match="not an encrypted directory"):
        owner.encrypt(source, f"{place}-other", overwrite=True)


def test_a_record_that_is_refused_leaves_the_old_dataset_to_be_refused_or_read_never_mixed(
    owner: Owner, source: Path, place: str, tmp_path: Path
) -> None:
    owner.encrypt(source, place)
    owner.records.fail_with = UndecidedError("the broker is away")
    (source / "a.csv").write_bytes(b"new")
    with pytest.raises(UndecidedError):
        owner.encrypt(source, place, overwrite=True, unfinished=tmp_path / "unfinished")
    with pytest.raises(ManifestFileSwappedError, match=r"a\.csv"):
        verify_tree(place, **owner.names)
    result = owner.encrypt(source, place, overwrite=True, unfinished=tmp_path / "unfinished")
    assert (result.kept, result.generation) == (4, 2)
    decrypt_tree(place, tmp_path / "back", **owner.names)
    assert contents(tmp_path / "back") == {**FILES, "a.csv": b"new"}
    assert not any("_temporary" in name for name in objects(place))


@pytest.mark.parametrize("attack", ["flip", "delete", "add", "swap", "roll back", "manifest"])
def test_an_attack_of_the_stores_owner_is_refused_naming_the_object(
    owner: Owner, source: Path, place: str, tmp_path: Path, attack: str
) -> None:
    store, before = object_store(place), {}
    owner.encrypt(source, place)
    big = store.read(f"{place}/big")
    if attack == "flip":
        store.write(f"{place}/big", big[:4_000_000] + bytes([big[4_000_000] ^ 1]) + big[4_000_001:])
        expected, named = FileTamperedError, "/big: segment 61"
    elif attack == "delete":
        store.delete([f"{place}/big"])
        expected, named = ManifestFileMissingError, "/big"
    elif attack == "add":
        store.copy(f"{place}/big", f"{place}/more")
        expected, named = ManifestFileForeignError, "/more"
    elif attack == "swap":
        store.copy(f"{place}/big", f"{place}/a.csv")
        expected, named = ManifestFileSwappedError, "/a.csv"
    elif attack == "manifest":
        store.delete([one.uri for path, one in store.found(place) if path.startswith("_casemate/")])
        expected, named = ManifestMissingError, "_casemate/manifest-0000000001"
    else:
        before = objects(place)
        owner.encrypt(source, place, overwrite=True)
        store.delete([one.uri for _, one in store.found(place)])
        for path, data in before.items():
            store.write(f"{place}/{path}", data)
        expected, named = ManifestRolledBackError, "rolled back from generation 2 to 1"
    with pytest.raises(expected, match=named):
        decrypt_tree(place, tmp_path / "back", **owner.names)
    assert not (tmp_path / "back").exists()


def test_other_credentials_and_absent_places_are_errors_of_ours(
    owner: Owner, source: Path, place: str, server: S3Server
) -> None:
    with pytest.raises(SourceMissingError):
        verify_tree(place, **owner.names)
    program = (
        "import sys; from pathlib import Path; from casemate.data.objects import object_store\n"
        "try: object_store(sys.argv[1]).write(sys.argv[1], b'x')\n"
        "except OSError as exc: print(type(exc).__name__, exc)"
    )
    environment = {**os.environ, "AWS_SECRET_ACCESS_KEY": "not the secret"}
    done = subprocess.run(
        [sys.executable, "-c", program, place], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout, "a wrong signature is refused"
    assert "not the secret" not in done.stdout + done.stderr


KILLED = """
import os, sys, time
from pathlib import Path
from casemate.crypto.secret import Secret
from casemate.data import dataset
from casemate.data.keys import DatasetKey
from casemate.data.pieces import Encrypting, OneKey
from casemate.model import DatasetName
from tests.support.memory import MemoryRecords

name = DatasetName.parse("hospital/patients")
keys = OneKey(DatasetKey(name, 1, Secret(bytes.fromhex(sys.stdin.readline()))))
file = Encrypting.file

def slow(self, path, *args):
    if path == "big":
        os.write(1, b"now\\n")
        time.sleep(60)
    return file(self, path, *args)

Encrypting.file = slow
dataset.encrypt_tree(
    sys.argv[1], sys.argv[2], dataset=name, keys=keys, records=MemoryRecords(), unfinished=Path(sys.argv[3]), threads=1
)
"""


def test_an_upload_goes_on_where_a_killed_one_was(owner: Owner, source: Path, place: str, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(source), place, str(tmp_path / "unfinished")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    ) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(owner.keys.current_key(owner.dataset).secret.reveal().hex().encode() + b"\n")
        process.stdin.close()
        assert process.stdout.readline() == b"now\n"
        process.send_signal(signal.SIGKILL)
    before = objects(place)
    assert set(before) == {"a.csv", "b ü/c.parquet", "b ü/empty"}
    with pytest.raises(IntegrityError):
        verify_tree(place, **owner.names)
    result = owner.encrypt(source, place, unfinished=tmp_path / "unfinished")
    assert (result.kept, result.files, result.generation) == (3, 4, 1)
    after = objects(place)
    assert {path: after[path] for path in before} == before, "what was there was not sent again"
    decrypt_tree(place, tmp_path / "back", **owner.names)
    assert contents(tmp_path / "back") == FILES
    assert not list((tmp_path / "unfinished").iterdir())


def test_a_zone_in_s3_through_fsspec(owner: Owner, source: Path, place: str) -> None:
    """pandas, PyArrow and the like see plaintext; what they write appears whole, and is committed."""
    zone = Zone(place, owner.dataset, Access.READ_WRITE)
    files = ZoneFileSystem(ZoneSession(ZoneMap([zone], working_directory="/"), owner.keys, owner.records))
    with files.open(f"{place}/out/part-0 ü.csv", "wb") as out:
        out.write(b"1,2\n" * 1_000_000)
        assert not files.exists(f"{place}/out/part-0 ü.csv"), "a file that is not closed is not there"
    with files.open(f"{place}/out/_SUCCESS", "wb"):
        pass
    assert owner.records.generation(owner.dataset, f"{place}/out").number == 1
    assert files.find(f"{place}/out") == [f"{place}/out/_SUCCESS", f"{place}/out/part-0 ü.csv"]
    assert files.size(f"{place}/out/part-0 ü.csv") == 4_000_000
    assert files.glob(f"{place}/out/*.csv") == [f"{place}/out/part-0 ü.csv"]
    assert not any(b"1,2\n1,2\n1,2\n" in data for data in objects(place).values())
    files.cp_file(f"{place}/out/part-0 ü.csv", f"{place}/out/copy.csv")
    files.rm(f"{place}/out/part-0 ü.csv")
    assert files.commit(f"{place}/out") == 2

    reader = Zone(place, owner.dataset, Access.READ)
    strict = ZoneFileSystem(ZoneSession(ZoneMap([reader], working_directory="/"), owner.keys, owner.records))
    assert strict.cat_file(f"{place}/out/copy.csv") == b"1,2\n" * 1_000_000
    with strict.open(f"{place}/out/copy.csv") as opened:
        opened.seek(3_999_996)
        assert opened.read() == b"1,2\n"
    with pytest.raises(ZoneAccessError):
        strict.open(f"{place}/out/more.csv", "wb")
    object_store(place).copy(f"{place}/out/copy.csv", f"{place}/out/foreign.csv")
    strict.invalidate_cache()
    for refused in (lambda: strict.ls(f"{place}/out"), lambda: strict.open(f"{place}/out/foreign.csv")):
        with pytest.raises(ManifestFileForeignError, match=r"foreign\.csv"):
            refused()
    for outside in (lambda: files.ls("s3://bucket"), lambda: files.open("s3://bucket/elsewhere", "rb")):
        with pytest.raises(UnsupportedOperationError):
            outside()
    with pytest.raises(OutsideZonesError):
        files.open(f"{place}/../elsewhere", "wb")
