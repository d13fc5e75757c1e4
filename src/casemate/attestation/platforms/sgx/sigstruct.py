"""Read an enclave's signature file (SIGSTRUCT): what will be measured, and by whose key it is signed.

Intel SDM volume 3D, section "Enclave Signature Structure": 1808 bytes, little endian, RSA-3072 with exponent 3 over
bytes [0, 128) and [900, 1028). No network, disk or clock."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from casemate.attestation.reference_errors import ReferenceInputError, ReferenceSignatureError

__all__ = ["SIGSTRUCT_SIZE", "Sigstruct", "parse_sigstruct"]

SIGSTRUCT_SIZE = 1808  # bytes
_HEADER = bytes.fromhex("06000000e10000000000010000000000")
_HEADER_2 = bytes.fromhex("01010000600000006000000001000000")  # after vendor and date
_MODULUS, _EXPONENT, _SIGNATURE, _BODY, _KEY_SIZE = 128, 512, 516, 900, 384


@dataclass(frozen=True)
class Sigstruct:
    """MRENCLAVE and MRSIGNER (32 bytes each), product and security version."""

    mrenclave: bytes
    mrsigner: bytes
    product_id: int
    svn: int


def parse_sigstruct(raw: bytes) -> Sigstruct:
    """The measurements of a SIGSTRUCT whose own signature holds.

    Raises ``ReferenceInputError`` for another form, ``ReferenceSignatureError`` when the signature does not verify."""
    if len(raw) != SIGSTRUCT_SIZE:
        raise ReferenceInputError(f"SIGSTRUCT: need {SIGSTRUCT_SIZE} bytes, got {len(raw)}")
    if raw[:16] != _HEADER or raw[24:40] != _HEADER_2:
        raise ReferenceInputError("SIGSTRUCT: does not begin as one")
    modulus = int.from_bytes(raw[_MODULUS : _MODULUS + _KEY_SIZE], "little")
    (exponent,) = struct.unpack_from("<I", raw, _EXPONENT)
    signature = raw[_SIGNATURE : _SIGNATURE + _KEY_SIZE][::-1]
    if exponent != 3 or modulus.bit_length() != 3072:
        raise ReferenceInputError("SIGSTRUCT: its key is not RSA-3072 with exponent 3")
    signed = raw[:_MODULUS] + raw[_BODY : _BODY + 128]
    try:
        rsa.RSAPublicNumbers(exponent, modulus).public_key().verify(signature, signed, padding.PKCS1v15(), SHA256())
    except (InvalidSignature, ValueError) as exc:
        raise ReferenceSignatureError("SIGSTRUCT: its signature does not verify") from exc
    product_id, svn = struct.unpack_from("<HH", raw, 1024)
    mrsigner = hashlib.sha256(raw[_MODULUS : _MODULUS + _KEY_SIZE]).digest()
    return Sigstruct(raw[960:992], mrsigner, product_id, svn)
