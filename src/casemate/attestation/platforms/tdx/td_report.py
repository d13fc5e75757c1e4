"""Parse a TDREPORT: what a TD says of itself before its quoting enclave has signed it. Nothing in it is verified.

Intel TDX Module ABI, TDREPORT_STRUCT (1024 bytes): REPORTMACSTRUCT, TEE_TCB_INFO, TDINFO_STRUCT. Its MAC can be checked
only by the processor that made it.
"""

from __future__ import annotations

from casemate.attestation.claims import Claims, WorkloadBinding
from casemate.attestation.errors import MalformedEvidenceError

__all__ = ["TD_REPORT_SIZE", "is_td_report", "parse_td_report"]

TD_REPORT_SIZE = 1024
_TYPE_TDX = 0x81
_TCB_INFO, _TD_INFO = 256, 512
_TCB_INFO_VALID = b"\xff\x01\0\0\0\0\0\0"
_LOST = 48  # bytes that some tools cut off the front, with zeros put at the end


def is_td_report(raw: bytes) -> bool:
    """Whether ``raw`` has a TDREPORT's size and marks."""
    return len(raw) == TD_REPORT_SIZE and (raw[0] == _TYPE_TDX or raw[_TCB_INFO - _LOST :][:8] == _TCB_INFO_VALID)


def parse_td_report(raw: bytes) -> Claims:
    """What the report says, unverified; raises ``MalformedEvidenceError``."""
    if not is_td_report(raw):
        raise MalformedEvidenceError(f"TDREPORT: {len(raw)} bytes of type {raw[:1].hex()}, need {TD_REPORT_SIZE} of 81")
    whole = raw[0] == _TYPE_TDX
    if not whole:
        raw = bytes(_LOST) + raw[:-_LOST]
    info = raw[_TD_INFO:]
    attributes = int.from_bytes(info[0:8], "little")
    config_id = info[64:112]
    return Claims(
        platform="tdx",
        simulated=False,
        debug=bool(attributes & 1),
        measurement=info[16:64].hex(),
        signer=raw[_TCB_INFO + 72 : _TCB_INFO + 120].hex(),
        rtmr=tuple(info[at : at + 48].hex() for at in range(208, 400, 48)),
        workload=config_id.hex() if any(config_id) else None,
        workload_binding=WorkloadBinding.LAUNCH if any(config_id) else None,
        report_data=raw[128:192].hex(),
        extra={
            "td_report_whole": whole,
            "tee_tcb_svn": raw[_TCB_INFO + 8 : _TCB_INFO + 24].hex(),
            "mr_seam": raw[_TCB_INFO + 24 : _TCB_INFO + 72].hex(),
            "td_attributes": f"{attributes:016x}",
            "xfam": f"{int.from_bytes(info[8:16], 'little'):016x}",
            "mr_owner": info[112:160].hex(),
            "mr_owner_config": info[160:208].hex(),
        },
    )
