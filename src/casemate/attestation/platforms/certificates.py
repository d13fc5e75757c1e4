"""Certificate paths of device makers: from a leaf through untrusted intermediates to a root that is pinned or given.

Device certificates are not web certificates: no host names, odd extended key usages, lives of decades. What is checked
is RFC 5280 section 6 without name constraints and policies: signatures, validity at ``now``, CA flags, path lengths,
key usage, unknown critical extensions, and CRLs where they are given. No network, no disk, no clock.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from itertools import pairwise
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

__all__ = [
    "CertificatePath",
    "Flaw",
    "PathError",
    "Roots",
    "build_path",
    "der_of",
    "load_certificates",
    "load_crl",
    "name_of",
    "spki_of",
]

_T = TypeVar("_T", bound=x509.ExtensionType)

MAX_PATH_LENGTH = 8
MAX_CERTIFICATES = 32
MAX_CERTIFICATE_BYTES = 16 * 1024
_MIN_RSA_BITS = 2048
_KNOWN_CRITICAL = frozenset(
    {
        x509.OID_BASIC_CONSTRAINTS,
        x509.OID_KEY_USAGE,
        x509.OID_EXTENDED_KEY_USAGE,
        x509.OID_SUBJECT_ALTERNATIVE_NAME,
        x509.OID_SUBJECT_KEY_IDENTIFIER,
        x509.OID_AUTHORITY_KEY_IDENTIFIER,
        x509.OID_CRL_DISTRIBUTION_POINTS,
    }
)


class Flaw(StrEnum):
    """What is wrong with a path; platforms map each to an error class of their own."""

    MALFORMED = "malformed"
    NO_ISSUER = "no-issuer"
    UNTRUSTED_ROOT = "untrusted-root"
    SIGNATURE = "signature"
    EXPIRED = "expired"
    NOT_YET_VALID = "not-yet-valid"
    NOT_A_CA = "not-a-ca"
    USAGE = "usage"
    REVOKED = "revoked"
    CRL_EXPIRED = "crl-expired"
    CRL_MALFORMED = "crl-malformed"


class PathError(Exception):
    """A path does not hold. Stops at the platform's boundary, which turns it into one of its typed errors."""

    def __init__(self, flaw: Flaw, message: str) -> None:
        super().__init__(message)
        self.flaw = flaw
        self.message = message


@dataclass(frozen=True)
class Roots:
    """What ends a path: whole certificates, or SHA-256 pins (hex of the DER) of certificates found on the way."""

    certificates: tuple[x509.Certificate, ...] = ()
    pins: frozenset[str] = frozenset()

    def trusts(self, certificate: x509.Certificate) -> bool:
        return certificate in self.certificates or hashlib.sha256(der_of(certificate)).hexdigest() in self.pins


@dataclass(frozen=True)
class CertificatePath:
    """A path that holds, leaf first, root last; ``expires`` is the earliest end of any certificate or CRL used."""

    certificates: tuple[x509.Certificate, ...]
    expires: datetime
    crls_checked: int

    @property
    def leaf(self) -> x509.Certificate:
        return self.certificates[0]


def der_of(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def name_of(certificate: x509.Certificate) -> str:
    """The subject for messages; device leaves often have none."""
    return certificate.subject.rfc4514_string() or f"serial {certificate.serial_number:x}"


def load_certificates(raw: bytes, what: str) -> tuple[x509.Certificate, ...]:
    """One DER certificate or a bundle of PEM ones; raises ``PathError(MALFORMED)``."""
    if not 0 < len(raw) <= MAX_CERTIFICATES * MAX_CERTIFICATE_BYTES:
        raise PathError(Flaw.MALFORMED, f"{what}: {len(raw)} bytes")
    try:
        if raw.lstrip()[:1] == b"-":
            certificates = tuple(x509.load_pem_x509_certificates(raw))
        else:
            certificates = (x509.load_der_x509_certificate(raw),)
        for certificate in certificates:
            _touch(certificate)
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as exc:
        raise PathError(Flaw.MALFORMED, f"{what}: not a certificate that can be read") from exc
    if len(certificates) > MAX_CERTIFICATES:
        raise PathError(Flaw.MALFORMED, f"{what}: {len(certificates)} certificates, at most {MAX_CERTIFICATES}")
    return certificates


def _touch(certificate: x509.Certificate) -> None:
    """Parse everything that the library would otherwise parse (and fail on) later; raises ``ValueError``."""
    if certificate.serial_number < 0:  # revocation lists cannot even be asked for it
        raise ValueError("negative serial number")
    _ = certificate.extensions, certificate.public_key(), certificate.subject, certificate.issuer
    _ = certificate.signature_hash_algorithm, certificate.not_valid_before_utc, certificate.not_valid_after_utc


def load_crl(raw: bytes, what: str) -> x509.CertificateRevocationList:
    """A DER or PEM CRL; raises ``PathError(CRL_MALFORMED)``."""
    try:
        pem = raw.lstrip()[:1] == b"-"
        crl = x509.load_pem_x509_crl(raw) if pem else x509.load_der_x509_crl(raw)
        _ = crl.issuer, crl.last_update_utc, crl.next_update_utc, len(crl)
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as exc:
        raise PathError(Flaw.CRL_MALFORMED, f"{what}: not a CRL that can be read") from exc
    return crl


def build_path(
    leaf: x509.Certificate,
    pool: Sequence[x509.Certificate],
    roots: Roots,
    *,
    now: datetime,
    crls: Iterable[x509.CertificateRevocationList] = (),
    leaf_signs: bool = True,
) -> CertificatePath:
    """The path from ``leaf`` to one of ``roots``, every link checked at ``now``; raises ``PathError``.

    ``leaf_signs``: the leaf's key signs; otherwise it decrypts, as a TPM's endorsement key does.

    ``pool`` is untrusted. Its certificates are tried by issuer name; a wrong one with the right name costs one
    signature check and is passed over."""
    path = [leaf]
    while not roots.trusts(path[-1]):
        if len(path) == MAX_PATH_LENGTH:
            raise PathError(Flaw.UNTRUSTED_ROOT, f"certificate path: longer than {MAX_PATH_LENGTH}")
        path.append(_issuer_of(path[-1], [*roots.certificates, *pool[:MAX_CERTIFICATES]]))
    for depth, certificate in enumerate(path):
        _check_certificate(certificate, depth, now, leaf_signs)
    expires, checked = _check_revocation(path, tuple(crls), now)
    return CertificatePath(tuple(path), min(expires, *(c.not_valid_after_utc for c in path)), checked)


def _issuer_of(certificate: x509.Certificate, candidates: Sequence[x509.Certificate]) -> x509.Certificate:
    if certificate.subject == certificate.issuer and _issued(certificate, certificate):
        raise PathError(Flaw.UNTRUSTED_ROOT, f"certificate path ends in {name_of(certificate)}, which is not trusted")
    named = [c for c in candidates if c.subject == certificate.issuer and c != certificate]
    for candidate in named:
        if _issued(certificate, candidate):
            return candidate
    if named:
        raise PathError(Flaw.SIGNATURE, f"certificate {name_of(certificate)}: not signed by {name_of(named[0])}")
    raise PathError(
        Flaw.NO_ISSUER,
        f"certificate {name_of(certificate)}: issuer {certificate.issuer.rfc4514_string()!r} is not at hand",
    )


@lru_cache(maxsize=256)
def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether the signature holds. It does so at any time, so the answer is kept; dates are checked at every use."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return True


def _check_certificate(certificate: x509.Certificate, depth: int, now: datetime, leaf_signs: bool) -> None:
    name = name_of(certificate)
    if now < certificate.not_valid_before_utc:
        raise PathError(Flaw.NOT_YET_VALID, f"certificate {name}: valid from {certificate.not_valid_before_utc}")
    if now > certificate.not_valid_after_utc:
        raise PathError(Flaw.EXPIRED, f"certificate {name}: expired {certificate.not_valid_after_utc}, now {now}")
    for extension in certificate.extensions:
        if extension.critical and extension.oid not in _KNOWN_CRITICAL:
            raise PathError(Flaw.USAGE, f"certificate {name}: unknown critical extension {extension.oid.dotted_string}")
    if _is_weak(certificate):
        raise PathError(Flaw.SIGNATURE, f"certificate {name}: a weak key or signature hash")
    usage = _extension(certificate, x509.KeyUsage)
    if depth == 0:
        if usage is not None and not (usage.digital_signature if leaf_signs else usage.key_encipherment):
            verb = "sign" if leaf_signs else "encrypt keys"
            raise PathError(Flaw.USAGE, f"certificate {name}: its key may not {verb} (key usage)")
        return
    constraints = _extension(certificate, x509.BasicConstraints)
    if constraints is None or not constraints.ca or (usage is not None and not usage.key_cert_sign):
        raise PathError(Flaw.NOT_A_CA, f"certificate {name}: issues certificates without being a CA")
    if constraints.path_length is not None and constraints.path_length < depth - 1:
        raise PathError(Flaw.NOT_A_CA, f"certificate {name}: path length {constraints.path_length}, got {depth - 1}")


def _is_weak(certificate: x509.Certificate) -> bool:
    key, hash_algorithm = certificate.public_key(), certificate.signature_hash_algorithm
    if hash_algorithm is not None and hash_algorithm.digest_size < 32:
        return True
    return not isinstance(key, ec.EllipticCurvePublicKey) and not (
        isinstance(key, rsa.RSAPublicKey) and key.key_size >= _MIN_RSA_BITS
    )


def _extension(certificate: x509.Certificate, kind: type[_T]) -> _T | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _check_revocation(
    path: Sequence[x509.Certificate], crls: Sequence[x509.CertificateRevocationList], now: datetime
) -> tuple[datetime, int]:
    """The earliest next update of the CRLs that speak of this path, and how many there were."""
    expires, checked = path[0].not_valid_after_utc, 0
    for certificate, issuer in pairwise(path):
        for crl in crls:
            if crl.issuer != issuer.subject:
                continue
            if not _crl_signed(crl, issuer):
                raise PathError(Flaw.CRL_MALFORMED, f"CRL of {name_of(issuer)}: its signature does not verify")
            if crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None:
                raise PathError(Flaw.REVOKED, f"certificate {name_of(certificate)}: revoked by {name_of(issuer)}")
            if crl.next_update_utc is None or now > crl.next_update_utc:
                raise PathError(Flaw.CRL_EXPIRED, f"CRL of {name_of(issuer)}: next update was {crl.next_update_utc}")
            expires, checked = min(expires, crl.next_update_utc), checked + 1
    return expires, checked


def _crl_signed(crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    key = issuer.public_key()
    try:
        return isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey) and crl.is_signature_valid(key)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False


def spki_of(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
