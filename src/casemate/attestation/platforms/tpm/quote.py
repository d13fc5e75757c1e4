"""Verify one TPM quote: the signature by the attestation key, the challenge, and the PCR values it covers."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from casemate.attestation.platforms.tpm.errors import (
    TpmKeyAttributesError,
    TpmKeyUnsupportedError,
    TpmNonceMismatchError,
    TpmPcrBankError,
    TpmPcrDigestMismatchError,
    TpmPcrMissingError,
    TpmPcrNotQuotedError,
    TpmPcrSizeError,
    TpmSignatureError,
)
from casemate.attestation.platforms.tpm.structures import DIGEST_SIZES, AkPublic, Quote, Signature, parse_quote

__all__ = ["Pcrs", "check_nonce", "verify_quote"]

Pcrs = Mapping[str, Mapping[int, bytes]]
"""bank -> PCR number -> value"""

_HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}


def verify_quote(message: bytes, signature: Signature, key: AkPublic, pcrs: Pcrs) -> Quote:
    """The quote, when ``key`` signed ``message`` and ``pcrs`` are exactly the values it covers.

    Says nothing about whose key it is (see trust) nor about freshness (see ``check_nonce``).
    TPM 2.0 Library Part 3, TPM2_Quote; Part 1, 36.4 (restricted keys)."""
    # 1. The structure.                       3. The signature.
    # 2. The key may only sign TPM's own.     4. The PCR values.
    quote = parse_quote(message)  # (1)
    if key.restricted is False:  # (2)
        raise TpmKeyAttributesError("attestation key: not a restricted signing key that is fixed to its TPM")
    _verify_signature(message, signature, key)  # (3)
    _check_pcrs(quote, signature.hash, pcrs)  # (4)
    return quote


def check_nonce(quote: Quote, challenge: bytes) -> None:
    """The quote answers ``challenge``; a shorter one may be padded with zeros to 64 bytes, as report data is.

    Raises ``TpmNonceMismatchError``."""
    size = max(len(quote.nonce), len(challenge), 64)
    if not hmac.compare_digest(quote.nonce.ljust(size, b"\0"), challenge.ljust(size, b"\0")):
        raise TpmNonceMismatchError(f"quote: challenge expected {challenge.hex()}, got {quote.nonce.hex()}")


def _verify_signature(message: bytes, signature: Signature, key: AkPublic) -> None:
    algorithm, public = _HASHES[signature.hash], key.key
    try:
        if isinstance(public, rsa.RSAPublicKey) and signature.scheme == "rsassa":
            public.verify(signature.value, message, padding.PKCS1v15(), algorithm)
        elif isinstance(public, rsa.RSAPublicKey) and signature.scheme == "rsapss":
            pss = padding.PSS(padding.MGF1(algorithm), padding.PSS.AUTO)
            public.verify(signature.value, message, pss, algorithm)
        elif isinstance(public, ec.EllipticCurvePublicKey) and signature.scheme == "ecdsa":
            public.verify(signature.value, message, ec.ECDSA(algorithm))
        else:
            raise TpmKeyUnsupportedError(f"quote: the key cannot have made a {signature.scheme} signature")
    except (InvalidSignature, ValueError, UnsupportedAlgorithm) as exc:
        raise TpmSignatureError(f"quote: {signature.scheme} signature does not verify under the key") from exc


def _check_pcrs(quote: Quote, digest_hash: str, pcrs: Pcrs) -> None:
    """Part 4 of ``verify_quote``: selection and values agree both ways, then the digest."""
    covered = {(selection.bank, number) for selection in quote.selections for number in selection.pcrs}
    for bank, values in pcrs.items():
        if bank not in {selection.bank for selection in quote.selections}:
            raise TpmPcrBankError(f"PCR bank: {bank} is stated, quoted are {[s.bank for s in quote.selections]}")
        for number, value in values.items():
            if (bank, number) not in covered:
                raise TpmPcrNotQuotedError(f"PCR {bank}:{number}: a value was sent, but the quote does not cover it")
            if len(value) != DIGEST_SIZES[bank]:
                raise TpmPcrSizeError(f"PCR {bank}:{number}: got {len(value)} bytes, need {DIGEST_SIZES[bank]}")
    digest = hashlib.new(digest_hash)
    for selection in quote.selections:
        values = pcrs.get(selection.bank, {})
        for number in selection.pcrs:
            if number not in values:
                raise TpmPcrMissingError(f"PCR {selection.bank}:{number}: the quote covers it, but no value was sent")
            digest.update(values[number])
    if not hmac.compare_digest(digest.digest(), quote.pcr_digest):
        raise TpmPcrDigestMismatchError(
            f"PCR values: their digest is {digest.hexdigest()}, the quote says {quote.pcr_digest.hex()}"
        )
