"""Read an encrypted file: seekable, any position, whole segments at a time straight into the caller's memory."""

from __future__ import annotations

import io
import os
from typing import BinaryIO

from casemate.crypto import stream
from casemate.crypto.errors import DecryptionError
from casemate.data.errors import FileTamperedError, FileTruncatedError, FileWrongDatasetError
from casemate.data.format import PREAMBLE_SIZE, Preamble, parse_preamble, plaintext_size
from casemate.data.keys import KeyProvider
from casemate.model import DatasetName

__all__ = ["EncryptedReader", "read_exactly", "read_preamble"]

_MAX_FETCH = 16  # segments, 1 MiB: what one read of the storage brings at most


def read_exactly(raw: BinaryIO, view: memoryview) -> int:
    """Fill ``view`` from ``raw``; returns how much there was."""
    done = 0
    while done < len(view):
        got = raw.readinto(view[done:])  # type: ignore[attr-defined]
        if not got:
            break
        done += got
    return done


def read_preamble(raw: BinaryIO, name: str) -> Preamble:
    """Parse the preamble at the start of ``raw``; needs no key. Raises ``FileMalformedError``."""
    raw.seek(0)
    head = bytearray(PREAMBLE_SIZE)
    return parse_preamble(bytes(head[: read_exactly(raw, memoryview(head))]), name)


class EncryptedReader(io.RawIOBase):
    """The plaintext of one encrypted file as a seekable byte stream. Not safe for two threads at once.

    Everything it returns is authentic, and at its place. Opening checks the preamble and the last segment, so that a
    file cut at a segment border is refused before its first byte is read. Closing it closes ``raw``.
    Raises, from the constructor or a read, ``FileMalformedError``, ``FileTruncatedError``, ``FileTamperedError``,
    ``FileWrongDatasetError`` or what ``keys`` raises; every message begins with ``name``."""

    def __init__(
        self, raw: BinaryIO, stored_size: int, keys: KeyProvider, *, dataset: DatasetName, name: str = "file"
    ) -> None:
        super().__init__()
        self._raw = raw
        self.name = name
        self.preamble = read_preamble(raw, name)
        if self.preamble.dataset != dataset:
            raise FileWrongDatasetError(f"{name}: encrypted for dataset {self.preamble.dataset}, not {dataset}")
        self.size = plaintext_size(stored_size, name)
        self._body = stored_size - PREAMBLE_SIZE
        self._segments = stream.segment_count(self._body)
        header = bytearray(stream.HEADER_SIZE)
        read_exactly(raw, memoryview(header))
        dek = self.preamble.unwrap(keys.key(dataset, self.preamble.key_version), name)
        try:
            self._decrypter = stream.StreamDecrypter(dek, bytes(header), self.preamble.raw)
        except DecryptionError as exc:
            raise FileTamperedError(f"{name}: {exc}") from exc
        self._position = 0
        self._fetched = bytearray()  # ciphertext of segments [_first, _end), a slot of 65536 bytes for each
        self._first = self._end = self._window = 0
        self._plain = memoryview(bytearray(stream.SEGMENT_PLAINTEXT_SIZE))  # plaintext of segment _cached
        self._cached = -1
        self._cache(self._segments - 1)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        self._check_open()
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._check_open()
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}.get(whence)
        if base is None or base + offset < 0:
            raise ValueError(f"seek({offset}, {whence}) leads before the start, or is of no known kind")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill ``buffer`` as far as the file goes: less than asked for means the end of the file."""
        self._check_open()
        view = memoryview(buffer).cast("B")
        done, room = 0, min(len(view), max(self.size - self._position, 0))
        while done < room:
            index, offset = stream.locate(self._position)
            size = stream.segment_plaintext_size(index, self.size)
            if offset == 0 and size <= room - done and index != self._cached:
                self._decrypt(
                    index, view[done : done + size], wanted=-(-(room - done) // stream.SEGMENT_PLAINTEXT_SIZE)
                )
                count = size
            else:
                self._cache(index)
                count = min(size - offset, room - done)
                view[done : done + count] = self._plain[offset : offset + count]
            done += count
            self._position += count
        return done

    def readall(self) -> bytes:
        rest = bytearray(max(self.size - self._position, 0))
        self.readinto(rest)
        return bytes(rest)

    def close(self) -> None:
        if not self.closed:
            raw = getattr(self, "_raw", None)
            super().close()
            if raw is not None:
                raw.close()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError(f"{self.name}: read of a closed file")

    def _cache(self, index: int) -> None:
        if self._cached != index:
            self._cached = -1
            self._decrypt(index, self._plain[: stream.segment_plaintext_size(index, self.size)], wanted=1)
            self._cached = index

    def _decrypt(self, index: int, out: memoryview, *, wanted: int) -> None:
        ciphertext = self._ciphertext(index, wanted)
        last = index == self._segments - 1
        try:
            self._decrypter.decrypt(index, ciphertext, out, last=last)
        except DecryptionError as exc:
            if last and self._decrypts_as_inner(index, ciphertext):
                raise FileTruncatedError(f"{self.name}: ends after segment {index}, which is not the last") from exc
            place = f"segment {index}{', the last,' if last else ''} does not authenticate"
            raise FileTamperedError(f"{self.name}: {place}: changed, moved, cut or extended") from exc

    def _decrypts_as_inner(self, index: int, ciphertext: memoryview) -> bool:
        try:
            self._decrypter.decrypt(index, ciphertext, bytearray(len(ciphertext) - stream.TAG_SIZE), last=False)
        except DecryptionError:
            return False
        return True

    def _ciphertext(self, index: int, wanted: int) -> memoryview:
        """Ciphertext of segment ``index``, read together with following ones when reading goes on in sequence."""
        if not self._first <= index < self._end:
            self._window = min(2 * self._window, _MAX_FETCH) if index == self._end else 1
            count = min(max(wanted, self._window), _MAX_FETCH, self._segments - index)
            start, stop = index * stream.SEGMENT_SIZE, min((index + count) * stream.SEGMENT_SIZE, self._body)
            if len(self._fetched) < stop - start:
                self._fetched = bytearray(stop - start)
            self._first = self._end = index
            self._raw.seek(PREAMBLE_SIZE + start)
            got = read_exactly(self._raw, memoryview(self._fetched)[: stop - start])
            if got < stop - start:
                raise FileTruncatedError(f"{self.name}: ends {stop - start - got} bytes early, in or after {index}")
            self._end = index + count
        slot = (index - self._first) * stream.SEGMENT_SIZE
        size = min(stream.SEGMENT_SIZE, self._body - index * stream.SEGMENT_SIZE)
        return memoryview(self._fetched)[slot + (stream.HEADER_SIZE if index == 0 else 0) : slot + size]
