"""Tie an attestation key to an endorsement key: TPM2_MakeCredential in plain Python, for the verifier's side.

The verifier seals a secret so that only the TPM that holds the endorsement key can open it, and only if the attestation
key of the given name lives in the same TPM. An attester that returns the secret has proven both; the key then goes onto
an allow-list. TPM 2.0 Library Part 1, 24 (credential protection) and B.10.4 (RSA secret sharing).
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

from casemate.attestation.platforms.tpm.errors import TpmKeyUnsupportedError
from casemate.attestation.platforms.tpm.structures import AkPublic

__all__ = ["key_name", "make_credential"]

MAX_SECRET_BYTES = 32


def key_name(tpmt_public: bytes) -> bytes:
    """The TPM name of an object with nameAlg SHA-256: the algorithm's id and the digest of its public area."""
    return struct.pack(">H", 0x000B) + hashlib.sha256(tpmt_public).digest()


def make_credential(ek: AkPublic, name: bytes, secret: bytes) -> tuple[bytes, bytes]:
    """``secret`` (at most 32 bytes) sealed for the TPM of ``ek`` and the key called ``name``.

    Gives TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET. ``ek`` follows the TCG's default template for RSA 2048."""
    if not isinstance(ek.key, rsa.RSAPublicKey):
        raise TpmKeyUnsupportedError("endorsement key: need RSA 2048 with the TCG's default template")
    if not 0 < len(secret) <= MAX_SECRET_BYTES:
        raise TpmKeyUnsupportedError(f"credential: secret of {len(secret)} bytes, at most {MAX_SECRET_BYTES}")
    seed = os.urandom(32)
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), label=b"IDENTITY\0")
    symmetric_key = _kdfa(seed, b"STORAGE", name, 128)
    encryptor = Cipher(algorithms.AES(symmetric_key), CFB(bytes(16))).encryptor()
    encrypted = encryptor.update(_tpm2b(secret)) + encryptor.finalize()
    outer = hmac.new(_kdfa(seed, b"INTEGRITY", b"", 256), encrypted + name, hashlib.sha256).digest()
    return _tpm2b(_tpm2b(outer) + encrypted), _tpm2b(ek.key.encrypt(seed, oaep))


def _tpm2b(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


def _kdfa(key: bytes, label: bytes, context: bytes, bits: int) -> bytes:
    """SP 800-108 counter mode with HMAC-SHA256, one block; Part 1, 11.4.10.2."""
    message = struct.pack(">I", 1) + label + b"\0" + context + struct.pack(">I", bits)
    return hmac.new(key, message, hashlib.sha256).digest()[: bits // 8]
