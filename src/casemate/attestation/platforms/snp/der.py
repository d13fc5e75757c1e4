"""Read X.509 certificates from strict DER without asking anyone's opinion of their serial number.

Every VCEK and VLEK that AMD has issued has serial number 0. RFC 5280 forbids that, and ``cryptography`` announces that
it will refuse such certificates; AMD cannot change those already issued. This reader takes the few shapes that AMD's
certificates have (X.509 version 3, definite minimal lengths, one-byte tags) and refuses everything else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from casemate.attestation.platforms.snp.errors import SnpCertificateMalformedError, SnpExtensionDuplicateError

__all__ = ["Element", "Extension", "RawCertificate", "children", "read_certificate", "read_element"]

BOOLEAN, INTEGER, BIT_STRING, OCTET_STRING, OID, SEQUENCE, SET = 0x01, 0x02, 0x03, 0x04, 0x06, 0x30, 0x31
UTF8_STRING, PRINTABLE_STRING, IA5_STRING, UTC_TIME, GENERALIZED_TIME = 0x0C, 0x13, 0x16, 0x17, 0x18
_MAX_SIZE = 16 * 1024  # bytes; real ones have 1.3 to 1.7 KiB
_COMMON_NAME = "2.5.4.3"


@dataclass(frozen=True)
class Element:
    """One tag, length and value; ``raw`` is all of it, ``value`` the content."""

    tag: int
    raw: bytes
    value: bytes


@dataclass(frozen=True)
class Extension:
    critical: bool
    value: bytes  # the content of extnValue


@dataclass(frozen=True)
class RawCertificate:
    """A certificate taken apart; nothing is verified. Names and algorithm identifiers are raw DER."""

    der: bytes
    tbs: bytes
    serial: int
    signature_algorithm: bytes
    issuer: bytes
    issuer_cn: str
    not_before: datetime
    not_after: datetime
    subject: bytes
    subject_cn: str
    public_key: bytes  # SubjectPublicKeyInfo
    extensions: Mapping[str, Extension]
    signature: bytes


def read_element(data: bytes, offset: int = 0) -> tuple[Element, int]:
    """The element at ``offset`` and the offset after it; raises ``SnpCertificateMalformedError``."""
    if offset + 2 > len(data):
        raise SnpCertificateMalformedError(f"DER ends at byte {len(data)} where an element should begin")
    tag, size, start = data[offset], data[offset + 1], offset + 2
    if tag & 0x1F == 0x1F:
        raise SnpCertificateMalformedError("DER tag of more than one byte")
    if size & 0x80:
        width = size & 0x7F
        size = int.from_bytes(data[start : start + width], "big")
        # Indefinite lengths, padded lengths and lengths no certificate has.
        if not 1 <= width <= 2 or size < 0x80 or size >> 8 * (width - 1) == 0:
            raise SnpCertificateMalformedError("DER length is indefinite, not minimal or too large")
        start += width
    if start + size > len(data):
        raise SnpCertificateMalformedError(f"DER element of {size} bytes, {max(0, len(data) - start)} are left")
    return Element(tag, data[offset : start + size], data[start : start + size]), start + size


def children(value: bytes) -> list[Element]:
    """All elements of a constructed value, nothing left over; raises ``SnpCertificateMalformedError``."""
    elements, offset = [], 0
    while offset < len(value):
        element, offset = read_element(value, offset)
        elements.append(element)
    return elements


def read_certificate(der: bytes) -> RawCertificate:
    """Take a certificate apart. Raises ``SnpCertificateMalformedError`` or ``SnpExtensionDuplicateError``."""
    if len(der) > _MAX_SIZE:
        raise SnpCertificateMalformedError(f"certificate: got {len(der)} bytes, at most {_MAX_SIZE} are read")
    der = bytes(der)
    outer, end = read_element(der)
    if end != len(der):
        raise SnpCertificateMalformedError(f"certificate: {len(der) - end} bytes follow it")
    tbs, algorithm, signature = _shape(outer, SEQUENCE, (SEQUENCE, SEQUENCE, BIT_STRING), "certificate")
    fields = (0xA0, INTEGER, SEQUENCE, SEQUENCE, SEQUENCE, SEQUENCE, SEQUENCE, 0xA3)
    version, serial, inner, issuer, validity, subject, key, tail = _shape(tbs, SEQUENCE, fields, "tbsCertificate")
    if version.value != b"\x02\x01\x02":
        raise SnpCertificateMalformedError("certificate is not of X.509 version 3")
    if inner.raw != algorithm.raw:
        raise SnpCertificateMalformedError("the certificate's two signature algorithms differ")
    if signature.value[:1] != b"\x00":
        raise SnpCertificateMalformedError("certificate signature is not a whole number of bytes")
    times = children(validity.value)
    if len(times) != 2:
        raise SnpCertificateMalformedError(f"validity: {len(times)} times, need 2")
    return RawCertificate(
        der=der,
        tbs=tbs.raw,
        serial=_integer(serial.value),
        signature_algorithm=algorithm.raw,
        issuer=issuer.raw,
        issuer_cn=_common_name(issuer.value),
        not_before=_time(times[0]),
        not_after=_time(times[1]),
        subject=subject.raw,
        subject_cn=_common_name(subject.value),
        public_key=key.raw,
        extensions=_extensions(tail.value),
        signature=signature.value[1:],
    )


def _shape(element: Element, tag: int, tags: tuple[int, ...], what: str) -> list[Element]:
    """The children of ``element``, which must have exactly these tags."""
    if element.tag != tag:
        raise SnpCertificateMalformedError(f"{what}: tag {element.tag:#04x}, need {tag:#04x}")
    found = children(element.value)
    if tuple(child.tag for child in found) != tags:
        raise SnpCertificateMalformedError(
            f"{what}: fields {[hex(child.tag) for child in found[:16]]}, need {[hex(tag) for tag in tags]}"
        )
    return found


def _integer(value: bytes) -> int:
    """A non-negative INTEGER in its shortest form."""
    if not value or value[0] & 0x80 or (len(value) > 1 and value[0] == 0 and not value[1] & 0x80):
        raise SnpCertificateMalformedError(f"INTEGER {value[:32].hex()} is empty, negative or not minimal")
    return int.from_bytes(value, "big")


def _time(element: Element) -> datetime:
    try:
        text = element.value.decode("ascii")
        digits = {UTC_TIME: 12, GENERALIZED_TIME: 14}[element.tag]
        if len(text) != digits + 1 or not text[:-1].isdecimal() or text[-1] != "Z":
            raise ValueError(text)
        century = "" if digits == 14 else ("19" if text >= "5" else "20")
        return datetime.strptime(century + text[:-1], "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except (KeyError, ValueError) as exc:
        raise SnpCertificateMalformedError(f"time {element.value[:32]!r} is none that RFC 5280 allows") from exc


def _common_name(name: bytes) -> str:
    """The one common name in a Name, as text."""
    found = []
    for group in children(name):
        for attribute in children(group.value):
            parts = children(attribute.value)
            tags = (group.tag, attribute.tag, *(part.tag for part in parts[:1]))
            if tags != (SET, SEQUENCE, OID) or len(parts) != 2:
                raise SnpCertificateMalformedError("a name in the certificate is not a sequence of attributes")
            if _oid(parts[0].value) == _COMMON_NAME:
                found.append(parts[1])
    if len(found) != 1 or found[0].tag not in (UTF8_STRING, PRINTABLE_STRING):
        raise SnpCertificateMalformedError(f"a name in the certificate has {len(found)} common names, need one text")
    try:
        return found[0].value.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise SnpCertificateMalformedError("a common name in the certificate is not UTF-8") from exc


def _oid(value: bytes) -> str:
    if not value or value[-1] & 0x80:
        raise SnpCertificateMalformedError("object identifier is empty or cut short")
    arcs, number, begins = [], 0, True
    for byte in value:
        if (begins and byte == 0x80) or number >> 64:
            raise SnpCertificateMalformedError("object identifier is not minimal or too large")
        number, begins = number << 7 | byte & 0x7F, not byte & 0x80
        if begins:
            arcs.append(number)
            number = 0
    first = min(arcs[0] // 40, 2)
    return ".".join(map(str, [first, arcs[0] - 40 * first, *arcs[1:]]))


def _extensions(value: bytes) -> dict[str, Extension]:
    found: dict[str, Extension] = {}
    outer, end = read_element(value)
    if outer.tag != SEQUENCE or end != len(value):
        raise SnpCertificateMalformedError("extensions are not one sequence")
    for item in children(outer.value):
        parts = children(item.value)
        tags = tuple(part.tag for part in parts)
        critical = tags == (OID, BOOLEAN, OCTET_STRING)
        if item.tag != SEQUENCE or not (critical or tags == (OID, OCTET_STRING)):
            raise SnpCertificateMalformedError("a certificate extension is not (identifier, critical, value)")
        if critical and parts[1].value != b"\xff":
            raise SnpCertificateMalformedError("a certificate extension's critical flag is not DER")
        oid = _oid(parts[0].value)
        if oid in found:
            raise SnpExtensionDuplicateError(f"certificate extension {oid} is there twice")
        found[oid] = Extension(critical, parts[-1].value)
    return found
