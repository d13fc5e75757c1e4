"""One broker, one simulated machine and one small data set for all Spark tests of a run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support.stage import Stage

ROWS = 2000
CANARY = "canary-7c1f0b5e"


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(tmp_path_factory.mktemp("spark")) as stage:
        plain = stage.root / "plain"
        plain.mkdir()
        rows = [f"{n},{n % 7},{CANARY if n == 1234 else f'name-{n}'}\n" for n in range(ROWS)]
        (plain / "patients.csv").write_text("id,ward,name\n" + "".join(rows))
        stage.encrypt("patients", plain, stage.root / "vault" / "patients")
        yield stage
