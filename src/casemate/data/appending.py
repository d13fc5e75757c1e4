"""Add files to a dataset's directory while others read it, and while others add to it as well."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path

from casemate.data.changes import Changes
from casemate.data.commit import commit_directory
from casemate.data.errors import DestinationExistsError
from casemate.data.fileid import FileIds
from casemate.data.format import plaintext_size
from casemate.data.generations import GenerationRecords
from casemate.data.keys import KeyProvider
from casemate.data.local import read_manifest, sync_directory
from casemate.data.manifest import TEMPORARY_DIRECTORY, manifest_path, verify_manifest
from casemate.data.objects import is_remote
from casemate.data.pieces import Encrypting
from casemate.data.pool import Progress, Task, run_tasks, worker_count
from casemate.data.sources import PlainFile, find_sources
from casemate.data.staging import storage_errors
from casemate.data.trees import Counter, Location, TreeResult, as_locations, batches, real_destination
from casemate.data.zones import local_uri
from casemate.errors import UsageError
from casemate.model import DatasetName

__all__ = ["append_tree"]


def append_tree(
    source: Location | Sequence[Location],
    destination: Location,
    *,
    dataset: DatasetName,
    keys: KeyProvider,
    records: GenerationRecords,
    progress: Progress | None = None,
    threads: int | None = None,
    processes: int | None = None,
) -> TreeResult:
    """Encrypt files and directories into a local directory beside what is in it, and commit them as one generation.

    Readers see all of the new files or none. Of several that append at once each one's files get in. The result
    counts the new files. Raises ``DestinationExistsError`` for a name that is taken, or what ``encrypt_tree``
    raises."""
    places = as_locations(source)
    if is_remote(os.fspath(destination)):
        raise UsageError(f"{destination}: files are added to directories of this machine; a job can append elsewhere")
    with storage_errors(Path(destination)):
        plan = find_sources(places)
        target = real_destination(places, destination)
        location, job = local_uri(target), secrets.token_hex(16)
        key, recorded = keys.current_key(dataset), records.generation(dataset, location)
        if recorded.holds_files:
            manifest = verify_manifest(
                read_manifest(target, recorded),
                recorded,
                dataset=dataset,
                location=location,
                keys=keys,
                name=f"{location}/{manifest_path(recorded)}",
            )
            for file in plan.files:
                if file.path in manifest.by_path:
                    raise DestinationExistsError(f"{target}/{file.path}: is in generation {recorded.number} already")
        elif target.is_dir() and any(target.iterdir()):
            raise DestinationExistsError(f"{target}: holds something, and was never committed for {dataset}")
        draft = target / TEMPORARY_DIRECTORY / f"casemate-{secrets.token_hex(8)}"
        draft.mkdir(parents=True)
        try:
            work = Encrypting(str(draft), location, key, job, durable=True)
            made = _encrypt(plan.files, draft, work, progress, threads, processes)
            changes = Changes()
            for file in plan.files:
                path = target / file.path
                path.parent.mkdir(parents=True, exist_ok=True)
                (draft / file.path).replace(path)  # over what a killed run left; nobody sees it before the record
                sync_directory(path.parent)
                changes.wrote(f"{location}/{file.path}", made[file.path][1])
            generation = commit_directory(target, location, dataset, keys, records, ids=FileIds(job), changes=changes)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
            _remove_if_empty(draft.parent)
    sizes = [size for size, _ in made.values()]
    plain = sum(plaintext_size(size) for size in sizes)
    return TreeResult(dataset, location, len(made), plain, sum(sizes), generation.number, target)


def _encrypt(
    files: Sequence[PlainFile],
    draft: Path,
    work: Encrypting,
    progress: Progress | None,
    threads: int | None,
    processes: int | None,
) -> dict[str, tuple[int, str]]:
    made: dict[str, tuple[int, str]] = {}
    for directory in sorted({file.path.rpartition("/")[0] for file in files}):
        (draft / directory).mkdir(parents=True, exist_ok=True)

    def finished(task: Task, answer: object) -> None:
        assert isinstance(answer, list)  # noqa: S101 - as the worker answers
        for file, (size, file_id, _) in zip(task.about, answer, strict=True):
            made[file.path] = size, file_id

    total = sum(file.size for file in files)
    tasks = [
        Task("files", [[file.path, file.source, file.identity] for file in batch], batch)
        for batch in batches((file, file.size) for file in files)
    ]
    others = worker_count(len(files), total, 0 if threads else processes)
    cores = len(os.sched_getaffinity(0))
    run_tasks(tasks, work, finished, Counter(total, progress).add, processes=others, threads=threads or cores)
    return made


def _remove_if_empty(directory: Path) -> None:
    try:
        directory.rmdir()
    except OSError:
        return
