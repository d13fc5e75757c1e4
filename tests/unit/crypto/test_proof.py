from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from casemate.crypto.errors import SignatureInvalidError
from casemate.crypto.jose import KeyPair
from casemate.crypto.proof import PROOF_LIFETIME, make_proof, verify_proof

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
URL = "https://127.0.0.1:7443/v1/datasets"


@pytest.fixture(scope="module")
def pair() -> KeyPair:
    return KeyPair.generate()


def test_a_proof_says_who_made_it(pair: KeyPair) -> None:
    proof = verify_proof(make_proof(pair, method="post", url=URL, now=NOW), method="POST", url=URL, now=NOW)
    assert (proof.thumbprint, proof.key) == (pair.thumbprint, pair.public)


def test_query_and_fragment_are_no_part_of_a_proof(pair: KeyPair) -> None:
    made = make_proof(pair, method="GET", url=URL + "?a=b#c", now=NOW)
    assert verify_proof(made, method="GET", url=URL + "?d", now=NOW)


def test_each_proof_has_an_id_of_its_own(pair: KeyPair) -> None:
    made = [make_proof(pair, method="GET", url=URL, now=NOW) for _ in range(3)]
    assert len({verify_proof(one, method="GET", url=URL, now=NOW).jti for one in made}) == 3


@pytest.mark.parametrize(
    "change",
    [
        {"method": "POST"},
        {"url": URL + "/x"},
        {"url": "https://evil.example/v1/datasets"},
        {"now": NOW + PROOF_LIFETIME + timedelta(seconds=1)},
        {"now": NOW - PROOF_LIFETIME - timedelta(seconds=1)},
        {"token": "other"},
        {"token": None},
    ],
    ids=str,
)
def test_a_proof_is_good_for_its_request_token_and_minute_alone(pair: KeyPair, change: dict[str, Any]) -> None:
    request: dict[str, Any] = {"method": "GET", "url": URL, "now": NOW, "token": "ear"}
    made = make_proof(pair, **request)
    verify_proof(made, **request)
    with pytest.raises(SignatureInvalidError):
        verify_proof(made, **{**request, **change})


def _signed(pair: KeyPair, claims: Any, *, typ: str = "dpop+jwt", header: dict[str, Any] | None = None) -> str:
    return pair.sign(claims, typ=typ, header={"jwk": pair.public} if header is None else header)


def _claims(**changes: Any) -> dict[str, Any]:
    return {"jti": "0123456789", "htm": "GET", "htu": URL, "iat": int(NOW.timestamp()), **changes}


@pytest.mark.parametrize(
    "claims",
    [
        [],
        "text",
        {},
        _claims(iat="now"),
        _claims(iat=None),
        _claims(iat=True),
        _claims(jti=""),
        _claims(jti=7),
        _claims(jti="x" * 129),
        _claims(htm=None),
        _claims(ath="something"),
    ],
    ids=repr,
)
def test_claims_of_the_wrong_form_are_refused(pair: KeyPair, claims: Any) -> None:
    with pytest.raises(SignatureInvalidError):
        verify_proof(_signed(pair, claims), method="GET", url=URL, now=NOW)


def test_a_proof_signed_by_another_key_than_it_names_is_refused(pair: KeyPair) -> None:
    made = _signed(pair, _claims(), header={"jwk": KeyPair.generate().public})
    with pytest.raises(SignatureInvalidError):
        verify_proof(made, method="GET", url=URL, now=NOW)


@pytest.mark.parametrize("header", [{}, {"jwk": "text"}, {"jwk": {}}, {"jwk": {"kty": "oct", "k": "AAAA"}}], ids=repr)
def test_a_proof_without_a_usable_public_key_is_refused(pair: KeyPair, header: dict[str, Any]) -> None:
    with pytest.raises(SignatureInvalidError):
        verify_proof(_signed(pair, _claims(), header=header), method="GET", url=URL, now=NOW)


def test_another_kind_of_signed_document_is_no_proof(pair: KeyPair) -> None:
    with pytest.raises(SignatureInvalidError):
        verify_proof(_signed(pair, _claims(), typ="casemate-grant+jws"), method="GET", url=URL, now=NOW)
    for text in ("", "x", "a.b.c"):
        with pytest.raises(SignatureInvalidError):
            verify_proof(text, method="GET", url=URL, now=NOW)


def test_no_clock_is_read() -> None:
    pair, then = KeyPair.generate(), datetime(1999, 1, 1, tzinfo=UTC)
    assert verify_proof(make_proof(pair, method="GET", url=URL, now=then), method="GET", url=URL, now=then)
