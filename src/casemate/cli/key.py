"""``casemate key``: create, list and rotate dataset keys."""

from __future__ import annotations

from typing import Annotated

import typer

from casemate.cli import identities
from casemate.cli.app import FormatOption, epilog, subcommand
from casemate.cli.output import Format, Output, table
from casemate.cli.owner import Owners
from casemate.model import DatasetName
from casemate.settings import Settings

__all__ = ["app"]

app = subcommand("Create, list and rotate dataset keys.")

_Dataset = Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The dataset.", show_default=False)]


@app.command(
    epilog=epilog(
        "casemate key create hospital/patients",
        exits={2: "the name is not of the form OWNER/NAME, or the dataset has a key already"},
    )
)
def create(dataset: _Dataset, format: FormatOption = Format.TEXT) -> None:
    """Create a dataset and version 1 of its key at the broker.

    The first key of an owner also makes the owner's identity on this machine: a private key, whose public half the
    broker registers. It signs grants; keep a copy in a safe place."""
    output, name = Output(format), DatasetName.parse(dataset)
    with Owners(Settings.load()) as owners:
        version = owners.ensure_owner(name.owner, output.say).create_dataset(name)
    output.data({"name": str(name), "version": version}, f"created {name}, key version {version}")


@app.command("list", epilog=epilog("casemate key list", "casemate key list --format json"))
def list_(format: FormatOption = Format.TEXT) -> None:
    """List the datasets of the owners whose identities are on this machine."""
    settings = Settings.load()
    with Owners(settings) as owners:
        rows = [row for name in identities.local_owners(settings) for row in owners.client(name).datasets()]
    cells = [(row["name"], row["version"], row["created"]) for row in rows]
    Output(format).data(rows, lambda: table(cells, ("dataset", "version", "created")))


@app.command(epilog=epilog("casemate key rotate hospital/patients"))
def rotate(dataset: _Dataset, format: FormatOption = Format.TEXT) -> None:
    """Make the next version of a dataset's key. New files use it; older files stay readable under theirs."""
    name = DatasetName.parse(dataset)
    with Owners(Settings.load()) as owners:
        version = owners.client(name.owner).rotate(name)
    Output(format).data({"name": str(name), "version": version}, f"{name} now has key version {version}")
