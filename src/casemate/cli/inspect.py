"""``casemate inspect``: what encrypted files say about themselves."""

from __future__ import annotations

from typing import Annotated

import typer

from casemate.cli.app import FormatOption, epilog, subcommand
from casemate.cli.output import Format, Output, table
from casemate.data.dataset import inspect as inspect_files

__all__ = ["app"]

app = subcommand()


@app.command(
    epilog=epilog(
        "casemate inspect vault/patients",
        "casemate inspect vault/patients/patients.csv --format json",
        exits={1: "a file is not an encrypted one, or not a whole one"},
    )
)
def inspect(
    path: Annotated[
        str, typer.Argument(help="An encrypted file, or a directory of them; a path or s3:// URI.", show_default=False)
    ],
    format: FormatOption = Format.TEXT,
) -> None:
    """Show dataset, key version, file id and sizes of encrypted files.

    No key is used, so nothing shown here is verified: `casemate decrypt` verifies."""
    found = inspect_files(path)
    value = [
        {
            "path": info.path,
            "dataset": str(info.dataset),
            "key_version": info.key_version,
            "file_id": info.file_id,
            "plaintext_size_bytes": info.plaintext_size,
            "stored_size_bytes": info.stored_size,
        }
        for info in found
    ]
    header = ("path", "dataset", "key", "plaintext bytes", "stored bytes", "file id")
    rows = [(i.path, i.dataset, i.key_version, i.plaintext_size, i.stored_size, i.file_id) for i in found]
    Output(format).data(value, lambda: table(rows, header))
