"""The files that travel with a manifest: written beside it by the submitter, copied and verified inside the TEE.

Nothing inside the TEE runs from the bundle itself: each file is read once, checked, and its checked bytes are
written to TEE-private memory, so that a change after the check changes nothing.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from casemate.errors import FailedError
from casemate.workload.errors import BundleMissingError, ProgramChangedError
from casemate.workload.manifest import FileEntry, WorkloadManifest

__all__ = ["MAX_FILE_SIZE", "read_file", "verified_copies", "write_bundle"]

MAX_FILE_SIZE = 512 * 1024 * 1024  # bytes of one file; a jar or an archive of packages, not data


def write_bundle(directory: Path, manifest: WorkloadManifest, sources: Mapping[str, Path]) -> None:
    """Copy every file that ``manifest`` names from ``sources`` (bundle path -> file) into ``directory``.

    Raises ``ProgramChangedError`` when a source changed since the manifest was made, ``BundleMissingError``."""
    for entry in (manifest.program, *manifest.files):
        source = sources.get(entry.path)
        if source is None:
            raise BundleMissingError(f"{entry.path}: no source was given for it")
        _write(directory / entry.path, _checked(source, entry), mode=0o644)


def verified_copies(manifest: WorkloadManifest, bundle: Path, destination: Path) -> Path:
    """Private copies of every file of ``manifest``, each checked before it is written; the program's path.

    Raises ``ProgramChangedError`` naming the file, what was expected and what was got, or ``BundleMissingError``."""
    for entry in (manifest.program, *manifest.files):
        _write(destination / entry.path, _checked(bundle / entry.path, entry), mode=0o500)
    return destination / manifest.program.path


def read_file(path: Path) -> bytes:
    """A regular file's bytes, at most ``MAX_FILE_SIZE``; raises ``BundleMissingError``."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise BundleMissingError(f"{path}: not a regular file")
            content = file.read(MAX_FILE_SIZE + 1)
    except OSError as exc:
        raise BundleMissingError(f"{path}: {exc.strerror or exc}") from exc
    if len(content) > MAX_FILE_SIZE:
        raise BundleMissingError(f"{path}: more than {MAX_FILE_SIZE} bytes; data belongs into a zone")
    return content


def _checked(path: Path, entry: FileEntry) -> bytes:
    content = read_file(path)
    got = hashlib.sha256(content).hexdigest()
    if got != entry.sha256:
        raise ProgramChangedError(f"{entry.path}: expected SHA-256 {entry.sha256[:16]}…, got {got[:16]}…")
    return content


def _write(path: Path, content: bytes, *, mode: int) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    except OSError as exc:
        raise FailedError(f"{path}: {exc.strerror or exc}") from exc
