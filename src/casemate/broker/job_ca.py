"""A certificate authority per job: only attested members of one job trust, and are trusted by, each other.

No I/O, no clock. The CA's private key is kept wrapped under the root key; the caller passes it in for one signature.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from casemate.crypto.errors import InvalidKeyError
from casemate.crypto.jwk import Jwk, read_public_key
from casemate.crypto.secret import Secret
from casemate.errors import UsageError

__all__ = ["CERTIFICATE_LIFETIME", "Authority", "create_authority", "ec_public_key", "issue"]

CERTIFICATE_LIFETIME = timedelta(hours=1)
_AUTHORITY_LIFETIME = timedelta(days=30)
_SKEW = timedelta(minutes=1)  # a member's clock may be a little behind
_DNS_NAME = re.compile(r"(?=.{1,253}$)[a-zA-Z0-9]([a-zA-Z0-9-]{0,62})(\.[a-zA-Z0-9]([a-zA-Z0-9-]{0,62}))*\Z")
_MAX_NAMES = 32


@dataclass(frozen=True)
class Authority:
    """A certificate and its private key (PKCS#8 DER)."""

    certificate_pem: str
    private_key: Secret


def _name(common_name: str, unit: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit),
        ]
    )


def create_authority(
    common_name: str, unit: str, *, now: datetime, lifetime: timedelta = _AUTHORITY_LIFETIME
) -> Authority:
    """A fresh EC P-256 CA that may sign end-entity certificates only."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(common_name, unit)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, SHA256())
    )
    raw = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return Authority(certificate.public_bytes(Encoding.PEM).decode(), Secret(raw))


def issue(
    authority: Authority,
    public: Jwk,
    *,
    common_name: str,
    unit: str,
    names: Sequence[str],
    now: datetime,
    lifetime: timedelta = CERTIFICATE_LIFETIME,
) -> str:
    """A PEM certificate for an EC P-256 public key, for TLS in both directions, valid for ``lifetime`` from now.

    ``names`` are DNS names or IP addresses. Raises ``InvalidKeyError`` or ``UsageError``."""
    ca = x509.load_pem_x509_certificate(authority.certificate_pem.encode())
    ca_key = load_der_private_key(authority.private_key.reveal(), password=None)
    if not isinstance(ca_key, ec.EllipticCurvePrivateKey):
        raise InvalidKeyError("certificate authority: need an EC key")
    not_after = min(now + lifetime, ca.not_valid_after_utc)
    if not_after <= now:
        raise UsageError(f"the certificate authority of {unit} ended at {ca.not_valid_after_utc.isoformat()}")
    key = ec_public_key(public)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_name(common_name, unit))
        .issuer_name(ca.subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(not_after)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(x509.SubjectAlternativeName(_general_names(names)), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, SHA256())
    )
    return certificate.public_bytes(Encoding.PEM).decode()


def ec_public_key(public: Jwk) -> ec.EllipticCurvePublicKey:
    """The P-256 key of a JWK; raises ``InvalidKeyError`` for any other."""
    key = read_public_key(public).key
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidKeyError(f"certificate: need an EC P-256 key, got {public.get('kty')} {public.get('crv') or ''}")
    return key


def _general_names(names: Sequence[str]) -> list[x509.GeneralName]:
    unique = list(dict.fromkeys(names))
    if not 1 <= len(unique) <= _MAX_NAMES:
        raise UsageError(f"certificate: need 1 to {_MAX_NAMES} names, got {len(unique)}")
    out: list[x509.GeneralName] = []
    for name in unique:
        try:
            out.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            if not _DNS_NAME.match(name):
                raise UsageError(f"certificate: {name!r} is neither a DNS name nor an IP address") from None
            out.append(x509.DNSName(name))
    return out


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
