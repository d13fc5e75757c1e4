"""Make grants out of what a command line says, and sign them with the owners' keys on this machine."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from casemate.attestation.claims import WorkloadBinding
from casemate.attestation.policies import Policy
from casemate.broker.grants import Grant, sign_grant
from casemate.cli import identities
from casemate.cli.owner import Owners
from casemate.errors import UsageError
from casemate.model import Access, DatasetName

__all__ = ["Terms", "bring", "by_owner", "make_grant", "parse_duration", "parse_time", "recipients_of", "sentence"]

_DURATION = re.compile(r"(\d{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@dataclass(frozen=True)
class Terms:
    """What all grants of one command share."""

    workloads: tuple[str, ...]
    policy: Policy
    policy_yaml: str
    not_before: datetime
    not_after: datetime
    signers: tuple[str, ...] = ()
    recipients: tuple[str, ...] = ()
    max_releases: int | None = None
    binding: WorkloadBinding | None = WorkloadBinding.LAUNCH


def parse_duration(text: str) -> timedelta:
    """``90s``, ``30m``, ``1h``, ``2d``; raises ``UsageError``."""
    match = _DURATION.fullmatch(text)
    if match is None or int(match[1]) == 0:
        raise UsageError(f"duration {text!r}: need a number and s, m, h or d, for example 30m")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def parse_time(text: str, option: str) -> datetime:
    """ISO 8601; a time without offset is UTC."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{option} {text!r}: need an ISO 8601 time, for example 2026-12-01T08:00+00:00") from None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def by_owner(datasets: Mapping[DatasetName, Access]) -> dict[str, dict[DatasetName, Access]]:
    """The datasets of each owner, owners in the order in which they are first named."""
    owners: dict[str, dict[DatasetName, Access]] = {}
    for dataset, access in datasets.items():
        owners.setdefault(dataset.owner, {})[dataset] = access
    return owners


def recipients_of(datasets: Mapping[DatasetName, Access]) -> tuple[str, ...]:
    """Every dataset that a workload with these zones writes to."""
    return tuple(str(dataset) for dataset, access in datasets.items() if access.can_write)


def make_grant(owner: str, datasets: Mapping[DatasetName, Access], terms: Terms) -> Grant:
    """One owner's grant, with a fresh id."""
    return Grant(
        id=str(uuid.uuid4()),
        owner=owner,
        datasets=dict(datasets),
        workloads=terms.workloads,
        workload_signers=terms.signers,
        policy_name=terms.policy.name,
        policy_digest=terms.policy.digest,
        not_before=terms.not_before,
        not_after=terms.not_after,
        max_releases=terms.max_releases,
        recipients=terms.recipients,
        binding=terms.binding,
    )


def bring(owners: Owners, grant: Grant, terms: Terms) -> str:
    """Upload the policy, sign the grant as its owner, and bring it to the broker; its id."""
    client = owners.client(grant.owner)
    client.add_policy(terms.policy_yaml)
    return client.add_grant(sign_grant(grant, identities.load(owners.settings, grant.owner)))


def sentence(grant: Grant) -> str:
    """What the grant says, for people, on one line."""
    datasets = ", ".join(f"{access} {name}" for name, access in grant.datasets.items())
    jobs = "any number of jobs" if grant.max_releases is None else f"{grant.max_releases} job(s)"
    outputs = _listed(grant.recipients) or "nowhere else"
    until = grant.not_after.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"{datasets}; outputs to {outputs}; {jobs} until {until}; policy {grant.policy_name}"


def _listed(items: Sequence[str]) -> str:
    return ", ".join(items)
