"""``casemate decrypt``: datasets with their owner's key."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from casemate.cli.app import FormatOption, epilog, subcommand
from casemate.cli.output import Format, Output
from casemate.cli.owner import Owners
from casemate.cli.trees import JobsOption, result_line, result_value, tree_progress
from casemate.data.dataset import decrypt_stream, decrypt_tree
from casemate.errors import UsageError
from casemate.model import DatasetName
from casemate.settings import Settings

__all__ = ["app"]

app = subcommand()


@app.command(
    epilog=epilog(
        "casemate decrypt vault/report report.csv",
        "casemate decrypt vault/scans scans --overwrite",
        "casemate decrypt s3://bucket/report - | head",
        exits={1: "refused (changed, missing or rolled-back data, which the line names) or failed"},
    )
)
def decrypt(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="SRC... DST",
            help="Encrypted directories, files, quoted patterns or s3:// URIs; then where plaintext goes.",
            show_default=False,
        ),
    ],
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
    jobs: JobsOption = None,
    format: FormatOption = Format.TEXT,
) -> None:
    """Decrypt every SRC with the owner's key, checked against the manifest that was recorded at the broker.

    When SRC holds one data file and DST has its suffix, DST becomes that file; else DST becomes a directory, whole or
    not at all. With - for DST the one data file goes to standard output: all that comes out was authentic, but only
    status 0 says that it was all."""
    if len(paths) < 2:
        raise UsageError(f"{' '.join(paths)}: need at least one source, and where its plaintext goes")
    *sources, destination = paths
    if destination == "-" and len(sources) > 1:
        raise UsageError("standard output (-) takes one source")
    output = Output(format)
    if insecure_skip_manifest:
        output.warn("the manifest is not checked: deleted, swapped and rolled-back files are not found")
    only = None if dataset is None else DatasetName.parse(dataset)
    with Owners(Settings.load()) as owners, tree_progress(output, "decrypting") as progress:
        records = None if insecure_skip_manifest else owners
        if destination == "-":
            sink = sys.stdout.buffer
            result = decrypt_stream(sources[0], sink, keys=owners, records=records, dataset=only, progress=progress)
            sink.flush()
        else:
            result = decrypt_tree(
                sources,
                destination,
                keys=owners,
                records=records,
                dataset=only,
                overwrite=overwrite,
                progress=progress,
                processes=jobs,
            )
    if destination == "-":
        output.say(result_line("decrypted", result))
    else:
        output.data(result_value(result), lambda: result_line("decrypted", result))
