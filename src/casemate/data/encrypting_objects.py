"""Encrypt into an object store, which has neither renames nor directories: data first, then manifest, then record.

Into a new place objects go directly, since nobody reads them before the record is made. What replaces a committed
dataset is uploaded below ``_temporary/`` first and then copied by the store; a strict reader that comes in between is
refused, and never sees a mixture.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from casemate.crypto.canonical import sha256_hex
from casemate.data.commit import record_generation
from casemate.data.errors import DestinationExistsError
from casemate.data.format import plaintext_size
from casemate.data.generations import Generation, GenerationRecords
from casemate.data.journal import Done, Journal
from casemate.data.keys import KeyProvider
from casemate.data.manifest import TEMPORARY_DIRECTORY, ManifestFile, build_manifest, manifest_path
from casemate.data.objects import ObjectStore, object_store
from casemate.data.pieces import Encrypting
from casemate.data.pool import Progress, Task, run_tasks
from casemate.data.sources import PlainFile, find_sources
from casemate.data.staging import storage_errors
from casemate.data.trees import Counter, TreeResult
from casemate.data.zones import is_within, normalise
from casemate.errors import UsageError
from casemate.model import DatasetName

__all__ = ["encrypt_to_store"]

_THREADS = 8  # they wait for the network most of the time


def encrypt_to_store(
    sources: Sequence[str],
    destination: str,
    *,
    dataset: DatasetName,
    keys: KeyProvider,
    records: GenerationRecords,
    overwrite: bool,
    progress: Progress | None,
    threads: int | None,
    unfinished: Path | None,
) -> TreeResult:
    """As ``encrypt_tree``, for a URI of an object store."""
    location, store = normalise(destination), object_store(destination)
    with storage_errors(Path(location)):
        plan = find_sources(sources)
        for source in (file.source for file in plan.files):
            if is_within(source, location) or is_within(location, source):
                raise UsageError(f"{source} and {location}: one lies in the other")
        key = keys.current_key(dataset)
        previous = records.generation(dataset, location)
        journal = None
        if unfinished is not None:
            unfinished.mkdir(mode=0o700, parents=True, exist_ok=True)
            journal = Journal(unfinished / f"{sha256_hex(location.encode())[:32]}.jsonl", key, f"encrypt to {location}")
        resumed = journal is not None and journal.load()
        present = dict(store.found(location))
        if present and not overwrite and not (resumed and not previous.holds_files):
            raise DestinationExistsError(f"{location}: exists and holds something")
        if present and overwrite and not resumed and not previous.holds_files:
            raise DestinationExistsError(f"{location}: not an encrypted directory, so it is not overwritten")
        if journal is not None:
            journal.start()
        try:
            apart = f"{TEMPORARY_DIRECTORY}/casemate-{journal.id if journal else secrets.token_hex(16)}"
            root = f"{location}/{apart}" if previous.holds_files else location
            work = Encrypting(root, location, key, secrets.token_hex(16), durable=False)
            listed = _upload(plan.files, store, root, work, journal, Counter(plan.size, progress), threads)
            kept = len(journal.done) if journal is not None else 0
            if root != location:
                _copy_all(store, [(f"{root}/{path}", f"{location}/{path}") for path in listed], threads)
            manifest = build_manifest(key, location, previous.number + 1, listed.values())
            generation = Generation(previous.number + 1, sha256_hex(manifest))
            store.write(f"{location}/{manifest_path(generation)}", manifest)
            record_generation(records, dataset, location, generation)
        except BaseException:
            if journal is not None:
                journal.close()
            raise
        if journal is not None:
            journal.close(remove=True)
        needed = {*listed, manifest_path(generation)}
        if previous.holds_files:  # for readers that looked its number up a moment ago
            needed.add(manifest_path(previous))
        _tidy(store, location, needed)
    stored = sum(file.length for file in listed.values())
    plaintext = sum(plaintext_size(file.length) for file in listed.values())
    return TreeResult(dataset, location, len(listed), plaintext, stored, generation.number, location, kept)


def _upload(
    files: Sequence[PlainFile],
    store: ObjectStore,
    root: str,
    work: Encrypting,
    journal: Journal | None,
    counter: Counter,
    threads: int | None,
) -> dict[str, ManifestFile]:
    listed: dict[str, ManifestFile] = {}
    if journal is not None and journal.done:
        wanted = {file.path: file.identity for file in files}
        sizes = {path: one.size for path, one in store.found(root)}
        journal.done = {
            path: done
            for path, done in journal.done.items()
            if wanted.get(path) == done.identity and sizes.get(path) == done.size
        }
        listed = {path: ManifestFile(path, done.size, done.file_id) for path, done in journal.done.items()}
    counter.add(sum(file.size for file in files if file.path in listed))

    def finished(task: Task, answer: object) -> None:
        assert isinstance(answer, list)  # noqa: S101 - as `perform` answers
        done = [Done(task.about.path, identity, size, file_id) for size, file_id, identity in answer]
        if journal is not None:
            journal.add(done)
        for one in done:
            listed[one.path] = ManifestFile(one.path, one.size, one.file_id)

    rest = [file for file in files if file.path not in listed]
    tasks = (Task("files", [[file.path, file.source, file.identity]], file) for file in rest)
    run_tasks(tasks, work, finished, counter.add, processes=0, threads=threads or _THREADS)
    return listed


def _copy_all(store: ObjectStore, copies: Sequence[tuple[str, str]], threads: int | None) -> None:
    with ThreadPoolExecutor(threads or _THREADS) as pool:
        for _ in pool.map(lambda pair: store.copy(*pair), copies):
            pass


def _tidy(store: ObjectStore, location: str, needed: Set[str]) -> None:
    """Remove what the dataset no longer needs: replaced files, unfinished ones, manifests before the previous one."""
    store.delete([one.uri for path, one in store.found(location) if path and path not in needed])
