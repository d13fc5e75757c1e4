"""``casemate bench io``: how fast data is encrypted and decrypted in memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from casemate.cli.app import FormatOption
from casemate.cli.output import Format, Output

__all__ = ["EXAMPLES", "io"]

EXAMPLES = ("casemate bench io", "casemate bench io --size 1024 --repeats 9 --plot io.svg --format json > io.json")


def io(
    size: Annotated[int, typer.Option("--size", min=8, max=65536, help="MiB of content in each measured run.")] = 256,
    repeats: Annotated[int, typer.Option("--repeats", min=1, max=100, help="Measured runs of each side.")] = 5,
    jvm: Annotated[bool, typer.Option("--jvm/--no-jvm", help="Measure Java's reader and writer as well.")] = True,
    plot: Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="Draw the result (.svg or .png).")] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Also write the JSON here.")] = None,
    format: FormatOption = Format.TEXT,
) -> None:
    """Measure GiB/s of one core on in-memory storage: raw AES-GCM, Python, Java, tink, a memory copy, in turns.

    By processor time, so that a busy machine does not change it much; by the clock, on all cores, and random reads of
    8 KiB and 1 MiB are in the JSON."""
    from casemate.bench.io import run
    from casemate.bench.io_plot import plot_io

    output = Output(format)
    result = run(size=size * 2**20, repeats=repeats, jvm=jvm, progress=output.say)
    value = result.to_json()
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    if plot is not None:
        output.say(f"drawn: {plot_io(value, plot)}")
    output.data(value, result.text)
