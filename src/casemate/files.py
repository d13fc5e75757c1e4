"""Files that are there whole or not at all, whenever a process is killed or the power fails."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

__all__ = ["ensure_private_directory", "write_whole"]


def ensure_private_directory(path: Path) -> None:
    """Make ``path`` if need be, mode 0700."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.chmod(0o700)


def write_whole(path: Path, content: bytes, *, mode: int = 0o600, durable: bool = True) -> None:
    """Replace ``path`` by ``content`` in one step: a reader, and whoever comes after a crash, finds old or new.

    Readable by this user alone unless ``mode`` says otherwise. Safe on disk on return; without ``durable`` a power
    failure may leave either file (for what is made anew after one). Raises ``OSError``, and then leaves no draft."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    if durable:
        directory = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
