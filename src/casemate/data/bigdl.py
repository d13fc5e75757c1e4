"""Read what Intel BigDL PPML wrote: ``.cbc`` files (AES-CBC) and the text of their keys. For moving away from it only.

A ``.cbc`` file of BigDL 2.3 and later is a 400-byte header (lengths, wrapped data key, IV, 0x80 as filling; nothing
authenticates it), AES-128-CBC with PKCS#5 padding over the whole content, and an HMAC-SHA256 over the ciphertext.
BigDL's own reader never noticed a mismatch; this one refuses it. Source: what intel-analytics/BigDL-2.x published.
"""

from __future__ import annotations

import hmac
import io
import json
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from casemate.crypto.cbc import BLOCK_SIZE, CbcDecrypter, strip_padding
from casemate.crypto.errors import DecryptionError
from casemate.crypto.secret import Secret
from casemate.data.errors import BigDLKeyError, BigDLMalformedError, BigDLTamperedError

__all__ = ["SUFFIX", "BigDLHeader", "BigDLReader", "data_key", "open_bigdl", "read_meta", "unwrap_simple"]

SUFFIX = ".cbc"
HEADER_SIZE = 400  # bytes
_IV_SIZE, _MAC_SIZE, _KEY_TEXT = 16, 32, 32  # bytes
_CHUNK = 2**20  # bytes of ciphertext decrypted at a time
_DIGITS = 16  # of the simple KMS's keys
_MAX_META = 65536  # bytes


@dataclass(frozen=True)
class BigDLHeader:
    """What stands before the ciphertext. ``wrapped_key`` is empty where the form has no place for it."""

    wrapped_key: str
    iv: bytes
    size: int

    @classmethod
    def parse(cls, raw: bytes, name: str) -> BigDLHeader:
        """The 400-byte header; raises ``BigDLMalformedError`` for anything that BigDL would not have written."""
        if len(raw) < HEADER_SIZE:
            raise BigDLMalformedError(f"{name}: {len(raw)} bytes, and the header alone has {HEADER_SIZE}")
        key_size, iv_size = struct.unpack(">ii", raw[:8])
        end = 8 + key_size + iv_size
        if iv_size != _IV_SIZE or key_size < 1 or end > HEADER_SIZE:
            raise BigDLMalformedError(f"{name}: the header says {key_size} bytes of key and {iv_size} of IV")
        if raw[end:HEADER_SIZE].strip(b"\x80"):
            raise BigDLMalformedError(f"{name}: the header is not filled with 0x80")
        try:
            wrapped = raw[8 : 8 + key_size].decode()
        except UnicodeDecodeError:
            raise BigDLMalformedError(f"{name}: the wrapped data key in the header is not text") from None
        return cls(wrapped, raw[8 + key_size : end], HEADER_SIZE)


def data_key(text: str) -> Secret:
    """The 32 bytes that BigDL cut its keys from: the data key's *text*, filled with zero bytes."""
    return Secret(text.encode()[:_KEY_TEXT].ljust(_KEY_TEXT, b"\0"))


def unwrap_simple(wrapped: str, primary_key: str) -> list[Secret]:
    """The data key that the simple KMS wrapped, in each text form that BigDL may have used; the MAC tells which.

    Digits are subtracted modulo 10. BigDL then joined the character codes, not the characters, of the 16 results into
    32 decimal digits; the other forms are those of writers without that slip. Raises ``BigDLKeyError``."""
    primary = "".join(primary_key.split())
    if not re.fullmatch(rf"[0-9]{{{_DIGITS},}}", primary):
        raise BigDLKeyError(f"primary key: need at least {_DIGITS} decimal digits")
    if not re.fullmatch(rf"[0-9]{{{_DIGITS},}}", wrapped):
        raise BigDLKeyError("the wrapped data key is not the simple KMS's; unwrap it there and give it with --data-key")
    digits = [(int(a) - int(b)) % 10 for a, b in zip(wrapped[:_DIGITS], primary[:_DIGITS], strict=True)]
    plain = "".join(map(str, digits))
    texts = ["".join(str(ord("0") + digit) for digit in digits), plain, plain + wrapped[_DIGITS:]]
    return [data_key(text) for text in dict.fromkeys(texts)]


def read_meta(directory: Path) -> str | None:
    """The wrapped data key of a directory's ``.meta``; ``None`` when it has none. Raises ``BigDLMalformedError``."""
    path = directory / ".meta"
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            value = json.loads(file.read(_MAX_META))
        wrapped = value["encryptedDataKey"]
    except (ValueError, TypeError, KeyError, RecursionError) as exc:
        raise BigDLMalformedError(f'{path}: need a JSON object with "encryptedDataKey"') from exc
    if not isinstance(wrapped, str):
        raise BigDLMalformedError(f"{path}: encryptedDataKey is not a text")
    return wrapped


class BigDLReader(io.RawIOBase):
    """The content of one file, from its beginning to its end, decrypted and authenticated on the way.

    The last bytes are handed out only after the MAC has been compared (``BigDLTamperedError``); what was read before
    an error is worth nothing. Without ``authenticated`` (mode ``nativeaescbc``) only broken padding shows."""

    def __init__(
        self, raw: BinaryIO, header: BigDLHeader, stored_size: int, key: Secret, *, name: str, authenticated: bool
    ) -> None:
        tail = _MAC_SIZE if authenticated else 0
        self._left = stored_size - header.size - tail
        if self._left < BLOCK_SIZE or self._left % BLOCK_SIZE:
            raise BigDLMalformedError(f"{name}: {self._left} bytes of ciphertext are no whole number of blocks")
        text = key.require_size(_KEY_TEXT).reveal()
        self._raw, self._name = raw, name
        self._cbc = CbcDecrypter(text[BLOCK_SIZE:], header.iv)
        self._mac = hmac.new(text[:BLOCK_SIZE], digestmod="sha256") if authenticated else None
        self._ready = memoryview(b"")
        self._raw.seek(header.size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        target = memoryview(buffer).cast("B")
        while target and not self._ready and self._left:
            self._ready = memoryview(self._next())
        size = min(len(target), len(self._ready))
        target[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()

    def _next(self) -> bytes:
        chunk = self._exactly(min(_CHUNK, self._left))
        self._left -= len(chunk)
        if self._mac is not None:
            self._mac.update(chunk)
        plain = self._cbc.update(chunk)
        if self._left:
            return plain
        if self._mac is not None and not hmac.compare_digest(self._mac.digest(), self._exactly(_MAC_SIZE)):
            raise BigDLTamperedError(f"{self._name}: the ciphertext does not fit its HMAC: changed, or another key")
        try:
            return strip_padding(plain)
        except DecryptionError:
            raise BigDLTamperedError(f"{self._name}: the padding is broken: changed, or another key") from None

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self._raw.read(size - len(data))
            if not part:
                raise BigDLTamperedError(f"{self._name}: became shorter while it was read")
            data += part
        return data


def open_bigdl(path: Path, unwrap: Sequence[Secret] | str, *, native: bool = False) -> BigDLReader:
    """Open one file for one pass. ``unwrap`` is the simple KMS's primary key, or the data keys that may fit.

    ``native`` is BigDL's mode ``nativeaescbc``: a bare IV before the ciphertext, and no MAC. A file whose directory has
    a ``.meta`` must name the same wrapped key. Raises ``BigDLMalformedError``, ``BigDLKeyError`` or
    ``BigDLTamperedError``."""
    name = str(path)
    raw = path.open("rb", buffering=0)
    try:
        stored_size = path.stat().st_size
        wrapped = read_meta(path.parent)
        if native:
            header = BigDLHeader("", raw.read(_IV_SIZE), _IV_SIZE)
            if len(header.iv) < _IV_SIZE:
                raise BigDLMalformedError(f"{name}: {stored_size} bytes, and the IV alone has {_IV_SIZE}")
        else:
            header = BigDLHeader.parse(raw.read(HEADER_SIZE), name)
            if wrapped not in (None, header.wrapped_key):
                raise BigDLTamperedError(f"{name}: its header and its directory's .meta hold different wrapped keys")
            wrapped = header.wrapped_key
        if isinstance(unwrap, str):
            if wrapped is None:
                raise BigDLMalformedError(f"{path.parent}: has no .meta, and {path.name} does not hold the wrapped key")
            unwrap = unwrap_simple(wrapped, unwrap)
        key = _fitting(raw, header, stored_size, unwrap, authenticated=not native)
        return BigDLReader(raw, header, stored_size, key, name=name, authenticated=not native)
    except BaseException:
        raw.close()
        raise


def _fitting(
    raw: BinaryIO, header: BigDLHeader, stored_size: int, keys: Sequence[Secret], *, authenticated: bool
) -> Secret:
    """The key that the file was written with; where none fits, the first, so that reading says what is wrong."""
    end = stored_size - (_MAC_SIZE if authenticated else 0)
    if len(keys) == 1 or end - header.size < BLOCK_SIZE or (end - header.size) % BLOCK_SIZE:
        return keys[0]
    raw.seek(max(header.size, end - 2 * BLOCK_SIZE))
    last = raw.read(min(2 * BLOCK_SIZE, end - header.size))
    iv, block = (last[:BLOCK_SIZE], last[BLOCK_SIZE:]) if len(last) == 2 * BLOCK_SIZE else (header.iv, last)
    fitting = [key for key in keys if _is_padded(key, iv, block)]
    if len(fitting) > 1 and authenticated:  # one time in 256 a wrong key's padding looks sound
        fitting = [key for key in fitting if _is_authentic(raw, header, end, key)] or fitting
    return (fitting or list(keys))[0]


def _is_padded(key: Secret, iv: bytes, block: bytes) -> bool:
    try:
        strip_padding(CbcDecrypter(key.reveal()[BLOCK_SIZE:], iv).update(block))
    except DecryptionError:
        return False
    return True


def _is_authentic(raw: BinaryIO, header: BigDLHeader, end: int, key: Secret) -> bool:
    mac = hmac.new(key.reveal()[:BLOCK_SIZE], digestmod="sha256")
    raw.seek(header.size)
    left = end - header.size
    while left and (part := raw.read(min(_CHUNK, left))):
        mac.update(part)
        left -= len(part)
    return hmac.compare_digest(mac.digest(), raw.read(_MAC_SIZE))
