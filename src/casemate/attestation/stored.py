"""Recognise stored evidence by its content: which platform it is of, in which encoding, and its normal form.

Real evidence comes raw, as hex or base64 text, and in the JSON of several attesters. Recognising trusts nothing: the
platform's verifier reads the normal form strictly. No network, disk or clock.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from casemate.attestation.errors import MalformedEvidenceError
from casemate.attestation.evidence import Evidence
from casemate.attestation.platforms.gpu.evidence import read_evidence
from casemate.attestation.platforms.intel.quote import INTEL_QE_VENDOR
from casemate.attestation.platforms.linux.snp_certificates import endorsement_key, parse_certificate_table
from casemate.attestation.platforms.snp.body import build_body
from casemate.attestation.platforms.snp.report import REPORT_SIZE
from casemate.attestation.platforms.tdx.td_report import TD_REPORT_SIZE, is_td_report
from casemate.attestation.platforms.tpm.azure import HARDWARE_REPORT_SIZE, HEADER_SIZE, parse_hcl_report
from casemate.attestation.stored_errors import EvidenceIncompleteError, EvidenceUnrecognisedError
from casemate.attestation.stored_text import decoded, plain_text

__all__ = ["MAX_STORED_BYTES", "Kind", "Stored", "recognise"]

MAX_STORED_BYTES = 32 * 1024 * 1024
_CERTIFICATE = re.compile(rb"-----BEGIN (?:X509 |TRUSTED )?(?:CERTIFICATE|CRL|(?:RSA |EC )?PUBLIC KEY)-----")
_TOKEN = re.compile(rb"eyJ[A-Za-z0-9_-]+\.eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
_SNP_HEADER = 32  # of a /dev/sev-guest MSG_REPORT_RSP: status, size, reserved
_TPM_MAGIC = bytes.fromhex("ff544347")
_QUOTES = ("quote", "td_quote", "sgx_quote", "raw_quote", "intel_quote", "tdx_quote")
_SPEC_ID = b"Spec ID Event03\0"


class Kind(StrEnum):
    """What a file is. The last five are no evidence by themselves."""

    SGX = "sgx"
    TDX = "tdx"
    SNP = "snp"
    TPM = "tpm"
    AZURE = "azure"
    GPU = "gpu"
    TDREPORT = "tdreport"
    CERTIFICATES = "certificates"
    COLLATERAL = "collateral"
    EVENT_LOG = "event log"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Stored:
    """One file, recognised. ``evidence`` is in the form its verifier reads; ``None`` for what is no evidence.

    ``raw`` is the binary content where there is one. ``event_log`` came inside the evidence."""

    kind: Kind
    raw: bytes
    evidence: Evidence | None = None
    event_log: bytes | None = None


def recognise(content: bytes, expected: Kind | None = None) -> Stored:
    """What ``content`` is; ``expected`` decides where nothing in it does, so that its parser can say what is wrong.

    Raises ``EvidenceUnrecognisedError``, ``EvidenceIncompleteError`` or another ``MalformedEvidenceError``."""
    if len(content) > MAX_STORED_BYTES:
        raise EvidenceUnrecognisedError(f"evidence: {len(content)} bytes, at most {MAX_STORED_BYTES} are read")
    text = plain_text(content.strip())
    if not text:
        raise EvidenceUnrecognisedError("evidence: the file is empty")
    if text[:1] in (b"{", b"[", b'"') and not text.startswith(b"{0x"):
        return _from_json(text)
    if _TOKEN.fullmatch(text):
        raise EvidenceUnrecognisedError("evidence: a token (JWT) of another verifier; need what that verifier judged")
    if _CERTIFICATE.search(text[:4096]) and text.isascii() and text.endswith(b"-----"):
        return Stored(Kind.CERTIFICATES, content)
    meant = decoded(text)
    found = _from_binary(content if meant is None else meant)
    if found.kind is Kind.UNKNOWN and expected is not None:
        return _as(expected, found.raw)
    if found.kind is Kind.UNKNOWN:
        raise EvidenceUnrecognisedError(
            f"evidence: {len(found.raw)} bytes from {found.raw[:8].hex()} on: no quote, report, certificate or log"
        )
    return found


# -- binary ------------------------------------------------------------------------------------------------------------
def _from_binary(raw: bytes) -> Stored:
    version, second = raw[:2], raw[2:4]
    if raw[12:28] == INTEL_QE_VENDOR or (version in (b"\3\0", b"\4\0", b"\5\0") and second in (b"\2\0", b"\3\0")):
        return _as(Kind.TDX if raw[4:8] == b"\x81\0\0\0" else Kind.SGX, raw)
    if raw[:4] == b"HCLA":
        hcl = parse_hcl_report(raw)
        part = raw[HEADER_SIZE : HEADER_SIZE + HARDWARE_REPORT_SIZE]
        return _as(Kind.SNP, part) if hcl.report_type == 2 else Stored(Kind.TDREPORT, part[:TD_REPORT_SIZE])
    if raw[:4] == _TPM_MAGIC:
        raise EvidenceIncompleteError("evidence: a TPMS_ATTEST alone; its signature, key and PCR values are missing")
    if raw[4:8] == b"\3\0\0\0" and raw[32:48] == _SPEC_ID:
        return Stored(Kind.EVENT_LOG, raw)
    if is_td_report(raw):
        return Stored(Kind.TDREPORT, raw)
    if raw[:2] == b"\x11\xe0":
        return _as(Kind.GPU, raw)
    if raw[:1] == b"\x30" and raw[1:2] in (b"\x81", b"\x82", b"\x59"):
        return Stored(Kind.CERTIFICATES, raw)
    return _snp_binary(raw)


def _snp_binary(raw: bytes) -> Stored:
    """A report alone, after the response header of /dev/sev-guest, or followed by the host's certificate table."""
    raw = _without_header(raw)
    if len(raw) == REPORT_SIZE and raw[1:4] == b"\0\0\0":
        return _as(Kind.SNP, raw)
    if len(raw) > REPORT_SIZE and raw[0] in range(1, 16) and raw[1:4] == b"\0\0\0":
        report, rest = raw[:REPORT_SIZE], raw[REPORT_SIZE:]
        if not any(rest):
            return _as(Kind.SNP, report)
        try:
            found = endorsement_key(parse_certificate_table(rest))
        except MalformedEvidenceError:  # something else follows; the report's own parser refuses it
            return _as(Kind.SNP, raw)
        return Stored(Kind.SNP, report, Evidence("snp", build_body(report, *_named(found))))
    return Stored(Kind.UNKNOWN, raw)


def _without_header(raw: bytes) -> bytes:
    """The report out of a MSG_REPORT_RSP: status 0, the report's size, reserved bytes, the report, padding."""
    header = bytes(4) + REPORT_SIZE.to_bytes(4, "little") + bytes(_SNP_HEADER - 8)
    return raw[_SNP_HEADER : _SNP_HEADER + REPORT_SIZE] if raw.startswith(header) else raw


def _named(found: tuple[str, bytes] | None) -> tuple[bytes] | tuple[()]:
    return () if found is None else (found[1],)


def _as(kind: Kind, raw: bytes) -> Stored:
    if kind in (Kind.SGX, Kind.TDX):
        return Stored(kind, raw, Evidence(str(kind), {"quote": base64.b64encode(raw).decode()}))
    if kind is Kind.SNP:
        return Stored(kind, raw, Evidence("snp", build_body(raw)))
    if kind is Kind.GPU:
        return Stored(kind, raw, read_evidence(raw))
    if kind in (Kind.TPM, Kind.AZURE):
        raise EvidenceUnrecognisedError(f"evidence: need JSON for {kind}, got {len(raw)} bytes of something else")
    return Stored(kind, raw)


# -- JSON --------------------------------------------------------------------------------------------------------------
def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("a name comes twice")
    return out


def _from_json(text: bytes) -> Stored:
    try:
        value = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as exc:
        raise EvidenceUnrecognisedError(
            f"evidence: not JSON that can be read ({type(exc).__name__}: {exc})"[:300]
        ) from exc
    return _from_value(value, depth=0)


def _from_value(value: Any, depth: int) -> Stored:
    if isinstance(value, list) and value and all(type(n) is int for n in value):
        return recognise(_bytes(value, "array"))
    if isinstance(value, list):
        return Stored(Kind.GPU, b"", Evidence("nvidia", {"device_evidence_list": value}))
    if isinstance(value, str) and depth < 3:  # additional_evidence of the KBS protocol is JSON in a text
        return recognise(value.encode("utf-8", "replace"))
    if not isinstance(value, Mapping):
        raise EvidenceUnrecognisedError("evidence: need a JSON object")
    if depth > 4:
        raise EvidenceUnrecognisedError("evidence: nested too deep")
    for name in ("tee-evidence", "tee_evidence", "primary_evidence", "evidence", "body", "tdx", "sgx", "snp", "sevsnp"):
        if isinstance(value.get(name), Mapping):
            return _from_value(value[name], depth + 1)
    names = value.keys()
    if names & {"device_evidence_list", "evidence_list"}:
        return Stored(Kind.GPU, b"", Evidence("nvidia", value))
    if {"evidence", "certificate"} <= names:
        return Stored(Kind.GPU, b"", Evidence("nvidia", {"device_evidence_list": [value]}))
    if "hcl_report" in names or isinstance(value.get("quote"), Mapping):
        return Stored(Kind.AZURE, b"", Evidence("az-tdx-vtpm" if "td_quote" in names else "az-snp-vtpm", value))
    if names & {"tpm_quote", "quotes", "signature_tpmt"}:
        return Stored(Kind.TPM, b"", Evidence("tpm", value))
    if "attestation_report" in names or "report" in names:
        return _snp_json(value)
    if {"measurement", "report_data", "signature"} <= names:
        return Stored(Kind.SNP, b"", Evidence("snp", {"attestation_report": value}))
    if names & set(_QUOTES):
        return _quote_json(value)
    flat = {str(name).lower().replace("_", "") for name in names}
    if flat & {"tcbinfo", "enclaveidentity", "qeidentity", "pckcrl"}:
        return Stored(Kind.COLLATERAL, b"")
    raise EvidenceUnrecognisedError(f"evidence: JSON with members {sorted(map(str, names))[:12]} is of no known kind")


def _quote_json(value: Mapping[str, Any]) -> Stored:
    name = next(name for name in _QUOTES if name in value)
    found = _from_binary(_bytes(value[name], name))
    if found.kind not in (Kind.SGX, Kind.TDX):
        raise EvidenceUnrecognisedError(f"evidence: its member {name} is no SGX or TDX quote")
    log = value.get("cc_eventlog", value.get("event_log"))
    return Stored(found.kind, found.raw, found.evidence, _log(log) if log else None)


def _log(value: Any) -> bytes:
    """A log beside a quote: the binary one in text, or one JSON object for each event, as text or as it is."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        return value.encode("utf-8", "replace")
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        return json.dumps(value).encode()
    return _bytes(value, "event log")


def _snp_json(value: Mapping[str, Any]) -> Stored:
    """The body as the verifier reads it: the report as base64 or structure, certificates beside it."""
    report = value.get("attestation_report", value.get("report"))
    body: dict[str, Any] = {}
    if isinstance(report, Mapping):
        body["attestation_report"] = report
    else:
        body["report"] = base64.b64encode(_without_header(_bytes(report, "report"))).decode()
    chain = value.get("cert_chain", value.get("certificates"))
    if isinstance(chain, list) and all(isinstance(item, Mapping) for item in chain):
        body["cert_chain"] = chain
    for name in ("vcek", "vlek"):
        if value.get(name):
            der = _pem_or_bytes(value[name], name)
            entry = {"cert_type": name.upper(), "data": base64.b64encode(der).decode()}
            body["cert_chain"] = [*body.get("cert_chain", ()), entry]
    return Stored(Kind.SNP, b"", Evidence("snp", body))


def _pem_or_bytes(value: Any, what: str) -> bytes:
    if isinstance(value, str) and value.lstrip().startswith("-----BEGIN CERTIFICATE-----"):
        body = value.partition("-----BEGIN CERTIFICATE-----")[2].partition("-----END CERTIFICATE-----")[0]
        return _bytes(body, what)
    return _bytes(value, what)


def _bytes(value: Any, what: str) -> bytes:
    """Bytes from hex, base64, base64url or an array of numbers."""
    if isinstance(value, list) and all(type(n) is int and 0 <= n <= 255 for n in value):
        return bytes(value)
    meant = decoded(value.strip().encode("utf-8", "replace")) if isinstance(value, str) else None
    if meant is None:
        raise MalformedEvidenceError(f"evidence: {what} is neither hex nor base64 nor an array of bytes")
    return meant
