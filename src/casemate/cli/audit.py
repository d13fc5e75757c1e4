"""``casemate audit``: read the broker's audit log and prove it whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from casemate.broker.client import AuditReport, BrokerClient
from casemate.cli.app import FormatOption, epilog, subcommand
from casemate.cli.errors import RememberedMalformedError
from casemate.cli.output import Format, Output, table
from casemate.cli.owner import Owners
from casemate.files import write_whole
from casemate.settings import Settings

__all__ = ["app"]

app = subcommand("Read the broker's audit log and prove it whole.")


@app.command(epilog=epilog("casemate audit log", "casemate audit log --last 0 --format json", exits={1: "not whole"}))
def log(
    last: Annotated[int, typer.Option("--last", min=0, help="How many entries; 0 for all.")] = 20,
    format: FormatOption = Format.TEXT,
) -> None:
    """Show the entries that concern an owner (to the administrator: all), after verifying the log as `verify` does."""
    settings = Settings.load()
    with Owners(settings) as owners:
        report = _verified(settings, owners.reader())
    entries = report.entries[-last:] if last else report.entries
    rows = [
        (e["index"], e["time"][:19], e["kind"], e["outcome"], e.get("code") or "", _subject(e), e["refusal_id"] or "")
        for e in entries
    ]
    header = ("entry", "time", "what", "outcome", "code", "about", "refusal")
    Output(format).data(list(entries), lambda: table(rows, header))


@app.command(
    epilog=epilog(
        "casemate audit verify",
        exits={
            0: "the log is whole",
            1: "edited, cut, reordered, forked or rolled back",
            3: "the broker is out of reach",
        },
    )
)
def verify(format: FormatOption = Format.TEXT) -> None:
    """Check every entry against the Merkle tree, the signed checkpoint, and the last checkpoint seen on this machine.

    The checkpoint is remembered in CASEMATE_HOME, so that a database restored from an old copy is found."""
    settings = Settings.load()
    with Owners(settings) as owners:
        report = _verified(settings, owners.reader())
    value = {
        "whole": True,
        "entries": report.size,
        "visible": report.visible,
        "root": report.checkpoint.root.hex(),
        "time": report.checkpoint.time,
    }
    Output(format).data(
        value, f"whole: {report.size} entries ({report.visible} shown to us), root {report.checkpoint.root.hex()}"
    )


def _verified(settings: Settings, client: BrokerClient) -> AuditReport:
    """Verify against what this machine remembers of this broker, then remember the new checkpoint."""
    remembered = _remembered(settings)
    broker = hashlib.sha256(settings.broker_ca.read_bytes()).hexdigest()
    known = remembered.get(broker)
    seen, key = ([known["checkpoint"]], known["jwk"]) if known else ([], client.audit_key())
    report = client.verify_audit(seen, key)
    remembered[broker] = {"checkpoint": report.checkpoint.jws, "jwk": key}
    write_whole(settings.checkpoint_path, json.dumps(remembered, indent=1).encode() + b"\n")
    return report


def _remembered(settings: Settings) -> dict[str, dict[str, Any]]:
    """Checkpoint and audit key by broker (SHA-256 of its CA certificate)."""
    path = settings.checkpoint_path
    try:
        value = json.loads(path.read_bytes())
        for entry in value.values():
            if not (isinstance(entry["checkpoint"], str) and isinstance(entry["jwk"], dict)):
                raise TypeError("not a remembered checkpoint")
        return dict(value)
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise RememberedMalformedError(f"{path}: not a record of checkpoints that this machine wrote") from exc


def _subject(entry: Mapping[str, Any]) -> str:
    subject = entry.get("subject") or {}
    shown = (subject.get(name) for name in ("dataset", "datasets", "grant", "owner", "job", "name"))
    return ", ".join(value for value in shown if isinstance(value, str))[:60]
