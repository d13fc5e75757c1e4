"""``casemate rewrap``: a dataset's files under the newest version of its key."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from casemate.cli.app import FormatOption, epilog, subcommand
from casemate.cli.output import Format, Output
from casemate.cli.owner import Owners
from casemate.cli.trees import result_line, result_value, tree_progress
from casemate.data.dataset import inspect
from casemate.data.errors import SourceMissingError
from casemate.data.rewrapping import rewrap_tree
from casemate.model import DatasetName
from casemate.settings import Settings

__all__ = ["app"]

app = subcommand()


@app.command(
    epilog=epilog(
        "casemate key rotate hospital/patients && casemate rewrap vault/patients",
        exits={1: "refused (changed data, which the line names) or failed; the dataset is what it was"},
    )
)
def rewrap(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A dataset's directory.", show_default=False)],
    dataset: Annotated[
        str | None,
        typer.Option("--dataset", metavar="OWNER/NAME", help="Refuse any other dataset than this one."),
    ] = None,
    format: FormatOption = Format.TEXT,
) -> None:
    """Encrypt the files of DIR again that are under an older version of the dataset's key, as its next generation.

    Readers see the old dataset or the new one; after a kill the same command goes on where it was. No job may write to
    DIR meanwhile. Needs room on the disk for the files once more."""
    output = Output(format)
    if dataset is None:  # only a hint: the manifest is then checked for it
        found = inspect(directory)
        if not found:
            raise SourceMissingError(f"{directory}: holds no file")
        name = found[0].dataset
    else:
        name = DatasetName.parse(dataset)
    with Owners(Settings.load()) as owners, tree_progress(output, "rewrapping") as progress:
        result = rewrap_tree(directory, keys=owners, records=owners, dataset=name, progress=progress)
    line = (
        result_line("rewrapped", result) if result.files else f"{directory}: is under the newest key of {name} already"
    )
    output.data(result_value(result), lambda: line)
