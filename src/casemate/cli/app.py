"""The tree of subcommands. Each lives in a module of its own that is imported when it is called, not before."""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from casemate.cli.output import Format, Output
from casemate.errors import UsageError

__all__ = ["COMMANDS", "COMPLETE_VARIABLE", "FormatOption", "app", "dispatch", "epilog", "subcommand"]


COMPLETE_VARIABLE = "_CASEMATE_COMPLETE"


@dataclass(frozen=True)
class _Entry:
    module: str
    help: str


COMMANDS: dict[str, _Entry] = {
    "demo": _Entry("demo", "The main job from nothing to a decrypted result, and the attacks that fail."),
    "up": _Entry("up", "Start the broker and the simulated TEE host on this machine."),
    "down": _Entry("down", "Stop what `casemate up` started."),
    "status": _Entry("status", "Show what runs and which datasets there are."),
    "doctor": _Entry("doctor", "Check this machine and say how to mend what is amiss."),
    "key": _Entry("key", "Create, list and rotate dataset keys."),
    "encrypt": _Entry("encrypt", "Encrypt a file or directory into a dataset."),
    "decrypt": _Entry("decrypt", "Decrypt a dataset with the owner's key."),
    "rewrap": _Entry("rewrap", "Encrypt a dataset again under the newest version of its key."),
    "inspect": _Entry("inspect", "Show what encrypted files say about themselves, without any key."),
    "import-bigdl": _Entry("import_bigdl", "Move data of Intel BigDL PPML into a dataset."),
    "workload": _Entry("workload", "Show what a program's workload digest is made of."),
    "grant": _Entry("grant", "Create, list and revoke grants."),
    "submit": _Entry("submit", "Run an unchanged program in TEEs, on encrypted data."),
    "run": _Entry("run", "Entry point inside a TEE: attest, fetch keys, start the program."),
    "explain": _Entry("explain", "Show every clause of a refusal."),
    "attest": _Entry("attest", "Judge stored evidence, or collect evidence on this machine."),
    "policy": _Entry("policies", "Check, explain and try appraisal policies; floors of the broker."),
    "collateral": _Entry("collateral", "Fetch, import, show and check what makers say about their platforms."),
    "reference": _Entry("reference", "Compute reference values from a build, signed; show what changed between two."),
    "trust": _Entry("trust", "Show and add the anchors that a broker verifies evidence with."),
    "tpm": _Entry("tpm", "Enrol a TPM's attestation key, after its maker's certificate proved whose it is."),
    "audit": _Entry("audit", "Read the broker's audit log and prove it whole."),
    "bench": _Entry("bench", "Measure what protection costs, both sides in one run."),
    "completion": _Entry("completion", "Print the completion script of a shell."),
}


class LazyGroup(TyperGroup):
    """Knows every subcommand by name and one line of help; imports the module of the one that is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        if cmd_name == "run":  # main.py takes the fast path; this one is for help pages alone
            return typer.main.get_command(_run_help())
        module = importlib.import_module(f"casemate.cli.{entry.module}")
        command: Any = typer.main.get_command(module.app)
        command.name = cmd_name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The list of commands without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items()])


def _run_help() -> typer.Typer:
    run = typer.Typer(add_completion=False, rich_markup_mode=None)

    @run.command(help=COMMANDS["run"].help)
    def _() -> None:
        return None

    return run


def epilog(*examples: str, exits: dict[int, str] | None = None) -> str:
    """The end of a help page: examples, then what each exit status means here."""
    meanings = {0: "done", 1: "refused or failed", 2: "wrong usage", 3: "undecided; try again later", **(exits or {})}
    shown = "\n".join(f"  {line}" for line in examples)
    statuses = "\n".join(f"  {status}  {meaning}" for status, meaning in sorted(meanings.items()))
    return f"\b\nExamples:\n{shown}\n\n\b\nExit status:\n{statuses}"


def subcommand(help: str | None = None) -> typer.Typer:
    """A Typer for one subcommand module: plain help pages, no exception rendering of its own."""
    return typer.Typer(
        help=help,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        no_args_is_help=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )


def _remember_format(value: Format) -> Format:
    Output(value)
    return value


FormatOption = Annotated[
    Format, typer.Option("--format", help="How to print the result.", callback=_remember_format, is_eager=True)
]

app = typer.Typer(
    cls=LazyGroup,
    name="casemate",
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="\b\nStart here:\n  casemate up\n  casemate key create hospital/patients\n"
    "  casemate encrypt patients.csv vault/patients --dataset hospital/patients\n"
    "  casemate submit job.py vault/patients vault/report \\\n"
    "      --read hospital/patients=vault/patients --write hospital/report=vault/report\n"
    "  casemate decrypt vault/report report.csv\n\n"
    "\b\nExit status:\n  0  done\n  1  refused or failed\n  2  wrong usage\n  3  undecided; try again later",
)


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        print(f"casemate {version('casemate')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Run unchanged programs on data that stays encrypted everywhere except inside an attested TEE."""


def dispatch(arguments: list[str]) -> int:
    """Parse ``arguments``, run the subcommand, return the exit status; raises what the command raises."""
    Output.current = None  # of an earlier command of this process
    command: Any = typer.main.get_command(app)
    if COMPLETE_VARIABLE in os.environ:
        command.main(args=arguments, prog_name="casemate", complete_var=COMPLETE_VARIABLE)
    try:  # what `main` of the library does, but that it would swallow KeyboardInterrupt
        with command.make_context("casemate", list(arguments or ["--help"])) as context:
            status = command.invoke(context)
    except typer.Exit as exc:
        status = exc.exit_code
    except typer.TyperException as exc:
        raise _usage(exc) from exc
    return status if isinstance(status, int) else 0


def _usage(exc: Any) -> UsageError:
    message = exc.format_message() if hasattr(exc, "format_message") else str(exc)
    error = UsageError(message.strip().rstrip("."))
    context = getattr(exc, "ctx", None)
    command = context.command_path if context is not None else "casemate"
    error.fix = f"`{command} --help` shows the form and examples."  # type: ignore[misc]
    return error
