"""The simulated machine as a real process: what it vouches for, whom it refuses, and that nothing outlives it."""

from __future__ import annotations

import base64
import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.simulated_machine import HOST, MANIFEST, PRELUDE, Machine, now, wait_until_gone

from casemate.attestation.binding import carries_digest, report_data
from casemate.attestation.evidence import Evidence
from casemate.attestation.platforms.simulator.client import LauncherClient, RunningTee, SimulatorAttester
from casemate.attestation.platforms.simulator.errors import (
    LaunchRequestError,
    OutsideTeeError,
    SimulatorProtocolError,
    SimulatorUnreachableError,
)
from casemate.attestation.platforms.simulator.wire import connect, receive, send
from casemate.attestation.policy import Outcome, default_policy
from casemate.crypto.canonical import canonical_json
from casemate.crypto.jose import KeyPair

QUOTE = """
quote = attester.collect(bytes.fromhex(sys.argv[1])).body["quote"]
attester.report(quote=quote)
"""
# A daemon: forked twice, in a session of its own, with its streams closed.
DAEMON = """
first = os.fork()
if first == 0:
    os.setsid()
    if os.fork() == 0:
        for fd in (0, 1, 2):
            os.close(fd)
        time.sleep(0.2)
        {work}
        time.sleep(600)
    os._exit(0)
os.waitpid(first, 0)
"""
STAY = DAEMON.format(work="attester.report(pid=os.getpid())") + "time.sleep(600)\n"


def first_report(tee: RunningTee) -> dict[str, Any]:
    event = tee.next_event()
    assert event is not None
    assert event["event"] == "report", event
    return event


def test_a_quote_says_what_was_launched_and_what_it_is_bound_to(machine: Machine) -> None:
    data = report_data("bm9uY2U", KeyPair.generate().public)
    with machine.launch(QUOTE, data.hex()) as tee:
        quote = first_report(tee)["quote"]
        assert tee.wait() == 0
    claims = machine.trust().verify(Evidence("tdx", {"quote": quote}), now=now())
    assert claims.simulated
    assert claims.report_data == data.hex()
    assert claims.measurement == tee.measurement
    assert claims.workload == tee.workload == hashlib.sha384(canonical_json(MANIFEST)).hexdigest()
    assert carries_digest(claims.workload, tee.workload)
    appraisal = default_policy().appraise(claims, now=now())
    assert (appraisal.outcome, appraisal.codes) == (Outcome.REFUSED, ("simulated-evidence",))


def test_a_process_outside_the_tee_gets_no_quote(machine: Machine) -> None:
    with machine.launch("attester.report(path=os.environ['CASEMATE_TEE_SOCKET']); time.sleep(600)") as tee:
        outside = SimulatorAttester(Path(first_report(tee)["path"]))
        for ask in (lambda: outside.collect(bytes(64)), outside.info, lambda: outside.report(outcome="done")):
            with pytest.raises(OutsideTeeError):
                ask()
        tee.kill()


def test_a_process_of_another_tee_gets_no_quote(machine: Machine) -> None:
    with machine.launch("attester.report(path=os.environ['CASEMATE_TEE_SOCKET']); time.sleep(600)") as first:
        path = first_report(first)["path"]
        borrow = """
from pathlib import Path
from casemate.attestation.platforms.simulator.client import SimulatorAttester
try:
    SimulatorAttester(Path(sys.argv[1])).collect(bytes(64))
except Exception as exc:
    attester.report(code=exc.code)
"""
        with machine.launch(borrow, path) as second:
            assert first_report(second)["code"] == "outside-tee"
            assert second.wait() == 0
        first.kill()


def test_a_program_cannot_choose_its_measurement_or_its_workload(machine: Machine) -> None:
    lie = """
reply = attester._ask({"op": "quote", "report_data": "A" * 85 + "A==", "mrtd": "00" * 48, "measurement": "00" * 48,
                       "workload": "00" * 48, "mr_config_id": "00" * 48, "manifest": {}})
open(os.environ["CASEMATE_MANIFEST"], "w").write("{}")
os.environ["CASEMATE_JOB"] = "another"
again = attester.collect(bytes(64)).body["quote"]
attester.report(quotes=[reply["quote"], again])
"""
    with machine.launch(lie) as tee:
        quotes = first_report(tee)["quotes"]
        assert tee.wait() == 0
    for quote in quotes:
        claims = machine.trust().verify(Evidence("tdx", {"quote": quote}), now=now())
        assert (claims.measurement, claims.workload) == (tee.measurement, tee.workload)


def test_one_changed_byte_of_program_or_manifest_changes_the_evidence(machine: Machine) -> None:
    with machine.launch("pass") as one, machine.launch("pass#") as two:
        assert one.measurement != two.measurement
        assert one.workload == two.workload
    with machine.launch("pass", manifest={"version": 2}) as three:
        assert three.workload != one.workload
        assert three.measurement == one.measurement


def test_the_working_directory_puts_no_code_into_the_runtime(machine: Machine) -> None:
    for name in ("casemate", "json", "typer"):
        (machine.work / f"{name}.py").write_text(f"open({str(machine.work / 'injected')!r}, 'w')")
    with machine.client.launch(MANIFEST, job="j", role="driver", cwd=machine.work) as tee:
        assert tee.wait() != 0  # the manifest is not one
    assert not (machine.work / "injected").exists()


def test_streams_are_the_launcher_s_own(machine: Machine) -> None:
    stdin, to_program = os.pipe()
    from_program, stdout = os.pipe()
    os.write(to_program, b"hello")
    os.close(to_program)
    with machine.client.launch(
        MANIFEST, job="j", role="task", cwd=machine.work, image=["/bin/cat"], stdio=(stdin, stdout, 2)
    ) as tee:
        os.close(stdin)
        os.close(stdout)
        assert tee.wait() == 0
    assert os.read(from_program, 100) == b"hello"
    assert os.read(from_program, 100) == b""
    os.close(from_program)


@pytest.mark.parametrize(
    ("source", "status"), [("sys.exit(7)", 7), ("os.kill(os.getpid(), 9)", 137), ("os.kill(os.getpid(), 15)", 143)]
)
def test_the_end_of_a_program_is_told_with_its_status(machine: Machine, source: str, status: int) -> None:
    with machine.launch(source) as tee:
        assert tee.wait() == status
    assert machine.directories()[0].exists()
    assert list(machine.directories()[0].iterdir()) == []


def test_a_program_that_cannot_start_leaves_nothing(machine: Machine) -> None:
    plain = machine.work / "plain.txt"
    plain.write_text("not a program")
    for image in ([str(plain)], [str(machine.work / "none")]):
        with pytest.raises(LaunchRequestError):
            machine.launch_image(image)
    assert list(machine.directories()[0].iterdir()) == []


def test_a_daemonised_descendant_still_belongs_to_its_tee(machine: Machine) -> None:
    with machine.launch(
        DAEMON.format(work="attester.report(pid=os.getpid(), info=attester.info())") + "time.sleep(600)"
    ) as tee:
        event = first_report(tee)
        assert event["info"]["tee"] == tee.id
        tee.kill()
    wait_until_gone(event["pid"], tee.pid)


def test_daemons_end_with_their_program(machine: Machine) -> None:
    told = "while not os.path.exists('told'):\n    time.sleep(0.01)\n"
    source = DAEMON.format(work="attester.report(pid=os.getpid()); open('told', 'w').close()") + told
    with machine.launch(source) as tee:
        daemon = first_report(tee)["pid"]
        assert tee.wait() == 0
        wait_until_gone(daemon, seconds=1)  # the end is told when nothing is left


def test_closing_the_launch_connection_ends_the_whole_tree(machine: Machine) -> None:
    tee = machine.launch(STAY)
    daemon = first_report(tee)["pid"]
    tee.close()
    wait_until_gone(daemon, tee.pid)


def test_killing_the_submitter_ends_the_whole_tree(machine: Machine) -> None:
    program = machine.work / "stay.py"
    program.write_text(PRELUDE + STAY)
    submitter = machine.work / "submit.py"
    submitter.write_text(
        "import sys\nfrom pathlib import Path\n"
        "from casemate.attestation.platforms.simulator.client import LauncherClient\n"
        f"tee = LauncherClient(Path({str(machine.socket)!r})).launch({MANIFEST!r}, job='j', role='driver', "
        f"image=[sys.executable, {str(program)!r}])\n"
        "print(tee.pid, tee.next_event()['pid'], flush=True)\ntee.wait()\n"
    )
    process = subprocess.Popen([sys.executable, str(submitter)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        pids = [int(word) for word in process.stdout.readline().split()]
        process.kill()
        process.wait()
    assert len(pids) == 2
    wait_until_gone(*pids)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_nothing_outlives_the_machine(start: Callable[..., Machine], signum: int) -> None:
    machine = start()
    tees = [machine.launch(STAY) for _ in range(2)]
    pids = [pid for tee in tees for pid in (tee.pid, first_report(tee)["pid"])]
    status = machine.stop(signum)
    assert status == (-signal.SIGKILL if signum == signal.SIGKILL else 0)
    wait_until_gone(*pids)
    for tee in tees:
        if signum == signal.SIGKILL:
            with pytest.raises(SimulatorUnreachableError):
                tee.wait()
        else:
            assert tee.wait() == 137
        tee.close()
    end = time.monotonic() + 5
    while machine.directories() and time.monotonic() < end:
        time.sleep(0.01)
    assert machine.directories() == []
    assert machine.socket.exists() is (signum == signal.SIGKILL)


def test_a_killed_machine_can_be_started_again_and_cleans_up(start: Callable[..., Machine]) -> None:
    killed = start()
    killed.stop(signal.SIGKILL)
    left = killed.directories()
    again = start()
    assert again.client.ping()["pid"] == again.process.pid
    assert not any(path.exists() for path in left)


def test_a_killed_guard_takes_its_tree_with_it(machine: Machine) -> None:
    import psutil

    with machine.launch(STAY) as tee:
        daemon = first_report(tee)["pid"]
        guard = psutil.Process(tee.pid).ppid()
        os.kill(guard, signal.SIGKILL)
        assert tee.wait() == 137
        wait_until_gone(tee.pid, daemon)
    assert machine.client.ping()["simulated"]


def test_terminate_asks_and_kill_does_not(machine: Machine) -> None:
    polite = """
import signal
signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
attester.report(ready=True)
time.sleep(600)
"""
    with machine.launch(polite) as tee:
        first_report(tee)
        tee.terminate()
        assert tee.wait() == 5
    with machine.launch(polite) as tee:
        first_report(tee)
        tee.kill()
        assert tee.status == 137


def test_a_second_machine_on_the_same_socket_is_refused(machine: Machine) -> None:
    command = [sys.executable, "-m", HOST, "--state", str(machine.state), "--socket", str(machine.socket)]
    second = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert second.returncode == 1
    assert "tee-host-running" in second.stderr
    assert machine.client.ping()["pid"] == machine.process.pid


def test_a_state_directory_that_cannot_be_used_gives_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    command = [sys.executable, "-m", HOST, "--state", str(tmp_path / "file"), "--socket", str(tmp_path / "s")]
    host = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert host.returncode == 1
    assert host.stderr.startswith("failed: failed: SIMULATED TEE host")
    assert "Traceback" not in host.stderr


def test_a_long_socket_path_works(tmp_path: Path, start: Callable[..., Machine]) -> None:
    path = tmp_path / ("d" * 60) / ("e" * 60) / "tee-host.sock"
    assert start(path).client.ping()["simulated"]


def test_the_socket_is_for_its_owner_alone(machine: Machine) -> None:
    assert machine.socket.stat().st_mode & 0o777 == 0o600
    (base,) = machine.directories()
    assert base.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "data", [b"\xff" * 64, b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\x02{}", b'\0\0\0\x0f{"op":"launch"}', b"\0\0"]
)
def test_garbage_on_the_socket_leaves_the_machine_running(machine: Machine, data: bytes) -> None:
    with connect(machine.socket) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(4096):
            pass
    assert machine.client.ping()["simulated"]


def test_requests_out_of_place_are_refused(machine: Machine) -> None:
    for message in ({"op": "kill"}, {"op": "quote"}, {}, {"op": ["launch"]}):
        with connect(machine.socket) as sock:
            send(sock, message)
            reply = receive(sock)
            assert reply is not None
            assert reply["error"]["code"] == "tee-host-protocol"
    with connect(machine.socket) as sock:
        send(sock, {"op": "launch", "manifest": {}, "job": "j", "role": "driver", "cwd": "/"})
        reply = receive(sock)
        assert reply is not None
        assert "stdin" in reply["error"]["message"]


@pytest.mark.parametrize(
    "data", ["", "*", base64.b64encode(bytes(63)).decode(), None, 5, base64.b64encode(bytes(65)).decode()]
)
def test_malformed_report_data_is_refused_inside_too(machine: Machine, data: object) -> None:
    source = f"""
try:
    attester._ask({{"op": "quote", "report_data": {data!r}}})
except Exception as exc:
    attester.report(code=exc.code)
"""
    with machine.launch(source) as tee:
        assert first_report(tee)["code"] == SimulatorProtocolError.code
        tee.wait()


def test_many_tees_at_once_each_say_their_own_workload(machine: Machine) -> None:
    source = "attester.report(workload=attester.info()['workload'])\ntime.sleep(600)\n"
    tees = [machine.launch(source, manifest={"n": i}) for i in range(12)]
    for i, tee in enumerate(tees):
        assert first_report(tee)["workload"] == hashlib.sha384(canonical_json({"n": i})).hexdigest()
    for tee in tees:
        tee.close()
    wait_until_gone(*(tee.pid for tee in tees))


def test_an_unreachable_machine_is_undecided(tmp_path: Path) -> None:
    with pytest.raises(SimulatorUnreachableError) as caught:
        LauncherClient(tmp_path / "none.sock").ping()
    assert caught.value.exit_status == 3
