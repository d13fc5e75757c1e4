"""``casemate bench``: measure what protection costs, and feed the verifiers spoiled evidence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from casemate.cli import bench_io, bench_spark
from casemate.cli.app import FormatOption, epilog, subcommand
from casemate.cli.output import Format, Output

__all__ = ["app"]

OutOption = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Also write the JSON here.")]

app = subcommand("Measure what protection costs, both sides in one run; feed the verifiers spoiled evidence.")


@app.callback()
def _group() -> None:
    """Measure what protection costs, both sides in one run; feed the verifiers spoiled evidence."""


@app.command(epilog=epilog("casemate bench startup", "casemate bench startup --repeats 5 --format json > startup.json"))
def startup(
    repeats: Annotated[int, typer.Option("--repeats", min=1, max=100, help="Runs of each side.")] = 5,
    out: OutOption = None,
    format: FormatOption = Format.TEXT,
) -> None:
    """Time an attested submit (SIMULATED TEE) against plain spark-submit of the same program, alternating."""
    from casemate.bench.startup import run

    output = Output(format)
    result = run(repeats=repeats, progress=output.say)
    value = result.to_json()
    _write(out, value)
    output.data(
        value,
        f"plain {result.plain_median:.2f} s, attested {result.attested_median:.2f} s (SIMULATED TEE): "
        f"extra {result.extra_seconds:.2f} s, aim {result.aim_seconds:.1f} s",
    )


@app.command(epilog=epilog("casemate bench attest", "casemate bench attest --rounds 1000 --format json > attest.json"))
def attest(
    rounds: Annotated[int, typer.Option("--rounds", min=10, max=100_000, help="Attest-and-release rounds.")] = 300,
    vectors: Annotated[
        Path | None,
        typer.Option("--vectors", metavar="DIR", exists=True, file_okay=False, help="Folder of real evidence."),
    ] = None,
    out: OutOption = None,
    format: FormatOption = Format.TEXT,
) -> None:
    """Count verifications per second and core, and time attest-and-release end to end (SIMULATED TEE)."""
    from casemate.bench.attest import run

    output = Output(format)
    result = run(rounds=rounds, vectors=vectors, progress=output.say)
    value = result.to_json()
    _write(out, value)
    output.data(value, result.text)


@app.command(epilog=epilog("casemate bench fuzz", "casemate bench fuzz --mutations 5000 --only tpm --format json"))
def fuzz(
    mutations: Annotated[int, typer.Option("--mutations", min=1, help="Spoiled inputs over all targets.")] = 100_000,
    seed: Annotated[int, typer.Option("--seed", help="The same seed spoils alike.")] = 0,
    only: Annotated[str, typer.Option("--only", metavar="TEXT", help="Targets whose name contains this.")] = "",
    out: OutOption = None,
    format: FormatOption = Format.TEXT,
) -> None:
    """Feed spoiled evidence to every parser and verifier; status 1 when one accepts, crashes or hangs."""
    from casemate.bench.fuzz import run

    output = Output(format)
    result = run(mutations=mutations, seed=seed, only=only, progress=output.say)
    value = result.to_json()
    _write(out, value)
    output.data(
        value,
        f"{value['mutations']} mutations: {value['accepted']} accepted, {value['foreign_exceptions']} foreign "
        f"exceptions, {value['hangs']} hangs; slowest {value['slowest_ms']} ms, {value['seconds']} s in all",
    )
    if not result.good:
        raise typer.Exit(1)


app.command(epilog=epilog(*bench_io.EXAMPLES))(bench_io.io)
app.command(epilog=bench_spark.TPCDS_EPILOG)(bench_spark.tpcds)
app.command(epilog=bench_spark.SCAN_EPILOG)(bench_spark.scan)


def _write(path: Path | None, value: dict[str, Any]) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
