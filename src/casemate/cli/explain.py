"""``casemate explain``: every clause of a refusal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer

from casemate.cli.app import FormatOption, epilog, subcommand
from casemate.cli.output import Format, Output, one_line
from casemate.cli.owner import Owners
from casemate.errors import error_class
from casemate.settings import Settings

__all__ = ["app"]

app = subcommand()


@app.command(
    epilog=epilog(
        "casemate explain r-be07348fb2eb73e4",
        "casemate explain r-be07348fb2eb73e4 --format json",
        exits={2: "there is no such refusal that concerns an owner on this machine"},
    )
)
def explain(
    refusal: Annotated[str, typer.Argument(metavar="REFUSAL", help="The refusal's id.", show_default=False)],
    format: FormatOption = Format.TEXT,
) -> None:
    """Show why something was refused: each clause with what was expected, what was found, and how to mend it.

    For the owners whom the refusal concerns, and administrators: a submitter gets the code alone."""
    with Owners(Settings.load()) as owners:
        entry = owners.reader().explain(refusal)
    Output(format).data(entry, lambda: "\n".join(_lines(entry)))


def _lines(entry: Mapping[str, Any]) -> Iterator[str]:
    code = str(entry.get("code") or "")
    yield f"{entry.get('outcome')}: {code}: {one_line(entry.get('message') or '')}"
    yield f"what     {entry.get('kind')}  at {entry.get('time')}  entry {entry.get('index')}"
    for name, value in (entry.get("subject") or {}).items():
        if isinstance(value, str | int):
            yield f"{name:<8} {one_line(value, 200)}"
    yield from _clauses(entry.get("clauses") or (), "")
    yield f"hint: {error_class(code).fix}"


def _clauses(clauses: Sequence[Mapping[str, Any]], indent: str) -> Iterator[str]:
    for clause in clauses:
        mark = "holds" if clause.get("holds") else "FAILS"
        whose = f" of policy {one_line(clause['policy'], 100)}" if clause.get("policy") else ""
        yield f"{indent}{mark}  {clause.get('clause')}{whose}: expected {one_line(clause.get('expected'), 300)}"
        if not clause.get("holds"):
            yield f"{indent}       got {one_line(clause.get('got'), 300)}"
            if clause.get("fix"):
                yield f"{indent}       fix: {one_line(clause['fix'], 300)}"
        yield from _clauses(clause.get("parts") or (), indent + "  ")
