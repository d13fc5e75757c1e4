"""Tie devices to the CPU's TEE, as the confidential-containers KBS protocol (0.4.0) does.

The guest asks each device with a nonce made from the session's challenge and the TEE's public key, and puts all the
devices' evidence into what the CPU's report data hashes. So the devices answer this session, and the CPU vouches for
having seen exactly these devices.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

from casemate.attestation.platforms.gpu.errors import GpuNonceMismatchError
from casemate.attestation.platforms.gpu.report import NONCE_SIZE
from casemate.crypto.canonical import canonical_json

__all__ = ["check_device_nonce", "device_nonce", "device_report_data"]


def device_report_data(nonce: str, tee_pubkey: dict[str, Any]) -> bytes:
    """Report data for devices: SHA-384 over RFC 8785 JSON of ``{"nonce", "tee-pubkey"}``, padded to 64 bytes.

    For the CPU, ``additional-evidence`` (the devices' evidence) is hashed too, which is what ties the two."""
    return hashlib.sha384(canonical_json({"nonce": nonce, "tee-pubkey": tee_pubkey})).digest().ljust(64, b"\0")


def device_nonce(report_data: bytes) -> bytes:
    """What a GPU is asked with: the first 32 bytes of the report data (zeros fill a shorter one)."""
    return report_data[:NONCE_SIZE].ljust(NONCE_SIZE, b"\0")


def check_device_nonce(nonce: bytes, report_data: bytes) -> None:
    """A report's ``nonce`` answers ``report_data``; raises ``GpuNonceMismatchError``."""
    expected = device_nonce(report_data)
    if not hmac.compare_digest(nonce, expected):
        raise GpuNonceMismatchError(f"GPU report: nonce expected {expected.hex()}, got {nonce.hex()}")
