"""Compare the rows of a query's answer with those of a reference. Pure functions."""

from __future__ import annotations

import datetime
import decimal
import math
from collections.abc import Sequence
from typing import Any

__all__ = ["Row", "cell", "difference", "same_row"]

Row = Sequence[Any]

RELATIVE, ABSOLUTE = 1e-6, 1e-5  # engines round averages and quotients of decimals at the sixth place or later
_SHOWN = 200  # characters of a row in a message


def difference(expected: Sequence[Row], got: Sequence[Row]) -> str | None:
    """Why ``got`` is another answer than ``expected``, None when it is the same.

    Rows are compared as a multiset, since SQL leaves the order of ties open; numbers within ``RELATIVE`` or
    ``ABSOLUTE``; everything else, NULL as well, exactly."""
    if len(expected) != len(got):
        return f"{len(got)} rows, expected {len(expected)}"
    left_expected, left_got = _unpaired(sorted(expected, key=_order), sorted(got, key=_order))
    for row in left_expected:  # what sorting could not pair: numbers that differ by rounding sort apart
        match = next((index for index, other in enumerate(left_got) if same_row(row, other)), None)
        if match is None:
            return f"no row like {str(list(row))[:_SHOWN]}; instead {str(list(left_got[0]))[:_SHOWN]}"
        del left_got[match]
    return None


def cell(value: Any) -> Any:
    """A value of a row as JSON can hold it: decimals as numbers, dates as text."""
    if isinstance(value, decimal.Decimal):
        return float(value)
    if isinstance(value, datetime.date):
        return value.isoformat()
    return value


def same_row(one: Row, other: Row) -> bool:
    """Whether two rows are equal within the tolerance."""
    return len(one) == len(other) and all(_same(a, b) for a, b in zip(one, other, strict=True))


def _same(one: Any, other: Any) -> bool:
    if _is_number(one) and _is_number(other):
        return math.isclose(one, other, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    return type(one) is type(other) and bool(one == other)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _unpaired(expected: list[Row], got: list[Row]) -> tuple[list[Row], list[Row]]:
    pairs = [(a, b) for a, b in zip(expected, got, strict=True) if not same_row(a, b)]
    return [a for a, _ in pairs], [b for _, b in pairs]


def _order(row: Row) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Texts first: numbers may differ in their last places."""
    texts = tuple(f"{type(value).__name__}:{value}" for value in row if not _is_number(value))
    return texts, tuple(float(value) for value in row if _is_number(value))
