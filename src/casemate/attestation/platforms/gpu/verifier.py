"""Verify NVIDIA GPU evidence: certificate chain to NVIDIA's device root, the report's signature, challenge, firmware.

What the measurements *should* be is in NVIDIA's signed reference manifests (RIM), which are not compared here; the
claims say so (``measurements_compared: false``), and a policy that needs it has to compare values itself.
No network, disk or clock.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime
from typing import Any, NoReturn

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.x509.oid import NameOID

from casemate.attestation.claims import Claims
from casemate.attestation.evidence import Evidence
from casemate.attestation.platforms.certificates import (
    CertificatePath,
    Flaw,
    PathError,
    Roots,
    build_path,
    der_of,
    load_certificates,
    load_crl,
)
from casemate.attestation.platforms.gpu.binding import check_device_nonce
from casemate.attestation.platforms.gpu.errors import (
    GpuArchitectureError,
    GpuCertificateError,
    GpuCertificateExpiredError,
    GpuCertificateRevokedError,
    GpuCertificateUntrustedError,
    GpuCrlExpiredError,
    GpuFirmwareIdError,
    GpuNonceMismatchError,
    GpuSignatureError,
)
from casemate.attestation.platforms.gpu.evidence import DeviceEvidence, parse_devices
from casemate.attestation.platforms.gpu.report import FWID_SIZE, GpuReport, parse_report
from casemate.errors import CasemateError, UsageError

__all__ = ["NVIDIA_DEVICE_ROOT_PIN", "GpuVerifier", "verify_signature"]

NVIDIA_DEVICE_ROOT_PIN = "102bf659d5419614c9d8e6aecebc80454eb26b1df6a769ac720b9a690b167b48"
"""SHA-256 of the DER certificate "NVIDIA Device Identity CA" (P-384, self-signed, from 2021)."""

_ARCHITECTURES = {"GH": "HOPPER", "GB": "BLACKWELL"}  # the leaf's common name starts with the chip's
_DICE_TCB_INFO = {x509.ObjectIdentifier("2.23.133.5.4.1"), x509.ObjectIdentifier("2.23.133.5.4.1.1")}
_SHA384_DIGEST = bytes.fromhex("0609608648016503040202 0430")  # DER: the algorithm's OID, then 48 bytes
_ERRORS: dict[Flaw, type[CasemateError]] = {
    Flaw.NO_ISSUER: GpuCertificateUntrustedError,
    Flaw.UNTRUSTED_ROOT: GpuCertificateUntrustedError,
    Flaw.EXPIRED: GpuCertificateExpiredError,
    Flaw.NOT_YET_VALID: GpuCertificateExpiredError,
    Flaw.REVOKED: GpuCertificateRevokedError,
    Flaw.CRL_EXPIRED: GpuCrlExpiredError,
}


def _raise(exc: PathError) -> NoReturn:
    raise _ERRORS.get(exc.flaw, GpuCertificateError)(exc.message) from exc


class GpuVerifier:
    """A ``Verifier`` of NVIDIA evidence (tee ``nvidia``): all devices of a list are verified, or none is accepted.

    ``pins`` are SHA-256 of trusted root certificates (hex); ``simulated_pins`` likewise, and claims below them say
    ``simulated``. ``crls`` are NVIDIA's, DER or PEM; they are checked where they speak of a path."""

    def __init__(
        self,
        *,
        pins: Iterable[str] = (NVIDIA_DEVICE_ROOT_PIN,),
        simulated_pins: Iterable[str] = (),
        crls: Iterable[bytes] = (),
    ) -> None:
        real, simulated = (frozenset(pin.lower() for pin in given) for given in (pins, simulated_pins))
        if real & simulated:
            raise UsageError("GPU trust: a root is both a real and a simulated one")
        self._simulated = simulated
        self._roots = Roots(pins=real | simulated)
        try:
            self._crls = tuple(load_crl(raw, "CRL") for raw in crls)
        except PathError as exc:
            _raise(exc)

    def verify(self, evidence: Evidence, *, now: datetime, report_data: bytes | None = None) -> Claims:
        """Claims with one entry per device in ``extra.devices``; raises a ``RefusedError`` or ``UndecidedError``.

        ``report_data`` is the devices' (see ``binding``), checked when given; else the caller compares the claim
        ``report_data``, which is the nonce that all devices answered."""
        devices = parse_devices(evidence.body)
        verified = [self._verify_device(device, now, report_data) for device in devices]
        nonces = {report.nonce for report, _ in verified}
        if len(nonces) != 1:
            raise GpuNonceMismatchError(f"GPU evidence: its {len(devices)} devices answer {len(nonces)} challenges")
        ids = [_device_id(path) for _, path in verified]
        return Claims(
            platform="gpu",
            simulated=any(self._is_simulated(path) for _, path in verified),
            debug=False,
            report_data=nonces.pop().hex(),
            platform_id=",".join(ids),
            collateral_expires=min(path.expires for _, path in verified),
            extra={
                "measurements_compared": False,  # with a reference integrity manifest
                "devices": [
                    _device_claims(device, report, path)
                    for device, (report, path) in zip(devices, verified, strict=True)
                ],
            },
        )

    def _verify_device(
        self, device: DeviceEvidence, now: datetime, report_data: bytes | None
    ) -> tuple[GpuReport, CertificatePath]:
        # 1. Read the report and the chain.       4. Challenge.
        # 2. The chain to a trusted root.         5. The certificate was issued for this firmware.
        # 3. The report's signature.              6. The architecture stated is the certificate's.
        report = parse_report(device.report)  # (1)
        try:
            leaf, *pool = load_certificates(device.certificates, "GPU certificate chain")
            path = build_path(leaf, pool, self._roots, now=now, crls=self._crls)  # (2)
        except PathError as exc:
            _raise(exc)
        verify_signature(report, leaf)  # (3)
        if report_data is not None:
            check_device_nonce(report.nonce, report_data)  # (4)
        if device.nonce is not None:
            check_device_nonce(report.nonce, device.nonce)
        _check_firmware(report, leaf)  # (5)
        _check_architecture(device, leaf)  # (6)
        return report, path

    def _is_simulated(self, path: CertificatePath) -> bool:
        return Roots(pins=self._simulated).trusts(path.certificates[-1])


def verify_signature(report: GpuReport, leaf: x509.Certificate) -> None:
    """The report is signed by the key of ``leaf``, a P-384 one; says nothing about whose certificate that is."""
    key = leaf.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise GpuCertificateError("GPU certificate: the device's key is not on P-384")
    half = len(report.signature) // 2
    r, s = (int.from_bytes(part, "big") for part in (report.signature[:half], report.signature[half:]))
    try:
        key.verify(encode_dss_signature(r, s), report.signed, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature as exc:
        raise GpuSignatureError("GPU report: its signature does not verify under the device's certificate") from exc


def _certified_firmware(leaf: x509.Certificate) -> str | None:
    """The first SHA-384 firmware id in the certificate's DICE extension: Hopper has one, Blackwell a list."""
    for extension in leaf.extensions:
        if extension.oid in _DICE_TCB_INFO and isinstance(extension.value, x509.UnrecognizedExtension):
            _, found, rest = extension.value.value.partition(_SHA384_DIGEST)
            return rest[:FWID_SIZE].hex() if found and len(rest) >= FWID_SIZE else None
    return None


def _check_firmware(report: GpuReport, leaf: x509.Certificate) -> None:
    certified = _certified_firmware(leaf)
    if certified is None or report.firmware_id != certified:
        raise GpuFirmwareIdError(f"GPU report: firmware id {report.firmware_id}, the certificate is for {certified}")


def _common_name(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""


def _check_architecture(device: DeviceEvidence, leaf: x509.Certificate) -> str:
    certified = _ARCHITECTURES.get(_common_name(leaf)[:2])
    stated = (device.architecture or certified or "").upper()
    if certified is None or stated != certified:
        raise GpuArchitectureError(f"GPU: states {stated[:32]!r}, its certificate is for {_common_name(leaf)!r}")
    return certified


def _device_id(path: CertificatePath) -> str:
    """The serial number in the subject of the certificate that issued the leaf: one per chip, fixed in hardware."""
    issuer = path.certificates[1] if len(path.certificates) > 1 else path.leaf
    serials = issuer.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)
    return str(serials[0].value).lower() if serials else f"{issuer.serial_number:x}"


def _device_claims(device: DeviceEvidence, report: GpuReport, path: CertificatePath) -> dict[str, Any]:
    return {
        "architecture": _ARCHITECTURES[_common_name(path.leaf)[:2]],
        "uuid": device.uuid,
        "device_id": _device_id(path),
        "certificate": _common_name(path.leaf),
        "root": hashlib.sha256(der_of(path.certificates[-1])).hexdigest(),
        "crls_checked": path.crls_checked,
        "nonce": report.nonce.hex(),
        "measurements": {str(index): value.hex() for index, value in sorted(report.measurements.items())},
        **report.opaque,
    }
