"""Devices beside the CPU's TEE: verify a GPU's evidence, and tie it to the session, for policies to speak of.

The KBS protocol sends it as ``additional_evidence``, a JSON text of evidence by TEE name. The CPU's report data hashes
that text, so the TEE vouches for having seen these devices; each answers the session's challenge and key by its nonce.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from casemate.attestation.claims import Claims
from casemate.attestation.evidence import Evidence
from casemate.attestation.platforms.gpu.binding import check_device_nonce, device_report_data
from casemate.attestation.platforms.gpu.errors import GpuNonceMismatchError
from casemate.attestation.trust_errors import EvidenceKindUnknownError
from casemate.broker.context import EvidenceVerifier
from casemate.broker.errors import RequestMalformedError
from casemate.crypto.jose import Jwk

__all__ = ["with_devices"]

_MAX_KINDS = 8
_DEVICES = "nvidia"


def with_devices(
    claims: Claims, additional: str, *, nonce: str, tee_pubkey: Jwk, trust: EvidenceVerifier, now: datetime
) -> Claims:
    """The CPU's ``claims`` with what verified devices say; one that is simulated makes them all ``simulated``.

    ``extra`` gets ``devices`` (their claims), ``gpus`` (how many different ones), ``gpu_measurements_compared`` and,
    for kinds this broker has no anchor for, ``devices_unverified``: they count for nothing. Raises what is wrong with
    a device's evidence, ``GpuNonceMismatchError`` for evidence of another session, ``RequestMalformedError``."""
    if not additional:
        return claims
    found: list[Claims] = []
    unverified: list[str] = []
    for tee, body in sorted(_parse(additional).items()):
        if tee != _DEVICES:
            unverified.append(tee)
            continue
        try:
            device = trust.verify(Evidence(tee, body), now=now)
        except EvidenceKindUnknownError:
            unverified.append(tee)
            continue
        if device.report_data is None:
            raise GpuNonceMismatchError("GPU evidence: answers no challenge")
        check_device_nonce(bytes.fromhex(device.report_data), device_report_data(nonce, tee_pubkey))
        found.append(device)
    devices = [each for device in found for each in device.extra["devices"]]
    extra: dict[str, Any] = {"devices": devices, "gpus": len({each["device_id"] for each in devices})}
    if found:
        extra["gpu_measurements_compared"] = all(device.extra["measurements_compared"] for device in found)
    if unverified:
        extra["devices_unverified"] = unverified
    ends = [one.collateral_expires for one in (claims, *found) if one.collateral_expires is not None]
    return replace(
        claims,
        simulated=claims.simulated or any(device.simulated for device in found),
        collateral_expires=min(ends, default=None),
        extra={**claims.extra, **extra},
    )


def _parse(additional: str) -> Mapping[str, Any]:
    try:
        value = json.loads(additional)
        kinds = {tee: json.loads(body) if isinstance(body, str) else body for tee, body in value.items()}
    except (ValueError, AttributeError, RecursionError) as exc:
        raise RequestMalformedError("additional_evidence: need a JSON object of evidence by TEE, as a text") from exc
    if len(kinds) > _MAX_KINDS or not all(isinstance(body, Mapping | list) for body in kinds.values()):
        raise RequestMalformedError(f"additional_evidence: need at most {_MAX_KINDS} kinds, each a JSON object")
    return {tee: body if isinstance(body, Mapping) else {"device_evidence_list": body} for tee, body in kinds.items()}
