"""Sources of every kind, work in other processes, and runs that go on where a killed one was."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.support.memory import MemoryKeys, MemoryRecords

from casemate.crypto.secret import Secret
from casemate.data import decrypting, encrypting, trees
from casemate.data.dataset import decrypt_stream, decrypt_tree, encrypt_stream, encrypt_tree, verify_tree
from casemate.data.errors import (
    DestinationExistsError,
    FileTamperedError,
    ManifestFileSwappedError,
    SourceChangedError,
    SourceMissingError,
)
from casemate.data.journal import Done, Journal
from casemate.data.keys import DatasetKey
from casemate.data.sources import find_sources
from casemate.errors import UsageError
from casemate.model import DatasetName


def paths(*sources: Path | str) -> list[str]:
    return [file.path for file in find_sources([str(source) for source in sources]).files]


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    for name in ("plain/a.csv", "plain/b.csv", "plain/2024/c.csv", "plain/2024/deep/d.csv", "plain/ü ö/e [1].txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode() * 100)
    return tmp_path / "plain"


# Sources


def test_what_each_kind_of_source_brings(plain: Path) -> None:
    everything = ["2024/c.csv", "2024/deep/d.csv", "a.csv", "b.csv", "ü ö/e [1].txt"]
    assert paths(plain) == everything
    assert paths(plain / "a.csv") == ["a.csv"]
    assert paths(plain / "a.csv", plain / "2024") == ["2024/c.csv", "2024/deep/d.csv", "a.csv"]
    assert paths(f"{plain}/*.csv") == ["a.csv", "b.csv"]
    assert paths(f"{plain}/**/*.csv") == everything[:4]
    assert paths(f"{plain}/20*") == ["2024/c.csv", "2024/deep/d.csv"]
    assert paths(plain / "ü ö/e [1].txt") == ["e [1].txt"], "a name that is there is no pattern"


def test_sources_that_match_nothing_or_one_another_are_refused(plain: Path) -> None:
    for source in (plain / "*.json", plain / "nowhere"):
        with pytest.raises(SourceMissingError):
            paths(source)
    with pytest.raises(UsageError, match=r"both would be c\.csv"):
        paths(plain / "2024/c.csv", f"{plain}/2024/*.csv")
    with pytest.raises(UsageError, match="no storage is known"):
        paths("ftp://host/file")


def test_an_empty_directory_stays_one(plain: Path, owner: Owner, tmp_path: Path) -> None:
    (plain / "empty/inner").mkdir(parents=True)
    owner.encrypt(plain, tmp_path / "vault")
    assert (tmp_path / "vault/empty/inner").is_dir()


class Owner:
    """Somebody with keys and records."""

    def __init__(self, dataset: DatasetName) -> None:
        self.keys, self.records, self.dataset = MemoryKeys(str(dataset)), MemoryRecords(), dataset

    @property
    def names(self) -> dict[str, Any]:
        return {"keys": self.keys, "records": self.records}

    def encrypt(self, source: Any, destination: Path, **options: Any) -> trees.TreeResult:
        return encrypt_tree(source, destination, dataset=self.dataset, **self.names, **options)


@pytest.fixture
def owner(dataset: DatasetName) -> Owner:
    return Owner(dataset)


def test_several_datasets_directories_come_back_under_their_names(owner: Owner, plain: Path, tmp_path: Path) -> None:
    owner.encrypt(plain / "2024", tmp_path / "vault/one")
    owner.encrypt(plain / "a.csv", tmp_path / "vault/two")
    for sources in ([tmp_path / "vault/one", tmp_path / "vault/two"], f"{tmp_path}/vault/*"):
        decrypt_tree(sources, tmp_path / "back", overwrite=True, **owner.names)
        assert (tmp_path / "back/one/deep/d.csv").read_bytes() == (plain / "2024/deep/d.csv").read_bytes()
        assert (tmp_path / "back/two/a.csv").read_bytes() == (plain / "a.csv").read_bytes()


def test_a_stream_goes_in_and_out(owner: Owner, tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    result = encrypt_stream(
        io.BytesIO(data),
        "dump.sql",
        tmp_path / "vault",
        dataset=owner.dataset,
        **owner.names,  # type: ignore[arg-type]
    )
    assert (result.plaintext_size, result.generation) == (len(data), 1)
    out = io.BytesIO()
    decrypt_stream(tmp_path / "vault", out, **owner.names)  # type: ignore[arg-type]
    assert out.getvalue() == data
    for name in ("../dump", "", "..", "_casemate"):
        with pytest.raises(UsageError):
            encrypt_stream(io.BytesIO(b"x"), name, tmp_path / "v2", dataset=owner.dataset, **owner.names)


def test_a_stream_of_damaged_data_ends_before_the_damage(owner: Owner, tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    encrypt_stream(io.BytesIO(data), "dump", tmp_path / "vault", dataset=owner.dataset, **owner.names)
    stored = bytearray((tmp_path / "vault/dump").read_bytes())
    stored[2_500_000] ^= 1
    (tmp_path / "vault/dump").write_bytes(stored)
    out = io.BytesIO()
    with pytest.raises(FileTamperedError, match="vault/dump: segment 38"):
        decrypt_stream(tmp_path / "vault", out, **owner.names)
    assert data.startswith(out.getvalue())
    assert len(out.getvalue()) < 2_500_000


# Other processes


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (encrypting, decrypting):
        monkeypatch.setattr(module, "SPLIT_BYTES", 2**20)
        monkeypatch.setattr(module, "PART_BYTES", 2**20)


@pytest.mark.usefixtures("small_parts")
def test_processes_make_what_one_process_makes(owner: Owner, plain: Path, tmp_path: Path) -> None:
    segment = 65520
    sizes = {"large": 5_000_000, "edge": 16 * segment - 40, "over": 17 * segment - 39, "small": 10, "none": 0}
    for name, size in sizes.items():
        (plain / name).write_bytes(os.urandom(size))
    done: list[int] = []
    result = owner.encrypt(plain, tmp_path / "vault", processes=2, progress=lambda now, total: done.append(now))
    assert done == sorted(done)
    assert done[-1] == result.plaintext_size == sum(f.stat().st_size for f in plain.rglob("*") if f.is_file())
    assert verify_tree(tmp_path / "vault", **owner.names).files == 10
    decrypt_tree(tmp_path / "vault", tmp_path / "back", processes=2, **owner.names)
    for name in sizes:
        assert (tmp_path / "back" / name).read_bytes() == (plain / name).read_bytes(), name
    again = owner.encrypt(plain, tmp_path / "vault", overwrite=True)
    assert (again.stored_size, again.generation) == (result.stored_size, 2)


@pytest.mark.usefixtures("small_parts")
def test_damage_reaches_the_caller_from_other_processes(owner: Owner, plain: Path, tmp_path: Path) -> None:
    (plain / "large").write_bytes(os.urandom(5_000_000))
    owner.encrypt(plain, tmp_path / "vault", processes=2)
    stored = bytearray((tmp_path / "vault/large").read_bytes())
    stored[4_000_000] ^= 1
    (tmp_path / "vault/large").write_bytes(stored)
    with pytest.raises(FileTamperedError, match="vault/large: segment 61"):
        decrypt_tree(tmp_path / "vault", tmp_path / "back", processes=2, **owner.names)
    assert not (tmp_path / "back").exists()


@pytest.mark.usefixtures("small_parts")
def test_a_source_that_changes_meanwhile_is_refused(
    owner: Owner, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = plain / "large"
    large.write_bytes(os.urandom(5_000_000))
    begin = encrypting.Encrypting.begin

    def change(self: Any, *args: Any) -> Any:
        large.write_bytes(os.urandom(5_000_000))
        return begin(self, *args)

    monkeypatch.setattr(encrypting.Encrypting, "begin", change)
    with pytest.raises(SourceChangedError, match="large: was changed"):
        owner.encrypt(plain, tmp_path / "vault", processes=2)
    assert not (tmp_path / "vault").exists()


# Going on after a kill

KILLED = """
import os, sys, time
from casemate.crypto.secret import Secret
from casemate.data import dataset
from casemate.data.keys import DatasetKey
from casemate.data.pieces import Encrypting, Decrypting, OneKey
from casemate.model import DatasetName
from tests.support.memory import MemoryRecords

name = DatasetName.parse("hospital/patients")
keys, records = OneKey(DatasetKey(name, 1, Secret(bytes.fromhex(sys.argv[3])))), MemoryRecords()
file = Encrypting.file

def slow(self, path, *args):
    if path >= "f150":
        os.write(1, b"now\\n")
        time.sleep(60)
    return file(self, path, *args)

Encrypting.file = slow
dataset.encrypt_tree(sys.argv[1], sys.argv[2], dataset=name, keys=keys, records=records, threads=1)
"""


@pytest.fixture
def killed(tmp_path: Path) -> tuple[Path, Path, MemoryKeys, DatasetName]:
    """A run of 200 files that was killed at the 150th; batches of 128 were done."""
    source, vault = tmp_path / "many", tmp_path / "vault"
    source.mkdir()
    for number in range(200):
        (source / f"f{number:03}").write_bytes(f"file {number}".encode() * 100)
    dataset, keys = DatasetName.parse("hospital/patients"), MemoryKeys("hospital/patients")
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(source), str(vault), keys.current_key(dataset).secret.reveal().hex()],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"now\n"
        process.send_signal(signal.SIGKILL)
    assert not vault.exists()
    return source, vault, keys, dataset


def test_a_run_goes_on_where_a_killed_one_was(
    killed: tuple[Path, Path, MemoryKeys, DatasetName], tmp_path: Path
) -> None:
    source, vault, keys, dataset = killed
    stage = next(tmp_path.glob(".vault.casemate-*"))
    before = {path.name: path.stat().st_ino for path in (stage / "new").iterdir()}
    time.sleep(0.01)
    (source / "f005").write_bytes(b"changed since")
    (source / "f006").unlink()
    records = MemoryRecords()
    result = encrypt_tree(source, vault, dataset=dataset, keys=keys, records=records)
    assert (result.files, result.kept, result.generation) == (199, 126, 1)
    kept = [name for name, inode in before.items() if (vault / name).exists() and (vault / name).stat().st_ino == inode]
    assert len(kept) == 126
    decrypt_tree(vault, tmp_path / "back", keys=keys, records=records)
    for path in source.iterdir():
        assert (tmp_path / "back" / path.name).read_bytes() == path.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "many", "vault"]


def test_a_journal_that_the_storages_owner_wrote_counts_for_nothing(
    killed: tuple[Path, Path, MemoryKeys, DatasetName], tmp_path: Path
) -> None:
    source, vault, keys, dataset = killed
    journal = next(tmp_path.glob(".vault.casemate-*")) / "journal"
    lines = journal.read_bytes().split(b"\n")
    entries = json.loads(lines[2][64:])
    entries[0][3] = "AAAAAAAAAAAAAAAAAAAAAA=="
    journal.write_bytes(b"\n".join([*lines[:2], lines[2][:64] + json.dumps(entries).encode(), b""]))
    assert encrypt_tree(source, vault, dataset=dataset, keys=keys, records=MemoryRecords()).kept == 0


def test_a_journal_is_for_one_key_one_work_and_one_boot(tmp_path: Path, dataset: DatasetName) -> None:
    key, other = (DatasetKey(dataset, 1, Secret.random()) for _ in range(2))
    journal = Journal(tmp_path / "journal", key, "encrypt to file:///a")
    journal.start()
    journal.add([Done("f", "identity", 600, "id")])
    journal.close()
    again = Journal(tmp_path / "journal", key, "encrypt to file:///a")
    assert again.load()
    assert again.done["f"].size == 600
    assert not Journal(tmp_path / "journal", other, "encrypt to file:///a").load()
    assert not Journal(tmp_path / "journal", key, "encrypt to file:///b").load()
    with (tmp_path / "journal").open("ab") as out:
        out.write(b"cut off")
    assert again.load()
    assert len(again.done) == 1


def test_a_run_killed_after_its_first_install_goes_on(owner: Owner, plain: Path, tmp_path: Path) -> None:
    """The directory was in place, and the record not yet made: it is no dataset, and the same command completes."""
    place = tmp_path / "vault"
    program = KILLED.replace(
        "Encrypting.file = slow", "records.record = lambda *a: (os.write(1, b'now\\n'), time.sleep(60))"
    )
    with subprocess.Popen(
        [
            sys.executable,
            "-c",
            program,
            str(plain),
            str(place),
            owner.keys.current_key(owner.dataset).secret.reveal().hex(),
        ],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"now\n"
        process.kill()
    assert place.is_dir()
    result = owner.encrypt(plain, place)
    assert (result.kept, result.generation) == (5, 1)
    assert verify_tree(place, **owner.names).files == 5
    with pytest.raises(DestinationExistsError):
        owner.encrypt(plain, place)


def test_a_file_swapped_between_listing_and_reading_is_refused(
    owner: Owner, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner.encrypt(plain, tmp_path / "vault")
    find = decrypting._find

    def swap(*args: Any) -> Any:
        found = find(*args)
        (tmp_path / "vault/b.csv").replace(tmp_path / "vault/a.csv")
        return found

    monkeypatch.setattr(decrypting, "_find", swap)
    with pytest.raises(ManifestFileSwappedError, match=r"vault/a\.csv"):
        decrypt_tree(tmp_path / "vault", tmp_path / "back", **owner.names)
