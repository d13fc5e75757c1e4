"""Whole directories: all or nothing, at every error and every kill."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.support.memory import MemoryKeys, MemoryRecords

from casemate.crypto.secret import Secret
from casemate.data import dataset as trees
from casemate.data import staging
from casemate.data.dataset import decrypt_tree, encrypt_tree, inspect, verify_tree
from casemate.data.errors import (
    DestinationExistsError,
    FileMalformedError,
    FileTamperedError,
    FileWrongDatasetError,
    IntegrityError,
    KeyDeniedError,
    ManifestFileForeignError,
    ManifestFileMissingError,
    ManifestFileSwappedError,
    ManifestMissingError,
    SourceMissingError,
    StorageFailedError,
    ZoneAccessError,
)
from casemate.data.format import stored_size
from casemate.data.keys import DatasetKey
from casemate.errors import GenerationConflictError, UndecidedError, UsageError
from casemate.model import DatasetName

FILES = {"a.csv": b"id\n" * 50_000, "b/c.parquet": os.urandom(200_000), "b/empty": b"", "ü/ö ä.txt": b"text"}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for name, data in FILES.items():
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "source"


class Owner:
    """Somebody with keys and records, who encrypts and decrypts."""

    def __init__(self, keys: MemoryKeys, records: MemoryRecords, dataset: DatasetName) -> None:
        self.keys, self.records, self.dataset = keys, records, dataset

    def encrypt(self, source: Path, destination: Path, **options: Any) -> trees.TreeResult:
        options = {"dataset": self.dataset, "keys": self.keys, "records": self.records, **options}
        return encrypt_tree(source, destination, **options)

    def decrypt(self, source: Path, destination: Path, **options: Any) -> trees.TreeResult:
        return decrypt_tree(source, destination, **{"keys": self.keys, "records": self.records, **options})

    def verify(self, source: Path, **options: Any) -> trees.TreeResult:
        return verify_tree(source, **{"keys": self.keys, "records": self.records, **options})


@pytest.fixture
def owner(keys: MemoryKeys, records: MemoryRecords, dataset: DatasetName) -> Owner:
    return Owner(keys, records, dataset)


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_directory_comes_back_as_it_was(owner: Owner, source: Path, tmp_path: Path) -> None:
    result = owner.encrypt(source, tmp_path / "vault")
    assert (result.files, result.generation) == (4, 1)
    assert result.plaintext_size == sum(map(len, FILES.values()))
    assert result.stored_size == sum(stored_size(len(data)) for data in FILES.values())
    back = owner.decrypt(tmp_path / "vault", tmp_path / "back")
    assert contents(tmp_path / "back") == FILES
    assert (back.files, back.generation, back.plaintext_size) == (4, 1, result.plaintext_size)
    assert names(tmp_path) == ["back", "source", "vault"]


def test_nothing_of_the_plaintext_is_in_the_vault(owner: Owner, source: Path, tmp_path: Path) -> None:
    (source / "canary").write_bytes(b"canary-91c2" * 1000)
    owner.encrypt(source, tmp_path / "vault")
    assert not any(b"canary-91c2" in data for data in contents(tmp_path / "vault").values())


def test_a_single_file_keeps_its_name_below_the_destination(owner: Owner, source: Path, tmp_path: Path) -> None:
    owner.encrypt(source / "a.csv", tmp_path / "deep/er/vault")
    names = {name.partition("-")[0] for name in contents(tmp_path / "deep/er/vault")}
    assert names == {"a.csv", "_casemate/manifest"}


def test_one_visible_file_becomes_the_file_that_is_asked_for(owner: Owner, source: Path, tmp_path: Path) -> None:
    (tmp_path / "spark").mkdir()
    (tmp_path / "spark/part-00000-4c1e.csv").write_bytes(b"1,2\n")
    (tmp_path / "spark/_SUCCESS").touch()
    owner.encrypt(tmp_path / "spark", tmp_path / "vault")
    result = owner.decrypt(tmp_path / "vault", tmp_path / "report.csv")
    assert (tmp_path / "report.csv").read_bytes() == b"1,2\n"
    assert result.files == 1
    owner.decrypt(tmp_path / "vault", tmp_path / "report")
    assert names(tmp_path / "report") == ["_SUCCESS", "part-00000-4c1e.csv"]
    owner.decrypt(tmp_path / "vault/part-00000-4c1e.csv", tmp_path / "report.txt")
    assert (tmp_path / "report.txt").read_bytes() == b"1,2\n"
    owner.decrypt(tmp_path / "vault/part-00000-4c1e.csv", tmp_path / "source")
    assert (tmp_path / "source/part-00000-4c1e.csv").read_bytes() == b"1,2\n"
    assert set(FILES) <= set(contents(source)), "a file decrypted into a directory replaces nothing in it"


def test_a_directory_of_several_committed_ones_is_decrypted_as_a_whole(
    owner: Owner, source: Path, tmp_path: Path
) -> None:
    owner.encrypt(source, tmp_path / "vault/one")
    owner.encrypt(source, tmp_path / "vault/two")
    owner.decrypt(tmp_path / "vault", tmp_path / "back")
    assert contents(tmp_path / "back/two") == FILES
    shutil.copy(tmp_path / "vault/one/a.csv", tmp_path / "vault/a.csv")
    with pytest.raises(ManifestMissingError, match=r"vault/a\.csv"):
        owner.decrypt(tmp_path / "vault", tmp_path / "again")


def test_progress_reaches_the_total_and_never_goes_back(owner: Owner, source: Path, tmp_path: Path) -> None:
    total = sum(map(len, FILES.values()))
    for run in (
        lambda progress: owner.encrypt(source, tmp_path / "vault", progress=progress),
        lambda progress: owner.verify(tmp_path / "vault", progress=progress),
        lambda progress: owner.decrypt(tmp_path / "vault", tmp_path / "back", progress=progress),
    ):
        calls: list[tuple[int, int]] = []
        run(lambda done, all_, calls=calls: calls.append((done, all_)))
        assert calls == sorted(calls)
        assert calls[-1] == (total, total)


def test_inspect_needs_no_key(owner: Owner, source: Path, tmp_path: Path, dataset: DatasetName) -> None:
    owner.encrypt(source, tmp_path / "vault")
    found = {Path(info.path).name: info for info in inspect(tmp_path / "vault")}
    assert found["a.csv"].plaintext_size == len(FILES["a.csv"])
    assert (found["a.csv"].dataset, found["a.csv"].key_version) == (dataset, 1)
    assert len({info.file_id for info in found.values()}) == 4
    with pytest.raises(FileMalformedError, match=r"a\.csv: not an encrypted file"):
        inspect(source / "a.csv")
    with pytest.raises(SourceMissingError):
        inspect(tmp_path / "nowhere")


def test_one_operation_asks_once_for_each_key_and_uses_one_version(
    owner: Owner, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Rotating(MemoryKeys):
        def current_key(self, dataset: DatasetName) -> DatasetKey:
            asked.append("current")
            return self.rotate(dataset)

        def key(self, dataset: DatasetName, version: int) -> DatasetKey:
            asked.append(str(version))
            return super().key(dataset, version)

        def rotate(self, dataset: DatasetName) -> DatasetKey:
            self._keys.setdefault(dataset, []).append(Secret.random())
            return super().key(dataset, len(self._keys[dataset]))

    keys = Rotating(str(owner.dataset))
    owner.encrypt(source, tmp_path / "vault", keys=keys)
    assert asked == ["current"]
    assert {info.key_version for info in inspect(tmp_path / "vault")} == {2}
    asked.clear()
    owner.verify(tmp_path / "vault", keys=keys)
    assert asked == ["2"]


# Wrong use


def test_a_destination_that_holds_something_is_left_alone(owner: Owner, source: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for destination in ("full", "file"):
        with pytest.raises(DestinationExistsError):
            owner.encrypt(source, tmp_path / destination)
    with pytest.raises(DestinationExistsError, match="not an encrypted directory"):
        owner.encrypt(source, tmp_path / "full", overwrite=True)
    assert contents(tmp_path / "full") == {"mine": b"mine"}
    (tmp_path / "empty").mkdir()
    owner.encrypt(source, tmp_path / "empty")
    with pytest.raises(DestinationExistsError):
        owner.decrypt(tmp_path / "empty", tmp_path / "full")


@pytest.mark.parametrize("destination", ["source", "source/vault", "."])
def test_source_and_destination_in_one_another_are_refused(
    owner: Owner, source: Path, tmp_path: Path, destination: str
) -> None:
    with pytest.raises(UsageError):
        owner.encrypt(source, tmp_path / destination, overwrite=True)
    assert contents(source) == FILES


def test_decrypting_over_the_encrypted_directory_or_the_working_directory_is_refused(
    owner: Owner, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner.encrypt(source, tmp_path / "vault")
    before = contents(tmp_path / "vault")
    (tmp_path / "here").mkdir()
    (tmp_path / "here/mine").write_text("mine")
    monkeypatch.chdir(tmp_path / "here")
    for destination in (tmp_path / "vault", tmp_path / "vault/plain", tmp_path, Path()):
        with pytest.raises(UsageError):
            owner.decrypt(tmp_path / "vault", destination, overwrite=True)
    assert contents(tmp_path / "vault") == before
    assert contents(tmp_path / "here") == {"mine": b"mine"}


def test_what_is_not_there_or_empty_is_a_missing_source(owner: Owner, tmp_path: Path) -> None:
    (tmp_path / "empty/er").mkdir(parents=True)
    for path in ("nowhere", "empty"):
        with pytest.raises(SourceMissingError):
            owner.encrypt(tmp_path / path, tmp_path / "vault")
        with pytest.raises(SourceMissingError):
            owner.decrypt(tmp_path / path, tmp_path / "back")
    assert names(tmp_path) == ["empty"]


def test_nothing_is_left_out_in_silence(owner: Owner, source: Path, tmp_path: Path) -> None:
    for make in (
        lambda: (source / "link").symlink_to(tmp_path),
        lambda: os.mkfifo(source / "fifo"),
        lambda: (source / "dangling").symlink_to(tmp_path / "nowhere"),
        lambda: (source / "_temporary").mkdir(),
        lambda: (source / "b/_casemate").mkdir(),
        lambda: Path(os.fsdecode(os.fsencode(source) + b"/\xff")).touch(),
    ):
        before = set(os.listdir(source)) | {f"b/{name}" for name in os.listdir(source / "b")}  # noqa: PTH208
        make()
        with pytest.raises(UsageError):
            owner.encrypt(source, tmp_path / "vault")
        after = set(os.listdir(source)) | {f"b/{name}" for name in os.listdir(source / "b")}  # noqa: PTH208
        (made,) = after - before
        path = source / made
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    (source / "good").symlink_to(source / "a.csv")
    owner.encrypt(source, tmp_path / "vault")
    owner.decrypt(tmp_path / "vault", tmp_path / "back")
    assert (tmp_path / "back/good").read_bytes() == FILES["a.csv"]


# Overwriting


def test_overwriting_replaces_the_whole_directory_under_the_next_generation(
    owner: Owner, source: Path, tmp_path: Path
) -> None:
    owner.encrypt(source, tmp_path / "vault")
    (source / "a.csv").unlink()
    assert owner.encrypt(source, tmp_path / "vault", overwrite=True).generation == 2
    owner.decrypt(tmp_path / "vault", tmp_path / "back")
    owner.decrypt(tmp_path / "vault", tmp_path / "back", overwrite=True)
    assert set(contents(tmp_path / "back")) == set(FILES) - {"a.csv"}
    assert names(tmp_path) == ["back", "source", "vault"]


def test_overwriting_works_where_names_cannot_be_exchanged(
    owner: Owner, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "_exchange", lambda first, second: False)
    owner.encrypt(source, tmp_path / "vault")
    before = contents(tmp_path / "vault")
    owner.records.fail_with = GenerationConflictError("no")
    with pytest.raises(GenerationConflictError):
        owner.encrypt(source, tmp_path / "vault", overwrite=True)
    assert contents(tmp_path / "vault") == before
    assert owner.encrypt(source, tmp_path / "vault", overwrite=True).generation == 2
    assert owner.verify(tmp_path / "vault").files == 4


# Errors and kills


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_refused_record_leaves_the_state_before(owner: Owner, source: Path, tmp_path: Path, overwrite: bool) -> None:
    if overwrite:
        owner.encrypt(source, tmp_path / "vault")
    before = contents(tmp_path / "vault")
    for error in (GenerationConflictError("no"), UndecidedError("broker is away")):
        owner.records.fail_with = error
        with pytest.raises(type(error)):
            owner.encrypt(source, tmp_path / "vault", overwrite=overwrite)
        assert contents(tmp_path / "vault") == before
        assert names(tmp_path) == (["source", "vault"] if overwrite else ["source"])


def test_a_record_whose_answer_was_lost_counts(
    owner: Owner, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = owner.records.record

    def lose(*args: Any) -> None:
        record(*args)
        raise UndecidedError("connection lost")

    monkeypatch.setattr(owner.records, "record", lose)
    assert owner.encrypt(source, tmp_path / "vault").generation == 1
    assert owner.verify(tmp_path / "vault").files == 4


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EACCES])
def test_a_full_disk_leaves_nothing(
    owner: Owner, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    owner.encrypt(source, tmp_path / "old")
    calls = 0

    def fsync(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls > 2:
            raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        for run in (
            lambda: owner.encrypt(source, tmp_path / "vault"),
            lambda: owner.decrypt(tmp_path / "old", tmp_path / "back"),
        ):
            calls = 0
            with pytest.raises(StorageFailedError, match=os.strerror(number)):
                run()
    assert names(tmp_path) == ["old", "source"]
    assert owner.records.generation(owner.dataset, f"file://{tmp_path}/vault").number == 0


def test_a_denied_key_leaves_nothing(owner: Owner, source: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyDeniedError):
        owner.encrypt(source, tmp_path / "vault", dataset=DatasetName.parse("other/data"))
    assert names(tmp_path) == ["source"]


KILLED = """
import os, sys, time
from pathlib import Path
from casemate.data import dataset, staging
from casemate.data.pieces import Encrypting
from casemate.model import DatasetName
from tests.support.memory import MemoryKeys, MemoryRecords

source, destination, moment = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]

def stop(*args, **options):
    os.write(1, b"now\\n")
    while True:
        time.sleep(0.01)
        if moment == "copying":
            args[-1](0)

if moment == "copying":
    Encrypting.file = stop
elif moment == "installing":
    staging.Stage.install = stop
elif moment == "recording":
    MemoryRecords.record = stop
dataset.encrypt_tree(
    source, destination, dataset=DatasetName.parse("hospital/patients"), keys=MemoryKeys("hospital/patients"),
    records=MemoryRecords(), overwrite=True, threads=1,
)
"""


@pytest.mark.parametrize("moment", ["copying", "installing"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_leaves_the_state_before_and_the_next_run_clears_up(
    owner: Owner, source: Path, tmp_path: Path, moment: str, number: signal.Signals
) -> None:
    owner.encrypt(source, tmp_path / "vault")
    before = contents(tmp_path / "vault")
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(source), str(tmp_path / "vault"), moment],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parents[3],
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"now\n"
        process.send_signal(number)
        process.wait(20)
    if number == signal.SIGINT:
        assert names(tmp_path) == ["source", "vault"], "an interrupted run clears up itself"
    assert contents(tmp_path / "vault") == before
    assert owner.verify(tmp_path / "vault").generation == 1
    assert owner.encrypt(source, tmp_path / "vault", overwrite=True).generation == 2
    assert names(tmp_path) == ["source", "vault"]


def test_a_run_killed_between_the_exchange_and_its_record_is_undone_by_the_next(
    owner: Owner, source: Path, tmp_path: Path
) -> None:
    owner.encrypt(source, tmp_path / "vault")
    before = contents(tmp_path / "vault")
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(source), str(tmp_path / "vault"), "recording"],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"now\n"
        process.kill()
    assert contents(tmp_path / "vault") != before
    with pytest.raises(IntegrityError):
        owner.verify(tmp_path / "vault")
    with pytest.raises(DestinationExistsError):
        owner.encrypt(source, tmp_path / "vault")
    assert contents(tmp_path / "vault") == before
    assert owner.verify(tmp_path / "vault").generation == 1
    assert names(tmp_path) == ["source", "vault"]


# Attacks on what the owner decrypts


@pytest.fixture
def vault(owner: Owner, source: Path, tmp_path: Path) -> Path:
    (source / "a2.csv").write_bytes(FILES["a.csv"])
    owner.encrypt(source, tmp_path / "vault")
    return tmp_path / "vault"


@pytest.mark.parametrize(
    ("attack", "error", "named"),
    [
        (lambda v: (v / "a.csv").unlink(), ManifestFileMissingError, "a.csv"),
        (lambda v: shutil.rmtree(v / "b"), ManifestFileMissingError, "b/"),
        (lambda v: shutil.copy(v / "a.csv", v / "z.csv"), ManifestFileForeignError, "z.csv"),
        (lambda v: shutil.copy(v / "a.csv", v / "a2.csv"), ManifestFileSwappedError, "a2.csv"),
        (lambda v: os.truncate(v / "a.csv", 66_048), ManifestFileSwappedError, "a.csv"),
        (lambda v: shutil.rmtree(v / "_casemate"), ManifestMissingError, "manifest-0000000001-"),
        (lambda v: (v / "note.txt").write_text("plain"), ManifestFileForeignError, "note.txt"),
    ],
    ids=["deleted", "deleted directory", "added", "copied over", "cut", "no manifest", "plain file"],
)
def test_an_attack_on_the_directory_is_refused_naming_the_file(
    owner: Owner, vault: Path, tmp_path: Path, attack: Any, error: type[IntegrityError], named: str
) -> None:
    attack(vault)
    for run in (owner.verify, lambda path: owner.decrypt(path, tmp_path / "back")):
        with pytest.raises(error, match=named):
            run(vault)
    assert not (tmp_path / "back").exists()


def test_a_flipped_bit_is_refused_naming_the_file_and_nothing_is_decrypted(
    owner: Owner, vault: Path, tmp_path: Path
) -> None:
    stored = bytearray((vault / "a.csv").read_bytes())
    stored[100_000] ^= 1
    (vault / "a.csv").write_bytes(stored)
    with pytest.raises(FileTamperedError, match=r"vault/a\.csv: segment 1"):
        owner.decrypt(vault, tmp_path / "back")
    assert names(tmp_path) == ["source", "vault"]


def test_all_files_gone_is_no_empty_dataset(owner: Owner, vault: Path, tmp_path: Path) -> None:
    for name in contents(vault):
        if not name.startswith("_casemate"):
            (vault / name).unlink()
    with pytest.raises(ManifestFileMissingError):
        owner.decrypt(vault, tmp_path / "back")


def test_a_link_to_another_dataset_of_the_owner_is_refused(
    owner: Owner, source: Path, vault: Path, tmp_path: Path
) -> None:
    owner.encrypt(source, tmp_path / "older")
    shutil.rmtree(vault)
    vault.symlink_to(tmp_path / "older")
    for path in (vault, vault / "a.csv"):
        with pytest.raises(ZoneAccessError, match="symbolic link"):
            owner.decrypt(path, tmp_path / "back")


def test_without_records_each_file_is_checked_on_its_own(owner: Owner, vault: Path, tmp_path: Path) -> None:
    (vault / "a.csv").unlink()
    result = owner.decrypt(vault, tmp_path / "back", records=None)
    assert (result.files, result.generation) == (4, None)


def test_another_dataset_than_the_one_named_is_refused(owner: Owner, vault: Path, tmp_path: Path) -> None:
    report = DatasetName.parse("hospital/report")
    with pytest.raises(ManifestMissingError):
        owner.decrypt(vault, tmp_path / "back", dataset=report)
    with pytest.raises(FileWrongDatasetError):
        owner.decrypt(vault, tmp_path / "back", dataset=report, records=None)
