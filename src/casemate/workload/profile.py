"""What an engine has to say: how to start its processes, given an attested session. Engines implement ``Profile``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from casemate.model import Role
from casemate.workload.manifest import WorkloadManifest
from casemate.workload.session import AttestedSession

__all__ = ["MASTER_VARIABLE", "Announcement", "Launch", "Profile", "RunContext"]

MASTER_VARIABLE = "CASEMATE_MASTER"  # where a cluster's master listens; its certificate, not this, is the proof


@dataclass(frozen=True)
class RunContext:
    """What the launcher told this process beside the manifest. None of it is trusted, none of it is secret.

    ``options`` are the variables named ``CASEMATE_…`` (the master's address, a port), ``argv`` what followed
    ``casemate run --``, ``base_environment`` what the program's environment starts from."""

    argv: tuple[str, ...]
    options: Mapping[str, str]
    base_environment: Mapping[str, str]
    bundle: Path


@dataclass(frozen=True)
class Announcement:
    """A line of the program's stderr that the launcher waits for; its named groups are reported."""

    pattern: re.Pattern[str]
    phase: str


@dataclass(frozen=True)
class Launch:
    """The program to start. ``stops_on_signal``: being stopped is this process's normal end (a master, a worker)."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    working_directory: str
    announcements: tuple[Announcement, ...] = field(default=())
    stops_on_signal: bool = False


class Profile(Protocol):
    """One engine. Everything it writes goes below ``session.private_dir``."""

    def check(self, manifest: WorkloadManifest, role: Role) -> None:
        """Refuse settings that would weaken protection, before anything is attested or started."""
        ...

    def certificate_names(self, manifest: WorkloadManifest, role: Role) -> tuple[str, ...]:
        """Host names and addresses the job certificate must hold beside localhost."""
        ...

    def prepare(self, session: AttestedSession, context: RunContext) -> Launch:
        """Write the engine's configuration and say what to start."""
        ...

    def renewed(self, session: AttestedSession) -> None:
        """The session has a new job certificate: put it where the engine finds it."""
        ...
