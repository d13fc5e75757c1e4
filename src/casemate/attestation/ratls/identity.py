"""A TEE's own RA-TLS identity: a key that never leaves its memory, and the certificate its evidence is in."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from casemate.attestation.evidence import Attester
from casemate.attestation.ratls.certificate import build_certificate, spki_of
from casemate.attestation.ratls.extension import build_claims, claims_report_data, encode_dice

__all__ = ["CERTIFICATE_LIFETIME", "Identity", "create_identity"]

CERTIFICATE_LIFETIME = timedelta(hours=12)
_EARLIER = timedelta(minutes=5)  # for clocks that differ


@dataclass(frozen=True)
class Identity:
    """Key, certificate (DER), and the attester that answers for connections. Make it inside the TEE, keep it there."""

    key: ec.EllipticCurvePrivateKey = field(repr=False)
    certificate: bytes
    attester: Attester

    @property
    def spki(self) -> bytes:
        return spki_of(self.key.public_key())

    @property
    def expires(self) -> datetime:
        return x509.load_der_x509_certificate(self.certificate).not_valid_after_utc

    def load_into(self, context: ssl.SSLContext) -> None:
        """Give key and certificate to a context of the standard library, which reads files: this one is memory only."""
        fd = os.memfd_create("casemate-ratls", os.MFD_CLOEXEC)
        try:
            with os.fdopen(os.dup(fd), "wb") as file:
                file.write(self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
                file.write(x509.load_der_x509_certificate(self.certificate).public_bytes(Encoding.PEM))
            context.load_cert_chain(f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)


def create_identity(
    attester: Attester,
    *,
    names: Iterable[str] = ("localhost",),
    nonce: bytes | None = None,
    lifetime: timedelta = CERTIFICATE_LIFETIME,
    now: datetime | None = None,
) -> Identity:
    """A fresh P-256 key, evidence over it, and the certificate with both; raises what the attester raises."""
    now = now or datetime.now(UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    claims = build_claims(spki_of(key.public_key()), nonce)
    extension = encode_dice(attester.collect(claims_report_data(claims)), claims)
    certificate = build_certificate(key, extension, not_before=now - _EARLIER, not_after=now + lifetime, names=names)
    return Identity(key, certificate, attester)
