"""Endorsement keys, VCEK and VLEK: what AMD's extensions in their certificates say of chip, TCB and provider.

Source: AMD publication 57230 (Versioned Chip Endorsement Key certificate and KDS interface specification)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from cryptography.hazmat.primitives.asymmetric import ec

from casemate.attestation.platforms.snp.certificates import (
    extension_content,
    extension_value,
    is_ca,
    parse_certificate,
    public_key,
    refuse_critical,
)
from casemate.attestation.platforms.snp.der import IA5_STRING, INTEGER, OCTET_STRING, UTF8_STRING, RawCertificate
from casemate.attestation.platforms.snp.errors import (
    SnpCertificateUsageError,
    SnpExtensionMalformedError,
    SnpVekKeyError,
    SnpVekKindMismatchError,
)
from casemate.attestation.platforms.snp.tcb import Product, product_of_name, tcb_components

__all__ = ["OID_CSP_ID", "OID_HWID", "OID_PRODUCT", "SPL_OIDS", "Vek", "VekKind", "parse_vek"]

OID_PRODUCT = "1.3.6.1.4.1.3704.1.2"
OID_HWID = "1.3.6.1.4.1.3704.1.4"
OID_CSP_ID = "1.3.6.1.4.1.3704.1.5"
_SPL = "1.3.6.1.4.1.3704.1.3."
SPL_OIDS: Mapping[str, str] = {
    "bootloader": _SPL + "1",
    "tee": _SPL + "2",
    "snp": _SPL + "3",
    "microcode": _SPL + "8",
    "fmc": _SPL + "9",
}
_SPL_RESERVED = tuple(_SPL + str(n) for n in (4, 5, 6, 7))  # reserved TCB bytes; zero wherever they are present


class VekKind(StrEnum):
    """Which endorsement key: of one chip and TCB, or loaded by a cloud provider."""

    VCEK = "VCEK"
    VLEK = "VLEK"

    @property
    def issuer_role(self) -> str:
        return "ASK" if self is VekKind.VCEK else "ASVK"


@dataclass(frozen=True)
class Vek:
    """An endorsement key certificate, well-formed but not verified; ``spl`` maps component to security patch level."""

    certificate: RawCertificate
    kind: VekKind
    product: Product
    spl: Mapping[str, int]
    hwid: bytes | None  # VCEK: 64 bytes, Turin 8
    csp_id: str | None  # VLEK: the cloud provider's name
    key: ec.EllipticCurvePublicKey


def parse_vek(der: bytes) -> Vek:
    """Read a VCEK or VLEK certificate and AMD's extensions in it; verifies nothing.

    Raises leaves of ``MalformedEvidenceError`` and ``RefusedError`` that name the extension or property."""
    certificate = parse_certificate(der)
    name = certificate.subject_cn
    kind = {"SEV-VCEK": VekKind.VCEK, "SEV-VLEK": VekKind.VLEK}.get(name)
    if is_ca(certificate):
        raise SnpCertificateUsageError(f"certificate {name!r} is a CA's: an endorsement key signs reports alone")
    if kind is None:
        raise SnpVekKindMismatchError(f"certificate {name!r}: need SEV-VCEK or SEV-VLEK")
    refuse_critical(certificate, known=())
    product = product_of_name(_text(certificate, OID_PRODUCT))
    spl = {component: _level(certificate, SPL_OIDS[component]) for component in tcb_components(product)}
    for oid in _SPL_RESERVED:
        if oid in certificate.extensions and _level(certificate, oid):
            raise SnpExtensionMalformedError(f"extension {oid}: a reserved patch level is not zero")
    return Vek(
        certificate=certificate,
        kind=kind,
        product=product,
        spl=spl,
        hwid=_hwid(certificate, product) if kind is VekKind.VCEK else None,
        csp_id=_text(certificate, OID_CSP_ID) if kind is VekKind.VLEK else None,
        key=_vek_key(certificate),
    )


def _level(certificate: RawCertificate, oid: str) -> int:
    """A security patch level: INTEGER 0 to 255, so 128 and above have a leading zero byte."""
    value = extension_content(certificate, oid, (INTEGER,))
    if len(value) == 1 and value[0] < 0x80:
        return value[0]
    if len(value) == 2 and value[0] == 0 and value[1] >= 0x80:
        return value[1]
    raise SnpExtensionMalformedError(f"extension {oid}: {value.hex()} is no integer from 0 to 255")


def _text(certificate: RawCertificate, oid: str) -> str:
    value = extension_content(certificate, oid, (IA5_STRING, UTF8_STRING))
    try:
        return value.decode("ascii")
    except UnicodeDecodeError as exc:
        raise SnpExtensionMalformedError(f"extension {oid}: {value[:80].hex()} is not ASCII") from exc


def _hwid(certificate: RawCertificate, product: Product) -> bytes:
    """The hardware identity: AMD wrote the bare bytes first, and a DER OCTET STRING later."""
    value, size = extension_value(certificate, OID_HWID), product.hwid_size
    if len(value) == size:
        return value
    content = extension_content(certificate, OID_HWID, (OCTET_STRING,))
    if len(content) != size:
        raise SnpExtensionMalformedError(f"extension {OID_HWID}: {len(content)} bytes, {product} has {size}")
    return content


def _vek_key(certificate: RawCertificate) -> ec.EllipticCurvePublicKey:
    key = public_key(certificate)
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        curve = key.curve.name if isinstance(key, ec.EllipticCurvePublicKey) else type(key).__name__
        raise SnpVekKeyError(f"certificate {certificate.subject_cn!r}: key {curve}, need secp384r1")
    return key
