"""A GPU that exists only as a key and a certificate chain: reports as a Hopper device makes them, and malformed ones.

For tests and benchmarks. Its root is its own; NVIDIA's pin never matches it.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from casemate.attestation.platforms.certificates import der_of

__all__ = ["SimulatedGpu", "measurement_block"]

_DICE_TCB_INFO = x509.ObjectIdentifier("2.23.133.5.4.1")
_SHA384_DIGEST = bytes.fromhex("06096086480165030402020430")
_FWID, _DRIVER = 20, 3
_POINT = PublicFormat.CompressedPoint


def measurement_block(index: int, value: bytes, *, specification: int = 1, kind: int = 1) -> bytes:
    """One DMTF measurement block."""
    inner = struct.pack("<BH", kind, len(value)) + value
    return struct.pack("<BBH", index, specification, len(inner)) + inner


class SimulatedGpu:
    """A device below its own root: root -> device CA -> report key, all P-384, valid around ``now``."""

    def __init__(
        self, now: datetime, *, name: str = "GH100 A01 GSP FMC LF", curve: ec.EllipticCurve | None = None
    ) -> None:
        self._now = now
        self.firmware_id = hashlib.sha384(b"simulated firmware").digest()
        self._root_key, self._ca_key = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
        self._key = ec.generate_private_key(curve or ec.SECP384R1())
        self.root = self._issue("simulated device root", self._root_key, None, self._root_key, ca=True)
        self.ca = self._issue("simulated device CA", self._ca_key, self.root, self._root_key, ca=True)
        self.leaf = self.certify(name)

    @property
    def pin(self) -> str:
        """SHA-256 of the root, to trust it by."""
        return hashlib.sha256(der_of(self.root)).hexdigest()

    def certify(self, name: str, *, firmware_id: bytes | None = None, **validity: Any) -> x509.Certificate:
        """A certificate for the report key; the device's own unless another firmware, name or time is asked for."""
        dice = _SHA384_DIGEST + (self.firmware_id if firmware_id is None else firmware_id)
        return self._issue(name, self._key, self.ca, self._ca_key, dice=dice, **validity)

    def chain(self, *certificates: x509.Certificate) -> bytes:
        """PEM of ``certificates``, or of the device's own three."""
        return b"".join(c.public_bytes(Encoding.PEM) for c in certificates or (self.leaf, self.ca, self.root))

    def crl(self, *revoked: x509.Certificate, next_update: datetime | None = None) -> bytes:
        """The device CA's CRL, DER."""
        end = next_update or self._now + timedelta(days=30)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.ca.subject).next_update(end)
        builder = builder.last_update(min(self._now, end) - timedelta(days=1))
        for certificate in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(certificate.serial_number)
            builder = builder.add_revoked_certificate(entry.revocation_date(self._now).build())
        return builder.sign(self._ca_key, hashes.SHA384()).public_bytes(Encoding.DER)

    def message(
        self,
        nonce: bytes,
        *,
        request: bytes = b"\x11\xe0\x01\xff",
        response: bytes = b"\x11\x60\x00\x00",
        record: bytes | None = None,
        count: int | None = None,
        opaque: Mapping[int, bytes] | bytes | None = None,
        tail: bytes = b"",
    ) -> bytes:
        """Request and response, every part free; two measurements by default."""
        blocks = [measurement_block(n, hashlib.sha384(bytes([n])).digest()) for n in (1, 2)]
        record = b"".join(blocks) if record is None else record
        if opaque is None:
            opaque = {_DRIVER: b"550.90.07\0", _FWID: self.firmware_id}
        if not isinstance(opaque, bytes):
            opaque = b"".join(struct.pack("<HH", kind, len(value)) + value for kind, value in opaque.items())
        head = request + nonce + b"\0" + response + bytes([2 if count is None else count])
        body = len(record).to_bytes(3, "little") + record + bytes(32) + struct.pack("<H", len(opaque)) + opaque
        return head + body + tail

    def sign(self, message: bytes) -> bytes:
        """The message with its signature, r and s of 48 bytes."""
        r, s = decode_dss_signature(self._key.sign(message, ec.ECDSA(hashes.SHA384())))
        return message + r.to_bytes(48, "big") + s.to_bytes(48, "big")

    def evidence(
        self, nonce: bytes, *, chain: bytes | None = None, arch: str = "HOPPER", **parts: Any
    ) -> dict[str, Any]:
        """A body of tee ``nvidia`` with this one device."""
        device = {
            "arch": arch,
            "uuid": "GPU-simulated",
            "evidence": base64.b64encode(self.sign(self.message(nonce, **parts))).decode(),
            "certificate": base64.b64encode(self.chain() if chain is None else chain).decode(),
        }
        return {"device_evidence_list": [device]}

    def _issue(
        self,
        name: str,
        key: ec.EllipticCurvePrivateKey,
        issuer: x509.Certificate | None,
        signer: ec.EllipticCurvePrivateKey,
        *,
        ca: bool = False,
        dice: bytes | None = None,
        not_before: datetime | None = None,
        not_after: datetime | None = None,
    ) -> x509.Certificate:
        serial = hashlib.sha256(key.public_key().public_bytes(Encoding.X962, _POINT)).hexdigest()[:18].upper()
        attributes = [(NameOID.COMMON_NAME, name), (NameOID.SERIAL_NUMBER, serial)]
        subject = x509.Name([x509.NameAttribute(oid, value) for oid, value in attributes])
        usage = x509.KeyUsage(not ca, False, False, False, False, ca, ca, False, False)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if issuer is None else issuer.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(not_before or self._now - timedelta(days=1))
            .not_valid_after(not_after or self._now + timedelta(days=3650))
            .add_extension(usage, critical=True)
        )
        if ca:
            builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        if dice is not None:
            builder = builder.add_extension(x509.UnrecognizedExtension(_DICE_TCB_INFO, dice), critical=False)
        return builder.sign(signer, hashes.SHA384())
