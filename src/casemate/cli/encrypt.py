"""``casemate encrypt``: a file or directory into a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from casemate.cli.app import FormatOption, epilog, subcommand
from casemate.cli.output import Format, Output
from casemate.cli.owner import Owners
from casemate.cli.trees import result_line, result_value, tree_progress
from casemate.data.dataset import encrypt_tree
from casemate.model import DatasetName
from casemate.settings import Settings

__all__ = ["app"]

app = subcommand()


@app.command(
    epilog=epilog(
        "casemate encrypt patients.csv vault/patients --dataset hospital/patients",
        "casemate encrypt scans/ vault/scans --dataset hospital/scans --overwrite",
        exits={1: "failed (disk full, no permission); the destination is what it was"},
    )
)
def encrypt(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="A file or directory.", show_default=False)],
    destination: Annotated[
        Path, typer.Argument(metavar="DST", help="The directory to make of it.", show_default=False)
    ],
    dataset: Annotated[
        str, typer.Option("--dataset", metavar="OWNER/NAME", help="Whose key to use.", show_default=False)
    ],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an encrypted destination.")] = False,
    format: FormatOption = Format.TEXT,
) -> None:
    """Encrypt SRC into the directory DST, write its manifest and record its generation at the broker.

    DST appears whole or not at all. It belongs to its place: a moved copy is not accepted by strict reads."""
    output = Output(format)
    with Owners(Settings.load()) as owners, tree_progress(output, "encrypting") as progress:
        result = encrypt_tree(
            source,
            destination,
            dataset=DatasetName.parse(dataset),
            keys=owners,
            records=owners,
            overwrite=overwrite,
            progress=progress,
        )
    output.data(result_value(result), lambda: result_line("encrypted", result))
