"""Wrap one key under another: AES-256-GCM with a context, so that one kind of blob never opens as another."""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from casemate.crypto.errors import UnwrapError
from casemate.crypto.secret import KEY_SIZE, Secret

__all__ = ["WRAPPED_OVERHEAD", "unwrap", "wrap"]

NONCE_SIZE = 12  # bytes; NIST SP 800-38D 8.2.2, random
WRAPPED_OVERHEAD = NONCE_SIZE + 16


def wrap(wrapping_key: Secret, key: Secret, *, context: bytes) -> bytes:
    """Encrypt ``key`` under ``wrapping_key``: nonce (12 bytes), ciphertext, tag (16). Unwrapping needs ``context``.

    Random nonces bound one wrapping key to 2**32 wraps (NIST SP 800-38D 8.3); a dataset key is rotated long before."""
    nonce = os.urandom(NONCE_SIZE)
    aead = AESGCM(wrapping_key.require_size(KEY_SIZE).reveal())
    return nonce + aead.encrypt(nonce, key.reveal(), context)


def unwrap(wrapping_key: Secret, wrapped: bytes, *, context: bytes) -> Secret:
    """Undo ``wrap``; raises ``UnwrapError`` when the key, the context or any bit differs."""
    if len(wrapped) <= WRAPPED_OVERHEAD:
        raise UnwrapError(f"wrapped key: got {len(wrapped)} bytes, need more than {WRAPPED_OVERHEAD}")
    aead = AESGCM(wrapping_key.require_size(KEY_SIZE).reveal())
    try:
        return Secret(aead.decrypt(wrapped[:NONCE_SIZE], wrapped[NONCE_SIZE:], context))
    except InvalidTag:
        raise UnwrapError("wrapped key does not open with this wrapping key and context") from None
