"""The TEE-private directory: mode 0700, in memory, gone when the process ends."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import stat
import tempfile
from pathlib import Path

from casemate.attestation.private_memory import private_memory
from casemate.errors import FailedError
from casemate.workload.errors import RunEnvironmentError

__all__ = ["make_private_directory", "remove_private_directory"]


def make_private_directory(given: Path | None) -> Path:
    """A fresh directory below ``given`` (the launcher's), else on shared memory, else where temporary files go.

    The name is short: Unix sockets in it have to fit 107 bytes. Raises ``RunEnvironmentError`` when ``given`` is open
    to others, ``FailedError`` when nothing can be made there."""
    if given is not None:
        _require_private(given)
    parent = given or private_memory()
    try:
        return Path(tempfile.mkdtemp(prefix="casemate-", dir=parent)) if given is None else _numbered(given)
    except OSError as exc:
        raise FailedError(f"{parent}: no private directory can be made there: {exc.strerror or exc}") from exc


def _numbered(parent: Path) -> Path:
    """A new directory with the shortest name: Spark makes sockets of 42 characters in it, which have to fit too."""
    for number in itertools.count():
        with contextlib.suppress(FileExistsError):
            (parent / str(number)).mkdir(mode=0o700)
            break
    return parent / str(number)


def remove_private_directory(path: Path) -> None:
    """Remove it and everything in it; what cannot be removed is emptied first by whoever owns the TEE."""
    shutil.rmtree(path, ignore_errors=True)


def _require_private(path: Path) -> None:
    try:
        found = os.lstat(path)
    except OSError as exc:
        raise RunEnvironmentError(f"CASEMATE_TEE_DIR {path}: {exc.strerror or exc}") from exc
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise RunEnvironmentError(f"CASEMATE_TEE_DIR {path}: need a directory of this user's own with mode 0700")
