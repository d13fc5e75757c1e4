"""The segmented AEAD of encrypted files: Tink's AES256-GCM-HKDF streaming construction, segments of 65536 bytes.

A flipped bit, a moved, missing or added segment does not decrypt (Hoang & Shen, CCS 2020). The layout is Tink's
(https://developers.google.com/tink/streaming-aead/aes_gcm_hkdf_streaming):
stream header ``40 u8 | salt (32) | nonce prefix (7)``, then segments of 65520 plaintext bytes and a tag of 16; the
first is 40 bytes shorter, to make room for the header. Segment nonce: ``prefix | index u32 | 1 for the last, else 0``;
segment key: HKDF-SHA256(key, salt, info=associated data). No input or output here: callers bring whole segments.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from casemate.crypto.errors import DecryptionError
from casemate.crypto.secret import KEY_SIZE, Secret

__all__ = [
    "HEADER_SIZE",
    "SEGMENT_PLAINTEXT_SIZE",
    "SEGMENT_SIZE",
    "TAG_SIZE",
    "StreamDecrypter",
    "StreamEncrypter",
    "body_size",
    "locate",
    "plaintext_size",
    "segment_count",
    "segment_plaintext_size",
]

SEGMENT_SIZE = 65536  # bytes of ciphertext, tag included; the first segment's header counts as part of it
TAG_SIZE = 16
SALT_SIZE = 32  # as long as the derived key (Tink)
NONCE_PREFIX_SIZE = 7
HEADER_SIZE = 1 + SALT_SIZE + NONCE_PREFIX_SIZE
SEGMENT_PLAINTEXT_SIZE = SEGMENT_SIZE - TAG_SIZE
MAX_SEGMENTS = 2**32  # the index in the nonce has four bytes

Buffer = bytes | bytearray | memoryview


def body_size(plaintext: int) -> int:
    """Stored bytes (header, segments, tags) for ``plaintext`` bytes."""
    full, rest = divmod(plaintext + HEADER_SIZE, SEGMENT_PLAINTEXT_SIZE)
    return full * SEGMENT_SIZE + (rest + TAG_SIZE if rest else 0)


def plaintext_size(body: int) -> int:
    """Plaintext bytes in a body of ``body`` stored bytes; ``DecryptionError`` when no plaintext has that size."""
    full, rest = divmod(body, SEGMENT_SIZE)
    if body < HEADER_SIZE + TAG_SIZE or 0 < rest <= TAG_SIZE:
        raise DecryptionError(f"encrypted body: {body} bytes is a size that no plaintext gives; it was cut or extended")
    if body > MAX_SEGMENTS * SEGMENT_SIZE:
        raise DecryptionError(f"encrypted body: {body} bytes is more than {MAX_SEGMENTS} segments")
    return full * SEGMENT_PLAINTEXT_SIZE + (rest - TAG_SIZE if rest else 0) - HEADER_SIZE


def segment_count(body: int) -> int:
    """Segments in a body of ``body`` stored bytes; at least one."""
    return -(-body // SEGMENT_SIZE)


def segment_plaintext_size(index: int, total_plaintext: int) -> int:
    """Plaintext bytes in segment ``index`` of a stream with ``total_plaintext`` bytes."""
    start = index * SEGMENT_PLAINTEXT_SIZE
    end = min(start + SEGMENT_PLAINTEXT_SIZE, total_plaintext + HEADER_SIZE)
    return end - max(start, HEADER_SIZE)


def locate(position: int) -> tuple[int, int]:
    """The segment that holds plaintext byte ``position``, and the byte's offset in that segment's plaintext."""
    index, offset = divmod(position + HEADER_SIZE, SEGMENT_PLAINTEXT_SIZE)
    return index, offset if index else offset - HEADER_SIZE


def _aead(key: Secret, salt: bytes, associated_data: bytes) -> AESGCM:
    raw = key.require_size(KEY_SIZE).reveal()
    return AESGCM(HKDF(SHA256(), KEY_SIZE, salt=salt, info=associated_data).derive(raw))


@final
class StreamEncrypter:
    """Encrypts one stream, segment after segment; counts them itself, so that no nonce is used twice."""

    __slots__ = ("_aead", "_end", "_index", "_prefix", "finished", "header")

    def __init__(self, key: Secret, associated_data: bytes) -> None:
        self._start(key, associated_data, bytes([HEADER_SIZE]) + os.urandom(SALT_SIZE + NONCE_PREFIX_SIZE))

    def _start(self, key: Secret, associated_data: bytes, header: bytes, first: int = 0, end: int = 0) -> None:
        self._prefix = header[1 + SALT_SIZE :]
        self._aead = _aead(key, header[1 : 1 + SALT_SIZE], associated_data)
        self._index = first
        self._end = end or MAX_SEGMENTS
        self.finished = False
        self.header = header

    @classmethod
    def part(cls, key: Secret, associated_data: bytes, header: bytes, *, first: int, end: int) -> StreamEncrypter:
        """Segments ``[first, end)`` of a stream whose header another encrypter has made, for work side by side.

        The caller gives each segment to one part, once: the same one encrypted twice uses its nonce twice."""
        made = cls.__new__(cls)
        made._start(key, associated_data, header, first, end)
        return made

    @property
    def next_size(self) -> int:
        """Plaintext bytes that the next segment takes; every segment but the last is full."""
        return SEGMENT_PLAINTEXT_SIZE if self._index else SEGMENT_PLAINTEXT_SIZE - HEADER_SIZE

    def encrypt(self, plaintext: Buffer, out: bytearray | memoryview, *, last: bool) -> int:
        """Encrypt the next segment into ``out`` (exactly ``len(plaintext) + 16`` bytes); returns that size.

        Raises ``ValueError`` for a segment of a wrong size or after the last one: a mistake of the caller."""
        size = len(plaintext)
        if self.finished or size > self.next_size or (size < self.next_size and not last):
            raise ValueError(f"segment {self._index}: got {size} bytes, need {self.next_size}")
        if self._index >= self._end:
            raise ValueError(f"segment {self._index}: this part of the stream, or the longest there is, ends before it")
        nonce = self._prefix + self._index.to_bytes(4, "big") + (b"\x01" if last else b"\x00")
        self._index += 1
        self.finished = last
        return self._aead.encrypt_into(nonce, plaintext, None, out)

    def encrypt_run(self, plaintext: memoryview, out: memoryview) -> int:
        """Encrypt the next segments, all whole and none the last, into ``out`` (16 bytes more for each); their number.

        Raises ``ValueError`` when ``plaintext`` does not end where a segment does."""
        head = self.next_size
        count, rest = divmod(len(plaintext) + SEGMENT_PLAINTEXT_SIZE - head, SEGMENT_PLAINTEXT_SIZE)
        if rest or not count or self.finished or self._index + count > self._end:
            raise ValueError(f"segment {self._index}: {len(plaintext)} bytes are not whole segments of this stream")
        encrypt, prefix, index = self._aead.encrypt_into, self._prefix, self._index
        self._index += count
        read, wrote, size = 0, 0, head
        for number in range(index, index + count):  # nothing in here that need not be: it runs 100,000 times a second
            stop, stored = read + size, wrote + size + TAG_SIZE
            nonce = prefix + number.to_bytes(4, "big") + b"\0"
            encrypt(nonce, plaintext[read:stop], None, out[wrote:stored])
            read, wrote, size = stop, stored, SEGMENT_PLAINTEXT_SIZE
        return count


@final
class StreamDecrypter:
    """Decrypts the segments of one stream in any order."""

    __slots__ = ("_aead", "_prefix")

    def __init__(self, key: Secret, header: bytes, associated_data: bytes) -> None:
        """Raises ``DecryptionError`` when ``header`` is no stream header. A changed salt shows at the first segment."""
        if len(header) != HEADER_SIZE or header[0] != HEADER_SIZE:
            raise DecryptionError(f"stream header: need {HEADER_SIZE} bytes that begin with their own number")
        self._aead = _aead(key, header[1 : 1 + SALT_SIZE], associated_data)
        self._prefix = header[1 + SALT_SIZE :]

    def decrypt(self, index: int, ciphertext: Buffer, out: bytearray | memoryview, *, last: bool) -> int:
        """Decrypt segment ``index`` into ``out`` (exactly ``len(ciphertext) - 16`` bytes); returns that size.

        Raises ``DecryptionError`` and leaves only zeros in ``out`` when anything about the segment was changed."""
        if not 0 <= index < MAX_SEGMENTS or len(ciphertext) < TAG_SIZE:
            raise DecryptionError(f"segment {index}: {len(ciphertext)} bytes cannot be a segment")
        nonce = self._prefix + index.to_bytes(4, "big") + (b"\x01" if last else b"\x00")
        try:
            return self._aead.decrypt_into(nonce, ciphertext, None, out)
        except InvalidTag:
            out[:] = bytes(len(out))  # never leave unauthenticated plaintext behind
            raise DecryptionError(f"segment {index} does not authenticate") from None

    def decrypt_run(self, first: int, ciphertexts: Sequence[memoryview], out: memoryview) -> None:
        """Decrypt whole segments that follow each other, none the last of its stream, into ``out`` without gaps.

        Raises ``DecryptionError`` naming the first one that was changed; its place in ``out`` then holds zeros."""
        decrypt, prefix = self._aead.decrypt_into, self._prefix
        place = 0
        for index, ciphertext in enumerate(ciphertexts, first):
            stop = place + len(ciphertext) - TAG_SIZE
            try:
                decrypt(prefix + index.to_bytes(4, "big") + b"\0", ciphertext, None, out[place:stop])
            except InvalidTag:
                out[place:stop] = bytes(stop - place)  # never leave unauthenticated plaintext behind
                raise DecryptionError(f"segment {index} does not authenticate") from None
            place = stop
