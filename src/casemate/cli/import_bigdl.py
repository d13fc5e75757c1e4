"""``casemate import-bigdl``: move data of Intel BigDL PPML into a dataset."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from casemate.cli.app import FormatOption, epilog, subcommand
from casemate.cli.errors import FileMissingError
from casemate.cli.output import Format, Output
from casemate.cli.owner import Owners
from casemate.cli.trees import result_line, result_value, tree_progress
from casemate.crypto.secret import Secret
from casemate.data.bigdl import data_key
from casemate.data.importing import import_bigdl
from casemate.errors import UsageError
from casemate.model import DatasetName
from casemate.settings import Settings

__all__ = ["app"]

app = subcommand()

_MAX_KEY = 4096  # bytes


@app.command(
    epilog=epilog(
        "casemate import-bigdl bigdl/patients vault/patients --dataset hospital/patients --primary-key primaryKey",
        "casemate import-bigdl data.csv.cbc vault/visits --dataset hospital/visits --data-key - < unwrapped.key",
        exits={1: "refused (a file was changed, or another key), or failed; the destination is what it was"},
    ),
)
def import_files(
    source: Annotated[
        Path, typer.Argument(metavar="SRC", help="A .cbc file, or a directory of them.", show_default=False)
    ],
    destination: Annotated[
        Path, typer.Argument(metavar="DST", help="The directory to make of it.", show_default=False)
    ],
    dataset: Annotated[
        str, typer.Option("--dataset", metavar="OWNER/NAME", help="Whose key to use.", show_default=False)
    ],
    primary_key: Annotated[
        Path | None, typer.Option("--primary-key", metavar="FILE", help="Primary key of BigDL's simple KMS.")
    ] = None,
    key: Annotated[
        str | None,
        typer.Option("--data-key", metavar="FILE", help="The data key's text, unwrapped by another KMS; - reads it."),
    ] = None,
    native: Annotated[
        bool, typer.Option("--native-aes-cbc", help="Files of BigDL's mode nativeaescbc, which have no MAC at all.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an encrypted destination.")] = False,
    format: FormatOption = Format.TEXT,
) -> None:
    """Decrypt files of Intel BigDL PPML and encrypt them into the directory DST, in one pass; SRC stays as it is.

    Every file's HMAC is verified, which BigDL never did. Text-like data (.cbc) is read; Parquet modes are not."""
    if (primary_key is None) == (key is None):
        raise UsageError("give --primary-key or --data-key, one of them")
    unwrap: Sequence[Secret] | str = _text(primary_key) if primary_key is not None else [data_key(_given(key or ""))]
    output = Output(format)
    had = "no MAC at all" if native else "no working integrity check"
    output.warn(f"BigDL PPML had {had} and took changed files without a word; compare the data with what you know")
    with Owners(Settings.load()) as owners, tree_progress(output, "importing") as progress:
        result = import_bigdl(
            source,
            destination,
            unwrap=unwrap,
            dataset=DatasetName.parse(dataset),
            keys=owners,
            records=owners,
            native=native,
            overwrite=overwrite,
            progress=progress,
        )
    output.data(result_value(result), lambda: result_line("imported", result))


def _given(source: str) -> str:
    text = sys.stdin.read(_MAX_KEY).strip() if source == "-" else _text(Path(source))
    if not text:
        raise UsageError(f"--data-key {source}: holds nothing")
    return text


def _text(path: Path) -> str:
    try:
        with path.open(encoding="ascii") as file:
            return file.read(_MAX_KEY).strip()
    except FileNotFoundError:
        raise FileMissingError(f"{path}: not found") from None
    except (OSError, UnicodeDecodeError) as exc:
        raise UsageError(f"{path}: cannot be read as a key's text") from exc
