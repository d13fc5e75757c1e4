"""The Java part under test: compiled test classes, one agent, one JVM that many tests share."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.conformance import kit_keys
from tests.support.fake_agent import FakeAgent
from tests.support.jvm import AREAS, World

ROOT = Path(__file__).resolve().parents[3]
JAR = ROOT / "src/casemate/jars/casemate-spark.jar"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All on one worker of a parallel run, so that each JVM is started once."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("spark" if item.get_closest_marker("spark") else "java"))


@pytest.fixture(scope="session")
def java_class_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Test classes (compiled now), the jar, and Spark's jars."""
    import pyspark

    assert JAR.exists(), "the jar is not built: run `python hatch_build.py`"
    jars = sorted(Path(pyspark.__file__).parent.glob("jars/*.jar"))
    classes = tmp_path_factory.mktemp("java-classes")
    path = os.pathsep.join(map(str, [JAR, *jars]))
    sources = sorted((ROOT / "java/test").rglob("*.java"))
    command = ["javac", "--release", "17", "-proc:none", "-nowarn", "-d", str(classes), "-cp", path, *map(str, sources)]
    subprocess.run(command, check=True, capture_output=True)
    return f"{classes}{os.pathsep}{path}"


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("java")
    for area in AREAS:
        (path / area).mkdir()
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def agent(base: Path) -> Iterator[FakeAgent]:
    zones = [
        FakeAgent.zone(base / "rw", "hospital/patients"),
        FakeAgent.zone(base / "ro", "hospital/patients", "read"),
        FakeAgent.zone(base / "wo", "hospital/report", "write"),
        FakeAgent.zone(base / "other", "clinic/visits"),
        FakeAgent.zone(base / "kit", "kit/patients"),
    ]
    keys = kit_keys("hospital/patients", "hospital/report", "clinic/visits")
    with FakeAgent(base / "agent.sock", zones, keys=keys, private_prefixes=[f"file://{base}/private"]) as agent:
        yield agent


@pytest.fixture(scope="session")
def world(base: Path, agent: FakeAgent, java_class_path: str) -> Iterator[World]:
    log = (base / "probe.log").open("wb")
    process = subprocess.Popen(
        ["java", "-Xmx512m", "-cp", java_class_path, "io.casemate.spark.Probe"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        encoding="utf-8",
        env={**agent.environment(), "LC_ALL": "C.UTF-8"},
    )
    try:
        yield World(base, agent, process)
    finally:
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()
