from __future__ import annotations

import pytest

from casemate.attestation.binding import carries_digest, check_report_data, device_report_data, report_data
from casemate.attestation.errors import ReportDataMismatchError
from casemate.crypto.jose import KeyPair

KEY = KeyPair.generate().public
DIGEST = "ab" * 48


def test_report_data_is_sha384_padded_to_64_bytes() -> None:
    data = report_data("bm9uY2U", KEY)
    assert len(data) == 64
    assert data[48:] == bytes(16)


def test_report_data_does_not_depend_on_the_order_of_the_key_members() -> None:
    assert report_data("n", dict(reversed(KEY.items()))) == report_data("n", KEY)


def test_report_data_is_the_published_digest_of_its_canonical_json() -> None:
    import hashlib
    import json

    text = json.dumps({"additional-evidence": "", "nonce": "n", "tee-pubkey": {"kty": "EC"}}, separators=(",", ":"))
    assert report_data("n", {"kty": "EC"})[:48] == hashlib.sha384(text.encode()).digest()


@pytest.mark.parametrize(
    "other",
    [report_data("m", KEY), report_data("n", KeyPair.generate().public), report_data("n", KEY, "{}")],
    ids=["challenge", "key", "additional-evidence"],
)
def test_challenge_key_and_additional_evidence_are_each_bound(other: bytes) -> None:
    with pytest.raises(ReportDataMismatchError, match="expected"):
        check_report_data(other.hex(), report_data("n", KEY))


def test_missing_or_cut_report_data_is_refused() -> None:
    expected = report_data("n", KEY)
    for claimed in (None, "", expected.hex()[:96], expected.hex().upper()):
        with pytest.raises(ReportDataMismatchError):
            check_report_data(claimed, expected)
    check_report_data(expected.hex(), expected)


def test_a_device_binds_without_additional_evidence() -> None:
    assert device_report_data("n", KEY) != report_data("n", KEY)


@pytest.mark.parametrize("field", [DIGEST, DIGEST + "00" * 16, DIGEST[:64]])
def test_a_digest_is_carried_whole_padded_or_cut(field: str) -> None:
    assert carries_digest(field, DIGEST)


@pytest.mark.parametrize(
    "field", [None, "", "00" * 48, DIGEST[:62], DIGEST[:-1] + "c", DIGEST + "01" + "00" * 15, "ab" * 31 + "ac" * 17]
)
def test_a_digest_is_not_carried_by_anything_else(field: str | None) -> None:
    assert not carries_digest(field, DIGEST)


def test_a_short_digest_is_never_carried() -> None:
    assert not carries_digest("ab" * 48, "ab")
    assert not carries_digest("ab" * 48, "")
