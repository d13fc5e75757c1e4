"""Read Intel collateral in the layouts it is found in, and put scattered pieces together.

Found are: DCAP's ``QuoteCollateralV3`` as JSON with hex, base64 or PEM members, under several spellings of their names;
the bare replies of a PCS or PCCS (``{"tcbInfo": …, "signature": …}``, ``{"enclaveIdentity": …, "signature": …}``), with
the issuer chain and the revocation lists beside them. What was signed is the exact text, so it is cut out of the
document, never written anew. Nothing is verified here.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import unquote

from cryptography import x509
from cryptography.x509.oid import NameOID

from casemate.attestation.errors import CollateralMissingError
from casemate.attestation.platforms.intel.collateral import MAX_COLLATERAL_SIZE, Collateral, parse_collateral
from casemate.attestation.platforms.intel.errors import CollateralMalformedError

__all__ = ["assemble_collateral", "read_pieces"]

_NAMES = {
    "pckcrlissuerchain": "pck_crl_issuer_chain",
    "sgxpckcrlissuerchain": "pck_crl_issuer_chain",
    "rootcacrl": "root_ca_crl",
    "pckcrl": "pck_crl",
    "tcbinfoissuerchain": "tcb_info_issuer_chain",
    "sgxtcbinfoissuerchain": "tcb_info_issuer_chain",
    "tcbinfo": "tcb_info",
    "tcbinfosignature": "tcb_info_signature",
    "qeidentityissuerchain": "qe_identity_issuer_chain",
    "enclaveidentityissuerchain": "qe_identity_issuer_chain",
    "sgxenclaveidentityissuerchain": "qe_identity_issuer_chain",
    "qeidentity": "qe_identity",
    "enclaveidentity": "qe_identity",
    "qeidentitysignature": "qe_identity_signature",
    "enclaveidentitysignature": "qe_identity_signature",
    "pckcertificatechain": "pck_certificate_chain",
    "pckcertchain": "pck_certificate_chain",
}
_INNER = {"tcb_info": "tcbInfo", "qe_identity": "enclaveIdentity"}
_NEEDED = (
    "tcb_info",
    "tcb_info_signature",
    "tcb_info_issuer_chain",
    "qe_identity",
    "qe_identity_signature",
    "qe_identity_issuer_chain",
    "root_ca_crl",
    "pck_crl",
    "pck_crl_issuer_chain",
)


def assemble_collateral(
    documents: Sequence[str], certificates: Iterable[bytes] = (), crls: Iterable[bytes] = ()
) -> tuple[Collateral, ...]:
    """The collateral that ``documents`` (JSON) make, with ``certificates`` and ``crls`` (DER) to fill gaps.

    Each whole document is one. Partial ones, later before earlier, are laid over the first whole one, or together make
    one with what was given beside them. Raises ``CollateralMalformedError`` or ``CollateralMissingError`` naming the
    piece."""
    read = [read_pieces(text) for text in documents]
    whole = [pieces for pieces in read if all(name in pieces for name in _NEEDED)]
    partial = [pieces for pieces in read if pieces not in whole]
    if partial or not whole:
        merged: dict[str, str] = dict(whole[0]) if whole else {}
        for pieces in partial:
            merged |= pieces
        whole = [_filled(merged, tuple(certificates), tuple(crls))]
    return tuple(parse_collateral(json.dumps(pieces)) for pieces in whole)


def _filled(pieces: dict[str, str], certificates: Sequence[bytes], crls: Sequence[bytes]) -> dict[str, str]:
    from_files = _from_files(certificates, crls)
    if "pck_crl" in from_files and "root_ca_crl" in from_files:
        pieces |= {name: from_files[name] for name in ("pck_crl", "root_ca_crl", "pck_crl_issuer_chain")}
    pieces = from_files | pieces
    if "qe_identity_issuer_chain" in pieces:  # one TCB signer signs both
        pieces.setdefault("tcb_info_issuer_chain", pieces["qe_identity_issuer_chain"])
    if "tcb_info_issuer_chain" in pieces:
        pieces.setdefault("qe_identity_issuer_chain", pieces["tcb_info_issuer_chain"])
    for name in _NEEDED:
        if name not in pieces:
            raise CollateralMissingError(f"collateral: {name.replace('_', ' ')} is not at hand")
    return pieces


def _from_files(certificates: Sequence[bytes], crls: Sequence[bytes]) -> dict[str, str]:
    """Chains and lists out of single files, told apart by their common names."""
    named = {_common_name(x509.load_der_x509_certificate(der).subject): der for der in certificates}
    root = next((der for name, der in named.items() if "Root CA" in name), None)
    out: dict[str, str] = {}
    for name, der in named.items():
        if root is not None and "TCB Signing" in name:
            out["tcb_info_issuer_chain"] = out["qe_identity_issuer_chain"] = _pem(der) + _pem(root)
    for raw in crls:
        issuer = _common_name(x509.load_der_x509_crl(raw).issuer)
        if "Root CA" in issuer:
            out["root_ca_crl"] = raw.hex()
        else:
            out["pck_crl"] = raw.hex()
            if issuer in named and root is not None:
                out["pck_crl_issuer_chain"] = _pem(named[issuer]) + _pem(root)
    if "pck_crl_issuer_chain" not in out:
        out.pop("pck_crl", None)
    return out


def read_pieces(text: str) -> dict[str, str]:
    """The members of one document under the names of ``QuoteCollateralV3``, in its encodings.

    Raises ``CollateralMalformedError``."""
    if len(text) > MAX_COLLATERAL_SIZE:
        raise CollateralMalformedError(f"collateral: got {len(text)} characters, need at most {MAX_COLLATERAL_SIZE}")
    pieces: dict[str, str] = {}
    members = _members(text)
    if "collateral" in members and "tcb_info" not in members:
        members = _members(members["collateral"])
    for name, raw in members.items():
        member = _NAMES.get(name.lower().replace("_", "").replace("-", ""))
        if member in _INNER and "signature" in members:  # the reply of a PCS itself
            signature = _hex(json.loads(members["signature"]), "signature")
            pieces |= {member: _as_signed(raw), f"{member}_signature": signature}
        elif member in _INNER:
            pieces |= _signed_text(member, raw)
        elif member is not None:
            value = json.loads(raw)
            is_chain = member.endswith("chain")
            if value is not None:
                pieces[member] = _chain(value, member) if is_chain else _hex(value, member)
    if not pieces:
        raise CollateralMalformedError(f"collateral: of its members {sorted(members)[:12]} none is known")
    return pieces


def _members(text: str) -> dict[str, str]:
    """Each member of a JSON object with its exact text; raises ``CollateralMalformedError``."""
    decoder = json.JSONDecoder()
    try:
        value = json.loads(text)
        if not isinstance(value, dict):
            raise ValueError("not an object")
        found: dict[str, str] = {}
        at = _skip(text, text.index("{") + 1)
        while text[at] != "}":
            name, at = decoder.raw_decode(text, at)
            at = _skip(text, _skip(text, at) + 1)  # the colon
            _, end = decoder.raw_decode(text, at)
            if name in found:
                raise ValueError(f"{name} comes twice")
            found[name] = text[at:end]
            at = _skip(text, end)
            if text[at] == ",":
                at = _skip(text, at + 1)
    except (ValueError, IndexError, RecursionError) as exc:
        raise CollateralMalformedError(f"collateral: not JSON of the form it must have ({exc})") from exc
    return found


def _skip(text: str, at: int) -> int:
    while text[at] in " \t\r\n":
        at += 1
    return at


def _signed_text(member: str, raw: str) -> dict[str, str]:
    """A signed document, as text or as an object, bare or in the reply it came in with its signature."""
    text = json.loads(raw) if raw[:1] == '"' else raw
    if text.lstrip()[:1] != "{":
        raise CollateralMalformedError(f"collateral: {member} is not JSON text")
    inner = _members(text)
    if "signature" in inner and (body := inner.get(_INNER[member]) or inner.get(member)):
        return {
            member: _as_signed(body),
            f"{member}_signature": _hex(json.loads(inner["signature"]), f"{member} signature"),
        }
    return {member: _as_signed(text)}


def _as_signed(text: str) -> str:
    """The text as the maker signed it: makers write no line breaks, so what a tool indented is made compact again."""
    if "\n" not in text:
        return text
    return json.dumps(json.loads(text), separators=(",", ":"), ensure_ascii=False)


def _chain(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise CollateralMalformedError(f"collateral: {what} is not text")
    return unquote(value) if "%20" in value or "%0A" in value.upper() else value


def _hex(value: Any, what: str) -> str:
    """Bytes, however written, as hex."""
    if isinstance(value, list) and all(type(n) is int and 0 <= n <= 255 for n in value):
        return bytes(value).hex()
    if not isinstance(value, str):
        raise CollateralMalformedError(f"collateral: {what} is neither text nor an array of bytes")
    text = "".join(value.split())
    try:
        if "-----BEGIN" in text:
            text = text.partition("CRL-----")[2].partition("-----END")[0]
            return base64.b64decode(text, validate=True).hex()
        return binascii.unhexlify(text).hex()
    except ValueError:
        pass
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError as exc:
        raise CollateralMalformedError(f"collateral: {what} is neither hex nor base64") from exc
    try:  # PCCS writes revocation lists as base64 of hex
        return binascii.unhexlify(raw).hex()
    except ValueError:
        return raw.hex()


def _common_name(name: x509.Name) -> str:
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""


def _pem(der: bytes) -> str:
    return f"-----BEGIN CERTIFICATE-----\n{base64.encodebytes(der).decode()}-----END CERTIFICATE-----\n"
