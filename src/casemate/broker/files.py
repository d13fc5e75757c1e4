"""Files of the broker's state directory; see ``casemate.files``."""

from __future__ import annotations

from pathlib import Path

from casemate.files import ensure_private_directory, write_whole

__all__ = ["ensure_private_directory", "write_private", "write_public"]


def write_private(path: Path, content: bytes) -> None:
    """Replace ``path`` by ``content`` in one step, readable by this user alone (0600), safe on disk on return."""
    write_whole(path, content)


def write_public(path: Path, content: bytes) -> None:
    """As ``write_private``, for what everybody may read (0644): certificates."""
    write_whole(path, content, mode=0o644)
