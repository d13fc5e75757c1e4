"""State directories for the tests of the `casemate` command."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.cli import Cli


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    """A command line without any state."""
    cli = Cli(tmp_path / "home", tmp_path)
    yield cli
    cli.close()


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """Running services with one encrypted dataset, for tests that leave them as they are."""
    where = tmp_path_factory.mktemp("services")
    cli = Cli(where / "home", where)
    try:
        cli.ok("up", "--port", "0")
        cli.write("patients.csv", "id,age\n" + "".join(f"{n},{n % 90}\n" for n in range(1000)))
        cli.ok("key", "create", "hospital/patients")
        cli.ok("encrypt", "patients.csv", "vault/patients", "--dataset", "hospital/patients")
        yield cli
    finally:
        cli.close()
