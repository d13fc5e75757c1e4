"""Seal a secret to a TPM's endorsement key and the name of an object beside it (TPM2_MakeCredential).

TPM 2.0 Library Part 1, 24 (credential protection), 11.4.10.2 (KDFa) and B.10.4 (RSA secret sharing), for endorsement
keys of the TCG's default template: RSA 2048, SHA-256, AES-128-CFB.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct

from cryptography.hazmat.decrepit.ciphers.modes import CFB  # old, but what TPM 2.0 prescribes here
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from casemate.crypto.errors import InvalidKeyError
from casemate.crypto.secret import Secret

__all__ = ["seal_credential"]

MAX_SECRET_BYTES = 32


def seal_credential(ek: rsa.RSAPublicKey, name: bytes, secret: Secret) -> tuple[bytes, bytes]:
    """TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET; only ``ek``'s TPM opens them, and only for the object ``name``.

    ``secret`` has at most 32 bytes; raises ``InvalidKeyError`` otherwise."""
    plaintext = secret.reveal()
    if not 0 < len(plaintext) <= MAX_SECRET_BYTES:
        raise InvalidKeyError(f"credential: a secret of {len(plaintext)} bytes, need 1 to {MAX_SECRET_BYTES}")
    seed = os.urandom(32)
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), label=b"IDENTITY\0")
    encryptor = Cipher(algorithms.AES(_kdfa(seed, b"STORAGE", name, 128)), CFB(bytes(16))).encryptor()
    encrypted = encryptor.update(_tpm2b(plaintext)) + encryptor.finalize()
    outer = hmac.new(_kdfa(seed, b"INTEGRITY", b"", 256), encrypted + name, hashlib.sha256).digest()
    return _tpm2b(_tpm2b(outer) + encrypted), _tpm2b(ek.encrypt(seed, oaep))


def _tpm2b(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


def _kdfa(key: bytes, label: bytes, context: bytes, bits: int) -> bytes:
    """SP 800-108 in counter mode with HMAC-SHA256; one block is enough for up to 256 bits."""
    message = struct.pack(">I", 1) + label + b"\0" + context + struct.pack(">I", bits)
    return hmac.new(key, message, hashlib.sha256).digest()[: bits // 8]
