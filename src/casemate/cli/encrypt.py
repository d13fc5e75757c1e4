"""``casemate encrypt``: files and directories into a dataset."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from casemate.cli.app import FormatOption, epilog, subcommand
from casemate.cli.output import Format, Output
from casemate.cli.owner import Owners
from casemate.cli.trees import JobsOption, result_line, result_value, tree_progress
from casemate.data.appending import append_tree
from casemate.data.dataset import encrypt_stream, encrypt_tree
from casemate.errors import UsageError
from casemate.model import DatasetName
from casemate.settings import Settings

__all__ = ["app"]

app = subcommand()


@app.command(
    epilog=epilog(
        "casemate encrypt patients.csv vault/patients --dataset hospital/patients",
        "casemate encrypt scans/ vault/scans --dataset hospital/scans --overwrite",
        "casemate encrypt tuesday.csv vault/patients --dataset hospital/patients --append",
        "casemate encrypt 'exports/**/*.csv' s3://bucket/patients --dataset hospital/patients",
        "pg_dump patients | casemate encrypt - vault/dump --name patients.sql --dataset hospital/dump",
        exits={1: "failed (disk full, no permission); the destination is what it was"},
    )
)
def encrypt(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="SRC... DST",
            help="Files, directories, quoted patterns, s3:// URIs, or - for standard input; then the directory.",
            show_default=False,
        ),
    ],
    dataset: Annotated[
        str, typer.Option("--dataset", metavar="OWNER/NAME", help="Whose key to use.", show_default=False)
    ],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an encrypted destination.")] = False,
    append: Annotated[
        bool, typer.Option("--append", help="Add to an encrypted destination; others may do so at the same time.")
    ] = False,
    name: Annotated[
        str | None, typer.Option("--name", metavar="FILE", help="What to call what comes from standard input.")
    ] = None,
    jobs: JobsOption = None,
    format: FormatOption = Format.TEXT,
) -> None:
    """Encrypt every SRC into the directory DST, write its manifest and record its generation at the broker.

    DST appears whole or not at all; after a kill the same command goes on where it was. One directory gives what it
    holds, of several sources each keeps its name. DST belongs to its place: a moved copy is not accepted by strict
    reads. Credentials for s3:// come from the environment and files of the AWS tools."""
    if len(paths) < 2:
        raise UsageError(f"{' '.join(paths)}: need at least one source, and the directory to make of it")
    *sources, destination = paths
    if ("-" in sources and (len(sources) > 1 or name is None)) or (name is not None and sources != ["-"]):
        raise UsageError("standard input (-) is the only source, and needs --name; nothing else takes a name")
    if append and (overwrite or name is not None):
        raise UsageError("--append adds files to what is there: without --overwrite, and not from standard input")
    output, settings = Output(format), Settings.load()
    with Owners(settings) as owners, tree_progress(output, "encrypting") as progress:
        to = DatasetName.parse(dataset)
        if append:
            result = append_tree(
                sources, destination, dataset=to, keys=owners, records=owners, progress=progress, processes=jobs
            )
        elif name is not None:
            result = encrypt_stream(
                sys.stdin.buffer,
                name,
                destination,
                dataset=to,
                keys=owners,
                records=owners,
                overwrite=overwrite,
                progress=progress,
            )
        else:
            result = encrypt_tree(
                sources,
                destination,
                dataset=to,
                keys=owners,
                records=owners,
                overwrite=overwrite,
                progress=progress,
                processes=jobs,
                unfinished=settings.home / "unfinished",
            )
    output.data(result_value(result), lambda: result_line("encrypted", result))
