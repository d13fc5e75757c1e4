"""Google Cloud vTPMs: the roots of their attestation-key certificates, and the instance that such a certificate names.

The certificate extension is documented with Google's go-tpm-tools; the roots are published at pki.goog.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cryptography import x509

from casemate.attestation.platforms.tpm.errors import TpmAkCertificateError
from casemate.attestation.platforms.tpm.trust import TpmTrust

__all__ = ["GOOGLE_ROOT_PINS", "google_trust", "instance_claims"]

GOOGLE_ROOT_PINS = frozenset(
    {
        "9bd5285f8fb18502a7947e621ffd470266f49fcd3b73e19a190f690ad32a7caf",  # tpm_ek_v1_cloud_host_root, to 2118
        "594759594b9b61524f6c8ef668f7177f7b9066bc0674f2f49fe9e052be78beb2",  # EK/AK CA Root, to 2122
    }
)  # SHA-256 of the DER certificate

_INSTANCE = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.1.21")
_SEQUENCE, _INTEGER, _BOOLEAN, _UTF8 = 0x30, 0x02, 0x01, 0x0C
_CONTEXT = 0xA0


def google_trust(certificates: Iterable[bytes] = (), *, crls: Iterable[bytes] = ()) -> TpmTrust:
    """Trust in attestation keys of Google Cloud; ``certificates`` are the intermediates and the pinned root itself."""
    return TpmTrust(pins=GOOGLE_ROOT_PINS, intermediates=certificates, crls=crls)


def instance_claims(certificate: x509.Certificate) -> dict[str, Any]:
    """``{"gce": {...}}`` when the certificate names a Google Cloud instance, else nothing."""
    try:
        extension = certificate.extensions.get_extension_for_oid(_INSTANCE).value
    except x509.ExtensionNotFound:
        return {}
    raw = extension.value if isinstance(extension, x509.UnrecognizedExtension) else b""
    fields = _children(_only(raw, _SEQUENCE))
    if [tag for tag, _ in fields[:5]] != [_UTF8, _INTEGER, _UTF8, _INTEGER, _UTF8]:
        raise TpmAkCertificateError("attestation key certificate: unknown form of the instance extension")
    zone, project, project_id, instance, name = (value for _, value in fields[:5])
    claims: dict[str, Any] = {
        "zone": zone.decode(errors="replace"),
        "project_number": int.from_bytes(project, "big"),
        "project_id": project_id.decode(errors="replace"),
        "instance_id": int.from_bytes(instance, "big"),
        "instance_name": name.decode(errors="replace"),
    }
    for tag, value in fields[5:]:
        if tag == _CONTEXT:
            claims.update(_security_properties(_only(value, _SEQUENCE)))
    return {"gce": claims}


def _security_properties(raw: bytes) -> dict[str, Any]:
    claims: dict[str, Any] = {}
    for tag, value in _children(raw):
        inner = _children(value)
        if tag == _CONTEXT and inner[0][0] == _INTEGER:
            claims["security_version"] = int.from_bytes(inner[0][1], "big", signed=True)
        elif tag == _CONTEXT + 1 and inner[0][0] == _BOOLEAN:
            claims["is_production"] = inner[0][1] == b"\xff"
    return claims


def _children(raw: bytes) -> list[tuple[int, bytes]]:
    """The DER values in ``raw``, one after another: tag and contents."""
    out: list[tuple[int, bytes]] = []
    offset = 0
    while offset < len(raw):
        tag, length = raw[offset], int.from_bytes(raw[offset + 1 : offset + 2], "big")
        offset += 2
        if length >= 0x80:
            size = length & 0x7F
            length = int.from_bytes(raw[offset : offset + size], "big")
            offset += size
        if offset + length > len(raw):
            break
        out.append((tag, raw[offset : offset + length]))
        offset += length
    if offset != len(raw) or not out:
        raise TpmAkCertificateError("attestation key certificate: unreadable instance extension")
    return out


def _only(raw: bytes, tag: int) -> bytes:
    found = _children(raw)
    if len(found) != 1 or found[0][0] != tag:
        raise TpmAkCertificateError("attestation key certificate: unreadable instance extension")
    return found[0][1]
