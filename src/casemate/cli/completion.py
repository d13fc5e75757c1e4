"""``casemate completion``: the script that makes a shell complete commands and options."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from typer._completion_shared import get_completion_script

from casemate.cli.app import COMPLETE_VARIABLE, FormatOption, epilog, subcommand
from casemate.cli.output import Format, Output

__all__ = ["app"]

app = subcommand()


class Shell(StrEnum):
    """Shells that there is a script for."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


@app.command(
    epilog=epilog(
        "casemate completion bash > ~/.local/share/bash-completion/completions/casemate",
        "casemate completion zsh > ~/.zfunc/_casemate",
        "casemate completion fish > ~/.config/fish/completions/casemate.fish",
    )
)
def completion(
    shell: Annotated[Shell, typer.Argument(help="Which shell.", show_default=False)],
    format: FormatOption = Format.TEXT,
) -> None:
    """Print a completion script to put where your shell looks for one."""
    script = get_completion_script(prog_name="casemate", complete_var=COMPLETE_VARIABLE, shell=shell.value)
    Output(format).data({"shell": shell.value, "script": script}, script)
