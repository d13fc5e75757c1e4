"""Encrypt files and directories into a dataset's directory: all of it or nothing, whatever happens on the way."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from casemate.crypto.canonical import sha256_hex
from casemate.data.commit import record_generation
from casemate.data.drafts import Draft, draft, require_replaceable
from casemate.data.encrypting_objects import encrypt_to_store
from casemate.data.errors import DestinationExistsError, SourceChangedError
from casemate.data.format import plaintext_size, stored_size
from casemate.data.generations import Generation, GenerationRecords
from casemate.data.journal import Done
from casemate.data.keys import DatasetKey, KeyProvider
from casemate.data.manifest import ManifestFile, build_manifest, is_hidden, manifest_path
from casemate.data.objects import is_remote, object_store
from casemate.data.pieces import Encrypting, FilePart
from casemate.data.pool import Progress, Task, run_tasks, worker_count
from casemate.data.sources import PlainFile, Sources, find_sources, identity_of
from casemate.data.staging import storage_errors
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
from casemate.data.worker import part_arguments
from casemate.data.zones import local_uri, normalise
from casemate.errors import UsageError
from casemate.model import DatasetName

__all__ = ["encrypt_stream", "encrypt_tree"]


def encrypt_tree(
    source: Location | Sequence[Location],
    destination: Location,
    *,
    dataset: DatasetName,
    keys: KeyProvider,
    records: GenerationRecords,
    overwrite: bool = False,
    progress: Progress | None = None,
    threads: int | None = None,
    processes: int | None = None,
    unfinished: Path | None = None,
) -> TreeResult:
    """Encrypt files and directories into ``destination``, write its manifest and record its generation.

    Sources are as for ``find_sources``. Until the record is made the destination stays what it was; a run that was
    killed is gone on with by the next one to the same destination. ``destination`` may be a URI of an object store:
    then ``unfinished`` is a directory of this machine that remembers what killed runs did. ``threads`` work in this
    process, or ``processes`` side by side (default: as many as there are cores, where that is worth it).
    Raises ``SourceMissingError``, ``DestinationExistsError``, ``SourceChangedError``, ``StorageFailedError``,
    ``GenerationConflictError``, or what ``keys`` and ``records`` raise."""
    places = as_locations(source)
    if is_remote(os.fspath(destination)):
        return encrypt_to_store(
            places,
            os.fspath(destination),
            dataset=dataset,
            keys=keys,
            records=records,
            overwrite=overwrite,
            progress=progress,
            threads=threads,
            unfinished=unfinished,
        )
    with storage_errors(Path(destination)):
        plan = find_sources(places)
        target = real_destination(places, destination)
        require_replaceable(target, overwrite)
        location, key = local_uri(target), keys.current_key(dataset)
        previous, about = records.generation(dataset, location), f"encrypt to {location}"
        with draft(target, key, records, previous, about=about, overwrite=overwrite) as new:
            run = _Run(plan, new)
            run.encrypt(progress, threads, processes)
            generation = new.install(run.listed.values())
    stored = sum(file.length for file in run.listed.values())
    plaintext = sum(plaintext_size(file.length) for file in run.listed.values())
    return TreeResult(
        dataset, location, len(run.listed), plaintext, stored, generation.number, target, len(new.journal.done)
    )


def encrypt_stream(
    stream: BinaryIO,
    name: str,
    destination: Location,
    *,
    dataset: DatasetName,
    keys: KeyProvider,
    records: GenerationRecords,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> TreeResult:
    """Encrypt what comes out of ``stream`` as the one file ``name`` of ``destination``; else as ``encrypt_tree``.

    A stream cannot be read twice, so a run that was killed is done anew."""
    if "/" in name or name in ("", ".", "..") or is_hidden(name):
        raise UsageError(f"name {name!r}: need the name of one file")
    remote = is_remote(os.fspath(destination))
    with storage_errors(Path(destination)):
        key = keys.current_key(dataset)
        if remote:
            location, store = normalise(os.fspath(destination)), object_store(os.fspath(destination))
            previous = records.generation(dataset, location)
            if next(store.found(location), None) is not None:
                raise DestinationExistsError(f"{location}: exists; a stream goes to a new place of an object store")
            file = _encrypt_stream(stream, name, location, location, key, progress)
            manifest = build_manifest(key, location, previous.number + 1, [file])
            generation = Generation(previous.number + 1, sha256_hex(manifest))
            store.write(f"{location}/{manifest_path(generation)}", manifest)
            record_generation(records, dataset, location, generation)
        else:
            target = real_destination([], destination)
            require_replaceable(target, overwrite)
            location = local_uri(target)
            previous, about = records.generation(dataset, location), f"encrypt a stream to {location}"
            with draft(target, key, records, previous, about=about, overwrite=overwrite) as new:
                file = _encrypt_stream(stream, name, str(new.stage.root), location, key, progress)
                generation = new.install([file])
    size = plaintext_size(file.length)
    return TreeResult(dataset, location, 1, size, file.length, generation.number, destination)


def _encrypt_stream(
    stream: BinaryIO, name: str, root: str, location: str, key: DatasetKey, progress: Progress | None
) -> ManifestFile:
    counter = Counter(0, progress)
    work = Encrypting(root, location, key, secrets.token_hex(16), durable=True)
    length, file_id = work.stream(name, stream, counter.add)
    return ManifestFile(name, length, file_id)


class _Run:
    """Encrypting everything in a plan into a stage."""

    def __init__(self, plan: Sources, new: Draft) -> None:
        self._plan, self._stage, self._journal = plan, new.stage, new.journal
        self._one_by_one = len(plan.files) <= FEW_FILES
        self._work = Encrypting(
            str(new.stage.root), new.location, new.key, secrets.token_hex(16), durable=self._one_by_one
        )
        self._open_parts: dict[str, tuple[PlainFile, str, int]] = {}  # path -> file, its id, parts to come
        self.listed: dict[str, ManifestFile] = {}

    def encrypt(self, progress: Progress | None, threads: int | None, processes: int | None) -> None:
        kept = self._keep()
        counter = Counter(self._plan.size, progress)
        counter.add(sum(file.size for file in self._plan.files if file.path in kept))
        rest = [file for file in self._plan.files if file.path not in kept]
        self._journal.start()
        try:
            self._stage.make_directories(
                [*self._plan.empty_directories, *(file.path.rpartition("/")[0] for file in self._plan.files)]
            )
            cores = len(os.sched_getaffinity(0))
            others = worker_count(len(rest), sum(file.size for file in rest), 0 if threads else processes)
            run_tasks(
                self._tasks(rest, split=others > 0),
                self._work,
                self._finished,
                counter.add,
                processes=others,
                threads=threads or min(cores, max(len(rest), 1)),
            )
        finally:
            self._journal.close()
        self._stage.make_durable(all_at_once=not self._one_by_one)

    def _keep(self) -> dict[str, Done]:
        """What a killed run has finished, and is still what the source has. Everything else of it is removed."""
        wanted = {file.path: file.identity for file in self._plan.files}
        kept = {}
        for path, done in self._journal.done.items():
            made = self._stage.root / path
            if wanted.get(path) == done.identity and made.is_file() and made.stat().st_size == done.size:
                kept[path] = done
                self.listed[path] = ManifestFile(path, done.size, done.file_id)
        self._journal.done = kept
        self._stage.keep_only(kept.keys())
        return kept

    def _tasks(self, files: list[PlainFile], *, split: bool) -> Iterator[Task]:
        large = [file for file in files if split and file.size >= SPLIT_BYTES]
        for file in large:  # first, so that they do not end last and alone
            yield from self._parts(file)
        small = ((file, file.size) for file in files if not (split and file.size >= SPLIT_BYTES))
        for batch in batches(small):
            yield Task("files", [[file.path, file.source, file.identity] for file in batch], batch)

    def _parts(self, file: PlainFile) -> Iterator[Task]:
        if is_remote(file.source):
            yield Task("files", [[file.path, file.source, file.identity]], [file])
            return
        whole, file_id = self._work.begin(file.path, file.source, file.size)
        step = PART_BYTES // 65536
        starts = range(whole.first, whole.end, step)
        self._open_parts[file.path] = file, file_id, len(starts)
        for start in starts:
            part = FilePart(
                whole.path,
                whole.source,
                whole.size,
                whole.dek,
                whole.preamble,
                whole.header,
                start,
                min(start + step, whole.end),
            )
            yield Task("part", part_arguments(part), file.path)

    def _finished(self, task: Task, answer: object) -> None:
        done: list[Done] = []
        if task.operation == "files":
            assert isinstance(answer, list)  # noqa: S101 - as `perform` answers
            for file, (size, file_id, identity) in zip(task.about, answer, strict=True):
                done.append(Done(file.path, identity, size, file_id))
        else:
            file, file_id, left = self._open_parts[task.about]
            self._open_parts[task.about] = file, file_id, left - 1
            if left == 1:
                if identity_of(os.stat(file.source)) != file.identity:  # noqa: PTH116
                    raise SourceChangedError(f"{file.source}: was changed while it was encrypted")
                done.append(Done(file.path, file.identity, stored_size(file.size), file_id))
        self._journal.add(done)
        for one in done:
            self.listed[one.path] = ManifestFile(one.path, one.size, one.file_id)
