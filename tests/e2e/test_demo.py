"""The demonstration as a newcomer runs it, and what is left of it when somebody pulls a plug."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = [pytest.mark.spark, pytest.mark.timeout(900)]

ATTACKS = {
    "program changed by one byte": "grant-workload-mismatch",
    "another argument than the granted one": "grant-workload-mismatch",
    "a submitter without a grant": "grant-missing",
    "an expired grant": "grant-expired",
    "an executor started outside `casemate run`": "peer-certificate-refused",
    "a replayed attestation": "report-data-mismatch",
    "a policy without allow_simulated": "appraisal-refused",
    "one flipped bit in a stored file": "file-tampered",
    "a truncated file": "file-truncated",
    "two swapped files": "manifest-file-swapped",
    "a deleted part file": "manifest-file-missing",
    "a program that writes outside its zones": "outside-zones",
    "canary search": "nothing-found",
}


def _processes_of(directory: Path) -> list[psutil.Process]:
    """Processes whose arguments or environment name ``directory``, but for this test's own."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = [*process.cmdline(), process.environ().get("CASEMATE_HOME", "")]
            if process.pid != os.getpid() and any(str(directory) in word for word in words):
                found.append(process)
    return found


def _nothing_left(directory: Path, seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while (left := _processes_of(directory)) and time.monotonic() < deadline:
        time.sleep(0.1)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    return not left


def _stale_directories() -> list[Path]:
    """Private memory of machines that are gone; its name holds the machine's process id."""
    found = list(Path("/dev/shm").glob("casemate-tee-*"))
    return [path for path in found if not psutil.pid_exists(int(path.name.split("-")[2]))]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path, str]:
    directory = tmp_path_factory.mktemp("demo") / "out"
    result = subprocess.run(
        [sys.executable, "-m", "casemate", "demo", "--out", str(directory), "--format", "json"],
        capture_output=True,
        text=True,
        timeout=800,
    )
    report = json.loads((directory / "report.json").read_text())
    assert result.returncode == 0, result.stderr[-4000:]
    assert json.loads(result.stdout) == report
    assert _nothing_left(directory)
    assert _stale_directories() == []
    return report, directory, result.stderr


def test_the_result_equals_that_of_plain_spark(finished: tuple[dict[str, Any], Path, str]) -> None:
    report = finished[0]
    assert report["rows"] >= 300_000
    assert report["result_equal_to_plain"], report["differences"]
    assert report["attestations"] >= 6  # master, two workers, driver, two executors


@pytest.mark.parametrize(("name", "code"), ATTACKS.items())
def test_the_attack_is_refused(finished: tuple[dict[str, Any], Path, str], name: str, code: str) -> None:
    attack = next(attack for attack in finished[0]["attacks"] if attack["name"] == name)
    assert attack["refused"], attack["line"]
    assert attack["code"] == code
    assert "\n" not in attack["line"]


def test_no_attack_is_left_out(finished: tuple[dict[str, Any], Path, str]) -> None:
    assert {attack["name"] for attack in finished[0]["attacks"]} == set(ATTACKS)


def test_the_canary_is_found_in_the_plain_run_alone(finished: tuple[dict[str, Any], Path, str]) -> None:
    report = finished[0]
    assert report["canary_places"] == []
    places = " ".join(report["plain_canary_places"])
    assert "plain-report" in places
    assert "plain-scratch" in places
    assert "loopback" in places or not report["loopback_captured"]


def test_the_audit_log_is_whole(finished: tuple[dict[str, Any], Path, str]) -> None:
    assert finished[0]["audit_whole"]
    assert finished[0]["audit_entries"] > 20


def test_it_says_that_the_tee_is_simulated(finished: tuple[dict[str, Any], Path, str]) -> None:
    assert finished[0]["simulated"] is True
    assert "SIMULATED" in finished[2]


@contextlib.contextmanager
def _running_demo(directory: Path, said: str) -> Iterator[subprocess.Popen[str]]:
    """A demonstration that has said ``said``; killed at the end if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "casemate", "demo", "--out", str(directory)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if said in line:
                break
        yield process
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def _service_pid(directory: Path, name: str) -> int:
    return int(json.loads((directory / "home/run" / f"{name}.json").read_text())["pid"])


def _interrupt(process: subprocess.Popen[str], _: Path) -> None:
    os.killpg(process.pid, signal.SIGINT)


def _kill_demo(process: subprocess.Popen[str], _: Path) -> None:
    process.kill()


def _kill_broker(_: subprocess.Popen[str], directory: Path) -> None:
    os.kill(_service_pid(directory, "broker"), signal.SIGKILL)


def _kill_host(_: subprocess.Popen[str], directory: Path) -> None:
    os.kill(_service_pid(directory, "tee-host"), signal.SIGKILL)


@pytest.mark.parametrize(
    "pull",
    [_interrupt, _kill_demo, _kill_broker, _kill_host],
    ids=["ctrl-c", "kill-demo", "kill-broker", "kill-tee-host"],
)
def test_nothing_is_left_when_a_plug_is_pulled(
    tmp_path: Path, pull: Callable[[subprocess.Popen[str], Path], None]
) -> None:
    directory = tmp_path / "out"
    with _running_demo(directory, "$ casemate submit") as process:
        host, deadline = psutil.Process(_service_pid(directory, "tee-host")), time.monotonic() + 60
        while not any("java" in process.name() for process in host.children(recursive=True)):
            assert time.monotonic() < deadline, "the cluster does not start"
            time.sleep(0.1)
        pull(process, directory)
        assert process.stderr is not None
        rest = process.stderr.read()
        assert process.wait(60) != 0
    assert "Traceback" not in rest
    assert _nothing_left(directory)
    assert _stale_directories() == []
