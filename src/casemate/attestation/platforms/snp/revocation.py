"""AMD's certificate revocation lists: who was revoked by a product's ARK, and until when a list speaks.

KDS publishes one list for the VCEK branch and one for the VLEK branch, both issued by the ARK. Its plain entries name
certificates the ARK issued (ASK, ASVK). Endorsement keys were issued by those, and all have serial number 0, so an
entry speaks of one only if it names its issuer (RFC 5280 section 5.3.3)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from casemate.attestation.platforms.snp.certificates import pss_signature_holds
from casemate.attestation.platforms.snp.chain import Chain
from casemate.attestation.platforms.snp.der import RawCertificate
from casemate.attestation.platforms.snp.endorsement import VekKind
from casemate.attestation.platforms.snp.errors import (
    SnpAskRevokedError,
    SnpCertificateAlgorithmError,
    SnpCrlExpiredError,
    SnpCrlIssuerError,
    SnpCrlMalformedError,
    SnpCrlMissingError,
    SnpCrlNotYetValidError,
    SnpCrlSignatureError,
    SnpVekRevokedError,
)

__all__ = ["RevocationList", "check_revocation", "parse_crl", "verify_crl"]

_KNOWN_CRITICAL = {"2.5.29.28", "2.5.29.29"}  # issuing distribution point, certificate issuer


@dataclass(frozen=True)
class RevocationList:
    """One list; ``revoked`` holds (issuer's name in DER, serial number). Not verified until ``verify_crl``."""

    issuer: bytes
    issuer_cn: str
    this_update: datetime
    next_update: datetime | None
    revoked: frozenset[tuple[bytes, int]]
    tbs: bytes
    signature: bytes
    pss_sha384: bool

    def names(self, certificate: RawCertificate) -> bool:
        return (certificate.issuer, certificate.serial) in self.revoked


def parse_crl(blob: bytes) -> RevocationList:
    """Read one DER or PEM revocation list; raises ``SnpCrlMalformedError``."""
    try:
        return _read(x509.load_der_x509_crl(_der(blob)))
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.InvalidVersion) as exc:
        raise SnpCrlMalformedError(f"revocation list: {exc}") from exc


def _der(blob: bytes) -> bytes:
    text = blob.strip()
    begin, end = b"-----BEGIN X509 CRL-----", b"-----END X509 CRL-----"
    if not text.startswith(b"-----"):
        return bytes(blob)
    if not (text.startswith(begin) and text.endswith(end)):
        raise SnpCrlMalformedError("revocation list: the PEM block is not an X509 CRL")
    try:
        return base64.b64decode(b"".join(text[len(begin) : -len(end)].split()), validate=True)
    except binascii.Error as exc:
        raise SnpCrlMalformedError("revocation list: the PEM block is not base64") from exc


def _read(crl: x509.CertificateRevocationList) -> RevocationList:
    for extension in crl.extensions:
        if extension.critical and extension.oid.dotted_string not in _KNOWN_CRITICAL:
            raise SnpCrlMalformedError(f"revocation list: critical extension {extension.oid.dotted_string} unknown")
        point = extension.value
        if isinstance(point, x509.IssuingDistributionPoint) and (
            point.only_some_reasons or point.only_contains_attribute_certs or point.only_contains_user_certs
        ):
            raise SnpCrlMalformedError("revocation list: it covers some reasons or certificates only")
    own = crl.issuer.public_bytes()
    names = [str(item.value) for item in crl.issuer.get_attributes_for_oid(x509.NameOID.COMMON_NAME)]
    issuer, revoked = own, set()
    for entry in crl:
        for extension in entry.extensions:
            if extension.critical and extension.oid.dotted_string not in _KNOWN_CRITICAL:
                raise SnpCrlMalformedError(f"revocation list entry: critical extension {extension.oid} unknown")
            if isinstance(extension.value, x509.CertificateIssuer):
                found = extension.value.get_values_for_type(x509.DirectoryName)
                if len(found) != 1:
                    raise SnpCrlMalformedError("revocation list entry: need one certificate issuer name")
                issuer = found[0].public_bytes()  # holds for the entries that follow, too
        revoked.add((issuer, entry.serial_number))
    scheme = crl.signature_algorithm_parameters
    return RevocationList(
        issuer=own,
        issuer_cn=names[0] if len(names) == 1 else "",
        this_update=crl.last_update_utc,
        next_update=crl.next_update_utc,
        revoked=frozenset(revoked),
        tbs=crl.tbs_certlist_bytes,
        signature=crl.signature,
        pss_sha384=isinstance(scheme, padding.PSS) and isinstance(crl.signature_hash_algorithm, hashes.SHA384),
    )


def verify_crl(crl: RevocationList, chain: Chain) -> None:
    """That the chain's ARK issued and signed the list; holds at any time. Raises the error of the check that fails."""
    if crl.issuer != chain.ark.subject:
        raise SnpCrlIssuerError(f"revocation list of {crl.issuer_cn!r}, given for {chain.product}")
    if not crl.pss_sha384:
        raise SnpCertificateAlgorithmError("revocation list: not signed with RSASSA-PSS and SHA-384")
    if not pss_signature_holds(chain.ark, crl.signature, crl.tbs):
        raise SnpCrlSignatureError(f"revocation list of {chain.product}: {chain.ark.subject_cn!r} did not sign it")


def check_revocation(
    crls: Iterable[RevocationList],
    *,
    issuer: RawCertificate,
    vek: RawCertificate,
    kind: VekKind,
    product: str,
    required: bool,
    now: datetime,
) -> datetime | None:
    """When the freshest of the verified lists ends (``None`` without any); what any of them revoked stays revoked.

    Raises ``SnpAskRevokedError``, ``SnpVekRevokedError``, ``SnpCrlNotYetValidError``, and, undecided,
    ``SnpCrlExpiredError`` when all have expired, ``SnpCrlMissingError`` when one is ``required``."""
    lists = list(crls)
    for crl in lists:
        if crl.names(issuer):
            raise SnpAskRevokedError(f"{kind.issuer_role} {issuer.subject_cn!r}, serial {issuer.serial}, is revoked")
        if crl.names(vek):
            raise SnpVekRevokedError(f"{kind} of {product}, serial {vek.serial}, is revoked")
    if not lists:
        if required:
            raise SnpCrlMissingError(f"revocation list of {product} ({kind} branch): none at hand, one is required")
        return None
    for crl in lists:
        if now < crl.this_update:
            raise SnpCrlNotYetValidError(
                f"revocation list of {product}: issued {crl.this_update.isoformat()}, the time is {now.isoformat()}"
            )
    ends = max((crl.next_update for crl in lists if crl.next_update is not None), default=None)
    if ends is None or now > ends:
        until = "without a next-update date" if ends is None else f"good until {ends.isoformat()}"
        raise SnpCrlExpiredError(f"revocation list of {product}: {until}, the time is {now.isoformat()}")
    return ends
