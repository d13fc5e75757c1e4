"""Verify DCAP quotes: bytes, collateral and a time in, normalised claims out; no network, disk or clock.

``dcap-qvl`` does the cryptography, always under an explicit trust anchor. What it leaves open is done here: strict
framing, TD attributes, XFAM and SGX attributes, names for its refusals. Its ``OutOfDate`` is a claim for the policy
to judge, never an acceptance.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import dcap_qvl
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from casemate.attestation.claims import Claims, TcbClaims, WorkloadBinding
from casemate.attestation.errors import CollateralMissingError, MalformedEvidenceError, UntrustedRootError
from casemate.attestation.evidence import Evidence
from casemate.attestation.platforms.intel import errors
from casemate.attestation.platforms.intel.collateral import Collateral, CollateralSource
from casemate.attestation.platforms.intel.diagnosis import ATTRIBUTE_REFUSALS, diagnose
from casemate.attestation.platforms.intel.quote import MAX_QUOTE_SIZE, Quote, parse_quote, pem_certificates
from casemate.attestation.platforms.intel.tcb import judge

__all__ = ["BodyClaims", "IntelVerifier", "TrustAnchor", "quote_of"]

_ATTRIBUTES_AT, _ISVSVN_AT = 48, 258  # in an SGX report body
_DEBUG = 0x02  # SGX ATTRIBUTES.FLAGS bit 1


@dataclass(frozen=True)
class TrustAnchor:
    """A root certificate (DER) that evidence may end in, and the collateral that goes with it."""

    name: str
    root: bytes
    collateral: CollateralSource
    simulated: bool


@dataclass(frozen=True)
class BodyClaims:
    """What one kind of report body says, already checked for values that are never acceptable."""

    debug: bool
    measurement: str
    report_data: str
    unsafe_attributes: tuple[str, ...]
    tdx_svns: tuple[int, ...] | None = None
    signer: str | None = None
    product_id: int | None = None
    svn: int | None = None
    rtmr: tuple[str, ...] = ()
    workload: str | None = None
    extra: Mapping[str, Any] | None = None


def quote_of(evidence: Evidence) -> bytes:
    """The quote of an evidence body ``{"quote": base64}``; raises ``MalformedEvidenceError``."""
    text = evidence.body.get("quote")
    if not isinstance(text, str) or len(text) > 2 * MAX_QUOTE_SIZE:
        raise MalformedEvidenceError("evidence: need a member quote with base64 text of at most 64 KiB")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise MalformedEvidenceError("evidence: quote is not base64") from exc


class IntelVerifier:
    """Verifies quotes of one TEE (``sgx`` or ``tdx``) under the given anchors; immutable, safe to share."""

    def __init__(self, tee: str, anchors: Sequence[TrustAnchor], read_body: Callable[[Quote], BodyClaims]) -> None:
        self._tee = tee
        self._anchors = tuple(anchors)
        self._read_body = read_body
        self._native = {anchor.root: dcap_qvl.QuoteVerifier(anchor.root) for anchor in self._anchors}

    def verify(self, evidence: Evidence, *, now: datetime) -> Claims:
        """The claims of a genuine quote; raises the error of the step that failed.

        Claims are given for debug TEEs too, with ``debug`` set: the policy is what refuses those."""
        return self.verify_quote(quote_of(evidence), now=now)

    def verify_quote(self, raw: bytes, *, now: datetime) -> Claims:
        """The same for the bare bytes of a quote."""
        # 1. Framing.      2. Which anchor.                3. Collateral for this platform.
        # 4. Signatures, certificates, revocation, TCB.    5. The report body.   6. Claims.
        quote = parse_quote(raw)  # (1)
        if quote.tee != self._tee:
            raise errors.QuoteVersionUnsupportedError(f"quote: expected one of {self._tee}, got one of {quote.tee}")
        anchor = self._anchor(quote)  # (2)
        collateral = self._collateral(quote, anchor, now)  # (3)
        verified = self._verify(quote, anchor, collateral, now)  # (4)
        body = self._read_body(quote)  # (5)
        platform = _platform(quote, collateral, body, verified)
        return self._claims(quote, anchor, collateral, body, platform)  # (6)

    def _anchor(self, quote: Quote) -> TrustAnchor:
        if not quote.certificates:  # types 2 and 3 carry no chain; the collateral does
            if len(self._anchors) == 1:
                return self._anchors[0]
            raise CollateralMissingError("PCK certificate chain: not in the quote")
        last = quote.certificates[-1]
        for anchor in self._anchors:
            if anchor.root == last or _issued_by(last, anchor.root):
                return anchor
        names = ", ".join(anchor.name for anchor in self._anchors) or "none"
        raise UntrustedRootError(f"quote: its certificate chain ends in none of the trusted roots ({names})")

    def _collateral(self, quote: Quote, anchor: TrustAnchor, now: datetime) -> Collateral:
        fmspc, ca = "", ""
        if quote.certificates:
            try:
                parsed = dcap_qvl.parse_quote(quote.raw)
                fmspc, ca = str(parsed.fmspc()).lower(), str(parsed.ca())
            except ValueError as exc:
                raise errors.PckChainError(f"PCK chain: the platform's certificate is not readable ({exc})") from exc
        found = anchor.collateral.find(root=anchor.root, tee=quote.tee, fmspc=fmspc, ca=ca, now=now)
        if found is None:
            raise CollateralMissingError(
                f"collateral: none for {quote.tee} FMSPC {fmspc} ({ca} CA) under {anchor.name}"
            )
        if not quote.certificates and "pck_certificate_chain" not in found.document:
            raise CollateralMissingError("PCK certificate chain: neither in the quote nor in the collateral")
        return found

    def _verify(
        self, quote: Quote, anchor: TrustAnchor, collateral: Collateral, now: datetime
    ) -> Mapping[str, Any] | None:
        """The library's claims; ``None`` when all it refuses is an attribute that the policy is to judge."""
        seconds = int(now.timestamp())
        policy = dcap_qvl.QuotePolicy.claims_only(seconds)
        try:
            native = self._native[anchor.root].verify_with_policy(quote.raw, collateral.native, seconds, policy)
            claims: Mapping[str, Any] = json.loads(native.to_json())
        except (ValueError, OverflowError) as exc:
            text = str(exc)
            if any(text.endswith(refusal) for refusal in ATTRIBUTE_REFUSALS) and collateral.current(now):
                if quote.qe_report[_ATTRIBUTES_AT] & _DEBUG:
                    raise errors.QeDebugError("quote: the quoting enclave runs in debug mode") from exc
                return None
            raise diagnose(text, quote, collateral, anchor.root, now) from exc
        return claims

    def _claims(
        self, quote: Quote, anchor: TrustAnchor, collateral: Collateral, body: BodyClaims, platform: _Platform
    ) -> Claims:
        return Claims(
            platform=quote.tee,
            simulated=anchor.simulated,
            debug=body.debug,
            measurement=body.measurement,
            signer=body.signer,
            product_id=body.product_id,
            svn=body.svn,
            rtmr=body.rtmr,
            workload=body.workload,
            workload_binding=WorkloadBinding.LAUNCH if body.workload else None,
            report_data=body.report_data,
            tcb=platform.tcb,
            platform_id=platform.id,
            collateral_expires=min(collateral.expires, platform.certificates_expire),
            extra={
                "quote_version": quote.version,
                "trailing_bytes": quote.trailing_bytes,
                "anchor": anchor.name,
                "collateral_issued": collateral.issued.isoformat(),
                "unsafe_attributes": list(body.unsafe_attributes),
                **(body.extra or {}),
                **platform.extra,
            },
        )


def _issued_by(last: bytes, root: bytes) -> bool:
    """Whether a chain without its root was signed by ``root``."""
    try:
        x509.load_der_x509_certificate(last).verify_directly_issued_by(x509.load_der_x509_certificate(root))
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, x509.InvalidVersion):
        return False
    return True


@dataclass(frozen=True)
class _Platform:
    tcb: TcbClaims
    id: str
    certificates_expire: datetime
    extra: Mapping[str, Any]


def _platform(quote: Quote, collateral: Collateral, body: BodyClaims, verified: Mapping[str, Any] | None) -> _Platform:
    chain = quote.certificates or pem_certificates(collateral.document["pck_certificate_chain"].encode())
    try:
        certificate = x509.load_der_x509_certificate(chain[0])
        pck = dcap_qvl.parse_pck_extension_from_pem(_pem(chain[0]))
    except (ValueError, IndexError, x509.InvalidVersion) as exc:
        raise errors.PckChainError(f"PCK chain: the platform's certificate is not readable ({exc})") from exc
    qe_svn = int.from_bytes(quote.qe_report[_ISVSVN_AT : _ISVSVN_AT + 2], "little")
    if verified is None:
        state = judge(
            collateral.tcb_info,
            collateral.qe_identity,
            sgx_svns=list(pck.cpu_svn),
            pce_svn=pck.pce_svn,
            qe_svn=qe_svn,
            tdx_svns=body.tdx_svns,
        )
        status, date, advisories = state.status, state.date, state.advisories
    else:
        status, advisories = verified["tcb"]["status"], tuple(verified["tcb"]["advisory_ids"])
        date = verified["platform"]["tcb_level"]["tcbDate"]
    reported = {f"sgx{i:02}": svn for i, svn in enumerate(pck.cpu_svn, 1)}
    reported |= {f"tdx{i:02}": svn for i, svn in enumerate(body.tdx_svns or (), 1)}
    ppid, piid = pck.ppid.hex(), pck.platform_instance_id.hex() if pck.platform_instance_id else None
    return _Platform(
        tcb=TcbClaims(
            status=status,
            date=date,
            advisories=advisories,
            evaluation_number=min(
                collateral.tcb_info["tcbEvaluationDataNumber"], collateral.qe_identity["tcbEvaluationDataNumber"]
            ),
            reported={**reported, "pcesvn": pck.pce_svn, "qesvn": qe_svn},
        ),
        id=piid or ppid,
        certificates_expire=certificate.not_valid_after_utc,
        extra={
            "ppid": ppid,
            "piid": piid,
            "fmspc": pck.fmspc.hex(),
            "pce_id": pck.pce_id.hex(),
            "pck_ca": collateral.ca,
            "sgx_type": {0: "standard", 1: "scalable", 2: "scalable-with-integrity"}.get(pck.sgx_type, pck.sgx_type),
            **{name: _flag(pck, oid) for name, oid in _CONFIGURATION.items()},
        },
    )


_CONFIGURATION = {
    "dynamic_platform": "1.2.840.113741.1.13.1.7.1",
    "cached_keys": "1.2.840.113741.1.13.1.7.2",
    "smt_enabled": "1.2.840.113741.1.13.1.7.3",
}


def _flag(pck: Any, oid: str) -> bool | None:
    value = pck.get_value(oid)
    return None if not value else bool(value[-1])


def _pem(der: bytes) -> bytes:
    return b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE-----\n"
