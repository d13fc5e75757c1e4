"""What `casemate doctor` finds."""

from __future__ import annotations

from pathlib import Path

import pytest

from casemate.cli.checks import State, java_command, java_version, run_checks
from casemate.settings import Settings


def java(directory: Path, says: str) -> Path:
    path = directory / "bin" / "java"
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\necho '{says}' >&2\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("says", "version"),
    [
        ('openjdk version "17.0.13" 2024-10-15', 17),
        ('openjdk version "21" 2023-09-19', 21),
        ('java version "1.8.0_392"', 8),
        ("what", None),
    ],
)
def test_javas_version_is_read(tmp_path: Path, says: str, version: int | None) -> None:
    assert java_version(str(java(tmp_path, says))) == version


def test_java_home_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert java_command() is None
    assert java_command() != java(tmp_path, "x")
    assert java_command() == str(tmp_path / "bin" / "java")


def found(settings: Settings) -> dict[str, tuple[State, str]]:
    return {finding.name: (finding.state, finding.fix) for finding in run_checks(settings)}


def test_an_old_java_fails_and_none_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert found(Settings.at(tmp_path / "home"))["java"][0] is State.WARN
    java(tmp_path, 'java version "1.8.0_392"')
    assert found(Settings.at(tmp_path / "home"))["java"][0] is State.FAIL


def test_a_key_that_others_can_read_fails_and_says_how_to_mend_it(tmp_path: Path) -> None:
    settings = Settings.at(tmp_path / "home")
    settings.prepare()
    key = settings.identities_dir / "hospital.pem"
    key.write_text("x")
    key.chmod(0o644)
    assert found(settings)["permissions"] == (State.FAIL, f"chmod go= {key}")


def test_everything_that_is_amiss_has_a_fix(tmp_path: Path) -> None:
    for finding in run_checks(Settings.at(tmp_path / "nowhere")):
        assert finding.state is State.OK or finding.fix
