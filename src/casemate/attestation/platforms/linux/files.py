"""The few file operations attesters need, as a protocol, so that a tree with the kernel's rules can stand in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

__all__ = ["FileOps", "OsFiles"]

MAX_READ_BYTES = 16 * 1024 * 1024


class FileOps(Protocol):
    """All raise ``OSError`` as the system calls do."""

    def exists(self, path: Path) -> bool: ...

    def mkdir(self, path: Path) -> None: ...

    def rmdir(self, path: Path) -> None:
        """Remove a directory; on configfs its attributes vanish with it, so nothing below is ever unlinked."""
        ...

    def read(self, path: Path) -> bytes:
        """The whole file, from one open to its end."""
        ...

    def write(self, path: Path, data: bytes) -> None:
        """All of ``data`` at offset 0 in one write; errors of close count, as configfs judges at close."""
        ...


class OsFiles:
    """The machine's own files."""

    def exists(self, path: Path) -> bool:
        return path.exists()

    def mkdir(self, path: Path) -> None:
        path.mkdir(mode=0o700)

    def rmdir(self, path: Path) -> None:
        path.rmdir()

    def read(self, path: Path) -> bytes:
        with path.open("rb", buffering=0) as file:
            chunks: list[bytes] = []
            size = 0
            while size < MAX_READ_BYTES and (chunk := file.read(65536)):
                chunks.append(chunk)
                size += len(chunk)
        return b"".join(chunks)

    def write(self, path: Path, data: bytes) -> None:
        descriptor = os.open(path, os.O_WRONLY)  # never O_CREAT or O_TRUNC: attributes exist, or the feature does not
        try:
            written = os.write(descriptor, data)
        finally:
            os.close(descriptor)
        if written != len(data):
            raise OSError(f"{path}: wrote {written} of {len(data)} bytes")
