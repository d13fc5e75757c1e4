"""Identities, the default policy and process records: private, never replaced by accident, never believed blindly."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from casemate.cli import identities, services
from casemate.cli.errors import (
    IdentityMissingError,
    NotRunningError,
    RuntimeChangedError,
    StartFailedError,
    StateBusyError,
)
from casemate.cli.policy import local_policy, pin_runtime, runtime_measurement
from casemate.errors import UsageError
from casemate.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = Settings.at(tmp_path / "home")
    settings.prepare()
    return settings


# --- identities ---


def test_an_identity_is_private_and_comes_back(settings: Settings) -> None:
    key = identities.create(settings, "hospital")
    assert stat.S_IMODE(identities.path(settings, "hospital").stat().st_mode) == 0o600
    assert identities.load(settings, "hospital").thumbprint == key.thumbprint
    assert identities.local_owners(settings) == ["hospital"]


def test_an_identity_is_never_replaced(settings: Settings) -> None:
    key = identities.create(settings, "hospital")
    with pytest.raises(FileExistsError):
        identities.create(settings, "hospital")
    assert identities.load(settings, "hospital").thumbprint == key.thumbprint


@pytest.mark.parametrize("name", ["", "../x", "a/b", "UPPER", ".hidden"])
def test_names_cannot_lead_elsewhere(settings: Settings, name: str) -> None:
    with pytest.raises(UsageError):
        identities.load(settings, name)


def test_an_identity_that_is_not_here_is_named(settings: Settings) -> None:
    with pytest.raises(IdentityMissingError, match="'lab'"):
        identities.load(settings, "lab")


def test_the_administrator_is_made_once_and_is_no_owner(settings: Settings) -> None:
    assert identities.admin(settings).thumbprint == identities.admin(settings).thumbprint
    assert identities.local_owners(settings) == []


# --- the default policy ---


def test_the_default_policy_accepts_simulated_evidence_of_this_runtime_alone(settings: Settings) -> None:
    pinned = pin_runtime(settings)
    assert pinned.policy.allow_simulated
    assert pinned.policy.measurements == [runtime_measurement()]
    assert "SIMULATED" in pinned.yaml
    assert local_policy(settings)[0].digest == pinned.policy.digest


def test_pinning_again_changes_nothing(settings: Settings) -> None:
    first = pin_runtime(settings)
    again = pin_runtime(settings)
    assert (again.policy.digest, again.previous) == (first.policy.digest, None)


def test_another_runtime_is_refused_until_it_is_pinned(settings: Settings) -> None:
    pinned = pin_runtime(settings)
    other = "ab" * 48
    pinned.path.write_text(pinned.yaml.replace(pinned.measurement, other))
    with pytest.raises(RuntimeChangedError, match="abab"):
        local_policy(settings)
    assert pin_runtime(settings).previous == other
    local_policy(settings)


def test_without_up_there_is_no_default_policy(settings: Settings) -> None:
    with pytest.raises(NotRunningError):
        local_policy(settings)


# --- background processes ---

READY = "import pathlib, time, sys; pathlib.Path(sys.argv[1]).touch(); time.sleep(60)"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module to start with ``python -m``: says that it is ready by a file."""
    (tmp_path / "lasting_module.py").write_text(READY)
    (tmp_path / "failing_module.py").write_text(
        "import sys; print('noise'); print('failed: listen-failed: taken', file=sys.stderr); sys.exit(1)"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "lasting_module"


def test_a_service_is_found_again_and_stopped_once(settings: Settings, module: str, tmp_path: Path) -> None:
    flag = tmp_path / "ready"
    service = services.start(settings, "broker", module, [str(flag)], flag.exists)
    try:
        assert services.find(settings, "broker") == service
        assert stat.S_IMODE(service.log.stat().st_mode) == 0o600
    finally:
        stopped = services.stop(settings, "broker")
    assert stopped == service
    assert not psutil.pid_exists(service.pid) or psutil.Process(service.pid).status() == psutil.STATUS_ZOMBIE
    assert services.find(settings, "broker") is None
    assert services.stop(settings, "broker") is None


def test_a_start_that_fails_says_why_and_leaves_nothing(settings: Settings, module: str) -> None:
    with pytest.raises(StartFailedError, match="failed: listen-failed: taken"):
        services.start(settings, "broker", "failing_module", [], lambda: False)
    assert services.find(settings, "broker") is None


def test_a_service_that_does_not_become_ready_is_stopped(settings: Settings, module: str, tmp_path: Path) -> None:
    with pytest.raises(StartFailedError, match="not ready"):
        services.start(settings, "broker", module, [str(tmp_path / "x")], lambda: False, seconds=0.5)
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path / "x") in (p.info["cmdline"] or [])]


def test_a_recycled_process_id_is_not_ours(settings: Settings) -> None:
    mine = psutil.Process(os.getpid())
    record = {"name": "broker", "pid": mine.pid, "started": mine.create_time() - 100, "log": "/x"}
    (settings.run_dir / "broker.json").write_text(json.dumps(record))
    assert services.find(settings, "broker") is None
    assert services.stop(settings, "broker") is None  # and this test goes on running


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x"}', '{"pid": 1}'])
def test_a_damaged_record_is_no_service(settings: Settings, content: str) -> None:
    (settings.run_dir / "broker.json").write_text(content)
    assert services.find(settings, "broker") is None


def test_two_commands_do_not_start_at_once(settings: Settings) -> None:
    with services.exclusive(settings), pytest.raises(StateBusyError), services.exclusive(settings):
        pass


def test_a_tied_service_ends_with_its_starter(settings: Settings, module: str, tmp_path: Path) -> None:
    flag = tmp_path / "ready"
    code = (
        "import os, pathlib, sys\nfrom casemate.cli import services\nfrom casemate.settings import Settings\n"
        f"settings = Settings.at(pathlib.Path({str(settings.home)!r}))\nflag = pathlib.Path({str(flag)!r})\n"
        f"print(services.start(settings, 'broker', {module!r}, [str(flag)], flag.exists, tied=True).pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    pid = int(done.stdout)
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)
