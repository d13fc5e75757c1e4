from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml

from casemate.attestation import refusals
from casemate.attestation.claims import Claims, WorkloadBinding
from casemate.attestation.errors import AppraisalRefusedError, MalformedPolicyError
from casemate.attestation.policy import AppraisalPolicy, Outcome, default_policy, policy_schema
from casemate.errors import UndecidedError

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
Make = Callable[..., Claims]


def policy(**members: Any) -> AppraisalPolicy:
    return AppraisalPolicy.from_yaml(yaml.safe_dump({"version": 1, "name": "test", **members}))


# Every clause: what satisfies it, what breaks it, and the code it then gives. The claims are those of ``conftest``.
CASES: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"platforms": ["tdx", "snp"]}, {"platform": "sgx"}, "platform-not-accepted"),
    ({"measurements": ["aa" * 48]}, {"measurement": "ab" * 48}, "measurement-mismatch"),
    ({"measurements": ["AA" * 48]}, {"measurement": None}, "measurement-mismatch"),
    ({"signers": ["00" * 48]}, {"signer": "01" * 48}, "signer-mismatch"),
    ({"product_ids": [3, 4]}, {"product_id": 2}, "product-id-mismatch"),
    ({"min_svn": 5}, {"svn": 4}, "svn-too-low"),
    ({"min_svn": 0}, {"svn": None}, "svn-too-low"),
    ({"rtmrs": {"1": ["22" * 48]}}, {"rtmr": ("11" * 48, "23" * 48)}, "rtmr-mismatch"),
    ({"rtmrs": {"3": ["00" * 48]}}, {"rtmr": ()}, "rtmr-mismatch"),
    ({"workloads": ["ab" * 48]}, {"workload": "ac" * 48}, "workload-mismatch"),
    ({"workloads": ["ab" * 48]}, {"workload": None}, "workload-mismatch"),
    ({"workload_binding": "launch"}, {"workload_binding": WorkloadBinding.AGENT}, "workload-binding-mismatch"),
    ({"workload_binding": "any"}, {"workload_binding": None}, "workload-binding-mismatch"),
    ({"tcb": {"statuses": ["UpToDate"]}}, {"tcb": {"status": "OutOfDate"}}, "tcb-status-not-accepted"),
    ({"platforms": ["tdx"]}, {"tcb": {"status": "SWHardeningNeeded"}}, "tcb-status-not-accepted"),
    ({"platforms": ["tdx"]}, {"tcb": {"status": None}}, "tcb-status-not-accepted"),
    (
        {"tcb": {"advisories": {"allow": ["INTEL-SA-00001"]}}},
        {"tcb": {"advisories": ("INTEL-SA-00001", "INTEL-SA-00002")}},
        "advisory-not-accepted",
    ),
    (
        {"tcb": {"advisories": {"reject": ["INTEL-SA-00002"]}}},
        {"tcb": {"advisories": ("INTEL-SA-00002",)}},
        "advisory-not-accepted",
    ),
    ({"tcb": {"floors": {"reported": {"sgx01": 5}}}}, {"tcb": {"reported": {"sgx01": 4}}}, "tcb-below-floor"),
    ({"tcb": {"floors": {"reported": {"sgx01": 5}}}}, {"tcb": {"reported": None}}, "tcb-below-floor"),
    ({"tcb": {"min_evaluation_number": 20}}, {"tcb": {"evaluation_number": 19}}, "tcb-evaluation-number-too-low"),
    ({"collateral": {"max_age_days": 3}}, {"extra": {"collateral_issued": "2026-02-26"}}, "collateral-too-old"),
    ({"collateral": {"max_age_days": 3}}, {"extra": {}}, "collateral-too-old"),
    (
        {"collateral": {"min_remaining_hours": 24}},
        {"collateral_expires": NOW + timedelta(hours=23)},
        "collateral-expires-soon",
    ),
    ({"collateral": {"min_remaining_hours": 24}}, {"collateral_expires": None}, "collateral-expires-soon"),
    ({"platform_ids": ["ef" * 16]}, {"platform_id": "ee" * 16}, "platform-id-not-allowed"),
    ({"platform_ids": ["ef" * 16]}, {"platform_id": None}, "platform-id-not-allowed"),
    ({"vmpls": [0]}, {"vmpl": 1}, "vmpl-not-accepted"),
    ({"extra": {"smt_enabled": True}}, {"extra": {"smt_enabled": False}}, "claim-mismatch"),
    ({"extra": {"smt_enabled": True}}, {"extra": {"smt_enabled": 1}}, "claim-mismatch"),
    ({"extra": {"smt_enabled": [True]}}, {"extra": {}}, "claim-mismatch"),
    ({"platforms": ["tdx"]}, {"simulated": True}, "simulated-evidence"),
    ({"platforms": ["tdx"]}, {"debug": True}, "debug-enabled"),
    ({"platforms": ["tdx"]}, {"extra": {"unsafe_attributes": ["perfmon"]}}, "perfmon-enabled"),
    ({"platforms": ["tdx"]}, {"extra": {"unsafe_attributes": ["pks"]}}, "pks-enabled"),
    ({"platforms": ["tdx"]}, {"extra": {"unsafe_attributes": ["key-locker"]}}, "key-locker-enabled"),
    ({"platforms": ["tdx"]}, {"extra": {"unsafe_attributes": ["sept-ve"]}}, "sept-ve-not-disabled"),
    ({"platforms": ["tdx"]}, {"extra": {"unsafe_attributes": ["new"]}}, "attribute-not-accepted"),
    ({"any": [{"vmpls": [1]}, {"vmpls": [0]}]}, {"vmpl": 2}, "no-alternative-holds"),
    ({"all": [{"vmpls": [0, 1]}, {"min_svn": 1}]}, {"vmpl": 2}, "vmpl-not-accepted"),
    ({"not": {"platform_ids": ["ee" * 16]}}, {"platform_id": "ee" * 16}, "excluded-evidence"),
]


@pytest.mark.parametrize(("members", "broken", "code"), CASES, ids=[f"{i}-{c[2]}" for i, c in enumerate(CASES)])
def test_each_clause_holds_or_refuses_for_its_own_reason(
    claims: Make, members: dict[str, Any], broken: dict[str, Any], code: str
) -> None:
    good = claims(workload_binding=WorkloadBinding.LAUNCH)
    accepted = policy(**members).appraise(good, now=NOW)
    assert accepted.outcome is Outcome.ACCEPTED, accepted.codes
    refused = policy(**members).appraise(claims(**{"workload_binding": WorkloadBinding.LAUNCH, **broken}), now=NOW)
    assert refused.outcome is Outcome.REFUSED
    assert refused.codes == (code,)
    failed = [clause for clause in refused.clauses if not clause.holds]
    assert all(clause.expected and clause.got and clause.fix for clause in failed)


def test_dots_lead_into_nested_claims(claims: Make) -> None:
    """So that a policy can pin the boot PCRs of a TPM."""
    pinned = policy(extra={"pcrs.sha256.0": ["00", "11"]})
    for value, codes in (({"0": "11"}, ()), ({"0": "22"}, ("claim-mismatch",)), ("11", ("claim-mismatch",))):
        assert pinned.appraise(claims(extra={"pcrs": {"sha256": value}}), now=NOW).codes == codes
    assert pinned.appraise(claims(extra={"pcrs.sha256.0": "11"}), now=NOW).codes == ()
    assert policy(extra={"pcrs.sha256": "11"}).appraise(
        claims(extra={"pcrs": {"sha256": {"0": "11"}}}), now=NOW
    ).codes == ("claim-mismatch",)


def test_the_default_policy_accepts_a_sound_platform(claims: Make) -> None:
    appraisal = default_policy().appraise(claims(), now=NOW)
    assert appraisal.outcome is Outcome.ACCEPTED
    assert appraisal.code is None
    appraisal.require()


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        ({"simulated": True}, "simulated-evidence"),
        ({"debug": True}, "debug-enabled"),
        ({"tcb": {"status": "OutOfDate"}}, "tcb-status-not-accepted"),
        ({"extra": {"unsafe_attributes": ["perfmon"]}}, "perfmon-enabled"),
    ],
)
def test_the_default_policy_refuses(claims: Make, broken: dict[str, Any], code: str) -> None:
    appraisal = default_policy().appraise(claims(**broken), now=NOW)
    assert appraisal.codes == (code,)
    with pytest.raises(AppraisalRefusedError) as caught:
        appraisal.require()
    assert caught.value.code == code


def test_each_guard_can_be_relaxed_by_name(claims: Make) -> None:
    relaxed = policy(
        allow_simulated=True,
        insecure_allow_debug=True,
        allow_attributes=["perfmon"],
        tcb={"statuses": ["UpToDate", "OutOfDate"]},
    )
    worst = claims(simulated=True, debug=True, tcb={"status": "OutOfDate"}, extra={"unsafe_attributes": ["perfmon"]})
    assert relaxed.appraise(worst, now=NOW).outcome is Outcome.ACCEPTED


def test_relaxing_one_guard_keeps_the_others(claims: Make) -> None:
    appraisal = policy(allow_simulated=True, platforms=["tdx"]).appraise(claims(simulated=True, debug=True), now=NOW)
    assert appraisal.codes == ("debug-enabled",)


def test_expired_collateral_is_undecided_and_nothing_relaxes_it(claims: Make) -> None:
    appraisal = policy(platforms=["tdx"]).appraise(claims(collateral_expires=NOW - timedelta(seconds=1)), now=NOW)
    assert appraisal.outcome is Outcome.UNDECIDED
    assert appraisal.code == "claims-collateral-expired"
    with pytest.raises(UndecidedError):
        appraisal.require()


def test_a_refusal_outweighs_what_is_undecided(claims: Make) -> None:
    stale = claims(collateral_expires=NOW - timedelta(seconds=1), debug=True)
    appraisal = policy(platforms=["tdx"]).appraise(stale, now=NOW)
    assert appraisal.outcome is Outcome.REFUSED
    assert appraisal.codes == ("debug-enabled", "claims-collateral-expired")


def test_platforms_without_a_tcb_status_are_not_refused_for_lacking_one(claims: Make) -> None:
    snp = claims(platform="snp", tcb={"status": None, "committed": {"snp": 23}})
    assert policy(platforms=["snp"]).appraise(snp, now=NOW).outcome is Outcome.ACCEPTED
    floors = policy(platforms=["snp"], tcb={"floors": {"committed": {"snp": 24}}})
    assert floors.appraise(snp, now=NOW).codes == ("tcb-below-floor",)


def test_a_nested_block_cannot_relax_a_guard() -> None:
    for key in ("allow_simulated", "insecure_allow_debug", "allow_attributes"):
        with pytest.raises(MalformedPolicyError, match=key):
            policy(any=[{key: True, "platforms": ["tdx"]}])


def test_a_nested_status_narrows_but_never_widens(claims: Make) -> None:
    nested = policy(any=[{"tcb": {"statuses": ["OutOfDate"]}}])
    assert nested.appraise(claims(tcb={"status": "OutOfDate"}), now=NOW).codes == ("tcb-status-not-accepted",)


def test_an_alternative_explains_each_of_its_parts(claims: Make) -> None:
    alternatives = policy(any=[{"vmpls": [1]}, {"measurements": ["00" * 48], "vmpls": [0]}])
    document = alternatives.appraise(claims(), now=NOW).to_json()
    assert document["outcome"] == "refused"
    group = next(clause for clause in document["clauses"] if clause["clause"] == "any")
    assert [part["got"] for part in group["parts"]] == ["vmpl-not-accepted", "measurement-mismatch"]
    assert {c["code"] for c in document["clauses"] if c["holds"]} == {None}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("[]", "empty"),
        ("{}", "empty"),
        ("version: 1\nname: x\n", "demands nothing"),
        ("version: 1\nname: x\nallow_simulated: true\n", "demands nothing"),
        ("version: 1\nname: x\ntcb: {}\n", "demands nothing"),
        ("version: 1\nname: x\nplatforms: [tdx]\nany: [{platforms: [tdx]}, {}]\n", "demands nothing"),
        ("version: 1\nname: x\nplatforms: [tdx]\nnot: {}\n", "demands nothing"),
        ("version: 1\nname: x\nplatforms: []\n", "platforms"),
        ("version: 1\nname: x\nplatfroms: [tdx]\n", "platfroms"),
        ("version: 2\nname: x\nplatforms: [tdx]\n", "version"),
        ("name: x\nplatforms: [tdx]\n", "version"),
        ("version: 1\nplatforms: [tdx]\n", "name"),
        ("version: 1\nname: Ü\nplatforms: [tdx]\n", "name"),
        ("version: 1\nname: x\nplatforms: [tdx]\nallow_simulated: yes\n", "allow_simulated"),
        ("version: 1\nname: x\nplatforms: [tdx]\nallow_simulated: 1\n", "allow_simulated"),
        ("version: 1\nname: x\nmeasurements: [12345678]\n", "quote it"),
        ("version: 1\nname: x\nmeasurements: [abc]\n", "measurements"),
        ("version: 1\nname: x\nworkloads: ['abcd']\n", "workloads"),
        ("version: 1\nname: x\nrtmrs: {4: ['aa']}\n", "rtmrs"),
        ("version: 1\nname: x\nmin_svn: -1\n", "min_svn"),
        ("version: 1\nname: x\nmin_svn: 99999999999999999999\n", "min_svn"),
        ("version: 1\nname: x\nplatforms: [tdx]\nplatforms: [snp]\n", "twice"),
        ("version: 1\nname: x\nplatforms: &a [tdx]\nall: [*a]\n", "alias"),
        ("version: 1\nname: !!python/object:os.system x\n", "YAML"),
        ("version: 1\nname: x\nplatforms: [tdx", "YAML"),
        ("version: 1\nname: x\n<<: {platforms: [tdx]}\n", "<<"),
        ("version: 1\nname: x\nmin_svn: 1\n? [a]\n: 1\n", "hashable|policy"),
        ("a: " * 5 + "{" * 2000, "YAML"),
        ("version: 1\nname: x\n" + "not: {" * 20 + "min_svn: 1" + "}" * 20, "nested deeper"),
        ("#" * 300_000, "characters"),
    ],
)
def test_a_malformed_policy_is_an_error_that_names_the_key(text: str, says: str) -> None:
    with pytest.raises(MalformedPolicyError, match=says):
        AppraisalPolicy.from_yaml(text)


def test_the_digest_is_of_what_the_author_wrote_not_of_its_layout() -> None:
    one = AppraisalPolicy.from_yaml("version: 1\nname: x\nplatforms: [tdx]\nmin_svn: 2\n")
    two = AppraisalPolicy.from_yaml("# a comment\n{min_svn: 2, name: x, platforms: ['tdx'], version: 1}")
    three = AppraisalPolicy.from_yaml("version: 1\nname: x\nplatforms: [tdx]\nmin_svn: 3\n")
    assert one.digest == two.digest != three.digest
    assert AppraisalPolicy.from_document(one.document).digest == one.digest


def test_the_schema_names_every_clause_and_forbids_others() -> None:
    schema = policy_schema()
    assert schema["additionalProperties"] is False
    assert {"platforms", "measurements", "tcb", "any", "not", "allow_simulated"} <= set(schema["properties"])


def test_every_refusal_has_a_code_of_its_own() -> None:
    classes = [getattr(refusals, name) for name in refusals.__all__ if name != "ATTRIBUTE_REASONS"]
    assert len({cls.code for cls in classes}) == len(classes)
    assert all(cls.__doc__ and cls.fix for cls in classes)


def test_claims_survive_json(claims: Make) -> None:
    import json

    original = claims(workload_binding=WorkloadBinding.LAUNCH)
    assert Claims.from_json(json.loads(json.dumps(original.to_json()))) == original
