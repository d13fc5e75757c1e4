"""``casemate decrypt``: a dataset with its owner's key."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from casemate.cli.app import FormatOption, epilog, subcommand
from casemate.cli.output import Format, Output
from casemate.cli.owner import Owners
from casemate.cli.trees import result_line, result_value, tree_progress
from casemate.data.dataset import decrypt_tree
from casemate.model import DatasetName
from casemate.settings import Settings

__all__ = ["app"]

app = subcommand()


@app.command(
    epilog=epilog(
        "casemate decrypt vault/report report.csv",
        "casemate decrypt vault/scans scans --overwrite",
        exits={1: "refused (changed, missing or rolled-back data, which the line names) or failed"},
    )
)
def decrypt(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="An encrypted directory or file.", show_default=False)],
    destination: Annotated[Path, typer.Argument(metavar="DST", help="Where plaintext goes.", show_default=False)],
    dataset: Annotated[
        str | None,
        typer.Option("--dataset", metavar="OWNER/NAME", help="Refuse any other dataset than this one."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace DST when it exists.")] = False,
    insecure_skip_manifest: Annotated[
        bool,
        typer.Option(
            "--insecure-skip-manifest",
            help="Check single files only: deleted, swapped and rolled-back files are not found.",
        ),
    ] = False,
    format: FormatOption = Format.TEXT,
) -> None:
    """Decrypt SRC with the owner's key, checked against the manifest that was recorded at the broker.

    When SRC holds one data file and DST has its suffix, DST becomes that file; else DST becomes a directory. DST
    appears whole or not at all."""
    output = Output(format)
    if insecure_skip_manifest:
        output.warn("the manifest is not checked: deleted, swapped and rolled-back files are not found")
    with Owners(Settings.load()) as owners, tree_progress(output, "decrypting") as progress:
        result = decrypt_tree(
            source,
            destination,
            keys=owners,
            records=None if insecure_skip_manifest else owners,
            dataset=None if dataset is None else DatasetName.parse(dataset),
            overwrite=overwrite,
            progress=progress,
        )
    output.data(result_value(result), lambda: result_line("decrypted", result))
