"""Read a bundle of collateral that came on a stick: a directory, a tar or zip archive, or one file.

Everything is read into memory within fixed bounds and nothing is unpacked to disk, so names in an archive decide
nothing. What the files are and who signed them is for ``importing`` to say."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from casemate.attestation.collateral.errors import BundleMalformedError

__all__ = ["MAX_FILES", "MAX_FILE_BYTES", "MAX_TOTAL_BYTES", "BundleFile", "read_bundle"]

MAX_FILES = 2000
MAX_FILE_BYTES = 16 * 1024 * 1024
MAX_TOTAL_BYTES = 64 * 1024 * 1024
_OPENERS: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
_BROKEN = (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, ValueError, RuntimeError)


@dataclass(frozen=True)
class BundleFile:
    """One regular file of a bundle; ``name`` is for messages alone."""

    name: str
    content: bytes


def read_bundle(path: Path) -> list[BundleFile]:
    """All regular files of the bundle at ``path``; raises ``BundleMalformedError``, or ``OSError`` when unreadable."""
    if path.is_dir():
        return _bounded(_directory(path))
    with path.open("rb") as file:
        head = file.read(512)
        file.seek(0)
        try:
            if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
                return _bounded(_zip(file))
            opener = next((found for magic, found in _OPENERS.items() if head.startswith(magic)), None)
            if opener is not None:
                with opener(file) as stream:
                    return _bounded(_tar(stream))
            if head[257:262] == b"ustar":
                return _bounded(_tar(file))
        except (*_BROKEN, OSError) as exc:
            raise BundleMalformedError(f"{path.name}: the archive is damaged ({exc})") from exc
        return _bounded(iter([BundleFile(path.name, _content(path.name, file))]))


def _bounded(files: Iterator[BundleFile]) -> list[BundleFile]:
    found: list[BundleFile] = []
    total = 0
    for file in files:
        total += len(file.content)
        if len(found) == MAX_FILES or total > MAX_TOTAL_BYTES:
            raise BundleMalformedError(f"bundle: more than {MAX_FILES} files or {MAX_TOTAL_BYTES} bytes")
        found.append(file)
    if not found:
        raise BundleMalformedError("bundle: there is no file in it")
    return found


def _content(name: str, file: IO[bytes]) -> bytes:
    content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise BundleMalformedError(f"{name}: more than {MAX_FILE_BYTES} bytes")
    return content


def _directory(root: Path) -> Iterator[BundleFile]:
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            if name.startswith("."):
                continue
            if not stat.S_ISREG(path.lstat().st_mode):
                raise BundleMalformedError(f"{path.relative_to(root)}: not a regular file")
            with path.open("rb") as file:
                yield BundleFile(str(path.relative_to(root)), _content(name, file))


def _zip(file: IO[bytes]) -> Iterator[BundleFile]:
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if len(entries) > MAX_FILES * 2:
            raise BundleMalformedError(f"archive: {len(entries)} entries, at most {MAX_FILES} files")
        for entry in entries:
            if entry.is_dir():
                continue
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if kind not in (0, stat.S_IFREG) or entry.flag_bits & 1:
                raise BundleMalformedError(f"{entry.filename[:200]!r}: not a regular file, or encrypted")
            with archive.open(entry) as member:
                yield BundleFile(entry.filename, _content(entry.filename, member))


class _Metered(io.RawIOBase):
    """Passes on at most so many bytes: an archive that unpacks to more is a bomb, whatever its headers say."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._left = MAX_TOTAL_BYTES + 16 * 1024 * 1024  # and its headers

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > self._left:
            raise BundleMalformedError(f"archive: unpacks to more than {MAX_TOTAL_BYTES} bytes")
        content = self._stream.read(size)
        self._left -= len(content)
        return content


def _tar(stream: IO[bytes]) -> Iterator[BundleFile]:
    with tarfile.open(fileobj=_Metered(stream), mode="r|", bufsize=64 * 1024) as archive:
        for member in archive:
            if member.isdir():
                continue
            if not member.isreg() or member.size > MAX_FILE_BYTES:
                raise BundleMalformedError(
                    f"{member.name[:200]!r}: not a regular file of at most {MAX_FILE_BYTES} bytes"
                )
            content = archive.extractfile(member)
            if content is None:
                raise BundleMalformedError(f"{member.name[:200]!r}: no content")
            yield BundleFile(member.name, _content(member.name, content))
