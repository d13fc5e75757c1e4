"""The simulated machine's parts that need no process: its wire, its requests, its measurements, its state on disk."""

from __future__ import annotations

import socket
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from casemate.attestation.platforms.simulator.errors import (
    LaunchRequestError,
    SimulatorProtocolError,
    SimulatorUnreachableError,
)
from casemate.attestation.platforms.simulator.launch import parse_launch
from casemate.attestation.platforms.simulator.measure import Measurer
from casemate.attestation.platforms.simulator.state import load_or_create
from casemate.attestation.platforms.simulator.wire import FrameBuffer, encode, receive, send
from casemate.errors import FailedError


def test_frames_arrive_whole_however_they_were_cut() -> None:
    stream = encode({"a": 1}) + encode({"b": "ü"}) + encode({})
    for size in (1, 3, 7, len(stream)):
        frames = FrameBuffer()
        got = [m for at in range(0, len(stream), size) for m in frames.feed(stream[at : at + size])]
        assert got == [{"a": 1}, {"b": "ü"}, {}]


@pytest.mark.parametrize(
    "data", [b"\xff\xff\xff\xff", b"\0\0\0\x02[]", b"\0\0\0\x01{", b"\0\0\0\x03\xff\xff\xff", b"\0\0\0\0"]
)
def test_what_is_no_frame_of_a_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(SimulatorProtocolError):
        FrameBuffer().feed(data)
    left, right = socket.socketpair()
    with left, right:
        left.sendall(data)
        with pytest.raises(SimulatorProtocolError):
            receive(right)


def test_a_connection_that_ends_within_a_message_is_an_error() -> None:
    left, right = socket.socketpair()
    with right:
        with left:
            left.sendall(encode({"a": 1})[:-1])
        with pytest.raises(SimulatorUnreachableError):
            receive(right)
    left, right = socket.socketpair()
    with right:
        with left:
            send(left, {"a": 1})
        assert receive(right) == {"a": 1}
        assert receive(right) is None


def request(**changes: Any) -> dict[str, Any]:
    good = {"op": "launch", "manifest": {"version": 1}, "job": "j", "role": "driver", "environment": {}, "cwd": "/"}
    return {**good, **changes}


def test_a_good_request_starts_the_runtime_isolated() -> None:
    parsed = parse_launch(request(environment={"CASEMATE_BUNDLE": "/b"}))
    assert parsed.is_runtime
    assert parsed.command[1:] == ("-I", "-m", "casemate", "run")
    environment = parsed.full_environment({"CASEMATE_JOB": "j"})
    assert (environment["CASEMATE_BUNDLE"], environment["CASEMATE_JOB"]) == ("/b", "j")


@pytest.mark.parametrize(
    "changes",
    [
        {"manifest": None},
        {"manifest": []},
        {"manifest": {"n": 2**60}},
        {"manifest": {"n": float("nan")}},
        {"job": ""},
        {"job": "../x"},
        {"job": 1},
        {"role": "root"},
        {"cwd": "relative"},
        {"cwd": "/no/such/directory"},
        {"cwd": "/\0"},
        {"image": []},
        {"image": "sh"},
        {"image": ["/bin/sh", "a\0b"]},
        {"environment": []},
        {"environment": {"A=B": "1"}},
        {"environment": {"A": 1}},
        {"environment": {"A": "\0"}},
        {"surprise": 1},
    ],
)
def test_a_malformed_launch_request_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(LaunchRequestError):
        parse_launch(request(**changes))


@pytest.mark.parametrize(
    "name",
    ["PYTHONPATH", "PYTHONSTARTUP", "LD_PRELOAD", "LD_LIBRARY_PATH", "JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS",
     "_JAVA_OPTIONS", "BASH_ENV", "GCONV_PATH", "OPENSSL_CONF", "CASEMATE_TEE_SOCKET", "CASEMATE_TEE_DIR",
     "CASEMATE_MANIFEST", "CASEMATE_JOB", "CASEMATE_ROLE"],
)  # fmt: skip
def test_no_variable_puts_unmeasured_code_into_the_runtime(name: str) -> None:
    with pytest.raises(LaunchRequestError, match=name):
        parse_launch(request(environment={name: "x"}))


def test_one_changed_byte_of_an_image_changes_its_measurement(tmp_path: Path) -> None:
    program, measurer = tmp_path / "p", Measurer()
    program.write_text("exit 0")
    before = measurer.image([str(program), "a"])
    assert measurer.image([str(program), "a"]) == before
    assert measurer.image([str(program), "b"]) != before
    program.write_text("exit 1")
    assert measurer.image([str(program), "a"]) != before


def test_the_runtime_s_measurement_is_stable_and_fast_the_second_time() -> None:
    import time

    measurer = Measurer()
    first = measurer.runtime()
    start = time.perf_counter()
    assert measurer.runtime() == first
    assert time.perf_counter() - start < 1.0
    assert first == Measurer().runtime()


def test_an_image_must_be_a_file_by_its_absolute_path(tmp_path: Path) -> None:
    for command in (["sh"], [str(tmp_path)], [str(tmp_path / "none")]):
        with pytest.raises(LaunchRequestError):
            Measurer().image(command)


def test_the_root_stays_and_the_collateral_is_renewed(tmp_path: Path, now: datetime) -> None:
    first = load_or_create(tmp_path, now)
    root, collateral = (tmp_path / "root_ca.der").read_bytes(), (tmp_path / "collateral.json").read_bytes()
    again = load_or_create(tmp_path, now + timedelta(days=1))
    assert (again.root.der, again.pck.der, again.platform) == (first.root.der, first.pck.der, first.platform)
    assert (tmp_path / "collateral.json").read_bytes() == collateral
    load_or_create(tmp_path, now + timedelta(days=25))
    assert (tmp_path / "collateral.json").read_bytes() != collateral
    assert (tmp_path / "root_ca.der").read_bytes() == root


def test_private_keys_are_for_their_owner_alone(tmp_path: Path, now: datetime) -> None:
    load_or_create(tmp_path, now)
    assert (tmp_path / "private").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "private").iterdir()} == {0o600}
    assert not list(tmp_path.rglob(".*"))


def test_a_damaged_state_is_one_clear_error(tmp_path: Path, now: datetime) -> None:
    load_or_create(tmp_path, now)
    (tmp_path / "private" / "pck.pem").write_text("nonsense")
    with pytest.raises(FailedError, match="state"):
        load_or_create(tmp_path, now)
    (tmp_path / "file").write_text("")
    with pytest.raises(FailedError):
        load_or_create(tmp_path / "file", now)


def test_a_first_start_that_was_cut_short_is_made_good(tmp_path: Path, now: datetime) -> None:
    load_or_create(tmp_path, now)
    (tmp_path / "private" / "platform.json").unlink()
    (tmp_path / "private" / "pck.pem").unlink()
    (tmp_path / "collateral.json").write_text("half")
    load_or_create(tmp_path, now)
    assert (tmp_path / "collateral.json").read_text() != "half"
