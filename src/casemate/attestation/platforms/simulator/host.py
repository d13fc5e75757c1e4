"""The SIMULATED machine: launches programs, measures what it launches, signs quotes for what it launched.

A foreground process with one thread and one event loop, so that forking is safe and the kernel's parent-death signal
means what it says: ``python -m casemate.attestation.platforms.simulator.host --state DIR --socket PATH``.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import selectors
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from casemate import __version__
from casemate.attestation.platforms.simulator.errors import (
    LaunchRequestError,
    OutsideTeeError,
    SimulatorBusyError,
    SimulatorProtocolError,
)
from casemate.attestation.platforms.simulator.guard import FORWARD_TERM, REPORT
from casemate.attestation.platforms.simulator.launch import parse_launch
from casemate.attestation.platforms.simulator.measure import Measurer
from casemate.attestation.platforms.simulator.processes import become_subreaper, descends_from, end_children, peer
from casemate.attestation.platforms.simulator.quote import QuotingEnclave
from casemate.attestation.platforms.simulator.state import load_or_create
from casemate.attestation.platforms.simulator.tee import Tee
from casemate.attestation.platforms.simulator.wire import FrameBuffer, encode, socket_address
from casemate.attestation.private_memory import private_memory
from casemate.errors import CasemateError, FailedError

__all__ = ["Host", "main"]

MAX_TEES = 256
MAX_CONNECTIONS = 1024
_MAX_PENDING = 32 * 1024 * 1024  # bytes a client may leave unread
_BASE_PREFIX = "casemate-tee-"
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_MSG_CMSG_CLOEXEC = 0x40000000


@dataclass(eq=False)
class _Connection:
    """A client: of the launcher when ``inside`` is None, else a process inside that TEE."""

    sock: socket.socket
    inside: Tee | None
    frames: FrameBuffer = field(default_factory=FrameBuffer)
    pending: bytearray = field(default_factory=bytearray)
    fds: list[int] = field(default_factory=list)
    launched: Tee | None = None
    refusal: CasemateError | None = None  # the answer to whatever this client asks
    close_when_sent: bool = False


class Host:
    """The machine's event loop."""

    def __init__(self, state: Path, socket_path: Path) -> None:
        self._socket_path = socket_path
        self._enclave = QuotingEnclave.create(load_or_create(state, datetime.now(UTC)))
        self._measurer = Measurer()
        self._selector = selectors.DefaultSelector()
        self._launchers: dict[Tee, _Connection | None] = {}  # running TEEs, and who hears of them
        self._connections: set[_Connection] = set()
        self._stop = False

    def run(self, ready: Callable[[], None]) -> None:
        """Serve until SIGTERM, SIGINT or SIGHUP; then end every TEE and remove every file that was made."""
        become_subreaper()
        listener = _listen(self._socket_path)
        base = _make_base()
        wake_reader, wake_writer = socket.socketpair()
        wake_reader.setblocking(False)
        wake_writer.setblocking(False)
        signal.set_wakeup_fd(wake_writer.fileno(), warn_on_full_buffer=False)
        for signum in _SIGNALS:
            signal.signal(signum, self._on_stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._base = base
        self._watch(listener, selectors.EVENT_READ, lambda _: self._accept(listener, None))
        self._watch(wake_reader, selectors.EVENT_READ, lambda _: self._wake(wake_reader))
        try:
            ready()
            while not self._stop:
                for key, events in self._selector.select():
                    self._guarded(key.data, events)
        finally:
            self._end_all()
            signal.set_wakeup_fd(-1)
            self._socket_path.unlink(missing_ok=True)
            for sock in (listener, wake_reader, wake_writer):
                sock.close()
            self._selector.close()
            shutil.rmtree(base, ignore_errors=True)

    def _on_stop(self, *_: object) -> None:
        self._stop = True

    def _watch(self, thing: Any, events: int, handler: Callable[[int], None]) -> None:
        self._selector.register(thing, events, handler)

    def _guarded(self, handler: Callable[[int], None], events: int) -> None:
        """One client's fault never takes the machine down."""
        try:
            handler(events)
        except Exception as exc:
            _log(f"internal error: {type(exc).__name__}: {exc}")

    def _wake(self, reader: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            reader.recv(4096)
        self._reap()

    # Connections

    def _accept(self, listener: socket.socket, inside: Tee | None) -> None:
        try:
            sock, _ = listener.accept()
        except OSError:
            return
        sock.setblocking(False)
        pid, uid = peer(sock)
        connection = _Connection(sock, inside)
        if uid != os.getuid() or len(self._connections) >= MAX_CONNECTIONS:
            sock.close()
            return
        self._connections.add(connection)
        self._watch(sock, selectors.EVENT_READ, lambda events: self._serve(connection, events))
        if inside is not None and not descends_from(pid, inside.guard):
            _log(f"TEE {inside.id}: process {pid} asked from outside, refused")
            connection.refusal = OutsideTeeError(f"process {pid} does not run inside SIMULATED TEE {inside.id}")

    def _serve(self, connection: _Connection, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._flush(connection)
        if not events & selectors.EVENT_READ or connection not in self._connections:
            return
        try:
            data, fds, _, _ = socket.recv_fds(connection.sock, 1 << 16, 3, _MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except OSError:
            data, fds = b"", []
        connection.fds += fds
        if not data:
            self._drop(connection)
            return
        if connection.close_when_sent:
            return
        try:
            for message in connection.frames.feed(data):
                self._handle(connection, message)
        except CasemateError as exc:
            self._fail(connection, exc)

    def _handle(self, connection: _Connection, message: dict[str, Any]) -> None:
        tee = connection.inside
        if connection.refusal is not None:
            raise connection.refusal
        if tee is None:
            self._handle_launcher(connection, message)
        elif message.get("op") == "report":
            launcher = self._launchers.get(tee)
            if launcher is not None:
                self._send(launcher, {**{k: v for k, v in message.items() if k != "op"}, "event": "report"})
            self._send(connection, {})
        else:
            self._send(connection, tee.answer(message, self._enclave))

    def _handle_launcher(self, connection: _Connection, message: dict[str, Any]) -> None:
        op, tee = message.get("op"), connection.launched
        if op == "ping":
            self._send(connection, {"version": __version__, "pid": os.getpid(), "simulated": True})
        elif op == "launch" and tee is None:
            self._launch(connection, message)
        elif op in ("terminate", "kill") and tee is not None:
            if tee in self._launchers:
                os.kill(tee.guard, FORWARD_TERM if op == "terminate" else signal.SIGTERM)
        else:
            raise SimulatorProtocolError(f"expected op ping, launch, terminate or kill, got {op!r} out of place")

    def _send(self, connection: _Connection, message: dict[str, Any]) -> None:
        connection.pending += encode(message)
        if len(connection.pending) > _MAX_PENDING:
            self._drop(connection)
        else:
            self._flush(connection)

    def _flush(self, connection: _Connection) -> None:
        try:
            while connection.pending:
                del connection.pending[: connection.sock.send(connection.pending)]
        except BlockingIOError:
            pass
        except OSError:
            self._drop(connection)
            return
        if connection.close_when_sent and not connection.pending:
            self._drop(connection)
        elif connection in self._connections:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.pending else 0)
            key = self._selector.get_key(connection.sock)
            if key.events != events:
                self._selector.modify(connection.sock, events, key.data)

    def _fail(self, connection: _Connection, error: CasemateError) -> None:
        connection.close_when_sent = True
        self._send(connection, {"error": {"code": error.code, "message": error.message}, "simulated": True})

    def _drop(self, connection: _Connection) -> None:
        """Close a connection; a TEE whose launcher is gone ends."""
        if connection not in self._connections:
            return
        self._connections.discard(connection)
        self._selector.unregister(connection.sock)
        connection.sock.close()
        for fd in connection.fds:
            os.close(fd)
        connection.fds.clear()
        tee = connection.launched
        if tee is not None and tee in self._launchers:
            self._launchers[tee] = None
            os.kill(tee.guard, signal.SIGTERM)

    # TEEs

    def _launch(self, connection: _Connection, message: dict[str, Any]) -> None:
        if len(connection.fds) != 3:
            raise LaunchRequestError(f"launch: need stdin, stdout and stderr, got {len(connection.fds)} descriptors")
        if len(self._launchers) >= MAX_TEES:
            raise LaunchRequestError(f"launch: {MAX_TEES} SIMULATED TEEs run already")
        request = parse_launch(message)
        measurement = request.measure(self._measurer)
        stdin, stdout, stderr = connection.fds
        try:
            tee = Tee.launch(request, measurement, (stdin, stdout, stderr), self._base)
        except OSError as exc:
            raise FailedError(f"SIMULATED TEE: cannot be launched: {exc}") from exc
        for fd in connection.fds:
            os.close(fd)
        connection.fds.clear()
        connection.launched = tee
        self._launchers[tee] = connection
        self._watch(tee.listener, selectors.EVENT_READ, lambda _: self._accept(tee.listener, tee))
        self._watch(tee.report, selectors.EVENT_READ, lambda _: self._started(tee))

    def _started(self, tee: Tee) -> None:
        """The guard has said how the start went."""
        answer = os.read(tee.report, REPORT.size)
        self._forget_report(tee)
        if len(answer) != REPORT.size:
            return
        pid, failed = REPORT.unpack(answer)
        launcher = self._launchers.get(tee)
        if failed:  # told when the guard has cleaned up
            tee.failure = LaunchRequestError(f"launch: the program cannot start: {os.strerror(failed)}")
            return
        tee.pid = pid
        _log(f"TEE {tee.id}: started {tee.role} of job {tee.job}, measurement {tee.measurement.hex()[:16]}…")
        if launcher is not None:
            self._send(launcher, tee.started_event())

    def _reap(self) -> None:
        """Collect ended guards, and end whatever a killed guard left behind."""
        strays = False
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            tee = next((t for t in self._launchers if t.guard == pid), None)
            if tee is None:
                continue
            strays |= os.WIFSIGNALED(status)
            if strays:
                end_children(frozenset(t.guard for t in self._launchers if t is not tee))
            self._ended(tee, os.waitstatus_to_exitcode(status))

    def _ended(self, tee: Tee, status: int) -> None:
        if tee.report >= 0:  # it ended so soon that its start has not been told yet
            self._started(tee)
        launcher = self._launchers.pop(tee)
        self._selector.unregister(tee.listener)
        tee.listener.close()
        for connection in [c for c in self._connections if c.inside is tee]:
            self._drop(connection)
        tee.socket_path.unlink(missing_ok=True)
        shutil.rmtree(tee.directory, ignore_errors=True)
        _log(f"TEE {tee.id}: ended with status {status}")
        if launcher is not None and launcher in self._connections:
            if tee.failure is not None:
                self._fail(launcher, tee.failure)
                return
            launcher.close_when_sent = True
            self._send(launcher, {"event": "exited", "status": status if status >= 0 else 128 - status})

    def _forget_report(self, tee: Tee) -> None:
        self._selector.unregister(tee.report)
        os.close(tee.report)
        tee.report = -1

    def _end_all(self) -> None:
        for tee in self._launchers:
            os.kill(tee.guard, signal.SIGTERM)
        while self._launchers:
            self._guarded(lambda _: self._wait_for_one(), 0)
        end_children()
        for connection in list(self._connections):
            self._drop(connection)

    def _wait_for_one(self) -> None:
        try:
            pid, status = os.waitpid(-1, 0)
        except ChildProcessError:  # reaped already
            self._ended(next(iter(self._launchers)), 128 + signal.SIGKILL)
            return
        tee = next((t for t in self._launchers if t.guard == pid), None)
        if tee is not None:
            self._ended(tee, os.waitstatus_to_exitcode(status))


def _log(text: str) -> None:
    with contextlib.suppress(OSError):
        print(f"SIMULATED TEE host: {text}", file=sys.stderr, flush=True)


def _listen(path: Path) -> socket.socket:
    """Bind the launcher socket, 0600; raises ``SimulatorBusyError`` when another host listens there."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        with socket_address(path) as address:
            with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
                if path.is_socket() and probe.connect_ex(address) == 0:
                    raise SimulatorBusyError(f"another SIMULATED TEE host listens on {path}")
            path.unlink(missing_ok=True)
            previous = os.umask(0o177)
            try:
                sock.bind(address)
            finally:
                os.umask(previous)
        sock.listen(64)
    except OSError as exc:
        sock.close()
        raise FailedError(f"SIMULATED TEE host: cannot listen on {path}: {exc.strerror or exc}") from exc
    except SimulatorBusyError:
        sock.close()
        raise
    return sock


def _make_base() -> Path:
    """A new 0700 directory, in memory where that can be used; what a killed host left behind is removed."""
    parent = private_memory()
    for old in parent.glob(f"{_BASE_PREFIX}*"):
        owner = old.name.removeprefix(_BASE_PREFIX).split("-")[0]
        with contextlib.suppress(OSError):
            if owner.isdigit() and old.stat().st_uid == os.getuid() and not Path(f"/proc/{owner}").exists():
                shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{_BASE_PREFIX}{os.getpid()}-", dir=parent))


def main(arguments: list[str] | None = None) -> int:
    """Run the machine in the foreground; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m casemate.attestation.platforms.simulator.host",
        description="SIMULATED TEE host: launches, measures and quotes programs. It protects nothing.",
    )
    parser.add_argument("--state", type=Path, required=True, help="directory of the simulated PKI")
    parser.add_argument("--socket", type=Path, required=True, help="Unix socket to listen on")
    options = parser.parse_args(arguments)
    while os.open(os.devnull, os.O_RDWR) <= 2:  # descriptors 0 to 2 must be taken before any other is made
        pass
    try:
        host = Host(options.state, options.socket.absolute())
        host.run(lambda: print(f"SIMULATED TEE host ready on {options.socket}", flush=True))
    except CasemateError as exc:
        print(f"failed: {exc.code}: {exc.message}\nhint: {exc.fix}", file=sys.stderr)
        return exc.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
