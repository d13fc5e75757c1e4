"""Private files of the broker's state directory, written so that a crash leaves the old file or the new one."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

__all__ = ["ensure_private_directory", "write_private", "write_public"]


def ensure_private_directory(path: Path) -> None:
    """Make ``path`` if need be, mode 0700."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.chmod(0o700)


def write_private(path: Path, content: bytes) -> None:
    """Replace ``path`` by ``content`` in one step, readable by this user alone (0600), safe on disk on return."""
    _write(path, content, 0o600)


def write_public(path: Path, content: bytes) -> None:
    """As ``write_private``, for what everybody may read (0644): certificates."""
    _write(path, content, 0o644)


def _write(path: Path, content: bytes, mode: int) -> None:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
