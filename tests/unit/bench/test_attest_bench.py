"""The benches measure what they say, and the fuzzer finds what it looks for."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casemate.bench import fuzz, verification
from casemate.bench.attest import AttestResult
from casemate.bench.attest_release import Latency
from casemate.bench.fuzz_targets import Target
from casemate.bench.mutations import mutate
from casemate.cli.main import invoke
from casemate.errors import RefusedError, UsageError


def test_every_platform_is_verified_with_simulated_evidence_where_there_is_none_real() -> None:
    for case in verification.cases(None):
        rate = verification.measure(case, seconds=0.02, trials=1)
        assert rate.per_second > 1
        assert rate.source == "simulated"


def test_the_result_has_the_figures_by_their_names() -> None:
    rate = verification.Rate(1.0, "simulated", 1)
    names = ("sgx", "tdx", "snp", "tpm", "snp_known_chip")
    value = AttestResult(dict.fromkeys(names, rate), Latency(1, 2.0, 3.0, {})).to_json()
    assert value["verifications_per_second"] == {"sgx": 1.0, "tdx": 1.0, "snp": 1.0, "tpm": 1.0}
    assert value["attest_release_ms"] == {"p50": 2.0, "p99": 3.0}


def test_a_short_run_over_all_targets_finds_nothing() -> None:
    result = fuzz.run(mutations=450, seed=7)
    assert result.good, result.findings
    assert result.to_json()["mutations"] == 450
    assert len(result.targets) > 25


def test_the_same_seed_does_the_same() -> None:
    first, second = (fuzz.run(mutations=60, seed=3, only="token").to_json()["targets"] for _ in range(2))
    for value in (first, second):
        for found in value.values():
            found.pop("slowest_ms")
    assert first == second


def crash(_: Any) -> None:
    raise KeyError("foreign")


def hang(_: Any) -> None:
    end = time.process_time() + 30
    while time.process_time() < end:
        pass


def refuse(_: Any) -> None:
    raise RefusedError("ours")


@pytest.mark.parametrize(
    ("run", "label"), [(crash, "crashed"), (hang, "hung"), (repr, "accepted"), (refuse, "refused")]
)
def test_the_fuzzer_sees_what_goes_wrong(monkeypatch: pytest.MonkeyPatch, run: Any, label: str) -> None:
    monkeypatch.setattr(fuzz, "HANG_SECONDS", 0.1)
    seed = b"x" * 10
    bad = Target("bad", [seed], lambda value: 10 if value == seed else run(value), decides=True)
    monkeypatch.setattr(fuzz, "targets", lambda: [bad])
    result = fuzz.run(mutations=1, seed=1)
    assert getattr(result.targets["bad"], label) == 1
    assert result.good == (label == "refused")
    assert len(result.findings) == (label != "refused")


def test_no_target_of_that_name_is_a_usage_error() -> None:
    with pytest.raises(UsageError):
        fuzz.run(mutations=1, only="no such target")


def test_the_command_writes_its_result(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deep" / "fuzz.json"
    assert invoke(["bench", "fuzz", "--mutations", "20", "--only", "policy", "--out", str(out)]) == 0
    assert '"good": true' in out.read_text()
    assert "20 mutations: 0 accepted" in capsys.readouterr().out


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(VALUES, st.integers(0, 2**32))
def test_a_mutation_is_always_another_value_and_leaves_the_original(value: Any, seed: int) -> None:
    before = repr(value)
    assert mutate(random.Random(seed), value) != value
    assert repr(value) == before
