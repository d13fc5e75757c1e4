"""The ``snp`` evidence body: the report, raw or as confidential-containers guests write it in JSON, and certificates.

A guest of confidential-containers sends the fields of the report as numbers and byte arrays. They are put back into the
1184 bytes the firmware signed; the verifier sees only those. Layout of the report: see ``report``."""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from casemate.attestation.platforms.snp.errors import SnpEvidenceMalformedError
from casemate.attestation.platforms.snp.report import REPORT_SIZE, SIGNATURE_NUMBER_SIZE, SIGNED_SIZE
from casemate.attestation.platforms.snp.tcb import Product, encode_tcb

__all__ = ["EvidenceBody", "build_body", "parse_body"]

_MAX_CERTIFICATES = 16
_MAX_CERTIFICATE_SIZE = 16 * 1024  # bytes
_BYTES = {  # name -> offset, size
    "family_id": (0x010, 16),
    "image_id": (0x020, 16),
    "report_data": (0x050, 64),
    "measurement": (0x090, 48),
    "host_data": (0x0C0, 32),
    "id_key_digest": (0x0E0, 48),
    "author_key_digest": (0x110, 48),
    "report_id": (0x140, 32),
    "report_id_ma": (0x160, 32),
    "chip_id": (0x1A0, 64),
}
_NUMBERS = {  # name -> offset, struct format; ``_author_key_en`` is the key information word in older guests
    "version": (0x000, "<I"),
    "guest_svn": (0x004, "<I"),
    "policy": (0x008, "<Q"),
    "vmpl": (0x030, "<I"),
    "sig_algo": (0x034, "<I"),
    "plat_info": (0x040, "<Q"),
    "key_info": (0x048, "<I"),
    "_author_key_en": (0x048, "<I"),
    "cpuid_fam_id": (0x188, "<B"),
    "cpuid_mod_id": (0x189, "<B"),
    "cpuid_step": (0x18A, "<B"),
    "current_build": (0x1E8, "<B"),
    "current_minor": (0x1E9, "<B"),
    "current_major": (0x1EA, "<B"),
    "committed_build": (0x1EC, "<B"),
    "committed_minor": (0x1ED, "<B"),
    "committed_major": (0x1EE, "<B"),
    "launch_mit_vector": (0x1F8, "<Q"),
    "current_mit_vector": (0x200, "<Q"),
}
_MAY_BE_NULL = {"cpuid_fam_id", "cpuid_mod_id", "cpuid_step", "launch_mit_vector", "current_mit_vector"}
_TCBS = {"current_tcb": 0x038, "reported_tcb": 0x180, "committed_tcb": 0x1E0, "launch_tcb": 0x1F0}
_VERSIONS = {"current": 0x1E8, "committed": 0x1EC}  # newer guests: {"major", "minor", "build"}
_TCB_MEMBERS = {"fmc", "bootloader", "tee", "snp", "microcode"}


@dataclass(frozen=True)
class EvidenceBody:
    """``report`` is raw, ``vek`` the VCEK or VLEK certificate if there is one, ``issuers`` ARK, ASK, ASVK; all DER."""

    report: bytes
    vek: bytes | None
    issuers: tuple[bytes, ...]


def build_body(report: bytes, vek: bytes | None = None, *, kind: str = "VCEK") -> dict[str, Any]:
    """The body that ``parse_body`` reads, with the raw report in base64."""
    chain = [] if vek is None else [{"cert_type": kind, "data": base64.b64encode(vek).decode()}]
    return {"report": base64.b64encode(report).decode(), "cert_chain": chain}


def parse_body(body: Mapping[str, Any]) -> EvidenceBody:
    """Read ``{"attestation_report" | "report", "cert_chain"}``; raises ``SnpEvidenceMalformedError``."""
    unknown = set(body) - {"attestation_report", "report", "cert_chain"}
    if unknown or ("report" in body) == ("attestation_report" in body):
        raise SnpEvidenceMalformedError(
            f"evidence members {sorted(map(str, body))[:8]}: need report or attestation_report, and cert_chain"
        )
    source = body.get("report", body.get("attestation_report"))
    if isinstance(source, Mapping) and "attestation_report" in body:
        report = _from_structure(source)
    else:
        report = _base64(source, "report", 4 * REPORT_SIZE)
    veks, issuers = [], []
    for kind, der in _certificates(body.get("cert_chain")):
        if kind in ("VCEK", "VLEK"):
            veks.append(der)
        elif kind in ("ARK", "ASK", "ASVK"):
            issuers.append(der)
    if len(veks) > 1:
        raise SnpEvidenceMalformedError(f"cert_chain: {len(veks)} endorsement keys, need one")
    return EvidenceBody(report, veks[0] if veks else None, tuple(issuers))


def _certificates(chain: object) -> list[tuple[str, bytes]]:
    if chain is None:
        return []
    if not isinstance(chain, list) or len(chain) > _MAX_CERTIFICATES:
        raise SnpEvidenceMalformedError(f"cert_chain: need a list of at most {_MAX_CERTIFICATES} certificates")
    found = []
    for entry in chain:
        if not isinstance(entry, Mapping) or set(entry) != {"cert_type", "data"}:
            raise SnpEvidenceMalformedError("cert_chain: need objects with cert_type and data")
        kind, data = entry["cert_type"], entry["data"]
        if isinstance(data, str):
            der = _base64(data, "cert_chain data", 2 * _MAX_CERTIFICATE_SIZE)
        else:
            der = _octets(data, "cert_chain data", None)
        found.append((kind if isinstance(kind, str) else "OTHER", der))
    return found


def _from_structure(fields: Mapping[str, Any]) -> bytes:
    """The 1184 bytes that ``fields`` describe; every member must be known, and every reserved one zero."""
    raw = bytearray(REPORT_SIZE)
    missing = (set(_BYTES) | set(_TCBS) | {"version", "guest_svn", "policy", "vmpl", "sig_algo"}) - set(fields)
    missing |= {"signature", "plat_info"} - set(fields)
    if missing or ("key_info" in fields) == ("_author_key_en" in fields):
        raise SnpEvidenceMalformedError(f"attestation_report lacks {', '.join(sorted(missing)) or 'key_info'}")
    for name, value in fields.items():
        if name in _BYTES:
            offset, size = _BYTES[name]
            raw[offset : offset + size] = _octets(value, name, size)
        elif name in _NUMBERS:
            if value is not None or name not in _MAY_BE_NULL:
                offset, form = _NUMBERS[name]
                struct.pack_into(form, raw, offset, _number(value, name, 8 * struct.calcsize(form)))
        elif name in _TCBS:
            raw[_TCBS[name] : _TCBS[name] + 8] = _tcb(value, name)
        elif name in _VERSIONS:
            members = _object(value, name, {"major", "minor", "build"})
            offset = _VERSIONS[name]
            raw[offset : offset + 3] = bytes(_number(members.get(key), name, 8) for key in ("build", "minor", "major"))
        elif name == "signature":
            numbers = _object(value, name, {"r", "s"})
            for index, key in enumerate(("r", "s")):
                start = SIGNED_SIZE + index * SIGNATURE_NUMBER_SIZE
                raw[start : start + SIGNATURE_NUMBER_SIZE] = _octets(numbers.get(key), key, SIGNATURE_NUMBER_SIZE)
        elif not _is_zero_padding(name, value):
            raise SnpEvidenceMalformedError(f"attestation_report: member {name!r} is unknown")
    return bytes(raw)


def _tcb(value: object, name: str) -> bytes:
    members = _object(value, name, _TCB_MEMBERS)
    product = Product.MILAN if members.get("fmc") is None else Product.TURIN  # only Turin's layout has an FMC level
    return encode_tcb({k: _number(v, f"{name}.{k}", 8) for k, v in members.items() if v is not None}, product)


def _object(value: object, name: str, members: set[str]) -> dict[str, Any]:
    """``value`` without its reserved members, which must be zero."""
    if not isinstance(value, Mapping):
        raise SnpEvidenceMalformedError(f"attestation_report: {name} is no object")
    found = {key: item for key, item in value.items() if not _is_zero_padding(key, item)}
    if not set(found) <= members:
        raise SnpEvidenceMalformedError(f"attestation_report: {name} has unknown members")
    return found


def _is_zero_padding(name: object, value: object) -> bool:
    if not isinstance(name, str) or not name.startswith("_reserved"):
        return False
    items = value if isinstance(value, list) else [value]
    return all(type(item) is int and item == 0 for item in items)


def _number(value: object, name: str, bits: int) -> int:
    if type(value) is not int or not 0 <= value < 1 << bits:
        raise SnpEvidenceMalformedError(f"attestation_report: {name} is no number of {bits} bits")
    return value


def _octets(value: object, name: str, size: int | None) -> bytes:
    limit = size if size is not None else _MAX_CERTIFICATE_SIZE
    if not isinstance(value, list) or len(value) > limit or (size is not None and len(value) != size):
        raise SnpEvidenceMalformedError(f"{name}: need a list of {'' if size else 'at most '}{limit} bytes")
    if not all(type(item) is int and 0 <= item <= 255 for item in value):
        raise SnpEvidenceMalformedError(f"{name}: need a list of numbers from 0 to 255")
    return bytes(value)


def _base64(value: object, name: str, limit: int) -> bytes:
    if not isinstance(value, str) or len(value) > limit:
        raise SnpEvidenceMalformedError(f"{name}: need base64 of at most {limit} characters")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise SnpEvidenceMalformedError(f"{name}: not base64") from exc
