"""Rego policies decide in a process of their own: only true is true, late is no, and nothing gets out."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from casemate.attestation import token as tokens
from casemate.attestation.claims import Claims, TcbClaims
from casemate.attestation.errors import MalformedPolicyError
from casemate.attestation.evidence import Evidence
from casemate.attestation.platforms.intel.collateral import SingleCollateral, parse_collateral
from casemate.attestation.platforms.simulator.pki import SimulatedPki
from casemate.attestation.platforms.simulator.quote import QuotingEnclave, TdReport
from casemate.attestation.platforms.snp.simulator import SimulatedAmd
from casemate.attestation.platforms.snp.tcb import Product
from casemate.attestation.platforms.snp.verifier import SnpVerifier
from casemate.attestation.policy import AppraisalPolicy, Outcome
from casemate.attestation.refusals import SimulatedEvidenceError
from casemate.attestation.rego import (
    RegoFailedError,
    RegoForm,
    RegoPolicy,
    RegoRefusedError,
    RegoTimeoutError,
    RegoTrustClaimError,
)
from casemate.attestation.rego_input import trustee_inputs
from casemate.attestation.rego_worker import RegoWorker
from casemate.attestation.trust import TrustStore
from casemate.crypto.jose import KeyPair

NOW = datetime(2026, 6, 1, tzinfo=UTC)
SIMULATED = AppraisalPolicy.from_document(
    {"version": 1, "name": "trial", "allow_simulated": True, "platforms": ["tdx", "snp"]}
)
REAL = Claims("tdx", simulated=False, debug=False, measurement="ab" * 48, tcb=TcbClaims("UpToDate"))
HEAD = "package casemate.policy\nimport rego.v1\n"
# In the form of confidential-containers' verifier: a vector of AR4SI claims, and reference values asked for by name.
VECTOR = """\
package policy
import rego.v1

default executables := 33
default hardware := 97
default configuration := 36

trust_claims := {"executables": executables, "hardware": hardware, "configuration": configuration, "file-system": 0}

executables := 3 if input.tdx.quote.body.rtmr_1 in query_reference_value("rtmr_1")
executables := 3 if input.snp.evidence.measurement in query_reference_value("snp_launch_measurement")

hardware := 2 if {
    input.tdx.quote.header.tee_type == "81000000"
    input.tdx.quote.header.vendor_id == "939a7233f79c4ca9940a0db3957f0607"
    input.tdx.quote.body.mr_td in query_reference_value("mr_td")
    input.tdx.tcb_status == "UpToDate"
    input.tdx.collateral_expiration_status == "0"
}
hardware := 2 if input.snp.evidence.reported_tcb.microcode >= query_reference_value("least_microcode")

configuration := 2 if {
    input.tdx.td_attributes.debug == false
    input.tdx.quote.body.xfam in query_reference_value("xfam")
}
configuration := 3 if {
    input.snp.evidence.policy.debug_allowed == false
    input.snp.evidence.policy.migrate_ma_allowed == false
}

extensions := [{"name": "ear.trustee.identifiers", "key": -18, "value": {"validated": {}}}]
"""


@pytest.fixture(scope="module")
def worker() -> Iterator[RegoWorker]:
    with RegoWorker(deadline_seconds=10) as found:
        yield found


@pytest.fixture(scope="module")
def tdx() -> Claims:
    pki = SimulatedPki.create(NOW)
    quote = QuotingEnclave.create(pki).tdx_quote(
        TdReport(mrtd=bytes([1] * 48), rtmr=(bytes(48), bytes([2] * 48), bytes(48), bytes(48)))
    )
    collateral = SingleCollateral(parse_collateral(json.dumps(pki.collateral("tdx", NOW))))
    store = TrustStore(simulator_root=pki.root.der, collateral=collateral)
    return store.verify(Evidence("tdx", {"quote": base64.b64encode(quote).decode()}), now=NOW)


@pytest.fixture(scope="module")
def snp() -> Claims:
    amd = SimulatedAmd(Product.MILAN, not_before=NOW - timedelta(1), not_after=NOW + timedelta(1))
    verifier = SnpVerifier({"Milan": amd.chain_pem()}, simulated_ark_pins={"Milan": amd.ark_pin})
    return verifier.verify(amd.evidence(amd.vek(), bytes(64), measurement=bytes([3] * 48)), now=NOW)


def ours(worker: RegoWorker, rules: str, **options: Any) -> RegoPolicy:
    return RegoPolicy.parse("trial", HEAD + rules, worker, **options)


def test_a_policy_of_our_own_form_decides(worker: RegoWorker) -> None:
    policy = ours(worker, f'default allow := false\nallow if input.claims.measurement == "{"ab" * 48}"')
    assert policy.form is RegoForm.CASEMATE
    assert policy.appraise(REAL, now=NOW).outcome is Outcome.ACCEPTED
    refused = policy.appraise(replace(REAL, measurement="cd" * 48), now=NOW)
    assert (refused.outcome, refused.code) == (Outcome.REFUSED, "rego-refused")
    last = refused.clauses[-1]
    assert (last.clause, last.expected, last.got, last.holds) == ("rego.allow", "true", "False", False)
    with pytest.raises(RegoRefusedError):
        refused.require()


@pytest.mark.parametrize(
    "rule",
    [
        'allow := "true"',
        "allow := 1",
        "allow := null",
        "allow := [true]",
        "allow := {true}",
        "allow if false",
        "x := 1",
    ],
)
def test_only_true_is_true(worker: RegoWorker, rule: str) -> None:
    appraisal = ours(worker, rule).appraise(REAL, now=NOW)
    assert appraisal.outcome is Outcome.REFUSED
    assert appraisal.code in ("rego-refused", "rego-failed")


def test_rego_only_narrows_what_the_base_policy_accepts(worker: RegoWorker) -> None:
    generous = ours(worker, "allow := true")
    simulated = replace(REAL, simulated=True)
    appraisal = generous.appraise(simulated, now=NOW)
    assert appraisal.code == SimulatedEvidenceError.code
    assert not any(clause.clause.startswith("rego") for clause in appraisal.clauses)
    assert ours(worker, "allow := true", base=SIMULATED).appraise(simulated, now=NOW).outcome is Outcome.ACCEPTED


def test_expired_collateral_stays_undecided(worker: RegoWorker) -> None:
    expired = replace(REAL, collateral_expires=NOW - timedelta(days=1))
    assert ours(worker, "allow := true").appraise(expired, now=NOW).outcome is Outcome.UNDECIDED


def test_the_digest_covers_text_base_and_reference_values(worker: RegoWorker) -> None:
    digests = {
        ours(worker, "allow := true").digest,
        ours(worker, "allow := false").digest,
        ours(worker, "allow := true", base=SIMULATED).digest,
        ours(worker, "allow := true", reference_values={"a": [1]}).digest,
    }
    assert len(digests) == 4


# -- the form of confidential-containers -------------------------------------------------------------------------------
TDX_VALUES = {"mr_td": ["01" * 48], "rtmr_1": ["02" * 48], "xfam": ["e702060000000000"]}
SNP_VALUES = {"snp_launch_measurement": ["03" * 48], "least_microcode": 1}


def test_a_policy_of_trustees_form_accepts_what_its_reference_values_name(
    worker: RegoWorker, tdx: Claims, snp: Claims
) -> None:
    values = {**TDX_VALUES, **SNP_VALUES}
    policy = RegoPolicy.parse("vector", VECTOR, worker, base=SIMULATED, reference_values=values)
    assert policy.form is RegoForm.TRUSTEE
    for claims in (tdx, snp):
        appraisal = policy.appraise(claims, now=NOW)
        assert appraisal.outcome is Outcome.ACCEPTED, appraisal.failed
    names = {clause.clause for clause in appraisal.clauses if clause.clause.startswith("rego.")}
    assert names == {"rego.executables", "rego.hardware", "rego.configuration", "rego.file-system"}


@pytest.mark.parametrize("missing", [*TDX_VALUES])
def test_a_missing_reference_value_refuses(worker: RegoWorker, tdx: Claims, missing: str) -> None:
    values = {name: value for name, value in TDX_VALUES.items() if name != missing}
    policy = RegoPolicy.parse("vector", VECTOR, worker, base=SIMULATED, reference_values=values)
    appraisal = policy.appraise(tdx, now=NOW)
    assert appraisal.codes == ("rego-trust-claim",)
    assert len(appraisal.failed) == 1
    with pytest.raises(RegoTrustClaimError):
        appraisal.require()


def test_an_unknown_reference_value_is_no_floor_that_everything_passes(worker: RegoWorker, snp: Claims) -> None:
    values = {name: value for name, value in SNP_VALUES.items() if name != "least_microcode"}
    policy = RegoPolicy.parse("vector", VECTOR, worker, base=SIMULATED, reference_values=values)
    assert [clause.clause for clause in policy.appraise(snp, now=NOW).failed] == ["rego.hardware"]


@pytest.mark.parametrize(
    "vector",
    [
        "{}",
        '{"executables": 3}',
        '{"executables": 3, "hardware": 0}',
        '{"executables": 3, "hardware": 2, "configuration": 32}',
        '{"executables": 3, "hardware": 2, "configuration": 96}',
        '{"executables": 3, "hardware": 2, "configuration": 1}',
        '{"executables": 3, "hardware": 2, "configuration": -1}',
        '{"executables": 3, "hardware": 2, "configuration": "2"}',
        '{"executables": true, "hardware": 2}',
        '{"executables": 3, "hardware": 2.5}',
        "[3, 2]",
        "true",
        "null",
    ],
)
def test_a_vector_that_is_not_affirming_refuses(worker: RegoWorker, vector: str) -> None:
    policy = RegoPolicy.parse("vector", f"package policy\ntrust_claims := {vector}\n", worker)
    assert policy.appraise(REAL, now=NOW).outcome is Outcome.REFUSED


AFFIRMED = 'package policy\nimport rego.v1\ntrust_claims := {"executables": 3, "hardware": 2}\n'


def test_a_policys_extensions_are_in_the_token(worker: RegoWorker) -> None:
    added = (
        'extensions := [{"name": "ear.trustee.identifiers", "key": -18, "value": {"validated": {"tee": input_tee}}}]\n'
    )
    policy = RegoPolicy.parse("identifiers", f'{AFFIRMED}{added}input_tee := "tdx" if input.tdx\n', worker)
    appraisal = policy.appraise(REAL, now=NOW)
    assert appraisal.outcome is Outcome.ACCEPTED
    signer, holder = KeyPair.generate(), KeyPair.generate()
    issuer = "https://broker.example"
    token = tokens.issue(
        signer, token_id="t", issuer=issuer, audience=issuer, claims=REAL, appraisal=appraisal,
        tee_pubkey=holder.public, now=NOW,
    )  # fmt: skip
    result = tokens.verify(token, keys=tokens.jwks(signer.public), issuer=issuer, audience=issuer, now=NOW)
    assert result.raw["submods"]["cpu0"]["ear.trustee.identifiers"] == {"validated": {"tee": "tdx"}}
    assert result.status == "affirming"
    refused = RegoPolicy.parse("refused", policy.text.replace('"hardware": 2', '"hardware": 97'), worker)
    assert refused.appraise(REAL, now=NOW).extensions == {}
    quiet = RegoPolicy.parse("none", f"{AFFIRMED}extensions := [] if input.nothing\n", worker)
    assert quiet.appraise(REAL, now=NOW).extensions == {}


@pytest.mark.parametrize(
    "extensions",
    [
        '[{"name": "ear.status", "key": 1, "value": "affirming"}]',  # ours to say
        '[{"name": "ear.trustee.a", "value": 1}, {"name": "ear.trustee.a", "value": 2}]',
        '[{"name": "ear.trustee.a", "value": numbers.range(1, 9999)}]',
        '{"ear.trustee.a": 1}',
    ],
)
def test_extensions_of_another_form_refuse(worker: RegoWorker, extensions: str) -> None:
    policy = RegoPolicy.parse("odd", f"{AFFIRMED}extensions := {extensions}\n", worker)
    appraisal = policy.appraise(REAL, now=NOW)
    assert appraisal.code == RegoFailedError.code
    assert appraisal.extensions == {}


def test_the_input_has_trustees_names(tdx: Claims, snp: Claims) -> None:
    found = trustee_inputs(tdx)[0]["tdx"]
    assert found["quote"]["body"]["xfam"] == "e702060000000000"
    assert found["quote"]["header"] == {
        "tee_type": "81000000",
        "vendor_id": "939a7233f79c4ca9940a0db3957f0607",
        "version": "0400",
        "att_key_type": "0200",
    }
    assert found["td_attributes"] == {
        "debug": False, "septve_disable": True, "pks": False, "protection_keys": False, "key_locker": False,
        "perfmon": False,
    }  # fmt: skip
    evidence = trustee_inputs(snp)[0]["snp"]["evidence"]
    assert evidence["policy"]["migrate_ma_allowed"] is False
    assert set(evidence["reported_tcb"]) == {"bootloader", "tee", "snp", "microcode"}
    assert set(trustee_inputs(replace(REAL, platform="gpu"))[0]) <= {"report_data", "init_data"}


# -- malformed, late, greedy -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("trial", ""),
        ("trial", "allow := true"),
        ("trial", "package other\nallow := true"),
        ("trial", HEAD + "allow if {"),
        ("trial", HEAD + "#" + "x" * 300_000),
        ("Trial", HEAD + "allow := true"),
    ],
)
def test_what_is_no_policy_is_malformed(worker: RegoWorker, name: str, text: str) -> None:
    with pytest.raises(MalformedPolicyError):
        RegoPolicy.parse(name, text, worker)


LOOP = "allow if count([1 | some a in numbers.range(1, 3000); some b in numbers.range(1, 3000); a == b]) == 3000"


def test_a_policy_that_takes_too_long_is_ended_and_refuses() -> None:
    with RegoWorker(deadline_seconds=0.3) as worker:
        assert ours(worker, "allow := true").appraise(REAL, now=NOW).outcome is Outcome.ACCEPTED
        first = worker.pid
        begin = time.monotonic()
        appraisal = ours(worker, LOOP).appraise(REAL, now=NOW)
        assert time.monotonic() - begin < 5
        assert (appraisal.outcome, appraisal.code) == (Outcome.REFUSED, "rego-timeout")
        with pytest.raises(RegoTimeoutError):
            appraisal.require()
        assert first is not None
        with pytest.raises(ProcessLookupError):
            os.kill(first, 0)
        assert ours(worker, "allow := true").appraise(REAL, now=NOW).outcome is Outcome.ACCEPTED  # a new child


def test_memory_is_bounded_and_what_is_left_suffices_for_a_large_log(worker: RegoWorker, tdx: Claims) -> None:
    policy = RegoPolicy.parse("vector", VECTOR, worker, base=SIMULATED, reference_values=TDX_VALUES)
    events = [{"type_name": "EV_IPL", "digests": [], "details": {"string": "x" * 1000}}] * 1000
    for _ in range(20):
        assert policy.beside(events=events).appraise(tdx, now=NOW).outcome is Outcome.ACCEPTED
    with open(f"/proc/{worker.pid}/status", encoding="ascii") as status:  # noqa: PTH123
        sizes = dict(line.split(":\t") for line in status)
    assert int(sizes["VmPeak"].split()[0]) < 512 * 1024


def test_a_policy_that_eats_memory_refuses() -> None:
    rule = 'allow if count(concat("", [s | some _ in numbers.range(1, 3000000); s := "' + "x" * 400 + '"])) > 0'
    with RegoWorker(deadline_seconds=10) as worker:
        assert ours(worker, rule).appraise(REAL, now=NOW).outcome is Outcome.REFUSED


def test_a_policy_reaches_no_network_and_no_disk(worker: RegoWorker) -> None:
    for rule in (
        'allow if http.send({"method": "GET", "url": "http://127.0.0.1:1"}).status_code == 200',
        'allow if opa.runtime().env.PATH != ""',
    ):
        with contextlib.suppress(MalformedPolicyError):  # the function may not exist at all
            assert ours(worker, rule).appraise(REAL, now=NOW).outcome is Outcome.REFUSED


def test_the_child_cannot_open_anything(worker: RegoWorker) -> None:
    ours(worker, "allow := true")
    assert worker.pid is not None
    with open(f"/proc/{worker.pid}/limits", encoding="ascii") as limits:  # noqa: PTH123
        rows = {line[:26].strip(): line[26:].split()[:2] for line in limits}
    assert rows["Max open files"] == ["3", "3"]
    assert rows["Max file size"] == ["0", "0"]
    assert rows["Max processes"] == ["0", "0"]
    assert sorted(os.listdir(f"/proc/{worker.pid}/fd")) == ["0", "1", "2"]  # noqa: PTH208
    with open(f"/proc/{worker.pid}/environ", "rb") as environment:  # noqa: PTH123
        names = {pair.split(b"=")[0] for pair in environment.read().split(b"\0") if pair}
    assert names <= {b"PATH", b"LC_ALL", b"MIMALLOC_ARENA_RESERVE"}


def test_a_child_that_was_killed_is_replaced(worker: RegoWorker) -> None:
    policy = ours(worker, "allow := true")
    assert worker.pid is not None
    os.kill(worker.pid, 9)
    time.sleep(0.1)
    assert policy.appraise(REAL, now=NOW).outcome is Outcome.ACCEPTED


def test_an_engine_that_fails_refuses() -> None:
    class Broken:
        def check(self, policy: str) -> None:
            """Everything is well formed."""

        def evaluate(self, *_: Any, **__: Any) -> Any:
            raise RegoFailedError("out of order")

    appraisal = RegoPolicy.parse("trial", HEAD + "allow := true", Broken()).appraise(REAL, now=NOW)
    assert (appraisal.outcome, appraisal.code) == (Outcome.REFUSED, "rego-failed")
