"""Run one workload on a machine that launches TEEs: each member of the job in a TEE of its own, all gone at the end.

``local`` masters need one TEE. A standalone cluster is the job's own: a master, workers, then the driver, launched
with the same manifest, so that all carry the workload's digest in their evidence.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from casemate.attestation.platforms.simulator.client import LauncherClient, RunningTee
from casemate.data.errors import IntegrityError
from casemate.errors import CasemateError
from casemate.model import Role
from casemate.workload.errors import MemberLostError, ProgramFailedError, broker_error
from casemate.workload.manifest import WorkloadManifest
from casemate.workload.profile import MASTER_VARIABLE
from casemate.workload.reporting import QUIET_VARIABLE, outcome_of

__all__ = ["OnEvent", "Outcome", "submit"]

READY_TIMEOUT = 120.0  # seconds until a cluster's master listens
_STATUS = {"done": 0, "refused": 1, "failed": 1, "undecided": 3}

OnEvent = Callable[[Mapping[str, Any]], None]
"""Hears every event of every member as it happens: ``{"member": "worker-1", "event": "report", "phase": …}``."""


@dataclass(frozen=True)
class Outcome:
    """How a job ended: ``done``, ``failed``, ``refused`` or ``undecided``; the rest says why, empty when done.

    ``member`` is who said so. ``attestations`` counts the members that attested. Times are seconds since the start."""

    outcome: str
    job: str
    code: str = ""
    message: str = ""
    hint: str = ""
    refusal_id: str | None = None
    member: str = ""
    attestations: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def exit_status(self) -> int:
        """0 done, 1 refused or failed, 3 undecided."""
        return _STATUS.get(self.outcome, 1)


def submit(
    manifest: WorkloadManifest,
    bundle: Path,
    launcher: LauncherClient,
    on_event: OnEvent = lambda _: None,
    *,
    job: str | None = None,
    stdio: tuple[int, int, int] = (0, 1, 2),
) -> Outcome:
    """Run ``manifest`` to its end; the program itself gets ``stdio``. ``bundle`` holds its files and is not trusted.

    An outcome that a TEE reports is returned; what this machine cannot do raises (``SimulatorUnreachableError``,
    ``LaunchRequestError``). However it ends, no TEE of the job is left."""
    return _Job(manifest, bundle, launcher, on_event, job or f"job-{uuid.uuid4().hex[:16]}", stdio).run()


@dataclass
class _Member:
    name: str
    role: Role
    tee: RunningTee
    log: IO[bytes] | None
    report: Mapping[str, Any] | None = None  # the member's own outcome


class _Job:
    def __init__(
        self,
        manifest: WorkloadManifest,
        bundle: Path,
        launcher: LauncherClient,
        on_event: OnEvent,
        job: str,
        stdio: tuple[int, int, int],
    ) -> None:
        self._manifest, self._json = manifest, manifest.to_json()
        self._bundle, self._launcher, self._on_event = bundle, launcher, on_event
        self._job, self._stdio = job, stdio
        self._selector = selectors.DefaultSelector()
        self._members: list[_Member] = []
        self._executors: list[Mapping[str, Any]] = []  # what executors reported about their end
        self._started = time.monotonic()
        self._seconds: dict[str, float] = {}
        self._attestations = 0
        self._damage: CasemateError | None = None

    def run(self) -> Outcome:
        settings = self._manifest.engine_settings
        try:
            if settings.get("master") == "standalone":
                return self._cluster(int(settings.get("workers", 1)))
            role = Role.TASK if self._manifest.engine == "plain" else Role.DRIVER
            driver = self._launch(str(role), role, {})
            return self._until_end(driver)
        finally:
            for member in self._members:
                with contextlib.suppress(CasemateError):
                    member.tee.kill()
                if member.log is not None:
                    member.log.close()
            self._selector.close()

    def _cluster(self, workers: int) -> Outcome:
        master = self._launch("master", Role.MASTER, {})
        url = None
        deadline = time.monotonic() + READY_TIMEOUT
        while url is None:
            for member, event in self._events(deadline - time.monotonic()):
                if event.get("phase") == "address" and member is master:
                    url = str(event.get("url"))
                if event.get("event") == "exited":
                    return self._lost(member)
            if time.monotonic() > deadline:
                return self._failed(MemberLostError(f"master: not ready after {READY_TIMEOUT:.0f} s"), "master")
        told = {MASTER_VARIABLE: url}
        for number in range(1, workers + 1):
            self._launch(f"worker-{number}", Role.WORKER, told)
        return self._until_end(self._launch("driver", Role.DRIVER, told))

    def _launch(self, name: str, role: Role, told: Mapping[str, str]) -> _Member:
        own_output = role in (Role.DRIVER, Role.TASK)
        log = None if own_output else tempfile.TemporaryFile(prefix="casemate-")  # noqa: SIM115 - lives as the member
        null = os.open(os.devnull, os.O_RDONLY)
        try:
            tee = self._launcher.launch(
                self._json,
                job=self._job,
                role=str(role),
                environment={"CASEMATE_BUNDLE": str(self._bundle), QUIET_VARIABLE: "1", **told},
                cwd=Path(self._manifest.working_directory),
                stdio=self._stdio if log is None else (null, log.fileno(), log.fileno()),
            )
        except BaseException:
            if log is not None:
                log.close()
            raise
        finally:
            os.close(null)
        member = _Member(name, role, tee, log)
        self._members.append(member)
        self._selector.register(tee, selectors.EVENT_READ, member)
        self._on_event({"member": name, "event": "started", "tee": tee.id, "measurement": tee.measurement})
        return member

    def _events(self, timeout: float | None = None) -> list[tuple[_Member, Mapping[str, Any]]]:
        """The next events of all members; empty when ``timeout`` seconds pass."""
        found: list[tuple[_Member, Mapping[str, Any]]] = []
        for key, _ in self._selector.select(timeout):
            member: _Member = key.data
            event = member.tee.next_event()
            if event is None:
                continue
            if event.get("event") == "exited":
                self._selector.unregister(member.tee)
            self._note(member, event)
            self._on_event({"member": member.name, **event})
            found.append((member, event))
        return found

    def _note(self, member: _Member, event: Mapping[str, Any]) -> None:
        role, phase = event.get("role", str(member.role)), event.get("phase")
        if phase == "refusal":
            error = broker_error(str(event.get("code")), 403, str(event.get("message")), None)
            if self._damage is None and isinstance(error, IntegrityError):
                self._damage = error
        elif phase is not None:
            name = f"{phase} {member.name if role == member.role else role}"
            self._seconds.setdefault(name, round(time.monotonic() - self._started, 3))
            self._attestations += phase == "attested"
        elif "outcome" in event and role == member.role:
            member.report = event
        elif "outcome" in event:
            self._executors.append(event)

    def _until_end(self, driver: _Member) -> Outcome:
        while True:
            for member, event in self._events():
                if event.get("event") != "exited":
                    continue
                if member is driver:
                    return self._driver_ended(driver)
                running = [m for m in self._members if m.role is Role.WORKER and m.tee.status is None]
                if member.role is Role.MASTER or not running or (member.report or {}).get("outcome") == "refused":
                    return self._lost(member)

    def _driver_ended(self, driver: _Member) -> Outcome:
        while self._events(0):  # what executors told before the driver ended
            pass
        report = driver.report
        if report is None:
            return self._failed(
                ProgramFailedError(f"{self._manifest.name}: ended with status {driver.tee.status}"), driver.name
            )
        if report.get("code") == ProgramFailedError.code:  # the cause may be an executor's to tell
            refused = [r for r in self._executors if r.get("outcome") in ("refused", "undecided")]
            if refused:
                return self._outcome(refused[0], "executor")
        if report.get("outcome") == "done" and self._damage is not None:  # an executor passed over it in silence
            return self._failed(self._damage, "executor")
        return self._outcome(report, driver.name)

    def _lost(self, member: _Member) -> Outcome:
        if member.report is not None and member.report.get("outcome") != "done":
            return self._outcome(member.report, member.name)
        last = _last_line(member.log)
        message = f"{member.name}: ended with status {member.tee.status}{f': {last}' if last else ''}"
        return self._failed(MemberLostError(message), member.name)

    def _failed(self, error: CasemateError, member: str) -> Outcome:
        fields = {"outcome": outcome_of(error), "code": error.code, "message": error.message, "hint": error.fix}
        return self._outcome(fields, member)

    def _outcome(self, report: Mapping[str, Any], member: str) -> Outcome:
        refusal = report.get("refusal_id")
        return Outcome(
            outcome=str(report.get("outcome")),
            job=self._job,
            code=str(report.get("code") or ""),
            message=str(report.get("message") or ""),
            hint=str(report.get("hint") or ""),
            refusal_id=refusal if isinstance(refusal, str) else None,
            member=member,
            attestations=self._attestations,
            seconds={**self._seconds, "end": round(time.monotonic() - self._started, 3)},
        )


def _last_line(log: IO[bytes] | None) -> str:
    if log is None:
        return ""
    log.seek(max(0, log.seek(0, os.SEEK_END) - 4096))
    lines = [line for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
