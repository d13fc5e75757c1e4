"""Commit a directory: list its files in a new manifest, record the generation, drop manifests nobody needs."""

from __future__ import annotations

import contextlib
from pathlib import Path

from casemate.crypto.canonical import sha256_hex
from casemate.data.errors import FileWrongDatasetError
from casemate.data.generations import Generation, GenerationRecords
from casemate.data.keys import KeyProvider, RememberedKeys
from casemate.data.local import AtomicFile, files_below, open_stored, stored_manifests
from casemate.data.manifest import ManifestFile, build_manifest, manifest_path
from casemate.data.reader import read_preamble
from casemate.model import DatasetName

__all__ = ["commit_directory"]


def commit_directory(
    root: Path, location: str, dataset: DatasetName, keys: KeyProvider, records: GenerationRecords
) -> Generation:
    """Make the files below ``root`` the next generation of ``location`` (its URI).

    The manifest is durable before it is recorded; until then the generation before stands. Raises what ``keys`` and
    ``records`` raise, and ``FileMalformedError``, ``FileTamperedError`` or ``FileWrongDatasetError`` for a file that
    is not the dataset's."""
    previous = records.generation(dataset, location)
    keys = RememberedKeys(keys)
    key = keys.current_key(dataset)
    files = [_listed(root / path, path, dataset, keys) for path, _ in files_below(root)]
    manifest = build_manifest(key, location, previous.number + 1, files)
    path = root / manifest_path(previous.number + 1)
    path.parent.mkdir(exist_ok=True)
    out = AtomicFile(path)
    try:
        out.raw.write(manifest)
    except BaseException:
        out.discard()
        raise
    out.commit()
    generation = Generation(previous.number + 1, sha256_hex(manifest))
    records.record(dataset, location, generation)
    for number, old in stored_manifests(root).items():
        if number < previous.number:  # the previous one stays for readers that looked its number up a moment ago
            with contextlib.suppress(OSError):
                old.unlink()
    return generation


def _listed(path: Path, relative: str, dataset: DatasetName, keys: KeyProvider) -> ManifestFile:
    raw, size = open_stored(path)
    with raw:
        preamble = read_preamble(raw, str(path))
    if preamble.dataset != dataset:
        raise FileWrongDatasetError(f"{path}: encrypted for dataset {preamble.dataset}, not {dataset}")
    preamble.unwrap(keys.key(dataset, preamble.key_version), str(path))  # proves that the file id is the writer's
    return ManifestFile(relative, size, preamble.file_id)
