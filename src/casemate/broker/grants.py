"""Grants: what a data owner agreed to, signed (JWS) by the owner's key, and which clauses hold. No I/O, no clock.

``match`` goes through every clause and says of each what was expected, what was found and what to do; nothing stops at
the first failure, so that the owner's log has the whole picture. Each clause has a refusal code of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn

from casemate.attestation.claims import WorkloadBinding
from casemate.attestation.clauses import Clause
from casemate.broker.errors import (
    GrantAccessError,
    GrantBindingError,
    GrantExhaustedError,
    GrantExpiredError,
    GrantMalformedError,
    GrantNotYetValidError,
    GrantRecipientError,
    GrantRevokedError,
    GrantWorkloadError,
)
from casemate.crypto.jose import Jwk, KeyPair, open_jws
from casemate.errors import RefusedError, UsageError
from casemate.model import Access, DatasetName

__all__ = [
    "ANY_RECIPIENT",
    "GRANT_TYPE",
    "PLAINTEXT_RECIPIENT",
    "Grant",
    "GrantUse",
    "Request",
    "match",
    "parse_grant",
    "sign_grant",
    "verify_grant",
]

GRANT_TYPE = "casemate-grant+jws"
ANY_RECIPIENT = "*"
PLAINTEXT_RECIPIENT = "plaintext"  # a workload whose manifest allows plaintext outside its zones

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{96}")
_POLICY_DIGEST = re.compile(r"[0-9a-f]{64,128}")
_THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{43}")


@dataclass(frozen=True)
class Grant:
    """One agreement. ``workloads`` are manifest digests, ``workload_signers`` RFC 7638 thumbprints of signing keys;
    one of the two has to name the workload. ``max_releases`` counts jobs; None is no limit."""

    id: str
    owner: str
    datasets: Mapping[DatasetName, Access]
    workloads: tuple[str, ...]
    policy_name: str
    policy_digest: str
    not_before: datetime
    not_after: datetime
    max_releases: int | None = None
    workload_signers: tuple[str, ...] = ()
    recipients: tuple[str, ...] = ()
    binding: WorkloadBinding | None = WorkloadBinding.LAUNCH  # None: any

    def to_json(self) -> dict[str, Any]:
        """The JWS payload."""
        return {
            "version": 1,
            "id": self.id,
            "owner": self.owner,
            "datasets": [{"name": str(name), "access": access.value} for name, access in self.datasets.items()],
            "workloads": list(self.workloads),
            "workload_signers": list(self.workload_signers),
            "policy": {"name": self.policy_name, "digest": self.policy_digest},
            "not_before": self.not_before.isoformat(),
            "not_after": self.not_after.isoformat(),
            "max_releases": self.max_releases,
            "recipients": list(self.recipients),
            "binding": "any" if self.binding is None else self.binding.value,
        }


def sign_grant(grant: Grant, key: KeyPair) -> str:
    """The grant as the owner gives it away; raises ``GrantMalformedError`` for one no broker would take."""
    parse_grant(grant.to_json())
    return key.sign(grant.to_json(), typ=GRANT_TYPE)


def verify_grant(jws: str, owner_key: Jwk) -> Grant:
    """The grant in ``jws``; raises ``SignatureInvalidError`` or ``GrantMalformedError``."""
    return parse_grant(open_jws(jws, owner_key, typ=GRANT_TYPE))


# --- reading -------------------------------------------------------------------------------------------------------


def _bad(message: str) -> NoReturn:
    raise GrantMalformedError(f"grant: {message}")


def _texts(value: Any, name: str, good: re.Pattern[str] | Callable[[str], bool]) -> tuple[str, ...]:
    accepts = good if callable(good) else (lambda text: good.fullmatch(text) is not None)
    if not isinstance(value, list) or not all(isinstance(item, str) and accepts(item) for item in value):
        _bad(f"{name}: need a list of well-formed strings")
    return tuple(dict.fromkeys(value))


def _time(value: Any, name: str) -> datetime:
    try:
        time = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        _bad(f"{name}: need an ISO 8601 time, got {value!r}")
    if time.tzinfo is None:
        _bad(f"{name}: need a time with its offset from UTC, got {value!r}")
    return time


def _dataset(text: Any, member: str) -> DatasetName:
    try:
        return DatasetName.parse(text if isinstance(text, str) else "")
    except UsageError as exc:
        _bad(f"{member}: {exc.message}")


def _datasets(value: Any, owner: str) -> dict[DatasetName, Access]:
    if not isinstance(value, list) or not value:
        _bad("datasets: need a list of at least one dataset")
    out: dict[DatasetName, Access] = {}
    for item in value:
        if not isinstance(item, dict) or set(item) != {"name", "access"}:
            _bad("datasets: each needs name and access, and nothing else")
        name = _dataset(item["name"], "datasets")
        if name.owner != owner:
            _bad(f"datasets: {name} is not a dataset of {owner}")
        if name in out:
            _bad(f"datasets: {name} is named twice")
        if item["access"] not in [access.value for access in Access]:
            _bad(f"datasets: {name}: access {item['access']!r}, need read, write or read-write")
        out[name] = Access(item["access"])
    return out


def _is_recipient(text: str) -> bool:
    return text in (ANY_RECIPIENT, PLAINTEXT_RECIPIENT) or _dataset(text, "recipients") is not None


_MEMBERS = frozenset(
    {
        "version",
        "id",
        "owner",
        "datasets",
        "workloads",
        "workload_signers",
        "policy",
        "not_before",
        "not_after",
        "max_releases",
        "recipients",
        "binding",
    }
)


def parse_grant(value: Any) -> Grant:
    """Read a grant's payload; raises ``GrantMalformedError`` naming the member. Nothing is optional or ignored."""
    if not isinstance(value, dict):
        _bad(f"need an object, got {type(value).__name__}")
    if set(value) != _MEMBERS:
        differing = ", ".join(sorted(str(name) for name in set(value) ^ _MEMBERS))
        _bad(f"unknown or missing members: {differing}")
    if value["version"] != 1 or type(value["version"]) is not int:
        _bad(f"version: need 1, got {value['version']!r}")
    for name in ("id", "owner"):
        if not isinstance(value[name], str) or not _ID.fullmatch(value[name]):
            _bad(f"{name}: need letters, digits, '.', '_', '-', at most 64")
    policy = value["policy"]
    if not (
        isinstance(policy, dict)
        and set(policy) == {"name", "digest"}
        and isinstance(policy["name"], str)
        and isinstance(policy["digest"], str)
        and _POLICY_DIGEST.fullmatch(policy["digest"])
    ):
        _bad("policy: need name and digest (lower-case hex), and nothing else")
    limit = value["max_releases"]
    if limit is not None and (type(limit) is not int or limit < 1):
        _bad(f"max_releases: need null or a whole number from 1, got {limit!r}")
    if value["binding"] not in ("launch", "any"):
        _bad(f"binding: need launch or any, got {value['binding']!r}")
    grant = Grant(
        id=value["id"],
        owner=value["owner"],
        datasets=_datasets(value["datasets"], value["owner"]),
        workloads=_texts(value["workloads"], "workloads", _DIGEST),
        workload_signers=_texts(value["workload_signers"], "workload_signers", _THUMBPRINT),
        policy_name=policy["name"],
        policy_digest=policy["digest"],
        not_before=_time(value["not_before"], "not_before"),
        not_after=_time(value["not_after"], "not_after"),
        max_releases=limit,
        recipients=_texts(value["recipients"], "recipients", _is_recipient),
        binding=WorkloadBinding.LAUNCH if value["binding"] == "launch" else None,
    )
    if not grant.workloads and not grant.workload_signers:
        _bad("workloads, workload_signers: need at least one; a grant to nobody grants nothing")
    if grant.not_after <= grant.not_before:
        _bad("not_after: need a time after not_before")
    return grant


# --- deciding ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    """What a workload, as attested, asks of one dataset. ``access`` is what its own manifest's zones need;
    ``outputs`` are the datasets that any of its zones may write, plus ``plaintext`` when it may write outside them."""

    dataset: DatasetName
    access: Access
    workload: str
    signers: frozenset[str] = frozenset()
    outputs: tuple[str, ...] = ()
    binding: WorkloadBinding | None = None


@dataclass(frozen=True)
class GrantUse:
    """A grant's record so far: how many releases count against its maximum, and whether this job is among them."""

    releases: int = 0
    counted: bool = False
    revoked_at: datetime | None = None


def _clause(name: str, error: type[RefusedError], *, expected: str, got: str, holds: bool) -> Clause:
    return Clause(clause=name, expected=expected, got=got, holds=holds, fix=error.fix, code=error.code)


def _listed(items: Iterable[str], *, short: int = 0) -> str:
    shown = [item[:short] + "…" if short and len(item) > short else item for item in items]
    return (", ".join(shown[:4]) + (f" and {len(shown) - 4} more" if len(shown) > 4 else "")) or "none"


def match(grant: Grant, request: Request, use: GrantUse, *, now: datetime) -> tuple[Clause, ...]:
    """Every clause of a grant that names ``request.dataset``, each with the code a refusal for it would have.

    The appraisal policy is not among them: the release decision appraises it."""
    return (
        _workload(grant, request),
        _access(grant, request),
        _recipients(grant, request),
        _binding(grant, request),
        *_validity(grant, use, now),
        *_releases(grant, use),
    )


def _workload(grant: Grant, request: Request) -> Clause:
    wanted = [*grant.workloads, *(f"signed by {key}" for key in grant.workload_signers)]
    return _clause(
        "workload",
        GrantWorkloadError,
        expected=_listed(wanted, short=24),
        got=request.workload[:24] + "…",
        holds=request.workload in grant.workloads or bool(request.signers & set(grant.workload_signers)),
    )


def _access(grant: Grant, request: Request) -> Clause:
    given = grant.datasets[request.dataset]
    return _clause(
        "access",
        GrantAccessError,
        expected=f"at most {given}",
        got=str(request.access),
        holds=given.covers(request.access),
    )


def _recipients(grant: Grant, request: Request) -> Clause:
    """Where a workload that reads may write. The dataset itself is the access clause's business."""
    beyond: list[str] = []
    if request.access.can_read and ANY_RECIPIENT not in grant.recipients:
        allowed = {*grant.recipients, str(request.dataset)}
        beyond = [output for output in request.outputs if output not in allowed]
    return _clause(
        "recipients",
        GrantRecipientError,
        expected=_listed(grant.recipients),
        got=_listed(beyond or request.outputs),
        holds=not beyond,
    )


def _binding(grant: Grant, request: Request) -> Clause:
    return _clause(
        "binding",
        GrantBindingError,
        expected="any" if grant.binding is None else grant.binding.value,
        got="none" if request.binding is None else request.binding.value,
        holds=request.binding is not None and grant.binding in (None, request.binding),
    )


def _validity(grant: Grant, use: GrantUse, now: datetime) -> tuple[Clause, ...]:
    at, begin, end = (time.isoformat(timespec="seconds") for time in (now, grant.not_before, grant.not_after))
    revoked = "not revoked" if use.revoked_at is None else f"revoked {use.revoked_at.isoformat(timespec='seconds')}"
    return (
        _clause("not_before", GrantNotYetValidError, expected=f"from {begin}", got=at, holds=grant.not_before <= now),
        _clause("not_after", GrantExpiredError, expected=f"before {end}", got=at, holds=now < grant.not_after),
        _clause("revocation", GrantRevokedError, expected="not revoked", got=revoked, holds=use.revoked_at is None),
    )


def _releases(grant: Grant, use: GrantUse) -> tuple[Clause, ...]:
    if grant.max_releases is None:
        return ()
    got = f"{use.releases} used" + (", this job among them" if use.counted else "")
    holds = use.counted or use.releases < grant.max_releases
    return (
        _clause("max_releases", GrantExhaustedError, expected=f"at most {grant.max_releases}", got=got, holds=holds),
    )
