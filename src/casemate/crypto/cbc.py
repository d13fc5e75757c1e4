"""AES-CBC, for reading what others wrote long ago. It authenticates nothing, and nothing new is written with it."""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from casemate.crypto.errors import DecryptionError

__all__ = ["BLOCK_SIZE", "CbcDecrypter", "strip_padding"]

BLOCK_SIZE = 16  # bytes


class CbcDecrypter:
    """Decrypts whole blocks, in order. ``key`` is 16, 24 or 32 bytes, ``iv`` 16 (NIST SP 800-38A 6.2)."""

    def __init__(self, key: bytes, iv: bytes) -> None:
        self._context = Cipher(algorithms.AES(key), modes.CBC(iv)).decryptor()

    def update(self, blocks: bytes) -> bytes:
        return self._context.update(blocks)


def strip_padding(plain: bytes) -> bytes:
    """``plain`` without its PKCS#7 padding (RFC 5652 6.3); ``DecryptionError`` where that is broken."""
    size = plain[-1] if plain else 0
    if not 1 <= size <= BLOCK_SIZE or plain[-size:] != bytes([size]) * size:
        raise DecryptionError("broken padding")
    return plain[:-size]
