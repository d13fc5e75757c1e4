"""Faults of the protocol and of tokens, at the real broker in this process: each refused for its own reason."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.unit.broker.support import START, Machine, World, digest, grant, manifest, text

from casemate.attestation import token as tokens
from casemate.broker.sessions import AttestRequest, Challenge
from casemate.crypto.jose import KeyPair
from casemate.errors import CasemateError

KEY, STRANGER = KeyPair.generate(), KeyPair.generate()


@pytest.fixture(scope="module")
def machine() -> Machine:
    return Machine(START)


@pytest.fixture
def world(tmp_path: Path, machine: Machine) -> Iterator[World]:
    made = World(tmp_path, machine)
    yield made
    made.broker.close()


def asked(world: World, **td: Any) -> tuple[Challenge, AttestRequest]:
    challenge = world.challenge()
    return challenge, world.evidence(challenge, KEY, manifest(), **td)


def send(world: World, session: str | None, request: AttestRequest, **changes: Any) -> str:
    return world.broker.sessions.attest(session, replace(request, **changes))


def quote_of(request: AttestRequest) -> bytes:
    return base64.b64decode(request.primary_evidence["quote"])


def quote(raw: bytes) -> dict[str, Any]:
    return {"quote": base64.b64encode(raw).decode()}


# -- the challenge --------------------------------------------------------------------------------------------------
def attestation_replayed(w: World) -> None:
    challenge, request = asked(w)
    send(w, challenge.session, request)
    send(w, challenge.session, request)


def challenge_stale(w: World) -> None:
    challenge, request = asked(w)
    w.clock.advance(minutes=5)
    send(w, challenge.session, request)


def challenge_of_another_session(w: World) -> None:
    _, request = asked(w)
    send(w, w.challenge().session, request)


def challenge_never_given(w: World) -> None:
    challenge, request = asked(w)
    send(w, challenge.session, request, nonce=base64.b64encode(bytes(32)).decode())


def session_missing(w: World) -> None:
    send(w, None, asked(w)[1])


def session_made_up(w: World) -> None:
    send(w, "made-up", asked(w)[1])


def recorded_evidence_for_a_fresh_challenge(w: World) -> None:
    _, recorded = asked(w)
    fresh = w.challenge()
    send(w, fresh.session, recorded, nonce=fresh.nonce)


# -- what the evidence binds ----------------------------------------------------------------------------------------
def key_swapped(w: World) -> None:
    challenge, request = asked(w)
    send(w, challenge.session, request, tee_pubkey=STRANGER.public)


def additional_evidence_slipped_in(w: World) -> None:
    challenge, request = asked(w)
    send(w, challenge.session, request, additional_evidence='{"gpu": "mine"}')


def manifest_swapped(w: World) -> None:
    challenge, request = asked(w)
    send(w, challenge.session, request, init_body=text(manifest(arguments=["elsewhere"])))


def manifest_with_a_space(w: World) -> None:
    challenge, request = asked(w)
    send(w, challenge.session, request, init_body=text(manifest()) + " ")


def launched_for_another_workload(w: World) -> None:
    challenge, request = asked(w, launched=digest(manifest(arguments=["elsewhere"])))
    send(w, challenge.session, request)


def job_of_another_workload(w: World) -> None:
    w.attest("job-1")
    w.attest("job-1", "executor", manifest(arguments=["elsewhere"]))


# -- the evidence ---------------------------------------------------------------------------------------------------
def quote_of_another_maker(w: World) -> None:
    challenge, request = asked(w)
    foreign = Machine(START).quote(bytes(64), digest(manifest()))
    send(w, challenge.session, request, primary_evidence=quote(foreign))


def quote_changed(w: World) -> None:
    challenge, request = asked(w)
    raw = bytearray(quote_of(request))
    raw[48 + 136] ^= 1
    send(w, challenge.session, request, primary_evidence=quote(bytes(raw)))


def quote_cut(w: World) -> None:
    challenge, request = asked(w)
    send(w, challenge.session, request, primary_evidence=quote(quote_of(request)[:-9]))


def quote_missing(w: World) -> None:
    challenge, request = asked(w)
    send(w, challenge.session, request, primary_evidence={})


def evidence_of_a_kind_without_an_anchor(w: World) -> None:
    challenge = w.broker.sessions.challenge("0.4.0", "snp", {})
    send(w, challenge.session, w.evidence(challenge, KEY, manifest()))


def collateral_expired(w: World) -> None:
    w.clock.advance(days=60)
    challenge, request = asked(w)
    send(w, challenge.session, request)


def td_that_may_migrate(w: World) -> None:
    challenge, request = asked(w, td_attributes=1 << 28 | 1 << 29)
    send(w, challenge.session, request)


# -- the protocol ---------------------------------------------------------------------------------------------------
def protocol_of_another_version(w: World) -> None:
    w.broker.sessions.challenge("0.3.0", "tdx", {})


def role_unknown(w: World) -> None:
    w.broker.sessions.challenge("0.4.0", "tdx", {"casemate": {"job": "a", "role": "king"}})


# -- tokens ---------------------------------------------------------------------------------------------------------
def earned(w: World) -> str:
    challenge, request = asked(w)
    return send(w, challenge.session, request)


def read(w: World, token: str, **changes: Any) -> None:
    issuer = w.broker.context.config.issuer
    keys = tokens.jwks(w.broker.context.token_key.public)
    tokens.verify(token, **({"keys": keys, "issuer": issuer, "audience": issuer, "now": w.clock()} | changes))


def token_for_another_audience(w: World) -> None:
    read(w, earned(w), audience="https://elsewhere.test")


def token_of_another_issuer(w: World) -> None:
    read(w, earned(w), issuer="https://elsewhere.test")


def token_expired(w: World) -> None:
    token = earned(w)
    w.clock.advance(minutes=5)
    read(w, token)


def token_from_the_future(w: World) -> None:
    read(w, earned(w), now=w.clock() - timedelta(minutes=1))


def token_of_an_unknown_key(w: World) -> None:
    read(w, earned(w), keys=tokens.jwks(STRANGER.public))


def token_changed(w: World) -> None:
    head, payload, signature = earned(w).split(".")
    read(w, f"{head}.{payload}.{signature[:-4]}AAAA")


def token_of_prose(w: World) -> None:
    read(w, "a.b.c")


def token_without_its_session(w: World) -> None:
    token = earned(w)
    w.clock.advance(hours=3)
    w.challenge()  # sessions that ended are forgotten now
    w.broker.sessions.by_token(token)


# -- release --------------------------------------------------------------------------------------------------------
def release(w: World, workload: dict[str, Any] | None = None) -> None:
    member = w.attest(workload=workload)
    w.broker.releases.release_key(member, next(iter(grant().datasets)), None)


def release_without_a_grant(w: World) -> None:
    release(w)


def release_for_a_changed_program(w: World) -> None:
    w.give()
    release(w, manifest(program={"path": "job.py", "sha256": "01" * 32}))


def release_after_the_grant_ended(w: World) -> None:
    w.give(grant(not_after=START + timedelta(minutes=1)))
    w.clock.advance(minutes=2)
    release(w)


def release_before_the_grant_begins(w: World) -> None:
    w.give(grant(not_before=START + timedelta(hours=1)))
    release(w)


CASES: dict[Callable[[World], None], str] = {
    attestation_replayed: "challenge-unknown",
    challenge_stale: "challenge-expired",
    challenge_of_another_session: "challenge-unknown",
    challenge_never_given: "challenge-unknown",
    session_missing: "challenge-unknown",
    session_made_up: "challenge-unknown",
    recorded_evidence_for_a_fresh_challenge: "report-data-mismatch",
    key_swapped: "report-data-mismatch",
    additional_evidence_slipped_in: "report-data-mismatch",
    manifest_swapped: "workload-digest-mismatch",
    manifest_with_a_space: "workload-digest-mismatch",
    launched_for_another_workload: "workload-digest-mismatch",
    job_of_another_workload: "job-workload-mismatch",
    quote_of_another_maker: "untrusted-root",
    quote_changed: "quote-signature-invalid",
    quote_cut: "quote-malformed",
    quote_missing: "evidence-malformed",
    evidence_of_a_kind_without_an_anchor: "evidence-kind-unknown",
    collateral_expired: "tcb-info-expired",
    td_that_may_migrate: "td-migratable",
    protocol_of_another_version: "request-malformed",
    role_unknown: "request-malformed",
    token_for_another_audience: "token-audience-mismatch",
    token_of_another_issuer: "token-issuer-mismatch",
    token_expired: "token-expired",
    token_from_the_future: "token-not-yet-valid",
    token_of_an_unknown_key: "token-key-unknown",
    token_changed: "token-signature-invalid",
    token_of_prose: "token-invalid",
    token_without_its_session: "token-expired",
    release_without_a_grant: "grant-missing",
    release_for_a_changed_program: "grant-workload-mismatch",
    release_after_the_grant_ended: "grant-expired",
    release_before_the_grant_begins: "grant-not-yet-valid",
}


@pytest.mark.parametrize(("case", "code"), CASES.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_refused_for_its_own_reason(world: World, case: Callable[[World], None], code: str) -> None:
    with pytest.raises(CasemateError) as caught:
        case(world)
    assert caught.value.code == code, caught.value


def test_without_a_fault_the_key_is_released(world: World) -> None:
    """Otherwise every case above could pass for a reason of its own."""
    world.give()
    release(world)
    read(world, earned(world))
