"""Simulated machines in processes of their own: one for tests that leave it alone, one each for those that do not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.simulated_machine import Machine, start_machine


@pytest.fixture(scope="module")
def shared_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    base = tmp_path_factory.mktemp("machine")
    machine = start_machine(base / "tee", base / "run" / "tee-host.sock", base)
    yield machine
    machine.close()


@pytest.fixture
def machine(shared_machine: Machine, tmp_path: Path) -> Machine:
    """The shared machine, with a working directory of the test's own."""
    return Machine(shared_machine.process, shared_machine.state, shared_machine.socket, tmp_path)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Machine]]:
    """Start a machine that the test may stop or kill."""
    started: list[Machine] = []

    def start_one(socket: Path | None = None) -> Machine:
        machine = start_machine(tmp_path / "tee", socket or tmp_path / "run" / "tee-host.sock", tmp_path)
        started.append(machine)
        return machine

    yield start_one
    for machine in started:
        machine.close()
