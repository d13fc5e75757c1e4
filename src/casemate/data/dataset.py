"""Encrypt, decrypt, verify and inspect whole directories: all of it or nothing, whatever happens on the way."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from casemate.crypto.canonical import sha256_hex
from casemate.data.commit import record_generation
from casemate.data.errors import DestinationExistsError, ManifestMissingError, SourceMissingError, ZoneAccessError
from casemate.data.fileid import FileIds
from casemate.data.format import Preamble, plaintext_size
from casemate.data.generations import NOTHING_RECORDED, Generation, GenerationRecords
from casemate.data.keys import KeyProvider, RememberedKeys
from casemate.data.local import files_below, open_stored, stored_manifests
from casemate.data.manifest import ManifestFile, build_manifest, is_hidden, manifest_path, parse_manifest
from casemate.data.reader import EncryptedReader, read_preamble
from casemate.data.staging import Count, Progress, copy, for_each, staging, storage_errors
from casemate.data.strict import Governed, StrictReads, check_file
from casemate.data.writer import EncryptedWriter
from casemate.data.zones import local_uri, normalise
from casemate.errors import UsageError
from casemate.model import DatasetName

__all__ = [
    "FileInfo",
    "Progress",
    "TreeResult",
    "decrypt_tree",
    "encrypt_tree",
    "inspect",
    "verify_tree",
]

File = tuple[str, Path, int]
"""A file to work on: its path below the source (with ``/``), its path, its size in bytes."""


@dataclass(frozen=True)
class TreeResult:
    """What was encrypted, decrypted or verified. Sizes in bytes."""

    dataset: DatasetName
    location: str  # the encrypted directory or file, as a URI
    files: int
    plaintext_size: int
    stored_size: int
    generation: int | None  # the newest that was looked at; None: manifests were not
    destination: Path | None


@dataclass(frozen=True)
class FileInfo:
    """What an encrypted file says about itself; unverified, since no key was used. Sizes in bytes."""

    path: Path
    dataset: DatasetName
    key_version: int
    file_id: str
    plaintext_size: int
    stored_size: int


def encrypt_tree(
    source: Path,
    destination: Path,
    *,
    dataset: DatasetName,
    keys: KeyProvider,
    records: GenerationRecords,
    overwrite: bool = False,
    progress: Progress | None = None,
    threads: int | None = None,
) -> TreeResult:
    """Encrypt a file or directory into the directory ``destination``, write its manifest and record its generation.

    A single file keeps its name below ``destination``. Until the record is made the destination stays what it was.
    Raises ``SourceMissingError``, ``DestinationExistsError``, ``StorageFailedError``, ``GenerationConflictError``, or
    what ``keys`` and ``records`` raise."""
    with storage_errors(destination):
        plan = _source_files(source)
        destination = _destination(source, destination)
        if overwrite and destination.is_dir() and any(destination.iterdir()) and not stored_manifests(destination):
            raise DestinationExistsError(f"{destination}: not an encrypted directory, so it is not overwritten")
        location, ids = local_uri(destination), FileIds()
        previous = records.generation(dataset, location)
        keys = RememberedKeys(keys)
        key = keys.current_key(dataset)
        with staging(destination, previous, overwrite=overwrite) as stage:

            def encrypt(file: File, count: Count) -> ManifestFile:
                path = stage.new_file(file[0])
                with file[1].open("rb", buffering=0) as plain, path.open("xb", buffering=0) as raw:
                    with EncryptedWriter(raw, keys, dataset, place=(ids, f"{location}/{file[0]}")) as writer:
                        copy(plain, writer, count)
                    os.fsync(raw.fileno())
                return ManifestFile(file[0], writer.stored_size, writer.preamble.file_id)

            listed = for_each(plan, encrypt, sum(size for _, _, size in plan), progress, threads)
            manifest = build_manifest(key, location, previous.number + 1, listed)
            generation = Generation(previous.number + 1, sha256_hex(manifest))
            with stage.new_file(manifest_path(generation)).open("xb") as out:
                out.write(manifest)
                out.flush()
                os.fsync(out.fileno())
            stage.install(lambda: record_generation(records, dataset, location, generation))
    stored = sum(file.length for file in listed)
    plaintext = sum(plaintext_size(file.length) for file in listed)
    return TreeResult(dataset, location, len(listed), plaintext, stored, generation.number, destination)


def decrypt_tree(
    source: Path,
    destination: Path,
    *,
    keys: KeyProvider,
    records: GenerationRecords | None,
    dataset: DatasetName | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    threads: int | None = None,
) -> TreeResult:
    """Decrypt a file or directory; ``dataset`` defaults to the one its first file names.

    With ``records`` the source must be, or lie in, a recorded directory, and is checked against its manifest; without,
    files are only checked one by one. When the source holds one visible file, and ``destination`` has its suffix and
    is no directory, that file becomes ``destination``; else ``destination`` becomes a directory.
    Raises what reading and ``encrypt_tree`` raise."""
    with storage_errors(destination):
        tree = _open_tree(source, keys, records, dataset)
        destination, only = _decrypted_destination(tree, _destination(source, destination))
        files = tree.files if only is None else [only]
        with staging(destination, NOTHING_RECORDED, overwrite=overwrite) as stage:

            def decrypt(file: File, count: Count) -> None:
                with tree.open(file) as reader, stage.new_file(file[0]).open("xb", buffering=0) as plain:
                    copy(reader, plain, count)
                    os.fsync(plain.fileno())

            for_each(files, decrypt, tree.plaintext_size(files), progress, threads)
            stage.install(lambda: None, only=only[0] if only else None)
    return tree.result(files, destination)


def verify_tree(
    source: Path,
    *,
    keys: KeyProvider,
    records: GenerationRecords | None,
    dataset: DatasetName | None = None,
    progress: Progress | None = None,
    threads: int | None = None,
) -> TreeResult:
    """Read every byte as ``decrypt_tree`` would and write nothing; raises what that raises."""
    with storage_errors(source):
        tree = _open_tree(source, keys, records, dataset)

        def verify(file: File, count: Count) -> None:
            with tree.open(file) as reader:
                copy(reader, None, count)

        for_each(tree.files, verify, tree.plaintext_size(tree.files), progress, threads)
    return tree.result(tree.files, None)


def inspect(path: Path) -> list[FileInfo]:
    """What the encrypted file, or each one below the directory, says about itself; needs no key.

    Raises ``FileMalformedError`` naming the first that is not an encrypted file, or ``SourceMissingError``."""
    with storage_errors(path):
        found = []
        for _, file, _ in _stored_files(path):
            preamble, size = _preamble(file)
            plain = plaintext_size(size, str(file))
            found.append(FileInfo(file, preamble.dataset, preamble.key_version, preamble.file_id, plain, size))
        return found


@dataclass(frozen=True)
class _Tree:
    """An encrypted file or directory that was checked as a whole; each file is checked when it is opened."""

    uri: str
    dataset: DatasetName
    files: list[File]  # path below the source, path, stored size
    single: bool
    governors: Mapping[str, Governed | None]  # by path below the source; empty when manifests are not looked at
    keys: KeyProvider

    def open(self, file: File) -> EncryptedReader:
        name = self.uri if self.single else f"{self.uri}/{file[0]}"
        raw, size = open_stored(file[1])
        try:
            reader = EncryptedReader(raw, size, self.keys, dataset=self.dataset, name=name)
            governed = self.governors.get(file[0])
            if governed is not None:
                check_file(governed, name, size, reader.preamble.file_id)
        except BaseException:
            raw.close()
            raise
        return reader

    @staticmethod
    def plaintext_size(files: list[File]) -> int:
        return sum(plaintext_size(size, str(path)) for _, path, size in files)

    def result(self, files: list[File], destination: Path | None) -> TreeResult:
        generation = max((one.manifest.generation for one in self.governors.values() if one), default=None)
        stored = sum(size for _, _, size in files)
        return TreeResult(
            self.dataset, self.uri, len(files), self.plaintext_size(files), stored, generation, destination
        )


def _decrypted_destination(tree: _Tree, destination: Path) -> tuple[Path, File | None]:
    """Where plaintext goes; and the one file to write there, when it becomes a file and not a directory."""
    visible = [file for file in tree.files if not file[0].rpartition("/")[2].startswith(("_", "."))]
    if tree.single:
        return (destination / tree.files[0][0] if destination.is_dir() else destination), tree.files[0]
    if len(visible) == 1 and not destination.is_dir():
        suffix = destination.suffix
        return destination, visible[0] if suffix and Path(visible[0][0]).suffix == suffix else None
    return destination, None


def _destination(source: Path, destination: Path) -> Path:
    """The real path of ``destination``; ``UsageError`` when writing there would destroy the source or the way here."""
    real, target = Path(os.path.realpath(source)), Path(os.path.realpath(destination))
    here = Path(os.path.realpath("."))
    if real == target or real in target.parents or target in real.parents:
        raise UsageError(f"{source} and {destination}: one lies in the other")
    if target.is_dir() and any(target.iterdir()) and (target == here or target in here.parents):
        raise DestinationExistsError(f"{destination}: is the working directory or above it, and holds something")
    return target


def _open_tree(
    source: Path, keys: KeyProvider, records: GenerationRecords | None, dataset: DatasetName | None
) -> _Tree:
    keys = RememberedKeys(keys)
    uri, single = local_uri(source), source.is_file()
    if uri != normalise(os.fspath(source), working_directory=os.path.realpath(".")):
        # whoever writes to the storage could lead the reader to another, or older, dataset of the same owner
        raise ZoneAccessError(f"{source}: leads through a symbolic link to {uri}; give that path itself if you mean it")
    source = Path(os.path.realpath(source))
    manifests = stored_manifests(source)
    files = _stored_files(source, may_be_empty=bool(manifests))
    if dataset is None:  # only a hint: keys, files and manifest are then checked against it
        if files:
            dataset = _preamble(files[0][1])[0].dataset
        else:
            newest = manifests[-1][1]
            dataset = parse_manifest(newest.read_bytes(), str(newest))[0].dataset
    if records is None:
        return _Tree(uri, dataset, files, single, {}, keys)
    directory = uri.rpartition("/")[0] if single else uri
    strict = StrictReads(keys, records)
    if single:
        governors: Mapping[str, Governed | None] = {files[0][0]: strict.governing(dataset, directory, top="file:///")}
    else:
        sizes = {path: size for path, _, size in files}
        governors = strict.check_tree(dataset, directory, sizes, top="file:///")
        files = [file for file in files if file[0] in governors]  # without those that await their commit
        if not files:
            raise SourceMissingError(f"{source}: holds no file")
    for path, one in governors.items():
        if one is None:
            raise ManifestMissingError(f"{directory}/{path}: no directory around it was ever committed for {dataset}")
    return _Tree(uri, dataset, files, single, governors, keys)


def _preamble(path: Path) -> tuple[Preamble, int]:
    raw, size = open_stored(path)
    with raw:
        return read_preamble(raw, str(path)), size


def _stored_files(path: Path, *, may_be_empty: bool = False) -> list[File]:
    if path.is_file():
        return [(path.name, path, path.stat().st_size)]
    found = [(relative, path / relative, size) for relative, size in files_below(path)] if path.is_dir() else []
    if not found and not may_be_empty:
        raise SourceMissingError(f"{path}: {'holds no file' if path.is_dir() else 'not found'}")
    return found


def _source_files(source: Path) -> list[File]:
    """Plain files to encrypt. Nothing is left out in silence: what cannot be encrypted is a ``UsageError``."""
    if source.is_file():
        return [(_dataset_path(source.name, source), source, source.stat().st_size)]
    found: list[File] = []
    for directory, names, files in os.walk(source, onerror=_raise_unless_missing):
        for name in names:
            path = Path(directory, name)
            _dataset_path(path.relative_to(source).as_posix(), path)
            if path.is_symlink():
                raise UsageError(f"{path}: a symbolic link to a directory; give the directory itself")
        for name in files:
            path = Path(directory, name)
            if not path.is_file():
                raise UsageError(f"{path}: not a regular file")
            found.append((_dataset_path(path.relative_to(source).as_posix(), path), path, path.stat().st_size))
    if not found:
        raise SourceMissingError(f"{source}: {'holds no file' if source.is_dir() else 'not found'}")
    return sorted(found)


def _dataset_path(relative: str, path: Path) -> str:
    try:
        relative.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{os.fsencode(path)!r}: the file's name is not UTF-8") from None
    if is_hidden(relative):
        raise UsageError(f"{path}: this name is reserved, and cannot be in a dataset")
    return relative


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
