"""Evidence (RFC 9334 section 8.1) as it travels, and the two roles that make and check it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, runtime_checkable

from casemate.attestation.claims import Claims

__all__ = ["REPORT_DATA_SIZE", "Attester", "Evidence", "Verifier", "WorkloadBinder"]

REPORT_DATA_SIZE = 64  # bytes, on SGX, TDX and SEV-SNP alike


@dataclass(frozen=True)
class Evidence:
    """What a platform says about itself, unverified.

    ``tee`` is the confidential-containers name (``tdx``, ``sgx``, ``snp``, ``tpm``, ``az-snp-vtpm``, ``nvidia`` ...),
    ``body`` the JSON object that protocol defines for it (TDX: ``{"quote": base64}``)."""

    tee: str
    body: Mapping[str, Any]


class Attester(Protocol):
    """Collects evidence on the machine it runs on; does input and output."""

    @property
    def tee(self) -> str: ...

    def collect(self, report_data: bytes) -> Evidence:
        """Evidence over ``report_data`` (64 bytes); raises ``NoTeeError``."""
        ...


@runtime_checkable
class WorkloadBinder(Protocol):
    """An attester of a machine whose launch register is filled by software: a TPM, whose PCR 8 boots as zero."""

    def bind_workload(self, digest: bytes) -> None:
        """Put a workload digest into the register, once a boot; raises a ``RefusedError`` when it holds another."""
        ...


class Verifier(Protocol):
    """Checks everything cryptography can check; decides nothing a policy may differ on. No network, disk or clock.

    A verifier is built with its trust anchors and collateral."""

    def verify(self, evidence: Evidence, *, now: datetime) -> Claims:
        """Normalised claims of genuine evidence; raises a ``RefusedError`` or ``UndecidedError`` naming the step."""
        ...
