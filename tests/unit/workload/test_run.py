"""`casemate run` from its manifest to its end, with a real program and a broker written from the protocol."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.support.kbs_double import KbsDouble
from tests.unit.workload.conftest import EchoAttester, make_manifest

from casemate import engines
from casemate.workload import run as run_module
from casemate.workload.bundle import write_bundle
from casemate.workload.child import descendants
from casemate.workload.run import run

Start = Callable[..., int]
SHOW = "import json, os, sys; print(json.dumps([sys.argv, dict(os.environ), os.getcwd()]))"


@pytest.fixture
def launched(tmp_path: Path, kbs: KbsDouble, program: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Run ``source`` as a launcher would start it; changes to the environment by keyword."""
    monkeypatch.setattr(run_module, "find_attester", lambda _: EchoAttester())
    tee = tmp_path / "tee"
    tee.mkdir(mode=0o700)

    def start(
        source: str,
        *,
        change: Callable[[Path, Path], None] = lambda _manifest, _bundle: None,
        environment: Mapping[str, str | None] | None = None,
        **options: Any,
    ) -> int:
        program.write_text(source)
        manifest, sources = make_manifest(program, kbs.url, kbs.authority.pem, **options)
        bundle, path = tmp_path / f"bundle-{uuid.uuid4().hex}", tmp_path / "manifest.json"
        write_bundle(bundle, manifest, sources)
        path.write_bytes(manifest.canonical())
        change(path, bundle)
        given: dict[str, str | None] = {
            "CASEMATE_MANIFEST": str(path),
            "CASEMATE_BUNDLE": str(bundle),
            "CASEMATE_JOB": "job-1",
            "CASEMATE_ROLE": "task",
            "CASEMATE_TEE_DIR": str(tee),
            **(environment or {}),
        }
        before = set(descendants(os.getpid()))  # a JVM that other tests share may be one
        status = run(engines.load, {name: value for name, value in given.items() if value is not None})
        assert list(tee.iterdir()) == []  # nothing stays in private memory
        assert set(descendants(os.getpid())) <= before
        return status

    return start


def refused(capfd: pytest.CaptureFixture[str]) -> tuple[str, str, str]:
    """Outcome, code and message of the one line on stderr; a hint follows it."""
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 2, lines
    assert lines[1].startswith("hint: ")
    outcome, code, message = lines[0].split(": ", 2)
    return outcome, code, message


def test_the_program_runs_with_its_arguments_and_nothing_of_the_launchers_environment(
    launched: Start, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, program: Path
) -> None:
    monkeypatch.setenv("FROM_OUTSIDE", "x")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/tmp")
    assert launched(SHOW, environment={"EXTRA": "x"}, command=["python", "{program}", "{args}", "--last"]) == 0
    argv, environment, directory = json.loads(capfd.readouterr().out)
    assert argv[1:] == ["a", "b c", "--last"]
    assert argv[0].endswith("/bundle/job.py")
    assert set(environment) <= {
        "PATH", "LANG", "HOME", "TMPDIR", "CASEMATE_AGENT_SOCKET", "PYTHONPATH", "LC_CTYPE"
    }  # fmt: skip
    assert directory == str(program.parent)


def test_the_program_can_read_its_keys_from_the_agent(launched: Start, capfd: pytest.CaptureFixture[str]) -> None:
    source = (
        "from casemate.data.client import AgentClient\nfrom casemate.model import DatasetName\n"
        "c = AgentClient.from_environment()\nprint(c.current_key(DatasetName('hospital', 'patients')).version)\n"
    )
    assert launched(source) == 0
    assert capfd.readouterr().out == "2\n"


def test_a_program_changed_by_one_byte_does_not_run(launched: Start, capfd: pytest.CaptureFixture[str]) -> None:
    def flip(_manifest: Path, bundle: Path) -> None:
        (bundle / "job.py").write_text("print('hellp')\n")

    assert launched("print('hello')\n", change=flip) == 1
    outcome, code, message = refused(capfd)
    assert (outcome, code) == ("refused", "program-changed")
    assert message.startswith("job.py: expected SHA-256 ")


def test_a_failing_program_is_a_failure_and_not_a_refusal(launched: Start, capfd: pytest.CaptureFixture[str]) -> None:
    assert launched("import sys; sys.exit(7)") == 1
    assert refused(capfd) == ("failed", "program-ended", "job.py: the program ended with status 7")


def test_a_refusal_inside_the_program_is_what_is_told(launched: Start, capfd: pytest.CaptureFixture[str]) -> None:
    source = (
        "import sys\nfrom casemate.data.client import AgentClient\nfrom casemate.data.errors import FileTamperedError\n"
        "AgentClient.from_environment().report(FileTamperedError('file:///x.csv: segment 3'))\nsys.exit(1)\n"
    )
    assert launched(source) == 1
    assert refused(capfd) == ("refused", "file-tampered", "file:///x.csv: segment 3")


def test_a_missing_grant_is_refused_before_the_program_starts(
    launched: Start, kbs: KbsDouble, capfd: pytest.CaptureFixture[str]
) -> None:
    kbs.deny("/kbs/v0/resource/hospital", 403, code="grant-missing", detail="no grant names it", refusal_id="r-9")
    assert launched("print('started')") == 1
    assert refused(capfd) == ("refused", "grant-missing", "no grant names it")


def test_a_broker_out_of_reach_is_undecided(launched: Start, kbs: KbsDouble, capfd: pytest.CaptureFixture[str]) -> None:
    kbs.deny("/kbs/v0/auth", 503, detail="later")
    assert launched("print('started')") == 3
    assert refused(capfd)[:2] == ("undecided", "key-broker-unreachable")


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"CASEMATE_ROLE": None}, "CASEMATE_ROLE"),
        ({"CASEMATE_ROLE": "boss"}, "CASEMATE_ROLE"),
        ({"CASEMATE_JOB": ""}, "CASEMATE_JOB"),
        ({"CASEMATE_BUNDLE": None}, "CASEMATE_BUNDLE"),
        ({"CASEMATE_MANIFEST": "/nowhere"}, "/nowhere"),
        ({"CASEMATE_TEE_DIR": "/nowhere"}, "/nowhere"),
        ({"CASEMATE_TEE_DIR": "/tmp"}, "0700"),
    ],
)
def test_a_launcher_that_says_too_little_is_told_what(
    launched: Start, capfd: pytest.CaptureFixture[str], environment: dict[str, str | None], named: str
) -> None:
    assert launched("print('started')", environment=environment) == 1
    outcome, code, message = refused(capfd)
    assert (outcome, code) == ("refused", "run-environment")
    assert named in message


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"engine": "flink"}, "engine-unknown"),
        ({"engine_settings": {"x": 1}}, "engine-settings"),
        ({"command": ["no-such-program"]}, "engine-unavailable"),
        ({"working_directory": Path("/nowhere")}, "failed"),
    ],
)
def test_what_cannot_be_started_is_said(
    launched: Start, capfd: pytest.CaptureFixture[str], options: dict[str, Any], code: str
) -> None:
    assert launched("print('started')", **options) == 1
    assert refused(capfd)[1] == code


def test_another_installation_is_refused(launched: Start, capfd: pytest.CaptureFixture[str]) -> None:
    def change(path: Path, _bundle: Path) -> None:
        value = json.loads(path.read_text())
        value["runtime"]["lock_sha256"] = "0" * 64
        path.write_text(json.dumps(value))

    assert launched("print('started')", change=change) == 1
    assert refused(capfd)[:2] == ("refused", "runtime-mismatch")


def test_a_withdrawn_grant_stops_the_program(
    launched: Start, kbs: KbsDouble, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    kbs.token_seconds = 2
    begun = tmp_path / "begun"

    def withdraw() -> None:
        wait_for(begun)
        kbs.deny("/kbs/v0/resource/hospital/patients", 403, code="grant-revoked", detail="by the owner")

    thread = threading.Thread(target=withdraw)
    thread.start()
    started = time.monotonic()
    assert launched(f"import time; open({str(begun)!r}, 'w').close(); time.sleep(60)") == 1
    thread.join()
    assert refused(capfd) == ("refused", "grant-revoked", "by the owner")
    assert time.monotonic() - started < 20


def test_a_broker_away_for_a_while_stops_nothing_but_away_for_good_does(
    launched: Start, kbs: KbsDouble, capfd: pytest.CaptureFixture[str]
) -> None:
    kbs.token_seconds = 3
    threading.Timer(0.7, lambda: kbs.deny("/kbs", 503, detail="away")).start()
    threading.Timer(1.9, kbs.denials.clear).start()
    assert launched("import time; time.sleep(4)") == 0
    capfd.readouterr()
    kbs.token_seconds = 2
    threading.Timer(1.0, lambda: kbs.deny("/kbs", 503, detail="away")).start()
    assert launched("import time; time.sleep(60)") == 3
    assert refused(capfd)[:2] == ("undecided", "key-broker-unreachable")


def test_a_signal_reaches_the_program_and_leaves_nothing(launched: Start, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    source = (
        "import signal, subprocess, sys, time\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True)\n"
        f"signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\nopen({str(begun)!r}, 'w').close()\ntime.sleep(60)\n"
    )

    def send() -> None:
        wait_for(begun)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=send)
    thread.start()
    assert launched(source) == 128 + signal.SIGTERM
    thread.join()


def test_a_detached_descendant_ends_with_its_program(launched: Start) -> None:
    source = (
        "import subprocess, sys\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True)\n"
    )
    assert launched(source) == 0  # and the fixture looks for what is left


def test_the_interpreter_is_the_measured_one(launched: Start, capfd: pytest.CaptureFixture[str]) -> None:
    assert launched("import sys; print(sys.executable)") == 0
    assert capfd.readouterr().out.strip() == sys.executable


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
