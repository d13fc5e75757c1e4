"""Which engine reads and writes which format in a zone, as code: tests run it, the documentation prints it.

Every writer makes the same three rows under a path; every reader gives back what it finds as sorted tuples. Python
engines go through ``ZoneFileSystem``, Spark through its own file systems.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["CELLS", "ENGINES", "FORMATS", "ROWS", "UNTESTED", "Cell", "Engines"]

ROWS = [(1, "Ada"), (2, "Zoë ü"), (3, 'Grace, "quoted"')]
Rows = list[tuple[int, str]]


@dataclass(frozen=True)
class Engines:
    """What the functions below work with: the zone's file system, and a Spark session (``None`` without)."""

    files: Any
    spark: Any = None


@dataclass(frozen=True)
class Cell:
    """One engine and one format. ``None`` where the engine itself does not know the format."""

    write: Callable[[Engines, str], None] | None
    read: Callable[[Engines, str], Rows] | None


ENGINES = ("spark", "pandas", "polars", "duckdb", "pyarrow", "pytorch")
FORMATS = ("csv", "json", "parquet", "orc", "arrow", "text", "xml")

UNTESTED = {
    "Avro": "Spark's module for it is a package of its own",
    "Delta Lake": "its jars are packages of their own",
    "Apache Iceberg": "its jars are packages of their own",
}
"""Formats that go through the same file system, and no test has run."""


def _rows(pairs: Any) -> Rows:
    return sorted((int(number), str(name)) for number, name in pairs)


def _paths(engines: Engines, path: str) -> list[str]:
    """The data files at a path: the file itself, or what a directory holds."""
    found = engines.files.find(path)
    return sorted(name for name in found if not name.rpartition("/")[2].startswith(("_", ".")))


def _frames(engines: Engines, path: str, read: Callable[[Any], Any]) -> Rows:
    rows: Rows = []
    for name in _paths(engines, path):
        with engines.files.open(name, "rb") as file:
            frame = read(file)
        if len(frame):
            rows += _rows(zip(frame["id"], frame["name"], strict=True))
    return sorted(rows)


# Spark


def _spark_write(kind: str, **options: Any) -> Callable[[Engines, str], None]:
    def write(engines: Engines, path: str) -> None:
        frame = engines.spark.createDataFrame(ROWS, "id int, name string")
        if kind == "text":
            frame = frame.selectExpr("concat(id, '\\t', name) as value")
        frame.coalesce(1).write.format(kind).options(**options).save(path)

    return write


def _spark_read(kind: str, **options: Any) -> Callable[[Engines, str], Rows]:
    def read(engines: Engines, path: str) -> Rows:
        reader = engines.spark.read.format(kind).options(**options)
        if kind == "text":
            return _rows(row.value.split("\t") for row in reader.load(path).collect())
        if kind in ("csv", "json", "xml"):
            reader = reader.schema("id int, name string")
        return _rows((row.id, row.name) for row in reader.load(path).select("id", "name").toDF("id", "name").collect())

    return read


# pandas


def _pandas_frame() -> Any:
    import pandas as pd

    return pd.DataFrame(ROWS, columns=["id", "name"])


def _pandas_write(method: str, **options: Any) -> Callable[[Engines, str], None]:
    def write(engines: Engines, path: str) -> None:
        with engines.files.open(path, "wb") as file:
            getattr(_pandas_frame(), method)(file, **options)

    return write


def _pandas_read(function: str, **options: Any) -> Callable[[Engines, str], Rows]:
    def read(engines: Engines, path: str) -> Rows:
        import pandas as pd

        return _frames(engines, path, lambda file: getattr(pd, function)(file, **options))

    return read


# Polars


def _polars_write(method: str) -> Callable[[Engines, str], None]:
    def write(engines: Engines, path: str) -> None:
        import polars as pl

        with engines.files.open(path, "wb") as file:
            getattr(pl.DataFrame(ROWS, schema=["id", "name"], orient="row"), method)(file)

    return write


def _polars_read(function: str) -> Callable[[Engines, str], Rows]:
    def read(engines: Engines, path: str) -> Rows:
        import polars as pl

        return _frames(engines, path, lambda file: getattr(pl, function)(file.read() if "json" in function else file))

    return read


# DuckDB


def _duckdb(engines: Engines) -> Any:
    import duckdb

    connection = duckdb.connect(config={"autoinstall_known_extensions": False})
    connection.register_filesystem(engines.files)
    return connection


def _duckdb_write(options: str) -> Callable[[Engines, str], None]:
    def write(engines: Engines, path: str) -> None:
        values = ", ".join(["(?, ?)"] * len(ROWS))
        parameters = [value for row in ROWS for value in row]
        with _duckdb(engines) as connection:
            connection.execute("create table t (id integer, name varchar)")
            connection.execute(f"insert into t values {values}", parameters)  # noqa: S608
            connection.execute(f"copy t to 'zone://{path}' ({options})")

    return write


def _duckdb_read(function: str) -> Callable[[Engines, str], Rows]:
    def read(engines: Engines, path: str) -> Rows:
        names = ", ".join(f"'zone://{name}'" for name in _paths(engines, path))
        with _duckdb(engines) as connection:
            found = connection.execute(f"select id, name from {function}([{names}])")  # noqa: S608
            return _rows(found.fetchall())

    return read


# PyArrow


def _arrow_table() -> Any:
    import pyarrow as pa

    return pa.table({"id": pa.array([row[0] for row in ROWS], pa.int32()), "name": [row[1] for row in ROWS]})


def _arrow_write(kind: str) -> Callable[[Engines, str], None]:
    def write(engines: Engines, path: str) -> None:
        import pyarrow.dataset as ds

        if kind == "orc":
            import pyarrow.orc as orc

            with engines.files.open(path, "wb") as file:
                orc.write_table(_arrow_table(), file)
        else:
            ds.write_dataset(_arrow_table(), path, filesystem=engines.files, format=kind)

    return write


def _arrow_read(kind: str) -> Callable[[Engines, str], Rows]:
    def read(engines: Engines, path: str) -> Rows:
        import pyarrow.dataset as ds

        names = _paths(engines, path)
        table = ds.dataset(names, filesystem=engines.files, format=kind).to_table(columns=["id", "name"])
        return _rows(zip(*(table[name].to_pylist() for name in ("id", "name")), strict=True))

    return read


# PyTorch


def _torch_lines(parse: Callable[[str], tuple[Any, Any]], *, header: bool) -> Callable[[Engines, str], Rows]:
    def read(engines: Engines, path: str) -> Rows:
        from torch.utils.data import DataLoader

        from casemate.data.torch_datasets import ZoneLines

        lines = ZoneLines(_paths(engines, path), parse, skip_first=header, files=engines.files)
        return _rows(DataLoader(lines, batch_size=None))

    return read


def _torch_parquet(engines: Engines, path: str) -> Rows:
    from torch.utils.data import DataLoader

    from casemate.data.torch_datasets import ZoneRows

    batches = DataLoader(ZoneRows(_paths(engines, path), files=engines.files), batch_size=None)
    return _rows(pair for batch in batches for pair in zip(batch["id"].tolist(), batch["name"], strict=True))


def _csv_line(line: str) -> tuple[Any, Any]:
    import csv

    number, name = next(csv.reader([line]))
    return number, name


def _json_line(line: str) -> tuple[Any, Any]:
    value = json.loads(line)
    return value["id"], value["name"]


def _text_line(line: str) -> tuple[str, str]:
    number, _, name = line.partition("\t")
    return number, name


def _text_write(engines: Engines, path: str) -> None:
    with engines.files.open(path, "w", encoding="utf-8") as file:
        file.writelines(f"{number}\t{name}\n" for number, name in ROWS)


def _text_read(engines: Engines, path: str) -> Rows:
    rows: list[tuple[str, str]] = []
    for name in _paths(engines, path):
        with engines.files.open(name, "r", encoding="utf-8") as file:
            rows += [_text_line(line.rstrip("\n")) for line in file]
    return _rows(rows)


CELLS: dict[tuple[str, str], Cell] = {
    ("spark", "csv"): Cell(_spark_write("csv", header=True, escape='"'), _spark_read("csv", header=True, escape='"')),
    ("spark", "json"): Cell(_spark_write("json"), _spark_read("json")),
    ("spark", "parquet"): Cell(_spark_write("parquet"), _spark_read("parquet")),
    ("spark", "orc"): Cell(_spark_write("orc"), _spark_read("orc")),
    ("spark", "text"): Cell(_spark_write("text"), _spark_read("text")),
    ("spark", "xml"): Cell(_spark_write("xml", rowTag="row"), _spark_read("xml", rowTag="row")),
    ("pandas", "csv"): Cell(_pandas_write("to_csv", index=False), _pandas_read("read_csv")),
    ("pandas", "json"): Cell(
        _pandas_write("to_json", orient="records", lines=True), _pandas_read("read_json", lines=True)
    ),
    ("pandas", "parquet"): Cell(_pandas_write("to_parquet", index=False), _pandas_read("read_parquet")),
    ("pandas", "orc"): Cell(_pandas_write("to_orc", index=False), _pandas_read("read_orc")),
    ("pandas", "arrow"): Cell(_pandas_write("to_feather"), _pandas_read("read_feather")),
    ("pandas", "text"): Cell(_text_write, _text_read),
    ("polars", "csv"): Cell(_polars_write("write_csv"), _polars_read("read_csv")),
    ("polars", "json"): Cell(_polars_write("write_ndjson"), _polars_read("read_ndjson")),
    ("polars", "parquet"): Cell(_polars_write("write_parquet"), _polars_read("read_parquet")),
    ("polars", "arrow"): Cell(_polars_write("write_ipc"), _polars_read("read_ipc")),
    ("duckdb", "csv"): Cell(_duckdb_write("format csv, header"), _duckdb_read("read_csv")),
    ("duckdb", "json"): Cell(_duckdb_write("format json"), _duckdb_read("read_json")),
    ("duckdb", "parquet"): Cell(_duckdb_write("format parquet"), _duckdb_read("read_parquet")),
    ("pyarrow", "csv"): Cell(_arrow_write("csv"), _arrow_read("csv")),
    ("pyarrow", "json"): Cell(None, _arrow_read("json")),
    ("pyarrow", "parquet"): Cell(_arrow_write("parquet"), _arrow_read("parquet")),
    ("pyarrow", "orc"): Cell(_arrow_write("orc"), _arrow_read("orc")),
    ("pyarrow", "arrow"): Cell(_arrow_write("ipc"), _arrow_read("ipc")),
    ("pytorch", "csv"): Cell(None, _torch_lines(_csv_line, header=True)),
    ("pytorch", "json"): Cell(None, _torch_lines(_json_line, header=False)),
    ("pytorch", "parquet"): Cell(None, _torch_parquet),
    ("pytorch", "text"): Cell(None, _torch_lines(_text_line, header=False)),
}
