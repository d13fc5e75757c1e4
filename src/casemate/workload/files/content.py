"""The content of one file that a program has open: read as it is stored, or written, in any order.

Encrypted files are written once, from beginning to end. So what is written in that order is encrypted on its way; what
is written in any other lies as plaintext in the TEE's private memory until the program's last handle is closed or it
calls ``fsync``, and is then encrypted as a whole. The stored file is at any moment the old or the new one.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from typing import IO, Protocol

__all__ = ["Content", "Store"]

_CHUNK = 2**20  # bytes


class Store(Protocol):
    """Where contents come from and go to. Paths are those in the zone."""

    def open_stored(self, path: str) -> IO[bytes]:
        """The stored file, to read."""

    def open_new(self, path: str) -> IO[bytes]:
        """A file that is there when it is closed, whole; ``abort`` leaves no trace of it."""

    def stored_size(self, path: str) -> int:
        """Bytes of plaintext."""

    def replacing(self, path: str) -> None:
        """Called before what is stored at ``path`` is replaced."""


class Content:
    """One file, whatever number of handles are open on it. Not safe to use from threads.

    ``path`` is its path in the zone, which ``rename`` may change. A ``new`` one is not stored yet."""

    def __init__(self, store: Store, path: str, *, new: bool = False) -> None:
        self.path: str | None = path  # None: was deleted
        self.handles = 0
        self.is_stored = not new  # something lies under the path
        self.changed_ns = time.time_ns()  # when it was written to last; good while ``is_dirty``
        self.is_dirty = new
        self._store = store
        self._stored: IO[bytes] | None = None  # being read
        self._stream: IO[bytes] | None = None  # being written from beginning to end
        self._staged: IO[bytes] | None = None  # plaintext in private memory
        self._is_lost = False  # what was written could not be stored, and nothing of it is there any more
        self._size = 0 if new else None
        if new:
            self._stream = store.open_new(path)

    @property
    def size(self) -> int:
        """Bytes."""
        if self._staged is not None:
            return os.fstat(self._staged.fileno()).st_size
        if self._size is None:
            self._size = self._store.stored_size(self._named())
        return self._size

    def read(self, size: int, offset: int) -> bytes:
        self._check()
        if self._stream is not None:
            self._stage()
        if self._staged is not None:
            return os.pread(self._staged.fileno(), size, offset)
        if self._stored is None:
            self._stored = self._store.open_stored(self._named())
        self._stored.seek(offset)
        return self._stored.read(size)

    def write(self, data: bytes, offset: int) -> int:
        self._check()
        if self._stream is not None and self._size is not None and offset == self._size:
            self._storing(lambda stream: stream.write(data))
            self._size += len(data)
        else:
            descriptor = self._stage()
            written = 0
            while written < len(data):
                written += os.pwrite(descriptor, data[written:], offset + written)
        self._changed()
        return len(data)

    def truncate(self, length: int) -> None:
        self._check()
        if self._stream is not None and length == self._size:
            return
        if length == 0 and self.path is not None:
            self._drop()
            self._stream, self._size = self._store.open_new(self.path), 0
        else:
            os.ftruncate(self._stage(), length)
        self._changed()

    def store(self) -> None:
        """Store what was written, under the file's name. Raises what the storage does; then it is lost."""
        if not self.is_dirty or self.path is None:
            return
        path = self.path
        self._store.replacing(path)
        if self._stream is not None:
            self._storing(lambda stream: stream.close())
            self._stream = None
        elif self._staged is not None:
            self._staged.seek(0)
            with self._store.open_new(path) as out:
                shutil.copyfileobj(self._staged, out, _CHUNK)
        self.is_dirty, self.is_stored = False, True

    def delete(self) -> None:
        """The file is about to be deleted: its handles go on, and nothing is stored."""
        if self._stream is not None:
            self._stage()
        elif self._staged is None and self._stored is None and not self._is_lost:
            self._stored = self._store.open_stored(self._named())
        self._size = self.size
        self.path = None

    def close(self) -> None:
        """The last handle is gone. Raises what the storage does."""
        try:
            self.store()
        finally:
            self._drop()

    def _changed(self) -> None:
        self.is_dirty, self.changed_ns = True, time.time_ns()

    def _check(self) -> None:
        if self._is_lost:
            raise OSError(errno.EIO, os.strerror(errno.EIO), self.path)

    def _named(self) -> str:
        if self.path is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return self.path

    def _storing(self, action: Callable[[IO[bytes]], object]) -> None:
        """What the storage did not take leaves no trace, not a half file."""
        if self._stream is None:
            raise AssertionError("unreachable")
        try:
            action(self._stream)
        except BaseException:
            self._drop()
            self._is_lost, self.is_dirty, self._size = True, False, 0
            raise

    def _stage(self) -> int:
        """Have the content in private memory, where it can be changed anywhere; the descriptor."""
        if self._staged is not None:
            return self._staged.fileno()
        staged = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - lives as this object; TMPDIR is private memory
        try:
            if self._stream is None or self._size:
                if self._stream is not None:
                    self.store()  # what was encrypted so far becomes the stored file, and is read back
                source = self._stored or self._store.open_stored(self._named())
                source.seek(0)
                shutil.copyfileobj(source, staged, _CHUNK)
                if source is not self._stored:
                    source.close()
        except BaseException:
            staged.close()
            raise
        self._drop()
        self._staged, self._size = staged, None
        return staged.fileno()

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
