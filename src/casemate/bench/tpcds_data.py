"""TPC-DS data, queries and reference answers by DuckDB, which generates them without any network.

The generator and the query texts are DuckDB's extension ``tpcds`` (PyPI ``duckdb-extension-tpcds``), which follows the
TPC's own tool kit. DuckDB answers every query itself; those answers are what Spark's are compared with.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from casemate.bench.answers import cell
from casemate.bench.errors import BenchUnavailableError

__all__ = ["DUCKDB", "TABLES", "Reference", "make", "spark_text"]

DUCKDB = "duckdb 1.5.5, duckdb-extension-tpcds 1.5.5"
_ROW_GROUP = 122_880  # rows; DuckDB's own unit, so that big tables have several row groups and split
# Spark's order of NULLs; without it ORDER BY … LIMIT 100 keeps other rows.
_NULL_ORDER = "SET default_null_order = 'nulls_first_on_asc_last_on_desc'"
_FILE = "part-0.parquet"
TABLES = (
    *("call_center", "catalog_page", "catalog_returns", "catalog_sales", "customer", "customer_address"),
    *("customer_demographics", "date_dim", "household_demographics", "income_band", "inventory", "item", "promotion"),
    *("reason", "ship_mode", "store", "store_returns", "store_sales", "time_dim", "warehouse", "web_page"),
    *("web_returns", "web_sales", "web_site"),
)


@dataclass(frozen=True)
class Reference:
    """The 99 queries as DuckDB words them, and DuckDB's answers, by the number of the query."""

    queries: dict[int, str]
    answers: dict[int, list[list[Any]]]

    @classmethod
    def load(cls, directory: Path) -> Reference:
        stored = json.loads((directory / "reference.json").read_text(encoding="utf-8"))
        return cls(*({int(number): value for number, value in stored[name].items()} for name in ("queries", "answers")))


def make(directory: Path, scale: float, progress: Callable[[str], None] = lambda line: None) -> Reference:
    """Write ``plain/TABLE/part-0.parquet`` and ``reference.json`` below ``directory``; done already, only load them.

    ``scale`` is in GB of the generator's text. Raises ``BenchUnavailableError`` without the extra ``bench``."""
    if (directory / "reference.json").is_file():
        return Reference.load(directory)
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    connection = _connect(directory / "generator.duckdb" if scale > 2 else None)
    try:
        progress(f"generating TPC-DS at scale {scale:g}")
        connection.execute(f"CALL dsdgen(sf = {scale!r})")
        for table in TABLES:
            _write_table(connection, table, directory / "plain" / table)
        progress("answering the 99 queries with DuckDB")
        connection.execute(_NULL_ORDER)
        queries = dict(connection.execute("SELECT query_nr, query FROM tpcds_queries()").fetchall())
        answers = {number: _answer(connection, text) for number, text in queries.items()}
    finally:
        connection.close()
        (directory / "generator.duckdb").unlink(missing_ok=True)
    stored = {"queries": queries, "answers": answers}
    draft = directory / ".reference.json"
    draft.write_text(json.dumps(stored), encoding="utf-8")
    draft.replace(directory / "reference.json")  # the last step: it says that everything is there
    return Reference(queries, answers)


def spark_text(query: str) -> str:
    """A query as Spark spells it: quoted names in backquotes, no semicolon. Nothing else differs."""
    return re.sub(r'"([^"]*)"', r"`\1`", query).strip().rstrip(";")


def _connect(path: Path | None) -> Any:
    extension = _extension()
    try:
        import duckdb
    except ImportError as exc:
        raise BenchUnavailableError("TPC-DS data needs duckdb: pip install 'casemate[bench]'") from exc
    connection = duckdb.connect(str(path or ":memory:"), config={"threads": os.cpu_count() or 1})
    connection.execute(f"LOAD '{extension}'")
    return connection


def _extension() -> Path:
    spec = importlib.util.find_spec("duckdb_extension_tpcds")
    places = spec.submodule_search_locations if spec is not None else None
    for place in places or ():
        for found in Path(place).glob("extensions/*/tpcds.duckdb_extension"):
            return found
    raise BenchUnavailableError("TPC-DS data needs duckdb-extension-tpcds: pip install 'casemate[bench]'")


def _write_table(connection: Any, table: str, directory: Path) -> None:
    import pyarrow.parquet as parquet

    directory.mkdir(parents=True)
    batches = connection.execute(f"SELECT * FROM {table}").to_arrow_reader(_ROW_GROUP)  # noqa: S608 - a name of ours
    with parquet.ParquetWriter(directory / _FILE, batches.schema, compression="snappy") as writer:
        for batch in batches:
            writer.write_batch(batch)


def _answer(connection: Any, text: str) -> list[list[Any]]:
    return [[cell(value) for value in row] for row in _rows(connection, text)]


def _rows(connection: Any, text: str) -> Sequence[Sequence[Any]]:
    rows: Sequence[Sequence[Any]] = connection.execute(text).fetchall()
    return rows
