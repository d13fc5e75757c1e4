"""What to ask a PCS, PCCS or KDS for, and how their replies are read. No network, disk or clock.

Intel: PCS API version 4, which PCCS offers alike: TCB info and QE identity as JSON with a signature, revocation lists,
issuer chains percent-encoded in reply headers. AMD: see ``platforms.snp.kds``. Nothing is verified here."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from cryptography import x509

from casemate.attestation.collateral.errors import (
    CollateralReplyMalformedError,
    CollateralTargetError,
    CollateralUrlError,
)
from casemate.attestation.platforms.intel.collateral import Collateral, parse_collateral
from casemate.attestation.platforms.intel.errors import CollateralMalformedError
from casemate.attestation.platforms.intel.layouts import read_pieces
from casemate.attestation.platforms.intel.quote import parse_quote, pem_certificates
from casemate.attestation.platforms.snp.endorsement import VekKind
from casemate.attestation.platforms.snp.kds import (
    KDS_URL,
    chain_url,
    crl_url,
    parse_chain_reply,
    parse_crl_reply,
    parse_vcek_reply,
    vcek_url,
)
from casemate.attestation.platforms.snp.report import Report, SigningKey
from casemate.attestation.platforms.snp.tcb import Product
from casemate.errors import CasemateError

__all__ = [
    "PCS_URL",
    "Fetched",
    "IntelTarget",
    "SnpTarget",
    "Wanted",
    "amd_wanted",
    "base_url",
    "intel_collateral",
    "intel_target",
    "intel_wanted",
    "read_amd",
]

PCS_URL = "https://api.trustedservices.intel.com"
_ROOT_CRL_URL = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"  # PCS itself has no such path
_MIB = 1024 * 1024
_FMSPC = re.compile(r"[0-9a-fA-F]{12}")
_API = re.compile(r"/(?:sgx|tdx)/certification/v4/?$")
_CHAIN_HEADERS = {
    "tcb info": ("TCB-Info-Issuer-Chain", "SGX-TCB-Info-Issuer-Chain"),
    "QE identity": ("SGX-Enclave-Identity-Issuer-Chain",),
    "PCK CRL": ("SGX-PCK-CRL-Issuer-Chain",),
}


@dataclass(frozen=True)
class Wanted:
    """One request: the piece's name, where it is, and the most bytes a genuine reply has."""

    piece: str
    url: str
    limit: int


@dataclass(frozen=True)
class Fetched:
    """One reply with status 200 (Intel) or any (AMD); header names in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes


@dataclass(frozen=True)
class IntelTarget:
    """A family of Intel platforms: ``sgx`` or ``tdx``, FMSPC in hex, ``processor`` or ``platform``."""

    tee: str
    fmspc: str
    ca: str

    def __post_init__(self) -> None:
        if not _FMSPC.fullmatch(self.fmspc):
            raise CollateralTargetError(f"FMSPC {self.fmspc[:40]!r}: need 12 hex digits")


@dataclass(frozen=True)
class SnpTarget:
    """An AMD product, and the report whose endorsement key is wanted, if any."""

    product: Product
    report: Report | None = None

    @property
    def kind(self) -> VekKind:
        """Which branch of the product's hierarchy."""
        vlek = self.report is not None and self.report.signing_key is SigningKey.VLEK
        return VekKind.VLEK if vlek else VekKind.VCEK


def base_url(url: str) -> str:
    """``https://host[:port][/path]`` without the API's own path; raises ``CollateralUrlError``."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as exc:
        raise CollateralUrlError(f"{url[:200]!r}: {exc}") from exc
    if parts.scheme != "https" or not parts.hostname or parts.query or parts.fragment or "@" in parts.netloc:
        raise CollateralUrlError(f"{url[:200]!r}: need https://host:port")
    return _API.sub("", url.rstrip("/"))


# -- Intel -------------------------------------------------------------------------------------------------------------
def intel_target(quote: bytes) -> IntelTarget:
    """The family of platforms that a quote's certificate names; raises ``CollateralTargetError`` or a quote's error."""
    import dcap_qvl

    parsed = parse_quote(quote)
    try:
        native = dcap_qvl.parse_quote(parsed.raw)
        return IntelTarget(parsed.tee, str(native.fmspc()).lower(), str(native.ca()))
    except ValueError as exc:
        raise CollateralTargetError(f"evidence: the quote's certificate names no platform family ({exc})") from exc


def intel_wanted(target: IntelTarget, base: str = PCS_URL, *, early: bool = False) -> tuple[Wanted, ...]:
    """The four requests that make one set. ``early``: TCB info of the update that is not yet enforced."""
    sgx, own = f"{base}/sgx/certification/v4", f"{base}/{target.tee}/certification/v4"
    update = "&update=early" if early else ""
    root_crl = _ROOT_CRL_URL if base == PCS_URL else f"{sgx}/rootcacrl"
    return (
        Wanted("tcb info", f"{own}/tcb?fmspc={target.fmspc.upper()}{update}", 2 * _MIB),
        Wanted("QE identity", f"{own}/qe/identity{update.replace('&', '?')}", _MIB),
        Wanted("PCK CRL", f"{sgx}/pckcrl?ca={target.ca}&encoding=der", 8 * _MIB),
        Wanted("root CA CRL", root_crl, _MIB),
    )


def intel_collateral(target: IntelTarget, replies: Mapping[str, Fetched]) -> Collateral:
    """The set that the replies to ``intel_wanted`` make, by piece; raises ``CollateralReplyMalformedError``.

    That it is of the family that was asked for is checked; signatures and dates are not."""
    document = {
        **_signed_reply("tcb info", replies["tcb info"], "tcb_info"),
        **_signed_reply("QE identity", replies["QE identity"], "qe_identity"),
        "pck_crl": _list("PCK CRL", replies["PCK CRL"].content).hex(),
        "root_ca_crl": _list("root CA CRL", replies["root CA CRL"].content).hex(),
        "pck_crl_issuer_chain": _chain("PCK CRL", replies["PCK CRL"]),
    }
    try:
        found = parse_collateral(json.dumps(document))
    except CollateralMalformedError as exc:
        raise CollateralReplyMalformedError(f"the replies make no collateral: {exc.message}") from exc
    expected = (target.tee, target.fmspc.lower(), target.ca)
    if (found.tee, found.fmspc, found.ca) != expected:
        raise CollateralReplyMalformedError(
            f"asked for collateral of {' '.join(expected)}, got that of {found.tee} {found.fmspc} {found.ca}"
        )
    return found


def _signed_reply(piece: str, reply: Fetched, member: str) -> dict[str, str]:
    try:
        text = reply.content.decode("utf-8")
        found = read_pieces(text)
    except (UnicodeDecodeError, CollateralMalformedError) as exc:
        raise CollateralReplyMalformedError(
            f"{piece}: {len(reply.content)} bytes are no reply of a PCS: {exc}"
        ) from exc
    names = (member, f"{member}_signature")
    if any(name not in found for name in names):
        raise CollateralReplyMalformedError(f"{piece}: the reply has {sorted(found)}, need {' and '.join(names)}")
    return {**{name: found[name] for name in names}, f"{member}_issuer_chain": _chain(piece, reply)}


def _chain(piece: str, reply: Fetched) -> str:
    names = _CHAIN_HEADERS[piece]
    text = next((reply.headers[name.lower()] for name in names if name.lower() in reply.headers), None)
    if text is None:
        raise CollateralReplyMalformedError(f"{piece}: the reply lacks the header {names[0]}")
    pem = unquote(text)
    try:
        count = len(pem_certificates(pem.encode()))
    except CasemateError as exc:
        raise CollateralReplyMalformedError(f"{piece}: header {names[0]}: {exc.message}") from exc
    if count < 2:
        raise CollateralReplyMalformedError(f"{piece}: header {names[0]} has {count} certificates, need 2")
    return pem


def _list(piece: str, content: bytes) -> bytes:
    """DER of a revocation list that came as DER, PEM, hex or base64: services differ."""
    text = b"".join(content.split())
    candidates = [content]
    if b"-----BEGINX509CRL-----" in text:
        text = text.partition(b"-----BEGINX509CRL-----")[2].partition(b"-----END")[0]
    for decode in (binascii.unhexlify, lambda raw: base64.b64decode(raw, validate=True)):
        try:
            candidates.append(decode(text))
        except ValueError:
            continue
    for der in candidates:
        try:
            x509.load_der_x509_crl(der)
        except ValueError:
            continue
        return der
    raise CollateralReplyMalformedError(f"{piece}: {len(content)} bytes are no revocation list")


# -- AMD ---------------------------------------------------------------------------------------------------------------
def amd_wanted(target: SnpTarget, base: str = KDS_URL) -> tuple[Wanted, ...]:
    """Chain, revocation list and, for a report that a VCEK signed, its certificate; raises the ``Snp…`` errors."""
    wanted = [
        Wanted("chain", chain_url(target.product, target.kind, base=base), _MIB),
        Wanted("revocation list", crl_url(target.product, target.kind, base=base), 8 * _MIB),
    ]
    if target.report is not None and target.kind is VekKind.VCEK:
        wanted.append(Wanted("VCEK", vcek_url(target.report, target.product, base=base), _MIB))
    return tuple(wanted)


def read_amd(replies: Mapping[str, Fetched]) -> Sequence[bytes]:
    """The blobs of the replies to ``amd_wanted``, each of the kind it was asked for; raises the ``SnpKds…`` errors."""
    readers = {"chain": parse_chain_reply, "revocation list": parse_crl_reply, "VCEK": parse_vcek_reply}
    return [readers[piece](reply.status, reply.content) for piece, reply in replies.items()]
