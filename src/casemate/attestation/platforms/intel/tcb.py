"""Judge a platform by its TCB info, for the evidence that the verification library will not judge: debug TEEs.

Intel PCS API v4, "Appendix A: TCB info"; "How to determine TCB status". The status so found is the same that
the library finds for a TEE without debug; a test compares both on all evidence at hand. Only called with collateral
whose signatures have been verified.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from casemate.attestation.platforms.intel.errors import (
    NoMatchingTcbLevelError,
    QeTcbUnknownError,
    TcbInfoMalformedError,
    TcbRevokedError,
    TdxModuleMismatchError,
)

__all__ = ["SEVERITY", "TcbState", "judge"]

SEVERITY = (
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "TDRelaunchAdvised",
    "TDRelaunchAdvisedConfigurationNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
    "Revoked",
)


@dataclass(frozen=True)
class TcbState:
    """The worst of the platform's, the TDX module's and the quoting enclave's status, and all their advisories."""

    status: str
    date: str
    advisories: tuple[str, ...]


def judge(
    tcb_info: Mapping[str, Any],
    qe_identity: Mapping[str, Any],
    *,
    sgx_svns: Sequence[int],
    pce_svn: int,
    qe_svn: int,
    tdx_svns: Sequence[int] | None = None,
) -> TcbState:
    """The state of one platform; raises when no level matches or the matching one is revoked."""
    try:
        levels = [_platform_level(tcb_info["tcbLevels"], sgx_svns, pce_svn, tdx_svns)]
        if tdx_svns is not None and tdx_svns[1] > 0:
            levels.append(_module_level(tcb_info["tdxModuleIdentities"], tdx_svns))
        levels.append(_first_at_most(qe_identity["tcbLevels"], qe_svn, QeTcbUnknownError))
        status = _merge([str(level["tcbStatus"]) for level in levels])
        advisories = dict.fromkeys(str(a) for level in levels for a in level.get("advisoryIDs", ()))
        return TcbState(status, str(levels[0]["tcbDate"]), tuple(advisories))
    except (KeyError, TypeError, IndexError) as exc:
        raise TcbInfoMalformedError(f"TCB info: a member is missing or of the wrong type ({exc})") from exc


def _platform_level(
    levels: Iterable[Mapping[str, Any]], sgx: Sequence[int], pce_svn: int, tdx: Sequence[int] | None
) -> Mapping[str, Any]:
    for level in levels:
        tcb = level["tcb"]
        if not _covers(sgx, tcb["sgxtcbcomponents"]) or pce_svn < tcb["pcesvn"]:
            continue
        # With a TDX module of version 1 and up, components 0 and 1 are judged by the module's own levels.
        start = 2 if tdx is not None and tdx[1] > 0 else 0
        if tdx is None or _covers(tdx[start:], tcb["tdxtcbcomponents"][start:]):
            return level
    raise NoMatchingTcbLevelError("TCB info: the platform is below every level")


def _covers(svns: Sequence[int], components: Sequence[Mapping[str, Any]]) -> bool:
    return all(have >= component["svn"] for have, component in zip(svns, components, strict=True))


def _module_level(identities: Iterable[Mapping[str, Any]], tdx: Sequence[int]) -> Mapping[str, Any]:
    name = f"TDX_{tdx[1]:02X}"
    for identity in identities:
        if str(identity["id"]).upper() == name:
            return _first_at_most(identity["tcbLevels"], tdx[0], TdxModuleMismatchError)
    raise TdxModuleMismatchError(f"TCB info: no identity of the TDX module {name}")


def _first_at_most(levels: Iterable[Mapping[str, Any]], svn: int, error: type[Exception]) -> Mapping[str, Any]:
    for level in levels:
        if svn >= level["tcb"]["isvsvn"]:
            return level
    raise error(f"TCB info: version {svn} is below every level")


def _merge(statuses: Sequence[str]) -> str:
    unknown = [s for s in statuses if s not in SEVERITY]
    if unknown:
        raise TcbInfoMalformedError(f"TCB info: unknown status {unknown[0]}")
    if "Revoked" in statuses:
        raise TcbRevokedError("TCB info: the matching level is revoked")
    worst = max(statuses, key=SEVERITY.index)
    needs_configuration = any("Configuration" in s for s in statuses)
    if worst == "OutOfDate" and needs_configuration:
        return "OutOfDateConfigurationNeeded"
    if worst == "ConfigurationNeeded" and "SWHardeningNeeded" in statuses:
        return "ConfigurationAndSWHardeningNeeded"
    return worst
