"""Tie an attestation key to an endorsement key, before the key goes onto an allow-list.

The verifier seals a secret so that only the TPM that holds the endorsement key can open it, and only if the attestation
key of the given name lives in the same TPM. An attester that returns the secret has proven both.
"""

from __future__ import annotations

import hashlib
import struct

from cryptography.hazmat.primitives.asymmetric import rsa

from casemate.attestation.platforms.tpm.errors import TpmKeyAttributesError, TpmKeyUnsupportedError
from casemate.attestation.platforms.tpm.structures import parse_tpmt_public
from casemate.crypto.secret import Secret
from casemate.crypto.tpm_credential import seal_credential

__all__ = ["key_name", "make_credential"]


def key_name(tpmt_public: bytes) -> bytes:
    """The TPM name of an object with nameAlg SHA-256: the algorithm's id and the digest of its public area."""
    return struct.pack(">H", 0x000B) + hashlib.sha256(tpmt_public).digest()


def make_credential(ek_tpmt: bytes, ak_tpmt: bytes, secret: Secret) -> tuple[bytes, bytes]:
    """TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET for the attester's ``activate_credential``.

    ``ek_tpmt`` (RSA 2048, whose certificate was verified) and ``ak_tpmt`` are TPMT_PUBLIC. Raises
    ``TpmKeyUnsupportedError``, or ``TpmKeyAttributesError`` when the attestation key may sign anything."""
    ek, ak = parse_tpmt_public(ek_tpmt), parse_tpmt_public(ak_tpmt)
    if not isinstance(ek.key, rsa.RSAPublicKey) or ek_tpmt[2:4] != b"\x00\x0b":
        raise TpmKeyUnsupportedError("endorsement key: need RSA 2048 with SHA-256, the TCG's default template")
    if not ak.restricted or ak_tpmt[2:4] != b"\x00\x0b":
        raise TpmKeyAttributesError("attestation key: not a restricted signing key with a SHA-256 name")
    return seal_credential(ek.key, key_name(ak_tpmt), secret)
