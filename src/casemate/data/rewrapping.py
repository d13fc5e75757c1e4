"""Put a dataset under the newest version of its key: encrypt its files again, and put them into place in one step.

A file's header is bound to its body, so that no key version can be exchanged for an older one; a new version means
new files. Until all of them are in place and recorded the dataset is what it was.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from casemate.data.drafts import Draft, draft
from casemate.data.errors import ManifestMissingError, SourceMissingError
from casemate.data.format import plaintext_size
from casemate.data.generations import GenerationRecords
from casemate.data.journal import Done
from casemate.data.keys import KeyProvider, RememberedKeys
from casemate.data.local import files_below
from casemate.data.manifest import ManifestFile
from casemate.data.pieces import Decrypting, Encrypting
from casemate.data.pool import Progress
from casemate.data.staging import storage_errors
from casemate.data.strict import Governed, StrictReads, authentic_preamble
from casemate.data.trees import Counter, TreeResult
from casemate.data.zones import local_uri
from casemate.errors import UsageError
from casemate.model import DatasetName

__all__ = ["rewrap_tree"]


def rewrap_tree(
    directory: Path,
    *,
    keys: KeyProvider,
    records: GenerationRecords,
    dataset: DatasetName,
    progress: Progress | None = None,
    threads: int | None = None,
) -> TreeResult:
    """Bring every file of a committed local directory under the current key, as its next generation.

    What is under it already is taken over as it is; when that is everything, nothing is done. Needs room for the rest
    beside the directory, and memory for none of it. A run that was killed is gone on with by the next one. No job may
    write to the directory meanwhile: what it has not committed is lost. The result counts the files that were
    encrypted again; ``kept`` those that a killed run had done. Raises what strict reading raises,
    ``ManifestMissingError``, ``SourceMissingError``, ``StorageFailedError`` or ``GenerationConflictError``."""
    with storage_errors(directory):
        target = Path(os.path.realpath(directory))
        if not target.is_dir():
            raise SourceMissingError(f"{directory}: is no directory of this machine")
        location, keys = local_uri(target), RememberedKeys(keys)
        key, recorded = keys.current_key(dataset), records.generation(dataset, location)
        if not recorded.holds_files:
            raise ManifestMissingError(f"{location}: was never committed for {dataset}")
        about = f"rewrap {location} from {recorded.digest}"
        with draft(target, key, records, recorded, about=about, overwrite=True) as new:
            governed = _checked(target, location, dataset, keys, records)
            old = [
                file
                for file in governed.manifest.files
                if authentic_preamble(f"{location}/{file.path}", dataset, keys).key_version != key.version
            ]
            if not old and governed.manifest.key_version == key.version:
                return TreeResult(dataset, location, 0, 0, 0, recorded.number, target)
            run = _Run(new, keys, {file.path: file for file in old})
            listed = run.all(governed.manifest.files, Counter(sum(_size(file) for file in old), progress), threads)
            new.stage.make_durable(all_at_once=True)
            generation = new.install(listed)
    plain, stored = sum(_size(file) for file in old), sum(file.length for file in old)
    return TreeResult(dataset, location, len(old), plain, stored, generation.number, target, len(new.journal.done))


def _size(file: ManifestFile) -> int:
    return plaintext_size(file.length, file.path)


def _checked(
    target: Path, location: str, dataset: DatasetName, keys: KeyProvider, records: GenerationRecords
) -> Governed:
    """What governs the directory, when all that is below it is as was committed, and by this directory's commit."""
    strict = StrictReads(keys, records)
    governors = strict.check_tree(dataset, location, dict(files_below(target)), top=location)
    for path, one in governors.items():
        if one is not None and one.location != location:
            raise UsageError(
                f"{location}/{path}: was committed by itself at {one.location}; rewrap that directory alone"
            )
    governed = strict.governing(dataset, location, top=location)
    if governed is None:  # pragma: no cover - was recorded a moment ago
        raise ManifestMissingError(f"{location}: was never committed for {dataset}")
    return governed


class _Run:
    def __init__(self, new: Draft, keys: KeyProvider, old: dict[str, ManifestFile]) -> None:
        self._stage, self._journal, self._location, self._old = new.stage, new.journal, new.location, old
        self._reads = Decrypting(None, new.key.dataset, keys, durable=False)
        self._writes = Encrypting(str(new.stage.root), new.location, new.key, os.urandom(16).hex(), durable=False)
        self._lock = threading.Lock()

    def all(self, files: Sequence[ManifestFile], counter: Counter, threads: int | None) -> list[ManifestFile]:
        self._keep(counter)
        self._journal.start()
        try:
            self._stage.make_directories(file.path.rpartition("/")[0] for file in files)
            with ThreadPoolExecutor(threads or len(os.sched_getaffinity(0))) as pool:
                futures = [pool.submit(self._one, file, counter) for file in files]
                try:
                    return [future.result() for future in futures]
                except BaseException:
                    pool.shutdown(wait=True, cancel_futures=True)
                    raise
        finally:
            self._journal.close()

    def _keep(self, counter: Counter) -> None:
        """What a killed run has made of files that are still the same. Everything else of it is removed."""
        kept = {}
        for path, done in self._journal.done.items():
            file, made = self._old.get(path), self._stage.root / path
            if (
                file is not None
                and file.file_id == done.identity
                and made.is_file()
                and made.stat().st_size == done.size
            ):
                kept[path] = done
                counter.add(_size(file))
        self._journal.done = kept
        self._stage.keep_only(kept.keys())

    def _one(self, file: ManifestFile, counter: Counter) -> ManifestFile:
        done = self._journal.done.get(file.path)
        if done is not None:
            return ManifestFile(file.path, done.size, done.file_id)
        uri = f"{self._location}/{file.path}"
        if file.path not in self._old:
            os.link(self._target(file.path), self._stage.root / file.path, follow_symlinks=False)
            return file
        with self._reads.open(uri, file.length, file.file_id) as reader:
            size, file_id = self._writes.stream(file.path, reader, lambda count: self._count(counter, count))
        with self._lock:
            self._journal.add([Done(file.path, file.file_id, size, file_id)])
        return ManifestFile(file.path, size, file_id)

    def _target(self, path: str) -> Path:
        return Path(self._location.removeprefix("file://")) / path

    def _count(self, counter: Counter, size: int) -> None:
        with self._lock:
            counter.add(size)
