"""Options that several commands have, written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from casemate.cli.jobspec import Engine, Launcher

__all__ = [
    "Arguments",
    "ColumnsOption",
    "ConfOption",
    "EngineOption",
    "EnvOption",
    "FilesOption",
    "LauncherOption",
    "MasterOption",
    "MountOption",
    "PageCacheOption",
    "Program",
    "ReadOption",
    "StageOption",
    "WorkersOption",
    "WriteOption",
]

Program = Annotated[Path, typer.Argument(metavar="PROGRAM", help="The program's file.", show_default=False)]
Arguments = Annotated[
    list[str] | None,
    typer.Argument(metavar="ARGS", help="The program's own arguments; put `--` before ones with a dash."),
]
ReadOption = Annotated[
    list[str] | None, typer.Option("--read", metavar="DATASET=PATH", help="A zone to read. Repeatable.")
]
WriteOption = Annotated[
    list[str] | None, typer.Option("--write", metavar="DATASET=PATH", help="A zone to write. Repeatable.")
]
ColumnsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--columns",
        metavar="DATASET=PATH:COLUMN,…",
        help="Columns of the Parquet files in the zone at PATH that DATASET's key encrypts. Repeatable.",
    ),
]
EngineOption = Annotated[Engine, typer.Option("--engine", help="What the program is written for.")]
LauncherOption = Annotated[Launcher, typer.Option("--launcher", help="What starts a Spark program.")]
MasterOption = Annotated[
    str, typer.Option("--master", help="`local[N]` in one TEE, or `standalone`: a cluster for this job.")
]
WorkersOption = Annotated[int, typer.Option("--workers", min=1, max=64, help="Workers of a standalone cluster.")]
ConfOption = Annotated[
    list[str] | None, typer.Option("--conf", metavar="NAME=VALUE", help="A setting of Spark. Repeatable.")
]
FilesOption = Annotated[
    list[Path] | None, typer.Option("--files", metavar="FILE", help="A further file beside the program. Repeatable.")
]
EnvOption = Annotated[
    list[str] | None, typer.Option("--env", metavar="NAME=VALUE", help="An environment variable. Repeatable.")
]
MountOption = Annotated[
    bool, typer.Option("--mount", help="Zones are plain files to the program: a FUSE mount inside the TEE.")
]
StageOption = Annotated[
    bool, typer.Option("--stage", help="Zones are plain files to the program: copies in the TEE's private memory.")
]
PageCacheOption = Annotated[
    bool, typer.Option("--page-cache", help="With --mount: let the kernel inside the TEE keep what was read.")
]
