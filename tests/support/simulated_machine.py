"""The simulated TEE machine as a real process, for tests that launch programs in it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from casemate.attestation.platforms.simulator.client import LauncherClient, RunningTee
from casemate.attestation.trust import TrustStore
from casemate.attestation.trust_files import load_collateral

HOST = "casemate.attestation.platforms.simulator.host"
PRELUDE = """
import os, sys, time
from casemate.attestation.detect import find_attester
attester = find_attester()
"""
MANIFEST = {"version": 1, "name": "test"}


@dataclass
class Machine:
    """A running host process and a client of it."""

    process: subprocess.Popen[str]
    state: Path
    socket: Path
    work: Path

    @property
    def client(self) -> LauncherClient:
        return LauncherClient(self.socket)

    def trust(self) -> TrustStore:
        collateral = [load_collateral(path) for path in sorted(self.state.glob("collateral*.json"))]
        return TrustStore(simulator_root=(self.state / "root_ca.der").read_bytes(), collateral=collateral)

    def launch(self, source: str, *arguments: str, manifest: dict[str, object] | None = None) -> RunningTee:
        """Start a Python program in a TEE; it has ``attester`` and ``os`` at hand and /dev/null as its terminal."""
        text = PRELUDE + source
        program = self.work / f"program-{hashlib.sha256(text.encode()).hexdigest()[:16]}.py"
        if not program.exists():  # one that runs already may be reading it
            program.write_text(text)
        return self.launch_image([sys.executable, str(program), *arguments], manifest=manifest)

    def launch_image(self, image: Sequence[str], *, manifest: dict[str, object] | None = None) -> RunningTee:
        null = os.open(os.devnull, os.O_RDWR)
        try:
            return self.client.launch(
                manifest or MANIFEST, job="job-1", role="driver", cwd=self.work, image=image, stdio=(null, null, 2)
            )
        finally:
            os.close(null)

    def close(self) -> None:
        if self.process.poll() is None:
            self.stop()

    def stop(self, signum: int = signal.SIGTERM) -> int:
        self.process.send_signal(signum)
        return self.process.wait(timeout=20)

    def directories(self) -> list[Path]:
        """What this host keeps in memory-backed directories."""
        pattern = f"casemate-tee-{self.process.pid}-*"
        return [*Path("/dev/shm").glob(pattern), *Path("/tmp").glob(pattern)]


def start_machine(state: Path, socket: Path, work: Path) -> Machine:
    """A host in a process of its own; the caller stops it."""
    command = [sys.executable, "-m", HOST, "--state", str(state), "--socket", str(socket)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        assert "SIMULATED" in process.stdout.readline()
    return Machine(process, state, socket, work)


def wait_until_gone(*pids: int, seconds: float = 10.0) -> None:
    """Fail unless all processes have ended in time."""
    end = time.monotonic() + seconds
    while alive := [pid for pid in pids if _alive(pid)]:
        if time.monotonic() > end:
            for pid in alive:
                os.kill(pid, signal.SIGKILL)
            pytest.fail(f"processes {alive} outlived their TEE")
        time.sleep(0.01)


def _alive(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False


def now() -> datetime:
    return datetime.now(UTC)
