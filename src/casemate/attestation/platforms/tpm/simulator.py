"""A TPM that exists only as a key: well-formed quotes over any PCR values, and malformed ones, to test verifiers with.

It signs whatever it is asked to, which no TPM does; its keys are worth nothing outside a test or a benchmark. For a TPM
that keeps its own PCRs, use swtpm and the attester.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from casemate.attestation.platforms.tpm.structures import HASH_NAMES, ST_ATTEST_QUOTE, TPM_GENERATED

__all__ = ["AkAuthority", "SimulatedTpm", "attest_quote", "pcr_selection"]

_HASH_IDS = {name: identifier for identifier, name in HASH_NAMES.items()}
_HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha1": hashes.SHA1(),  # noqa: S303 - to be refused
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
RESTRICTED_SIGNER = 0x00050072


def _tpm2b(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


def pcr_selection(bank: int | str, pcrs: Iterable[int], size: int = 3) -> bytes:
    """One TPMS_PCR_SELECTION."""
    identifier = bank if isinstance(bank, int) else _HASH_IDS[bank]
    bitmap = sum(1 << n for n in pcrs).to_bytes(size, "little")
    return struct.pack(">HB", identifier, size) + bitmap


def attest_quote(
    nonce: bytes,
    selections: Iterable[bytes],
    digest: bytes,
    *,
    magic: int = TPM_GENERATED,
    kind: int = ST_ATTEST_QUOTE,
    signer: bytes = b"\x00\x0b" + bytes(32),
    resets: int = 1,
    restarts: int = 0,
    clock_ms: int = 1000,
    firmware: int = 1,
) -> bytes:
    """TPMS_ATTEST of a quote, every field free."""
    parts = list(selections)
    return (
        struct.pack(">IH", magic, kind)
        + _tpm2b(signer)
        + _tpm2b(nonce)
        + struct.pack(">QIIBQ", clock_ms, resets, restarts, 1, firmware)
        + struct.pack(">I", len(parts))
        + b"".join(parts)
        + _tpm2b(digest)
    )


class SimulatedTpm:
    """An attestation key of one kind: ``rsassa``, ``rsapss`` or ``ecdsa``, with the hash it signs over."""

    def __init__(self, scheme: str = "ecdsa", hash_name: str = "sha256", *, key: Any = None) -> None:
        self.scheme = scheme
        self.hash = hash_name
        if key is None:
            key = (
                ec.generate_private_key(ec.SECP256R1()) if scheme == "ecdsa" else rsa.generate_private_key(65537, 2048)
            )
        self._key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey = key

    @property
    def public_key(self) -> ec.EllipticCurvePublicKey | rsa.RSAPublicKey:
        return self._key.public_key()

    @property
    def spki(self) -> bytes:
        return self.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def tpmt_public(self, attributes: int = RESTRICTED_SIGNER) -> bytes:
        """TPMT_PUBLIC of the key, with the attributes asked for."""
        public, scheme = self.public_key, {"rsassa": 0x14, "rsapss": 0x16, "ecdsa": 0x18}[self.scheme]
        kind = 0x0001 if isinstance(public, rsa.RSAPublicKey) else 0x0023
        head = struct.pack(">HHI", kind, 0x000B, attributes) + _tpm2b(b"")
        head += struct.pack(">HHH", 0x0010, scheme, _HASH_IDS[self.hash])
        if isinstance(public, rsa.RSAPublicKey):
            modulus = public.public_numbers().n.to_bytes(public.key_size // 8, "big")
            return head + struct.pack(">HI", public.key_size, 0) + _tpm2b(modulus)
        numbers = public.public_numbers()
        return (
            head
            + struct.pack(">HH", 3, 0x10)
            + _tpm2b(numbers.x.to_bytes(32, "big"))
            + _tpm2b(numbers.y.to_bytes(32, "big"))
        )

    def sign(self, message: bytes) -> bytes:
        """TPMT_SIGNATURE over ``message``, whatever it is."""
        algorithm, key = _HASHES[self.hash], self._key
        if isinstance(key, ec.EllipticCurvePrivateKey):
            r, s = decode_dss_signature(key.sign(message, ec.ECDSA(algorithm)))
            return (
                struct.pack(">HH", 0x18, _HASH_IDS[self.hash])
                + _tpm2b(r.to_bytes(32, "big"))
                + _tpm2b(s.to_bytes(32, "big"))
            )
        pss = padding.PSS(padding.MGF1(algorithm), algorithm.digest_size)
        pad: padding.AsymmetricPadding = pss if self.scheme == "rsapss" else padding.PKCS1v15()
        scheme = 0x16 if self.scheme == "rsapss" else 0x14
        return struct.pack(">HH", scheme, _HASH_IDS[self.hash]) + _tpm2b(key.sign(message, pad, algorithm))

    def quote(self, pcrs: Mapping[int, bytes], nonce: bytes, *, bank: str = "sha256", **fields: Any) -> bytes:
        """TPMS_ATTEST over ``pcrs``; ``fields`` go to ``attest_quote``."""
        digest = hashlib.new(self.hash, b"".join(pcrs[n] for n in sorted(pcrs))).digest()
        return attest_quote(nonce, [pcr_selection(bank, pcrs)], fields.pop("digest", digest), **fields)

    def evidence(
        self, pcrs: Mapping[int, bytes], nonce: bytes, *, bank: str = "sha256", **fields: Any
    ) -> dict[str, Any]:
        """A body of tee ``tpm``, as the confidential-containers attester sends it (PCRs by number)."""
        message = self.quote(pcrs, nonce, bank=bank, **fields)
        return {
            "ak_public": base64.b64encode(self.spki).decode(),
            "tpm_quote": {
                "message": base64.b64encode(message).decode(),
                "signature": base64.b64encode(self.sign(message)).decode(),
                "pcr_bank": bank,
                "pcrs": {str(n): value.hex() for n, value in pcrs.items()},
            },
        }


class AkAuthority:
    """A root, an intermediate, certificates for attestation keys, and CRLs, all valid around ``now``."""

    def __init__(self, now: datetime, *, years: int = 5) -> None:
        self._now, self._life = now, timedelta(days=365 * years)
        self._root_key = ec.generate_private_key(ec.SECP256R1())
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.root = self._issue("simulated TPM root", self._root_key.public_key(), ca=True, issuer=None)
        self.intermediate = self._issue("simulated TPM issuer", self._key.public_key(), ca=True, issuer=self.root)

    def certify(
        self,
        public_key: Any,
        *,
        not_before: datetime | None = None,
        not_after: datetime | None = None,
        ca: bool = False,
    ) -> x509.Certificate:
        """A certificate for an attestation key."""
        return self._issue(
            "attestation key", public_key, ca=ca, issuer=self.intermediate, not_before=not_before, not_after=not_after
        )

    def crl(self, *revoked: x509.Certificate, next_update: datetime | None = None) -> bytes:
        """The intermediate's CRL, DER."""
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.intermediate.subject)
        end = next_update or self._now + timedelta(days=30)
        builder = builder.last_update(min(self._now, end) - timedelta(days=1)).next_update(end)
        for certificate in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(certificate.serial_number)
            builder = builder.add_revoked_certificate(entry.revocation_date(self._now - timedelta(days=2)).build())
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.DER)

    def _issue(
        self,
        name: str,
        public_key: Any,
        *,
        ca: bool,
        issuer: x509.Certificate | None,
        not_before: datetime | None = None,
        not_after: datetime | None = None,
    ) -> x509.Certificate:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usage = x509.KeyUsage(
            digital_signature=not ca,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=ca,
            crl_sign=ca,
            encipher_only=False,
            decipher_only=False,
        )
        signer = self._root_key if issuer is None or issuer.subject != self._name("simulated TPM issuer") else self._key
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if issuer is None else issuer.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(not_before or self._now - timedelta(days=1))
            .not_valid_after(not_after or self._now + self._life)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .sign(signer, hashes.SHA256())
        )

    @staticmethod
    def _name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
