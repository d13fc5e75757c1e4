"""Verify TDX quotes, and read the trust domain's report body.

Intel TDX Module ABI, TDREPORT_STRUCT and TDINFO_STRUCT; bodies of TDX 1.0 (584 bytes) and 1.5 (648 bytes).
"""

from __future__ import annotations

from collections.abc import Sequence

from casemate.attestation.platforms.intel import errors
from casemate.attestation.platforms.intel.quote import Body, Quote
from casemate.attestation.platforms.intel.verifier import BodyClaims, IntelVerifier, TrustAnchor

__all__ = ["TdxVerifier", "read_td_body"]

_DEBUG, _SEPT_VE_DISABLE, _MIGRATABLE = 1 << 0, 1 << 28, 1 << 29
_PROFILING = 1 << 4 | 1 << 5 | 1 << 6
_NAMED = {27: "lass", 28: "sept-ve-disable", 30: "pks", 31: "key-locker", 63: "perfmon"}
_UNSAFE = ("pks", "key-locker", "perfmon")
_DEFINED = sum(1 << bit for bit in _NAMED) | _DEBUG
_XFAM_REQUIRED = 0x3  # x87, SSE
_XFAM_NAMED = {
    0: "x87", 1: "sse", 2: "avx", 5: "avx512", 6: "avx512", 7: "avx512", 8: "pt", 9: "pkru", 11: "cet", 12: "cet",
    14: "uintr", 15: "lbr", 17: "amx", 18: "amx",
}  # fmt: skip
_XFAM_DEFINED = sum(1 << bit for bit in _XFAM_NAMED)


class TdxVerifier(IntelVerifier):
    """Verifies TDX quotes (versions 4 and 5) under the given anchors."""

    def __init__(self, anchors: Sequence[TrustAnchor]) -> None:
        super().__init__("tdx", anchors, read_td_body)


def read_td_body(quote: Quote, *, strict: bool = True) -> BodyClaims:
    """What the report body says; if ``strict``, raises for attributes and XFAM bits that are never acceptable."""
    body = quote.body
    attributes, xfam = int.from_bytes(body[120:128], "little"), int.from_bytes(body[128:136], "little")
    if strict:
        _check_attributes(attributes)
        if xfam & ~_XFAM_DEFINED or xfam & _XFAM_REQUIRED != _XFAM_REQUIRED:
            raise errors.XfamInvalidError(f"XFAM: got {xfam:#x}, need bits of {_XFAM_DEFINED:#x} with x87 and SSE")
        if any(body[600:648]):  # MR_SERVICETD, TDX 1.5
            raise errors.ServiceTdError(f"service TD: expected none, got {body[600:648].hex()}")
    names = [name for bit, name in _NAMED.items() if attributes >> bit & 1]
    unsafe = [name for name in names if name in _UNSAFE]
    if not attributes & _SEPT_VE_DISABLE:
        unsafe.append("sept-ve")
    config_id = body[184:232]
    return BodyClaims(
        debug=bool(attributes & _DEBUG),
        measurement=body[136:184].hex(),
        signer=body[64:112].hex(),
        rtmr=tuple(body[at : at + 48].hex() for at in range(328, 520, 48)),
        workload=config_id.hex() if any(config_id) else None,
        report_data=body[520:584].hex(),
        tdx_svns=tuple(body[0:16]),
        unsafe_attributes=tuple(unsafe),
        extra={
            "body": quote.body_kind,
            "tee_tcb_svn": body[0:16].hex(),
            "mr_seam": body[16:64].hex(),
            "seam_attributes": body[112:120].hex(),
            "td_attributes": f"{attributes:016x}",
            "attributes": names,
            "xfam": f"{xfam:016x}",
            "xfam_features": list(dict.fromkeys(name for bit, name in _XFAM_NAMED.items() if xfam >> bit & 1)),
            "mr_owner": body[232:280].hex(),
            "mr_owner_config": body[280:328].hex(),
            **({"tee_tcb_svn2": body[584:600].hex()} if quote.body_kind == Body.TD15 else {}),
        },
    )


def _check_attributes(attributes: int) -> None:
    """The library checks these too; here they also bind the debug TEEs that it does not judge to the end."""
    if attributes & _MIGRATABLE:
        raise errors.TdMigratableError(f"TD attributes: got {attributes:#x}, MIGRATABLE is set")
    if attributes & _PROFILING:
        raise errors.TdProfilingError(f"TD attributes: got {attributes:#x}, a profiling bit is set")
    if attributes & ~_DEFINED:
        raise errors.TdAttributesReservedError(f"TD attributes: got {attributes:#x}, need bits of {_DEFINED:#x}")
