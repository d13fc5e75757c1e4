"""Tests that are written in Java, since they use reflection or classes that only Java sees."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.support.fake_agent import FakeAgent

from casemate.model import Access, DatasetName, Zone


def run(program: str, class_path: str, *arguments: str, env: dict[str, str]) -> list[str]:
    """The lines of the tests that passed; fails with those that did not."""
    command = ["java", "-Xmx512m", "-cp", class_path, f"io.casemate.spark.{program}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=240, check=False)
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAIL ")]
    assert not failed, "\n".join(failed)
    assert done.returncode == 0, done.stderr[-3000:]
    return [line for line in done.stdout.splitlines() if line.startswith("ok ")]


def test_the_classes_keep_their_promises_and_open_nothing_without_an_agent(java_class_path: str) -> None:
    env = {name: value for name, value in os.environ.items() if name != "CASEMATE_AGENT_SOCKET"}
    assert len(run("UnitTests", java_class_path, env=env)) >= 20


def test_every_public_method_gives_plaintext_results_or_refuses(java_class_path: str, tmp_path: Path) -> None:
    for area in ("rw", "ro", "private", "outside"):
        (tmp_path / area).mkdir()
    zones = [
        FakeAgent.zone(tmp_path / "rw", "hospital/patients"),
        FakeAgent.zone(tmp_path / "ro", "hospital/patients", "read"),
        Zone(f"bucket://data{tmp_path}/bucket/zone", DatasetName.parse("hospital/patients"), Access.READ_WRITE),
    ]
    with FakeAgent(tmp_path / "a.sock", zones, private_prefixes=[f"file://{tmp_path}/private"]) as agent:
        passed = run("ApiWalk", java_class_path, str(tmp_path), env=agent.environment())
    assert len(passed) >= 594
