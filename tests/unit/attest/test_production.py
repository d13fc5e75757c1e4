"""With the simulator forbidden: perfect simulated evidence is refused, and trust anchors do not mix."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.attest.conftest import Run
from tests.unit.attest.makers import DAY, NOW, Given, Makers, policy

from casemate.attestation.policy import AppraisalPolicy, Outcome
from casemate.attestation.trust_errors import TrustAnchorError

PRODUCTION = AppraisalPolicy.from_yaml(
    "version: 1\nname: production\nplatforms: [sgx, tdx, snp, tpm, gpu]\ntcb: {statuses: [UpToDate]}\n"
)


@pytest.fixture(scope="module")
def makers() -> Makers:
    return Makers()


@pytest.mark.parametrize(
    "make", [Makers.sgx, Makers.tdx, Makers.snp, Makers.tpm, Makers.certified, Makers.gpu], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("rules", [None, PRODUCTION], ids=["built-in", "production"])
def test_perfect_simulated_evidence_is_refused(
    makers: Makers, make: Callable[[Makers], Given], rules: AppraisalPolicy | None
) -> None:
    judgement = make(makers).but(policy=rules).judge()
    assert (judgement.outcome, judgement.code) == (Outcome.REFUSED, "simulated-evidence")
    assert judgement.verified, "all else is in order"
    assert [c.clause for c in judgement.clauses if not c.holds] == ["allow_simulated"]


@pytest.mark.parametrize("make", [Makers.sgx, Makers.tdx, Makers.snp, Makers.gpu, Makers.certified])
def test_simulated_evidence_without_its_anchor_is_refused_by_a_policy_that_would_allow_it(
    makers: Makers, make: Callable[[Makers], Given]
) -> None:
    judgement = make(makers).but(trust_anchor=None).judge()
    assert judgement.outcome is not Outcome.ACCEPTED
    assert not judgement.verified


def test_evidence_under_one_anchor_with_collateral_under_another_is_refused(vectors: Path, run: Run) -> None:
    at = ("--at", "2026-01-10")
    simulated = (vectors / "tdx/sim_v4_td10.quote", "--collateral")
    _, found = run(*simulated, vectors / "tdx/phala_v4_td10.collateral.json", *at)
    assert found["code"] == "untrusted-root"
    anchor = ("--trust-anchor", vectors / "sgx/sim_root_ca.der")
    status, found = run(*simulated, vectors / "tdx/phala_v4_td10.collateral.json", *anchor, "--at", "2025-06-20")
    assert (status, found["code"]) == (1, "collateral-untrusted-root")
    real = (vectors / "tdx/phala_v4_td10.quote", "--collateral", vectors / "tdx/sim_ok.collateral.json")
    status, found = run(*real, *at)
    assert (status, found["code"]) == (1, "collateral-untrusted-root")
    status, found = run(*real, *anchor, *at)
    assert (status, found["code"]) == (1, "untrusted-root")


def test_real_evidence_is_refused_under_a_simulated_anchor(vectors: Path, makers: Makers) -> None:
    chain, vcek = vectors / "snp/milan_ask_ark_asvk.pem", vectors / "snp/coco_milan_v2.vcek.der"
    real = Given(
        (vectors / "snp/coco_milan_v2.report").read_bytes(),
        certificates=(chain.read_bytes(), vcek.read_bytes()),
        challenge=None,
    )
    assert real.judge().outcome is Outcome.ACCEPTED
    for anchor in (makers.amd.certificates["ARK"], makers.pki.root.der, makers.tpm_key.spki):
        judgement = real.but(trust_anchor=anchor).judge()
        assert judgement.outcome is Outcome.REFUSED
        assert judgement.code in ("untrusted-root", "snp-certificate-usage-wrong")
    root = sorted(real.certificates, key=len)[-1]  # the pinned one, named as the anchor: real as before
    ark = b"-----BEGIN" + root.split(b"-----BEGIN")[2]
    judgement = real.but(trust_anchor=ark).judge()
    assert judgement.outcome is Outcome.ACCEPTED
    assert judgement.claims is not None
    assert not judgement.claims.simulated


def test_simulated_evidence_is_refused_under_a_real_anchor(vectors: Path, makers: Makers) -> None:
    intel = (vectors / "sgx/intel_sgx_root_ca.der").read_bytes()
    for given in (makers.tdx(), makers.sgx()):
        assert given.but(trust_anchor=intel).judge().code == "untrusted-root"
    for given in (makers.snp(), makers.gpu()):
        assert given.but(trust_anchor=intel).judge().outcome is Outcome.REFUSED


def test_one_anchor_at_a_time(makers: Makers) -> None:
    two = makers.amd.chain_pem(("ARK", "ASK"))
    with pytest.raises(TrustAnchorError, match="one certificate"):
        makers.snp().but(trust_anchor=two).judge()
    with pytest.raises(TrustAnchorError):
        makers.snp().but(trust_anchor=b"nonsense").judge()


def test_each_strict_rule_is_relaxed_by_its_name(makers: Makers) -> None:
    debug = makers.tdx(td_attributes=1 << 28 | 1 << 30 | 1)
    failed = [c.clause for c in debug.but(policy=None).judge().clauses if not c.holds]
    assert failed == ["allow_simulated", "insecure_allow_debug", "allow_attributes.pks"]
    relaxed = policy(insecure_allow_debug=True, allow_attributes=["pks"])
    assert debug.but(policy=relaxed).judge().outcome is Outcome.ACCEPTED


def test_a_key_on_the_policys_list_is_vouched_for_only_where_it_must_hold(makers: Makers) -> None:
    own = makers.tpm().judge().claims
    assert own is not None
    bare = makers.tpm().but(trust_anchor=None)
    named = {"platform_ids": [own.platform_id]}
    for rules in (named, {"all": [named]}, {"any": [named, {"platform_ids": ["11" * 32]}]}):
        judgement = bare.but(policy=policy(**rules)).judge()
        assert judgement.outcome is Outcome.ACCEPTED, rules
    for rules in ({"any": [named, {"vmpls": [0]}]}, {"not": named}, {"platform_ids": ["11" * 32]}):
        judgement = bare.but(policy=policy(**rules)).judge()
        assert (judgement.outcome, judgement.code) == (Outcome.REFUSED, "tpm-ak-untrusted"), rules


def test_unverified_claims_are_never_accepted_by_a_policy(makers: Makers) -> None:
    anything = policy(any=[{"platforms": ["tdx"]}, {"platforms": ["snp"]}])
    for given in (makers.tdx().but(collateral=()), makers.snp(with_vek=False), makers.snp(chain=b"")):
        judgement = given.but(policy=anything).judge()
        assert judgement.outcome is Outcome.UNDECIDED
        assert judgement.claims is not None
        assert judgement.to_json()["claims"]["verified"] is False


def test_expired_collateral_is_undecided_and_says_what_it_once_said(makers: Makers) -> None:
    late = makers.tdx().but(now=NOW + 40 * DAY)
    judgement = late.judge()
    assert (judgement.outcome, judgement.code) == (Outcome.UNDECIDED, "tcb-info-expired")
    assert judgement.claims is not None
    assert judgement.claims.tcb.status == "UpToDate"
    assert late.flipped(48 + 136).judge().code == "quote-signature-invalid", "wrong at any time"


def test_the_judgement_is_plain_json(makers: Makers) -> None:
    for given in (makers.tdx(), makers.snp(), makers.gpu(), makers.tpm(), Given(b"")):
        value = given.judge().to_json()
        assert json.loads(json.dumps(value)) == value
        assert set(value) == {"outcome", "code", "claims", "clauses"}
