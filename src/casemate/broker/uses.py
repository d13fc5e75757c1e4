"""How the releases under a grant are counted. No I/O, no clock.

A release is the opening of a grant's datasets to one job; all members of the job share it. Since its submitter
chooses a job's id, a second driver (or task) under the same id, known by its other key, is a release of its own.
"""

from __future__ import annotations

from collections.abc import Iterable

from casemate.model import Role

__all__ = ["EXECUTORS", "count_releases", "is_counted", "opener_of"]

EXECUTORS = "executors"
"""The opener that all executors of a job share."""


def opener_of(role: Role, thumbprint: str) -> str:
    """Who opens: the key's thumbprint for a driver or task, one name for all executors."""
    return EXECUTORS if role is Role.EXECUTOR else thumbprint


def count_releases(openers: Iterable[tuple[str, str]]) -> int:
    """Releases among (job, opener) pairs: per job its drivers and tasks, or one when only executors opened it."""
    jobs: dict[str, int] = {}
    for job, opener in openers:
        jobs[job] = jobs.get(job, 0) + (opener != EXECUTORS)
    return sum(max(1, leaders) for leaders in jobs.values())


def is_counted(openers: frozenset[tuple[str, str]], job: str, opener: str) -> bool:
    """Whether this opener adds no release to those already counted."""
    return count_releases({*openers, (job, opener)}) == count_releases(openers)
