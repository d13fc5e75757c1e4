"""What evidence is bound to: the challenge and key in its report data, the workload digest it was launched with."""

from __future__ import annotations

import hashlib
import hmac

from casemate.attestation.errors import ReportDataMismatchError
from casemate.attestation.evidence import REPORT_DATA_SIZE
from casemate.crypto.canonical import canonical_json
from casemate.crypto.jose import Jwk

__all__ = ["carries_digest", "check_report_data", "device_report_data", "report_data"]

_CUT_SIZE = 32  # bytes; the shortest field a digest is cut to (SNP HOST_DATA)


def report_data(nonce: str, tee_pubkey: Jwk, additional_evidence: str = "") -> bytes:
    """The 64 bytes of report data of primary evidence: SHA-384, then zeros.

    The digest is over the RFC 8785 JSON of challenge, key and additional evidence, as the confidential-containers KBS
    protocol 0.4.0 wants it, so that neither can be exchanged afterwards."""
    bound = {"additional-evidence": additional_evidence, "nonce": nonce, "tee-pubkey": tee_pubkey}
    return _padded(hashlib.sha384(canonical_json(bound)).digest())


def device_report_data(nonce: str, tee_pubkey: Jwk) -> bytes:
    """The 64 bytes for a device's evidence (a GPU), which knows of no additional evidence."""
    return _padded(hashlib.sha384(canonical_json({"nonce": nonce, "tee-pubkey": tee_pubkey})).digest())


def check_report_data(claimed: str | None, expected: bytes) -> None:
    """Raise ``ReportDataMismatchError`` unless the claim (hex) is exactly ``expected``."""
    if claimed is None or not hmac.compare_digest(claimed.encode(), expected.hex().encode()):
        raise ReportDataMismatchError(
            f"report data: expected {expected.hex()[:24]}…, got {'none' if claimed is None else claimed[:24] + '…'}"
        )


def carries_digest(claimed: str | None, digest: str) -> bool:
    """Whether a launch-time field (hex) carries ``digest`` (hex) whole, zero-padded, or cut to at least 32 bytes.

    TDX MRCONFIGID holds a SHA-384 whole, SGX CONFIGID pads it, SNP HOST_DATA cuts it, as confidential-containers
    init-data does."""
    if not claimed or len(digest) < 2 * _CUT_SIZE or len(claimed) < 2 * _CUT_SIZE:
        return False
    shared = min(len(claimed), len(digest))
    padding = claimed[shared:]
    return hmac.compare_digest(claimed[:shared].encode(), digest[:shared].encode()) and not padding.strip("0")


def _padded(digest: bytes) -> bytes:
    return digest.ljust(REPORT_DATA_SIZE, b"\0")
