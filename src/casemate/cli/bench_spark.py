"""``casemate bench tpcds`` and ``bench scan``: what protection costs a Spark program, and that it changes nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from casemate.cli.app import FormatOption, epilog
from casemate.cli.output import Format, Output
from casemate.errors import UsageError

__all__ = ["SCAN_EPILOG", "TPCDS_EPILOG", "scan", "tpcds"]

TPCDS_EPILOG = epilog(
    "casemate bench tpcds --scale 1 --out build/tpcds --format json > tpcds.json",
    "casemate bench tpcds --scale 0.01 --queries 1,3,10-19 --setups plain,zone --local --out build/small",
    exits={1: "an answer was wrong, or something failed"},
)
SCAN_EPILOG = epilog(
    "casemate bench scan --size 2g --out build/scan --format json > scan.json",
    "casemate bench scan --size 64m --formats csv,parquet --repeats 1",
    exits={1: "tasks, splits or blocks differ, or something failed"},
)
_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}


def tpcds(
    scale: Annotated[float, typer.Option("--scale", min=0.001, help="Size of the data: GB of text.")] = 1.0,
    queries: Annotated[
        str, typer.Option("--queries", metavar="LIST", help="Numbers and ranges of queries: `1,5,20-29`.")
    ] = "1-99",
    setups: Annotated[
        str, typer.Option("--setups", metavar="LIST", help="Some of plain, zone, parquet_encryption, full.")
    ] = "plain,zone,parquet_encryption,full",
    repeats: Annotated[int, typer.Option("--repeats", min=1, max=100, help="Measured runs of each query.")] = 1,
    warm_each: Annotated[
        bool,
        typer.Option("--warm-each", help="Run each query once unmeasured before, so that compiling it is left out."),
    ] = False,
    local: Annotated[
        bool,
        typer.Option(
            "--local", help="One JVM for each set-up, no cluster: starts quickly, but leaves TLS nothing to do."
        ),
    ] = False,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Data and figures; a run that was stopped goes on from there.")
    ] = Path("build/tpcds"),
    format: FormatOption = Format.TEXT,
) -> None:
    """Run the TPC-DS queries by Spark on plain and protected data in turn, and check every answer against DuckDB's.

    plain: Parquet as it is. zone: in an encrypted zone. parquet_encryption: Parquet Modular Encryption. full: a job of
    `casemate submit` in SIMULATED TEEs, with zone, TLS between all processes and encrypted shuffle and spill."""
    from casemate.bench.plots import plot_tpcds
    from casemate.bench.tpcds import Plan, run

    output = Output(format)
    plan = Plan(scale, numbers(queries), tuple(filter(None, setups.split(","))), repeats, local, warm_each)
    result = run(plan, out, output.say)
    value = result.to_json()
    _finish(output, value, out / "tpcds.json", plot_tpcds(value, out))
    output.data(value, result.text)
    if result.wrong:
        raise typer.Exit(1)


def scan(
    size: Annotated[
        str, typer.Option("--size", metavar="SIZE", help="Of the one file of each format: `256m`, `2g`.")
    ] = "256m",
    formats: Annotated[
        str, typer.Option("--formats", metavar="LIST", help="Some of csv, json, text, parquet, orc.")
    ] = "csv,json,text,parquet,orc",
    repeats: Annotated[int, typer.Option("--repeats", min=1, max=100, help="Measured runs, after one unmeasured.")] = 3,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Files and figures.")] = Path("build/scan"),
    format: FormatOption = Format.TEXT,
) -> None:
    """Scan and write every format by Spark, plain and in an encrypted zone in turn; compare tasks, splits and blocks.

    A scan reads every value of one file of the given size; a quarter of that is written. The zone's side is a job in a
    SIMULATED TEE."""
    from casemate.bench.plots import plot_scan
    from casemate.bench.scan import Plan, run

    output = Output(format)
    result = run(Plan(size_bytes(size), tuple(filter(None, formats.split(","))), repeats), out, output.say)
    value = result.to_json()
    _finish(output, value, out / "scan.json", plot_scan(value, out))
    output.data(value, result.text)
    if not result.same_layout:
        raise typer.Exit(1)


def numbers(text: str) -> tuple[int, ...]:
    """Sorted numbers of ``1,5,20-29``; raises ``UsageError``."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, dash, last = part.partition("-")
        try:
            found |= set(range(int(first), int(last if dash else first) + 1))
        except ValueError:
            raise UsageError(f"--queries {text!r}: need numbers and ranges, for example 1,5,20-29") from None
    return tuple(sorted(found))


def size_bytes(text: str) -> int:
    """Bytes of ``256m``; raises ``UsageError``."""
    match = re.fullmatch(r"([1-9][0-9]{0,12})([kmg]?)", text.lower())
    if match is None:
        raise UsageError(f"--size {text!r}: need a number and k, m or g, for example 2g")
    return int(match[1]) * _UNITS[match[2]]


def _finish(output: Output, value: dict[str, Any], path: Path, drawn: list[Path]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    output.say(f"written: {', '.join(str(item) for item in (path, *drawn))}")
