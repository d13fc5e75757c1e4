"""The bytes that a text stands for: hex as tools print it, base64, armour. Pure functions; no errors, only ``None``."""

from __future__ import annotations

import base64
import binascii
import re

__all__ = ["decoded", "plain_text"]

_HEX = re.compile(rb"[0-9a-fA-F]++")
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{16,}+={0,2}")
_MAX_DUMP = 2 * 1024 * 1024  # characters
_ADDRESS = re.compile(rb"[0-9a-fA-F]{6,16}(?=:? |$)")
_BEGIN = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----")
_BYTE_ORDER_MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
_OURS = (b"CERTIFICATE", b"X509 CRL", b"PUBLIC KEY", b"RSA PUBLIC KEY", b"TRUSTED CERTIFICATE")


def plain_text(content: bytes) -> bytes:
    """``content`` without a byte order mark, as UTF-8; anything else as it is."""
    for mark, encoding in _BYTE_ORDER_MARKS:
        if content.startswith(mark):
            try:
                return content[len(mark) :].decode(encoding).encode()
            except UnicodeDecodeError:
                return content
    return content


def decoded(text: bytes) -> bytes | None:
    """The bytes behind ``text``; ``None`` when it is no such text, or is PEM that others read.

    Hex: plain, with spaces, colons or commas, as a C array, or as ``xxd`` and ``hexdump -C`` print it."""
    if match := _BEGIN.match(text):
        return None if match[1] in _OURS else _armoured(text, match[1])
    if meant := _dump(text):
        return meant
    compact = b"".join(text.split())
    if compact[:2] in (b"0x", b"0X"):
        compact = compact[2:]
    if len(compact) % 2 == 0 and _HEX.fullmatch(compact):
        return binascii.unhexlify(compact)
    if _BASE64.fullmatch(compact):
        return _from_base64(compact)
    return _separated(text)


def _from_base64(compact: bytes) -> bytes:
    bare = compact.replace(b"+", b"-").replace(b"/", b"_").rstrip(b"=")
    bare = bare[:-1] if len(bare) % 4 == 1 else bare
    return base64.urlsafe_b64decode(bare + b"=" * (-len(bare) % 4))


def _separated(text: bytes) -> bytes | None:
    if len(text) < 32:
        return None
    compact = text.replace(b"0x", b"").replace(b"0X", b"").replace(b"\\x", b"").translate(None, b" \t\r\n:,;{}")
    return binascii.unhexlify(compact) if len(compact) % 2 == 0 and _HEX.fullmatch(compact) else None


def _armoured(text: bytes, label: bytes) -> bytes | None:
    end = b"-----END " + label + b"-----"
    compact = b"".join(text.rstrip()[len(end) + 2 :].removesuffix(end).split())
    return _from_base64(compact) if text.rstrip().endswith(end) and _BASE64.fullmatch(compact) else None


def _dump(text: bytes) -> bytes | None:
    """Lines of an address, up to sixteen bytes in hex, and what they look like as characters; from address 0 on."""
    if len(text) > _MAX_DUMP or b"\n" not in text:
        return None
    out = bytearray()
    for line in text.splitlines():
        address = _ADDRESS.match(line)
        if address is None or int(address[0], 16) != len(out):
            return None
        rest = line[address.end() :]
        if not rest:  # hexdump ends with an address alone
            continue
        # xxd puts two spaces before the characters, hexdump -C bars around them.
        row = rest[1:].strip().partition(b"  ")[0] if rest.startswith(b":") else rest.partition(b"|")[0]
        digits = b"".join(row.split())
        if len(digits) > 32 or len(digits) % 2 or not _HEX.fullmatch(digits):
            return None
        out += binascii.unhexlify(digits)
    return bytes(out) or None
