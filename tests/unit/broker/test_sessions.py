"""Challenge and attestation: single use, fresh, bound to challenge, key and manifest, and to one job."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.broker.support import START, Machine, World, digest, grant, manifest, text

from casemate.attestation.token_errors import TokenExpiredError, TokenInvalidError
from casemate.broker.errors import (
    ChallengeExpiredError,
    ChallengeUnknownError,
    JobWorkloadError,
    NotAttestedError,
    RequestMalformedError,
    WorkloadDigestError,
)
from casemate.broker.sessions import AttestRequest
from casemate.broker.workloads import sign_workload
from casemate.crypto.jose import KeyPair, open_jws
from casemate.crypto.jwk import b64decode, b64encode
from casemate.errors import CasemateError, RefusedError
from casemate.model import Role

KEY = KeyPair.generate()
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # FIPS 186-4 D.1.2.3


def refused(world: World, session: str | None, request: AttestRequest) -> CasemateError:
    """The refusal, which is in the audit log under the id the caller got."""
    with pytest.raises(RefusedError) as caught:
        world.broker.sessions.attest(session, request)
    entry = world.broker.audit.explain(world.admin, caught.value.refusal_id or "")
    assert entry["kind"] == "attest"
    assert entry["code"] == caught.value.code
    return caught.value


def test_evidence_over_the_challenge_earns_a_token_and_a_session(world: World) -> None:
    challenge = world.challenge()
    token = world.broker.sessions.attest(challenge.session, world.evidence(challenge, KEY, manifest()))
    by_token, by_cookie = world.broker.sessions.by_token(token), world.broker.sessions.by_cookie(challenge.session)
    assert by_token == by_cookie
    assert by_token.thumbprint == KEY.thumbprint
    assert by_token.attested.role is Role.DRIVER
    assert by_token.attested.workload is not None
    assert by_token.attested.workload.digest == digest(manifest())
    assert by_token.attested.claims.simulated
    assert [e["outcome"] for e in world.entries("attest")] == ["accepted"]


def test_a_replayed_attestation_is_refused(world: World) -> None:
    challenge = world.challenge()
    request = world.evidence(challenge, KEY, manifest())
    world.broker.sessions.attest(challenge.session, request)
    replay = refused(world, challenge.session, request)
    assert isinstance(replay, ChallengeUnknownError)
    assert world.broker.audit.explain(world.owner, replay.refusal_id or "")["owners"] == ["hospital"]


def test_recorded_evidence_does_not_answer_another_challenge(world: World) -> None:
    request = world.evidence(world.challenge(), KEY, manifest())
    other = world.challenge()
    assert isinstance(refused(world, other.session, request), ChallengeUnknownError)
    relabelled = replace(request, nonce=world.challenge().nonce)
    assert isinstance(refused(world, world.challenge().session, relabelled), ChallengeUnknownError)
    fresh = world.challenge()
    assert refused(world, fresh.session, replace(request, nonce=fresh.nonce)).code == "report-data-mismatch"


def test_a_stale_challenge_is_refused(world: World) -> None:
    challenge = world.challenge()
    request = world.evidence(challenge, KEY, manifest())
    world.clock.advance(minutes=5)
    assert isinstance(refused(world, challenge.session, request), ChallengeExpiredError)


def test_no_cookie_or_a_made_up_one_is_refused(world: World) -> None:
    request = world.evidence(world.challenge(), KEY, manifest())
    for session in (None, "", "made-up"):
        assert isinstance(refused(world, session, request), ChallengeUnknownError)


def test_a_failed_attestation_uses_the_challenge_up(world: World) -> None:
    challenge = world.challenge()
    good = world.evidence(challenge, KEY, manifest())
    refused(world, challenge.session, replace(good, tee_pubkey=KeyPair.generate().public))
    assert isinstance(refused(world, challenge.session, good), ChallengeUnknownError)


def with_quote(request: AttestRequest, quote: bytes) -> AttestRequest:
    return replace(request, primary_evidence={"quote": base64.b64encode(quote).decode()})


def test_a_swapped_key_is_refused(world: World) -> None:
    challenge = world.challenge()
    request = world.evidence(challenge, KEY, manifest())
    swapped = replace(request, tee_pubkey=KeyPair.generate().public)
    assert refused(world, challenge.session, swapped).code == "report-data-mismatch"


def test_additional_evidence_is_bound_as_well(world: World) -> None:
    challenge = world.challenge()
    request = replace(world.evidence(challenge, KEY, manifest()), additional_evidence="{}")
    assert refused(world, challenge.session, request).code == "report-data-mismatch"


def test_a_manifest_other_than_the_launched_one_is_refused(world: World) -> None:
    challenge = world.challenge()
    request = world.evidence(challenge, KEY, manifest(), launched=digest(manifest(arguments=[])))
    assert isinstance(refused(world, challenge.session, request), WorkloadDigestError)


def test_a_manifest_that_is_not_canonical_is_refused(world: World) -> None:
    challenge = world.challenge()
    request = replace(world.evidence(challenge, KEY, manifest()), init_body=text(manifest()) + " ")
    assert isinstance(refused(world, challenge.session, request), WorkloadDigestError)


def test_evidence_of_another_maker_is_refused(world: World) -> None:
    stranger = Machine(START)
    challenge = world.challenge()
    request = world.evidence(challenge, KEY, manifest())
    quote = stranger.quote(bytes(64), digest(manifest()))
    assert refused(world, challenge.session, with_quote(request, quote)).code == "untrusted-root"


@pytest.mark.parametrize("place", [0, 50, 200, 500, 640, 700])
def test_a_flipped_bit_in_the_quote_is_refused(world: World, place: int) -> None:
    challenge = world.challenge()
    request = world.evidence(challenge, KEY, manifest())
    quote = bytearray(base64.b64decode(request.primary_evidence["quote"]))
    quote[place] ^= 1
    error = refused(world, challenge.session, with_quote(request, bytes(quote)))
    assert error.code not in ("challenge-unknown", "workload-digest-mismatch")


@pytest.mark.parametrize("body", [{}, {"quote": 7}, {"quote": "%%%"}, {"quote": ""}, {"quote": "AAAA"}])
def test_evidence_that_is_no_quote_is_refused(world: World, body: dict[str, Any]) -> None:
    challenge = world.challenge()
    request = replace(world.evidence(challenge, KEY, manifest()), primary_evidence=body)
    assert refused(world, challenge.session, request).http_status == 400


def test_a_kind_of_evidence_without_an_anchor_is_refused(world: World) -> None:
    challenge = world.broker.sessions.challenge("0.4.0", "snp", {})
    request = world.evidence(challenge, KEY, manifest())
    assert refused(world, challenge.session, request).code == "evidence-kind-unknown"


def test_a_job_belongs_to_the_workload_that_began_it(world: World) -> None:
    world.attest("job-1")
    world.attest("job-1", "executor")
    other = manifest(arguments=["something else"])
    challenge = world.challenge("job-1")
    assert isinstance(refused(world, challenge.session, world.evidence(challenge, KEY, other)), JobWorkloadError)


def test_a_token_ends_after_five_minutes(world: World) -> None:
    challenge = world.challenge()
    token = world.broker.sessions.attest(challenge.session, world.evidence(challenge, KEY, manifest()))
    world.clock.advance(minutes=5)
    for ask in (
        lambda: world.broker.sessions.by_token(token),
        lambda: world.broker.sessions.by_cookie(challenge.session),
    ):
        with pytest.raises(TokenExpiredError):
            ask()


def test_a_token_of_another_signer_or_a_changed_one_is_refused(world: World, tmp_path: Any) -> None:
    (tmp_path / "other").mkdir()
    other = World(tmp_path / "other", world.machine)
    challenge = other.challenge()
    foreign = other.broker.sessions.attest(challenge.session, other.evidence(challenge, KEY, manifest()))
    other.broker.close()
    for token in (foreign, foreign[:-4] + "AAAA", "", "a.b.c"):
        with pytest.raises(TokenInvalidError):
            world.broker.sessions.by_token(token)


def test_a_session_that_never_attested_is_none(world: World) -> None:
    with pytest.raises(NotAttestedError):
        world.broker.sessions.by_cookie(world.challenge().session)
    with pytest.raises(NotAttestedError):
        world.broker.sessions.by_cookie("made-up")


def test_asking_for_a_challenge_stores_nothing(world: World) -> None:
    size = world.broker.audit.checkpoint().size
    with world.broker.context.repository.writing():  # nobody else can write meanwhile
        assert len({world.challenge().session for _ in range(3)}) == 3
    assert world.broker.audit.checkpoint().size == size


def test_a_challenge_that_another_broker_or_nobody_signed_is_unknown(world: World) -> None:
    challenge = world.challenge()
    request = world.evidence(challenge, KEY, manifest())
    head, body, signature = challenge.session.split(".")
    said = json.loads(base64.urlsafe_b64decode(body + "=="))
    later = base64.urlsafe_b64encode(json.dumps({**said, "expires": "2099-01-01T00:00:00+00:00"}).encode())
    tokens = [
        KeyPair.generate().sign(said, typ="casemate-challenge+jws"),
        world.broker.context.token_key.sign(said, typ="eat+jwt"),
        f"{head}.{later.decode().rstrip('=')}.{signature}",
        f"{head}.{body}.",
        "made-up",
    ]
    for session in tokens:
        assert isinstance(refused(world, session, request), ChallengeUnknownError)
    world.broker.sessions.attest(challenge.session, request)  # none of them used it up


def test_the_other_spelling_of_a_signature_is_the_same_challenge(world: World) -> None:
    challenge = world.challenge()
    request = world.evidence(challenge, KEY, manifest())
    world.broker.sessions.attest(challenge.session, request)
    signed, _, signature = challenge.session.rpartition(".")
    raw = b64decode(signature)
    other = P256_ORDER - int.from_bytes(raw[32:], "big")
    twin = f"{signed}.{b64encode(raw[:32] + other.to_bytes(32, 'big'))}"
    assert (
        open_jws(twin, world.broker.context.token_key.public, typ="casemate-challenge+jws")["nonce"] == challenge.nonce
    )
    error = refused(world, twin, request)
    assert isinstance(error, ChallengeUnknownError)
    assert "used already" in error.message


def test_sessions_are_forgotten_an_hour_after_their_end(world: World) -> None:
    member = world.attest()
    world.clock.advance(hours=2)
    world.attest(job="job-2")
    with world.broker.context.repository.reading() as reader:
        assert reader.session_by_token(member.token_id) is None


def test_a_guest_that_says_no_job_is_a_task_of_its_own(world: World) -> None:
    jobs = set()
    for extra in (None, {}, "", {"selected-hash-algorithm": "sha384"}):
        challenge = world.broker.sessions.challenge("0.4.0", "tdx", extra)
        token = world.broker.sessions.attest(challenge.session, world.evidence(challenge, KEY, manifest()))
        member = world.broker.sessions.by_token(token)
        assert member.attested.role is Role.TASK
        jobs.add(member.job)
    assert len(jobs) == 4


@pytest.mark.parametrize(
    "own",
    [
        {"job": "a"},
        {"role": "driver"},
        {"job": "", "role": "driver"},
        {"job": "a/b", "role": "driver"},
        {"job": "a", "role": "king"},
        {"job": "guest-1", "role": "driver"},
        {"job": 1, "role": "driver"},
        [],
    ],
)
def test_a_job_or_role_of_the_wrong_form_is_refused(world: World, own: Any) -> None:
    with pytest.raises(RequestMalformedError):
        world.broker.sessions.challenge("0.4.0", "tdx", {"casemate": own})


def test_another_protocol_version_is_refused(world: World) -> None:
    for version in ("0.3.0", "0.4.1", "1", ""):
        with pytest.raises(RequestMalformedError):
            world.broker.sessions.challenge(version, "tdx", {})


def test_a_signed_workload_is_known_by_its_signer(world: World) -> None:
    signer = KeyPair.generate()
    member = world.attest(signatures=(sign_workload(digest(manifest()), signer),))
    assert member.attested.signers == {signer.thumbprint}
    world.give(grant(workloads=(), workload_signers=(signer.thumbprint,)))
    assert world.broker.releases.release_key(member, next(iter(grant().datasets)), None)


def test_expired_collateral_leaves_it_undecided_and_uses_the_challenge_up(world: World) -> None:
    world.clock.advance(days=60)
    challenge = world.challenge()
    with pytest.raises(CasemateError) as caught:
        world.broker.sessions.attest(challenge.session, world.evidence(challenge, KEY, manifest()))
    assert caught.value.exit_status == 3
    assert world.entries("attest")[-1]["outcome"] == "undecided"
    assert START + timedelta(days=60) == world.clock()
