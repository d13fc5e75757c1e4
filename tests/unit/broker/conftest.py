from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.broker.support import START, Machine, World


@pytest.fixture(scope="session")
def machine() -> Machine:
    return Machine(START)


@pytest.fixture
def world(tmp_path: Path, machine: Machine) -> Iterator[World]:
    made = World(tmp_path, machine)
    yield made
    made.broker.close()
