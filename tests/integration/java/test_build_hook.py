"""The jar is built from the sources alone, again only when they change, and travels inside the wheel."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what the hook needs."""
    shutil.copytree(ROOT / "java" / "src", tmp_path / "java" / "src")
    return tmp_path


def test_the_same_sources_give_the_same_bytes_and_are_not_built_twice(hook: ModuleType, tree: Path) -> None:
    jar = tree / hook.JAR
    assert hook.build(tree) is True
    assert jar.read_bytes() == (ROOT / hook.JAR).read_bytes()
    assert hook.build(tree) is False
    assert list(jar.parent.iterdir()) == [jar]


def test_the_jar_in_this_checkout_is_of_these_sources(hook: ModuleType) -> None:
    assert hook.is_current(ROOT / hook.JAR, hook.source_digest(ROOT)), "run `python hatch_build.py`"


def test_a_changed_source_is_built_anew(hook: ModuleType, tree: Path) -> None:
    hook.write_jar(tree / "java", tree / hook.JAR, hook.source_digest(tree))
    assert hook.is_current(tree / hook.JAR, hook.source_digest(tree))
    source = tree / "java/src/io/casemate/spark/Zone.java"
    source.write_text(source.read_text() + "// changed\n")
    assert not hook.is_current(tree / hook.JAR, hook.source_digest(tree))


def test_the_jar_holds_our_classes_only_and_no_time(hook: ModuleType) -> None:
    with zipfile.ZipFile(ROOT / hook.JAR) as archive:
        entries = archive.infolist()
    assert {entry.date_time for entry in entries} == {hook.EPOCH}
    assert all(entry.filename.startswith(("META-INF/", "io/casemate/spark/")) for entry in entries)
    names = {entry.filename for entry in entries}
    for name in ("ZoneFileSystem", "ZoneLocalFileSystem", "ZoneAbstractFileSystem"):
        assert f"io/casemate/spark/{name}.class" in names


def test_a_missing_compiler_is_said_in_one_line(hook: ModuleType, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tree))
    monkeypatch.setenv("JAVA_HOME", str(tree))
    with pytest.raises(hook.JavaBuildError, match="need javac 17 or newer") as caught:
        hook.build(tree)
    assert "\n" not in str(caught.value)
    assert not (tree / hook.JAR).exists()


def test_a_missing_pyspark_is_said_in_one_line(hook: ModuleType, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(hook.JavaBuildError, match="PySpark is not installed"):
        hook.build(tree)


def test_what_the_compiler_refuses_leaves_no_jar(
    hook: ModuleType, tree: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tree / "java/src/io/casemate/spark/Zone.java").write_text("class Zone {")
    with pytest.raises(hook.JavaBuildError, match="javac failed"):
        hook.build(tree)
    assert "Zone.java:1: error" in capfd.readouterr().err
    assert not (tree / hook.JAR).exists()


def test_the_wheel_holds_the_jar_and_the_sdist_the_sources(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run([*command, "--wheel"], check=True, capture_output=True)
    subprocess.run([*command, "--sdist"], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert (
            archive.read("casemate/jars/casemate-spark.jar")
            == (ROOT / "src/casemate/jars/casemate-spark.jar").read_bytes()
        )
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    assert "java/src/io/casemate/spark/ZoneFileSystem.java" in names
    assert "hatch_build.py" in names
    assert not any(name.endswith(".jar") for name in names)
