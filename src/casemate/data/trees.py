"""What encrypting, decrypting and verifying have in common: results, destinations, and how work is cut into tasks."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from casemate.data.errors import DestinationExistsError
from casemate.data.pool import Progress
from casemate.data.zones import local_path, normalise
from casemate.errors import UsageError
from casemate.model import DatasetName

__all__ = ["Counter", "Location", "TreeResult", "as_locations", "batches", "real_destination"]

T = TypeVar("T")

Location = str | os.PathLike[str]
"""A local path, or the URI of something in an object store."""

_BATCH_FILES, _BATCH_BYTES = 128, 8 * 2**20  # what one task holds at most
FEW_FILES = 64  # up to so many are made durable one by one, more by one wait for the whole file system
SPLIT_BYTES = 64 * 2**20  # files of at least so many are worked on by several processes
PART_BYTES = 32 * 2**20  # of content, about, in one part of such a file


@dataclass(frozen=True)
class TreeResult:
    """What was encrypted, decrypted or verified. Sizes in bytes."""

    dataset: DatasetName
    location: str  # the encrypted directory or file, as a URI
    files: int
    plaintext_size: int
    stored_size: int
    generation: int | None  # the newest that was looked at; None: manifests were not
    destination: Location | None
    kept: int = 0  # files that a killed run had finished


class Counter:
    """Adds up progress."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._done, self._total, self._progress = 0, total, progress

    def add(self, size: int) -> None:
        self._done += size
        if self._progress is not None:
            self._progress(self._done, self._total)


def as_locations(source: Location | Sequence[Location]) -> list[str]:
    """One or several sources as text."""
    return [os.fspath(one) for one in ([source] if isinstance(source, (str, os.PathLike)) else source)]


def batches(items: Iterable[tuple[T, int]]) -> Iterator[list[T]]:
    """Items with their size in bytes, in groups that are worth a task."""
    batch: list[T] = []
    size = 0
    for item, item_size in items:
        batch.append(item)
        size += item_size
        if len(batch) >= _BATCH_FILES or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def real_destination(sources: Iterable[str], destination: Location) -> Path:
    """The real path of a local ``destination``; ``UsageError`` when writing there would destroy a source or the way
    here."""
    target, here = Path(os.path.realpath(destination)), Path(os.path.realpath("."))
    for source in sources:
        local = local_path(normalise(source, working_directory=str(here)))
        if local is None:
            continue
        real = Path(os.path.realpath(local))
        if real == target or real in target.parents or target in real.parents:
            raise UsageError(f"{source} and {destination}: one lies in the other")
    if target.is_dir() and any(target.iterdir()) and (target == here or target in here.parents):
        raise DestinationExistsError(f"{destination}: is the working directory or above it, and holds something")
    return target
