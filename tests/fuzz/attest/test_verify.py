"""Whatever a file holds, ``attest verify`` ends in a judgement: no foreign exception, nothing accepted by accident."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.attest.makers import Given, Makers

from casemate.attestation.appraise import Platform
from casemate.attestation.policy import Outcome

MAKERS = Makers()
MAKES: dict[str, Callable[[], Given]] = {
    "tdx": MAKERS.tdx,
    "sgx": MAKERS.sgx,
    "snp": MAKERS.snp,
    "tpm": MAKERS.certified,
    "gpu": MAKERS.gpu,
}
SCALE = 60  # mutations of each kind of evidence
INTERESTING = (0, 1, 0x7F, 0x80, 0xFF)


def mutations(content: bytes, rng: random.Random) -> Iterator[bytes]:
    """Flips, cuts, repeats, insertions and bytes at the edges of their range."""
    for _ in range(SCALE):
        place, raw = rng.randrange(len(content)), bytearray(content)
        match rng.randrange(5):
            case 0:
                raw[place] ^= 1 << rng.randrange(8)
            case 1:
                del raw[place : place + rng.randrange(1, 200)]
            case 2:
                raw[place:place] = raw[place : place + rng.randrange(1, 200)]
            case 3:
                raw[place:place] = rng.randbytes(rng.randrange(1, 50))
            case _:
                raw[place] = rng.choice(INTERESTING)
        yield bytes(raw)


def same_evidence(before: Given, after: bytes) -> bool:
    """Whether a mutation left what is signed alone: JSON layout, PEM text and hex digits may be written differently."""
    claims = [one.judge().claims for one in (before, before.but(content=after))]
    return claims[0] is not None and claims[1] is not None and claims[0].report_data == claims[1].report_data


@pytest.mark.parametrize("name", MAKES)
def test_mutated_evidence_is_judged_and_not_accepted(name: str) -> None:
    good, rng = MAKES[name](), random.Random(20261123)
    for content in mutations(good.content, rng):
        judgement = good.but(content=content).judge()
        assert json.dumps(judgement.to_json())
        if judgement.outcome is Outcome.ACCEPTED:
            assert same_evidence(good, content)
            assert judgement.claims is not None
            before = good.judge().claims
            assert before is not None
            assert (before.measurement, before.platform_id) == (
                judgement.claims.measurement,
                judgement.claims.platform_id,
            )


@pytest.mark.parametrize("name", ["tdx", "sgx", "snp"])
def test_mutated_endorsements_are_judged(name: str) -> None:
    good, rng = MAKES[name](), random.Random(7)
    for _ in range(SCALE):
        changes: dict[str, Any] = {}
        if good.collateral:
            text = next(mutations(good.collateral[0].encode(), rng))
            changes["collateral"] = (text.decode("utf-8", "replace"),)
        if good.certificates:
            changes["certificates"] = (next(mutations(good.certificates[0], rng)),)
        judgement = good.but(**changes).judge()
        assert json.dumps(judgement.to_json())


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(content=st.binary(max_size=3000), platform=st.sampled_from(Platform), log=st.none() | st.binary(max_size=300))
def test_any_bytes_are_judged_and_not_accepted(content: bytes, platform: Platform, log: bytes | None) -> None:
    judgement = Given(content, platform=platform, challenge=None).judge()
    assert judgement.outcome is not Outcome.ACCEPTED
    assert judgement.code


# fmt: off
WORDS = [
    "quote", "hcl_report", "tpm_quote", "quotes", "report", "attestation_report", "cert_chain", "evidence",
    "certificate", "td_quote", "pcrs", "message", "signature", "measurement", "report_data",
    "device_evidence_list", "primary_evidence", "vcek", "tcb_info", "ak_public", "nonce",
]
# fmt: on
NAMES = st.sampled_from(WORDS)
TEXTS = st.text(max_size=20) | st.sampled_from(["AAAA", "00" * 32, "ff544347"])
LEAVES = st.none() | st.booleans() | st.integers() | TEXTS
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=5))


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(value=st.dictionaries(NAMES, VALUES, max_size=6) | st.lists(VALUES, max_size=3))
def test_any_json_is_judged_and_not_accepted(value: Any) -> None:
    judgement = Given(json.dumps(value).encode(), challenge=None).judge()
    assert judgement.outcome is not Outcome.ACCEPTED
    assert judgement.code


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=2000))
def test_any_bytes_are_judged_as_an_event_log(content: bytes) -> None:
    judgement = MAKES["tdx"]().but(event_log=content).judge()
    assert judgement.outcome is Outcome.REFUSED
