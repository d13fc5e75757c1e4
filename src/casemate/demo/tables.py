"""Compare what two runs of a program wrote: the same tables with the same rows, in whatever order and file layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["differences", "read_tables"]

Row = tuple[Any, ...]


def _rows(path: Path) -> list[Row]:
    import pyarrow.csv
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path) if path.suffix == ".parquet" else pyarrow.csv.read_csv(path)
    return [tuple(row.items()) for row in table.to_pylist()]


def read_tables(root: Path) -> dict[str, list[Row]]:
    """Directory (relative to ``root``) -> sorted rows of the Parquet and CSV files in it."""
    tables: dict[str, list[Row]] = {}
    for path in sorted(root.rglob("*")):
        if path.suffix in (".parquet", ".csv") and path.is_file():
            tables.setdefault(str(path.parent.relative_to(root)), []).extend(_rows(path))
    return {name: sorted(rows, key=repr) for name, rows in tables.items()}


def differences(left: Path, right: Path) -> list[str]:
    """One line per table that differs; empty when both trees hold the same, non-empty tables."""
    a, b = read_tables(left), read_tables(right)
    lines = [f"{name}: only on one side" for name in sorted(a.keys() ^ b.keys())]
    lines += [
        f"{name}: {len(a[name])} and {len(b[name])} rows, not equal"
        for name in sorted(a.keys() & b.keys())
        if a[name] != b[name]
    ]
    return lines if a else ["no table was written"]
