"""Start a program that finds its zones, decrypted, under their own paths: ``python -m casemate.workload.files.mount``.

``casemate run`` starts this in the program's place (``engine_settings: {"files": "mount"}``). The program gets a mount
namespace of its own, in which a FUSE file system lies over every zone, and in which nothing else can be written but the
TEE's private memory. The servers of these file systems stay outside of it, where the zones hold ciphertext. When the
program has ended with status 0, what it wrote is committed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from casemate.data.client import AgentClient, AgentSession
from casemate.data.keys import RememberedKeys
from casemate.data.session import ZoneSession
from casemate.data.zones import is_within, local_path
from casemate.errors import CasemateError, FailedError
from casemate.model import Zone
from casemate.workload.child import die_with_parent, end_descendants, keep_descendants
from casemate.workload.errors import MountLostError, MountUnavailableError
from casemate.workload.files.namespace import (
    enter_private_namespace,
    make_read_only_but_for,
    mount_fuse,
)

__all__ = ["PAGE_CACHE", "main"]

PAGE_CACHE = "--page-cache"
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_GO, _GONE, _CUT, _COMMIT, _LEAVE = b"g", b"u", b"x", b"c", b"l"
_MESSAGE = 65536  # bytes


@dataclass(frozen=True)
class _Place:
    """A zone and the local directory it is mounted over."""

    zone: Zone
    directory: Path


@dataclass
class _Server:
    """The process that serves one zone; ``control`` tells it at the end whether to commit."""

    zone: Zone
    pid: int
    control: socket.socket


def main(argv: Sequence[str]) -> int:
    """``[--page-cache] -- program argument…``; the exit status is the program's, or 1 with a refusal reported."""
    options, command = list(argv[: argv.index("--")]), list(argv[argv.index("--") + 1 :])
    agent = AgentClient.from_environment()
    try:
        session = agent.session()
        layers = _layers([_Place(zone, _directory(zone, session)) for zone in session.zones])
        private = [Path(path) for prefix in session.private_prefixes if (path := local_path(prefix)) is not None]
        return _run(command, layers, private, page_cache=PAGE_CACHE in options)
    except CasemateError as exc:
        agent.report(exc)
        return 1
    finally:
        agent.close()


def _directory(zone: Zone, session: AgentSession) -> Path:
    path = local_path(zone.prefix)
    if path is None:
        raise MountUnavailableError(f"{zone.prefix}: only local directories can be mounted")
    directory = Path(path)
    try:
        if zone.access.can_write:
            directory.mkdir(parents=True, exist_ok=True)
        elif not directory.exists():
            ZoneSession.from_environment().check_stat(session.zone_map().locate(zone.prefix), None)
    except OSError as exc:
        raise MountUnavailableError(f"{zone.prefix}: {exc.strerror or exc}") from exc
    if not directory.is_dir():
        raise MountUnavailableError(f"{zone.prefix}: {'is a file' if directory.exists() else 'is not there'}")
    return directory


def _layers(places: Sequence[_Place]) -> list[list[_Place]]:
    """Zones that lie in others are mounted when those are served, since the kernel then asks for their directory."""
    layers: list[list[_Place]] = []
    for place in sorted(places, key=lambda place: len(place.zone.prefix)):
        depth = sum(is_within(place.zone.prefix, other.zone.prefix) for other in places) - 1
        layers += [[] for _ in range(depth + 1 - len(layers))]
        layers[depth].append(place)
    return layers


def _run(command: list[str], layers: list[list[_Place]], private: list[Path], *, page_cache: bool) -> int:
    keep_descendants()
    ours, its = socket.socketpair()
    program = os.fork()
    if program == 0:
        ours.close()
        _become_program(command, layers, private, its)
    its.close()
    stop = _Forwarding(program)
    servers: list[_Server] = []
    try:
        for layer in layers:
            message, connections, _, _ = socket.recv_fds(ours, _MESSAGE, len(layer))
            if message[:1] != _GO:
                raise MountUnavailableError(message.decode() or "the program's namespace could not be made")
            started = [_serve(place, connections, at, ours, servers, page_cache) for at, place in enumerate(layer)]
            servers += started
            for connection in connections:
                os.close(connection)
            if not all(server.control.recv(1) == _GO for server in started):
                raise MountLostError("a zone's server did not start")
            ours.send(_GO)
        status = os.waitstatus_to_exitcode(os.waitpid(program, 0)[1])
        ended = time.monotonic()
        stop.restore()
        not_started = ours.recv(_MESSAGE)  # the end of the stream, when the program was started
        if not_started:
            raise FailedError(not_started.decode())
        end_descendants([server.pid for server in servers])  # whoever is left keeps the mounts alive
        if lost := [server.zone.prefix for server in servers if not _served_until(ended, server.control)]:
            raise MountLostError(
                f"{', '.join(lost)}: the server of this mount ended, or its connection was cut, while the program ran"
            )
        well = _end_servers(servers, _COMMIT if status == 0 else _LEAVE)
        servers = []
    finally:
        ours.close()
        stop.restore()
        if servers:
            end_descendants([server.pid for server in servers])
            _end_servers(servers, _LEAVE)
    if status == 0:
        return 0 if well else 1
    return status if status > 0 else 128 - status


def _served_until(ended: float, control: socket.socket) -> bool:
    """Whether a server did its work to the end: it says that its mount is gone, or when (monotonic clock) it failed.

    A connection may fail without a loss once the program has ended, when what it left behind is killed in the middle of
    a request. A server that says nothing was killed."""
    said = control.recv(_MESSAGE)
    return said == _GONE or (said[:1] == _CUT and float(said[1:]) > ended)


def _end_servers(servers: Sequence[_Server], message: bytes) -> bool:
    """Tell the servers how it ended, those of inner zones first; whether each did as told."""
    well = True
    for server in reversed(servers):
        with contextlib.suppress(OSError):
            server.control.send(message)
        server.control.close()
        with contextlib.suppress(ChildProcessError):
            well &= os.waitpid(server.pid, 0)[1] == 0
    return well


def _become_program(command: list[str], layers: list[list[_Place]], private: list[Path], parent: socket.socket) -> None:
    """In the new process: make the namespace, hand the connections over, and be the program. Does not return."""
    try:
        die_with_parent()
        enter_private_namespace()
        make_read_only_but_for(private)
        for layer in layers:
            connections = [mount_fuse(place.directory, writable=place.zone.access.can_write) for place in layer]
            socket.send_fds(parent, [_GO], connections)
            for connection in connections:
                os.close(connection)
            if parent.recv(1) != _GO:
                os._exit(1)
        os.chdir(os.getcwd())  # noqa: PTH109 - into what is now mounted there
        for signum in _FORWARDED:
            signal.signal(signum, signal.SIG_DFL)
        os.execve(command[0], command, dict(os.environ))  # noqa: S606 - the manifest's own argv, no shell
    except CasemateError as exc:
        parent.send(exc.message.encode())
    except OSError as exc:
        parent.send(f"{command[0]}: {exc.strerror or exc}".encode())
    os._exit(1)


def _serve(
    place: _Place,
    connections: Sequence[int],
    at: int,
    parent: socket.socket,
    others: Sequence[_Server],
    page_cache: bool,
) -> _Server:
    """Fork the server of one zone, of those whose ``connections`` came together."""
    ours, its = socket.socketpair()
    pid = os.fork()
    if pid:
        its.close()
        return _Server(place.zone, pid, ours)
    try:
        for held in (ours, parent, *(other.control for other in others)):
            held.close()
        for other in (*connections[:at], *connections[at + 1 :]):
            os.close(other)
        die_with_parent()
        for signum in _FORWARDED:
            signal.signal(signum, signal.SIG_IGN)  # it ends when the program has
        os._exit(_serve_until_unmounted(place.zone, connections[at], its, page_cache=page_cache))
    finally:
        os._exit(1)


def _serve_until_unmounted(zone: Zone, connection: int, control: socket.socket, *, page_cache: bool) -> int:
    session = ZoneSession.from_environment()
    session.keys, session.durable_files = RememberedKeys(session.keys), False  # a program says when: fsync, or its end
    try:
        import mfusepy

        from casemate.workload.files.fuse_zone import FuseZone
    except (ImportError, OSError) as exc:
        session.tell(MountUnavailableError(f"libfuse and its Python binding: {exc}"))
        return 1
    served = FuseZone(session, zone, ready=lambda: _send(control, _GO))
    try:
        mfusepy.FUSE(
            served,
            f"/dev/fd/{connection}",
            foreground=True,
            nothreads=True,
            direct_io=not page_cache,
            entry_timeout=0,
            attr_timeout=0,
            negative_timeout=0,
        )
        _send(control, _GONE)
    except RuntimeError:  # for instance ECONNABORTED: the mount went while a request was being handed over
        _send(control, _CUT + repr(served.ended).encode())
    try:
        if control.recv(1) != _COMMIT:
            served.undo.restore()
            return 0
        if served.failure is not None:
            raise served.failure
        if served.changed:
            session.commit_changes(zone)
        served.undo.drop()
    except CasemateError as exc:
        served.undo.restore()
        session.tell(exc)
        return 1
    return 0


def _send(control: socket.socket, message: bytes) -> None:
    control.send(message)


class _Forwarding:
    """Passes signals on to the program."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._previous = {signum: signal.signal(signum, self._forward) for signum in _FORWARDED}

    def _forward(self, signum: int, _frame: FrameType | None) -> None:
        try:
            os.kill(self._pid, signum)
        except ProcessLookupError:
            return

    def restore(self) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
