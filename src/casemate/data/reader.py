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

_MAX_FETCH = 16  # segments, 1 MiB: what one read brings at most
_KEPT = 4  # segments of plaintext that random reads find again
_ONE_SEGMENT = PREAMBLE_SIZE + stream.SEGMENT_SIZE  # bytes; a file of at most so many is read at once


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
    file cut at a segment border is refused before its first byte is read. Closing it closes ``raw``. Ciphertext is
    copied out of the storage before it is looked at (no ``mmap``): storage that changes it afterwards changes nothing.
    Raises, from the constructor or a read, ``FileMalformedError``, ``FileTruncatedError``, ``FileTamperedError``,
    ``FileWrongDatasetError`` or what ``keys`` raises; every message begins with ``name``."""

    def __init__(
        self, raw: BinaryIO, stored_size: int, keys: KeyProvider, *, dataset: DatasetName, name: str = "file"
    ) -> None:
        super().__init__()
        self._raw = raw
        self._descriptor = raw.fileno() if isinstance(raw, io.FileIO) else None
        self.name = name
        head = memoryview(bytearray(stored_size if stored_size <= _ONE_SEGMENT else PREAMBLE_SIZE + stream.HEADER_SIZE))
        head = head[: self._read(0, head)]
        self.preamble = parse_preamble(bytes(head[:PREAMBLE_SIZE]), name)
        if self.preamble.dataset != dataset:
            raise FileWrongDatasetError(f"{name}: encrypted for dataset {self.preamble.dataset}, not {dataset}")
        self.size = plaintext_size(stored_size, name)
        self._body = stored_size - PREAMBLE_SIZE
        self._segments = stream.segment_count(self._body)
        dek = self.preamble.unwrap(keys.key(dataset, self.preamble.key_version), name)
        header = bytes(head[PREAMBLE_SIZE : PREAMBLE_SIZE + stream.HEADER_SIZE])
        try:
            self._decrypter = stream.StreamDecrypter(dek, header, self.preamble.raw)
        except DecryptionError as exc:
            raise FileTamperedError(f"{name}: {exc}") from exc
        self._position = 0
        self._memory = memoryview(bytearray())  # where ciphertext is read to
        self._whole: list[memoryview] = []  # its slots of 65536 bytes
        self._slots: list[memoryview] = []  # the ciphertexts of segments [_first, _end) that are in it
        self._first = self._end = self._window = 0
        self._kept: dict[int, memoryview] = {}  # plaintext by segment, the one used last at the end
        if self._segments == 1 and len(head) == stored_size:
            self._slots, self._end = [head[PREAMBLE_SIZE + stream.HEADER_SIZE :]], 1
        self._keep(self._segments - 1)

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
            count = 0 if offset or index in self._kept else self._decrypt_run(index, view[done:room])
            if not count:
                plain = self._keep(index)
                count = min(len(plain) - offset, room - done)
                view[done : done + count] = plain[offset : offset + count]
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

    def _keep(self, index: int) -> memoryview:
        """The plaintext of segment ``index``, remembered for the next reads near it."""
        plain = self._kept.pop(index, None)
        if plain is None:
            size = stream.segment_plaintext_size(index, self.size)
            if len(self._kept) < _KEPT:
                memory = memoryview(bytearray(size))
            else:
                memory = self._kept.pop(next(iter(self._kept)))
                memory = memory if len(memory) >= size else memoryview(bytearray(size))
            plain = memory[:size]
            self._fetch(index, 1)
            self._decrypt(index, self._slots[index - self._first], plain)
        self._kept[index] = plain
        return plain

    def _decrypt_run(self, index: int, out: memoryview) -> int:
        """Decrypt whole segments from ``index`` on into ``out``, as many as fit and were read; the bytes, or 0."""
        first = stream.SEGMENT_PLAINTEXT_SIZE - (0 if index else stream.HEADER_SIZE)
        fit = (len(out) + stream.SEGMENT_PLAINTEXT_SIZE - first) // stream.SEGMENT_PLAINTEXT_SIZE
        fit = min(fit, self._segments - 1 - index)  # the last one is decrypted apart
        if fit <= 0:
            return 0
        self._fetch(index, fit)
        count = min(fit, self._end - index)
        slot = index - self._first
        try:
            self._decrypter.decrypt_run(index, self._slots[slot : slot + count], out)
        except DecryptionError as exc:
            raise FileTamperedError(f"{self.name}: {exc}: changed, moved, cut or extended") from exc
        return first + (count - 1) * stream.SEGMENT_PLAINTEXT_SIZE

    def _decrypt(self, index: int, ciphertext: memoryview, out: memoryview) -> None:
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

    def _fetch(self, index: int, wanted: int) -> None:
        """Bring the ciphertext of segment ``index``, and of following ones when reading goes on in sequence."""
        if self._first <= index < self._end:
            return
        self._window = min(2 * self._window, _MAX_FETCH) if index == self._end else 1
        count = min(max(wanted, self._window), _MAX_FETCH, self._segments - index)
        start, stop = index * stream.SEGMENT_SIZE, min((index + count) * stream.SEGMENT_SIZE, self._body)
        if len(self._memory) < stop - start:
            self._memory = memoryview(bytearray(count * stream.SEGMENT_SIZE))
            places = range(0, len(self._memory), stream.SEGMENT_SIZE)
            self._whole = [self._memory[place : place + stream.SEGMENT_SIZE] for place in places]
        self._first = self._end = index
        got = self._read(PREAMBLE_SIZE + start, self._memory[: stop - start])
        if got < stop - start:
            raise FileTruncatedError(f"{self.name}: ends {stop - start - got} bytes early, in or after {index}")
        self._slots = self._whole[:count]
        self._slots[-1] = self._slots[-1][: stop - start - (count - 1) * stream.SEGMENT_SIZE]
        if index == 0:
            self._slots[0] = self._slots[0][stream.HEADER_SIZE :]
        self._end = index + count

    def _read(self, position: int, view: memoryview) -> int:
        """Fill ``view`` with what is stored from byte ``position`` on; less only where the storage ends."""
        if self._descriptor is None:
            self._raw.seek(position)
            return read_exactly(self._raw, view)
        done = 0
        while done < len(view):
            got = os.preadv(self._descriptor, [view[done:]], position + done)
            if not got:
                break
            done += got
        return done
