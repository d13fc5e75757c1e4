"""Normalised claims: what verified evidence of any platform says, flat, hashes as lower-case hex."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

__all__ = ["Claims", "TcbClaims", "WorkloadBinding"]


class WorkloadBinding(StrEnum):
    """How the workload digest got into the evidence."""

    LAUNCH = "launch"  # fixed by hardware when the TEE started: MRCONFIGID, HOST_DATA, MRENCLAVE, PCR 8
    AGENT = "agent"  # a measured agent checked the manifest and bound its digest through report data


@dataclass(frozen=True)
class TcbClaims:
    """The state of the platform's trusted computing base, in the maker's own words."""

    status: str | None = None  # Intel: UpToDate, OutOfDate, ...; None where the maker has no such notion
    date: str | None = None  # ISO 8601
    advisories: tuple[str, ...] = ()
    evaluation_number: int | None = None  # Intel tcbEvaluationDataNumber
    reported: Mapping[str, int] | None = None  # component -> security patch level
    committed: Mapping[str, int] | None = None
    launch: Mapping[str, int] | None = None


@dataclass(frozen=True)
class Claims:
    """Claims of one piece of verified evidence. ``None`` means that the platform does not say.

    ``extra`` holds what only one platform knows (td_attributes, xfam, policy bits, PCR values), under its own names."""

    platform: str  # sgx | tdx | snp | tpm | gpu
    simulated: bool
    debug: bool
    measurement: str | None = None  # MRTD, MRENCLAVE, SNP launch digest
    signer: str | None = None  # MRSIGNER, MRSIGNERSEAM, SNP author key digest
    product_id: int | None = None
    svn: int | None = None
    rtmr: tuple[str, ...] = ()
    workload: str | None = None  # the digest the TEE was launched with, as the platform carries it (padded or cut)
    workload_binding: WorkloadBinding | None = None
    report_data: str | None = None
    tcb: TcbClaims = field(default_factory=TcbClaims)
    platform_id: str | None = None  # PIID, PPID, CHIP_ID
    vmpl: int | None = None
    collateral_expires: datetime | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A plain JSON object with the same names; times as ISO 8601."""
        out = {name: _copied(value) for name, value in vars(self).items()}
        out["tcb"] = {name: _copied(value) for name, value in vars(self.tcb).items()}
        if self.collateral_expires is not None:
            out["collateral_expires"] = self.collateral_expires.isoformat()
        return out

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Claims:
        """What ``to_json`` gave, read back: claims that a verifier stored or put into a token."""
        tcb = dict(value["tcb"])
        tcb["advisories"] = tuple(tcb["advisories"])
        binding, expires = value["workload_binding"], value["collateral_expires"]
        return cls(
            **{
                **value,
                "rtmr": tuple(value["rtmr"]),
                "tcb": TcbClaims(**tcb),
                "workload_binding": None if binding is None else WorkloadBinding(binding),
                "collateral_expires": None if expires is None else datetime.fromisoformat(expires),
            }
        )


def _copied(value: Any) -> Any:
    """A JSON value that shares nothing with the claims it is from."""
    if isinstance(value, Mapping):
        return {name: _copied(item) for name, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list | tuple) else value
