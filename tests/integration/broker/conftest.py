"""A real broker process over TLS, a SIMULATED machine that it trusts, and the parties' clients."""

from __future__ import annotations

import base64
import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.unit.broker.support import PATIENTS, POLICY, PRODUCTION, REPORT, Machine, digest, grant, manifest

from casemate.broker.client import BrokerClient
from casemate.broker.grants import Grant, sign_grant
from casemate.broker.setup import initialise
from casemate.crypto.jose import KeyPair


@dataclass
class RunningBroker:
    """One state directory, and the process that serves it. ``stop`` and ``start`` as often as a test likes."""

    state: Path
    machine: Machine
    admin_key: KeyPair = field(default_factory=KeyPair.generate)
    owner_key: KeyPair = field(default_factory=KeyPair.generate)
    process: subprocess.Popen[str] | None = None
    port: int = 0

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def ca_pem(self) -> str:
        return (self.state / "ca.pem").read_text()

    @property
    def log(self) -> Path:
        return self.state.parent / "broker.log"

    def setup(self) -> None:
        initialise(self.state, self.admin_key.public)
        self.machine.write_trust(self.state / "trust")

    def start(self, *options: str) -> None:
        self.port = self.port or free_port()
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                command(self.state, self.port, *options), stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert "ready" in line, self.log.read_text()

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process is None:
            return 0
        self.process.send_signal(number)
        status = self.process.wait(timeout=20)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None
        return status

    def client(self, key: KeyPair, token: str | None = None) -> BrokerClient:
        return BrokerClient(self.url, self.ca_pem, key, token=token)

    def give(self, **changes: Any) -> Grant:
        """A grant of the hospital, around the present time."""
        now = datetime.now(UTC)
        dates = {"not_before": now - timedelta(hours=1), "not_after": now + timedelta(hours=1)}
        given = grant(**{**dates, **changes})
        with self.client(self.owner_key) as owner:
            owner.add_grant(sign_grant(given, self.owner_key))
        return given

    def quote(self, report_data: bytes, workload: dict[str, Any] | None = None) -> str:
        """What the machine gives to the program it launched with this manifest: base64."""
        return base64.b64encode(self.machine.quote(report_data, digest(workload or manifest()))).decode()


def command(state: Path, port: int, *options: str) -> list[str]:
    return [sys.executable, "-m", "casemate.broker.serve", "--state", str(state), "--port", str(port), *options]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def populate(broker: RunningBroker) -> None:
    """An owner, two datasets, two policies."""
    with broker.client(broker.admin_key) as admin:
        admin.register_owner("hospital", broker.owner_key.public)
    with broker.client(broker.owner_key) as owner:
        for name in (PATIENTS, REPORT):
            owner.create_dataset(name)
        for policy in (POLICY, PRODUCTION):
            owner.add_policy(policy)


@pytest.fixture(scope="session")
def machine() -> Machine:
    return Machine(datetime.now(UTC))


@contextlib.contextmanager
def running(directory: Path, machine: Machine) -> Iterator[RunningBroker]:
    broker = RunningBroker(directory / "broker", machine)
    broker.setup()
    broker.start()
    try:
        populate(broker)
        yield broker
    finally:
        broker.stop(signal.SIGKILL)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory, machine: Machine) -> Iterator[RunningBroker]:
    """One broker for all tests of a file."""
    with running(tmp_path_factory.mktemp("broker"), machine) as made:
        yield made


@pytest.fixture
def own_broker(tmp_path: Path, machine: Machine) -> Iterator[RunningBroker]:
    """A broker of the test's own, to kill and to corrupt."""
    with running(tmp_path, machine) as made:
        yield made
