"""AMD's certificates: the chain from a pinned ARK to a VCEK or VLEK, and what the endorsement key's extensions say.

Source: AMD publication 57230 (Versioned Chip Endorsement Key certificate and KDS interface specification). Validity
dates and revocation are checked by the verifier, at its time."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from casemate.attestation.platforms.snp.der import BIT_STRING as _BIT_STRING
from casemate.attestation.platforms.snp.der import BOOLEAN as _BOOLEAN
from casemate.attestation.platforms.snp.der import IA5_STRING, INTEGER, UTF8_STRING, RawCertificate, read_element
from casemate.attestation.platforms.snp.der import OCTET_STRING as _OCTET_STRING
from casemate.attestation.platforms.snp.der import SEQUENCE as _SEQUENCE
from casemate.attestation.platforms.snp.der import children as _children
from casemate.attestation.platforms.snp.der import read_certificate as _read_certificate
from casemate.attestation.platforms.snp.errors import (
    SnpArkUntrustedError,
    SnpCertificateAlgorithmError,
    SnpCertificateExpiredError,
    SnpCertificateMalformedError,
    SnpCertificateNotYetValidError,
    SnpCertificateSignatureError,
    SnpCertificateUsageError,
    SnpChainMissingError,
    SnpCriticalExtensionError,
    SnpExtensionMalformedError,
    SnpExtensionMissingError,
    SnpIssuerMismatchError,
    SnpProductMismatchError,
    SnpVekKeyError,
    SnpVekKindMismatchError,
)
from casemate.attestation.platforms.snp.tcb import Product, product_of_name, tcb_components

__all__ = [
    "AMD_ARK_PINS",
    "SPL_OIDS",
    "Chain",
    "Vek",
    "VekKind",
    "build_chain",
    "check_validity",
    "parse_certificate",
    "parse_vek",
    "pss_signature_holds",
    "split_certificates",
    "verify_vek",
]

# SHA-256 of the ARK certificates' DER. Source: https://kdsintf.amd.com/vcek/v1/{Milan,Genoa,Turin}/cert_chain; three
# other verifiers pin the same values.
AMD_ARK_PINS: Mapping[Product, str] = {
    Product.MILAN: "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd",
    Product.GENOA: "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1",
    Product.TURIN: "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a",
}

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
_OID_KEY_USAGE, _OID_BASIC_CONSTRAINTS = "2.5.29.15", "2.5.29.19"
_MAX_BUNDLE_SIZE = 256 * 1024  # bytes; AMD's have 7 KiB
_KEY_CERT_SIGN = 0x04  # in the first byte of the KeyUsage bits

# RSASSA-PSS with SHA-384, MGF1 with SHA-384, 48 bytes of salt; AMD writes the default trailer field or leaves it out.
_SHA384 = bytes.fromhex("300d06096086480165030402020500")
_PSS_BODY = b"\xa0\x0f" + _SHA384 + bytes.fromhex("a11c301a06092a864886f70d010108") + _SHA384 + b"\xa2\x03\x02\x01\x30"
_PSS_OID = bytes.fromhex("06092a864886f70d01010a")


def _pss_identifier(body: bytes) -> bytes:
    parameters = b"\x30" + bytes([len(body)]) + body
    return b"\x30" + bytes([len(_PSS_OID + parameters)]) + _PSS_OID + parameters


PSS_IDENTIFIERS = (_pss_identifier(_PSS_BODY), _pss_identifier(_PSS_BODY + b"\xa3\x03\x02\x01\x01"))
_PSS = padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=48)


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


@dataclass(frozen=True)
class Chain:
    """A product's ARK, pinned, and the intermediates whose signatures by it were verified."""

    product: Product
    simulated: bool
    ark: RawCertificate
    ask: RawCertificate | None
    asvk: RawCertificate | None

    def issuer(self, kind: VekKind) -> RawCertificate | None:
        return self.ask if kind is VekKind.VCEK else self.asvk


# -- reading -----------------------------------------------------------------------------------------------------------
def parse_certificate(der: bytes) -> RawCertificate:
    """Read one DER certificate; ``cryptography`` must read the same in it unless its serial number is 0.

    Our own reader always decides, so nothing changes on the day ``cryptography`` refuses serial number 0."""
    certificate = _read_certificate(der)
    if certificate.serial != 0:
        _second_reader_agrees(certificate)
    return certificate


def _second_reader_agrees(certificate: RawCertificate) -> None:
    try:
        other = x509.load_der_x509_certificate(certificate.der)
        same = (
            other.serial_number == certificate.serial
            and other.tbs_certificate_bytes == certificate.tbs
            and other.signature == certificate.signature
            and other.not_valid_before_utc == certificate.not_before
            and other.not_valid_after_utc == certificate.not_after
            and {item.oid.dotted_string for item in other.extensions} == set(certificate.extensions)
        )
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension) as exc:
        raise SnpCertificateMalformedError(f"certificate {certificate.subject_cn!r}: {exc}") from exc
    if not same:
        raise SnpCertificateMalformedError(f"certificate {certificate.subject_cn!r}: two readers disagree about it")


def split_certificates(blob: bytes) -> list[bytes]:
    """The DER certificates of a PEM bundle, or of one or several DER certificates in a row, in their order.

    Raises ``SnpCertificateMalformedError``; nothing but white space may stand outside the PEM blocks' lines."""
    if len(blob) > _MAX_BUNDLE_SIZE:
        raise SnpCertificateMalformedError(f"bundle: got {len(blob)} bytes, at most {_MAX_BUNDLE_SIZE} are read")
    if not blob.lstrip().startswith(b"-----BEGIN "):
        found, offset = [], 0
        while offset < len(blob):
            element, offset = read_element(blob, offset)
            found.append(element.raw)
        return found
    found = []
    pattern = re.compile(rb"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]{1,65536}?)-----END CERTIFICATE-----")
    for match in pattern.finditer(blob):
        try:
            found.append(base64.b64decode(b"".join(match[1].split()), validate=True))
        except binascii.Error as exc:
            raise SnpCertificateMalformedError("PEM certificate is not base64") from exc
    if pattern.sub(b"", blob).strip():
        raise SnpCertificateMalformedError("PEM bundle has text that is no certificate")
    return found


def parse_vek(der: bytes) -> Vek:
    """Read a VCEK or VLEK certificate and AMD's extensions in it; verifies nothing.

    Raises leaves of ``MalformedEvidenceError`` and ``RefusedError`` that name the extension or property."""
    certificate = parse_certificate(der)
    name = certificate.subject_cn
    kind = {"SEV-VCEK": VekKind.VCEK, "SEV-VLEK": VekKind.VLEK}.get(name)
    if _is_ca(certificate):
        raise SnpCertificateUsageError(f"certificate {name!r} is a CA's: an endorsement key signs reports alone")
    if kind is None:
        raise SnpVekKindMismatchError(f"certificate {name!r}: need SEV-VCEK or SEV-VLEK")
    _refuse_critical(certificate, known=())
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


def _value(certificate: RawCertificate, oid: str) -> bytes:
    extension = certificate.extensions.get(oid)
    if extension is None:
        raise SnpExtensionMissingError(f"certificate {certificate.subject_cn!r} lacks extension {oid}")
    return extension.value


def _content(certificate: RawCertificate, oid: str, tags: tuple[int, ...]) -> bytes:
    value = _value(certificate, oid)
    try:
        element, end = read_element(value)
    except SnpCertificateMalformedError as exc:
        raise SnpExtensionMalformedError(f"extension {oid}: {exc}") from exc
    if element.tag not in tags or end != len(value):
        raise SnpExtensionMalformedError(f"extension {oid}: {value[:80].hex()} is not of the type AMD defines")
    return element.value


def _level(certificate: RawCertificate, oid: str) -> int:
    """A security patch level: INTEGER 0 to 255, so 128 and above have a leading zero byte."""
    value = _content(certificate, oid, (INTEGER,))
    if len(value) == 1 and value[0] < 0x80:
        return value[0]
    if len(value) == 2 and value[0] == 0 and value[1] >= 0x80:
        return value[1]
    raise SnpExtensionMalformedError(f"extension {oid}: {value.hex()} is no integer from 0 to 255")


def _text(certificate: RawCertificate, oid: str) -> str:
    value = _content(certificate, oid, (IA5_STRING, UTF8_STRING))
    try:
        return value.decode("ascii")
    except UnicodeDecodeError as exc:
        raise SnpExtensionMalformedError(f"extension {oid}: {value[:80].hex()} is not ASCII") from exc


def _hwid(certificate: RawCertificate, product: Product) -> bytes:
    """The hardware identity: AMD wrote the bare bytes first, and a DER OCTET STRING later."""
    value, size = _value(certificate, OID_HWID), product.hwid_size
    if len(value) == size:
        return value
    content = _content(certificate, OID_HWID, (_OCTET_STRING,))
    if len(content) != size:
        raise SnpExtensionMalformedError(f"extension {OID_HWID}: {len(content)} bytes, {product} has {size}")
    return content


def _vek_key(certificate: RawCertificate) -> ec.EllipticCurvePublicKey:
    key = _public_key(certificate)
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        curve = key.curve.name if isinstance(key, ec.EllipticCurvePublicKey) else type(key).__name__
        raise SnpVekKeyError(f"certificate {certificate.subject_cn!r}: key {curve}, need secp384r1")
    return key


def _public_key(certificate: RawCertificate) -> object:
    try:
        return load_der_public_key(certificate.public_key)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise SnpCertificateMalformedError(f"certificate {certificate.subject_cn!r}: public key: {exc}") from exc


# -- constraints -------------------------------------------------------------------------------------------------------
def _is_ca(certificate: RawCertificate) -> bool:
    if _OID_BASIC_CONSTRAINTS not in certificate.extensions:
        return False
    content = _children(_content(certificate, _OID_BASIC_CONSTRAINTS, (_SEQUENCE,)))
    return bool(content) and content[0].tag == _BOOLEAN and content[0].value == b"\xff"


def _check_issuer_usage(certificate: RawCertificate) -> None:
    """An issuer must be a CA and may sign certificates; other critical extensions are unknown here."""
    _refuse_critical(certificate, known=(_OID_BASIC_CONSTRAINTS, _OID_KEY_USAGE))
    usage = b"\x00\x00"
    if _OID_KEY_USAGE in certificate.extensions:
        usage = _content(certificate, _OID_KEY_USAGE, (_BIT_STRING,))
    if not _is_ca(certificate) or len(usage) < 2 or not usage[1] & _KEY_CERT_SIGN:
        raise SnpCertificateUsageError(f"certificate {certificate.subject_cn!r} is no CA's: it may not issue others")


def _refuse_critical(certificate: RawCertificate, *, known: tuple[str, ...]) -> None:
    for oid, extension in certificate.extensions.items():
        if extension.critical and oid not in known:
            raise SnpCriticalExtensionError(f"certificate {certificate.subject_cn!r}: critical extension {oid} unknown")


def check_validity(certificate: RawCertificate, now: datetime) -> None:
    """Raises ``SnpCertificateNotYetValidError``, or, undecided, ``SnpCertificateExpiredError``."""
    if now < certificate.not_before:
        raise SnpCertificateNotYetValidError(
            f"certificate {certificate.subject_cn!r}: valid from {certificate.not_before.isoformat()}, "
            f"the time is {now.isoformat()}"
        )
    if now > certificate.not_after:
        raise SnpCertificateExpiredError(
            f"certificate {certificate.subject_cn!r}: valid until {certificate.not_after.isoformat()}, "
            f"the time is {now.isoformat()}"
        )


# -- signatures --------------------------------------------------------------------------------------------------------
def pss_signature_holds(issuer: RawCertificate, signature: bytes, message: bytes) -> bool:
    """Whether ``signature`` is RSASSA-PSS (SHA-384, 48 bytes of salt) over ``message`` by ``issuer``'s key."""
    key = _public_key(issuer)
    if not isinstance(key, rsa.RSAPublicKey):
        raise SnpCertificateAlgorithmError(f"certificate {issuer.subject_cn!r}: key is not RSA")
    try:
        key.verify(signature, message, _PSS, hashes.SHA384())
    except InvalidSignature:
        return False
    return True


def _verify_signature(certificate: RawCertificate, issuer: RawCertificate) -> None:
    name = certificate.subject_cn
    if certificate.signature_algorithm not in PSS_IDENTIFIERS:
        raise SnpCertificateAlgorithmError(
            f"certificate {name!r}: not signed with RSASSA-PSS, SHA-384, 48 bytes of salt"
        )
    if not pss_signature_holds(issuer, certificate.signature, certificate.tbs):
        raise SnpCertificateSignatureError(f"certificate {name!r}: {issuer.subject_cn!r} did not sign it")


def build_chain(
    product: Product,
    certificates: Iterable[bytes],
    *,
    simulated_pins: Mapping[Product, str],
) -> Chain:
    """The verified chain of ``product`` out of DER ``certificates`` in any order; holds at any time (no dates).

    Which pin matched decides ``simulated``. Raises ``SnpChainMissingError`` without an ARK, ``SnpArkUntrustedError``
    with another than the pinned one, and the error of whichever check of an intermediate fails."""
    parsed = [parse_certificate(der) for der in certificates]
    roots = {item.der: item for item in parsed if item.issuer == item.subject}
    if not roots:
        raise SnpChainMissingError(f"the chain of {product} has no self-issued root (ARK)")
    if len(roots) > 1:
        raise SnpCertificateUsageError(f"the chain of {product} has {len(roots)} roots; a chain ends in one")
    # 1. The root is pinned, bit for bit.
    (ark,) = roots.values()
    digest = hashlib.sha256(ark.der).hexdigest()
    simulated = digest == simulated_pins.get(product)
    if not simulated and digest != AMD_ARK_PINS.get(product):
        raise SnpArkUntrustedError(f"root {ark.subject_cn!r}: SHA-256 {digest} is not pinned for {product}")
    _check_issuer_usage(ark)
    _verify_signature(ark, ark)
    # 2. Each intermediate was issued by it, and its name says for which kind of endorsement key.
    roles: dict[str, RawCertificate] = {}
    for item in parsed:
        if item.der in roots:
            continue
        if item.issuer != ark.subject:
            raise SnpIssuerMismatchError(
                f"certificate {item.subject_cn!r} was issued by {item.issuer_cn!r}, not {ark.subject_cn!r}"
            )
        _verify_signature(item, ark)
        _check_issuer_usage(item)
        role = {f"SEV-{product}": "ASK", f"SEV-VLEK-{product}": "ASVK"}.get(item.subject_cn)
        if role is None:
            raise SnpProductMismatchError(f"certificate {item.subject_cn!r} is neither ASK nor ASVK of {product}")
        if role in roles and roles[role].der != item.der:
            raise SnpCertificateUsageError(f"the chain of {product} has two different certificates for the {role}")
        roles[role] = item
    return Chain(product, simulated, ark, roles.get("ASK"), roles.get("ASVK"))


def verify_vek(vek: Vek, chain: Chain) -> None:
    """That ``chain``'s intermediate for the kind of ``vek`` issued it; holds at any time (no dates, no revocation).

    Raises ``SnpIssuerMismatchError``, ``SnpCertificateAlgorithmError`` or ``SnpCertificateSignatureError``, and,
    undecided, ``SnpChainMissingError`` when the chain is a root alone."""
    if chain.ask is None and chain.asvk is None:
        raise SnpChainMissingError(f"the chain of {chain.product} has no {vek.kind.issuer_role}")
    issuer = chain.issuer(vek.kind)
    if issuer is None or vek.certificate.issuer != issuer.subject:
        offered = [item.subject_cn for item in (chain.ask, chain.asvk, chain.ark) if item is not None]
        raise SnpIssuerMismatchError(
            f"the {vek.kind} was issued by {vek.certificate.issuer_cn!r}; need the {vek.kind.issuer_role} of "
            f"{chain.product}, the chain has {', '.join(offered)}"
        )
    _verify_signature(vek.certificate, issuer)
    if vek.product is not chain.product:
        raise SnpProductMismatchError(f"the {vek.kind} is for {vek.product}, its chain for {chain.product}")
