"""Decrypt or verify what lies in datasets, checked against their manifests: all of it or nothing."""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from casemate.data.errors import (
    DestinationExistsError,
    KeyDeniedError,
    ManifestMissingError,
    SourceMissingError,
    ZoneAccessError,
)
from casemate.data.format import plaintext_size
from casemate.data.generations import NOTHING_RECORDED, GenerationRecords
from casemate.data.journal import Done, Journal
from casemate.data.keys import KeyProvider, RememberedKeys
from casemate.data.local import empty_directories_below
from casemate.data.manifest import parse_manifest
from casemate.data.objects import is_remote, object_store
from casemate.data.pieces import Decrypting, copy, new_descriptor
from casemate.data.pool import Progress, Task, run_tasks, worker_count
from casemate.data.reader import read_preamble
from casemate.data.sources import split_pattern
from casemate.data.staging import Stage, staging, storage_errors
from casemate.data.stored import files_below, open_stored, stored_manifests
from casemate.data.strict import Governed, StrictReads, check_file
from casemate.data.trees import (
    FEW_FILES,
    PART_BYTES,
    SPLIT_BYTES,
    Counter,
    Location,
    TreeResult,
    as_locations,
    batches,
    real_destination,
)
from casemate.data.zones import local_path, local_uri, normalise
from casemate.errors import UsageError
from casemate.model import DatasetName

__all__ = ["decrypt_stream", "decrypt_tree", "verify_tree"]


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file to decrypt, and what the manifest says about it."""

    path: str  # below the destination
    uri: str
    size: int  # stored bytes
    file_id: str | None  # None: manifests are not looked at

    @property
    def plaintext_size(self) -> int:
        return plaintext_size(self.size, self.uri)


@dataclass(frozen=True)
class _Found:
    """Encrypted files that were checked as a whole; each file is checked when it is opened."""

    uri: str
    dataset: DatasetName
    files: list[StoredFile]
    single: bool  # one file was named, not a directory
    generation: int | None
    keys: KeyProvider
    empty_directories: list[str]  # below the destination; no manifest lists them

    @property
    def plaintext_size(self) -> int:
        return sum(file.plaintext_size for file in self.files)

    def result(self, files: Sequence[StoredFile], destination: Location | None, kept: int = 0) -> TreeResult:
        plain, stored = sum(file.plaintext_size for file in files), sum(file.size for file in files)
        return TreeResult(self.dataset, self.uri, len(files), plain, stored, self.generation, destination, kept)


def decrypt_tree(
    source: Location | Sequence[Location],
    destination: Location,
    *,
    keys: KeyProvider,
    records: GenerationRecords | None,
    dataset: DatasetName | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    threads: int | None = None,
    processes: int | None = None,
) -> TreeResult:
    """Decrypt files and directories; ``dataset`` defaults to the one the first file names.

    With ``records`` each source must be, or lie in, a recorded directory, and is checked against its manifest; without,
    files are only checked one by one. When the only source holds one visible file, and ``destination`` has its suffix
    and is no directory, that file becomes ``destination``; else ``destination`` becomes a directory. In an object
    store files appear one by one. Raises what reading and ``encrypt_tree`` raise."""
    places = as_locations(source)
    with storage_errors(Path(destination)):
        found = _find(places, keys, records, dataset)
        if is_remote(os.fspath(destination)):
            return _decrypt_to_store(found, os.fspath(destination), overwrite, progress, threads)
        target, only = _target(found, real_destination(places, destination))
        files = found.files if only is None else [only]

        def journal_at(path: Path) -> Journal | None:
            if records is None:
                return None
            try:
                key = found.keys.current_key(found.dataset)
            except KeyDeniedError:
                return None
            return Journal(path, key, f"decrypt {found.uri} to {target}")

        def adopt(path: Path) -> bool:
            journal = journal_at(path)
            return journal is not None and journal.load()

        with staging(target, NOTHING_RECORDED, overwrite=overwrite, adopt=adopt) as stage:
            journal = journal_at(stage.journal) if len(files) > 1 else None
            if journal is not None and stage.adopted:
                journal.load()
            run = _Run(found, files, stage, journal)
            run.decrypt(Counter(sum(file.plaintext_size for file in files), progress), threads, processes)
            stage.install(lambda: None, only=only.path if only else None)
    return found.result(files, target, len(journal.done) if journal is not None else 0)


def verify_tree(
    source: Location | Sequence[Location],
    *,
    keys: KeyProvider,
    records: GenerationRecords | None,
    dataset: DatasetName | None = None,
    progress: Progress | None = None,
    threads: int | None = None,
    processes: int | None = None,
) -> TreeResult:
    """Read every byte as ``decrypt_tree`` would and write nothing; raises what that raises."""
    places = as_locations(source)
    with storage_errors(Path(places[0])):
        found = _find(places, keys, records, dataset)
        run = _Run(found, found.files, None, None)
        run.decrypt(Counter(found.plaintext_size, progress), threads, processes)
    return found.result(found.files, None)


def decrypt_stream(
    source: Location,
    sink: BinaryIO,
    *,
    keys: KeyProvider,
    records: GenerationRecords | None,
    dataset: DatasetName | None = None,
    progress: Progress | None = None,
) -> TreeResult:
    """Decrypt the one file of ``source``, or its one visible file, into ``sink``.

    Every byte that is written was authentic; when a later one is not, the error comes after those before it."""
    with storage_errors(Path(source)):
        found = _find([os.fspath(source)], keys, records, dataset)
        visible = [file for file in found.files if _is_visible(file)]
        if len(found.files) > 1 and len(visible) != 1:
            raise UsageError(f"{source}: holds {len(found.files)} files, and only one can be written to a stream")
        file = (visible or found.files)[0]
        counter = Counter(file.plaintext_size, progress)
        with Decrypting(None, found.dataset, found.keys, durable=False).open(
            file.uri, file.size, file.file_id
        ) as plain:
            copy(plain, sink, counter.add)
    return found.result([file], "-")


def _is_visible(file: StoredFile) -> bool:
    return not file.path.rpartition("/")[2].startswith(("_", "."))


def _target(found: _Found, destination: Path) -> tuple[Path, StoredFile | None]:
    """Where plaintext goes; and the one file to write there, when it becomes a file and not a directory."""
    if found.single:
        return (destination / found.files[0].path if destination.is_dir() else destination), found.files[0]
    visible = [file for file in found.files if _is_visible(file)]
    if len(visible) == 1 and not destination.is_dir():
        suffix = destination.suffix
        return destination, visible[0] if suffix and Path(visible[0].path).suffix == suffix else None
    return destination, None


def _decrypt_to_store(
    found: _Found, destination: str, overwrite: bool, progress: Progress | None, threads: int | None
) -> TreeResult:
    store, target = object_store(destination), normalise(destination)
    if not overwrite and next(store.found(target), None) is not None:
        raise DestinationExistsError(f"{target}: exists and holds something")
    work = Decrypting(target, found.dataset, found.keys, durable=False)
    tasks = [_whole([file]) for file in found.files]
    counter = Counter(found.plaintext_size, progress)
    run_tasks(tasks, work, lambda task, answer: None, counter.add, processes=0, threads=threads or 8)
    return found.result(found.files, target)


def _whole(files: Sequence[StoredFile]) -> Task:
    return Task("files", [[file.path, file.uri, file.size, file.file_id] for file in files], list(files))


class _Run:
    """Decrypting files into a stage, or, without one, only reading them."""

    def __init__(
        self, found: _Found, files: Sequence[StoredFile], stage: Stage | None, journal: Journal | None
    ) -> None:
        self._files, self._stage, self._journal = files, stage, journal
        self._empty_directories = found.empty_directories
        self._one_by_one = len(files) <= FEW_FILES
        root = None if stage is None else str(stage.root)
        self._work = Decrypting(root, found.dataset, found.keys, durable=self._one_by_one)
        self._remote = is_remote(found.uri)
        self._parts_left: dict[str, int] = {}

    def decrypt(self, counter: Counter, threads: int | None, processes: int | None) -> None:
        kept = self._keep()
        counter.add(sum(file.plaintext_size for file in self._files if file.path in kept))
        rest = [file for file in self._files if file.path not in kept]
        if self._journal is not None:
            self._journal.start()
        try:
            if self._stage is not None:
                self._stage.make_directories(
                    [*self._empty_directories, *(file.path.rpartition("/")[0] for file in self._files)]
                )
            others = (
                0 if self._remote else worker_count(len(rest), sum(f.size for f in rest), 0 if threads else processes)
            )
            cores = 8 if self._remote else len(os.sched_getaffinity(0))
            run_tasks(
                self._tasks(rest, split=others > 0),
                self._work,
                self._finished,
                counter.add,
                processes=others,
                threads=threads or min(cores, max(len(rest), 1)),
            )
        finally:
            if self._journal is not None:
                self._journal.close()
        if self._stage is not None:
            self._stage.make_durable(all_at_once=not self._one_by_one)

    def _keep(self) -> Mapping[str, Done]:
        if self._stage is None:
            return {}
        kept = {}
        wanted = {file.path: file for file in self._files}
        for path, done in self._journal.done.items() if self._journal is not None else ():
            file, made = wanted.get(path), self._stage.root / path
            if file is None or file.file_id != done.identity or not made.is_file():
                continue
            if made.stat().st_size == done.size == file.plaintext_size:
                kept[path] = done
        if self._journal is not None:
            self._journal.done = kept
        self._stage.keep_only(kept.keys())
        return kept

    def _tasks(self, files: Sequence[StoredFile], *, split: bool) -> Iterator[Task]:
        large = [file for file in files if split and file.size >= SPLIT_BYTES]
        for file in large:
            yield from self._parts(file)
        for batch in batches((file, file.size) for file in files if not (split and file.size >= SPLIT_BYTES)):
            yield _whole(batch)

    def _parts(self, file: StoredFile) -> Iterator[Task]:
        with self._work.open(file.uri, file.size, file.file_id) as reader:
            file_id, size = reader.preamble.file_id, reader.size
        if self._stage is not None:
            descriptor = new_descriptor(str(self._stage.root / file.path))
            os.ftruncate(descriptor, size)
            os.close(descriptor)
        starts = range(0, size, PART_BYTES)
        self._parts_left[file.path] = len(starts)
        for start in starts:
            end = min(start + PART_BYTES, size)
            yield Task("part", [file.path, file.uri, file.size, file_id, start, end], file)

    def _finished(self, task: Task, answer: object) -> None:
        if task.operation == "files":
            done = task.about
        else:
            self._parts_left[task.about.path] -= 1
            done = [] if self._parts_left[task.about.path] else [task.about]
        if self._journal is not None:
            self._journal.add(
                Done(file.path, file.file_id or "", file.plaintext_size, file.file_id or "") for file in done
            )


def _find(
    places: Sequence[str], keys: KeyProvider, records: GenerationRecords | None, dataset: DatasetName | None
) -> _Found:
    """All files of all sources, each checked against the manifests that govern it."""
    keys = RememberedKeys(keys)
    named = [pair for source in places for pair in _expand(source, alone=len(places) == 1)]
    parts = [_open_source(place, name, keys, records, dataset) for place, name in named]
    first = parts[0]
    for other in parts[1:]:
        if other.dataset != first.dataset:
            raise UsageError(f"{first.uri} and {other.uri}: of two datasets, {first.dataset} and {other.dataset}")
    if len(parts) == 1:
        return replace(first, single=first.single and not named[0][1])
    files = sorted((file for part in parts for file in part.files), key=lambda file: file.path)
    for one, another in itertools.pairwise(files):
        if one.path == another.path or another.path.startswith(one.path + "/"):
            raise UsageError(f"{one.uri} and {another.uri}: both would become {one.path}")
    generations = [part.generation for part in parts if part.generation is not None]
    uris = " ".join(part.uri for part in parts)
    empty = [path for part in parts for path in part.empty_directories]
    return _Found(uris, first.dataset, files, False, max(generations, default=None), keys, empty)


def _expand(source: str, *, alone: bool) -> Iterator[tuple[str, str]]:
    """The places that a source or pattern means, each with the name it gets below the destination."""
    base, is_pattern = split_pattern(source)
    if is_pattern and (object_store(source).exists(source) if is_remote(source) else os.path.lexists(source)):
        is_pattern = False  # a name that is there is no pattern
    if not is_pattern:
        yield source, "" if alone else os.path.basename(source.rstrip("/"))  # noqa: PTH119 - text
        return
    matches = object_store(source).glob(source) if is_remote(source) else sorted(glob.glob(source))  # noqa: PTH207
    matches = [match for match in matches if not match.rstrip("/").rpartition("/")[2].startswith("_")]
    if not matches:
        raise SourceMissingError(f"{source}: matches nothing")
    for match in matches:
        yield match, match[len(base) :].strip("/")


def _open_source(
    source: str,
    name: str,
    keys: KeyProvider,
    records: GenerationRecords | None,
    dataset: DatasetName | None,
) -> _Found:
    uri, single = _locate(source)
    manifests = [] if single else stored_manifests(uri)
    if single:
        raw, size = open_stored(uri)
        raw.close()
        sizes = {uri.rpartition("/")[2]: size}
        directory = uri.rpartition("/")[0]
    else:
        sizes, directory = dict(files_below(uri)), uri
        if not sizes and not manifests:
            raise SourceMissingError(f"{source}: not found, or holds no file")
    if dataset is None:  # only a hint: keys, files and manifest are then checked against it
        dataset = _named_dataset(f"{directory}/{min(sizes)}" if sizes else None, manifests)
    governors: Mapping[str, Governed | None] = {}
    if records is not None:
        strict = StrictReads(keys, records)
        top = "file:///" if local_path(uri) is not None else "/".join(uri.split("/")[:3])
        if single:
            one_dataset = dataset
            governing = strict.checked(lambda: strict.governing(one_dataset, directory, top=top))
            governors = dict.fromkeys(sizes, governing)
        else:
            governors = strict.check_tree(dataset, directory, sizes, top=top)
            sizes = {path: size for path, size in sizes.items() if path in governors}  # without what awaits its commit
            if not sizes:
                raise SourceMissingError(f"{source}: holds no file")
        for path, governed in governors.items():
            if governed is None:
                where = f"{directory}/{path}"
                raise ManifestMissingError(f"{where}: no directory around it was ever committed for {dataset}")
    files = []
    for path, size in sizes.items():
        governed, place = governors.get(path), f"{directory}/{path}"
        file_id = None
        if governed is not None:
            check_file(governed, place, size)
            file_id = governed.manifest.by_path[governed.relative(place)].file_id
        below = name if single and name else f"{name}/{path}" if name else path
        files.append(StoredFile(below, place, size, file_id))
    files.sort(key=lambda file: file.path)
    newest = max((one.manifest.generation for one in governors.values() if one), default=None)
    empty = [] if single or is_remote(uri) else empty_directories_below(Path(local_path(uri) or directory))
    return _Found(uri, dataset, files, single, newest, keys, [f"{name}/{path}" if name else path for path in empty])


def _locate(source: str) -> tuple[str, bool]:
    """The URI of a source, and whether it is one file. Raises ``ZoneAccessError`` for a path through a link."""
    if is_remote(source):
        uri = normalise(source)
        return uri, object_store(uri).info(uri) is not None
    uri = local_uri(source)
    if uri != normalise(source, working_directory=os.path.realpath(".")):
        # whoever writes to the storage could lead the reader to another, or older, dataset of the same owner
        raise ZoneAccessError(f"{source}: leads through a symbolic link to {uri}; give that path itself if you mean it")
    path = Path(local_path(uri) or source)
    if not path.exists():
        raise SourceMissingError(f"{source}: not found")
    return uri, path.is_file()


def _named_dataset(file: str | None, manifests: Sequence[tuple[int, str]]) -> DatasetName:
    if file is None:
        raw, _ = open_stored(manifests[-1][1])
        with raw:
            return parse_manifest(raw.read(), manifests[-1][1])[0].dataset
    raw, _ = open_stored(file)
    with raw:
        return read_preamble(raw, local_path(file) or file).dataset
