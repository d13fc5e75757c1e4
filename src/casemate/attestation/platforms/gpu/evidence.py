"""GPU evidence as JSON: the confidential-containers form, the bare list of NVIDIA's tools, or a report in a file."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from casemate.attestation.evidence import Evidence
from casemate.attestation.platforms.gpu.errors import GpuEvidenceMalformedError, GpuOversizedError

__all__ = ["TEE", "DeviceEvidence", "parse_devices", "read_evidence"]

TEE = "nvidia"
MAX_DEVICES = 64
MAX_TEXT = 256 * 1024


@dataclass(frozen=True)
class DeviceEvidence:
    """One device's report and certificate chain (PEM, the device first); nothing is verified."""

    architecture: str | None
    report: bytes
    certificates: bytes
    nonce: bytes | None
    uuid: str | None


def _binary(value: Any, what: str) -> bytes:
    if not isinstance(value, str):
        raise GpuEvidenceMalformedError(f"{what}: need text, got {type(value).__name__}")
    if len(value) > MAX_TEXT:
        raise GpuOversizedError(f"{what}: {len(value)} characters, at most {MAX_TEXT}")
    try:
        return binascii.unhexlify(value.strip())
    except ValueError:
        pass
    try:
        return base64.b64decode("".join(value.split()), validate=True)
    except ValueError as exc:
        raise GpuEvidenceMalformedError(f"{what}: neither hex nor base64") from exc


def _text(value: Any, what: str) -> str | None:
    if value is not None and not (isinstance(value, str) and len(value) <= 128):
        raise GpuEvidenceMalformedError(f"{what}: need a short text")
    return value


def parse_devices(body: Mapping[str, Any]) -> tuple[DeviceEvidence, ...]:
    """The devices of ``{"device_evidence_list": [{"arch", "evidence", "certificate", "uuid"?, "nonce"?}]}``.

    NVIDIA's own name ``evidence_list`` is read as well. ``evidence`` and ``certificate`` are hex or base64."""
    listed = body.get("device_evidence_list", body.get("evidence_list")) if isinstance(body, Mapping) else None
    if not isinstance(listed, list) or not listed:
        raise GpuEvidenceMalformedError("GPU evidence: need a device_evidence_list with at least one device")
    if len(listed) > MAX_DEVICES:
        raise GpuOversizedError(f"GPU evidence: {len(listed)} devices, at most {MAX_DEVICES}")
    devices = []
    for item in listed:
        if not isinstance(item, Mapping) or "evidence" not in item or "certificate" not in item:
            raise GpuEvidenceMalformedError("GPU evidence: each device needs evidence and certificate")
        nonce = item.get("nonce")
        devices.append(
            DeviceEvidence(
                architecture=_text(item.get("arch"), "arch"),
                report=_binary(item["evidence"], "device evidence"),
                certificates=_binary(item["certificate"], "device certificate"),
                nonce=None if nonce is None else _binary(nonce, "device nonce"),
                uuid=_text(item.get("uuid"), "uuid"),
            )
        )
    return tuple(devices)


def read_evidence(raw: bytes, certificates: Iterable[bytes] = ()) -> Evidence:
    """Evidence from a file's content: JSON of either form, or one report as hex or raw with its chain beside it."""
    text = raw.strip()
    if text[:1] in (b"{", b"["):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as exc:
            raise GpuEvidenceMalformedError("GPU evidence: not JSON") from exc
        return Evidence(TEE, value if isinstance(value, dict) else {"device_evidence_list": value})
    try:
        report = binascii.unhexlify(text)
    except ValueError:
        report = raw
    chain = base64.b64encode(b"\n".join(certificates)).decode()
    device = {"evidence": base64.b64encode(report).decode(), "certificate": chain}
    return Evidence(TEE, {"device_evidence_list": [device]})
