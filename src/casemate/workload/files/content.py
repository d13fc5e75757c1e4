"""The content of one file that a program has open: read as it is stored, or written, in any order.

Encrypted files are written once, from beginning to end. So what is written in that order is encrypted on its way; what
is written in any other lies as plaintext in the TEE's private memory until the program closes it or calls ``fsync``,
and is then encrypted as a whole. The stored file is at any moment the old or the new one.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import IO

from casemate.data.filesystem import ZoneFileSystem

__all__ = ["Content"]

_CHUNK = 2**20  # bytes


class Content:
    """One file, whatever number of handles are open on it. Not safe to use from threads.

    ``path`` is its path in the zone, which ``rename`` may change."""

    def __init__(self, files: ZoneFileSystem, path: str, *, new: bool = False) -> None:
        self.path: str | None = path  # None: was deleted
        self.handles = 0
        self._files = files
        self._stored: IO[bytes] | None = None  # being read
        self._stream: IO[bytes] | None = None  # being written from beginning to end
        self._staged: IO[bytes] | None = None  # plaintext in private memory
        self._dirty = new
        self._size = 0 if new else None
        if new:
            self._stream = files.open(path, "wb")

    @property
    def size(self) -> int:
        """Bytes."""
        if self._staged is not None:
            return os.fstat(self._staged.fileno()).st_size
        if self._size is None:
            self._size = int(self._files.info(self.path)["size"])
        return self._size

    def read(self, size: int, offset: int) -> bytes:
        if self._stream is not None:
            self._stage()
        if self._staged is not None:
            return os.pread(self._staged.fileno(), size, offset)
        if self._stored is None:
            self._stored = self._files.open(self.path, "rb")
        self._stored.seek(offset)
        return self._stored.read(size)

    def write(self, data: bytes, offset: int) -> int:
        if self._stream is not None and offset == self._size:
            self._stream.write(data)
            self._size += len(data)
        else:
            self._stage()
            written = 0
            while written < len(data):
                written += os.pwrite(self._staged_descriptor(), data[written:], offset + written)
        self._dirty = True
        return len(data)

    def truncate(self, length: int) -> None:
        if self._stream is not None and length == self._size:
            return
        if length == 0 and self._stream is None:
            self._drop()
            self._stream, self._size, self._dirty = self._files.open(self.path, "wb"), 0, True
            return
        self._stage()
        os.ftruncate(self._staged_descriptor(), length)
        self._dirty = True

    def flush(self) -> None:
        """Store what was written, under the file's name."""
        if not self._dirty:
            return
        if self._stream is not None:
            stream, self._stream = self._stream, None
            if self.path is None:
                _abandon(stream)
            else:
                stream.close()
        elif self._staged is not None and self.path is not None:
            self._staged.seek(0)
            with self._files.open(self.path, "wb") as out:
                shutil.copyfileobj(self._staged, out, _CHUNK)
        self._dirty = False

    def delete(self) -> None:
        """The file was deleted: its handles go on, and nothing is stored."""
        if self._staged is None and self._stream is None and self._stored is None:
            self._stored = self._files.open(self.path, "rb")
        if self._stream is not None:
            self._stage()
        self.path = None

    def close(self) -> None:
        """The last handle is gone."""
        try:
            self.flush()
        finally:
            self._drop()

    def _stage(self) -> None:
        """Have the content in private memory, from where it can be changed anywhere."""
        if self._staged is not None:
            return
        staged = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - lives as this object; TMPDIR is private memory
        try:
            if self._stream is not None:
                self.flush()  # what was encrypted so far becomes the stored file, and is read back
            with self._files.open(self.path, "rb") as stored:
                shutil.copyfileobj(stored, staged, _CHUNK)
        except BaseException:
            staged.close()
            raise
        self._drop()
        self._staged, self._size = staged, None

    def _staged_descriptor(self) -> int:
        if self._staged is None:
            raise AssertionError("unreachable")
        return self._staged.fileno()

    def _drop(self) -> None:
        if self._stream is not None:
            _abandon(self._stream)
        for file in (self._stored, self._staged):
            if file is not None:
                file.close()
        self._stored = self._stream = self._staged = None


def _abandon(stream: IO[bytes]) -> None:
    """Leave no trace of a file whose writing has not ended."""
    abort = getattr(stream, "abort", None)
    if abort is not None:
        abort()
    else:
        stream.close()
