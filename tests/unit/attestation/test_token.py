from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from jwcrypto import jwk, jws

from casemate.attestation import token, token_errors
from casemate.attestation.claims import Claims
from casemate.attestation.policy import default_policy
from casemate.crypto.canonical import canonical_json
from casemate.crypto.jose import KeyPair

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
BROKER, TEE = KeyPair.generate(), KeyPair.generate()
KEYS = token.jwks(BROKER.public)


def make(claims: Claims, *, signer: KeyPair = BROKER, **changes: Any) -> str:
    members: dict[str, Any] = {
        "token_id": "t-1",
        "issuer": "https://broker",
        "audience": "https://broker",
        "claims": claims,
        "appraisal": default_policy().appraise(claims, now=NOW),
        "tee_pubkey": TEE.public,
        "now": NOW,
        "nonce": "n",
        "workload": "ab" * 48,
        "job": "job-1",
        "role": "driver",
    }
    return token.issue(signer, **(members | changes))


def check(text: str, *, now: datetime = NOW, **changes: Any) -> token.AttestationResult:
    expected: dict[str, Any] = {"keys": KEYS, "issuer": "https://broker", "audience": "https://broker", "now": now}
    return token.verify(text, **(expected | changes))


def resigned(text: str, *, header: dict[str, Any] | None = None, **changes: Any) -> str:
    """The same token with changed members, signed again by the broker: what only a faulty issuer could make."""
    payload = json.loads(base64.urlsafe_b64decode(text.split(".")[1] + "=="))
    return BROKER.sign(payload | changes, typ="eat+jwt", header=header)


def test_a_token_tells_all_that_was_put_in(claims: Callable[..., Claims]) -> None:
    result = check(make(claims()))
    assert result.claims == claims()
    assert result.tee_pubkey == TEE.public
    assert result.key_thumbprint == TEE.thumbprint
    assert (result.id, result.job, result.role, result.workload) == ("t-1", "job-1", "driver", "ab" * 48)
    assert (result.policy_name, result.policy_digest) == ("strict-default", default_policy().digest)
    assert result.status == "affirming"
    assert result.expires - result.issued == timedelta(minutes=5)


def test_any_jose_library_verifies_it_with_the_key_set(claims: Callable[..., Claims]) -> None:
    text = make(claims())
    keys = jwk.JWKSet.from_json(json.dumps(KEYS))
    parsed = jws.JWS()
    parsed.deserialize(text)
    parsed.verify(keys.get_key(parsed.jose_header["kid"]), alg="ES256")
    payload = json.loads(parsed.payload)
    module = payload["submods"]["cpu0"]
    assert module["ear.status"] == "affirming"
    assert set(module["ear.trustworthiness-vector"].values()) == {2}
    assert module["ear.veraison.annotated-evidence"]["runtime_data_claims"]["tee-pubkey"] == TEE.public
    assert {"eat_profile", "iat", "exp", "ear.verifier-id"} <= set(payload)


@pytest.mark.parametrize(
    ("broken", "status"),
    [({"simulated": True}, "contraindicated"), ({"collateral_expires": NOW - timedelta(days=1)}, "none")],
)
def test_the_status_says_what_the_appraisal_said(
    claims: Callable[..., Claims], broken: dict[str, Any], status: str
) -> None:
    assert check(make(claims(**broken))).status == status


def test_an_expired_token_is_refused_at_its_very_end(claims: Callable[..., Claims]) -> None:
    text = make(claims())
    check(text, now=NOW + timedelta(seconds=299))
    with pytest.raises(token_errors.TokenExpiredError):
        check(text, now=NOW + timedelta(seconds=300))


def test_a_token_from_the_future_is_refused(claims: Callable[..., Claims]) -> None:
    with pytest.raises(token_errors.TokenNotYetValidError):
        check(make(claims()), now=NOW - timedelta(seconds=5))


def test_another_audience_or_issuer_is_refused(claims: Callable[..., Claims]) -> None:
    with pytest.raises(token_errors.TokenAudienceMismatchError):
        check(make(claims()), audience="https://other")
    with pytest.raises(token_errors.TokenIssuerMismatchError):
        check(make(claims()), issuer="https://other")


def test_a_token_of_another_signer_is_refused_though_it_names_its_key(claims: Callable[..., Claims]) -> None:
    with pytest.raises(token_errors.TokenKeyUnknownError):
        check(make(claims(), signer=KeyPair.generate()))


def test_each_changed_part_is_refused(claims: Callable[..., Claims]) -> None:
    text = make(claims())
    header, payload, signature = text.split(".")
    other_header, other_payload, other_signature = make(claims(), job="job-2").split(".")
    for forged in (
        f"{header}.{other_payload}.{signature}",
        f"{header}.{payload}.{other_signature}",
        f"{header}.{payload}.",
        f"{header}.{payload}.{signature[:-4]}AAAA",
    ):
        with pytest.raises(token_errors.TokenInvalidError):
            check(forged)
    assert header == other_header


def test_algorithm_none_and_hmac_with_the_public_key_are_refused(claims: Callable[..., Claims]) -> None:
    _, payload, _ = make(claims()).split(".")
    for alg in ("none", "HS256", "ES384"):
        header = canonical_json({"alg": alg, "typ": "eat+jwt", "kid": BROKER.thumbprint})
        forged = base64.urlsafe_b64encode(header).rstrip(b"=").decode() + f".{payload}.AAAA"
        with pytest.raises(token_errors.TokenInvalidError):
            check(forged)


def test_a_document_of_another_type_is_refused(claims: Callable[..., Claims]) -> None:
    grant = BROKER.sign({"eat_profile": token.PROFILE}, typ="casemate-grant+jws")
    with pytest.raises(token_errors.TokenSignatureError):
        check(grant)


@pytest.mark.parametrize(
    "changes",
    [
        {"eat_profile": "other"},
        {"submods": {}},
        {"submods": []},
        {"cnf": {"jwk": {"kty": "oct", "k": "AAAA"}}},
        {"cnf": None},
        {"casemate": None},
        {"exp": "soon"},
        {"iat": True},
        {"exp": 10**15},
        {"nbf": None},
    ],
)
def test_a_token_with_missing_or_odd_members_is_refused(claims: Callable[..., Claims], changes: dict[str, Any]) -> None:
    with pytest.raises(token_errors.TokenInvalidError):
        check(resigned(make(claims()), **changes))


@pytest.mark.parametrize("text", ["", "a.b.c", "....", "e30.e30.", "\0", "é.é.é", "x" * 300_000])
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(token_errors.TokenInvalidError):
        check(text)


@pytest.mark.parametrize("keys", [{}, {"keys": None}, {"keys": []}, {"keys": [1]}, {"keys": [{"kty": "EC"}]}])
def test_an_empty_or_odd_key_set_accepts_nothing(claims: Callable[..., Claims], keys: dict[str, Any]) -> None:
    with pytest.raises(token_errors.TokenInvalidError):
        check(make(claims()), keys=keys)


def test_the_key_set_has_no_private_member() -> None:
    assert all("d" not in key for key in KEYS["keys"])
    assert KEYS["keys"][0]["kid"] == BROKER.thumbprint
