"""``casemate grant``: sign, list and revoke grants."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from casemate.attestation.claims import WorkloadBinding
from casemate.cli import identities
from casemate.cli.app import FormatOption, epilog, subcommand
from casemate.cli.errors import FileMissingError
from casemate.cli.granting import (
    Terms,
    bring,
    by_owner,
    make_grant,
    parse_duration,
    parse_time,
    recipients_of,
    sentence,
)
from casemate.cli.output import Format, Output, table
from casemate.cli.owner import Owners
from casemate.cli.policy import local_policy, read_policy
from casemate.errors import UsageError
from casemate.model import Access, DatasetName
from casemate.settings import Settings
from casemate.workload.manifest import WorkloadManifest

__all__ = ["app"]

app = subcommand("Create, list and revoke grants.")


class Binding(StrEnum):
    """How the workload digest has to get into the evidence."""

    LAUNCH = "launch"
    ANY = "any"


@app.command(
    epilog=epilog(
        "casemate workload show job.py … --format json > workload.json",
        "casemate grant create --manifest workload.json --for 8h --max-releases 1",
        "casemate grant create --workload 5f0c… --read hospital/patients --recipient clinic/report \\",
        "    --policy production.yaml --from 2026-12-01 --until 2026-12-31",
    )
)
def create(
    workload: Annotated[
        list[str] | None, typer.Option("--workload", metavar="DIGEST", help="A workload digest. Repeatable.")
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option("--manifest", metavar="FILE", help="A manifest (`workload show --format json`) to agree to."),
    ] = None,
    signer: Annotated[
        list[str] | None, typer.Option("--signer", metavar="THUMBPRINT", help="A workload signer. Repeatable.")
    ] = None,
    read: Annotated[list[str] | None, typer.Option("--read", metavar="DATASET", help="May be read.")] = None,
    write: Annotated[list[str] | None, typer.Option("--write", metavar="DATASET", help="May be written.")] = None,
    recipient: Annotated[
        list[str] | None,
        typer.Option("--recipient", metavar="DATASET", help="May receive outputs [default: what is written]."),
    ] = None,
    policy: Annotated[
        Path | None, typer.Option("--policy", metavar="FILE", help="Appraisal policy [default: local-simulated].")
    ] = None,
    for_: Annotated[str, typer.Option("--for", metavar="TIME", help="How long it is good: 30m, 8h, 2d.")] = "1h",
    from_: Annotated[str | None, typer.Option("--from", metavar="TIME", help="ISO 8601 [default: now].")] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="ISO 8601; instead of --for.")] = None,
    max_releases: Annotated[
        int | None, typer.Option("--max-releases", min=1, help="For so many jobs [default: any number].")
    ] = None,
    binding: Annotated[Binding, typer.Option("--binding", help="How the digest gets into evidence.")] = Binding.LAUNCH,
    format: FormatOption = Format.TEXT,
) -> None:
    """Sign a grant as the owner of the datasets it names, and bring it to the broker.

    With --manifest, datasets and outputs are those of its zones unless --read or --write say otherwise. Datasets of
    several owners on this machine become one grant each."""
    output, settings = Output(format), Settings.load()
    digests, zones = list(workload or ()), _named(read, write)
    recipients = recipients_of(zones)
    if manifest is not None:
        agreed = _read_manifest(manifest)
        digests.append(agreed.digest())
        every = agreed.datasets_of(agreed.coordinator)
        zones = zones or {d: a for d, a in every.items() if identities.exists(settings, d.owner)}
        recipients = recipients_of(every)
    if not zones:
        raise UsageError("a grant needs datasets: --read OWNER/NAME, --write OWNER/NAME, or --manifest FILE")
    begin = parse_time(from_, "--from") if from_ else datetime.now(UTC)
    chosen, text = read_policy(policy) if policy else local_policy(settings)
    terms = Terms(
        workloads=tuple(digests),
        policy=chosen,
        policy_yaml=text,
        not_before=begin,
        not_after=parse_time(until, "--until") if until else begin + parse_duration(for_),
        signers=tuple(signer or ()),
        recipients=tuple(recipient or recipients),
        max_releases=max_releases,
        binding=WorkloadBinding.LAUNCH if binding is Binding.LAUNCH else None,
    )
    made = []
    with Owners(settings) as owners:
        for owner, own in by_owner(zones).items():
            grant = make_grant(owner, own, terms)
            bring(owners, grant, terms)
            output.say(f"granted as {owner}: {sentence(grant)}")
            made.append(grant)
    if chosen.allow_simulated:
        output.simulated(f"policy {chosen.name} accepts simulated evidence")
    output.data([grant.to_json() for grant in made], "\n".join(grant.id for grant in made))


def _named(read: list[str] | None, write: list[str] | None) -> dict[DatasetName, Access]:
    found: dict[DatasetName, Access] = {}
    for access, names in ((Access.READ, read or ()), (Access.WRITE, write or ())):
        for text in names:
            name = DatasetName.parse(text)
            found[name] = found.get(name, access) | access
    return found


def _read_manifest(path: Path) -> WorkloadManifest:
    """A manifest alone, or as `workload show --format json` prints it; its digest is computed, never believed."""
    import json

    try:
        value: Any = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise FileMissingError(f"manifest {path}: not found") from None
    except (ValueError, RecursionError) as exc:
        raise UsageError(f"manifest {path}: not JSON: {exc}") from exc
    return WorkloadManifest.from_json(value["manifest"] if isinstance(value, dict) and "manifest" in value else value)


@app.command("list", epilog=epilog("casemate grant list", "casemate grant list --format json"))
def list_(format: FormatOption = Format.TEXT) -> None:
    """List the grants of the owners whose identities are on this machine."""
    settings = Settings.load()
    with Owners(settings) as owners:
        rows = [row for name in identities.local_owners(settings) for row in owners.client(name).grants()]
    header = ("id", "owner", "status", "releases", "datasets", "workloads", "policy", "not after")
    Output(format).data(rows, lambda: table([_cells(row) for row in rows], header))


def _cells(row: Mapping[str, Any]) -> tuple[object, ...]:
    limit = row["max_releases"]
    return (
        row["id"],
        row["owner"],
        row["status"],
        f"{row['releases']} of {'any' if limit is None else limit}",
        ", ".join(f"{item['name']}:{item['access']}" for item in row["datasets"]),
        ", ".join(f"{digest[:12]}…" for digest in row["workloads"]) or "by signer",
        row["policy"]["name"],
        row["not_after"][:19],
    )


@app.command(epilog=epilog("casemate grant revoke 0b9f4c1e-6c1d-4a39-9c57-0a7f3f1c2d11"))
def revoke(
    grant: Annotated[str, typer.Argument(metavar="GRANT", help="The grant's id.", show_default=False)],
    format: FormatOption = Format.TEXT,
) -> None:
    """Take a grant back. It opens nothing from then on; jobs that run under it are stopped at their next renewal."""
    settings = Settings.load()
    with Owners(settings) as owners:
        mine = [
            name
            for name in identities.local_owners(settings)
            if any(row["id"] == grant for row in owners.client(name).grants())
        ]
        if not mine:
            raise UsageError(f"no grant {grant!r} of an owner whose identity is on this machine")
        owners.client(mine[0]).revoke_grant(grant)
    Output(format).data({"id": grant, "status": "revoked"}, f"revoked {grant}")
