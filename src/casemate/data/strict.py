"""Strict reads: a file or listing is good only when the recorded manifest says so.

What governs a path is the nearest directory at or above it, up to the top of its zone, that has a recorded
generation. Nothing that lies on the storage can change that answer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from casemate.data.errors import (
    IntegrityError,
    ManifestFileForeignError,
    ManifestFileMissingError,
    ManifestFileSwappedError,
    ManifestMissingError,
    ManifestRolledBackError,
)
from casemate.data.generations import Generation, GenerationRecords
from casemate.data.keys import KeyProvider
from casemate.data.manifest import Manifest, manifest_number, manifest_path, verify_manifest
from casemate.data.zones import HIDDEN_DIRECTORY, is_within, local_path
from casemate.model import DatasetName

__all__ = ["Governed", "StrictReads", "check_file", "check_names"]

T = TypeVar("T")


@dataclass(frozen=True)
class Governed:
    """A committed directory, verified against the record."""

    location: str
    manifest: Manifest

    def relative(self, uri: str) -> str:
        """``uri`` as a path below the location; empty for the location itself."""
        return uri[len(self.location) :].lstrip("/")

    def paths_below(self, directory: str) -> Iterator[str]:
        """The manifest's paths below ``directory`` (a URI), relative to it."""
        prefix = self.relative(directory)
        prefix = prefix + "/" if prefix else ""
        return (file.path[len(prefix) :] for file in self.manifest.files if file.path.startswith(prefix))


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


def check_names(governed: Governed, directory: str, names: Iterable[str]) -> None:
    """``names`` (paths below ``directory``) are exactly the manifest's.

    Raises ``ManifestFileForeignError`` or ``ManifestFileMissingError`` naming the first file."""
    present, listed = set(names), set(governed.paths_below(directory))
    place = f"generation {governed.manifest.generation} of {governed.location}"
    for path in sorted(listed - present):
        raise ManifestFileMissingError(f"{directory}/{path}: is in {place} but not there")
    for path in sorted(present - listed):
        raise ManifestFileForeignError(f"{directory}/{path}: not in {place}")


class StrictReads:
    """Finds and verifies the manifests that govern paths, and remembers them. Safe to use from threads.

    A refusal that rests on a remembered generation is looked at once more with a fresh one, since another process of
    the job may have committed in between."""

    def __init__(self, keys: KeyProvider, records: GenerationRecords) -> None:
        self._keys = keys
        self._records = records
        self._generations: dict[tuple[DatasetName, str], Generation] = {}
        self._manifests: dict[tuple[str, Generation], Governed] = {}
        self._lock = threading.RLock()

    def invalidate(self) -> None:
        """Forget every remembered generation."""
        with self._lock:
            self._generations.clear()
            self._manifests.clear()

    def checked(self, check: Callable[[], T]) -> T:
        """``check()``, once more with fresh records when it refuses on remembered ones."""
        with self._lock:
            remembered = set(self._generations)
        try:
            return check()
        except IntegrityError:
            with self._lock:
                if not remembered & set(self._generations):
                    raise
                self.invalidate()
        return check()

    def governing(self, dataset: DatasetName, uri: str, *, top: str) -> Governed | None:
        """What governs ``uri``, looking no higher than ``top``; ``None`` when nothing was committed there.

        Raises ``ManifestMissingError``, ``ManifestRolledBackError`` or ``ManifestTamperedError``."""
        location = uri
        while is_within(location, top):
            generation = self._generation(dataset, location)
            if generation.number > 0:
                return self._load(dataset, location, generation)
            parent = location.rpartition("/")[0]
            if location in (top, parent) or parent.endswith("/") or len(parent) < len(top):
                break
            location = parent
        return None

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
            governed = self._manifests.get((location, recorded))
        if governed is None:
            raw = read_manifest(location, recorded.number)
            name = f"{location}/{manifest_path(recorded.number)}"
            manifest = verify_manifest(raw, recorded, dataset=dataset, location=location, keys=self._keys, name=name)
            governed = Governed(location, manifest)
            with self._lock:
                self._manifests[location, recorded] = governed
        return governed


def stored_manifests(location: str) -> Mapping[int, Path]:
    """The manifest files on storage below ``location``, by the number in their name."""
    path = local_path(location)
    directory = Path(path or "/") / HIDDEN_DIRECTORY
    try:
        names = [entry.name for entry in directory.iterdir()]
    except OSError:
        names = []
    numbers = {manifest_number(name): directory / name for name in names}
    return {number: path for number, path in numbers.items() if number is not None}


def read_manifest(location: str, generation: int) -> bytes:
    """The bytes of the manifest with that number. Raises ``ManifestMissingError`` or ``ManifestRolledBackError``."""
    path = Path(local_path(location) or "/") / manifest_path(generation)
    try:
        return path.read_bytes()
    except OSError as exc:
        older = [number for number in stored_manifests(location) if number < generation]
        if older:
            message = f"{location}: rolled back from generation {generation} to {max(older)}"
            raise ManifestRolledBackError(message) from exc
        raise ManifestMissingError(f"{location}/{manifest_path(generation)}: cannot be read ({exc.strerror})") from exc
