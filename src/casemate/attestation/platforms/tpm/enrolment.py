"""Enrol an attestation key: an administrator learns that it lives in a TPM whose maker certified the endorsement key.

Three messages, each a JSON object that may travel any way, since none has to be kept secret but by sealing:

1. *request*, by the machine: endorsement key, its certificate, attestation key;
2. *challenge*, by the administrator, when the certificate is in order: a fresh secret, sealed so that only the TPM with
   that endorsement key opens it, and only beside that attestation key (``credential``);
3. *answer*, by the machine: the secret. Whoever made the challenge compares it and trusts the attestation key.

No network, disk or clock. TCG EK Credential Profile 2.5; TPM 2.0 Library Part 1, 24.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NoReturn

from cryptography import x509

from casemate.attestation.platforms.certificates import (
    CertificatePath,
    Flaw,
    PathError,
    Roots,
    build_path,
    load_certificates,
    load_crl,
    spki_of,
)
from casemate.attestation.platforms.tpm.credential import make_credential
from casemate.attestation.platforms.tpm.errors import (
    TpmCredentialError,
    TpmCrlExpiredError,
    TpmEkCertificateError,
    TpmEkCertificateUntrustedError,
    TpmEnrolmentUnknownError,
    TpmEvidenceMalformedError,
)
from casemate.attestation.platforms.tpm.structures import parse_public_key, parse_tpmt_public
from casemate.attestation.platforms.tpm.trust import key_id
from casemate.crypto.secret import Secret
from casemate.errors import CasemateError

__all__ = [
    "LIFETIME",
    "Challenge",
    "EkTrust",
    "Enrolment",
    "Request",
    "accept_answer",
    "answer_id",
    "make_answer",
    "make_challenge",
]

LIFETIME = timedelta(days=1)  # of a challenge
_EK_CERTIFICATE_USE = x509.ObjectIdentifier("2.23.133.8.1")  # tcg-kp-EKCertificate
_MAX_FIELD = 16 * 1024  # characters
_ERRORS: dict[Flaw, type[CasemateError]] = {
    Flaw.NO_ISSUER: TpmEkCertificateUntrustedError,
    Flaw.UNTRUSTED_ROOT: TpmEkCertificateUntrustedError,
    Flaw.CRL_EXPIRED: TpmCrlExpiredError,
}


@dataclass(frozen=True)
class Request:
    """What a machine says about its TPM; nothing of it is believed. Both keys are TPMT_PUBLIC."""

    ek_certificate: bytes  # DER
    ek_public: bytes
    ak_public: bytes

    def to_json(self) -> dict[str, str]:
        return {name: _text(getattr(self, name)) for name in ("ek_certificate", "ek_public", "ak_public")}

    @classmethod
    def from_json(cls, value: Any) -> Request:
        """Raises ``TpmEvidenceMalformedError``."""
        fields = _members(value, "enrolment request", ("ek_certificate", "ek_public", "ak_public"))
        return cls(*fields)


@dataclass(frozen=True)
class Challenge:
    """What only the right TPM can open: TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET."""

    id: str
    credential: bytes
    secret: bytes

    def to_json(self) -> dict[str, str]:
        return {"id": self.id, "credential": _text(self.credential), "secret": _text(self.secret)}

    @classmethod
    def from_json(cls, value: Any) -> Challenge:
        """Raises ``TpmEvidenceMalformedError``."""
        credential, secret = _members(value, "enrolment challenge", ("credential", "secret"))
        return cls(_id(value), credential, secret)


@dataclass(frozen=True)
class Enrolment:
    """What the administrator keeps while an answer is out: the digest of the secret, never the secret."""

    id: str
    ak: bytes  # SubjectPublicKeyInfo
    subject: str  # of the endorsement key's certificate, as its maker wrote it
    serial: str  # hex
    issuer: str
    secret_sha256: str
    expires: datetime

    @property
    def ak_id(self) -> str:
        """The key's name in policies (``platform_ids``) and claims."""
        return key_id(parse_public_key(self.ak))

    def to_json(self) -> dict[str, str]:
        named = {name: getattr(self, name) for name in ("id", "subject", "serial", "issuer", "secret_sha256")}
        return {**named, "ak": _text(self.ak), "ak_id": self.ak_id, "expires": self.expires.isoformat()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Enrolment:
        """What ``to_json`` gave, read back from the administrator's own disk."""
        named = {name: str(value[name]) for name in ("id", "subject", "serial", "issuer", "secret_sha256")}
        return cls(**named, ak=base64.b64decode(value["ak"]), expires=datetime.fromisoformat(value["expires"]))


class EkTrust:
    """Makers whose endorsement keys are believed in: ``roots``, what lies below them, their revocation lists."""

    def __init__(self, roots: Iterable[bytes], intermediates: Iterable[bytes] = (), crls: Iterable[bytes] = ()) -> None:
        try:
            self._roots = Roots(tuple(c for raw in roots for c in load_certificates(raw, "trust anchor")))
            self._pool = tuple(c for raw in intermediates for c in load_certificates(raw, "intermediate"))
            self._crls = tuple(load_crl(raw, "revocation list") for raw in crls)
        except PathError as exc:
            _raise(exc)

    def verify(self, request: Request, *, now: datetime) -> CertificatePath:
        """The path of the request's endorsement key certificate. Raises ``TpmEkCertificateError``,
        ``TpmEkCertificateUntrustedError``, ``TpmCrlExpiredError`` or what is wrong with the key."""
        # 1. The certificate can be read.   2. It is for this key.   3. It is an endorsement key's.   4. Its path.
        try:
            leaf, *rest = load_certificates(request.ek_certificate, "endorsement key certificate")  # (1)
            if spki_of(leaf) != parse_tpmt_public(request.ek_public).spki:  # (2)
                raise TpmEkCertificateError("endorsement key certificate: is for another key than the TPM's")
            if not _is_for_endorsement_keys(leaf):  # (3)
                raise TpmEkCertificateError("endorsement key certificate: is not for such a key (extended key usage)")
            pool = [*self._pool, *rest]
            return build_path(leaf, pool, self._roots, now=now, crls=self._crls, leaf_signs=False)  # (4)
        except PathError as exc:
            _raise(exc)


def make_challenge(request: Request, trust: EkTrust, *, now: datetime) -> tuple[Challenge, Enrolment]:
    """The challenge to send, and what to keep; raises what speaks against the request."""
    path = trust.verify(request, now=now)
    secret, ak = Secret.random(), parse_tpmt_public(request.ak_public)
    credential, sealed = make_credential(request.ek_public, request.ak_public, secret)
    enrolment = Enrolment(
        id=secrets.token_hex(16),
        ak=ak.spki,
        subject=path.leaf.subject.rfc4514_string() or "(none)",
        serial=f"{path.leaf.serial_number:x}",
        issuer=path.leaf.issuer.rfc4514_string(),
        secret_sha256=hashlib.sha256(secret.reveal()).hexdigest(),
        expires=now + LIFETIME,
    )
    return Challenge(enrolment.id, credential, sealed), enrolment


def make_answer(challenge: Challenge, opened: bytes) -> dict[str, str]:
    """The machine's answer, with what its TPM found in the challenge."""
    return {"id": challenge.id, "secret": _text(opened)}


def answer_id(answer: Any) -> str:
    """Which enrolment an answer is for; raises ``TpmEvidenceMalformedError``."""
    return _id(answer)


def accept_answer(enrolment: Enrolment, answer: Any, *, now: datetime) -> bytes:
    """The attestation key (SubjectPublicKeyInfo), proven to live beside the certified endorsement key.

    Raises ``TpmEnrolmentUnknownError`` (too late, or of another challenge) or ``TpmCredentialError``."""
    (secret,) = _members(answer, "enrolment answer", ("secret",))
    if _id(answer) != enrolment.id:
        raise TpmEnrolmentUnknownError(f"enrolment answer: is for {_id(answer)}, not for {enrolment.id}")
    if now >= enrolment.expires:
        raise TpmEnrolmentUnknownError(f"enrolment {enrolment.id}: the challenge expired {enrolment.expires}")
    if not hmac.compare_digest(hashlib.sha256(secret).hexdigest(), enrolment.secret_sha256):
        raise TpmCredentialError(f"enrolment {enrolment.id}: the answer is not what the challenge holds")
    return enrolment.ak


def _is_for_endorsement_keys(certificate: x509.Certificate) -> bool:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return False
    return _EK_CERTIFICATE_USE in usage


def _raise(exc: PathError) -> NoReturn:
    raise _ERRORS.get(exc.flaw, TpmEkCertificateError)(exc.message) from exc


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _id(value: Any) -> str:
    found = value.get("id") if isinstance(value, Mapping) else None
    if not isinstance(found, str) or len(found) != 2 * 16 or not set(found) <= set("0123456789abcdef"):
        raise TpmEvidenceMalformedError("enrolment: need an id of 32 hexadecimal digits")
    return found


def _members(value: Any, what: str, names: tuple[str, ...]) -> list[bytes]:
    """The base64 members of a message, in that order; at least one byte each."""
    if not isinstance(value, Mapping):
        raise TpmEvidenceMalformedError(f"{what}: need a JSON object")
    out = []
    for name in names:
        text = value.get(name)
        if not isinstance(text, str) or not 0 < len(text) <= _MAX_FIELD:
            raise TpmEvidenceMalformedError(f"{what}: need {name}, base64 of at most {_MAX_FIELD} characters")
        try:
            out.append(base64.b64decode(text, validate=True))
        except (binascii.Error, ValueError) as exc:
            raise TpmEvidenceMalformedError(f"{what}: {name} is not base64") from exc
    return out
