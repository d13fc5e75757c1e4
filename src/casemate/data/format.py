"""The preamble of an encrypted file, format v1, and the sizes that follow from it. No input or output.

``"CSMT" | version u8 = 1 | flags u8 = 0 | header length u16 | header: RFC 8785 JSON | zeros to 512 bytes``, then the
body (``casemate.crypto.stream``), whose associated data is the whole preamble. Integers are big endian. One file has
one spelling only: whatever is not exactly as a writer would have written it is refused.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from dataclasses import dataclass, field

from casemate.crypto import stream
from casemate.crypto.canonical import canonical_json
from casemate.crypto.envelope import WRAPPED_OVERHEAD, unwrap, wrap
from casemate.crypto.errors import DecryptionError, UnwrapError
from casemate.crypto.secret import KEY_SIZE, Secret
from casemate.data.errors import FileMalformedError, FileTamperedError, FileTruncatedError
from casemate.data.keys import DatasetKey
from casemate.errors import UsageError
from casemate.model import DatasetName

__all__ = [
    "ALGORITHM",
    "PREAMBLE_SIZE",
    "Preamble",
    "new_preamble",
    "parse_base64",
    "parse_preamble",
    "plaintext_size",
    "stored_size",
]

MAGIC = b"CSMT"
VERSION = 1
PREAMBLE_SIZE = 512  # bytes
ALGORITHM = "AES256-GCM-HKDF-64K"
FILE_ID_SIZE = 16  # bytes, random
MAX_KEY_VERSION = 2**31 - 1
_FIXED = 8  # bytes before the header
_MEMBERS = {"alg", "dataset", "file_id", "kek", "wrapped_dek"}


def stored_size(plaintext: int) -> int:
    """Bytes on storage of a file with ``plaintext`` bytes of content."""
    return PREAMBLE_SIZE + stream.body_size(plaintext)


def plaintext_size(stored: int, name: str = "file") -> int:
    """Bytes of content in a file of ``stored`` bytes; opens nothing. ``FileTruncatedError`` for an impossible size."""
    try:
        return stream.plaintext_size(stored - PREAMBLE_SIZE)
    except DecryptionError as exc:
        raise FileTruncatedError(f"{name}: {stored} bytes is not the size of a whole encrypted file") from exc


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def parse_base64(text: object, size: int, what: str) -> bytes:
    """Exactly ``size`` bytes from base64 in its one spelling (RFC 4648 3.5); ``ValueError`` naming ``what``."""
    try:
        raw = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != size or _b64(raw) != text:
        raise ValueError(f"{what} is not {size} bytes in base64")
    return raw


@dataclass(frozen=True)
class Preamble:
    """A parsed or fresh preamble; ``raw`` is its 512 bytes, the body's associated data. Holds nothing secret."""

    dataset: DatasetName
    key_version: int
    file_id: str  # base64, as in the header
    wrapped_dek: bytes
    raw: bytes = field(repr=False)

    def unwrap(self, key: DatasetKey, name: str) -> Secret:
        """The file key (DEK); ``FileTamperedError`` when the header was changed since it was wrapped."""
        try:
            context = _wrap_context(self.dataset, self.key_version, self.file_id)
            return unwrap(key.secret, self.wrapped_dek, context=context)
        except UnwrapError as exc:
            raise FileTamperedError(
                f"{name}: file key does not open with version {self.key_version} of {self.dataset}; header was changed"
            ) from exc


def _wrap_context(dataset: DatasetName, version: int, file_id: str) -> bytes:
    return f"casemate:dek:v1:{dataset}:{version}:{file_id}".encode()


def new_preamble(key: DatasetKey, file_id: str | None = None) -> tuple[Preamble, Secret]:
    """A preamble for a new file under ``key``, with a fresh file key; and that file key.

    ``file_id`` (base64) comes from ``casemate.data.fileid`` where the file's place is known, else it is random."""
    dek = Secret.random(KEY_SIZE)
    file_id = file_id or _b64(os.urandom(FILE_ID_SIZE))
    wrapped = wrap(key.secret, dek, context=_wrap_context(key.dataset, key.version, file_id))
    # RFC 8785 form as it stands: names in order, no character that needs an escape. Readers insist on it.
    header = (
        f'{{"alg":"{ALGORITHM}","dataset":"{key.dataset}","file_id":"{file_id}",'
        f'"kek":{key.version},"wrapped_dek":"{_b64(wrapped)}"}}'
    ).encode()
    raw = (MAGIC + bytes([VERSION, 0]) + len(header).to_bytes(2, "big") + header).ljust(PREAMBLE_SIZE, b"\0")
    return Preamble(key.dataset, key.version, file_id, wrapped, raw), dek


def parse_preamble(raw: bytes, name: str = "file") -> Preamble:
    """Read the first 512 bytes of a file. Raises ``FileMalformedError`` naming ``name`` and the field.

    Nothing in it is authentic until the file key was unwrapped and a segment decrypted."""
    if not raw.startswith(MAGIC[: len(raw)]):
        raise FileMalformedError(f"{name}: not an encrypted file (does not begin with {MAGIC.decode()})")
    if len(raw) < PREAMBLE_SIZE:
        raise FileTruncatedError(f"{name}: {len(raw)} bytes, shorter than the {PREAMBLE_SIZE} of a preamble")
    if raw[4] != VERSION or raw[5] != 0:
        raise FileMalformedError(f"{name}: format version {raw[4]}, flags {raw[5]}; need version {VERSION}, flags 0")
    end = _FIXED + int.from_bytes(raw[6:8], "big")
    if end > PREAMBLE_SIZE or any(raw[end:PREAMBLE_SIZE]):
        raise FileMalformedError(f"{name}: header length {end - _FIXED} is wrong, or the padding is not zero")
    try:
        return _parse_header(raw[_FIXED:end], raw[:PREAMBLE_SIZE])
    except (ValueError, RecursionError, UsageError) as exc:
        raise FileMalformedError(f"{name}: header: {exc}") from exc


def _parse_header(text: bytes, raw: bytes) -> Preamble:
    header = json.loads(text)
    if not isinstance(header, dict) or header.keys() != _MEMBERS:
        raise ValueError(f"need exactly the members {', '.join(sorted(_MEMBERS))}")
    if canonical_json(header) != text:
        raise ValueError("not in RFC 8785 form")
    dataset, version = header["dataset"], header["kek"]
    if header["alg"] != ALGORITHM or not isinstance(dataset, str):
        raise ValueError(f"alg {header['alg']!r} and dataset {dataset!r}: need {ALGORITHM} and a name")
    if type(version) is not int or not 1 <= version <= MAX_KEY_VERSION:
        raise ValueError(f"kek {version!r} is not a key version")
    parse_base64(header["file_id"], FILE_ID_SIZE, "file_id")
    wrapped = parse_base64(header["wrapped_dek"], KEY_SIZE + WRAPPED_OVERHEAD, "wrapped_dek")
    return Preamble(DatasetName.parse(dataset), version, header["file_id"], wrapped, raw)
