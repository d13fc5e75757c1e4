"""Whose attestation key is it? Certificates up to a root, an allow-list of keys, or nothing.

A quote's signature says that *some* key signed it. Only trust in the key makes it evidence, so a verifier without any
accepts nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import NoReturn

from cryptography import x509

from casemate.attestation.platforms.certificates import (
    CertificatePath,
    Flaw,
    PathError,
    Roots,
    build_path,
    der_of,
    load_certificates,
    load_crl,
    spki_of,
)
from casemate.attestation.platforms.tpm.errors import (
    TpmAkCertificateError,
    TpmAkCertificateExpiredError,
    TpmAkCertificateRevokedError,
    TpmAkCertificateUntrustedError,
    TpmAkUntrustedError,
    TpmCrlExpiredError,
    TpmKeyMismatchError,
)
from casemate.attestation.platforms.tpm.structures import AkPublic, parse_public_key
from casemate.errors import CasemateError

__all__ = ["AkTrust", "TpmTrust", "key_id"]

_ERRORS: dict[Flaw, type[CasemateError]] = {
    Flaw.MALFORMED: TpmAkCertificateError,
    Flaw.NO_ISSUER: TpmAkCertificateUntrustedError,
    Flaw.UNTRUSTED_ROOT: TpmAkCertificateUntrustedError,
    Flaw.SIGNATURE: TpmAkCertificateError,
    Flaw.EXPIRED: TpmAkCertificateExpiredError,
    Flaw.NOT_YET_VALID: TpmAkCertificateExpiredError,
    Flaw.NOT_A_CA: TpmAkCertificateError,
    Flaw.USAGE: TpmAkCertificateError,
    Flaw.REVOKED: TpmAkCertificateRevokedError,
    Flaw.CRL_EXPIRED: TpmCrlExpiredError,
    Flaw.CRL_MALFORMED: TpmAkCertificateError,
}


def _raise(exc: PathError) -> NoReturn:
    raise _ERRORS[exc.flaw](exc.message) from exc


def key_id(key: AkPublic) -> str:
    """The name of a key in allow-lists and claims: SHA-256 of its SubjectPublicKeyInfo, hex."""
    return hashlib.sha256(key.spki).hexdigest()


@dataclass(frozen=True)
class AkTrust:
    """Why an attestation key is trusted: ``certificate``, ``allow-list``, ``hcl`` (Azure) or ``none``."""

    kind: str
    simulated: bool = False
    path: CertificatePath | None = None


class TpmTrust:
    """Anchors for attestation keys, parsed once. Immutable; holds no secrets.

    ``roots`` and ``intermediates`` are certificates (DER or PEM bundles), ``pins`` SHA-256 of root certificates,
    ``keys`` attestation keys (SubjectPublicKeyInfo, DER or PEM), ``key_ids`` the same by their SHA-256, ``crls`` DER or
    PEM. What a ``simulated`` set vouches for has claims that say so."""

    def __init__(
        self,
        *,
        roots: Iterable[bytes] = (),
        pins: Iterable[str] = (),
        intermediates: Iterable[bytes] = (),
        keys: Iterable[bytes] = (),
        key_ids: Iterable[str] = (),
        crls: Iterable[bytes] = (),
        simulated: bool = False,
    ) -> None:
        self.simulated = simulated
        self.key_ids = frozenset(i.lower() for i in key_ids) | {key_id(parse_public_key(raw)) for raw in keys}
        try:
            found = tuple(c for raw in roots for c in load_certificates(raw, "trust anchor"))
            self._roots = Roots(found, frozenset(pin.lower() for pin in pins))
            self._pool = tuple(c for raw in intermediates for c in load_certificates(raw, "intermediate"))
            self._crls = tuple(load_crl(raw, "CRL") for raw in crls)
        except PathError as exc:
            _raise(exc)

    @classmethod
    def from_files(
        cls,
        anchors: Iterable[bytes],
        certificates: Iterable[bytes] = (),
        *,
        pins: Iterable[str] = (),
        crls: Iterable[bytes] = (),
        simulated: bool = False,
    ) -> TpmTrust:
        """Sort files by what is in them: an anchor is a certificate, or a public key for the allow-list."""
        roots: list[bytes] = []
        keys: list[bytes] = []
        for raw in anchors:
            (keys if _is_public_key(raw) else roots).append(raw)
        return cls(roots=roots, keys=keys, intermediates=certificates, pins=pins, crls=crls, simulated=simulated)

    @property
    def anchors(self) -> frozenset[str]:
        """Everything that ends a path here, by SHA-256; two sets that share one must not be used together."""
        certificates = {hashlib.sha256(der_of(c)).hexdigest() for c in self._roots.certificates}
        return frozenset(self.key_ids | self._roots.pins | certificates)

    def appraise_key(
        self, key: AkPublic, certificate: x509.Certificate | None, chain: Iterable[x509.Certificate], *, now: datetime
    ) -> AkTrust:
        """Why ``key`` is trusted; raises ``TpmAkUntrustedError``, or what is wrong with its certificate."""
        if certificate is not None and spki_of(certificate) != key.spki:
            raise TpmKeyMismatchError("attestation key: the certificate is for another key")
        if key_id(key) in self.key_ids:
            return AkTrust("allow-list", self.simulated)
        if certificate is None:
            raise TpmAkUntrustedError(
                f"attestation key {key_id(key)}: has no certificate, and is not among {len(self.key_ids)} allowed keys"
            )
        try:
            path = build_path(certificate, [*self._pool, *chain], self._roots, now=now, crls=self._crls)
        except PathError as exc:
            _raise(exc)
        return AkTrust("certificate", self.simulated, path)


def parse_certificate(raw: bytes) -> tuple[x509.Certificate, ...]:
    """The attestation key's certificate and whatever follows it; raises ``TpmAkCertificateError``."""
    try:
        return load_certificates(raw, "attestation key certificate")
    except PathError as exc:
        _raise(exc)


def _is_public_key(raw: bytes) -> bool:
    if raw.lstrip()[:1] == b"-":
        return b"BEGIN PUBLIC KEY" in raw
    try:
        parse_public_key(raw)
    except CasemateError:
        return False
    return True
