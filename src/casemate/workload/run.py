"""`casemate run`: the entry point of everything inside a TEE.

Nothing that the launcher says is trusted: the manifest is what the hardware was launched with (the broker compares),
and every file is what the manifest says. The engine is injected, since engines build on this package.
"""

from __future__ import annotations

import resource
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import FrameType

from casemate.attestation.detect import find_attester
from casemate.attestation.evidence import WorkloadBinder
from casemate.attestation.platforms.simulator.client import SimulatorAttester
from casemate.data.client import SOCKET_VARIABLE
from casemate.data.errors import IntegrityError
from casemate.errors import CasemateError
from casemate.model import Role
from casemate.workload.agent import Agent
from casemate.workload.bundle import verified_copies
from casemate.workload.child import Child, die_with_parent
from casemate.workload.errors import ProgramFailedError, RunEnvironmentError, broker_error
from casemate.workload.manifest import MAX_MANIFEST_SIZE, WorkloadManifest
from casemate.workload.private import make_private_directory, remove_private_directory
from casemate.workload.profile import Profile, RunContext
from casemate.workload.renewal import Renewal
from casemate.workload.reporting import Reporter, outcome_of
from casemate.workload.runtime import check_runtime
from casemate.workload.session import AttestedSession

__all__ = ["ProfileLoader", "run"]

ProfileLoader = Callable[[str], Profile]
"""Finds the engine profile by its name in the manifest."""

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_STATUS = {"done": 0, "refused": 1, "failed": 1, "undecided": 3}


class _StoppedError(BaseException):
    """A signal came before the program was started."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


def run(load_profile: ProfileLoader, environment: Mapping[str, str], argv: Sequence[str] = ()) -> int:
    """Attest, fetch what was granted, run the program and stay with it; its exit status as 0, 1 (refused or failed)
    or 3 (undecided), 128 + n when signal n stopped it. ``argv`` is for the engine."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would put plaintext and keys on a disk
    reporter = Reporter(environment)
    started = time.monotonic()
    previous = {signum: signal.signal(signum, _stop_early) for signum in (signal.SIGTERM, signal.SIGINT)}
    try:
        member = _Member(load_profile, environment, tuple(argv), reporter, started)
        error, status = member.run()
    except CasemateError as exc:
        error, status = exc, _STATUS[outcome_of(exc)]
    except _StoppedError as exc:
        error, status = None, 128 + exc.signum
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
    if error is None and status:
        reporter.progress("stopped")
    else:
        reporter.end(error)
    return status


def _stop_early(signum: int, _frame: FrameType | None) -> None:
    raise _StoppedError(signum)


class _Member:
    """One process of a job, from its manifest to its end."""

    def __init__(
        self,
        load_profile: ProfileLoader,
        environment: Mapping[str, str],
        argv: tuple[str, ...],
        reporter: Reporter,
        started: float,
    ) -> None:
        self._load_profile, self._environment, self._argv = load_profile, environment, argv
        self._reporter, self._started = reporter, started
        self._refusals: list[tuple[str, str]] = []
        self._damage: CasemateError | None = None
        self._ended_by: CasemateError | None = None

    def run(self) -> tuple[CasemateError | None, int]:
        """What was wrong, if anything, and the exit status."""
        role = _role(self._need("CASEMATE_ROLE"))
        self._reporter.role = str(role)
        if role is Role.EXECUTOR:
            die_with_parent(signal.SIGTERM)
        # 1. The manifest; every digest in it.
        manifest = WorkloadManifest.parse(_read_manifest(Path(self._need("CASEMATE_MANIFEST"))))
        bundle, job = Path(self._need("CASEMATE_BUNDLE")), self._need("CASEMATE_JOB")
        profile = self._load_profile(manifest.engine)
        profile.check(manifest, role)
        check_runtime(manifest.runtime)
        given = self._environment.get("CASEMATE_TEE_DIR")
        with ExitStack() as stack:
            private = make_private_directory(Path(given) if given else None)
            stack.callback(remove_private_directory, private)
            program = verified_copies(manifest, bundle, private / "bundle")
            # 2., 3. Evidence over each broker's challenge; tokens, keys, certificate.
            attester = find_attester(self._environment)
            if isinstance(attester, AbstractContextManager):
                stack.enter_context(attester)
            if isinstance(attester, WorkloadBinder):
                attester.bind_workload(bytes.fromhex(manifest.digest()))
            session = AttestedSession(
                manifest,
                attester,
                job=job,
                role=role,
                private_dir=private,
                program=program,
                simulated=isinstance(attester, SimulatorAttester),
            )
            stack.callback(session.close)
            names = profile.certificate_names(manifest, role)
            session.open(names=names)
            self._progress("attested", workload=session.workload)
            # 4. The agent.
            agent = Agent(session, self._refused)
            agent.start()
            stack.callback(agent.close)
            # 5. The engine's configuration; the program, untouched.
            context = RunContext(self._argv, self._options(), _base_environment(session), bundle)
            launch = profile.prepare(session, context)
            child = Child(launch, lambda phase, fields: self._progress(phase, **fields))
            stack.callback(child.kill_all)
            self._progress("started", pid=child.pid)
            # 6. Renew; stop the program when that is refused.
            renewal = Renewal(
                session,
                names=names,
                on_certificate=lambda: profile.renewed(session),
                on_end=lambda error: self._end(child, error),
            )
            with child.forwarding_signals():
                renewal.start()
                status = child.wait()
                renewal.stop()
        return self._outcome(manifest, status, child.stopped_by, normal=launch.stops_on_signal)

    def _outcome(
        self, manifest: WorkloadManifest, status: int, stopped_by: int | None, *, normal: bool
    ) -> tuple[CasemateError | None, int]:
        if self._ended_by is not None:
            return self._ended_by, _STATUS[outcome_of(self._ended_by)]
        if self._damage is not None:  # whatever the program made of it: it may have passed over the file in silence
            return self._damage, 1
        if stopped_by is not None:
            return None, 0 if normal else 128 + stopped_by
        if status == 0:
            for code, message in self._refusals:
                self._reporter.note(code, message)
            return None, 0
        if self._refusals:
            code, message = self._refusals[0]
            return broker_error(code, 403, message, None), 1
        return ProgramFailedError(f"{manifest.name}: the program ended with status {status}"), 1

    def _end(self, child: Child, error: CasemateError) -> None:
        self._ended_by = error
        child.stop()

    def _refused(self, code: str, message: str) -> None:
        error = broker_error(code, 403, message, None)
        if self._damage is None and isinstance(error, IntegrityError):
            self._damage = error
        if (code, message) not in self._refusals and len(self._refusals) < 100:
            self._refusals.append((code, message))
            self._reporter.progress("refusal", code=code, message=message)

    def _progress(self, phase: str, **fields: object) -> None:
        self._reporter.progress(phase, seconds=round(time.monotonic() - self._started, 3), **fields)

    def _need(self, name: str) -> str:
        value = self._environment.get(name)
        if not value:
            raise RunEnvironmentError(f"{name} is not set")
        return value

    def _options(self) -> dict[str, str]:
        return {name: value for name, value in self._environment.items() if name.startswith("CASEMATE_")}


def _read_manifest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_MANIFEST_SIZE + 1)
    except OSError as exc:
        raise RunEnvironmentError(f"CASEMATE_MANIFEST {path}: {exc.strerror or exc}") from exc


def _role(text: str) -> Role:
    try:
        return Role(text)
    except ValueError:
        raise RunEnvironmentError(f"CASEMATE_ROLE: need one of {', '.join(Role)}, got {text!r}") from None


def _base_environment(session: AttestedSession) -> dict[str, str]:
    """What every program gets: nothing of the launcher's environment, all of the manifest's."""
    home = session.private_dir / "home"
    for directory in (home, session.temporary_dir):
        directory.mkdir(mode=0o700)
    return {
        "PATH": f"{Path(sys.executable).parent}:{_PATH}",
        "LANG": "C.UTF-8",
        "HOME": str(home),
        **session.manifest.environment,
        "TMPDIR": str(session.temporary_dir),
        SOCKET_VARIABLE: str(session.agent_socket),
    }
