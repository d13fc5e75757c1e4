"""TPM evidence as JSON, in the three shapes that are found, read into one.

*Confidential containers* (tee ``tpm``): ``{"ak_public": b64 SPKI, "tpm_quote": {"message": b64, "signature": b64
TPMT_SIGNATURE, "pcrs": [hex; 24, SHA-256]}}``. *Banks* (Google Cloud): ``{"nonce": hex, "ak_pub_tpmt": hex,
"ak_cert_der": b64, "quotes": [{"pcr_bank": TPM_ALG_ID, "message": hex, "signature": hex, "pcrs": {n: hex}}]}``.
*Single*: ``{"nonce", "ak_pem", "message", "signature_tpmt", "pcr_bank", "pcrs"}``. All may add ``ak_cert_chain`` (PEM),
``event_log`` (b64) and ``workload`` (hex: the digest that PCR 8 is said to hold; checked, not believed).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography import x509

from casemate.attestation.platforms.certificates import spki_of
from casemate.attestation.platforms.tpm.errors import (
    TpmEvidenceMalformedError,
    TpmKeyMismatchError,
    TpmOversizedError,
    TpmPcrBankError,
)
from casemate.attestation.platforms.tpm.structures import (
    HASH_NAMES,
    AkPublic,
    Signature,
    hash_name,
    parse_public_key,
    parse_signature,
    parse_tpmt_public,
)
from casemate.attestation.platforms.tpm.trust import parse_certificate

__all__ = ["BankQuote", "TpmEvidence", "decode_binary", "parse_evidence", "parse_pcr_list"]

MAX_TEXT = 64 * 1024  # characters of one encoded structure
MAX_LOG_TEXT = 24 * 1024 * 1024
MAX_QUOTES = 8
MAX_PCRS = 32


@dataclass(frozen=True)
class BankQuote:
    """One signed quote with the values of one bank's PCRs."""

    message: bytes
    signature: Signature
    bank: str
    pcrs: Mapping[int, bytes]


@dataclass(frozen=True)
class TpmEvidence:
    """Everything that came, decoded; nothing is verified."""

    quotes: tuple[BankQuote, ...]
    key: AkPublic
    certificate: x509.Certificate | None = None
    chain: tuple[x509.Certificate, ...] = ()
    nonce: bytes | None = None  # what the sender says it was asked; only ever compared with the quote
    event_log: bytes | None = None
    workload: bytes | None = None


def decode_binary(value: Any, what: str, *, limit: int = MAX_TEXT) -> bytes:
    """Bytes from hex, base64, base64url (padded or not) or an array of numbers; hex wins where a text is both."""
    if isinstance(value, list):
        if len(value) > limit or not all(type(n) is int and 0 <= n <= 255 for n in value):
            raise TpmEvidenceMalformedError(f"{what}: not an array of at most {limit} bytes")
        return bytes(value)
    if not isinstance(value, str):
        raise TpmEvidenceMalformedError(f"{what}: need text, got {type(value).__name__}")
    if len(value) > limit:
        raise TpmOversizedError(f"{what}: {len(value)} characters, at most {limit}")
    try:
        return binascii.unhexlify(value)
    except ValueError:
        pass
    try:
        text = "".join(value.split()).rstrip("=").translate(str.maketrans("-_", "+/"))
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError as exc:
        raise TpmEvidenceMalformedError(f"{what}: neither hex nor base64") from exc


def _member(body: Mapping[str, Any], name: str) -> Any:
    if name not in body:
        raise TpmEvidenceMalformedError(f"TPM evidence: no member {name!r}, got {sorted(map(str, body))[:12]}")
    return body[name]


def _object(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TpmEvidenceMalformedError(f"{what}: need an object, got {type(value).__name__}")
    return value


def parse_pcr_list(value: Any) -> dict[int, bytes]:
    """PCR values by position, or by number in an object."""
    if isinstance(value, list):
        items: list[tuple[Any, Any]] = list(enumerate(value))
    else:
        items = list(_object(value, "pcrs").items())
    if len(items) > MAX_PCRS:
        raise TpmOversizedError(f"pcrs: {len(items)} values, at most {MAX_PCRS}")
    pcrs: dict[int, bytes] = {}
    for name, text in items:
        number = str(name)
        if not (number.isascii() and number.isdigit() and len(number) <= 2) or int(number) in pcrs:
            raise TpmEvidenceMalformedError(f"pcrs: {number[:16]!r} is not the number of a PCR, or comes twice")
        pcrs[int(number)] = decode_binary(text, f"PCR {number}")
    return pcrs


def _bank(value: Any) -> str:
    if isinstance(value, str) and value in HASH_NAMES.values():
        return value
    if type(value) is not int:
        raise TpmPcrBankError(f"pcr_bank: need a TPM_ALG_ID or a name of {sorted(HASH_NAMES.values())}")
    return hash_name(value, "pcr_bank")


def _parse_quote(body: Mapping[str, Any], signature: str, bank: str) -> BankQuote:
    return BankQuote(
        message=decode_binary(_member(body, "message"), "quote message"),
        signature=parse_signature(decode_binary(_member(body, signature), "quote signature")),
        bank=bank,
        pcrs=parse_pcr_list(_member(body, "pcrs")),
    )


def _parse_quotes(body: Mapping[str, Any]) -> tuple[BankQuote, ...]:
    if "tpm_quote" in body:
        inner = _object(body["tpm_quote"], "tpm_quote")
        return (_parse_quote(inner, "signature", _bank(inner.get("pcr_bank", "sha256"))),)
    if "quotes" in body:
        quotes = body["quotes"]
        if not isinstance(quotes, list) or not 0 < len(quotes) <= MAX_QUOTES:
            raise TpmEvidenceMalformedError(f"quotes: need an array of 1 to {MAX_QUOTES}")
        found = [_object(item, "quotes") for item in quotes]
        return tuple(_parse_quote(item, "signature", _bank(_member(item, "pcr_bank"))) for item in found)
    return (_parse_quote(body, "signature_tpmt", _bank(_member(body, "pcr_bank"))),)


def _parse_key(body: Mapping[str, Any], certificate: x509.Certificate | None) -> AkPublic:
    """The attestation key: with its attributes if they came, else bare; all the forms that came must agree."""
    keys = [
        parse(decode_binary(body[name], name) if name != "ak_pem" else str(body[name]).encode()[:MAX_TEXT])
        for name, parse in (
            ("ak_pub_tpmt", parse_tpmt_public),
            ("ak_public", parse_public_key),
            ("ak_pem", parse_public_key),
        )
        if name in body
    ]
    if not keys:
        if certificate is None:
            raise TpmEvidenceMalformedError("TPM evidence: no attestation key (ak_public, ak_pub_tpmt, ak_pem)")
        keys.append(parse_public_key(spki_of(certificate)))
    if any(key.spki != keys[0].spki for key in keys):
        raise TpmKeyMismatchError("TPM evidence: it names two different attestation keys")
    return keys[0]


def parse_evidence(body: Mapping[str, Any]) -> TpmEvidence:
    """Read TPM evidence of any of the three shapes; raises ``MalformedEvidenceError`` subclasses."""
    body = _object(body, "TPM evidence")
    certificates: tuple[x509.Certificate, ...] = ()
    for name in ("ak_cert_der", "ak_cert_chain"):
        if body.get(name):
            certificates += parse_certificate(_pem_or_binary(body[name], name))
    certificate = certificates[0] if certificates else None
    nonce, log, workload = body.get("nonce"), body.get("event_log"), body.get("workload")
    return TpmEvidence(
        quotes=_parse_quotes(body),
        key=_parse_key(body, certificate),
        certificate=certificate,
        chain=certificates[1:],
        nonce=None if nonce is None else decode_binary(nonce, "nonce"),
        event_log=None if log is None else decode_binary(log, "event_log", limit=MAX_LOG_TEXT),
        workload=None if workload is None else decode_binary(workload, "workload"),
    )


def _pem_or_binary(value: Any, what: str) -> bytes:
    if isinstance(value, str) and value.lstrip().startswith("-----BEGIN"):
        return value[:MAX_TEXT].encode()
    return decode_binary(value, what)
