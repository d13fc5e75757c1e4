"""``casemate workload show``: what a program's workload digest is made of."""

from __future__ import annotations

from casemate.cli.app import FormatOption, epilog, subcommand
from casemate.cli.jobspec import Engine, Job, Launcher, describe, manifest_of
from casemate.cli.options import (
    Arguments,
    ColumnsOption,
    ConfOption,
    EngineOption,
    EnvOption,
    FilesOption,
    LauncherOption,
    MasterOption,
    MountOption,
    PageCacheOption,
    Program,
    ReadOption,
    StageOption,
    WorkersOption,
    WriteOption,
)
from casemate.cli.output import Format, Output
from casemate.settings import Settings

__all__ = ["app"]

app = subcommand("Show what a program's workload digest is made of.")


@app.callback()
def _group() -> None:
    """Show what a program's workload digest is made of."""


@app.command(
    epilog=epilog(
        "casemate workload show job.py vault/in vault/out \\",
        "    --read hospital/in=vault/in --write hospital/out=vault/out",
    )
)
def show(
    program: Program,
    arguments: Arguments = None,
    read: ReadOption = None,
    write: WriteOption = None,
    columns: ColumnsOption = None,
    engine: EngineOption = Engine.SPARK,
    launcher: LauncherOption = Launcher.SPARK_SUBMIT,
    master: MasterOption = "local[*]",
    workers: WorkersOption = 2,
    conf: ConfOption = None,
    files: FilesOption = None,
    env: EnvOption = None,
    mount: MountOption = False,
    stage: StageOption = False,
    page_cache: PageCacheOption = False,
    format: FormatOption = Format.TEXT,
) -> None:
    """Print the workload manifest that `casemate submit` with the same options would make, and its digest.

    The digest is what a grant names. Nothing is started and no key is needed."""
    job = Job(
        program,
        tuple(arguments or ()),
        tuple(read or ()),
        tuple(write or ()),
        engine,
        launcher,
        master,
        workers,
        tuple(conf or ()),
        tuple(files or ()),
        tuple(env or ()),
        tuple(columns or ()),
        mount,
        stage,
        page_cache,
    )
    manifest, _ = manifest_of(job, Settings.load())
    Output(format).data({"digest": manifest.digest(), "manifest": manifest.to_json()}, lambda: describe(manifest))
