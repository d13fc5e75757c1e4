"""AMD's key distribution service (KDS): the URL for what a report needs, and its replies read; no network here.

AMD publication 57230. The service limits its callers (429), so whoever fetches keeps what it gets."""

from __future__ import annotations

from urllib.parse import urlencode

from casemate.attestation.platforms.snp.certificates import split_certificates
from casemate.attestation.platforms.snp.endorsement import VekKind, parse_vek
from casemate.attestation.platforms.snp.errors import (
    SnpCertificateMalformedError,
    SnpChipIdMaskedError,
    SnpCrlMalformedError,
    SnpKdsReplyMalformedError,
    SnpKdsUnavailableError,
    SnpKdsUnknownChipError,
    SnpProductUnknownError,
    SnpSigningKeyError,
)
from casemate.attestation.platforms.snp.report import Report, SigningKey
from casemate.attestation.platforms.snp.revocation import parse_crl
from casemate.attestation.platforms.snp.tcb import Product, parse_tcb
from casemate.errors import CasemateError

__all__ = [
    "KDS_URL",
    "chain_url",
    "crl_url",
    "parse_chain_reply",
    "parse_crl_reply",
    "parse_vcek_reply",
    "vcek_url",
]

KDS_URL = "https://kdsintf.amd.com"
_QUERY_NAMES = {"fmc": "fmcSPL", "bootloader": "blSPL", "tee": "teeSPL", "snp": "snpSPL", "microcode": "ucodeSPL"}


def vcek_url(report: Report, product: Product | None = None, *, base: str = KDS_URL) -> str:
    """Where the VCEK certificate of ``report`` is. Version 2 reports do not tell their ``product``, so name it.

    Raises ``SnpProductUnknownError`` without one, ``SnpSigningKeyError`` for a report signed by a VLEK (those are not
    public) and ``SnpChipIdMaskedError`` when the chip is masked."""
    product = report.product or product
    if product is None:
        raise SnpProductUnknownError("a version 2 report does not name its product; name it for the VCEK's URL")
    if report.signing_key != SigningKey.VCEK:
        raise SnpSigningKeyError("the report is signed by a VLEK; its certificate comes from the cloud provider")
    if not any(report.chip_id):
        raise SnpChipIdMaskedError("the report's CHIP_ID is all zeros: no VCEK can be looked up")
    levels = parse_tcb(report.reported_tcb, product)
    query = urlencode({_QUERY_NAMES[name]: f"{level:02d}" for name, level in levels.items()})
    return f"{base}/vcek/v1/{product}/{report.chip_id[: product.hwid_size].hex()}?{query}"


def chain_url(product: Product, kind: VekKind = VekKind.VCEK, *, base: str = KDS_URL) -> str:
    """Where the PEM chain is: ASK and ARK for VCEKs, ASVK and ARK for VLEKs."""
    return f"{base}/{kind.lower()}/v1/{product}/cert_chain"


def crl_url(product: Product, kind: VekKind = VekKind.VCEK, *, base: str = KDS_URL) -> str:
    """Where the revocation list of a branch is, DER."""
    return f"{base}/{kind.lower()}/v1/{product}/crl"


def parse_vcek_reply(status: int, content: bytes) -> bytes:
    """The VCEK certificate, DER, of an HTTP reply; not verified. Raises the three ``SnpKds…`` errors."""
    _check_status(status)
    try:
        parse_vek(content)
    except CasemateError as exc:
        raise SnpKdsReplyMalformedError(f"KDS reply of {len(content)} bytes is no VCEK certificate: {exc}") from exc
    return content


def parse_chain_reply(status: int, content: bytes) -> bytes:
    """The PEM bundle of an HTTP reply, two certificates; not verified. Raises the three ``SnpKds…`` errors."""
    _check_status(status)
    try:
        found = split_certificates(content)
    except SnpCertificateMalformedError as exc:
        raise SnpKdsReplyMalformedError(f"KDS reply of {len(content)} bytes is no chain: {exc}") from exc
    if len(found) != 2:
        raise SnpKdsReplyMalformedError(f"KDS reply has {len(found)} certificates; a chain has two")
    return content


def parse_crl_reply(status: int, content: bytes) -> bytes:
    """The revocation list of an HTTP reply; not verified. Raises the three ``SnpKds…`` errors."""
    _check_status(status)
    try:
        parse_crl(content)
    except SnpCrlMalformedError as exc:
        raise SnpKdsReplyMalformedError(f"KDS reply of {len(content)} bytes is no revocation list: {exc}") from exc
    return content


def _check_status(status: int) -> None:
    if status == 404:
        raise SnpKdsUnknownChipError("KDS answered 404: no certificate for this product, chip and TCB")
    if status != 200:
        raise SnpKdsUnavailableError(f"KDS answered {status}")
