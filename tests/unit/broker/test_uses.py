"""Counting releases: per job, and a second driver under the same job id counts again."""

from __future__ import annotations

from casemate.broker.uses import EXECUTORS, count_releases, is_counted, opener_of
from casemate.model import Role

A, B = "a" * 43, "b" * 43


def test_all_members_of_a_job_share_one_release() -> None:
    openers = frozenset({("job", A), ("job", EXECUTORS)})
    assert count_releases(openers) == 1
    assert is_counted(openers, "job", EXECUTORS)
    assert is_counted(openers, "job", A)


def test_executors_that_come_first_open_the_job_for_its_driver() -> None:
    openers = frozenset({("job", EXECUTORS)})
    assert count_releases(openers) == 1
    assert is_counted(openers, "job", A)


def test_a_second_driver_under_the_same_job_id_is_a_release_of_its_own() -> None:
    openers = frozenset({("job", A)})
    assert not is_counted(openers, "job", B)
    assert count_releases({*openers, ("job", B)}) == 2


def test_another_job_counts() -> None:
    assert not is_counted(frozenset({("job", A)}), "other", EXECUTORS)
    assert count_releases({("job", A), ("other", A)}) == 2
    assert count_releases(()) == 0


def test_only_executors_share_an_opener() -> None:
    assert opener_of(Role.EXECUTOR, A) == EXECUTORS
    assert {opener_of(role, A) for role in (Role.DRIVER, Role.TASK)} == {A}
