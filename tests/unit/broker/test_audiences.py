"""For whom the broker's tokens are, and what a relying party makes of those that its policy did not accept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.unit.broker.support import PRODUCTION, START, URL, World

from casemate.attestation import token as tokens
from casemate.attestation.claims import Claims, TcbClaims
from casemate.attestation.policy import AppraisalPolicy
from casemate.attestation.rego import Evaluation, RegoPolicy
from casemate.attestation.relying.demands import Demands
from casemate.attestation.relying.errors import TokenStatusNotAcceptedError
from casemate.attestation.token_errors import TokenAudienceMismatchError, TokenIssuerMismatchError
from casemate.broker.errors import SessionAppraisalError
from casemate.broker.service import Broker
from casemate.broker.setup import initialise
from casemate.broker.state import open_broker
from casemate.crypto.jose import KeyPair
from casemate.errors import UsageError

SERVICE = "https://service.example"


def attested(world: World, **config: Any) -> str:
    """A token of a broker with these settings."""
    context = world.broker.context
    world.broker = Broker(replace(context, config=replace(context.config, **config)))
    challenge = world.challenge()
    from tests.unit.broker.support import manifest

    return world.broker.sessions.attest(challenge.session, world.evidence(challenge, KeyPair.generate(), manifest()))


def read(world: World, token: str, audience: str, issuer: str = URL) -> tokens.AttestationResult:
    keys = tokens.jwks(world.broker.context.token_key.public)
    return tokens.verify(token, keys=keys, issuer=issuer, audience=audience, now=START)


def test_a_token_is_for_the_audiences_of_its_broker_and_for_no_other(world: World) -> None:
    token = attested(world, audiences=(SERVICE,))
    assert read(world, token, SERVICE).audience == SERVICE
    assert world.broker.sessions.by_token(token).status == "warning"  # the broker itself is one of them
    with pytest.raises(TokenAudienceMismatchError):
        read(world, token, "https://other.example")
    with pytest.raises(TokenAudienceMismatchError):
        read(world, attested(world, audiences=()), SERVICE)


def test_the_issuer_may_have_a_name_of_its_own(world: World) -> None:
    token = attested(world, issuer="https://verifier.example")
    assert read(world, token, "https://verifier.example", "https://verifier.example").issuer
    with pytest.raises(TokenIssuerMismatchError):
        read(world, token, URL)


@pytest.mark.parametrize("name", ["", "service", "https://service.example/", "https://a b", "https://x\n"])
def test_a_name_that_two_people_would_write_in_two_ways_is_wrong_usage(tmp_path: Path, name: str) -> None:
    state = initialise(tmp_path / "state")
    for option in ({"issuer": name}, {"audiences": [name]}):
        with pytest.raises(UsageError):
            open_broker(state, port=1, **option)  # type: ignore[arg-type]


# -- a vector of warnings is no acceptance -----------------------------------------------------------------------------
class Says:
    """An engine that gives the same vector to everything."""

    def __init__(self, **vector: int) -> None:
        self.vector = vector

    def check(self, policy: str) -> None:
        """Everything is well formed."""

    def evaluate(self, *_: Any, **__: Any) -> Evaluation:
        return Evaluation(self.vector)


def result(**vector: int) -> tokens.AttestationResult:
    policy = RegoPolicy.parse("vector", "package policy", Says(**vector))
    claims = Claims("tdx", simulated=False, debug=False, tcb=TcbClaims("UpToDate"))
    signer, key = KeyPair.generate(), KeyPair.generate()
    token = tokens.issue(
        signer,
        token_id="1",
        issuer=URL,
        audience=URL,
        claims=claims,
        appraisal=policy.appraise(claims, now=START),
        tee_pubkey=key.public,
        now=START,
    )
    return tokens.verify(token, keys=tokens.jwks(signer.public), issuer=URL, audience=URL, now=START)


@pytest.mark.parametrize(
    ("vector", "status"),
    [
        ({"executables": 3, "hardware": 2, "configuration": 2}, "affirming"),
        ({"executables": 3, "hardware": 2, "configuration": 0}, "affirming"),
        ({"executables": 33, "hardware": 2, "configuration": 2}, "warning"),
        ({"executables": 33, "hardware": 97, "configuration": 36}, "contraindicated"),
    ],
)
def test_the_status_is_the_worst_tier_of_the_policys_vector(vector: dict[str, int], status: str) -> None:
    found = result(**vector)
    assert found.status == status
    module = found.raw["submods"]["cpu0"]
    assert module["ear.trustworthiness-vector"] == vector
    assert found.accepted is (status == "affirming")


def test_what_was_refused_with_a_warning_is_refused_by_who_accepts_warnings() -> None:
    lenient = Demands(statuses=frozenset({"affirming", "warning"}))
    lenient.check(result(executables=3, hardware=2))
    with pytest.raises(TokenStatusNotAcceptedError):
        lenient.check(result(executables=33, hardware=2))


def test_a_member_whose_evidence_was_refused_joins_no_job(world: World) -> None:
    world.broker = Broker(replace(world.broker.context, default_policy=AppraisalPolicy.from_yaml(PRODUCTION)))
    with pytest.raises(SessionAppraisalError):
        world.attest().require_accepted()
