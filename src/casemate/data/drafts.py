"""The next generation of a local directory: made out of sight, put into place whole, recorded."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from casemate.crypto.canonical import sha256_hex
from casemate.data.commit import record_generation
from casemate.data.errors import DestinationExistsError
from casemate.data.generations import Generation, GenerationRecords
from casemate.data.journal import Journal
from casemate.data.keys import DatasetKey
from casemate.data.local import stored_manifests
from casemate.data.manifest import ManifestFile, build_manifest, manifest_path
from casemate.data.staging import Stage, staging
from casemate.data.zones import local_uri

__all__ = ["Draft", "draft", "require_replaceable"]


@dataclass(frozen=True)
class Draft:
    """Files are made in ``stage``; ``journal`` has what a killed run has finished of them."""

    stage: Stage
    journal: Journal
    location: str
    key: DatasetKey
    records: GenerationRecords
    previous: Generation

    def install(self, files: Collection[ManifestFile]) -> Generation:
        """List ``files`` in a manifest and put everything into place; when the record fails, nothing has changed."""
        number = self.previous.number + 1
        manifest = build_manifest(self.key, self.location, number, files)
        generation = Generation(number, sha256_hex(manifest))
        path = manifest_path(generation)
        self.stage.make_directories([os.path.dirname(path)])  # noqa: PTH120
        with (self.stage.root / path).open("xb") as out:
            out.write(manifest)
            out.flush()
            os.fsync(out.fileno())
        self.stage.make_durable(all_at_once=False)
        self.stage.install(lambda: record_generation(self.records, self.key.dataset, self.location, generation))
        return generation


@contextlib.contextmanager
def draft(
    destination: Path,
    key: DatasetKey,
    records: GenerationRecords,
    previous: Generation,
    *,
    about: str,
    overwrite: bool,
) -> Iterator[Draft]:
    """A draft of what comes after ``previous`` at ``destination`` (a real path), gone at the end however it ends.

    It goes on with what a killed run ``about`` the same has left. Raises what ``staging`` raises."""

    def journal(path: Path) -> Journal:
        return Journal(path, key, about)

    with staging(destination, previous, overwrite=overwrite, adopt=lambda path: journal(path).load()) as stage:
        done = journal(stage.journal)
        if stage.adopted:
            done.load()
        yield Draft(stage, done, local_uri(destination), key, records, previous)


def require_replaceable(target: Path, overwrite: bool) -> None:
    """Only a directory with a manifest is overwritten; raises ``DestinationExistsError`` for any other that is full."""
    if overwrite and target.is_dir() and any(target.iterdir()) and not stored_manifests(target):
        raise DestinationExistsError(f"{target}: not an encrypted directory, so it is not overwritten")
