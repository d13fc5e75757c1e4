"""What a quote says when the maker's word about its platform is not at hand: its signatures verified, its TCB unjudged.

The chain from the quote's own certificates over the quoting enclave to the report is checked as far as it goes without
collateral. No revocation, no TCB status, no quoting enclave identity: such claims explain, and are never accepted.
"""

from __future__ import annotations

import hashlib
import hmac
from itertools import pairwise

import dcap_qvl
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from casemate.attestation.claims import Claims, TcbClaims, WorkloadBinding
from casemate.attestation.platforms.intel import errors
from casemate.attestation.platforms.intel.quote import Quote
from casemate.attestation.platforms.intel.verifier import BodyClaims

__all__ = ["check_quote_signatures", "unendorsed_claims"]

_REPORT_DATA_AT = 320  # in the quoting enclave's report


def unendorsed_claims(quote: Quote, body: BodyClaims, *, simulated: bool) -> Claims:
    """Claims of the report body and of the platform's certificate, as the quote has them; checks no signature."""
    platform_id, extra, reported = None, {}, None
    if quote.certificates:
        try:
            pem = x509.load_der_x509_certificate(quote.certificates[0]).public_bytes(Encoding.PEM)
            pck = dcap_qvl.parse_pck_extension_from_pem(pem)
        except (ValueError, x509.InvalidVersion):
            pck = None
        if pck is not None:
            piid = pck.platform_instance_id.hex() if pck.platform_instance_id else None
            extra = {"ppid": pck.ppid.hex(), "piid": piid, "fmspc": pck.fmspc.hex(), "pce_id": pck.pce_id.hex()}
            platform_id = piid or pck.ppid.hex()
            reported = {f"sgx{i:02}": svn for i, svn in enumerate(pck.cpu_svn, 1)} | {"pcesvn": pck.pce_svn}
            reported |= {f"tdx{i:02}": svn for i, svn in enumerate(body.tdx_svns or (), 1)}
    return Claims(
        platform=quote.tee,
        simulated=simulated,
        debug=body.debug,
        measurement=body.measurement,
        signer=body.signer,
        product_id=body.product_id,
        svn=body.svn,
        rtmr=body.rtmr,
        workload=body.workload,
        workload_binding=WorkloadBinding.LAUNCH if body.workload else None,
        report_data=body.report_data,
        tcb=TcbClaims(reported=reported),
        platform_id=platform_id,
        extra={
            "quote_version": quote.version,
            "trailing_bytes": quote.trailing_bytes,
            "unsafe_attributes": list(body.unsafe_attributes),
            **(body.extra or {}),
            **extra,
        },
    )


def check_quote_signatures(quote: Quote) -> None:
    """The four signatures and the binding of the attestation key, by the certificates in the quote itself.

    Raises ``PckChainError``, ``QeReportSignatureError``, ``AttestationKeyUnboundError`` or ``QuoteSignatureError``.
    Whether the last certificate is trusted, the caller says."""
    # 1. Each certificate by the next.    3. The attestation key in the quoting enclave's report.
    # 2. That report by the platform.     4. The quote by the attestation key.
    try:
        chain = [x509.load_der_x509_certificate(der) for der in quote.certificates]
        for certificate, issuer in pairwise(chain):  # (1)
            certificate.verify_directly_issued_by(issuer)
        platform_key = chain[0].public_key()
    except (ValueError, TypeError, IndexError, InvalidSignature, UnsupportedAlgorithm, x509.InvalidVersion) as exc:
        raise errors.PckChainError(f"PCK chain: does not verify ({type(exc).__name__})") from exc
    if not isinstance(platform_key, ec.EllipticCurvePublicKey):
        raise errors.PckChainError("PCK chain: the platform's key is not on a curve")
    signed = quote.raw[: 48 + (6 if quote.version == 5 else 0) + len(quote.body)]
    tail = quote.raw[len(signed) + 4 :]
    signature, key, rest = tail[:64], tail[64:128], tail[128 + (6 if quote.version >= 4 else 0) :]
    qe_signature, authentication = rest[384:448], rest[450 : 450 + int.from_bytes(rest[448:450], "little")]
    if not _signed(platform_key, qe_signature, quote.qe_report):  # (2)
        raise errors.QeReportSignatureError("quote: the platform's key did not sign the quoting enclave's report")
    bound = hashlib.sha256(key + authentication).digest()  # (3)
    if not hmac.compare_digest(quote.qe_report[_REPORT_DATA_AT : _REPORT_DATA_AT + 32], bound):
        raise errors.AttestationKeyUnboundError("quote: the quoting enclave's report is for another attestation key")
    try:
        attestation_key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + key)
    except ValueError as exc:
        raise errors.QuoteSignatureError("quote: its attestation key is no point of P-256") from exc
    if not _signed(attestation_key, signature, signed):  # (4)
        raise errors.QuoteSignatureError("quote: its attestation key did not sign it")


def _signed(key: ec.EllipticCurvePublicKey, signature: bytes, message: bytes) -> bool:
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    try:
        key.verify(encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError):
        return False
    return True
