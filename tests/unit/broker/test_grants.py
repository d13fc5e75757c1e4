"""Grants: strict to read, bound to their owner's key, and every clause explained."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.broker.support import PATIENTS, START, digest, grant, manifest

from casemate.attestation.claims import WorkloadBinding
from casemate.broker.errors import GrantMalformedError
from casemate.broker.grants import GRANT_TYPE, GrantUse, Request, match, parse_grant, sign_grant, verify_grant
from casemate.crypto.errors import SignatureInvalidError
from casemate.crypto.jose import KeyPair, peek_jws_header
from casemate.model import Access

KEY = KeyPair.generate()


def request(**changes: Any) -> Request:
    base = Request(
        dataset=PATIENTS,
        access=Access.READ,
        workload=digest(manifest()),
        outputs=("hospital/report",),
        binding=WorkloadBinding.LAUNCH,
    )
    return replace(base, **changes)


def failed(given: Any, asked: Request | None = None, use: GrantUse | None = None) -> list[str]:
    return [c.code for c in match(given, asked or request(), use or GrantUse(), now=START) if not c.holds]


def test_a_grant_survives_signing_and_reading() -> None:
    given = grant(max_releases=3, workload_signers=("A" * 43,))
    assert verify_grant(sign_grant(given, KEY), KEY.public) == given


def test_a_grant_of_another_key_or_type_or_with_a_changed_letter_is_refused() -> None:
    jws = sign_grant(grant(), KEY)
    with pytest.raises(SignatureInvalidError):
        verify_grant(jws, KeyPair.generate().public)
    with pytest.raises(SignatureInvalidError):
        verify_grant(KEY.sign(grant().to_json(), typ="casemate-other+jws"), KEY.public)
    head, payload, signature = jws.split(".")
    for place in range(0, len(payload), 7):
        letter = "A" if payload[place] != "A" else "B"
        with pytest.raises(SignatureInvalidError):
            verify_grant(f"{head}.{payload[:place]}{letter}{payload[place + 1 :]}.{signature}", KEY.public)


BAD: list[tuple[str, Any]] = [
    ("version", 2),
    ("version", True),
    ("id", ""),
    ("id", "a/b"),
    ("id", "x" * 65),
    ("owner", 7),
    ("datasets", []),
    ("datasets", [{"name": "hospital/patients"}]),
    ("datasets", [{"name": "hospital/patients", "access": "all"}]),
    ("datasets", [{"name": "clinic/patients", "access": "read"}]),
    ("datasets", [{"name": "hospital/patients", "access": "read"}] * 2),
    ("datasets", [{"name": "hospital/../x/y", "access": "read"}]),
    ("workloads", ["12"]),
    ("workloads", ["A" * 96]),
    ("workloads", "a" * 96),
    ("workload_signers", ["short"]),
    ("policy", {"name": "p"}),
    ("policy", {"name": "p", "digest": "xyz"}),
    ("policy", None),
    ("not_before", "yesterday"),
    ("not_before", "2026-11-23T12:00:00"),
    ("not_after", 17),
    ("not_after", "2020-01-01T00:00:00+00:00"),
    ("max_releases", 0),
    ("max_releases", True),
    ("max_releases", 1.5),
    ("recipients", ["everybody"]),
    ("recipients", [None]),
    ("binding", "none"),
]


@pytest.mark.parametrize(("member", "value"), BAD, ids=[f"{m}={v!r}"[:40] for m, v in BAD])
def test_a_member_of_the_wrong_form_is_named(member: str, value: Any) -> None:
    with pytest.raises(GrantMalformedError, match=member.split("_")[0]):
        parse_grant({**grant().to_json(), member: value})


def test_an_unknown_member_and_a_missing_one_are_errors() -> None:
    value = grant().to_json()
    with pytest.raises(GrantMalformedError, match="note"):
        parse_grant({**value, "note": "hello"})
    for name in value:
        with pytest.raises(GrantMalformedError, match=name):
            parse_grant({key: item for key, item in value.items() if key != name})
    for other in (None, [], "grant", 7):
        with pytest.raises(GrantMalformedError):
            parse_grant(other)


def test_a_grant_to_no_workload_is_no_grant() -> None:
    with pytest.raises(GrantMalformedError, match="nobody"):
        sign_grant(grant(workloads=()), KEY)


def test_the_signed_document_is_one_type_of_its_own() -> None:
    header = peek_jws_header(sign_grant(grant(), KEY))
    assert (header["typ"], header["alg"]) == (GRANT_TYPE, "ES256")


def test_a_matching_request_holds_in_every_clause() -> None:
    clauses = match(grant(max_releases=1), request(), GrantUse(), now=START)
    assert all(c.holds for c in clauses)
    assert [c.clause for c in clauses] == [
        "workload",
        "access",
        "recipients",
        "binding",
        "not_before",
        "not_after",
        "revocation",
        "max_releases",
    ]


@pytest.mark.parametrize(
    ("code", "given", "asked", "use"),
    [
        ("grant-workload-mismatch", {}, {"workload": "0" * 96}, {}),
        ("grant-access-insufficient", {}, {"access": Access.READ_WRITE}, {}),
        ("grant-access-insufficient", {"datasets": {PATIENTS: Access.WRITE}}, {}, {}),
        ("grant-recipient-not-allowed", {"recipients": ()}, {}, {}),
        ("grant-recipient-not-allowed", {}, {"outputs": ("hospital/report", "clinic/other")}, {}),
        ("grant-recipient-not-allowed", {}, {"outputs": ("plaintext",)}, {}),
        ("grant-binding-insufficient", {}, {"binding": WorkloadBinding.AGENT}, {}),
        ("grant-binding-insufficient", {"binding": None}, {"binding": None}, {}),
        ("grant-not-yet-valid", {"not_before": START + timedelta(seconds=1)}, {}, {}),
        ("grant-expired", {"not_after": START}, {}, {}),
        ("grant-revoked", {}, {}, {"revoked_at": START}),
        ("grant-exhausted", {"max_releases": 2}, {}, {"releases": 2}),
    ],
)
def test_each_clause_fails_for_its_own_reason_alone(
    code: str, given: dict[str, Any], asked: dict[str, Any], use: dict[str, Any]
) -> None:
    assert failed(grant(**given), request(**asked), GrantUse(**use)) == [code]


def test_nothing_stops_at_the_first_failure() -> None:
    codes = failed(grant(not_after=START), request(workload="0" * 96), GrantUse(revoked_at=START))
    assert codes == ["grant-workload-mismatch", "grant-expired", "grant-revoked"]


def test_what_the_clauses_allow_beyond_the_plain_case() -> None:
    assert not failed(grant(binding=None), request(binding=WorkloadBinding.AGENT))
    assert not failed(grant(recipients=("*",)), request(outputs=("clinic/x", "plaintext")))
    assert not failed(grant(recipients=("plaintext",)), request(outputs=("plaintext",)))
    # A dataset may be written back into itself; whether it may is the access clause's business.
    both = grant(datasets={PATIENTS: Access.READ_WRITE}, recipients=())
    assert not failed(both, request(access=Access.READ_WRITE, outputs=(str(PATIENTS),)))
    # A workload that only writes leaks nothing of this dataset.
    only = grant(datasets={PATIENTS: Access.WRITE}, recipients=())
    assert not failed(only, request(access=Access.WRITE, outputs=("clinic/x",)))
    # A counted job goes on although the grant is used up.
    assert not failed(grant(max_releases=2), use=GrantUse(releases=2, counted=True))
    # A signer stands for a digest.
    assert not failed(grant(workload_signers=("A" * 43,)), request(workload="0" * 96, signers=frozenset({"A" * 43})))


def test_a_clause_says_both_sides_and_the_way_out() -> None:
    late = next(c for c in match(grant(not_after=START), request(), GrantUse(), now=START) if not c.holds)
    assert START.isoformat() in late.expected
    assert START.isoformat() in late.got
    assert "new grant" in late.fix
