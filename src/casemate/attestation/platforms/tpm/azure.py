"""Azure confidential VMs: a vTPM quote, tied by the HCL report to an SEV-SNP report or a TD quote.

The paravisor (HCL) holds the hardware report and puts the SHA-256 of its JSON claims into that report's data. The
claims name the vTPM's attestation key (``HCLAkPub``), so: hardware vouches for claims, claims for key, key for the
quote, quote for the challenge and the PCRs. The hardware evidence is verified by the verifier of its own platform,
which is handed in; the claims that result are that platform's, with the vTPM's added as ``extra.vtpm``.

HCL report: header 32 bytes ("HCLA"), hardware report 1184 bytes (a TDREPORT is padded to that), then five u32, little
endian (size, version, report type 2 SNP | 4 TDX, hash type 1 SHA-256, claims size), claims, zero padding.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol

from casemate.attestation.claims import Claims, WorkloadBinding
from casemate.attestation.eventlog import parse_event_log
from casemate.attestation.evidence import Evidence
from casemate.attestation.platforms.certificates import der_of
from casemate.attestation.platforms.tpm.errors import (
    TpmEvidenceMalformedError,
    TpmHashUnsupportedError,
    TpmHclBindingError,
    TpmHclKeyMissingError,
    TpmHclMalformedError,
    TpmHclReportTypeError,
    TpmHclUserDataError,
)
from casemate.attestation.platforms.tpm.evidence import MAX_LOG_TEXT, BankQuote, decode_binary, parse_pcr_list
from casemate.attestation.platforms.tpm.quote import check_nonce
from casemate.attestation.platforms.tpm.structures import AkPublic, Signature, rsa_public_key
from casemate.attestation.platforms.tpm.trust import AkTrust, parse_certificate
from casemate.attestation.platforms.tpm.verifier import (
    claimed_report_data,
    log_claims,
    quote_claims,
    verify_quotes,
)
from casemate.attestation.platforms.tpm.workload import prove_workload
from casemate.attestation.wire import Reader
from casemate.errors import UndecidedError

__all__ = ["AzureVerifier", "HclReport", "VerifySnpReport", "VerifyTdQuote", "parse_hcl_report"]

HEADER_SIZE = 32
HARDWARE_REPORT_SIZE = 1184
MAX_HCL_BYTES = 64 * 1024
MAX_KEYS = 16
_SNP, _TDX = 2, 4
_SHA256 = 1
_TEES = {"az-snp-vtpm": _SNP, "az-tdx-vtpm": _TDX}
_SNP_REPORT_DATA = 0x50
_TD_REPORT_DATA = {4: 48 + 520, 5: 48 + 6 + 520}  # quote version -> offset


class VerifySnpReport(Protocol):
    """As ``SnpVerifier.verify_report``: claims of a raw report, given the DER of its VCEK or VLEK."""

    def __call__(self, report: bytes, vek: bytes | None = None, *, now: datetime) -> Claims: ...


class VerifyTdQuote(Protocol):
    """Claims of a raw TD quote."""

    def __call__(self, quote: bytes, *, now: datetime) -> Claims: ...


@dataclass(frozen=True)
class HclReport:
    """The parts of an HCL report; only ``claims_hash`` in a verified hardware report makes them true."""

    report_type: int
    hardware_report: bytes
    claims_hash: bytes
    claims: Mapping[str, Any]

    @property
    def attestation_key(self) -> AkPublic:
        """The key named HCLAkPub; raises ``TpmHclKeyMissingError``."""
        keys: Any = self.claims.get("keys")
        found = keys if isinstance(keys, list) and len(keys) <= MAX_KEYS else []
        named = [key for key in found if isinstance(key, Mapping) and key.get("kid") == "HCLAkPub"]
        if len(named) != 1:
            raise TpmHclKeyMissingError(f"HCL claims: {len(named)} keys named HCLAkPub, need one")
        jwk = named[0]
        if jwk.get("kty") != "RSA" or not isinstance(jwk.get("n"), str) or not isinstance(jwk.get("e"), str):
            raise TpmHclKeyMissingError("HCL claims: HCLAkPub is not an RSA key")
        n, e = (int.from_bytes(_b64url(jwk[part], f"HCLAkPub {part}"), "big") for part in ("n", "e"))
        return rsa_public_key(n, e, "HCLAkPub")

    @property
    def user_data(self) -> bytes:
        """What the guest wrote into the vTPM's user-data index before it read the report, 64 bytes, or nothing."""
        text = self.claims.get("user-data")
        return bytes.fromhex(text) if isinstance(text, str) and _is_hex(text) else b""


def _is_hex(text: str) -> bool:
    try:
        binascii.unhexlify(text)
    except ValueError:
        return False
    return True


def _b64url(text: str, what: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError as exc:
        raise TpmHclKeyMissingError(f"HCL claims: {what} is not base64url") from exc


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """JSON objects whose names come once; two readers could take two different values otherwise."""
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("a name comes twice")
    return out


def parse_hcl_report(raw: bytes) -> HclReport:
    """Read an HCL report; raises ``TpmHclMalformedError``."""
    if len(raw) > MAX_HCL_BYTES:
        raise TpmHclMalformedError(f"HCL report: {len(raw)} bytes, at most {MAX_HCL_BYTES}")
    reader = Reader(raw, name="HCL report", truncated=TpmHclMalformedError, order="little")
    header = reader.take(HEADER_SIZE, "header")
    if header[:4] != b"HCLA":
        raise TpmHclMalformedError("HCL report: does not start with HCLA")
    hardware = reader.take(HARDWARE_REPORT_SIZE, "hardware report")
    size, _version, report_type = reader.u32("size"), reader.u32("version"), reader.u32("report type")
    hash_type, claims_size = reader.u32("hash type"), reader.u32("claims size")
    if hash_type != _SHA256:
        raise TpmHashUnsupportedError(f"HCL report: hash type {hash_type}, need {_SHA256} (SHA-256)")
    if size != claims_size + 20:
        raise TpmHclMalformedError(f"HCL report: says {size} bytes with claims of {claims_size}")
    text = reader.take(claims_size, "claims")
    if any(reader.rest()):
        raise TpmHclMalformedError("HCL report: bytes other than zeros after the claims")
    try:
        claims = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as exc:
        raise TpmHclMalformedError("HCL report: the claims are not JSON") from exc
    if not isinstance(claims, dict):
        raise TpmHclMalformedError("HCL report: the claims are not a JSON object")
    return HclReport(report_type, hardware, hashlib.sha256(text).digest(), claims)


class AzureVerifier:
    """A ``Verifier`` of ``az-snp-vtpm`` and ``az-tdx-vtpm`` evidence.

    ``verify_snp`` and ``verify_tdx`` verify the hardware evidence; without one, that kind is undecided. Both check
    dates at ``now``."""

    def __init__(self, *, verify_snp: VerifySnpReport | None = None, verify_tdx: VerifyTdQuote | None = None) -> None:
        self._verify_snp = verify_snp
        self._verify_tdx = verify_tdx

    def verify(
        self,
        evidence: Evidence,
        *,
        now: datetime,
        challenge: bytes | None = None,
        event_log: bytes | None = None,
        workload: bytes | None = None,
    ) -> Claims:
        """Claims of the hardware evidence with the vTPM's; ``report_data`` is the quote's challenge.

        Raises a ``RefusedError`` or ``UndecidedError`` naming the step."""
        # 1. Read it; the kind is the one stated.       5. Event log and workload, when there are any.
        # 2. The quote, under the HCL claims' key.      6. The hardware evidence itself.
        # 3. Challenge, and user data of version 2.     7. What was verified in 6 binds the claims of 4.
        # 4. Claims' hash in the hardware evidence.
        body = evidence.body
        if not isinstance(body, Mapping):
            raise TpmEvidenceMalformedError("Azure evidence: need a JSON object")
        hcl = parse_hcl_report(decode_binary(_either(body, "hcl_report", "report"), "hcl_report"))
        kind = _kind(evidence.tee, hcl, body)  # (1)
        key = hcl.attestation_key
        quotes = verify_quotes((_quote(body),), key)  # (2)
        if challenge is not None:
            check_nonce(quotes.quote, challenge)  # (3)
        if body.get("version") == 2 and not _same(hcl.user_data, quotes.quote.nonce):
            raise TpmHclUserDataError(
                f"HCL claims: user-data {hcl.user_data.hex()}, the quote answers {quotes.quote.nonce.hex()}"
            )
        td_quote = decode_binary(body["td_quote"], "td_quote") if kind == _TDX else b""
        stated = _stated_report_data(td_quote) if kind == _TDX else hcl.hardware_report[_SNP_REPORT_DATA:][:64]
        _check_binding(hcl, stated)  # (4)
        vtpm = quote_claims(quotes, key, AkTrust("hcl"))
        raw_log = event_log
        if raw_log is None and body.get("event_log") is not None:
            raw_log = decode_binary(body["event_log"], "event_log", limit=MAX_LOG_TEXT)
        if raw_log is not None:
            vtpm["event_log"] = log_claims(parse_event_log(raw_log), quotes.pcrs)
        if workload is None and body.get("workload") is not None:
            workload = decode_binary(body["workload"], "workload")
        proven = None if workload is None else prove_workload(workload, quotes.pcrs).hex()  # (5)
        if kind == _TDX:
            hardware = self._hardware_tdx(td_quote, now)
        else:
            hardware = self._hardware_snp(hcl.hardware_report, _vek(body), now)  # (6)
        _check_binding(hcl, bytes.fromhex(hardware.report_data or ""))  # (7)
        return replace(
            hardware,
            report_data=claimed_report_data(quotes.quote),
            workload=proven,
            workload_binding=WorkloadBinding.LAUNCH if proven else None,
            extra={
                **hardware.extra,
                "vtpm": vtpm,
                "azure": _azure_claims(hcl),
                "hardware_report_data": hardware.report_data,
            },
        )

    def _hardware_snp(self, report: bytes, vek: bytes | None, now: datetime) -> Claims:
        if self._verify_snp is None:
            raise UndecidedError("Azure evidence: no SEV-SNP verifier is configured")
        return self._verify_snp(report, vek, now=now)

    def _hardware_tdx(self, quote: bytes, now: datetime) -> Claims:
        if self._verify_tdx is None:
            raise UndecidedError("Azure evidence: no TDX verifier is configured")
        return self._verify_tdx(quote, now=now)


def _either(body: Mapping[str, Any], name: str, old_name: str) -> Any:
    """A member by its present name, or by the one it had in evidence of version 0."""
    if name in body:
        return body[name]
    if old_name in body:
        return body[old_name]
    raise TpmEvidenceMalformedError(f"Azure evidence: no member {name!r}")


def _kind(tee: str, hcl: HclReport, body: Mapping[str, Any]) -> int:
    """SNP or TDX: what the HCL report says, which must be what the evidence says it is."""
    kind = hcl.report_type
    if kind not in (_SNP, _TDX) or _TEES.get(tee, kind) != kind:
        raise TpmHclReportTypeError(f"HCL report: type {kind}, evidence of {tee} needs {_TEES.get(tee, '2 or 4')}")
    if (kind == _TDX) != ("td_quote" in body):
        raise TpmHclReportTypeError(f"HCL report: type {kind}, and a td_quote is {'td_quote' in body and 'present'}")
    return kind


def _quote(body: Mapping[str, Any]) -> BankQuote:
    """Azure guests send the bare RSASSA-SHA256 signature and all 24 PCRs of the SHA-256 bank."""
    inner = _either(body, "tpm_quote", "quote")
    if not isinstance(inner, Mapping) or not {"message", "signature", "pcrs"} <= inner.keys():
        raise TpmEvidenceMalformedError("tpm_quote: need message, signature and pcrs")
    return BankQuote(
        message=decode_binary(inner["message"], "quote message"),
        signature=Signature("rsassa", "sha256", decode_binary(inner["signature"], "quote signature")),
        bank="sha256",
        pcrs=parse_pcr_list(inner["pcrs"]),
    )


def _vek(body: Mapping[str, Any]) -> bytes | None:
    """The VCEK's DER, from DER or PEM."""
    value = body.get("vcek")
    if value is None:
        return None
    if isinstance(value, str) and value.lstrip().startswith("-----BEGIN"):
        return der_of(parse_certificate(value[:65536].encode())[0])
    return decode_binary(value, "vcek")


def _same(data: bytes, nonce: bytes) -> bool:
    size = max(len(data), len(nonce), 64)
    return hmac.compare_digest(data.ljust(size, b"\0"), nonce.ljust(size, b"\0"))


def _stated_report_data(quote: bytes) -> bytes:
    """REPORTDATA of a TD quote, unverified: a mix-up is to be named before anything else."""
    offset = _TD_REPORT_DATA.get(int.from_bytes(quote[:2], "little"))
    if offset is None or len(quote) < offset + 64:
        raise TpmHclReportTypeError("td_quote: not a TD quote of version 4 or 5")
    return quote[offset : offset + 64]


def _check_binding(hcl: HclReport, report_data: bytes) -> None:
    if not hmac.compare_digest(report_data, hcl.claims_hash.ljust(64, b"\0")):
        raise TpmHclBindingError(
            f"hardware report data: expected the claims' hash {hcl.claims_hash.hex()}, got {report_data.hex()}"
        )


def _azure_claims(hcl: HclReport) -> dict[str, Any]:
    configuration = hcl.claims.get("vm-configuration")
    return {
        "vm_configuration": dict(configuration) if isinstance(configuration, Mapping) else {},
        "user_data": hcl.user_data.hex(),
    }
