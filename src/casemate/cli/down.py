"""``casemate down``: stop what ``casemate up`` started."""

from __future__ import annotations

from casemate.cli.app import FormatOption, epilog, subcommand
from casemate.cli.local import take_down
from casemate.cli.output import Format, Output
from casemate.settings import Settings

__all__ = ["app"]

app = subcommand()


@app.command(epilog=epilog("casemate down", exits={0: "nothing of it runs any more"}))
def down(format: FormatOption = Format.TEXT) -> None:
    """Stop the broker and the SIMULATED TEE host that `casemate up` started, and every program in a TEE with it.

    Processes are known by id and start time, never by name. State is kept: keys, grants and the audit log."""
    stopped = take_down(Settings.load())
    value = {"stopped": [{"name": service.name, "pid": service.pid} for service in stopped]}
    names = ", ".join(service.name for service in stopped)
    Output(format).data(value, f"stopped: {names}" if names else "nothing was running")
