"""Write an encrypted file: sequential, whole segments at a time straight from the caller's memory."""

from __future__ import annotations

import io
import warnings
from types import TracebackType
from typing import BinaryIO

from casemate.crypto import stream
from casemate.data.fileid import FileIds
from casemate.data.format import PREAMBLE_SIZE, Preamble, new_preamble, stored_size
from casemate.data.keys import DatasetKey, KeyProvider
from casemate.model import DatasetName

__all__ = ["EncryptedWriter", "encrypt_whole"]

_STORE_SEGMENTS = 16  # that go to the storage in one write, 1 MiB
_STORE = _STORE_SEGMENTS * stream.SEGMENT_SIZE


def encrypt_whole(plaintext: memoryview, key: DatasetKey, file_id: str | None = None) -> tuple[Preamble, bytearray]:
    """A whole encrypted file in memory, for small ones: preamble and stored bytes, under a fresh file key."""
    preamble, dek = new_preamble(key, file_id)
    encrypter = stream.StreamEncrypter(dek, preamble.raw)
    stored = bytearray(stored_size(len(plaintext)))
    stored[:PREAMBLE_SIZE] = preamble.raw
    body = PREAMBLE_SIZE + stream.HEADER_SIZE
    stored[PREAMBLE_SIZE:body] = encrypter.header
    out, done = memoryview(stored)[body:], 0
    if len(plaintext) > encrypter.next_size:
        more = (len(plaintext) - encrypter.next_size - 1) // stream.SEGMENT_PLAINTEXT_SIZE
        done = encrypter.next_size + more * stream.SEGMENT_PLAINTEXT_SIZE
        count = encrypter.encrypt_run(plaintext[:done], out)
        out = out[done + count * stream.TAG_SIZE :]
    encrypter.encrypt(plaintext[done:], out, last=True)
    return preamble, stored


class EncryptedWriter(io.BufferedIOBase):
    """Encrypts what is written to it into ``raw``, under the current key of ``dataset`` and a fresh file key.

    Only ``close`` writes the last segment, so that a file whose writer was killed, aborted or forgotten is refused by
    every reader. Leaving a ``with`` block by an exception aborts. ``raw`` stays open: making the file durable and
    giving it its name is the caller's part. Not safe for two threads at once."""

    def __init__(
        self,
        raw: BinaryIO,
        keys: KeyProvider,
        dataset: DatasetName,
        *,
        place: tuple[FileIds, str] | None = None,  # the job's file ids, and the URI where the file shall lie
    ) -> None:
        super().__init__()
        self._raw = raw
        key = keys.current_key(dataset)
        self.preamble, dek = new_preamble(key, place[0].new(key, place[1]) if place else None)
        self._encrypter = stream.StreamEncrypter(dek, self.preamble.raw)
        self._pending = bytearray()  # plaintext of the segment that may become the last; grows to one segment
        self._pending_size = 0
        self._out = memoryview(bytearray())  # ciphertext on its way; made for the first segment that is not the last
        self._out_size = 0
        self._position = 0
        self._aborted = False
        self.stored_size = 0
        """Bytes given to ``raw`` so far; the file's whole size once closed."""
        self._put(self.preamble.raw + self._encrypter.header)

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        self._check_open()
        return self._position

    def write(self, data: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        """Take all of ``data``. An error of the storage aborts the file and is raised as it came."""
        self._check_open()
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view):
            need, rest = self._encrypter.next_size, len(view) - done
            if self._pending_size == need:  # there is more to come, so this was not the last segment
                self._encrypt_run(memoryview(self._pending)[:need])
                self._pending_size = 0
            elif self._pending_size == 0 and rest > need:
                more = (rest - need - 1) // stream.SEGMENT_PLAINTEXT_SIZE  # one byte stays, for the last segment
                size = need + min(more, self._room() - 1) * stream.SEGMENT_PLAINTEXT_SIZE
                self._encrypt_run(view[done : done + size])
                done += size
            else:
                done += self._keep(view[done : done + need - self._pending_size])
        self._position += done
        return done

    def flush(self) -> None:
        """Does nothing: what is not a whole segment yet cannot be stored."""

    def abort(self) -> None:
        """Give up: nothing more is written, and what was written never reads as a file."""
        self._aborted = True
        self._wipe()
        super().close()

    def close(self) -> None:
        """Write the last segment. Raises what the storage raises; the file is then aborted."""
        if self.closed:
            return
        try:
            if not self._aborted:
                self._finish()
        finally:
            self._wipe()
            super().close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def __del__(self) -> None:
        if hasattr(self, "_pending") and not self.closed:
            self.abort()  # IOBase would close, and so complete, a file that its writer forgot
            warnings.warn("an encrypted file was never closed; it is not there", ResourceWarning, stacklevel=2)

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("write to a closed file")

    def _wipe(self) -> None:
        self._pending[:] = bytes(len(self._pending))
        self._pending_size = 0

    def _keep(self, plaintext: memoryview) -> int:
        size = self._pending_size + len(plaintext)
        if len(self._pending) < size:
            grown = bytearray(stream.SEGMENT_PLAINTEXT_SIZE if self._pending else size)
            grown[: self._pending_size] = memoryview(self._pending)[: self._pending_size]
            self._pending[:] = bytes(len(self._pending))
            self._pending = grown
        self._pending[self._pending_size : size] = plaintext
        self._pending_size = size
        return len(plaintext)

    def _room(self) -> int:
        """Whole segments that fit into ``_out``; at least one."""
        if not self._out:
            self._out = memoryview(bytearray(_STORE))
        room = (_STORE - self._out_size) // stream.SEGMENT_SIZE
        if not room:
            self._store()
        return room or _STORE_SEGMENTS

    def _encrypt_run(self, plaintext: memoryview) -> None:
        self._room()
        out = self._out[self._out_size :]
        count = self._encrypter.encrypt_run(plaintext, out)
        self._out_size += len(plaintext) + count * stream.TAG_SIZE

    def _finish(self) -> None:
        plaintext = memoryview(self._pending)[: self._pending_size]
        last = bytearray(len(plaintext) + stream.TAG_SIZE)
        self._encrypter.encrypt(plaintext, last, last=True)
        self._store()
        self._put(last)

    def _store(self) -> None:
        size, self._out_size = self._out_size, 0
        if size:
            self._put(self._out[:size])

    def _put(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        try:
            while view:
                count = self._raw.write(view)
                self.stored_size += count
                view = view[count:]
        except BaseException:
            self.abort()
            raise
