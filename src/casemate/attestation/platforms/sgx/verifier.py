"""Verify SGX quotes, and read the enclave's report body (Intel SDM volume 3D, REPORT; 384 bytes)."""

from __future__ import annotations

from collections.abc import Sequence

from casemate.attestation.platforms.intel.errors import SgxAttributesError
from casemate.attestation.platforms.intel.quote import Quote
from casemate.attestation.platforms.intel.verifier import BodyClaims, IntelVerifier, TrustAnchor

__all__ = ["SgxVerifier", "read_enclave_body"]

_INIT, _DEBUG, _MODE64 = 1 << 0, 1 << 1, 1 << 2
_NAMED = {3: "reserved-3", 4: "provision-key", 5: "einittoken-key", 6: "cet", 7: "kss", 10: "aex-notify"}
_UNSAFE = ("provision-key", "einittoken-key")  # rights that only the platform's own enclaves need


class SgxVerifier(IntelVerifier):
    """Verifies SGX quotes (version 3) under the given anchors."""

    def __init__(self, anchors: Sequence[TrustAnchor]) -> None:
        super().__init__("sgx", anchors, read_enclave_body)


def read_enclave_body(quote: Quote, *, strict: bool = True) -> BodyClaims:
    """What the report body says; if ``strict``, raises ``SgxAttributesError`` for what no running enclave can have."""
    body = quote.body
    flags, xfrm = int.from_bytes(body[48:56], "little"), int.from_bytes(body[56:64], "little")
    if strict and (flags & (_INIT | _MODE64) != _INIT | _MODE64 or xfrm & 3 != 3):
        raise SgxAttributesError(f"enclave attributes: got flags {flags:#x} and xfrm {xfrm:#x}")
    names = [name for bit, name in _NAMED.items() if flags >> bit & 1]
    config_id = body[192:256]
    return BodyClaims(
        debug=bool(flags & _DEBUG),
        measurement=body[64:96].hex(),
        signer=body[128:160].hex(),
        product_id=int.from_bytes(body[256:258], "little"),
        svn=int.from_bytes(body[258:260], "little"),
        workload=config_id.hex() if any(config_id) else None,
        report_data=body[320:384].hex(),
        unsafe_attributes=tuple(name for name in names if name in _UNSAFE),
        extra={
            "cpu_svn": body[0:16].hex(),
            "misc_select": body[16:20].hex(),
            "isv_ext_prod_id": body[32:48].hex(),
            "attributes_flags": f"{flags:016x}",
            "attributes_xfrm": f"{xfrm:016x}",
            "attributes": names,
            "config_svn": int.from_bytes(body[260:262], "little"),
            "isv_family_id": body[304:320].hex(),
        },
    )
