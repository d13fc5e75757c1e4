"""Strict reads: a file or listing is good only when the recorded manifest says so.

What governs a path is the nearest directory at or above it, up to the top of its zone, that has a recorded
generation. Nothing that lies on the storage can change that answer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from casemate.data.errors import (
    IntegrityError,
    ManifestFileForeignError,
    ManifestFileMissingError,
    ManifestFileSwappedError,
)
from casemate.data.generations import Generation, GenerationRecords
from casemate.data.keys import KeyProvider
from casemate.data.local import read_manifest
from casemate.data.manifest import Manifest, manifest_path, verify_manifest
from casemate.data.zones import is_within, local_path
from casemate.model import DatasetName

__all__ = ["Governed", "StrictReads", "check_file"]

T = TypeVar("T")


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
            location = location.rpartition("/")[0]
        return None

    def check_tree(
        self,
        dataset: DatasetName,
        directory: str,
        files: Mapping[str, int],
        *,
        top: str,
        ignore: Callable[[str], bool] = lambda uri: False,
    ) -> Mapping[str, Governed | None]:
        """The files below ``directory`` (relative path to stored length) are those of the manifests that govern them.

        Answers what governs each; ``None`` where nothing was committed. ``ignore`` exempts a file's URI. Raises
        ``ManifestFileMissingError``, ``ManifestFileForeignError``, ``ManifestFileSwappedError`` or as ``governing``."""

        def governor(uri: str) -> Governed | None:
            return self.governing(dataset, uri.rpartition("/")[0], top=top)

        governors = {path: governor(f"{directory}/{path}") for path in files}
        found = [self.governing(dataset, directory, top=top), *governors.values()]
        for governed in {one.location: one for one in found if one is not None}.values():
            for listed in governed.manifest.files:
                uri = f"{governed.location}/{listed.path}"
                path = uri[len(directory) :].lstrip("/") if is_within(uri, directory) else None
                if path is None or path in files or ignore(uri):
                    continue
                if governor(uri) is governed:  # else a later commit further down has taken its place
                    place = f"generation {governed.manifest.generation} of {governed.location}"
                    raise ManifestFileMissingError(f"{uri}: is in {place} but not there")
        for path, one in governors.items():
            uri = f"{directory}/{path}"
            if one is not None and not ignore(uri):
                check_file(one, uri, files[path])
        return governors

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
            raw = read_manifest(Path(local_path(location) or "/"), recorded.number)
            name = f"{location}/{manifest_path(recorded.number)}"
            manifest = verify_manifest(raw, recorded, dataset=dataset, location=location, keys=self._keys, name=name)
            governed = Governed(location, manifest)
            with self._lock:
                self._manifests[location, recorded] = governed
        return governed
