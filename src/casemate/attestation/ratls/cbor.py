"""As much CBOR (RFC 8949) as RA-TLS evidence needs: integers, byte and text strings, arrays, maps, tags.

Deterministic when written, strict when read: definite lengths, no tag but where one is asked for, nothing afterwards.
A general decoder would act on tags (dates, big numbers, shared references) that a peer chose.
"""

from __future__ import annotations

import struct
from typing import Any

from casemate.attestation.ratls.errors import RatlsCertificateMalformedError

__all__ = ["Tagged", "decode", "decode_tagged", "encode"]

_MAX_DEPTH = 4
_MAX_ITEMS = 64  # of one array or map
_UNSIGNED, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP, _TAG = range(7)
_WIDTHS = {24: 1, 25: 2, 26: 4, 27: 8}

Tagged = tuple[int, Any]
"""A tag number and its content."""


def encode(value: Any, *, tag: int | None = None) -> bytes:
    """``int`` (not negative), ``bytes``, ``str``, ``list``, ``dict`` with text keys, in deterministic form (4.2.1)."""
    if tag is not None:
        return _head(_TAG, tag) + encode(value)
    if isinstance(value, bytes):
        return _head(_BYTES, len(value)) + value
    if isinstance(value, str):
        return _head(_TEXT, len(value.encode())) + value.encode()
    if isinstance(value, list):
        return _head(_ARRAY, len(value)) + b"".join(encode(item) for item in value)
    if isinstance(value, dict):
        pairs = sorted((encode(name), encode(item)) for name, item in value.items())
        return _head(_MAP, len(pairs)) + b"".join(name + item for name, item in pairs)
    return _head(_UNSIGNED, int(value))


def decode(raw: bytes, what: str) -> Any:
    """The one value that ``raw`` is; raises ``RatlsCertificateMalformedError`` naming ``what``."""
    value, end = _Reader(raw, what).value(0, 0)
    if end != len(raw):
        raise RatlsCertificateMalformedError(f"{what}: {len(raw) - end} bytes follow it")
    return value


def decode_tagged(raw: bytes, what: str) -> Tagged:
    """The same for a value under one tag, which has to be there."""
    reader = _Reader(raw, what)
    major, number, at = reader.head(0)
    if major != _TAG:
        raise RatlsCertificateMalformedError(f"{what}: need a CBOR tag first, got major type {major}")
    value, end = reader.value(at, 0)
    if end != len(raw):
        raise RatlsCertificateMalformedError(f"{what}: {len(raw) - end} bytes follow it")
    return number, value


def _head(major: int, number: int) -> bytes:
    if number < 24:
        return bytes([major << 5 | number])
    for info, width in _WIDTHS.items():
        if number < 1 << 8 * width:
            return bytes([major << 5 | info]) + number.to_bytes(width, "big")
    raise ValueError(f"{number}: more than 64 bits")


class _Reader:
    def __init__(self, raw: bytes, what: str) -> None:
        self._raw, self._what = raw, what

    def head(self, at: int) -> tuple[int, int, int]:
        """Major type, number, and where the content begins."""
        try:
            first = self._raw[at]
            major, info = first >> 5, first & 31
            if info < 24:
                return major, info, at + 1
            width = _WIDTHS[info]  # no indefinite lengths
            (number,) = struct.unpack_from({1: ">B", 2: ">H", 4: ">I", 8: ">Q"}[width], self._raw, at + 1)
        except (IndexError, KeyError, struct.error) as exc:
            raise RatlsCertificateMalformedError(f"{self._what}: no CBOR item of definite length at byte {at}") from exc
        return major, int(number), at + 1 + width

    def value(self, at: int, depth: int) -> tuple[Any, int]:
        major, number, at = self.head(at)
        if major in (_BYTES, _TEXT):
            if number > len(self._raw) - at:
                raise RatlsCertificateMalformedError(f"{self._what}: cut off, {number} bytes announced at byte {at}")
            content, at = self._raw[at : at + number], at + number
            return (content if major == _BYTES else self._text(content)), at
        if major == _UNSIGNED:
            return number, at
        if major not in (_ARRAY, _MAP) or depth >= _MAX_DEPTH or number > _MAX_ITEMS:
            raise RatlsCertificateMalformedError(
                f"{self._what}: an item of major type {major} has no place at byte {at}"
            )
        items: list[Any] = []
        for _ in range(number * (2 if major == _MAP else 1)):
            item, at = self.value(at, depth + 1)
            items.append(item)
        return (items if major == _ARRAY else self._map(items)), at

    def _text(self, content: bytes) -> str:
        try:
            return content.decode()
        except UnicodeDecodeError as exc:
            raise RatlsCertificateMalformedError(f"{self._what}: text that is not UTF-8") from exc

    def _map(self, items: list[Any]) -> dict[str, Any]:
        names = items[::2]
        if not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
            raise RatlsCertificateMalformedError(f"{self._what}: a map whose names are no texts, or come twice")
        return dict(zip(names, items[1::2], strict=True))
