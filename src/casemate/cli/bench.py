"""``casemate bench``: measure against plain Spark."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from casemate.cli.app import FormatOption, epilog, subcommand
from casemate.cli.output import Format, Output

__all__ = ["app"]

app = subcommand("Measure start-up against plain Spark.")


@app.callback()
def _group() -> None:
    """Measure start-up against plain Spark."""


@app.command(epilog=epilog("casemate bench startup", "casemate bench startup --repeats 5 --format json > startup.json"))
def startup(
    repeats: Annotated[int, typer.Option("--repeats", min=1, max=100, help="Runs of each side.")] = 5,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Also write the JSON here.")] = None,
    format: FormatOption = Format.TEXT,
) -> None:
    """Time an attested submit (SIMULATED TEE) against plain spark-submit of the same program, alternating."""
    import json

    from casemate.bench.startup import run

    output = Output(format)
    result = run(repeats=repeats, progress=output.say)
    value = result.to_json()
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    output.data(
        value,
        f"plain {result.plain_median:.2f} s, attested {result.attested_median:.2f} s (SIMULATED TEE): "
        f"extra {result.extra_seconds:.2f} s, aim {result.aim_seconds:.1f} s",
    )
