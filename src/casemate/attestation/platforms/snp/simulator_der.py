"""Write DER for the simulator: certificates with serial number 0, and wrong ones, which proper builders refuse."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

__all__ = ["bits", "boolean", "encode", "integer", "name", "octets", "oid", "sequence", "tagged", "text", "time"]


def encode(tag: int, *content: bytes) -> bytes:
    """One element: tag, minimal definite length, the contents in a row."""
    body = b"".join(content)
    if len(body) < 0x80:
        return bytes([tag, len(body)]) + body
    size = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(size)]) + size + body


def sequence(*content: bytes) -> bytes:
    return encode(0x30, *content)


def tagged(number: int, *content: bytes) -> bytes:
    """An explicit context tag."""
    return encode(0xA0 | number, *content)


def integer(value: int) -> bytes:
    return encode(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def boolean(value: bool) -> bytes:
    return encode(0x01, b"\xff" if value else b"\x00")


def octets(value: bytes) -> bytes:
    return encode(0x04, value)


def bits(value: bytes, unused: int = 0) -> bytes:
    return encode(0x03, bytes([unused]), value)


def text(value: str, tag: int = 0x16) -> bytes:
    """A string; IA5String unless ``tag`` says otherwise."""
    return encode(tag, value.encode())


def oid(dotted: str) -> bytes:
    first, second, *rest = map(int, dotted.split("."))
    body = bytearray()
    for arc in (40 * first + second, *rest):
        groups = [arc & 0x7F]
        while arc := arc >> 7:
            groups.append(0x80 | arc & 0x7F)
        body += bytes(reversed(groups))
    return encode(0x06, bytes(body))


def name(attributes: Iterable[tuple[str, str]]) -> bytes:
    """A Name of (object identifier, UTF-8 text) pairs."""
    return sequence(*(encode(0x31, sequence(oid(kind), text(value, 0x0C))) for kind, value in attributes))


def time(value: datetime) -> bytes:
    if value.year < 2050:
        return text(value.strftime("%y%m%d%H%M%SZ"), 0x17)
    return text(value.strftime("%Y%m%d%H%M%SZ"), 0x18)
