"""Strict reads: a file or listing is good only when the recorded manifest says so.

What governs a path is the nearest directory at or above it, up to the top of its zone, that has a recorded
generation. Nothing that lies on the storage can change that answer. A file that no manifest lists is refused, unless
its id shows that a writer made it for this very place: then its commit is still to come, or never came, and it is
left out as if it were not there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from casemate.data.errors import (
    FileTruncatedError,
    FileWrongDatasetError,
    IntegrityError,
    ManifestFileForeignError,
    ManifestFileMissingError,
    ManifestFileSwappedError,
    ManifestMissingError,
)
from casemate.data.fileid import FileIds, Origin
from casemate.data.format import Preamble
from casemate.data.generations import Generation, GenerationRecords
from casemate.data.keys import KeyProvider
from casemate.data.manifest import Manifest, manifest_path, verify_manifest
from casemate.data.reader import read_preamble
from casemate.data.stored import open_stored, read_manifest
from casemate.data.zones import is_within, local_path
from casemate.model import DatasetName

__all__ = ["Governed", "StrictReads", "authentic_preamble", "check_file"]

T = TypeVar("T")

_SETTLE = 0.2  # seconds that a writer may need between putting a directory into place and recording it


@dataclass(frozen=True)
class Governed:
    """A committed directory, verified against the record."""

    location: str
    manifest: Manifest

    def relative(self, uri: str) -> str:
        """``uri`` as a path below the location; empty for the location itself."""
        return uri[len(self.location) :].lstrip("/")


def check_file(governed: Governed, uri: str, length: int, file_id: str | None = None) -> None:
    """The file at ``uri`` is the manifest's: same stored length in bytes, same file id (when it was read).

    Raises ``ManifestFileForeignError`` or ``ManifestFileSwappedError``."""
    listed = governed.manifest.by_path.get(governed.relative(uri))
    place = f"generation {governed.manifest.generation} of {governed.location}"
    if listed is None:
        raise ManifestFileForeignError(f"{uri}: not in {place}")
    if listed.length != length:
        raise ManifestFileSwappedError(f"{uri}: {length} stored bytes, {listed.length} in {place}")
    if file_id is not None and listed.file_id != file_id:
        raise ManifestFileSwappedError(f"{uri}: another file than the one in {place}")


def authentic_preamble(uri: str, dataset: DatasetName, keys: KeyProvider) -> Preamble:
    """The preamble of the file at ``uri``, whose id its wrapped key shows to be its writer's.

    Raises ``OSError``, ``FileMalformedError``, ``FileTamperedError``, ``FileWrongDatasetError`` or what ``keys``
    raises."""
    path = local_path(uri) or uri
    raw, _ = open_stored(uri)
    with raw:
        preamble = read_preamble(raw, path)
    if preamble.dataset != dataset:
        raise FileWrongDatasetError(f"{path}: encrypted for dataset {preamble.dataset}, not {dataset}")
    preamble.unwrap(keys.key(dataset, preamble.key_version), path)
    return preamble


class _Look(threading.local):
    on = False


class StrictReads:
    """Finds and verifies the manifests that govern paths, and remembers them. Safe to use from threads.

    A refusal that rests on a remembered generation is looked at once more with a fresh one, since another process of
    the job may have committed in between. ``ids`` are the job's own, for whom its uncommitted files are there."""

    def __init__(self, keys: KeyProvider, records: GenerationRecords, ids: FileIds | None = None) -> None:
        self._keys = keys
        self._records = records
        self._ids = ids or FileIds()
        self._generations: dict[tuple[DatasetName, str], Generation] = {}
        self._manifests: dict[tuple[DatasetName, str], tuple[Generation, Governed]] = {}
        self._lock = threading.RLock()
        self._first_look = _Look()

    def invalidate(self) -> None:
        """Forget every remembered generation."""
        with self._lock:
            self._generations.clear()

    def remembered(self, dataset: DatasetName, location: str, generation: Generation) -> Manifest | None:
        """The manifest of that very generation, if it was verified before."""
        with self._lock:
            known, governed = self._manifests.get((dataset, location), (None, None))
        return governed.manifest if governed is not None and known == generation else None

    def checked(self, check: Callable[[], T]) -> T:
        """``check()``, again with fresh records when it refuses on remembered ones, or what is there is just being
        replaced."""
        with self._lock:
            remembered = set(self._generations)
        self._first_look.on = bool(remembered)
        try:
            return check()
        except IntegrityError as exc:
            with self._lock:
                known = remembered & set(self._generations)
                self._generations.clear()
            if isinstance(exc, ManifestMissingError):
                time.sleep(_SETTLE)
            elif not known:
                raise
        finally:
            self._first_look.on = False
        return check()

    def governing(self, dataset: DatasetName, uri: str, *, top: str, written: bool = False) -> Governed | None:
        """What governs ``uri``, looking no higher than ``top``; ``None`` when nothing was committed there.

        ``written``: the zone may be written to, where a directory that was deleted is one that never was.
        Raises ``ManifestMissingError``, ``ManifestRolledBackError`` or ``ManifestTamperedError``."""
        location = uri
        while is_within(location, top):
            generation = self._generation(dataset, location)
            if generation.number > 0:
                if written and not generation.holds_files:
                    return None
                return self._load(dataset, location, generation)
            location = location.rpartition("/")[0]
        return None

    def left_out(self, dataset: DatasetName, uri: str) -> Origin:
        """What the id of a file that no manifest lists says about it; ``FOREIGN`` for what is not the dataset's."""
        try:
            preamble = authentic_preamble(uri, dataset, self._keys)
        except FileTruncatedError:
            return Origin.PENDING  # too short for a header: its writer is not done
        except (IntegrityError, OSError):
            return Origin.FOREIGN
        origin = self._ids.origin(self._keys.key(dataset, preamble.key_version), uri, preamble.file_id)
        if self._first_look.on and origin is not Origin.FOREIGN:  # it may have been committed since
            raise ManifestFileForeignError(f"{uri}: not in the generation that was looked up before")
        return origin

    def check_tree(
        self,
        dataset: DatasetName,
        directory: str,
        files: Mapping[str, int],
        *,
        top: str,
        ignore: Callable[[str], bool] = lambda uri: False,
        written: bool = False,
    ) -> Mapping[str, Governed | None]:
        """The files below ``directory`` (relative path to stored length) are those of the manifests that govern them.

        Answers what governs each; ``None`` where nothing was committed. Files that are left out, since they await
        their commit, are not in the answer. ``ignore`` exempts a file's URI; ``written`` as for ``governing``. Raises
        ``ManifestFileMissingError``, ``ManifestFileForeignError``, ``ManifestFileSwappedError`` or as ``governing``."""
        known: dict[str, Governed | None] = {}

        def governor(path: str) -> Governed | None:
            below = path.rpartition("/")[0]
            if below not in known:
                uri = f"{directory}/{below}" if below else directory
                known[below] = self.governing(dataset, uri, top=top, written=written)
            return known[below]

        governors = {path: governor(path) for path in files}
        governor("")
        for governed in {one.location: one for one in known.values() if one is not None}.values():
            below = governed.location.removeprefix(directory).strip("/")
            above = governed.relative(directory)
            for listed in governed.manifest.files:  # a hundred thousand: as little as possible for each
                if not above:
                    path = f"{below}/{listed.path}" if below else listed.path
                elif listed.path == above or listed.path.startswith(above + "/"):
                    path = listed.path[len(above) + 1 :]  # empty: a directory lies in the place of the file
                else:
                    continue
                if path in files or ignore(f"{governed.location}/{listed.path}"):
                    continue
                if governor(path) is governed:  # else a later commit further down has taken its place
                    place = f"generation {governed.manifest.generation} of {governed.location}"
                    raise ManifestFileMissingError(f"{governed.location}/{listed.path}: is in {place} but not there")
        answer: dict[str, Governed | None] = {}
        for path, one in governors.items():
            if one is None:
                answer[path] = None
                continue
            uri = f"{directory}/{path}"
            found = one.manifest.by_path.get(one.relative(uri))
            if (found is not None and found.length == files[path]) or ignore(uri):
                answer[path] = one
            elif found is not None or (origin := self.left_out(dataset, uri)) is Origin.FOREIGN:
                check_file(one, uri, files[path])
            elif origin is Origin.OURS and written:
                answer[path] = None
        return answer

    def _generation(self, dataset: DatasetName, location: str) -> Generation:
        with self._lock:
            found = self._generations.get((dataset, location))
        if found is None:
            found = self._records.generation(dataset, location)
            with self._lock:
                self._generations[dataset, location] = found
        return found

    def _load(self, dataset: DatasetName, location: str, recorded: Generation) -> Governed:
        with self._lock:
            known, governed = self._manifests.get((dataset, location), (None, None))
        if governed is None or known != recorded:
            raw = read_manifest(location, recorded)
            name = f"{location}/{manifest_path(recorded)}"
            manifest = verify_manifest(raw, recorded, dataset=dataset, location=location, keys=self._keys, name=name)
            governed = Governed(location, manifest)
            with self._lock:
                self._manifests[dataset, location] = recorded, governed
        return governed
