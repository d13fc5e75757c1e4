"""Writes files as BigDL PPML would, with `openssl` and the standard library: nothing of the reader's is used here."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import subprocess
from pathlib import Path

__all__ = ["CODES", "PLAIN", "write_dataset", "write_file", "write_native_file"]

PRIMARY = "4811925370264459"
DIGITS = "9035512784660173"

PLAIN = DIGITS
"""The data key as a writer without BigDL's slip spells it."""

CODES = "".join(str(48 + int(digit)) for digit in DIGITS)
"""The data key as BigDL itself spells it: character codes joined, 32 decimal digits."""


def wrapped() -> str:
    """The data key under the primary key as BigDL's simple KMS writes it; only its first 16 digits count."""
    return "".join(str((int(a) + int(b)) % 10) for a, b in zip(DIGITS, PRIMARY, strict=True))


def _cbc(key: bytes, iv: bytes, content: bytes) -> bytes:
    command = ["openssl", "enc", "-aes-128-cbc", "-K", key.hex(), "-iv", iv.hex()]
    return subprocess.run(command, input=content, capture_output=True, check=True).stdout


def write_file(
    path: Path, content: bytes, *, text: str = CODES, wrapped_key: str | None = None, iv: bytes | None = None
) -> None:
    secret = text.encode()[:32] + b"\0" * max(0, 32 - len(text))
    iv, held = iv or os.urandom(16), (wrapped_key or wrapped()).encode()
    body = _cbc(secret[16:], iv, content)
    header = len(held).to_bytes(4, "big") + (16).to_bytes(4, "big") + held + iv
    header += b"\x80" * (400 - len(header))
    path.write_bytes(header + body + hmac.new(secret[:16], body, hashlib.sha256).digest())


def write_native_file(path: Path, content: bytes, *, text: str = CODES) -> None:
    iv = os.urandom(16)
    path.write_bytes(iv + _cbc(text.encode()[16:32], iv, content))


def write_dataset(directory: Path, files: dict[str, bytes], *, text: str = CODES) -> None:
    """A directory as Spark leaves it: parts, checksum files, `_SUCCESS`, `.meta`; and its primary key beside."""
    directory.mkdir(parents=True)
    for name, content in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        write_file(directory / f"{name}.cbc", content, text=text)
        (directory / name).with_name(f".{Path(name).name}.cbc.crc").write_bytes(b"crc\0")
    (directory / "_SUCCESS").touch()
    (directory / ".meta").write_text(json.dumps({"encryptedDataKey": wrapped()}))
    directory.with_name("primary.key").write_text(PRIMARY + "\n")
