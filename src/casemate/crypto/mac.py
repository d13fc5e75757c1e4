"""Authenticate a document under a key that has another main use: a key of its own is derived for each purpose."""

from __future__ import annotations

import hashlib
import hmac

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from casemate.crypto.errors import SignatureInvalidError
from casemate.crypto.secret import KEY_SIZE, Secret

__all__ = ["MAC_SIZE", "MacKey", "compute_mac", "verify_mac"]

MAC_SIZE = 32  # bytes


class MacKey:
    """The key derived for one purpose, for many messages: HMAC-SHA256 under HKDF-SHA256(key, no salt, info=purpose)."""

    def __init__(self, key: Secret, *, purpose: str) -> None:
        raw = key.require_size(KEY_SIZE).reveal()
        self._key = Secret(HKDF(SHA256(), KEY_SIZE, salt=None, info=purpose.encode()).derive(raw))

    def compute(self, message: bytes) -> bytes:
        """The MAC of ``message``, 32 bytes."""
        return hmac.digest(self._key.reveal(), message, hashlib.sha256)


def compute_mac(key: Secret, message: bytes, *, purpose: str) -> bytes:
    """HMAC-SHA256 (32 bytes) under HKDF-SHA256(``key``, no salt, info=``purpose``)."""
    return MacKey(key, purpose=purpose).compute(message)


def verify_mac(key: Secret, message: bytes, mac: bytes, *, purpose: str) -> None:
    """Raises ``SignatureInvalidError`` unless ``mac`` is that of ``message``; takes the same time either way."""
    if not hmac.compare_digest(compute_mac(key, message, purpose=purpose), mac):
        raise SignatureInvalidError(f"MAC for {purpose} does not match")
