"""Parse DCAP quotes: where each part begins and ends. Nothing is verified here.

Intel SGX DCAP "ECDSA Quote Library API" (version 3) and Intel TDX DCAP "Quoting Library API" (versions 4 and 5).
All integers are little endian. Every length is checked against what really follows, since the verification library
tolerates slack; the quote's bytes stay malleable (PEM text, padding), so a hash of a quote is never an identity.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
from dataclasses import dataclass

from casemate.attestation.platforms.intel import errors

__all__ = ["Body", "Quote", "parse_quote", "pem_certificates"]

MAX_QUOTE_SIZE = 64 * 1024  # bytes; real quotes have 4 to 8 KiB
HEADER_SIZE = 48
REPORT_SIZE = 384  # SGX report body, also the quoting enclave's
TD10_SIZE, TD15_SIZE = 584, 648
INTEL_QE_VENDOR = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
_TEE_SGX, _TEE_TDX = 0x00, 0x81
_ECDSA_P256 = 2
_PCK_CHAIN, _QE_REPORT = 5, 6  # certification data types
_BODY_TD10, _BODY_TD15 = 2, 3  # version 5 body types
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----")
_MAX_CERTIFICATES = 8


class Body:
    """The three bodies a quote can have."""

    SGX = "sgx"
    TD10 = "td10"
    TD15 = "td15"


@dataclass(frozen=True)
class Quote:
    """The parts of one quote. ``raw`` is the quote alone; ``certificates`` are DER, leaf first.

    Some platforms return a buffer larger than the quote: what follows it is cut off, counted, and never read."""

    raw: bytes
    version: int
    tee: str  # sgx | tdx
    body_kind: str
    body: bytes
    qe_report: bytes
    certification_type: int
    certificates: tuple[bytes, ...]
    trailing_bytes: int


class _Cursor:
    def __init__(self, raw: bytes) -> None:
        self.raw, self.at = raw, 0

    def take(self, size: int, what: str) -> bytes:
        if size > len(self.raw) - self.at:
            raise errors.QuoteMalformedError(f"quote: {what} needs {size} bytes, {len(self.raw) - self.at} are left")
        self.at += size
        return self.raw[self.at - size : self.at]

    def u16(self, what: str) -> int:
        return int(struct.unpack("<H", self.take(2, what))[0])

    def u32(self, what: str) -> int:
        return int(struct.unpack("<I", self.take(4, what))[0])

    def end(self, what: str) -> None:
        if self.at != len(self.raw):
            raise errors.QuoteMalformedError(f"quote: {what} announces {len(self.raw) - self.at} bytes too many")


def parse_quote(raw: bytes) -> Quote:
    """Split a quote into its parts; raises a ``MalformedEvidenceError`` naming what is wrong."""
    if len(raw) > MAX_QUOTE_SIZE:
        raise errors.QuoteMalformedError(f"quote: got {len(raw)} bytes, need at most {MAX_QUOTE_SIZE}")
    cursor = _Cursor(raw)
    version, key_type, tee_type = struct.unpack_from("<HHI", header := cursor.take(HEADER_SIZE, "header"))
    if (version, tee_type) not in ((3, _TEE_SGX), (4, _TEE_TDX), (5, _TEE_TDX)):
        raise errors.QuoteVersionUnsupportedError(
            f"quote: need version 3 for SGX, 4 or 5 for TDX, got version {version} with TEE type {tee_type:#x}"
        )
    if key_type != _ECDSA_P256:
        raise errors.AttestationKeyUnsupportedError(f"quote: need attestation key type 2 (ECDSA P-256), got {key_type}")
    if header[12:28] != INTEL_QE_VENDOR:
        raise errors.QeVendorUnknownError(f"quote: need QE vendor {INTEL_QE_VENDOR.hex()}, got {header[12:28].hex()}")
    kind, body = _body(cursor, version)
    signature = _Cursor(cursor.take(cursor.u32("signature length"), "signature"))
    signature.take(128, "signature and attestation key")
    if version >= 4:
        outer = signature.u16("certification type")
        if outer != _QE_REPORT:
            raise errors.CertificationDataUnsupportedError(f"quote: need outer certification data type 6, got {outer}")
        inner = _Cursor(signature.take(signature.u32("certification length"), "certification data"))
        signature.end("signature length")
        signature = inner
    qe_report, certification_type, certification = _qe_part(signature)
    certificates = pem_certificates(certification) if certification_type == _PCK_CHAIN else ()
    if certification_type == _PCK_CHAIN and not certificates:
        raise errors.QuoteMalformedError("quote: its certification data has no certificate")
    return Quote(
        raw=raw[: cursor.at],
        version=version,
        tee="sgx" if tee_type == _TEE_SGX else "tdx",
        body_kind=kind,
        body=body,
        qe_report=qe_report,
        certification_type=certification_type,
        certificates=certificates,
        trailing_bytes=len(raw) - cursor.at,
    )


def _body(cursor: _Cursor, version: int) -> tuple[str, bytes]:
    if version == 3:
        return Body.SGX, cursor.take(REPORT_SIZE, "report body")
    if version == 4:
        return Body.TD10, cursor.take(TD10_SIZE, "TD report body")
    kind, size = cursor.u16("body type"), cursor.u32("body size")
    if (kind, size) == (_BODY_TD10, TD10_SIZE):
        return Body.TD10, cursor.take(size, "TD report body")
    if (kind, size) == (_BODY_TD15, TD15_SIZE):
        return Body.TD15, cursor.take(size, "TD report body")
    raise errors.QuoteVersionUnsupportedError(f"quote: body type {kind} of {size} bytes is not one this verifier reads")


def _qe_part(cursor: _Cursor) -> tuple[bytes, int, bytes]:
    qe_report = cursor.take(REPORT_SIZE, "QE report")
    cursor.take(64, "QE report signature")
    cursor.take(cursor.u16("QE authentication data length"), "QE authentication data")
    kind = cursor.u16("certification type")
    data = cursor.take(cursor.u32("certification length"), "certification data")
    cursor.end("certification length")
    if kind not in (2, 3, _PCK_CHAIN):
        raise errors.CertificationDataUnsupportedError(f"quote: need certification data type 5, got {kind}")
    return qe_report, kind, data


def pem_certificates(text: bytes) -> tuple[bytes, ...]:
    """The DER of each certificate in PEM text, at most eight."""
    found: list[bytes] = []
    for match in _PEM.finditer(text):
        if len(found) == _MAX_CERTIFICATES:
            raise errors.QuoteMalformedError(f"certificate chain: more than {_MAX_CERTIFICATES} certificates")
        try:
            found.append(base64.b64decode(b"".join(match[1].split()), validate=True))
        except binascii.Error as exc:
            raise errors.QuoteMalformedError("certificate chain: not base64") from exc
    return tuple(found)
