"""The generation of a dataset's location as recorded away from its storage, so that a rolled-back dataset shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from casemate.model import DatasetName

__all__ = ["DELETED", "NOTHING_RECORDED", "Generation", "GenerationRecords"]


DELETED = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
"""SHA-256 of nothing: recorded when a committed directory is deleted, so that an old copy does not come back."""


@dataclass(frozen=True)
class Generation:
    """The latest commit at a location: its number, and the SHA-256 (hex) of the manifest file that was written.

    Number 0 with no digest: nothing was ever committed there."""

    number: int
    digest: str | None

    def __post_init__(self) -> None:
        if self.number < 0 or (self.number == 0) != (self.digest is None):
            raise ValueError(f"generation {self.number} with digest {self.digest!r}: 0 and no digest go together")

    @property
    def holds_files(self) -> bool:
        """Whether there is a manifest for it: something was committed, and not deleted since."""
        return self.number > 0 and self.digest != DELETED


NOTHING_RECORDED = Generation(0, None)


class GenerationRecords(Protocol):
    """The record, kept by a broker. ``location`` is the normalised URI of the directory that was committed."""

    def generation(self, dataset: DatasetName, location: str) -> Generation:
        """The latest commit; ``NOTHING_RECORDED`` when there is none."""
        ...

    def record(self, dataset: DatasetName, location: str, generation: Generation) -> None:
        """Record the next commit, atomically.

        Raises ``GenerationConflictError`` unless the number recorded so far is ``generation.number - 1``."""
        ...
