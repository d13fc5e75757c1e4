"""For all tests: a state directory that is nobody's, and Spark on one worker at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.hookimpl(tryfirst=True)  # before the parallel run reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that start Spark share one worker of a parallel run: two at once would only wait for each other."""
    for item in items:
        if item.get_closest_marker("spark") and not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group("spark"))


@pytest.fixture(scope="session", autouse=True)
def no_state_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or writes ``~/.casemate``, and none inherits what a TEE's launcher sets."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(("CASEMATE_", "SPARK_"))}
    for name in kept:
        del os.environ[name]
    os.environ["CASEMATE_HOME"] = str(tmp_path_factory.mktemp("home") / "untouched")
    yield
    os.environ.pop("CASEMATE_HOME", None)
    os.environ.update(kept)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state directory of this test's own."""
    path = tmp_path / "home"
    monkeypatch.setenv("CASEMATE_HOME", str(path))
    return path
