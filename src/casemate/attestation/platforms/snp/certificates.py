"""X.509 as AMD uses it: reading a certificate twice over, what it may be used for, when, and who signed it.

Source: AMD publication 57230 (Versioned Chip Endorsement Key certificate and KDS interface specification)."""

from __future__ import annotations

import base64
import binascii
import re
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from casemate.attestation.platforms.snp.der import (
    BIT_STRING,
    BOOLEAN,
    SEQUENCE,
    RawCertificate,
    children,
    read_certificate,
    read_element,
)
from casemate.attestation.platforms.snp.errors import (
    SnpCertificateAlgorithmError,
    SnpCertificateExpiredError,
    SnpCertificateMalformedError,
    SnpCertificateNotYetValidError,
    SnpCertificateSignatureError,
    SnpCertificateUsageError,
    SnpCriticalExtensionError,
    SnpExtensionMalformedError,
    SnpExtensionMissingError,
)

__all__ = [
    "PSS_IDENTIFIERS",
    "check_issuer_usage",
    "check_validity",
    "extension_content",
    "extension_value",
    "is_ca",
    "parse_certificate",
    "pss_signature_holds",
    "public_key",
    "refuse_critical",
    "split_certificates",
    "verify_signature",
]

_OID_KEY_USAGE, _OID_BASIC_CONSTRAINTS = "2.5.29.15", "2.5.29.19"
_MAX_BUNDLE_SIZE = 256 * 1024  # bytes; AMD's have 7 KiB
_KEY_CERT_SIGN = 0x04  # in the first byte of the KeyUsage bits

# RSASSA-PSS with SHA-384, MGF1 with SHA-384, 48 bytes of salt; AMD writes the default trailer field or leaves it out.
_SHA384 = bytes.fromhex("300d06096086480165030402020500")
_PSS_BODY = b"\xa0\x0f" + _SHA384 + bytes.fromhex("a11c301a06092a864886f70d010108") + _SHA384 + b"\xa2\x03\x02\x01\x30"
_PSS_OID = bytes.fromhex("06092a864886f70d01010a")


def _pss_identifier(body: bytes) -> bytes:
    parameters = b"\x30" + bytes([len(body)]) + body
    return b"\x30" + bytes([len(_PSS_OID + parameters)]) + _PSS_OID + parameters


PSS_IDENTIFIERS = (_pss_identifier(_PSS_BODY), _pss_identifier(_PSS_BODY + b"\xa3\x03\x02\x01\x01"))
_PSS = padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=48)


# -- reading -----------------------------------------------------------------------------------------------------------
def parse_certificate(der: bytes) -> RawCertificate:
    """Read one DER certificate; ``cryptography`` must read the same in it unless its serial number is 0.

    Our own reader always decides, so nothing changes on the day ``cryptography`` refuses serial number 0."""
    certificate = read_certificate(der)
    if certificate.serial != 0:
        _second_reader_agrees(certificate)
    return certificate


def _second_reader_agrees(certificate: RawCertificate) -> None:
    try:
        other = x509.load_der_x509_certificate(certificate.der)
        same = (
            other.serial_number == certificate.serial
            and other.tbs_certificate_bytes == certificate.tbs
            and other.signature == certificate.signature
            and other.not_valid_before_utc == certificate.not_before
            and other.not_valid_after_utc == certificate.not_after
            and {item.oid.dotted_string for item in other.extensions} == set(certificate.extensions)
        )
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension) as exc:
        raise SnpCertificateMalformedError(f"certificate {certificate.subject_cn!r}: {exc}") from exc
    if not same:
        raise SnpCertificateMalformedError(f"certificate {certificate.subject_cn!r}: two readers disagree about it")


def split_certificates(blob: bytes) -> list[bytes]:
    """The DER certificates of a PEM bundle, or of one or several DER certificates in a row, in their order.

    Raises ``SnpCertificateMalformedError``; nothing but white space may stand outside the PEM blocks' lines."""
    if len(blob) > _MAX_BUNDLE_SIZE:
        raise SnpCertificateMalformedError(f"bundle: got {len(blob)} bytes, at most {_MAX_BUNDLE_SIZE} are read")
    if not blob.lstrip().startswith(b"-----BEGIN "):
        found, offset = [], 0
        while offset < len(blob):
            element, offset = read_element(blob, offset)
            found.append(element.raw)
        return found
    found = []
    pattern = re.compile(rb"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]{1,65536}?)-----END CERTIFICATE-----")
    for match in pattern.finditer(blob):
        try:
            found.append(base64.b64decode(b"".join(match[1].split()), validate=True))
        except binascii.Error as exc:
            raise SnpCertificateMalformedError("PEM certificate is not base64") from exc
    if pattern.sub(b"", blob).strip():
        raise SnpCertificateMalformedError("PEM bundle has text that is no certificate")
    return found


def public_key(certificate: RawCertificate) -> object:
    """The certified key, of whatever type; raises ``SnpCertificateMalformedError``."""
    try:
        return load_der_public_key(certificate.public_key)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise SnpCertificateMalformedError(f"certificate {certificate.subject_cn!r}: public key: {exc}") from exc


def extension_value(certificate: RawCertificate, oid: str) -> bytes:
    """The content of an extension's extnValue; raises ``SnpExtensionMissingError``."""
    extension = certificate.extensions.get(oid)
    if extension is None:
        raise SnpExtensionMissingError(f"certificate {certificate.subject_cn!r} lacks extension {oid}")
    return extension.value


def extension_content(certificate: RawCertificate, oid: str, tags: tuple[int, ...]) -> bytes:
    """The content of the one element in an extension, of one of ``tags``; raises ``SnpExtensionMalformedError`` too."""
    value = extension_value(certificate, oid)
    try:
        element, end = read_element(value)
    except SnpCertificateMalformedError as exc:
        raise SnpExtensionMalformedError(f"extension {oid}: {exc}") from exc
    if element.tag not in tags or end != len(value):
        raise SnpExtensionMalformedError(f"extension {oid}: {value[:80].hex()} is not of the type AMD defines")
    return element.value


# -- constraints -------------------------------------------------------------------------------------------------------
def is_ca(certificate: RawCertificate) -> bool:
    """Whether the basic constraints say CA."""
    if _OID_BASIC_CONSTRAINTS not in certificate.extensions:
        return False
    content = children(extension_content(certificate, _OID_BASIC_CONSTRAINTS, (SEQUENCE,)))
    return bool(content) and content[0].tag == BOOLEAN and content[0].value == b"\xff"


def check_issuer_usage(certificate: RawCertificate) -> None:
    """An issuer must be a CA and may sign certificates; other critical extensions are unknown here."""
    refuse_critical(certificate, known=(_OID_BASIC_CONSTRAINTS, _OID_KEY_USAGE))
    usage = b"\x00\x00"
    if _OID_KEY_USAGE in certificate.extensions:
        usage = extension_content(certificate, _OID_KEY_USAGE, (BIT_STRING,))
    if not is_ca(certificate) or len(usage) < 2 or not usage[1] & _KEY_CERT_SIGN:
        raise SnpCertificateUsageError(f"certificate {certificate.subject_cn!r} is no CA's: it may not issue others")


def refuse_critical(certificate: RawCertificate, *, known: tuple[str, ...]) -> None:
    """Raises ``SnpCriticalExtensionError`` for a critical extension that is not ``known``."""
    for oid, extension in certificate.extensions.items():
        if extension.critical and oid not in known:
            raise SnpCriticalExtensionError(f"certificate {certificate.subject_cn!r}: critical extension {oid} unknown")


def check_validity(certificate: RawCertificate, now: datetime) -> None:
    """Raises ``SnpCertificateNotYetValidError``, or, undecided, ``SnpCertificateExpiredError``."""
    if now < certificate.not_before:
        raise SnpCertificateNotYetValidError(
            f"certificate {certificate.subject_cn!r}: valid from {certificate.not_before.isoformat()}, "
            f"the time is {now.isoformat()}"
        )
    if now > certificate.not_after:
        raise SnpCertificateExpiredError(
            f"certificate {certificate.subject_cn!r}: valid until {certificate.not_after.isoformat()}, "
            f"the time is {now.isoformat()}"
        )


# -- signatures --------------------------------------------------------------------------------------------------------
def pss_signature_holds(issuer: RawCertificate, signature: bytes, message: bytes) -> bool:
    """Whether ``signature`` is RSASSA-PSS (SHA-384, 48 bytes of salt) over ``message`` by ``issuer``'s key."""
    key = public_key(issuer)
    if not isinstance(key, rsa.RSAPublicKey):
        raise SnpCertificateAlgorithmError(f"certificate {issuer.subject_cn!r}: key is not RSA")
    try:
        key.verify(signature, message, _PSS, hashes.SHA384())
    except InvalidSignature:
        return False
    return True


def verify_signature(certificate: RawCertificate, issuer: RawCertificate) -> None:
    """Raises ``SnpCertificateAlgorithmError`` or ``SnpCertificateSignatureError`` unless ``issuer`` signed."""
    name = certificate.subject_cn
    if certificate.signature_algorithm not in PSS_IDENTIFIERS:
        raise SnpCertificateAlgorithmError(
            f"certificate {name!r}: not signed with RSASSA-PSS, SHA-384, 48 bytes of salt"
        )
    if not pss_signature_holds(issuer, certificate.signature, certificate.tbs):
        raise SnpCertificateSignatureError(f"certificate {name!r}: {issuer.subject_cn!r} did not sign it")
