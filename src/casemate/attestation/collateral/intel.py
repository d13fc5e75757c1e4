"""Intel collateral before it is kept: every signature up to the pinned root, and every date. No network, disk, clock.

A quote's verifier checks all of this again with the quote; here it keeps what nobody signed out of the cache."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from casemate.attestation.collateral.errors import CollateralNotYetValidError
from casemate.attestation.collateral.pieces import CachedPiece
from casemate.attestation.endorsements import common_name
from casemate.attestation.platforms.intel import errors
from casemate.attestation.platforms.intel.collateral import Collateral
from casemate.attestation.trust import is_intel_root
from casemate.attestation.trust_errors import TrustAnchorError
from casemate.errors import CasemateError

__all__ = ["check_dates", "is_older", "pieces_of", "set_name", "signed_by", "verify_collateral"]

_ERRORS = (ValueError, TypeError, KeyError, IndexError, InvalidSignature, UnsupportedAlgorithm, x509.DuplicateExtension)
_SIGNED: tuple[tuple[str, type[CasemateError]], ...] = (
    ("tcb_info", errors.TcbInfoSignatureError),
    ("qe_identity", errors.QeIdentitySignatureError),
)
_EXPIRED: dict[str, type[CasemateError]] = {
    "TCB info": errors.TcbInfoExpiredError,
    "QE identity": errors.QeIdentityExpiredError,
    "root CA CRL": errors.CrlExpiredError,
    "PCK CRL": errors.CrlExpiredError,
}


def set_name(collateral: Collateral) -> str:
    """``tdx 00a06d080000 platform``: which family of platforms a set speaks of."""
    return f"{collateral.tee} {collateral.fmspc} {collateral.ca}"


def verify_collateral(collateral: Collateral, root: bytes | None = None) -> None:
    """That ``root`` (DER; Intel's own, by its pinned key, without one) vouches for every piece; dates are not judged.

    Raises ``CollateralUntrustedError``, ``CollateralChainError``, ``CollateralSignerRevokedError``,
    ``PckCaRevokedError``, ``TcbInfoSignatureError``, ``QeIdentitySignatureError``, ``CrlInvalidError`` or
    ``CollateralMalformedError``."""
    # 1. The pinned root ends every chain.     3. TCB info and QE identity, by signers that are not revoked.
    # 2. The root's revocation list.           4. The PCK CRL, by an authority that is not revoked.
    anchor = _anchor(collateral, root)  # (1)
    try:
        chains = {name: collateral.chain(f"{name}_issuer_chain") for name in ("tcb_info", "qe_identity", "pck_crl")}
        root_crl, pck_crl = collateral.crl("root_ca_crl"), collateral.crl("pck_crl")
        signatures = {name: bytes.fromhex(collateral.document[f"{name}_signature"]) for name, _ in _SIGNED}
    except _ERRORS as exc:
        raise errors.CollateralMalformedError(f"collateral: a certificate or list does not parse ({exc})") from exc
    for name, chain in chains.items():
        _check_chain(name.replace("_", " "), chain, anchor)
    if root_crl.issuer != anchor.subject or not _crl_signed(root_crl, anchor):  # (2)
        raise errors.CrlInvalidError("root CA CRL: not signed by the trusted root")
    for name, error in _SIGNED:  # (3)
        signer = chains[name][0]
        if _is_ca(signer):
            raise errors.CollateralChainError(f"{name}: its signer {common_name(signer.subject)!r} is an authority")
        if _revoked(root_crl, signer):
            raise errors.CollateralSignerRevokedError(f"{name}: its signer is on the root's revocation list")
        if not signed_by(collateral.document[name].encode(), signatures[name], signer):
            raise error(f"{name.replace('_', ' ')}: its signature does not verify")
    authority = chains["pck_crl"][0]  # (4)
    if not _is_ca(authority):
        raise errors.CollateralChainError("pck crl: its issuer is not an authority")
    if _revoked(root_crl, authority):
        raise errors.PckCaRevokedError(f"PCK CRL: {common_name(authority.subject)!r} is on the root's revocation list")
    if pck_crl.issuer != authority.subject or not _crl_signed(pck_crl, authority):
        raise errors.CrlInvalidError("PCK CRL: not signed by the authority it names")


def check_dates(collateral: Collateral, now: datetime) -> None:
    """That every piece holds at ``now``; raises, undecided, the ``CollateralExpiredError`` of the first that does not.

    A piece from the future raises ``CollateralNotYetValidError``, a refusal."""
    for piece in collateral.pieces:
        if now < piece.issued:
            raise CollateralNotYetValidError(
                f"{set_name(collateral)}: {piece.name}: issued {piece.issued.isoformat()}, now {now.isoformat()}"
            )
        if now > piece.expires:
            raise _EXPIRED[piece.name](
                f"{set_name(collateral)}: {piece.name}: good until {piece.expires.isoformat()}, now {now.isoformat()}"
            )
    for signer in _signers(collateral):
        if signer.expires is not None and now > signer.expires:
            raise errors.CollateralSignerExpiredError(signer.explain(now))


def pieces_of(collateral: Collateral) -> list[CachedPiece]:
    """The four signed pieces of a set and the certificates of those who signed them."""
    name = set_name(collateral)
    info, identity = collateral.tcb_info, collateral.qe_identity
    subjects = {
        "TCB info": f"evaluation {info.get('tcbEvaluationDataNumber', '?')}",
        "QE identity": str(identity.get("id", "?")),
        "root CA CRL": common_name(collateral.crl("root_ca_crl").issuer),
        "PCK CRL": common_name(collateral.crl("pck_crl").issuer),
    }
    signed = [CachedPiece(name, p.name, subjects[p.name], p.issued, p.expires) for p in collateral.pieces]
    return signed + _signers(collateral)


def is_older(new: Collateral, old: Collateral) -> str | None:
    """The name of the first piece in which ``new`` goes back behind ``old``: what a replay would try."""
    if _evaluation(new) < _evaluation(old):
        return "TCB evaluation data number"
    dates = {piece.name: piece.issued for piece in old.pieces}
    return next((piece.name for piece in new.pieces if piece.issued < dates[piece.name]), None)


def _evaluation(collateral: Collateral) -> int:
    number = collateral.tcb_info.get("tcbEvaluationDataNumber")
    return number if isinstance(number, int) else 0


def _signers(collateral: Collateral) -> list[CachedPiece]:
    found: dict[bytes, CachedPiece] = {}
    for name in ("tcb_info", "qe_identity", "pck_crl"):
        for certificate in collateral.chain(f"{name}_issuer_chain"):
            subject = common_name(certificate.subject)
            start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
            found[certificate.signature] = CachedPiece(set_name(collateral), "certificate", subject, start, end)
    return list(found.values())


def _anchor(collateral: Collateral, root: bytes | None) -> x509.Certificate:
    der = collateral.root if root is None else root
    try:
        if root is None and not is_intel_root(der):
            raise errors.CollateralUntrustedError("collateral: its chains do not end in the Intel SGX Root CA")
        return x509.load_der_x509_certificate(der)
    except (ValueError, TrustAnchorError) as exc:
        raise errors.CollateralMalformedError(f"collateral: its root certificate does not parse ({exc})") from exc


def _check_chain(name: str, chain: Sequence[x509.Certificate], anchor: x509.Certificate) -> None:
    if len(chain) < 2:
        raise errors.CollateralChainError(f"{name}: its issuer chain has {len(chain)} certificates, need 2")
    if chain[-1] != anchor:
        raise errors.CollateralUntrustedError(f"{name}: its issuer chain ends in another root than the trusted one")
    for certificate, issuer in pairwise((*chain, anchor)):
        try:
            certificate.verify_directly_issued_by(issuer)
        except _ERRORS as exc:
            raise errors.CollateralChainError(
                f"{name}: {common_name(certificate.subject)!r} was not issued by {common_name(issuer.subject)!r}"
            ) from exc
        if not _is_ca(issuer):
            raise errors.CollateralChainError(f"{name}: {common_name(issuer.subject)!r} issues without being a CA")


def signed_by(message: bytes, signature: bytes, signer: x509.Certificate) -> bool:
    """Whether ``signature`` (r and s, 32 bytes each) is ECDSA P-256 over ``message`` by ``signer``'s key."""
    key = signer.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or len(signature) != 64:
        return False
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    try:
        key.verify(encode_dss_signature(r, s), message, ec.ECDSA(SHA256()))
    except _ERRORS:
        return False
    return True


def _crl_signed(crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    key = issuer.public_key()
    try:
        return isinstance(key, ec.EllipticCurvePublicKey) and crl.is_signature_valid(key)
    except _ERRORS:
        return False


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (*_ERRORS, x509.ExtensionNotFound):
        return False


def _revoked(crl: x509.CertificateRevocationList, certificate: x509.Certificate) -> bool:
    return crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None
