"""One big file of each format, made quickly: blocks of random rows, written again and again."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from casemate.bench.scan_work import FORMATS

__all__ = ["make"]

_ROWS = 100_000  # of one block; a block of text is about 9 MB


def make(directory: Path, size_bytes: int, progress: Callable[[str], None] = lambda line: None) -> None:
    """Write ``directory/FORMAT/rows.FORMAT`` of about ``size_bytes`` each; what is there already stays."""
    rows = _rows()
    for kind in FORMATS:
        target = directory / kind / f"rows.{kind}"
        if target.exists():
            continue
        progress(f"writing {size_bytes / 2**20:.0f} MiB of {kind}")
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(".draft")
        if kind in ("parquet", "orc"):
            _columnar(draft, kind, rows, size_bytes)
        else:
            _lines(draft, kind, rows, size_bytes)
        draft.replace(target)


def _rows() -> list[tuple[int, float, str, str]]:
    source = random.Random(20)  # noqa: S311 - made-up rows
    return [
        (
            number,
            round(source.uniform(0, 1000), 4),
            f"{source.getrandbits(48):012x}",
            f"note {source.getrandbits(160):040x}",
        )
        for number in range(_ROWS)
    ]


def _lines(path: Path, kind: str, rows: list[tuple[int, float, str, str]], size_bytes: int) -> None:
    names = ("id", "amount", "code", "note")
    if kind == "json":
        block = "".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows)
    else:
        block = "".join(",".join(map(str, row)) + "\n" for row in rows)
    data = block.encode()
    lines = data.splitlines(keepends=True)
    with path.open("wb") as file:
        written = 0
        while written + len(data) <= size_bytes:
            written += file.write(data)
        for line in lines:
            if written >= size_bytes:
                break
            written += file.write(line)


def _columnar(path: Path, kind: str, rows: list[tuple[int, float, str, str]], size_bytes: int) -> None:
    import pyarrow as pa

    identifiers, amounts, codes, notes = (list(column) for column in zip(*rows, strict=True))
    table = pa.table({"id": identifiers, "amount": amounts, "code": codes, "note": notes})
    with _writer(path, kind, table.schema) as writer:
        while path.stat().st_size < size_bytes:
            writer.write(table)


def _writer(path: Path, kind: str, schema: Any) -> Any:
    if kind == "orc":
        from pyarrow import orc

        return orc.ORCWriter(path, compression="snappy", stripe_size=16 << 20)
    import pyarrow.parquet as parquet

    return parquet.ParquetWriter(path, schema, compression="snappy", use_dictionary=False)
