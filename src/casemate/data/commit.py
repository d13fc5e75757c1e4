"""Commit a directory: list its files in a new manifest, record the generation, drop manifests nobody needs.

A commit adds what its own job wrote to what was committed before. Of two jobs that commit at once the slower one looks
again and adds its files to the faster one's; neither takes over what the other has not committed.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from casemate.crypto.canonical import sha256_hex
from casemate.data.changes import Changes
from casemate.data.errors import (
    FileTruncatedError,
    ManifestFileForeignError,
    ManifestFileMissingError,
    ManifestFileSwappedError,
    ManifestMissingError,
    ManifestRolledBackError,
)
from casemate.data.fileid import FileIds, Origin
from casemate.data.generations import Generation, GenerationRecords
from casemate.data.keys import KeyProvider, RememberedKeys
from casemate.data.manifest import Manifest, ManifestFile, build_manifest, manifest_path, verify_manifest
from casemate.data.stored import files_below, read_manifest, remove, stored_manifests, write_manifest
from casemate.data.strict import authentic_preamble
from casemate.data.zones import normalise
from casemate.errors import GenerationConflictError, UndecidedError
from casemate.model import DatasetName

__all__ = ["commit_directory", "record_generation"]

Remembered = Callable[[DatasetName, str, Generation], Manifest | None]

_ATTEMPTS = 100  # of jobs that commit one directory at once, each attempt lets one through


def commit_directory(
    root: Path | None,
    location: str,
    dataset: DatasetName,
    keys: KeyProvider,
    records: GenerationRecords,
    *,
    ids: FileIds,
    changes: Changes | None = None,
    adopt: bool = False,
    remembered: Remembered | None = None,
) -> Generation:
    """Make the next generation of ``location`` (the URI of ``root``, which is
    ``None`` in an object store): what was committed, and the files of this job.

    This job's are those that ``changes`` knows and those whose id (``ids``) shows that it wrote them for where they
    lie. What another writer has not committed is left out. With ``adopt`` every file of the dataset is taken;
    ``remembered`` may know the manifest of a generation that was verified before. The
    manifest is durable before it is recorded; until then the generation before stands. Raises what ``keys`` and
    ``records`` raise, ``ManifestFileForeignError`` for any other file that is not listed,
    ``ManifestFileMissingError`` or ``ManifestFileSwappedError`` for a committed file that somebody else deleted or
    changed, and ``FileMalformedError``, ``FileTamperedError`` or ``FileWrongDatasetError`` for a file that is not the
    dataset's."""
    work = _Commit(root, location, dataset, RememberedKeys(keys), records, ids, changes or Changes(), adopt, remembered)
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return work.attempt()
        except GenerationConflictError:
            if attempt == _ATTEMPTS:
                raise
            time.sleep(secrets.randbelow(1000) / 1000 * min(0.5, 0.01 * 2**attempt))
    raise AssertionError("unreachable")


def record_generation(records: GenerationRecords, dataset: DatasetName, location: str, generation: Generation) -> None:
    """Record, and when the answer was lost on the way, look whether it is recorded all the same."""
    try:
        records.record(dataset, location, generation)
    except (UndecidedError, GenerationConflictError):
        if records.generation(dataset, location) != generation:
            raise


class _Commit:
    def __init__(
        self,
        root: Path | None,
        location: str,
        dataset: DatasetName,
        keys: KeyProvider,
        records: GenerationRecords,
        ids: FileIds,
        changes: Changes,
        adopt: bool,
        remembered: Remembered | None,
    ) -> None:
        self.remembered = remembered
        self.root = location if root is None else normalise(str(root))
        self.location, self.dataset = location, dataset
        self.keys, self.records = keys, records
        self.ids, self.changes, self.adopt = ids, changes, adopt

    def attempt(self) -> Generation:
        previous = self.records.generation(self.dataset, self.location)
        files = self._collect(self._before(previous))
        number = previous.number + 1
        manifest = build_manifest(self.keys.current_key(self.dataset), self.location, number, files.values())
        generation = Generation(number, sha256_hex(manifest))
        path = write_manifest(self.root, generation, manifest)
        try:
            record_generation(self.records, self.dataset, self.location, generation)
        except GenerationConflictError:
            remove(path)
            raise
        for number, old in stored_manifests(self.root):
            if number < previous.number:  # the one before stays for readers that looked its number up a moment ago
                with contextlib.suppress(OSError):
                    remove(old)
        return generation

    def _before(self, previous: Generation) -> Mapping[str, ManifestFile]:
        if not previous.holds_files or self.adopt or self.changes.covers(self.location):
            return {}
        try:
            return self._verified(previous).by_path
        except (ManifestMissingError, ManifestRolledBackError):
            if self.records.generation(self.dataset, self.location) != previous:
                raise GenerationConflictError(f"{self.location}: another job committed and tidied up") from None
            raise

    def _verified(self, generation: Generation) -> Manifest:
        known = self.remembered and self.remembered(self.dataset, self.location, generation)
        return known or verify_manifest(
            read_manifest(self.root, generation),
            generation,
            dataset=self.dataset,
            location=self.location,
            keys=self.keys,
            name=f"{self.location}/{manifest_path(generation)}",
        )

    def _collect(self, before: Mapping[str, ManifestFile]) -> dict[str, ManifestFile]:
        nested: list[str] = []
        found = dict(files_below(self.root, nested))
        apart = tuple(
            f"{path}/"
            for path in nested
            if self.records.generation(self.dataset, f"{self.location}/{path}").holds_files
        )
        if apart:
            found = {path: size for path, size in found.items() if not path.startswith(apart)}
        changed = self.changes.within(self.location)
        names, below = set(changed), tuple(f"{path}/" for path in changed)
        listed = {}
        for path, size in found.items():
            known = before.get(path)
            if known is not None and known.length == size and path not in names and not path.startswith(below):
                listed[path] = known  # most files of most commits: nothing else is made of them
                continue
            entry = self._entry(path, size, known)
            if entry is not None:
                listed[path] = entry
        for path in before:
            if path in listed or (apart and path.startswith(apart)):
                continue
            if not self.changes.covers(f"{self.location}/{path}") and not self._committed_apart(path):
                raise ManifestFileMissingError(f"{self.location}/{path}: was committed before and is not there")
        return listed

    def _committed_apart(self, path: str) -> bool:
        """Whether a directory around the file, below this one, has a record of its own by now."""
        above = path.rpartition("/")[0]
        while above:
            if self.records.generation(self.dataset, f"{self.location}/{above}").number > 0:
                return True
            above = above.rpartition("/")[0]
        return False

    def _entry(self, path: str, size: int, before: ManifestFile | None) -> ManifestFile | None:
        uri = f"{self.location}/{path}"
        changed = self.changes.covers(uri)
        try:
            preamble = authentic_preamble(uri, self.dataset, self.keys)
        except FileTruncatedError:
            if before is None:
                return None  # too short for a header: some writer is not done
            raise
        key = self.keys.key(self.dataset, preamble.key_version)
        origin = self.ids.origin(key, uri, preamble.file_id)
        ours = origin is Origin.OURS or self.changes.file_id(uri) == preamble.file_id
        if ours or self.adopt:
            return ManifestFile(path, size, preamble.file_id)
        if before is not None and not changed:
            raise ManifestFileSwappedError(f"{uri}: {size} stored bytes, {before.length} when it was committed")
        if origin is Origin.PENDING:
            return None
        raise ManifestFileForeignError(f"{uri}: was neither committed before nor written here by this job")
