"""Build and read RA-TLS certificates. Bytes and times in, bytes out; no network, disk or clock."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from casemate.attestation.ratls.errors import (
    RatlsCertificateExpiredError,
    RatlsCertificateMalformedError,
    RatlsCertificateNotYetValidError,
    RatlsEvidenceMissingError,
    RatlsSelfSignatureError,
)
from casemate.attestation.ratls.extension import DICE_OID, GRAMINE_OID, Carried, decode_dice, decode_gramine

__all__ = ["MAX_CERTIFICATE_SIZE", "RatlsCertificate", "build_certificate", "parse_certificate", "spki_of"]

MAX_CERTIFICATE_SIZE = 96 * 1024
_PARSE_ERRORS = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


@dataclass(frozen=True)
class RatlsCertificate:
    """A certificate that signs itself and carries evidence; the evidence is unverified."""

    der: bytes
    spki: bytes  # SubjectPublicKeyInfo, DER
    not_before: datetime
    not_after: datetime
    carried: Carried

    def check_dates(self, now: datetime) -> None:
        """Raise unless it is valid at ``now``."""
        if now < self.not_before:
            raise RatlsCertificateNotYetValidError(f"certificate: valid from {self.not_before}, now {now}")
        if now > self.not_after:
            raise RatlsCertificateExpiredError(f"certificate: valid until {self.not_after}, now {now}")


def spki_of(key: ec.EllipticCurvePublicKey) -> bytes:
    """A public key as DER SubjectPublicKeyInfo: what the evidence binds."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def build_certificate(
    key: ec.EllipticCurvePrivateKey,
    extension: bytes,
    *,
    not_before: datetime,
    not_after: datetime,
    names: Iterable[str] = (),
    oid: str = DICE_OID,
) -> bytes:
    """A certificate (DER) for ``key``, signed by it, with evidence as the value of the extension ``oid``.

    ``names`` (DNS names and IP addresses) go into it for those who look; trust comes from the evidence alone."""
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Casemate RA-TLS")])
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=False)
        .add_extension(x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), extension), critical=False)
    )
    if general := [_general_name(name) for name in names]:
        builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=False)
    return builder.sign(key, SHA256()).public_bytes(Encoding.DER)


def parse_certificate(der: bytes) -> RatlsCertificate:
    """Read a peer's certificate and check that it signs itself; raises an error of ``ratls.errors``."""
    if len(der) > MAX_CERTIFICATE_SIZE:
        raise RatlsCertificateMalformedError(f"certificate: {len(der)} bytes, at most {MAX_CERTIFICATE_SIZE}")
    try:
        certificate = x509.load_der_x509_certificate(der)
        spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        dates = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        found = {extension.oid.dotted_string: extension.value for extension in certificate.extensions}
    except _PARSE_ERRORS as exc:
        raise RatlsCertificateMalformedError(f"certificate: not readable ({type(exc).__name__})") from exc
    for oid, read in ((DICE_OID, decode_dice), (GRAMINE_OID, decode_gramine)):
        value = found.get(oid)
        if isinstance(value, x509.UnrecognizedExtension):
            carried = read(value.value)
            break
    else:
        raise RatlsEvidenceMissingError(f"certificate: has no extension {DICE_OID} (nor Gramine's)")
    try:
        certificate.verify_directly_issued_by(certificate)
    except (*_PARSE_ERRORS, InvalidSignature) as exc:
        raise RatlsSelfSignatureError("certificate: not signed by its own key") from exc
    return RatlsCertificate(der, spki, *dates, carried)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
