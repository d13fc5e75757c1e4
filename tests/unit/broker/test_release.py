"""The release decision: every refusal for its own reason, and the nearest grant speaks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.broker.support import PATIENTS, POLICY, PRODUCTION, REPORT, START, digest, grant, manifest, text, zone

from casemate.attestation.claims import Claims, TcbClaims, WorkloadBinding
from casemate.attestation.policy import AppraisalPolicy, Outcome
from casemate.broker.grants import Grant, GrantUse
from casemate.broker.release import Attested, Decision, GrantRecord, decide
from casemate.broker.workloads import parse_init_data
from casemate.model import Access, DatasetName, Role

TRIAL, STRICT = AppraisalPolicy.from_yaml(POLICY), AppraisalPolicy.from_yaml(PRODUCTION)
POLICIES = {policy.digest: policy for policy in (TRIAL, STRICT)}
CLAIMS = Claims(
    platform="tdx",
    simulated=True,
    debug=False,
    workload=digest(manifest()),
    workload_binding=WorkloadBinding.LAUNCH,
    tcb=TcbClaims(status="UpToDate"),
    collateral_expires=START + timedelta(days=10),
)


def attested(workload: dict[str, Any] | None = None, **changes: Any) -> Attested:
    parsed = parse_init_data("json", text(workload or manifest()))
    return replace(Attested("job-1", Role.DRIVER, CLAIMS, parsed), **changes)


def ask(
    *grants: Grant | tuple[Grant, GrantUse],
    session: Attested | None = None,
    dataset: DatasetName = PATIENTS,
    policies: Mapping[str, AppraisalPolicy] = POLICIES,
    **more: Any,
) -> Decision:
    records: Sequence[GrantRecord] = [
        GrantRecord(*item) if isinstance(item, tuple) else GrantRecord(item, GrantUse()) for item in grants
    ]
    return decide(session or attested(), dataset, records, policies, now=START, **more)


def code(decision: Decision) -> str | None:
    return None if decision.error is None else decision.error.code


def test_a_job_that_everything_speaks_for_gets_its_keys() -> None:
    for dataset in (PATIENTS, REPORT):
        decision = ask(given := grant(), dataset=dataset)
        assert decision.accepted
        assert decision.grant is given
        assert all(clause.holds for clause in decision.clauses)
        assert {"role", "zone", "workload", "allow_simulated"} <= {clause.clause for clause in decision.clauses}


@pytest.mark.parametrize("role", [Role.MASTER, Role.WORKER])
def test_a_role_that_opens_no_datasets_gets_none(role: Role) -> None:
    assert code(ask(grant(), session=attested(role=role))) == "role-not-entitled"


@pytest.mark.parametrize("role", [Role.DRIVER, Role.EXECUTOR, Role.TASK])
def test_a_role_that_opens_datasets_does(role: Role) -> None:
    assert ask(grant(), session=attested(role=role)).accepted


REFUSALS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("grant-expired", {"not_after": START}, {}),
    ("grant-not-yet-valid", {"not_before": START + timedelta(minutes=1)}, {}),
    ("grant-access-insufficient", {"datasets": {PATIENTS: Access.WRITE}}, {}),
    ("grant-recipient-not-allowed", {"recipients": ()}, {}),
    ("grant-workload-mismatch", {}, {"arguments": ["vault/patients", "elsewhere"]}),
    ("policy-unknown", {"policy_digest": "ab" * 32}, {}),
    ("appraisal-refused", {"policy_name": "production", "policy_digest": STRICT.digest}, {}),
    ("workload-zone-missing", {}, {"zones": [zone(REPORT, "write")]}),
]


@pytest.mark.parametrize(("reason", "given", "workload"), REFUSALS, ids=[r[0] for r in REFUSALS])
def test_each_refusal_is_reached_for_its_own_reason(
    reason: str, given: dict[str, Any], workload: dict[str, Any]
) -> None:
    decision = ask(grant(**given), session=attested(manifest(**workload)))
    assert code(decision) == reason
    assert decision.outcome is Outcome.REFUSED
    assert next(c.code for c in decision.clauses if not c.holds) in (reason, "simulated-evidence")


def test_without_any_grant_it_says_so() -> None:
    assert code(ask()) == "grant-missing"
    assert code(ask(grant(datasets={REPORT: Access.WRITE}))) == "grant-missing"


def test_revoked_and_exhausted_come_from_the_grants_record() -> None:
    assert code(ask((grant(), GrantUse(revoked_at=START)))) == "grant-revoked"
    assert code(ask((grant(max_releases=1), GrantUse(releases=1)))) == "grant-exhausted"
    assert ask((grant(max_releases=1), GrantUse(releases=1, counted=True))).counted


def test_an_agent_bound_workload_does_not_satisfy_a_launch_grant() -> None:
    session = attested(claims=replace(CLAIMS, workload_binding=WorkloadBinding.AGENT))
    assert code(ask(grant(), session=session)) == "grant-binding-insufficient"
    assert ask(grant(binding=None), session=session).accepted


def test_without_a_manifest_nothing_opens() -> None:
    assert code(ask(grant(), session=replace(attested(), workload=None))) == "workload-manifest-missing"
    bare = parse_init_data("toml", 'version = "0.1.0"\nalgorithm = "sha-384"\n[data]\n')
    assert code(ask(grant(), session=replace(attested(), workload=bare))) == "workload-manifest-missing"


def test_a_workload_that_may_write_plaintext_needs_a_recipient_that_says_so() -> None:
    open_handed = manifest(plaintext_output="allow")
    session = attested(open_handed)
    assert code(ask(grant(open_handed), session=session)) == "grant-recipient-not-allowed"
    allowed = grant(open_handed, recipients=(str(REPORT), "plaintext"))
    assert ask(allowed, session=session).accepted


def test_all_zones_of_a_dataset_count_together() -> None:
    both = manifest(zones=[zone(PATIENTS, "read"), zone(PATIENTS, "write", "file:///vault/back")])
    assert code(ask(grant(both), session=attested(both))) == "grant-access-insufficient"


def test_the_nearest_grant_gives_the_code() -> None:
    stranger = grant(workloads=("0" * 96,))
    expired = grant(not_after=START)
    worse = grant(not_after=START, recipients=())
    decision = ask(stranger, worse, expired)
    assert code(decision) == "grant-expired"
    assert decision.grant is expired
    assert dict(decision.others) == {
        stranger.id: ("grant-workload-mismatch",),
        worse.id: ("grant-recipient-not-allowed", "grant-expired"),
    }


def test_one_good_grant_among_bad_ones_is_enough() -> None:
    good = grant()
    decision = ask(grant(not_after=START), (grant(), GrantUse(revoked_at=START)), good, grant(workloads=("0" * 96,)))
    assert decision.accepted
    assert decision.grant is good


def test_a_grant_whose_policy_refuses_does_not_hide_one_whose_policy_accepts() -> None:
    strict = grant(policy_name="production", policy_digest=STRICT.digest, not_after=START + timedelta(days=9))
    assert ask(strict, good := grant()).grant is good


def test_a_job_stays_with_the_grant_it_is_counted_in() -> None:
    first, second = grant(max_releases=1), grant(max_releases=5, not_after=START + timedelta(days=9))
    decision = ask((first, GrantUse(1, counted=True)), second)
    assert decision.grant is first


def test_a_grant_without_a_maximum_is_used_before_one_with() -> None:
    limited, unlimited = grant(max_releases=5, not_after=START + timedelta(days=9)), grant()
    assert ask(limited, unlimited).grant is unlimited


def test_collateral_that_expired_since_leaves_it_undecided() -> None:
    decision = ask(grant(), session=attested(claims=replace(CLAIMS, collateral_expires=START - timedelta(days=1))))
    assert decision.outcome is Outcome.UNDECIDED
    assert code(decision) == "claims-collateral-expired"


def test_a_policy_that_is_not_the_one_with_that_digest_is_unknown() -> None:
    swapped = {TRIAL.digest: STRICT}
    assert code(ask(grant(), policies=swapped)) == "policy-unknown"


def test_a_grant_of_another_owner_for_this_dataset_is_ignored() -> None:
    foreign = replace(grant(), owner="clinic")
    assert code(ask(foreign)) == "grant-missing"


def test_a_location_must_lie_in_a_zone_with_that_access() -> None:
    def at(location: str, access: Access | None, dataset: DatasetName = REPORT) -> str | None:
        return code(ask(grant(), dataset=dataset, access=access, location=location))

    assert at("file:///vault/report", Access.WRITE) is None
    assert at("file:///vault/report/part", Access.WRITE) is None
    assert at("file:///vault/report2", Access.WRITE) == "workload-zone-missing"
    assert at("file:///vault", Access.WRITE) == "workload-zone-missing"
    assert at("file:///vault/patients", None, PATIENTS) is None
    assert at("file:///vault/patients", Access.WRITE, PATIENTS) == "workload-zone-missing"


def test_a_decision_is_the_same_when_taken_again() -> None:
    grants = [grant(id=str(i), not_after=START) for i in range(5)]
    assert ask(*grants) == ask(*grants)
