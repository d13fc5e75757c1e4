"""Authenticate a document under a key that has another main use: a key of its own is derived for each purpose."""

from __future__ import annotations

import hashlib
import hmac

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from casemate.crypto.errors import SignatureInvalidError
from casemate.crypto.secret import KEY_SIZE, Secret

__all__ = ["MAC_SIZE", "compute_mac", "verify_mac"]

MAC_SIZE = 32  # bytes


def compute_mac(key: Secret, message: bytes, *, purpose: str) -> bytes:
    """HMAC-SHA256 (32 bytes) under HKDF-SHA256(``key``, no salt, info=``purpose``)."""
    raw = key.require_size(KEY_SIZE).reveal()
    derived = HKDF(SHA256(), KEY_SIZE, salt=None, info=purpose.encode()).derive(raw)
    return hmac.digest(derived, message, hashlib.sha256)


def verify_mac(key: Secret, message: bytes, mac: bytes, *, purpose: str) -> None:
    """Raises ``SignatureInvalidError`` unless ``mac`` is that of ``message``; takes the same time either way."""
    if not hmac.compare_digest(compute_mac(key, message, purpose=purpose), mac):
        raise SignatureInvalidError(f"MAC for {purpose} does not match")
