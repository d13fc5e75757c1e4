"""The release decision: may this attested process have the key of this dataset? A pure function; no I/O, no clock.

It looks at the session's claims, role and workload, at the owner's grants and their use so far, and at the policies the
grants name. Each owner's grant and policy decide alone. Every clause is explained; the nearest grant gives the code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from casemate.attestation.claims import Claims
from casemate.attestation.clauses import Clause
from casemate.attestation.errors import AppraisalRefusedError
from casemate.attestation.policies import Policy
from casemate.attestation.policy import Outcome
from casemate.attestation.refusals import ClaimsCollateralExpiredError
from casemate.attestation.rego import RegoPolicy
from casemate.broker.errors import (
    GrantMissingError,
    GrantWorkloadError,
    PolicyUnknownError,
    RoleNotEntitledError,
    WorkloadManifestMissingError,
    WorkloadZoneError,
)
from casemate.broker.grants import Grant, GrantUse, Request, match
from casemate.broker.workloads import Workload
from casemate.errors import CasemateError, RefusedError
from casemate.model import Access, DatasetName, Role

__all__ = ["Attested", "Decision", "Floor", "GrantRecord", "decide"]


@dataclass(frozen=True)
class Attested:
    """An accepted attestation, as the broker remembers it."""

    job: str
    role: Role
    claims: Claims
    workload: Workload | None
    signers: frozenset[str] = frozenset()


@dataclass(frozen=True)
class GrantRecord:
    """A grant whose signature was verified, and its use so far."""

    grant: Grant
    use: GrantUse


@dataclass(frozen=True)
class Floor:
    """A policy that has to hold beside a grant's own; ``label`` says whose it is, in explanations."""

    label: str
    policy: Policy


@dataclass(frozen=True)
class Decision:
    """The answer, and why. ``grant`` is the one that allows it or comes nearest; ``error`` None means accepted.

    ``others`` lists the other grants for the dataset with the codes that speak against each."""

    outcome: Outcome
    clauses: tuple[Clause, ...]
    error: type[CasemateError] | None = None
    message: str = ""
    grant: Grant | None = None
    counted: bool = False
    others: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @property
    def accepted(self) -> bool:
        return self.outcome is Outcome.ACCEPTED


@dataclass(frozen=True)
class _Judged:
    record: GrantRecord
    clauses: tuple[Clause, ...]

    @property
    def failed(self) -> tuple[Clause, ...]:
        """The clauses that fail; those that refuse come before those that are only undecided."""
        return tuple(sorted((clause for clause in self.clauses if not clause.holds), key=lambda c: c.undecided))

    @property
    def distance(self) -> tuple[bool, int, float]:
        """Small is near: a grant for this workload first, then fewest failures, then the latest end."""
        stranger = any(clause.code == GrantWorkloadError.code for clause in self.failed)
        return stranger, len(self.failed), -self.record.grant.not_after.timestamp()


def decide(
    attested: Attested,
    dataset: DatasetName,
    grants: Sequence[GrantRecord],
    policies: Mapping[str, Policy],
    *,
    now: datetime,
    access: Access | None = None,
    location: str | None = None,
    floors: Sequence[Floor] = (),
) -> Decision:
    """Decide on one dataset. ``policies`` by digest; ``access`` and ``location`` narrow it to a generation record.

    1. The role opens datasets.            3. A grant of the dataset's owner holds in every clause.
    2. The manifest has a zone for it.     4. The policy that grant names and the ``floors`` accept the claims."""
    lead = [_role(attested.role)]  # (1)
    if attested.workload is None or not attested.workload.has_manifest:  # (2)
        text = "the attestation carried no workload manifest"
        return _refuse(WorkloadManifestMissingError, text, [*lead, _manifest_missing()])
    needed = attested.workload.access(dataset)
    lead.append(_zone(attested.workload, dataset, needed, access, location))
    for clause in lead:
        if not clause.holds:
            error = RoleNotEntitledError if clause.clause == "role" else WorkloadZoneError
            return _refuse(error, f"{clause.clause} expected {clause.expected}, got {clause.got}", lead)
    request = Request(
        dataset=dataset,
        access=needed or Access.READ_WRITE,
        workload=attested.workload.digest,
        signers=attested.signers,
        outputs=attested.workload.outputs,
        binding=attested.claims.workload_binding,
    )
    judged = sorted(
        (
            _Judged(record, match(record.grant, request, record.use, now=now))  # (3)
            for record in grants
            if dataset in record.grant.datasets and record.grant.owner == dataset.owner
        ),
        key=_preference,
    )
    if not judged:
        return _refuse(GrantMissingError, f"no grant of {dataset.owner} names {dataset}", lead)
    for index, candidate in enumerate(judged):
        if candidate.failed and index:  # past the nearest, only grants that hold so far are worth appraising for
            continue
        appraised = _appraise(candidate.record.grant, attested, policies, floors, now)  # (4)
        judged[index] = _Judged(candidate.record, (*candidate.clauses, *appraised))
        if not judged[index].failed:
            break  # the most preferred of those that hold
    else:
        judged.sort(key=_preference)
        index = 0
    best = judged[index]
    others = tuple(
        (other.record.grant.id, tuple(clause.code for clause in other.failed)) for other in judged if other is not best
    )
    clauses = (*lead, *best.clauses)
    if not best.failed:
        return Decision(
            Outcome.ACCEPTED, clauses, grant=best.record.grant, counted=best.record.use.counted, others=others[:16]
        )
    first = best.failed[0]
    return Decision(
        Outcome.UNDECIDED if first.undecided else Outcome.REFUSED,
        clauses,
        error=_error(first),
        message=f"grant {best.record.grant.id}: {_named(first)} expected {first.expected}, got {first.got}",
        grant=best.record.grant,
        others=others[:16],
    )


def _named(clause: Clause) -> str:
    return f"{clause.clause} of policy {clause.policy}" if clause.policy else clause.clause


def _preference(judged: _Judged) -> tuple[bool, int, bool, bool, float]:
    """Nearest first; among equals one that this job already counts in, then one without a maximum, then the longest."""
    stranger, failures, end = judged.distance
    use, limit = judged.record.use, judged.record.grant.max_releases
    return stranger, failures, not use.counted, limit is not None, end


def _error(clause: Clause) -> type[CasemateError]:
    """The error a failed clause stands for: a grant clause's own; a policy's are all one to the caller."""
    if clause.undecided:
        return ClaimsCollateralExpiredError
    for error in RefusedError.__subclasses__():
        if error.code == clause.code:
            return error
    return AppraisalRefusedError


def _refuse(error: type[RefusedError], message: str, clauses: Sequence[Clause]) -> Decision:
    return Decision(Outcome.REFUSED, tuple(clauses), error=error, message=message)


def _role(role: Role) -> Clause:
    return Clause(
        clause="role",
        expected=", ".join(item.value for item in Role if item.opens_datasets),
        got=role.value,
        holds=role.opens_datasets,
        fix=RoleNotEntitledError.fix,
        code=RoleNotEntitledError.code,
    )


def _manifest_missing() -> Clause:
    error = WorkloadManifestMissingError
    return Clause("manifest", "a workload manifest", "none", holds=False, fix=error.fix, code=error.code)


def _zone(
    workload: Workload, dataset: DatasetName, needed: Access | None, access: Access | None, location: str | None
) -> Clause:
    expected = f"a zone for {dataset}" + ("" if access is None else f" with access {access}")
    holds = needed is not None and (access is None or needed.covers(access))
    got = "none" if needed is None else f"access {needed}"
    if location is not None:
        expected += f" that holds {location}"
        if holds and not workload.covers(dataset, location, write=access is not None and access.can_write):
            holds, got = False, "another location"
    return Clause("zone", expected, got, holds, WorkloadZoneError.fix, WorkloadZoneError.code)


def _appraise(
    grant: Grant, attested: Attested, policies: Mapping[str, Policy], floors: Sequence[Floor], now: datetime
) -> tuple[Clause, ...]:
    """The clauses of the grant's policy and of every floor; with floors, each names its policy."""
    policy = policies.get(grant.policy_digest)
    if policy is None or policy.digest != grant.policy_digest:
        expected = f"policy {grant.policy_name} with digest {grant.policy_digest[:16]}…"
        return (Clause("policy", expected, "not known here", False, PolicyUnknownError.fix, PolicyUnknownError.code),)
    own = _clauses(policy, attested, now)
    if not floors:
        return own
    named = [(f"{policy.name} of the grant", own)]
    named += [(f"{floor.policy.name}, {floor.label}", _clauses(floor.policy, attested, now)) for floor in floors]
    return tuple(clause.of(name) for name, clauses in named for clause in clauses)


def _clauses(policy: Policy, attested: Attested, now: datetime) -> tuple[Clause, ...]:
    if isinstance(policy, RegoPolicy) and attested.workload is not None:
        policy = policy.beside(init_data=attested.workload.init_data)
    return policy.appraise(attested.claims, now=now).clauses
