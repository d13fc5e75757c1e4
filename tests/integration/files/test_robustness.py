"""What programs and machines do to a mount: odd writes, signals, full disks, killed servers; each as on plain storage,
and never half a file under its name."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from tests.support.fake_agent import FakeAgent
from tests.support.plain_programs import BOTH, Programs, needs_fuse

from casemate.data.dataset import decrypt_tree, encrypt_tree, verify_tree
from casemate.model import DatasetName
from casemate.workload.files import mount

PATIENTS, REPORT = DatasetName.parse("hospital/patients"), DatasetName.parse("hospital/report")


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    zones = [
        FakeAgent.zone(tmp_path / "in", str(PATIENTS), "read"),
        FakeAgent.zone(tmp_path / "rw", str(PATIENTS)),
        FakeAgent.zone(tmp_path / "rw" / "inner", str(PATIENTS)),
        FakeAgent.zone(tmp_path / "wo", str(REPORT), "write"),
    ]
    plain = tmp_path / "plain"
    plain.mkdir()
    for name in ("a", "b", "c"):
        (plain / name).write_text(f"{name}\n" * 50_000)
    with Programs(tmp_path, zones) as programs:
        for name in ("in", "rw"):
            encrypt(programs, plain, tmp_path / name)
        yield programs


def encrypt(programs: Programs, source: Path, target: Path) -> None:
    encrypt_tree(source, target, dataset=PATIENTS, keys=programs.agent.keys, records=programs.agent.records)


def decrypted(programs: Programs, name: str) -> dict[str, bytes]:
    """What the committed directory holds."""
    target = programs.base / f"clear-{name}-{time.monotonic_ns()}"
    decrypt_tree(programs.base / name, target, keys=programs.agent.keys, records=programs.agent.records)
    return {path.relative_to(target).as_posix(): path.read_bytes() for path in target.rglob("*") if path.is_file()}


ODD_WRITES = """
import os, sys
for zone in ("rw", "wo"):
    os.mkdir(f"{zone}/d")
    with open(f"{zone}/d/log", "ab") as one, open(f"{zone}/d/log", "ab") as two:  # O_APPEND by two at once
        for i in range(10):
            (one if i % 2 else two).write(b"%d" % i)
            one.flush(), two.flush()
    with open(f"{zone}/d/holes", "wb") as file:
        file.seek(5_000_000_000)
        file.truncate()
        file.seek(3)
        file.write(b"x")
        file.flush()
        os.truncate(f"{zone}/d/holes", 70_000)
    with open(f"{zone}/old", "w+") as file:
        file.write("kept open")
        os.rename(f"{zone}/old", f"{zone}/d/new")
        open(f"{zone}/old", "w").write("another")
        os.rename(f"{zone}/old", f"{zone}/d/new")  # over an open file
        file.seek(0)
        assert file.read() == "kept open"
        file.write("!")
    with open(f"{zone}/gone", "wb", buffering=0) as file:
        file.write(bytes(200_000))
        os.unlink(f"{zone}/gone")
        assert os.fstat(file.fileno()).st_size == 200_000
    with open(f"{zone}/d/shared", "wb", buffering=0) as file:  # several processes, one descriptor
        for i in range(4):
            if os.fork() == 0:
                file.write(b"%d" % i)
                os._exit(0)
            os.wait()
    free = os.statvfs(zone)
    assert free.f_bavail > 0
os.rename("rw/b", "rw/d/b")
os.unlink("rw/c")
os.mkdir("rw/inner/deep")
open("rw/inner/deep/file", "w").write("inner")
for change in ('open("in/a", "ab")', 'open("in/new", "wb")', 'os.unlink("in/a")', 'os.mkdir("in/x")'):
    try:
        eval(change)
    except OSError as exc:
        print(exc.strerror)
"""


@needs_fuse
def test_odd_writes_end_up_as_on_plain_storage(programs: Programs) -> None:
    ran = programs.python("mount", ODD_WRITES)
    assert ran.status == 0, ran
    assert ran.output.splitlines() == ["Read-only file system"] * 4
    expected = {
        "d/log": b"0123456789",
        "d/holes": b"\0\0\0x" + bytes(69_996),
        "d/new": b"another",
        "d/shared": b"0123",
    }
    assert decrypted(programs, "wo") == expected
    kept = {"a": b"a\n" * 50_000, "d/b": b"b\n" * 50_000}
    assert decrypted(programs, "rw") == {**expected, **kept, "inner/deep/file": b"inner"}


@BOTH
def test_a_failed_program_leaves_its_zones_as_they_were(programs: Programs, how: str) -> None:
    script = """
    echo less > $1/a; rm $1/b; mkdir $1/d; mv $1/c $1/d/c; echo new > $1/d/new; echo new > $1/inner/new; kill -TERM $$
    """
    assert programs.shell(how, script, "rw").status == 128 + signal.SIGTERM
    assert decrypted(programs, "rw") == {name: f"{name}\n".encode() * 50_000 for name in ("a", "b", "c")}
    assert not (programs.base / "rw" / "inner" / "_casemate").exists()


@BOTH
def test_a_program_that_is_not_there_is_named(programs: Programs, how: str) -> None:
    ran = programs.run(how, ["/no/such/program"])
    assert (ran.status, ran.reports) == (1, ["failed: /no/such/program: No such file or directory"])


@BOTH
def test_what_outlives_the_program_is_ended_before_anything_is_committed(programs: Programs, how: str) -> None:
    daemon = "(setsid sh -c 'while :; do echo x >> $1/a; done' d $1 &) ; sleep 0.3; echo done > $1/done"
    assert programs.shell(how, daemon, "rw").status == 0
    assert decrypted(programs, "rw")["done"] == b"done\n"


def test_changes_to_copies_of_what_is_only_read_are_not_lost_in_silence(programs: Programs) -> None:
    ran = programs.shell("stage", "echo more >> $1/a", "in")
    assert ran.status == 1
    assert ran.reports == [
        f"zone-access-denied: file://{programs.base}/in/a: changed, and the zone is only for reading"
    ]


@needs_fuse
def test_a_killed_server_fails_the_program_and_commits_nothing(programs: Programs) -> None:
    script = "echo more > rw/new; echo ready; sleep 1; cat in/a || echo lost; echo end > rw/end || true"
    process = programs.start("mount", ["/bin/sh", "-c", script])
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    servers = [child for child in psutil.Process(process.pid).children() if child.cmdline()[:1] != ["/bin/sh"]]
    for server in servers:
        server.kill()
    ran = programs.finish(process)
    assert ran.status == 1, ran
    assert any(report.startswith("mount-lost: ") for report in ran.reports)
    assert verify_tree(programs.base / "rw", keys=programs.agent.keys, records=programs.agent.records).generation == 1


@pytest.mark.parametrize(
    ("said", "served"),
    [(b"u", True), (b"x100.5", True), (b"x99.5", False), (b"x0.0", False), (b"", False)],
    ids=["unmounted", "cut after the program", "cut before", "cut, nobody knows when", "killed"],
)
def test_a_connection_may_fail_only_after_the_program_has_ended(said: bytes, served: bool) -> None:
    ours, its = socket.socketpair()
    with ours, its:
        its.send(said)
        its.close()
        assert mount._served_until(100.0, ours) is served


@needs_fuse
@pytest.mark.skipif(os.geteuid() != 0, reason="needs to mount a small file system")
def test_a_full_disk_is_no_space_left_and_leaves_no_half_file(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if os.system(f"mount -t tmpfs -o size=2m none {small}"):  # noqa: S605 - a path of this test's own
        pytest.skip("no file system can be mounted here")
    try:
        with Programs(tmp_path, [FakeAgent.zone(small / "out", str(REPORT))]) as programs:
            script = "dd if=/dev/zero of=small/out/big bs=1M count=4 || true; ls small/out; echo fits > small/out/fits"
            ran = programs.shell("mount", script)
            assert ran.status == 0, ran
            assert "No space left on device" in ran.output
            assert decrypted(programs, "small/out") == {"fits": b"fits\n"}
            ran = programs.python(
                "mount", "f = open('small/out/random', 'w+'); f.seek(4 << 20); f.write('x'); f.close()"
            )
            assert ran.status == 1
            assert any(report.startswith("storage-failed: ") and "random" in report for report in ran.reports), ran
            ran = programs.shell("stage", "head -c 4000000 /dev/zero > $1/big", "small/out")
            assert ran.status == 1
            assert decrypted(programs, "small/out") == {"fits": b"fits\n"}
    finally:
        os.system(f"umount {small}")  # noqa: S605
