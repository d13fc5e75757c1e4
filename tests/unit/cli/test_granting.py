"""Grants out of a command line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from casemate.attestation.policy import AppraisalPolicy
from casemate.broker.grants import parse_grant
from casemate.cli.granting import Terms, by_owner, make_grant, parse_duration, parse_time, recipients_of, sentence
from casemate.errors import UsageError
from casemate.model import Access, DatasetName

PATIENTS, REPORT, LAB = (DatasetName.parse(n) for n in ("hospital/patients", "hospital/report", "lab/samples"))
POLICY_YAML = "version: 1\nname: test\nplatforms: [tdx]\n"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", timedelta(seconds=90)),
        ("30m", timedelta(minutes=30)),
        ("1h", timedelta(hours=1)),
        ("2d", timedelta(days=2)),
    ],
)
def test_durations_have_a_unit(text: str, expected: timedelta) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize("text", ["", "1", "h", "0h", "-1h", "1.5h", "1w", "1h30m", "9999999h"])
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="30m"):
        parse_duration(text)


def test_times_without_offset_are_utc() -> None:
    assert parse_time("2026-01-01T00:00", "--from") == NOW
    with pytest.raises(UsageError, match="--from"):
        parse_time("tomorrow", "--from")


def test_each_owner_grants_their_own_datasets_and_names_all_outputs() -> None:
    datasets = {PATIENTS: Access.READ, LAB: Access.READ, REPORT: Access.WRITE}
    assert by_owner(datasets) == {"hospital": {PATIENTS: Access.READ, REPORT: Access.WRITE}, "lab": {LAB: Access.READ}}
    assert recipients_of(datasets) == ("hospital/report",)


def test_a_grant_is_one_that_a_broker_takes_and_says_what_it_says() -> None:
    policy = AppraisalPolicy.from_yaml(POLICY_YAML)
    terms = Terms(
        ("ab" * 48,),
        policy,
        POLICY_YAML,
        NOW,
        NOW + timedelta(hours=1),
        recipients=("hospital/report",),
        max_releases=1,
    )
    grant = make_grant("hospital", {PATIENTS: Access.READ, REPORT: Access.WRITE}, terms)
    assert parse_grant(grant.to_json()) == grant
    assert sentence(grant) == (
        "read hospital/patients, write hospital/report; outputs to hospital/report; 1 job(s) "
        "until 2026-01-01 01:00 UTC; policy test"
    )
    assert make_grant("hospital", {PATIENTS: Access.READ}, terms).id != grant.id
