"""The built wheel installs into an empty environment and does everything but Spark without a JDK, without PySpark."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from tests.support.cli import processes_of

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.xdist_group("packaging")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of what is in the repository, so that nothing is left there."""
    if shutil.which("javac") is None:
        pytest.skip("building the wheel needs a JDK")
    source = tmp_path_factory.mktemp("source")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = out.glob("*.whl")
    return found


def test_the_jar_and_the_type_marker_are_inside_the_wheel(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "casemate/jars/casemate-spark.jar" in names
    assert "casemate/py.typed" in names
    assert any(name.startswith("casemate/broker/storage/migrations/") and name.endswith(".py") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "java/", "docs/"))]


@pytest.mark.timeout(600)
def test_an_empty_environment_without_a_jdk_has_keys_files_and_a_broker(wheel: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    binaries = tmp_path / "venv" / "bin"
    constraints = str(ROOT / "constraints" / "py311.txt")
    install = [str(binaries / "python"), "-m", "pip", "install", "--quiet", "-c", constraints, str(wheel)]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no package registry in reach: {done.stderr.strip().splitlines()[-1]}")
    environment = {
        "PATH": str(binaries),  # no java, no javac
        "HOME": str(tmp_path),
        "CASEMATE_HOME": str(tmp_path / "home"),
        "LANG": os.environ.get("LANG", "C.UTF-8"),
    }

    def casemate(*arguments: str) -> str:
        command = [str(binaries / "casemate"), *arguments]
        ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, f"{arguments}: {ended.stderr}"
        return ended.stdout

    missing = [str(binaries / "python"), "-c", "import pyspark"]
    assert subprocess.run(missing, capture_output=True, check=False).returncode != 0
    (tmp_path / "patients.csv").write_text("id,age\n1,30\n")
    (tmp_path / "hello.py").write_text("import sys; print(open(sys.argv[0]).read()[:6])")
    try:
        casemate("up", "--port", "0")
        casemate("key", "create", "hospital/patients")
        casemate("encrypt", "patients.csv", "vault/patients", "--dataset", "hospital/patients")
        assert "hospital/patients" in casemate("inspect", "vault/patients")
        assert casemate("submit", "--engine", "plain", "hello.py") == "import\n"
        casemate("decrypt", "vault/patients", "again.csv")
        assert "whole" in casemate("audit", "verify")
        casemate("doctor")
    finally:
        casemate("down")
    assert (tmp_path / "again.csv").read_text() == "id,age\n1,30\n"
    assert processes_of(tmp_path / "home") == []
