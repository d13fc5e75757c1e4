"""`up` and `down`: whole or not at all, again and again, and nothing that is not ours."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import time
from pathlib import Path

import psutil
import pytest
from tests.support.cli import Cli, processes_of


def test_up_is_idempotent_and_down_stops_what_it_started(cli: Cli) -> None:
    first = cli.json("up", "--port", "0")
    again = cli.json("up")
    assert first["started"] == ["tee-host", "broker"]
    assert again["started"] == []
    assert again["broker"] == first["broker"]
    assert first["tee_host"]["simulated"] is True
    status = cli.json("status")
    assert status["broker"]["answers"]
    assert status["tee_host"]["answers"]
    assert {row["name"] for row in cli.json("down")["stopped"]} == {"broker", "tee-host"}
    assert cli.json("down")["stopped"] == []
    assert processes_of(cli.home) == []
    assert cli.run("status").status == 3


def test_state_survives_down_and_up(cli: Cli) -> None:
    cli.ok("up", "--port", "0", "--audience", "https://service.example")
    cli.ok("key", "create", "o/d")
    cli.ok("down")
    running = cli.json("up")
    assert [row["name"] for row in cli.json("key", "list")] == ["o/d"]
    assert "https://service.example" in psutil.Process(running["broker"]["pid"]).cmdline()  # remembered
    assert "casemate down" in cli.run("up", "--audience", "https://other.example").err
    cli.ok("up", "--audience", "https://service.example")  # the same changes nothing


def test_private_files_are_private(cli: Cli) -> None:
    cli.ok("up", "--port", "0")
    cli.ok("key", "create", "o/d")
    public = {"ca.pem", "root_ca.der", "simulator_root.der"}
    for path in cli.home.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        inside_private = stat.S_IMODE(cli.home.stat().st_mode) == 0o700
        if path.suffix == ".pem" and path.name not in public:
            assert mode & 0o077 == 0, path
        assert inside_private
    doctor = {row["check"]: row["state"] for row in json.loads(cli.run("doctor", "--format", "json").out)}
    assert doctor["permissions"] == "ok"
    assert doctor["broker"] == "ok"


def test_a_taken_port_is_one_line_and_leaves_nothing_running(cli: Cli) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = cli.run("up", "--port", str(port)).refused(1, "port-in-use")
    assert str(port) in done.err
    assert processes_of(cli.home) == []
    cli.ok("up", "--port", str(port))


def test_another_port_than_the_running_one_is_refused(cli: Cli) -> None:
    cli.ok("up", "--port", "0")
    assert "casemate down" in cli.run("up", "--port", "1").err


def test_a_broker_that_cannot_start_takes_everything_down_again(cli: Cli) -> None:
    cli.ok("up", "--port", "0")
    cli.ok("down")
    (cli.home / "broker" / "root.passphrase").write_text("another one\n")
    cli.run("up").refused(1, "start-failed", "root-key-locked")
    assert processes_of(cli.home) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_up_leaves_nothing_running(cli: Cli, number: signal.Signals) -> None:
    process = cli.start("up", "--port", "0")
    deadline = time.monotonic() + 30
    while not processes_of(cli.home):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert err.splitlines()[-1] == "interrupted"
    assert processes_of(cli.home) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_in_the_foreground_both_end_with_the_command(cli: Cli, number: signal.Signals) -> None:
    process = cli.start("up", "--foreground", "--port", "0")
    assert process.stdout is not None
    assert process.stdout.readline().startswith("ready")
    process.send_signal(number)
    process.communicate(timeout=60)
    assert processes_of(cli.home) == []


def test_in_the_foreground_a_service_that_dies_is_told_and_the_other_stopped(cli: Cli) -> None:
    process = cli.start("up", "--foreground", "--port", "0", "--format", "json")
    assert process.stdout is not None
    text = ""
    while not text.rstrip().endswith("\n}"):
        text += process.stdout.readline()
    os.kill(json.loads(text)["tee_host"]["pid"], signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "tee-host ended" in err
    assert processes_of(cli.home) == []


def test_a_killed_foreground_command_takes_both_with_it(cli: Cli) -> None:
    process = cli.start("up", "--foreground", "--port", "0")
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    process.communicate(timeout=60)
    deadline = time.monotonic() + 20
    while processes_of(cli.home):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_killed_broker_is_started_again_by_up(cli: Cli) -> None:
    before = cli.json("up", "--port", "0")["broker"]["pid"]
    psutil.Process(before).kill()
    cli.run("key", "create", "o/d").refused(3, "broker-unreachable")
    after = cli.json("up")
    assert after["started"] == ["broker"]
    assert after["broker"]["pid"] != before


def test_the_state_directory_can_have_a_long_path(tmp_path: Path) -> None:
    cli = Cli(tmp_path / ("long" * 30) / "home", tmp_path)
    cli.where.mkdir(exist_ok=True)
    cli.home.parent.mkdir(parents=True)
    try:
        cli.ok("up", "--port", "0")
        assert cli.json("status")["tee_host"]["answers"]
    finally:
        cli.run("down")
