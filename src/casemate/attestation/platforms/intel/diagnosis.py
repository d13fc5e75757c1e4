"""Give a refusal of ``dcap-qvl`` its name: the library says no with one exception type and a line of text.

Nothing is accepted here. The library's answer stands; this only finds out which step it was, by its text and, where
that is too coarse (certificate chains), by looking at the same certificates and lists again.
"""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec

from casemate.attestation.platforms.intel import errors
from casemate.attestation.platforms.intel.collateral import Collateral
from casemate.attestation.platforms.intel.quote import Quote
from casemate.attestation.platforms.intel.tcb import SEVERITY
from casemate.errors import CasemateError

__all__ = ["ATTRIBUTE_REFUSALS", "diagnose"]

ATTRIBUTE_REFUSALS = ("Debug mode is enabled", "SEPT_VE_DISABLE is not enabled")
"""What the library refuses after everything else has verified, and what a policy may want to judge itself."""

_BY_TEXT: tuple[tuple[str, type[CasemateError]], ...] = (
    ("ISV enclave report signature is invalid", errors.QuoteSignatureError),
    ("Signature is invalid for qe_report", errors.QeReportSignatureError),
    ("QE report hash mismatch", errors.AttestationKeyUnboundError),
    ("Signature is invalid for tcb_info", errors.TcbInfoSignatureError),
    ("Signature is invalid for qe_identity", errors.QeIdentitySignatureError),
    ("TCBInfo expired", errors.TcbInfoExpiredError),
    ("TCBInfo issue date is in the future", errors.TcbInfoFutureError),
    ("QE Identity expired", errors.QeIdentityExpiredError),
    ("QE Identity issue date is in the future", errors.QeIdentityFutureError),
    ("CrlExpired", errors.CrlExpiredError),
    ("Fmspc mismatch", errors.FmspcMismatchError),
    ("TCB status is invalid: Revoked", errors.TcbRevokedError),
    ("TCB status is invalid", errors.TcbStatusUnknownError),
    ("unknown variant", errors.TcbStatusUnknownError),
    ("No matching TCB level found", errors.NoMatchingTcbLevelError),
    ("TDX module TCB level", errors.TdxModuleMismatchError),
    ("QE MRSIGNER mismatch", errors.QeMrsignerMismatchError),
    ("QE ISVPRODID mismatch", errors.QeProductMismatchError),
    ("QE ATTRIBUTES mismatch", errors.QeAttributesMismatchError),
    ("QE MISCSELECT mismatch", errors.QeMiscselectMismatchError),
    ("QE report validation failed", errors.QeAttributesMismatchError),
    ("QE ISVSVN", errors.QeTcbUnknownError),
    ("No TCB levels found in QE Identity", errors.QeTcbUnknownError),
    ("No matching QE TCB level", errors.QeTcbUnknownError),
    ("TDX module", errors.TdxModuleMismatchError),
    ("tdxModule", errors.TcbInfoMalformedError),
    ("TDX quote with non-TDX TCB info", errors.CollateralTeeMismatchError),
    ("SGX quote with non-SGX TCB info", errors.CollateralTeeMismatchError),
    ("Unsupported QE Identity id", errors.CollateralTeeMismatchError),
    ("Reserved bits in TD attributes", errors.TdAttributesReservedError),
    ("TD migration is enabled", errors.TdMigratableError),
    ("TD profiling is enabled", errors.TdProfilingError),
    ("SERVTD", errors.ServiceTdError),
    ("SERVICETD", errors.ServiceTdError),
    ("service TD", errors.ServiceTdError),
    ("component count mismatch", errors.TcbInfoMalformedError),
    ("Failed to decode TcbInfo", errors.TcbInfoMalformedError),
    ("TCB Info", errors.TcbInfoMalformedError),
    ("Failed to decode TCB FMSPC", errors.TcbInfoMalformedError),
    ("Failed to decode QeIdentity", errors.QeIdentityMalformedError),
    ("QE Identity", errors.QeIdentityMalformedError),
    ("Unknown QE vendor ID", errors.QeVendorUnknownError),
    ("Unsupported DCAP quote version", errors.QuoteVersionUnsupportedError),
    ("Unsupported DCAP attestation key type", errors.AttestationKeyUnsupportedError),
    ("Unsupported DCAP PCK cert format", errors.CertificationDataUnsupportedError),
    ("Failed to decode quote", errors.QuoteMalformedError),
    ("Invalid QE auth data length", errors.QuoteMalformedError),
    ("PCK", errors.PckChainError),
    ("Intel extension", errors.PckChainError),
    ("Certificate chain is too short in quote", errors.PckChainError),
)


def diagnose(text: str, quote: Quote, collateral: Collateral, root: bytes, now: datetime) -> CasemateError:
    """The typed error for a refusal of the library, ``text`` being its message."""
    detail = text.removeprefix("Verification failed: ")
    if "ertificate chain" in text or "CRL" in text or "Crl" in text or "UntrustedTrust" in text:
        found = _collateral_dates(collateral, now) or _chains(quote, collateral, root, now)
        if found is not None:
            return found
    if "too short for TCB Info" in text or "too short for QE Identity" in text:
        return errors.CollateralChainError(f"collateral: {detail}")
    found = _by_content(text, quote, collateral, detail)
    if found is not None:
        return found
    for part, error in _BY_TEXT:
        if part in text:
            if issubclass(error, errors.TcbInfoExpiredError | errors.QeIdentityExpiredError | errors.CrlExpiredError):
                return _collateral_dates(collateral, now) or error(f"collateral: {detail}")
            return error(f"quote: {detail}")
    return errors.QuoteRefusedError(f"quote: {detail}")


def _by_content(text: str, quote: Quote, collateral: Collateral, detail: str) -> CasemateError | None:
    """Where one text stands for several reasons, what the documents say."""
    if "QE report validation failed" in text and quote.qe_report[48] & 2:
        return errors.QeDebugError("quote: the quoting enclave runs in debug mode")
    if quote.tee == "tdx" and "TDX" in text and "tdxModule" not in collateral.tcb_info and collateral.tee == "tdx":
        return errors.TcbInfoMalformedError(f"TCB info: has no tdxModule ({detail})")
    if "decode TcbInfo" in text:
        levels = collateral.tcb_info.get("tcbLevels")
        for level in levels if isinstance(levels, list) else ():
            status = level.get("tcbStatus") if isinstance(level, dict) else None
            if isinstance(status, str) and status not in SEVERITY:
                return errors.TcbStatusUnknownError(f"TCB info: status {status!r} is not one this verifier knows")
    return None


_DATE_ERRORS: dict[str, tuple[type[CasemateError], type[CasemateError]]] = {
    "TCB info": (errors.TcbInfoExpiredError, errors.TcbInfoFutureError),
    "QE identity": (errors.QeIdentityExpiredError, errors.QeIdentityFutureError),
    "root CA CRL": (errors.CrlExpiredError, errors.CrlInvalidError),
    "PCK CRL": (errors.CrlExpiredError, errors.CrlInvalidError),
}


def _collateral_dates(collateral: Collateral, now: datetime) -> CasemateError | None:
    for piece in collateral.pieces:
        expired, future = _DATE_ERRORS[piece.name]
        if now > piece.expires:
            return expired(f"{piece.name}: good until {piece.expires.isoformat()}, now {now.isoformat()}")
        if now < piece.issued and piece.name in ("TCB info", "QE identity"):
            return future(f"{piece.name}: issued {piece.issued.isoformat()}, now {now.isoformat()}")
    return None


def _chains(quote: Quote, collateral: Collateral, root: bytes, now: datetime) -> CasemateError | None:
    """Look at the three chains and the two lists once more, in the order in which a reader would."""
    try:
        anchor = x509.load_der_x509_certificate(root)
        signers = {name: collateral.chain(f"{name}_issuer_chain") for name in ("tcb_info", "qe_identity")}
        crl_chain = collateral.chain("pck_crl_issuer_chain")
        root_crl, pck_crl = collateral.crl("root_ca_crl"), collateral.crl("pck_crl")
    except (ValueError, TypeError, KeyError, x509.InvalidVersion, UnsupportedAlgorithm) as exc:
        return errors.CollateralMalformedError(f"collateral: a certificate or revocation list does not parse ({exc})")
    for name, chain in signers.items():
        if len(chain) < 2:
            return errors.CollateralChainError(f"{name}: its issuer chain is too short")
        if chain[-1] != anchor:
            return errors.CollateralUntrustedError(f"{name}: its issuer chain ends in another root than the evidence's")
    if not _signed(root_crl, anchor):
        return errors.CrlInvalidError("root CA CRL: not signed by the trusted root")
    if not crl_chain or not _signed(pck_crl, crl_chain[0]):
        return errors.CrlInvalidError("PCK CRL: not signed by the authority it names")
    for name, chain in signers.items():
        if _revoked(root_crl, chain[0]):
            return errors.CollateralSignerRevokedError(f"{name}: its signer is revoked")
        if any(now > c.not_valid_after_utc for c in chain):
            return errors.CollateralSignerExpiredError(f"{name}: its signer's certificate has expired")
        if _is_ca(chain[0]) or not _links(chain, anchor, now):
            return errors.CollateralChainError(f"{name}: its issuer chain does not verify")
    return _pck_chain(quote, collateral, anchor, root_crl, pck_crl, now)


def _pck_chain(
    quote: Quote,
    collateral: Collateral,
    anchor: x509.Certificate,
    root_crl: x509.CertificateRevocationList,
    pck_crl: x509.CertificateRevocationList,
    now: datetime,
) -> CasemateError | None:
    try:
        chain = [x509.load_der_x509_certificate(der) for der in quote.certificates]
        if not chain:
            chain = collateral.chain("pck_certificate_chain")
    except (ValueError, KeyError, x509.InvalidVersion, UnsupportedAlgorithm) as exc:
        return errors.PckChainError(f"PCK chain: a certificate does not parse ({exc})")
    if len(chain) < 2:
        return errors.PckChainError("PCK chain: too short")
    if any(_revoked(root_crl, c) for c in chain[1:]):
        return errors.PckCaRevokedError("PCK chain: its certifying authority is on the root's revocation list")
    if _revoked(pck_crl, chain[0]):
        return errors.PckRevokedError("PCK chain: the platform's certificate is on the revocation list")
    if any(not c.not_valid_before_utc <= now <= c.not_valid_after_utc for c in chain):
        return errors.PckExpiredError(f"PCK chain: a certificate is not valid at {now.isoformat()}")
    if _is_ca(chain[0]) or not _links(chain, anchor, now):
        return errors.PckChainError("PCK chain: does not verify up to the trusted root")
    if pck_crl.issuer != chain[0].issuer:
        return errors.CrlInvalidError("PCK CRL: speaks for another authority than the one that certified the platform")
    return None


def _links(chain: list[x509.Certificate], anchor: x509.Certificate, now: datetime) -> bool:
    if chain[-1] != anchor:
        chain = [*chain, anchor]
    try:
        for cert, issuer in pairwise(chain):
            cert.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return all(c.not_valid_before_utc <= now <= c.not_valid_after_utc for c in chain)


def _is_ca(cert: x509.Certificate) -> bool:
    try:
        return cert.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return False


def _signed(crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    try:
        key = issuer.public_key()
        return isinstance(key, ec.EllipticCurvePublicKey) and crl.is_signature_valid(key)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False


def _revoked(crl: x509.CertificateRevocationList, cert: x509.Certificate) -> bool:
    try:
        return crl.get_revoked_certificate_by_serial_number(cert.serial_number) is not None
    except ValueError:  # a negative serial number is on no list; the chain was refused already
        return False
