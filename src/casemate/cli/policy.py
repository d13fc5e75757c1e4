"""Policies as files: an owner's, in either language, and the default one of this machine.

That one accepts the SIMULATED TEE, pinned to the runtime now installed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from casemate.attestation.errors import MalformedPolicyError
from casemate.attestation.platforms.simulator.measure import Measurer
from casemate.attestation.policies import (
    document_of,
    parse_policy,
    parse_reference_values,
    policy_name,
    rego_policy,
)
from casemate.attestation.policy import AppraisalPolicy
from casemate.attestation.rego import RegoPolicy
from casemate.attestation.rego_worker import shared_worker
from casemate.cli.errors import FileMissingError, NotRunningError, RuntimeChangedError
from casemate.files import write_whole
from casemate.settings import Settings

__all__ = [
    "NAME",
    "Pinned",
    "local_policy",
    "pin_runtime",
    "read_policy",
    "read_reference_values",
    "read_text",
    "runtime_measurement",
]

NAME = "local-simulated"
_TEXT = """\
# Written by `casemate up`. This policy accepts SIMULATED evidence, which protects nothing from the administrator of
# this machine. Never grant access to data that matters under it; see docs/guides/policies.md for a production policy.
version: 1
name: {name}
description: Accepts SIMULATED evidence of this machine's TEE host, for the runtime that was installed at the time.
allow_simulated: true
platforms: [tdx]
measurements: ["{measurement}"]
workload_binding: launch
tcb:
  statuses: [UpToDate]
"""


@dataclass(frozen=True)
class Pinned:
    """The default policy and its place; ``previous`` is the measurement it named before, when that was another."""

    path: Path
    policy: AppraisalPolicy
    yaml: str
    measurement: str
    previous: str | None


def _path(settings: Settings) -> Path:
    return settings.home / "policies" / f"{NAME}.yaml"


def runtime_measurement() -> str:
    """What the simulated TEE host measures when it starts the runtime now installed, hex."""
    return Measurer().runtime().hex()


def pin_runtime(settings: Settings) -> Pinned:
    """Write the default policy, unless it names the runtime now installed already."""
    path, measurement = _path(settings), runtime_measurement()
    previous: str | None = None
    if path.exists():
        try:
            text = path.read_text(encoding="utf-8")
            policy = AppraisalPolicy.from_yaml(text)
            named = policy.measurements or []
            if named == [measurement]:
                return Pinned(path, policy, text, measurement, None)
            previous = named[0] if named else None
        except MalformedPolicyError:
            previous = None
    text = _TEXT.format(name=NAME, measurement=measurement)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_whole(path, text.encode())
    return Pinned(path, AppraisalPolicy.from_yaml(text), text, measurement, previous)


def local_policy(settings: Settings) -> tuple[AppraisalPolicy, str]:
    """The default policy and its text; raises ``RuntimeChangedError`` when the installation is another by now."""
    try:
        text = _path(settings).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotRunningError("there is no default policy yet") from None
    policy = AppraisalPolicy.from_yaml(text)
    now = runtime_measurement()
    if policy.measurements and now not in policy.measurements:
        raise RuntimeChangedError(
            f"the policy {policy.name} names the runtime {policy.measurements[0][:16]}…, installed is {now[:16]}…"
        )
    return policy, text


def read_policy(
    path: Path, *, base: AppraisalPolicy | None = None, reference_values: Mapping[str, Any] | None = None
) -> tuple[AppraisalPolicy | RegoPolicy, str]:
    """A policy from a file of the owner's, and its document; raises ``FileMissingError`` or ``MalformedPolicyError``.

    A file that ends in ``.rego`` is Rego by itself; ``base`` and ``reference_values`` are for it. Any other is YAML."""
    text = read_text(path, "policy")
    if path.suffix == ".rego":
        policy = rego_policy(policy_name(path), text, shared_worker(), base=base, reference_values=reference_values)
        return policy, document_of(policy)
    found = parse_policy(text, shared_worker())
    if isinstance(found, RegoPolicy) and reference_values:
        values = {**found.reference_values, **reference_values}
        found = rego_policy(found.name, found.text, shared_worker(), base=found.base, reference_values=values)
        return found, document_of(found)
    return found, text


def read_reference_values(paths: Iterable[Path]) -> dict[str, Any]:
    """Reference values from JSON files, a later one over an earlier one."""
    return {
        name: v for path in paths for name, v in parse_reference_values(read_text(path, "reference values")).items()
    }


def read_text(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise FileMissingError(f"{what} {path}: not found, or not a file") from None
    except UnicodeDecodeError:
        raise MalformedPolicyError(f"{what} {path}: not UTF-8") from None
