"""The fsspec file system: every public method gives the plaintext's answer or refuses."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import pickle
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.spec import AbstractFileSystem
from fsspec.utils import read_block
from tests.support.agent import MemoryAgent, serve
from tests.support.memory import MemoryKeys, MemoryRecords

from casemate.data.client import SOCKET_VARIABLE
from casemate.data.commit import commit_directory
from casemate.data.errors import (
    FileTamperedError,
    IntegrityError,
    ManifestFileForeignError,
    ManifestFileMissingError,
    ManifestFileSwappedError,
    ManifestMissingError,
    OutsideZonesError,
    UnsupportedOperationError,
    ZoneAccessError,
)
from casemate.data.fileid import FileIds
from casemate.data.filesystem import REVIEWED, ZoneFileSystem, refuse_unreviewed
from casemate.data.format import stored_size
from casemate.data.session import ZoneSession
from casemate.data.writer import EncryptedWriter
from casemate.data.zones import PlaintextOutput, ZoneMap, local_uri
from casemate.errors import RefusedError, UsageError
from casemate.model import Access, DatasetName, Zone

CANARY = b"canary-5d0e"
TEXT = b"id,name\n1,ann\n2,bob\n" + CANARY + b"\n" + b"x" * 100_000


class World:
    """``in`` is committed and only read, ``out`` read and written, ``drop`` only written; ``plain`` is no zone."""

    def __init__(
        self,
        root: Path,
        keys: MemoryKeys,
        records: MemoryRecords,
        dataset: DatasetName,
        plaintext_output: PlaintextOutput = "deny",
    ) -> None:
        self.root, self.keys, self.records, self.dataset = root.resolve(), keys, records, dataset
        for name in ("in/sub", "out", "drop", "plain", "private"):
            (self.root / name).mkdir(parents=True)
        for name in ("in/a.csv", "in/b.csv", "in/sub/c.csv"):
            with (self.root / name).open("wb") as raw, EncryptedWriter(raw, keys, dataset) as writer:
                writer.write(TEXT)
        commit_directory(self.root / "in", local_uri(root / "in"), dataset, keys, records, ids=FileIds(), adopt=True)
        (self.root / "plain/x.txt").write_bytes(b"plain text")
        report = DatasetName.parse("hospital/report")
        self.zones = [
            Zone(local_uri(root / "in"), dataset, Access.READ),
            Zone(local_uri(root / "out"), report, Access.READ_WRITE),
            Zone(local_uri(root / "drop"), report, Access.WRITE),
        ]
        self.reports: list[str] = []
        zone_map = ZoneMap(self.zones, plaintext_output, [local_uri(root / "private")])
        self.session = ZoneSession(zone_map, keys, records, report=lambda error: self.reports.append(error.code))
        self.fs = ZoneFileSystem(session=self.session)

    def path(self, name: str) -> str:
        return str(self.root / name)

    def encrypted(self) -> list[Path]:
        found = [p for zone in ("in", "out", "drop") for p in sorted((self.root / zone).rglob("*"))]
        return [p for p in found if p.is_file() and not p.is_symlink()]

    def assert_nothing_leaked(self) -> None:
        """No plaintext anywhere but in private memory, and nothing but encrypted files and manifests in zones."""
        for path in self.root.rglob("*"):
            if path.is_file() and not path.is_symlink() and self.root / "private" not in path.parents:
                assert CANARY not in path.read_bytes(), path
        for path in self.encrypted():
            assert path.read_bytes()[:4] == b"CSMT" or path.parent.name == "_casemate", path


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def world(tmp_path: Path, keys: MemoryKeys, records: MemoryRecords, dataset: DatasetName) -> Iterator[World]:
    made = World(tmp_path, keys, records, dataset)
    yield made
    made.assert_nothing_leaked()


@pytest.fixture
def open_world(tmp_path: Path, keys: MemoryKeys, records: MemoryRecords, dataset: DatasetName) -> World:
    return World(tmp_path, keys, records, dataset, plaintext_output="allow")


# Reading


@pytest.mark.parametrize("form", ["{}", "file://{}", "zone://{}", "{}/", "{}/../a.csv"])
def test_every_spelling_of_a_path_reads_plaintext(world: World, form: str) -> None:
    assert world.fs.cat_file(form.format(world.path("in/a.csv"))) == TEXT


def test_text_and_compressed_files_and_blocks_are_read(world: World) -> None:
    path = world.path("in/a.csv")
    with world.fs.open(path, "r", encoding="ascii") as lines:
        assert next(lines) == "id,name\n"
    with world.fs.open(path) as file:
        assert file.size == len(TEXT)
        assert file.seek(-5, 2) == len(TEXT) - 5
        assert file.read() == b"xxxxx"
    for offset, length in ((0, 10), (9, 4), (10, 20), (65_000, None)):
        expected = read_block(io.BytesIO(TEXT), offset, length or len(TEXT) - offset, b"\n")
        assert world.fs.read_block(path, offset, length, delimiter=b"\n") == expected
    assert world.fs.head(path, 7) == b"id,name"
    assert world.fs.tail(path, 3) == b"xxx"
    assert world.fs.cat_file(path, start=-3) == b"xxx"
    assert world.fs.cat_ranges([path, path], [0, 8], [2, 13]) == [b"id", b"1,ann"]
    assert world.fs.read_text(path).startswith("id,name")
    for mode, compression in (("wb", "infer"), ("w", "gzip")):
        with pytest.raises(UnsupportedOperationError, match=r"fsspec\.open"):
            world.fs.open(world.path("out/z.csv.gz"), mode, compression=compression)
    world.fs.pipe_file(world.path("out/z.csv.gz"), gzip.compress(TEXT))
    with world.fs.open(world.path("out/z.csv.gz"), "rb", compression="infer") as source:
        assert source.read() == TEXT


def test_sizes_and_listings_are_those_of_the_plaintext(world: World) -> None:
    root = world.path("in")
    assert world.fs.info(root + "/a.csv")["size"] == world.fs.size(root + "/a.csv") == len(TEXT)
    assert {entry["name"]: entry["size"] for entry in world.fs.ls(root)} == {
        f"{root}/a.csv": len(TEXT),
        f"{root}/b.csv": len(TEXT),
        f"{root}/sub": 0,
    }
    assert world.fs.find(root) == [f"{root}/a.csv", f"{root}/b.csv", f"{root}/sub/c.csv"]
    assert world.fs.glob(root + "/*.csv") == [f"{root}/a.csv", f"{root}/b.csv"]
    assert world.fs.glob(root + "/**/*.csv") == world.fs.find(root)
    assert world.fs.du(root) == 3 * len(TEXT)
    assert "_casemate" not in str(list(world.fs.walk(root))) + world.fs.tree(root)
    assert world.fs.isdir(root)
    assert world.fs.isfile(root + "/a.csv")
    assert not world.fs.exists(root + "/nothing")
    assert not world.fs.isfile(root + "/nothing")
    assert dict(world.fs.get_mapper(root))["sub/c.csv"] == TEXT


def test_a_parent_of_zones_lists_with_plaintext_sizes(world: World) -> None:
    assert world.fs.du(str(world.root), total=True) >= 3 * len(TEXT)
    found = world.fs.find(str(world.root), detail=True)
    assert found[world.path("in/a.csv")]["size"] == len(TEXT)
    assert found[world.path("plain/x.txt")]["size"] == 10
    assert not any("_casemate" in name for name in found)


def test_plain_files_outside_the_zones_are_read_as_they_are(world: World) -> None:
    path = world.path("plain/x.txt")
    assert world.fs.cat(path) == b"plain text"
    assert world.fs.tail(path, 4) == b"text"
    assert world.fs.modified(path).tzinfo is not None


# Writing


def test_what_is_written_is_encrypted_and_reads_back(world: World) -> None:
    path = world.path("out/deep/r.csv")
    with pytest.raises(FileNotFoundError):
        world.fs.open(path, "wb")
    world.fs.makedirs(world.path("out/deep"))
    world.fs.pipe_file(path, TEXT)
    assert (world.root / "out/deep/r.csv").stat().st_size == stored_size(len(TEXT))
    assert world.fs.cat(path) == TEXT
    assert world.fs.info(path)["size"] == len(TEXT)
    assert names(world.root / "out/deep") == ["r.csv"], "no temporary name is left"


def test_a_file_appears_whole_or_not_at_all(world: World) -> None:
    path = world.path("out/r.csv")
    file = world.fs.open(path, "wb")
    file.write(TEXT)
    assert not world.fs.exists(path)
    assert world.fs.ls(world.path("out")) == []
    file.close()
    assert world.fs.cat(path) == TEXT
    with contextlib.suppress(KeyError), world.fs.open(path, "wb") as again:
        again.write(b"half")
        raise KeyError
    assert world.fs.cat(path) == TEXT
    forgotten = world.fs.open(path, "wb")
    forgotten.write(b"half")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del forgotten
    assert world.fs.cat(path) == TEXT
    assert names(world.root / "out") == ["r.csv"]


def test_an_exclusive_file_does_not_replace(world: World) -> None:
    path = world.path("out/r.csv")
    world.fs.pipe_file(path, b"first")
    for attempt in (lambda: world.fs.open(path, "xb"), lambda: world.fs.pipe_file(path, b"second", mode="create")):
        with pytest.raises(FileExistsError):
            attempt()
    second = world.fs.open(world.path("out/s.csv"), "xb")
    world.fs.pipe_file(world.path("out/s.csv"), b"faster")
    with pytest.raises(FileExistsError):
        second.close()
    assert world.fs.cat(world.path("out/s.csv")) == b"faster"


def test_many_files_are_written_to_one_directory_at_once(world: World) -> None:
    def write(i: int) -> None:
        world.fs.pipe_file(world.path(f"out/{i}"), b"%d" % i)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(100)))
    assert len(world.fs.ls(world.path("out"))) == 100
    assert world.fs.cat(world.path("out/77")) == b"77"


def test_copies_and_moves_are_decrypted_and_encrypted_on_the_way(world: World) -> None:
    fs = world.fs
    fs.copy(world.path("in"), world.path("out/copy"), recursive=True)
    assert fs.find(world.path("out/copy")) == [world.path(f"out/copy/{n}") for n in ("a.csv", "b.csv", "sub/c.csv")]
    assert fs.cat(world.path("out/copy/sub/c.csv")) == TEXT
    fs.mv(world.path("out/copy/a.csv"), world.path("out/moved.csv"))
    assert fs.cat(world.path("out/moved.csv")) == TEXT
    fs.mv(world.path("out/copy"), world.path("drop"), recursive=True)
    assert sorted(p.name for p in (world.root / "drop/copy").rglob("*.csv")) == ["b.csv", "c.csv"]
    with pytest.raises(ZoneAccessError):
        fs.cat(world.path("drop/copy/b.csv"))


def test_up_and_download_know_no_other_place(world: World) -> None:
    fs = world.fs
    fs.get(world.path("in/a.csv"), world.path("out/got.csv"))
    fs.put(world.path("in/a.csv"), world.path("out/put.csv"))
    fs.put(world.path("plain/x.txt"), world.path("out/x.txt"))
    fs.download(world.path("in/a.csv"), world.path("private/got.csv"))
    assert [fs.cat(world.path(p)) for p in ("out/got.csv", "out/put.csv", "out/x.txt")] == [TEXT, TEXT, b"plain text"]
    assert (world.root / "private/got.csv").read_bytes() == TEXT
    sink = io.BytesIO()
    fs.get_file(world.path("in/a.csv"), sink)
    fs.get(world.path("in/a.csv"), sink)
    assert sink.getvalue() == TEXT * 2
    for attempt in (fs.get, fs.get_file, fs.put, fs.put_file, fs.copy, fs.cp_file, fs.download, fs.upload):
        with pytest.raises(OutsideZonesError):
            attempt(world.path("in/a.csv"), world.path("plain/leak.csv"))
    assert names(world.root / "plain") == ["x.txt"]


@pytest.mark.parametrize(
    "place", ["in/new", "in/a.csv", "plain/new", "in/_casemate/x", "out/_casemate/x", "out/../new"]
)
def test_nothing_is_written_deleted_or_moved_where_it_must_not(world: World, place: str) -> None:
    fs, path, source = world.fs, world.path(place), world.path("out/source")
    fs.pipe_file(source, TEXT)
    before = {p: p.read_bytes() for p in world.root.rglob("*") if p.is_file()}
    attempts: list[Callable[[], Any]] = [
        lambda: fs.open(path, "wb"),
        lambda: fs.open(path, "xb"),
        lambda: fs.open(path, "w"),
        lambda: fs.pipe(path, TEXT),
        lambda: fs.pipe({path: TEXT}),
        lambda: fs.write_text(path, "x"),
        lambda: fs.write_bytes(path, TEXT),
        lambda: fs.touch(path),
        lambda: fs.mkdir(path),
        lambda: fs.makedirs(path, exist_ok=True),
        lambda: fs.rm_file(path),
        lambda: fs.rmdir(path),
        lambda: fs.mv(source, path),
        lambda: fs.copy(source, path),
        lambda: fs.get(source, path),
        lambda: fs.put(source, path),
        lambda: fs.get_mapper(str(Path(path).parent)).__setitem__("new", TEXT),
    ]
    for attempt in attempts:
        with pytest.raises(RefusedError):
            attempt()
    assert {p: p.read_bytes() for p in world.root.rglob("*") if p.is_file()} == before
    assert set(world.reports) <= {"outside-zones", "zone-access-denied"}
    assert len(world.reports) >= len(attempts)


def test_a_delete_above_or_in_a_read_zone_is_refused_also_where_plaintext_is_allowed(open_world: World) -> None:
    fs = open_world.fs
    for path in (open_world.root, open_world.root / "in", open_world.root / "in/sub"):
        with pytest.raises(ZoneAccessError):
            fs.rm(str(path), recursive=True)
        with pytest.raises(ZoneAccessError):
            fs.mv(str(path), open_world.path("plain/away"), recursive=True)
    assert len(open_world.encrypted()) == 4
    fs.pipe_file(open_world.path("plain/y"), b"allowed")
    assert (open_world.root / "plain/y").read_bytes() == b"allowed"


def test_deleting_in_a_zone_one_may_write(world: World) -> None:
    fs = world.fs
    for name in ("d/a", "d/e/b", "c"):
        fs.makedirs(str(Path(world.path("out/" + name)).parent), exist_ok=True)
        fs.pipe_file(world.path("out/" + name), TEXT)
    with pytest.raises(IsADirectoryError):
        fs.rm(world.path("out/d"))
    fs.rm(world.path("out/d"), recursive=True)
    fs.rm_file(world.path("out/c"))
    assert fs.ls(world.path("out")) == []
    with pytest.raises(FileNotFoundError):
        fs.rm(world.path("out/c"))


# Refusals that are not about access


@pytest.mark.parametrize("mode", ["ab", "a", "r+b", "r+", "w+b", "rb+"])
def test_files_are_not_changed_in_place(world: World, mode: str) -> None:
    with pytest.raises(UnsupportedOperationError):
        world.fs.open(world.path("out/x"), mode)


def test_transactions_links_and_other_storage_are_refused(world: World) -> None:
    attempts: list[Callable[[], Any]] = [
        lambda: world.fs.transaction,
        world.fs.start_transaction,
        world.fs.end_transaction,
        lambda: world.fs.open(world.path("out/x"), "wb", autocommit=False),
        lambda: world.fs.sign(world.path("in/a.csv")),
        lambda: world.fs.cat("s3://bucket/x"),
        lambda: world.fs.rm(world.path("out"), recursive=True, maxdepth=1),
    ]
    for attempt in attempts:
        with pytest.raises(UnsupportedOperationError):
            attempt()
    with pytest.raises(UsageError):
        world.fs.cat("file://host/x")


def test_symbolic_links_in_a_zone_are_neither_listed_nor_followed(world: World) -> None:
    (world.root / "out/link").symlink_to(world.root / "plain/x.txt")
    (world.root / "out/dir").symlink_to(world.root / "plain")
    assert world.fs.ls(world.path("out")) == []
    for attempt in (world.fs.cat, world.fs.info, world.fs.exists, world.fs.isfile, world.fs.rm_file, world.fs.touch):
        with pytest.raises(ZoneAccessError):
            attempt(world.path("out/link"))
    with pytest.raises(ZoneAccessError):
        world.fs.open(world.path("out/dir/new"), "wb")
    assert (world.root / "plain/x.txt").read_bytes() == b"plain text"


# Attacks on the storage


ATTACKS: dict[str, tuple[Callable[[Path], Any], type[IntegrityError], str]] = {
    "deleted": (lambda d: (d / "a.csv").unlink(), ManifestFileMissingError, "a.csv"),
    "added": (lambda d: (d / "z.csv").write_bytes((d / "a.csv").read_bytes()), ManifestFileForeignError, "z.csv"),
    "another length": (lambda d: os.truncate(d / "a.csv", 5000), ManifestFileSwappedError, "a.csv"),
    "no manifest": (lambda d: next((d / "_casemate").iterdir()).unlink(), ManifestMissingError, "manifest-0000000001"),
    "link": (
        lambda d: ((d / "a.csv").unlink(), (d / "a.csv").symlink_to(d / "b.csv")),
        ManifestFileMissingError,
        "a.csv",
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_on_a_directory_is_refused_by_everything_that_lists_it(world: World, attack: str) -> None:
    damage, error, named = ATTACKS[attack]
    damage(world.root / "in")
    root = world.path("in")
    for use in (
        lambda: world.fs.ls(root),
        lambda: world.fs.find(root),
        lambda: list(world.fs.walk(root)),
        lambda: world.fs.glob(root + "/*"),
        lambda: world.fs.glob(root + "/*.csv"),
        lambda: world.fs.du(root),
        lambda: world.fs.expand_path(root, recursive=True),
        lambda: world.fs.cat(root + "/*"),
        lambda: world.fs.copy(root, world.path("out/copy"), recursive=True),
        lambda: dict(world.fs.get_mapper(root)),
    ):
        with pytest.raises(error, match=named):
            use()
    assert set(world.reports) == {error.code}


def test_two_swapped_files_are_refused(world: World) -> None:
    a, b = world.root / "in/a.csv", world.root / "in/b.csv"
    first, second = a.read_bytes(), b.read_bytes()
    a.write_bytes(second)
    b.write_bytes(first)
    for path in (a, b):
        with pytest.raises(ManifestFileSwappedError, match=path.name):
            world.fs.open(str(path))


def test_a_flipped_bit_is_refused_by_everything_that_reads(world: World) -> None:
    path = world.root / "in/a.csv"
    stored = bytearray(path.read_bytes())
    stored[80_000] ^= 4
    path.write_bytes(stored)
    name = str(path)
    uses: list[Callable[[], Any]] = [
        lambda: world.fs.cat(name),
        lambda: world.fs.cat_file(name, 90_000, 90_001),
        lambda: world.fs.open(name).read(),
        lambda: world.fs.read_text(name),
        lambda: world.fs.tail(name),
        lambda: world.fs.copy(name, world.path("out/copy")),
        lambda: world.fs.get_file(name, io.BytesIO()),
    ]
    for use in uses:
        with pytest.raises(FileTamperedError, match=r"in/a\.csv: segment 1"):
            use()
    assert not (world.root / "out/copy").exists()


def test_a_missing_file_that_was_committed_is_no_absent_file(world: World) -> None:
    (world.root / "in/a.csv").unlink()
    path = world.path("in/a.csv")
    for use in (world.fs.exists, world.fs.isfile, world.fs.isdir, world.fs.info, world.fs.cat_file, world.fs.lexists):
        with pytest.raises(ManifestFileMissingError):
            use(path)


def test_a_zone_that_is_only_read_and_was_never_committed_is_refused(
    tmp_path: Path, keys: MemoryKeys, dataset: DatasetName
) -> None:
    world = World(tmp_path, keys, MemoryRecords(), dataset)
    fs = ZoneFileSystem(session=ZoneSession(world.session.zones, keys, MemoryRecords()))
    for use in (fs.ls, fs.find, fs.info, lambda p: fs.cat(p + "/a.csv"), lambda p: fs.info(p + "/a.csv")):
        with pytest.raises(ManifestMissingError):
            use(world.path("in"))
    relaxed = ZoneFileSystem(session=ZoneSession(world.session.zones, keys, MemoryRecords(), strict=False))
    assert relaxed.cat(world.path("in/a.csv")) == TEXT


# Commits


def test_creating_the_marker_commits_and_what_follows_is_checked(world: World) -> None:
    fs, report = world.fs, DatasetName.parse("hospital/report")
    fs.makedirs(world.path("out/r"))
    fs.pipe_file(world.path("out/r/part-0"), TEXT)
    fs.touch(world.path("out/r/_SUCCESS"))
    assert world.records.generation(report, local_uri(world.root / "out/r")).number == 1
    assert [entry["name"] for entry in fs.ls(world.path("out/r"))] == [
        world.path("out/r/_SUCCESS"),
        world.path("out/r/part-0"),
    ]
    fs.pipe_file(world.path("out/r/part-1"), TEXT)
    assert fs.cat(world.path("out/r/part-1")) == TEXT, "a process reads what it just wrote"
    other = ZoneFileSystem(session=ZoneSession(world.session.zones, world.keys, world.records))
    assert len(other.ls(world.path("out/r"))) == 2, "what is not committed is there to its own job alone"
    with pytest.raises(ManifestFileForeignError, match="part-1"):
        other.cat(world.path("out/r/part-1"))
    assert fs.commit(world.path("out/r")) == 2
    assert len(other.ls(world.path("out/r"))) == 3
    (world.root / "out/r/part-1").unlink()
    with pytest.raises(ManifestFileMissingError):
        fs.ls(world.path("out/r"))
    for place in ("plain", "in"):
        with pytest.raises(RefusedError):
            fs.commit(world.path(place))


def test_a_moved_or_deleted_committed_file_is_the_processs_own_doing(world: World) -> None:
    fs = world.fs
    fs.pipe_file(world.path("out/a"), TEXT)
    fs.pipe_file(world.path("out/b"), TEXT)
    fs.commit(world.path("out"))
    fs.mv(world.path("out/a"), world.path("out/c"))
    fs.rm(world.path("out/b"))
    assert fs.ls(world.path("out"), detail=False) == [world.path("out/c")]
    assert not fs.exists(world.path("out/a"))
    assert fs.commit(world.path("out")) == 2


# By reflection: no method of this or a newer fsspec gets past


def test_every_public_name_of_fsspec_is_overridden_reviewed_or_refused(world: World) -> None:
    names = {name for name in dir(AbstractFileSystem) if not name.startswith("_")}
    own = set(vars(ZoneFileSystem))
    assert names <= own | REVIEWED
    assert not own & REVIEWED - {"protocol", "root_marker", "cachable"}
    for name in REVIEWED:
        assert hasattr(AbstractFileSystem, name), f"{name} is reviewed but gone"


def test_a_method_that_a_newer_fsspec_adds_is_refused(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    def fast_cat(self: object, path: str) -> bytes:
        return Path(path).read_bytes()

    monkeypatch.setattr(AbstractFileSystem, "fast_cat", fast_cat, raising=False)
    assert world.fs.fast_cat(world.path("in/a.csv"))[:4] == b"CSMT", "the hole that is to be closed"
    refuse_unreviewed(ZoneFileSystem)
    try:
        with pytest.raises(UnsupportedOperationError, match="fast_cat"):
            world.fs.fast_cat(world.path("in/a.csv"))
        assert world.fs.cat(world.path("in/a.csv")) == TEXT
    finally:
        del ZoneFileSystem.fast_cat


def _arguments(world: World, read: str, write: str) -> dict[str, tuple[Any, ...]]:
    """Arguments for every public method, with a file to read and a place to write."""
    two = {"copy", "cp", "cp_file", "get", "get_file", "put", "put_file", "mv", "move", "rename", "download", "upload"}
    written = {"mkdir", "mkdirs", "makedir", "makedirs", "touch", "rm", "rm_file", "rmdir", "delete", "commit"}
    special: dict[str, tuple[Any, ...]] = {
        **dict.fromkeys(["pipe", "pipe_file", "write_bytes"], (write, TEXT)),
        "write_text": (write, TEXT.decode()),
        "cat_ranges": ([read], [0], [4]),
        "read_block": (read, 0, 4),
        "sizes": ([read],),
        "unstrip_protocol": (read,),
        "invalidate_cache": (),
        **dict.fromkeys(
            ["current", "clear_instance_cache", "to_json", "to_dict", "start_transaction", "end_transaction"], ()
        ),
        "from_json": ("{}",),
        "from_dict": ({},),
        "transaction_type": (world.fs,),
    }
    names = [name for name in dir(ZoneFileSystem) if not name.startswith("_") and name not in ("fsid", "transaction")]
    methods = [name for name in names if callable(getattr(ZoneFileSystem, name))]
    return {
        name: special.get(name, (read, write) if name in two else (write,) if name in written else (read,))
        for name in methods
    }


def _holds_ciphertext(value: object, stored: bytes) -> bool:
    if isinstance(value, io.IOBase):
        value = value.read() if value.readable() else b""
    if isinstance(value, bytes | bytearray):
        return (bytes(value[:4]) == b"CSMT"[: len(value[:4])] and len(value) > 0) or stored[600:700] in bytes(value)
    if isinstance(value, dict):
        return any(_holds_ciphertext(one, stored) for one in value.values()) or value.get("size") == len(stored)
    if isinstance(value, list | tuple):
        return any(_holds_ciphertext(one, stored) for one in value)
    return isinstance(value, int) and value == len(stored)


@pytest.mark.parametrize(("read", "write"), [("in/a.csv", "plain/leak"), ("in/a.csv", "out/new"), ("in", "plain/leak")])
def test_called_blindly_no_method_returns_ciphertext_or_writes_plaintext(world: World, read: str, write: str) -> None:
    stored = (world.root / "in/a.csv").read_bytes()
    outcomes = {}
    for name, arguments in _arguments(world, world.path(read), world.path(write)).items():
        try:
            value = getattr(world.fs, name)(*arguments)
            outcomes[name] = "answered"
        except Exception as exc:
            value, outcomes[name] = None, type(exc).__name__
        assert not _holds_ciphertext(value, stored), name
        world.assert_nothing_leaked()
        if write.startswith("plain"):
            assert names(world.root / "plain") == ["x.txt"], name
    if read == "in/a.csv":
        for name in (
            "cat",
            "cat_file",
            "read_bytes",
            "open",
            "info",
            "ls",
            "size",
            "head",
            "tail",
            "read_block",
            "ukey",
        ):
            assert outcomes[name] == "answered", (name, outcomes[name])
    if write == "out/new":
        assert outcomes["pipe"] == outcomes["write_bytes"] == outcomes["copy"] == "answered"


# With a real agent


@pytest.fixture
def agent(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryAgent]:
    session = {
        "job": "j1",
        "role": "executor",
        "workload": "00" * 48,
        "simulated": True,
        "strict": True,
        "plaintext_output": "deny",
        "private_prefixes": [],
        "zones": [{"prefix": z.prefix, "dataset": str(z.dataset), "access": z.access.value} for z in world.zones],
    }
    agent = MemoryAgent(world.keys, world.records, session)
    monkeypatch.setattr(ZoneSession, "_shared", None)
    with serve(agent, tmp_path / "agent.sock") as path:
        monkeypatch.setenv(SOCKET_VARIABLE, str(path))
        yield agent
    if ZoneSession._shared:
        ZoneSession._shared[2].keys.close()  # type: ignore[attr-defined]


def test_the_file_system_takes_session_and_keys_from_the_agent(world: World, agent: MemoryAgent) -> None:
    fs, again = ZoneFileSystem(), ZoneFileSystem()
    assert fs.cat(world.path("in/a.csv")) == TEXT
    assert again.cat(world.path("in/b.csv")) == TEXT
    asked = [request["op"] for request in agent.requests]
    assert asked.count("session") == 1
    assert asked.count("key") == 1, "keys of a version are asked for once"
    assert asked.count("generation") == 1
    with pytest.raises(OutsideZonesError):
        fs.pipe_file(world.path("plain/leak"), TEXT)
    assert [code for code, _ in agent.reports] == ["outside-zones"]


def test_it_is_pickled_and_serialised_without_a_secret(world: World, agent: MemoryAgent) -> None:
    fs = pickle.loads(pickle.dumps(ZoneFileSystem()))  # noqa: S301
    assert fs.cat(world.path("in/a.csv")) == TEXT
    assert json.loads(fs.to_json())["cls"] == "casemate.data.filesystem:ZoneFileSystem"
    assert AbstractFileSystem.from_json(fs.to_json()).cat(world.path("in/b.csv")) == TEXT
    with pytest.raises(Exception, match=r"pickle|serial"):
        pickle.dumps(world.fs)


def test_pandas_and_pyarrow_read_and_write_through_it(world: World, agent: MemoryAgent) -> None:
    pandas = pytest.importorskip("pandas")
    pyarrow_fs = pytest.importorskip("pyarrow.fs")
    parquet = pytest.importorskip("pyarrow.parquet")
    fsspec.register_implementation("zone", ZoneFileSystem, clobber=True)
    frame = pandas.DataFrame({"id": range(50_000), "name": [f"{CANARY.decode()}-{i}" for i in range(50_000)]})
    frame.to_csv("zone://" + world.path("out/f.csv"), index=False)
    assert pandas.read_csv("zone://" + world.path("out/f.csv")).equals(frame)
    frame.to_parquet(world.path("out/f.parquet"), filesystem=ZoneFileSystem())
    arrow = pyarrow_fs.PyFileSystem(pyarrow_fs.FSSpecHandler(ZoneFileSystem()))
    assert parquet.read_table(world.path("out/f.parquet"), filesystem=arrow).to_pandas().equals(frame)
    with arrow.open_input_file(world.path("out/f.parquet")) as file:
        assert file.size() == arrow.get_file_info(world.path("out/f.parquet")).size
