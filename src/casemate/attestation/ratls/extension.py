"""Evidence as a certificate carries it: TCG DICE tagged evidence, and the older form of Gramine.

*DICE* (OID 2.23.133.5.4.9, DICE Attestation Architecture 1.1, 6.1.3): CBOR tag 60000 over ``[quote, claims]`` for SGX
and TDX, as Gramine 1.8 and later write it; for SEV-SNP, which nobody has defined yet, tag 0x636D736E over ``[report,
claims, VCEK or VLEK certificate]`` (the certificate may be empty). ``claims`` is a CBOR map in a byte string:
``{"pubkey-hash": << [algorithm, hash of the SubjectPublicKeyInfo] >>, "nonce": bytes (optional)}``, and the evidence's
report data is SHA-256 of it, then zeros. *Gramine before* (OID 1.2.840.113741.1337.6): a bare quote, whose report data
is SHA-256 of the SubjectPublicKeyInfo, then zeros.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass
from typing import Any

from casemate.attestation.errors import MalformedEvidenceError
from casemate.attestation.evidence import REPORT_DATA_SIZE, Evidence
from casemate.attestation.platforms.intel.quote import parse_quote
from casemate.attestation.platforms.intel.verifier import quote_of
from casemate.attestation.platforms.snp.body import build_body, parse_body
from casemate.attestation.platforms.snp.report import SigningKey, parse_report
from casemate.attestation.ratls.cbor import decode, decode_tagged, encode
from casemate.attestation.ratls.errors import (
    RatlsCertificateMalformedError,
    RatlsClaimsMismatchError,
    RatlsEvidenceUnsupportedError,
    RatlsKeyMismatchError,
    RatlsNonceMismatchError,
)

__all__ = [
    "DICE_OID",
    "GRAMINE_OID",
    "MAX_EXTENSION_SIZE",
    "QUOTE_TAG",
    "SNP_TAG",
    "Carried",
    "build_claims",
    "claims_report_data",
    "decode_dice",
    "decode_gramine",
    "encode_dice",
]

DICE_OID = "2.23.133.5.4.9"
GRAMINE_OID = "1.2.840.113741.1337.6"
QUOTE_TAG = 60000
SNP_TAG = 0x636D736E  # "cmsn": our own, from the range that is first come, first served (RFC 8949 9.2)
MAX_EXTENSION_SIZE = 64 * 1024
_SHA256 = 1  # IANA Named Information Hash Algorithm Registry
_HASHES = {_SHA256: "sha256", 7: "sha384", 8: "sha512"}
_MAX_NONCE = 64


@dataclass(frozen=True)
class Carried:
    """Evidence found in a certificate, unverified, and the claims beside it (``None`` in Gramine's older form)."""

    evidence: Evidence
    claims: bytes | None

    def check(self, spki: bytes, report_data: str | None, nonce: bytes | None) -> None:
        """Raise unless verified ``report_data`` (hex) binds the key ``spki`` (DER), and ``nonce`` when one is given."""
        # 1. The evidence binds the claims.   2. The claims name the key.   3. The nonce.
        bound = claims_report_data(spki if self.claims is None else self.claims).hex()
        if report_data is None or not hmac.compare_digest(report_data.encode(), bound.encode()):  # (1)
            error = RatlsKeyMismatchError if self.claims is None else RatlsClaimsMismatchError
            raise error(f"certificate: report data expected {bound[:24]}…, got {(report_data or 'none')[:24]}…")
        claims = {} if self.claims is None else _parse_claims(self.claims)
        if self.claims is not None:
            algorithm, digest = _parse_key_hash(claims.get("pubkey-hash"))
            expected = hashlib.new(algorithm, spki).digest()
            if not hmac.compare_digest(digest, expected):  # (2)
                raise RatlsKeyMismatchError(
                    f"certificate: its key has {algorithm} {expected.hex()[:16]}…, evidence binds {digest.hex()[:16]}…"
                )
        found = claims.get("nonce")
        if nonce is not None and not (isinstance(found, bytes) and hmac.compare_digest(found, nonce)):  # (3)
            got = f"{found.hex()[:24]}…" if isinstance(found, bytes) else "none"
            raise RatlsNonceMismatchError(f"certificate: nonce expected {nonce.hex()[:24]}…, got {got}")


def build_claims(spki: bytes, nonce: bytes | None = None) -> bytes:
    """The claims of a certificate for the key ``spki`` (SubjectPublicKeyInfo, DER)."""
    if nonce is not None and not 0 < len(nonce) <= _MAX_NONCE:
        raise RatlsEvidenceUnsupportedError(f"nonce: {len(nonce)} bytes, need 1 to {_MAX_NONCE}")
    named = {"pubkey-hash": encode([_SHA256, hashlib.sha256(spki).digest()])}
    return encode(named if nonce is None else {**named, "nonce": nonce})


def claims_report_data(claims: bytes) -> bytes:
    """The 64 bytes of report data that bind ``claims``."""
    return hashlib.sha256(claims).digest().ljust(REPORT_DATA_SIZE, b"\0")


def encode_dice(evidence: Evidence, claims: bytes) -> bytes:
    """The extension's value; raises ``RatlsEvidenceUnsupportedError`` for evidence of another kind."""
    if evidence.tee in ("sgx", "tdx"):
        return encode([quote_of(evidence), claims], tag=QUOTE_TAG)
    if evidence.tee == "snp":
        body = parse_body(evidence.body)
        return encode([body.report, claims, body.vek or b""], tag=SNP_TAG)
    raise RatlsEvidenceUnsupportedError(f"RA-TLS: expected evidence of sgx, tdx or snp, got {evidence.tee}")


def decode_dice(value: bytes) -> Carried:
    """Read tagged evidence; raises ``RatlsCertificateMalformedError``."""
    _check_size(value)
    tag, content = decode_tagged(value, "tagged evidence")
    sizes = {QUOTE_TAG: 2, SNP_TAG: 3}
    if tag not in sizes:
        raise RatlsCertificateMalformedError(f"tagged evidence: expected tag {QUOTE_TAG} or {SNP_TAG}, got {tag}")
    if not (isinstance(content, list) and len(content) == sizes[tag] and all(isinstance(c, bytes) for c in content)):
        raise RatlsCertificateMalformedError(f"tagged evidence: need an array of {sizes[tag]} byte strings")
    raw, claims = content[:2]
    return Carried(_quote(raw) if tag == QUOTE_TAG else _snp(raw, content[2]), claims)


def decode_gramine(value: bytes) -> Carried:
    """Read the older form of Gramine; raises ``RatlsCertificateMalformedError``."""
    _check_size(value)
    return Carried(_quote(value), None)


def _check_size(value: bytes) -> None:
    if len(value) > MAX_EXTENSION_SIZE:
        raise RatlsCertificateMalformedError(
            f"evidence in certificate: {len(value)} bytes, at most {MAX_EXTENSION_SIZE}"
        )


def _quote(raw: bytes) -> Evidence:
    try:
        tee = parse_quote(raw).tee
    except MalformedEvidenceError as exc:
        raise RatlsCertificateMalformedError(f"evidence in certificate: {exc.message}") from exc
    return Evidence(tee, {"quote": base64.b64encode(raw).decode()})


def _snp(report: bytes, vek: bytes) -> Evidence:
    try:
        kind = "VLEK" if parse_report(report).signing_key == SigningKey.VLEK else "VCEK"
    except MalformedEvidenceError as exc:
        raise RatlsCertificateMalformedError(f"evidence in certificate: {exc.message}") from exc
    return Evidence("snp", build_body(report, vek or None, kind=kind))


def _parse_claims(raw: bytes) -> dict[str, Any]:
    claims = decode(raw, "claims")
    if not isinstance(claims, dict):
        raise RatlsCertificateMalformedError("claims: need a CBOR map")
    return claims


def _parse_key_hash(raw: object) -> tuple[str, bytes]:
    found = decode(raw, "pubkey-hash") if isinstance(raw, bytes) else None
    if not (isinstance(found, list) and len(found) == 2 and isinstance(found[1], bytes)) or found[0] not in _HASHES:
        raise RatlsCertificateMalformedError(f"claims: pubkey-hash: need [one of {sorted(_HASHES)}, bytes] in a bstr")
    return _HASHES[found[0]], found[1]
