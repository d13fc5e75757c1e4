"""Where a TEE's private files go: a tmpfs that is large enough and lets programs be started from it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

__all__ = ["SMALLEST_BYTES", "private_memory"]

SMALLEST_BYTES = 1024 * 1024 * 1024  # Spark's shuffle and temporary files go there; containers often have 64 MiB
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - whoever uses it makes a 0700 directory of an unused name in it


def private_memory(candidate: Path = _SHARED_MEMORY) -> Path:
    """``candidate`` if it can be used, else the directory for temporary files.

    It cannot where it is small, read-only or mounted ``noexec``: JVMs load native libraries from temporary files."""
    try:
        found = os.statvfs(candidate)
    except OSError:
        return Path(tempfile.gettempdir())
    usable = os.access(candidate, os.W_OK | os.X_OK) and not found.f_flag & (os.ST_NOEXEC | os.ST_RDONLY)
    return candidate if usable and found.f_bavail * found.f_frsize >= SMALLEST_BYTES else Path(tempfile.gettempdir())
