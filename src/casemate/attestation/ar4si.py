"""Trustworthiness tiers of AR4SI claims (draft-ietf-rats-ar4si section 2.3.2). Pure functions."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["AFFIRMING", "CONTRAINDICATED", "NONE", "WARNING", "status_of", "tier_of"]

NONE = "none"
AFFIRMING = "affirming"
WARNING = "warning"
CONTRAINDICATED = "contraindicated"


def tier_of(value: int) -> str:
    """The tier of one claim; what is outside a signed byte is contraindicated."""
    if not -128 <= value <= 127 or value >= 96 or value <= -97:
        return CONTRAINDICATED
    if -1 <= value <= 1:
        return NONE
    return AFFIRMING if -33 < value < 32 else WARNING


def status_of(values: Iterable[int]) -> str:
    """The status of a vector: its worst tier that asserts anything, ``none`` when nothing is asserted."""
    tiers = {tier_of(value) for value in values}
    return next((tier for tier in (CONTRAINDICATED, WARNING, AFFIRMING) if tier in tiers), NONE)
