"""``casemate doctor``: check this machine, say how to mend what is amiss."""

from __future__ import annotations

from casemate.cli.app import FormatOption, epilog, subcommand
from casemate.cli.checks import State, run_checks
from casemate.cli.output import Format, Output, table
from casemate.settings import Settings

__all__ = ["app"]

app = subcommand()


@app.command(
    epilog=epilog(
        "casemate doctor",
        "casemate doctor --format json",
        exits={0: "nothing fails; warnings do not count", 1: "a check failed"},
    )
)
def doctor(format: FormatOption = Format.TEXT) -> int:
    """Check Java, Spark, the jar, state directory, permissions, private memory, clock, broker and TEE host."""
    findings = list(run_checks(Settings.load()))
    value = [{"check": f.name, "state": f.state.value, "found": f.found, "fix": f.fix or None} for f in findings]
    rows = [(f.state, f.name, f.found + (f"  ->  {f.fix}" if f.fix else "")) for f in findings]
    Output(format).data(value, lambda: table(rows, ("", "check", "found")))
    return 1 if any(f.state is State.FAIL for f in findings) else 0
