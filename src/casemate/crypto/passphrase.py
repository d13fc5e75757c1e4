"""A key from a passphrase: scrypt (RFC 7914), slow and memory-hard on purpose."""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import dataclass

from casemate.crypto.errors import InvalidKeyError
from casemate.crypto.secret import KEY_SIZE, Secret

__all__ = ["ScryptParameters", "key_from_passphrase"]

_MAX_MEMORY = 256 * 1024 * 1024  # bytes; parameters come from a file, and must not exhaust the machine


@dataclass(frozen=True)
class ScryptParameters:
    """Cost and salt. The default takes about 0.1 s and 32 MiB."""

    salt: bytes
    n: int = 2**15
    r: int = 8
    p: int = 1


def key_from_passphrase(passphrase: Secret, parameters: ScryptParameters) -> Secret:
    """32 key bytes from a UTF-8 passphrase (NFKC); raises ``InvalidKeyError`` for an empty one or unusable costs."""
    if not len(passphrase) or len(parameters.salt) < 16:
        raise InvalidKeyError("passphrase: need one that is not empty, and a salt of 16 bytes or more")
    n, r, p = parameters.n, parameters.r, parameters.p
    try:
        text = unicodedata.normalize("NFKC", passphrase.reveal().decode()).encode()
        if not (n >= 2**14 and 8 <= r <= 32 and 1 <= p <= 16 and 128 * n * r * p <= _MAX_MEMORY):
            raise ValueError("cost out of bounds")
        raw = hashlib.scrypt(text, salt=parameters.salt, n=n, r=r, p=p, maxmem=2 * _MAX_MEMORY, dklen=KEY_SIZE)
    except ValueError as exc:
        raise InvalidKeyError(f"passphrase: not UTF-8, or unusable scrypt costs n={n} r={r} p={p}") from exc
    return Secret(raw)
