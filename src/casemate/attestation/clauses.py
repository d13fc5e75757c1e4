"""The clauses of an appraisal policy, and what each says about claims. Pure functions; no clock.

Every clause that a policy states becomes one ``Clause``: expected, got, whether it holds, and how to mend it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from casemate.attestation import refusals
from casemate.attestation.binding import carries_digest
from casemate.attestation.claims import Claims
from casemate.errors import CasemateError, UndecidedError

__all__ = ["Clause", "CollateralConditions", "Conditions", "TcbConditions", "clauses_of", "fold"]

INTEL_PLATFORMS = ("sgx", "tdx")  # those whose maker publishes a TCB status

Hex = Annotated[str, StringConstraints(pattern=r"^([0-9a-fA-F]{2}){1,64}$", to_lower=True, strip_whitespace=True)]
Digest = Annotated[str, StringConstraints(pattern=r"^([0-9a-fA-F]{2}){32,64}$", to_lower=True, strip_whitespace=True)]
Word = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Natural = Annotated[int, Field(ge=0, le=2**53 - 1)]
Scalar = bool | int | str | None
_LIMIT = 4096  # entries of one list: a policy is read on every release


class Strict(BaseModel):
    """Unknown keys and values of a near-miss type are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True)


class Advisories(Strict):
    """Security advisories. ``allow`` given: no other may apply. ``reject``: none of these may apply."""

    allow: Annotated[list[Word], Field(max_length=_LIMIT)] | None = None
    reject: Annotated[list[Word], Field(min_length=1, max_length=_LIMIT)] | None = None


class Floors(Strict):
    """Lowest security version per component; ``committed`` and ``launch`` cannot be rolled back by the host."""

    reported: Annotated[dict[Word, Natural], Field(min_length=1, max_length=64)] | None = None
    committed: Annotated[dict[Word, Natural], Field(min_length=1, max_length=64)] | None = None
    launch: Annotated[dict[Word, Natural], Field(min_length=1, max_length=64)] | None = None


class TcbConditions(Strict):
    """What the maker says about the trusted computing base."""

    statuses: Annotated[list[Word], Field(min_length=1, max_length=64)] | None = None
    advisories: Advisories | None = None
    floors: Floors | None = None
    min_evaluation_number: Natural | None = None


class CollateralConditions(Strict):
    """How fresh the maker's word has to be. Expired collateral is never accepted."""

    max_age_days: Annotated[int, Field(ge=1, le=3650)] | None = None
    min_remaining_hours: Annotated[int, Field(ge=1, le=87600)] | None = None


class Conditions(Strict):
    """Clauses that must all hold. A list names the acceptable values; ``all``, ``any``, ``not`` combine."""

    platforms: Annotated[list[Literal["sgx", "tdx", "snp", "tpm", "gpu"]], Field(min_length=1)] | None = None
    measurements: Annotated[list[Hex], Field(min_length=1, max_length=_LIMIT)] | None = None
    signers: Annotated[list[Hex], Field(min_length=1, max_length=_LIMIT)] | None = None
    product_ids: Annotated[list[Natural], Field(min_length=1, max_length=_LIMIT)] | None = None
    min_svn: Natural | None = None
    rtmrs: Annotated[dict[Literal["0", "1", "2", "3"], list[Hex]], Field(min_length=1)] | None = None
    workloads: Annotated[list[Digest], Field(min_length=1, max_length=_LIMIT)] | None = None
    workload_binding: Literal["launch", "agent", "any"] | None = None
    tcb: TcbConditions | None = None
    collateral: CollateralConditions | None = None
    platform_ids: Annotated[list[Hex], Field(min_length=1, max_length=_LIMIT)] | None = None
    vmpls: Annotated[list[Annotated[int, Field(ge=0, le=3)]], Field(min_length=1)] | None = None
    extra: Annotated[dict[Word, Scalar | list[Scalar]], Field(min_length=1, max_length=64)] | None = None
    all_: Annotated[list[Conditions], Field(min_length=1, max_length=64)] | None = Field(None, alias="all")
    any_: Annotated[list[Conditions], Field(min_length=1, max_length=64)] | None = Field(None, alias="any")
    not_: Conditions | None = Field(None, alias="not")


@dataclass(frozen=True)
class Clause:
    """One line of an explanation. ``code`` is the reason when it does not hold; ``parts`` are those of a combination.

    ``undecided``: it does not hold for want of an endorsement, and may later. ``policy``: whose clause it is, where
    several policies have to hold."""

    clause: str
    expected: str
    got: str
    holds: bool
    fix: str
    code: str
    undecided: bool = False
    parts: tuple[Clause, ...] = ()
    policy: str = ""

    def to_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {
            "clause": self.clause,
            "expected": self.expected,
            "got": self.got,
            "holds": self.holds,
            "fix": "" if self.holds else self.fix,
            "code": None if self.holds else self.code,
        }
        if self.parts:
            out["parts"] = [part.to_json() for part in self.parts]
        if self.policy:
            out["policy"] = self.policy
        return out

    def of(self, policy: str) -> Clause:
        """The same clause, marked as ``policy``'s."""
        return replace(self, policy=policy)


def clause(
    name: str,
    reason: type[CasemateError],
    *,
    expected: str,
    got: str,
    holds: bool,
    parts: tuple[Clause, ...] = (),
) -> Clause:
    return Clause(name, expected, got, holds, reason.fix, reason.code, issubclass(reason, UndecidedError), parts)


def fold(clauses: Iterable[Clause]) -> bool | None:
    """All of them: ``False`` when one is refused, else ``None`` when one is undecided, else ``True``."""
    failed = [c for c in clauses if not c.holds]
    if any(not c.undecided for c in failed):
        return False
    return None if failed else True


def clauses_of(conditions: Conditions, claims: Claims, *, now: datetime) -> Iterator[Clause]:
    """Every clause that ``conditions`` states, in the order of the schema, each judged against ``claims``."""
    yield from _identity_clauses(conditions, claims)
    if conditions.tcb is not None:
        yield from _tcb_clauses(conditions.tcb, claims)
    if conditions.collateral is not None:
        yield from _collateral_clauses(conditions.collateral, claims, now)
    yield from _machine_clauses(conditions, claims)
    yield from _combinations(conditions, claims, now)


def _show(value: object) -> str:
    if value is None:
        return "not said"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ", ".join(_show(v) for v in value[:8]) + (f" … ({len(value)})" if len(value) > 8 else "") or "none"
    return str(value)


def _one_of(name: str, reason: type[CasemateError], wanted: list[Any] | None, got: object) -> Iterator[Clause]:
    if wanted is not None:
        holds = got is not None and got in wanted
        yield clause(name, reason, expected=f"one of: {_show(wanted)}", got=_show(got), holds=holds)


def _identity_clauses(c: Conditions, claims: Claims) -> Iterator[Clause]:
    yield from _one_of("platforms", refusals.PlatformNotAcceptedError, list(c.platforms or []) or None, claims.platform)
    yield from _one_of("measurements", refusals.MeasurementMismatchError, c.measurements, claims.measurement)
    yield from _one_of("signers", refusals.SignerMismatchError, c.signers, claims.signer)
    yield from _one_of("product_ids", refusals.ProductIdMismatchError, c.product_ids, claims.product_id)
    if c.min_svn is not None:
        holds = claims.svn is not None and claims.svn >= c.min_svn
        reason: type[CasemateError] = refusals.SvnTooLowError
        yield clause("min_svn", reason, expected=f"at least {c.min_svn}", got=_show(claims.svn), holds=holds)
    for index, wanted in sorted((c.rtmrs or {}).items()):
        value = claims.rtmr[int(index)] if int(index) < len(claims.rtmr) else None
        yield from _one_of(f"rtmrs.{index}", refusals.RtmrMismatchError, wanted, value)
    if c.workloads is not None:
        holds = any(carries_digest(claims.workload, digest) for digest in c.workloads)
        reason = refusals.WorkloadMismatchError
        expected = f"one of: {_show(c.workloads)}"
        yield clause("workloads", reason, expected=expected, got=_show(claims.workload), holds=holds)
    if c.workload_binding is not None:
        binding = None if claims.workload_binding is None else str(claims.workload_binding)
        wanted_bindings = ["launch", "agent"] if c.workload_binding == "any" else [c.workload_binding]
        yield from _one_of("workload_binding", refusals.WorkloadBindingMismatchError, wanted_bindings, binding)


def _tcb_clauses(tcb: TcbConditions, claims: Claims) -> Iterator[Clause]:
    if tcb.statuses is not None:
        yield status_clause(tcb.statuses, claims)
    if tcb.advisories is not None:
        allow, reject = tcb.advisories.allow, tcb.advisories.reject or []
        bad = [a for a in claims.tcb.advisories if a in reject or (allow is not None and a not in allow)]
        expected = "any advisory" if allow is None else f"only: {_show(allow)}"
        yield clause(
            "tcb.advisories",
            refusals.AdvisoryNotAcceptedError,
            expected=expected + (f"; none of: {_show(reject)}" if reject else ""),
            got=_show(bad or claims.tcb.advisories),
            holds=not bad,
        )
    if tcb.floors is not None:
        for name in ("reported", "committed", "launch"):
            yield from _floor_clauses(name, getattr(tcb.floors, name), getattr(claims.tcb, name))
    if tcb.min_evaluation_number is not None:
        got = claims.tcb.evaluation_number
        yield clause(
            "tcb.min_evaluation_number",
            refusals.TcbEvaluationNumberTooLowError,
            expected=f"at least {tcb.min_evaluation_number}",
            got=_show(got),
            holds=got is not None and got >= tcb.min_evaluation_number,
        )


def status_clause(accepted: list[str], claims: Claims) -> Clause:
    """The TCB status; only where the maker publishes one (Intel), and there its absence fails."""
    status, reason = claims.tcb.status, refusals.TcbStatusNotAcceptedError
    expected = f"one of: {_show(accepted)}"
    if status is None and claims.platform not in INTEL_PLATFORMS:
        return clause("tcb.statuses", reason, expected=expected, got="the maker publishes none; use floors", holds=True)
    return clause("tcb.statuses", reason, expected=expected, got=_show(status), holds=status in accepted)


def _floor_clauses(name: str, floor: Mapping[str, int] | None, got: Mapping[str, int] | None) -> Iterator[Clause]:
    for component, lowest in sorted((floor or {}).items()):
        value = (got or {}).get(component)
        yield clause(
            f"tcb.floors.{name}.{component}",
            refusals.TcbBelowFloorError,
            expected=f"at least {lowest}",
            got=_show(value),
            holds=value is not None and value >= lowest,
        )


def _collateral_clauses(collateral: CollateralConditions, claims: Claims, now: datetime) -> Iterator[Clause]:
    if collateral.max_age_days is not None:
        issued = _moment(claims.extra.get("collateral_issued"))
        yield clause(
            "collateral.max_age_days",
            refusals.CollateralTooOldError,
            expected=f"issued at most {collateral.max_age_days} days ago",
            got=_show(issued and issued.isoformat()),
            holds=issued is not None and now - issued <= timedelta(days=collateral.max_age_days),
        )
    if collateral.min_remaining_hours is not None:
        expires = claims.collateral_expires
        yield clause(
            "collateral.min_remaining_hours",
            refusals.CollateralExpiresSoonError,
            expected=f"good for at least {collateral.min_remaining_hours} more hours",
            got="not said" if expires is None else f"good until {expires.isoformat()}",
            holds=expires is not None and expires - now >= timedelta(hours=collateral.min_remaining_hours),
        )


def _machine_clauses(c: Conditions, claims: Claims) -> Iterator[Clause]:
    yield from _one_of("platform_ids", refusals.PlatformIdNotAllowedError, c.platform_ids, claims.platform_id)
    yield from _one_of("vmpls", refusals.VmplNotAcceptedError, c.vmpls, claims.vmpl)
    for name, wanted in sorted((c.extra or {}).items()):
        said, got = _found(claims.extra, name)
        values = wanted if isinstance(wanted, list) else [wanted]
        yield clause(
            f"extra.{name}",
            refusals.ClaimMismatchError,
            expected=f"one of: {_show(values)}",
            got=_show(got),
            holds=said and any(type(got) is type(v) and got == v for v in values),
        )


def _combinations(c: Conditions, claims: Claims, now: datetime) -> Iterator[Clause]:
    for part in c.all_ or []:
        yield from clauses_of(part, claims, now=now)
    if c.any_ is not None:
        branches = [tuple(clauses_of(part, claims, now=now)) for part in c.any_]
        outcomes = [fold(branch) for branch in branches]
        undecided = True not in outcomes and None in outcomes
        groups = tuple(
            clause(
                f"any.{i}",
                refusals.NoAlternativeHoldsError,
                expected="all of its parts hold",
                got=_failed(branch),
                holds=outcome is True,
                parts=branch,
            )
            for i, (branch, outcome) in enumerate(zip(branches, outcomes, strict=True))
        )
        yield clause(
            "any",
            refusals.ClaimsCollateralExpiredError if undecided else refusals.NoAlternativeHoldsError,
            expected=f"one of {len(branches)} alternatives holds",
            got="; ".join(f"{g.clause}: {g.got}" for g in groups),
            holds=True in outcomes,
            parts=groups,
        )
    if c.not_ is not None:
        inner = tuple(clauses_of(c.not_, claims, now=now))
        outcome = fold(inner)
        yield clause(
            "not",
            refusals.ExcludedEvidenceError,
            expected="at least one of its parts does not hold",
            got="all of them hold" if outcome else _failed(inner),
            holds=outcome is False,
            parts=inner,
        )


def _failed(clauses: tuple[Clause, ...]) -> str:
    return ", ".join(c.code for c in clauses if not c.holds) or "holds"


def _found(extra: Mapping[str, Any], name: str) -> tuple[bool, object]:
    """Whether a claim is there, and its value: by its name, or through nested ones (``pcrs.sha256.0``)."""
    if name in extra:
        return True, _plain(extra[name])
    value: object = extra
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return False, None
        value = value[part]
    return True, _plain(value)


def _plain(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else value


def _moment(value: object) -> datetime | None:
    if isinstance(value, datetime):
        return value
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return moment if moment is None or moment.tzinfo is not None else moment.replace(tzinfo=UTC)
