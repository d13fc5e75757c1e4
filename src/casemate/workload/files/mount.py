"""Start a program that finds its zones, decrypted, under their own paths: ``python -m casemate.workload.files.mount``.

``casemate run`` starts this in the program's place (``engine_settings: {"files": "mount"}``). The program gets a mount
namespace of its own, in which a FUSE file system lies over every zone, and in which nothing else can be written but the
TEE's private memory. The servers of these file systems stay outside of it, where the zones hold ciphertext. When the
program has ended with status 0, what it wrote is committed.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from casemate.data.client import AgentClient
from casemate.data.zones import local_path
from casemate.errors import CasemateError
from casemate.model import Zone
from casemate.workload.child import descendants, die_with_parent, keep_descendants
from casemate.workload.errors import MountUnavailableError
from casemate.workload.files.namespace import (
    enter_private_namespace,
    make_read_only_but_for,
    mount_fuse,
)

__all__ = ["PAGE_CACHE", "main"]

PAGE_CACHE = "--page-cache"
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_GO, _COMMIT, _LEAVE = b"g", b"c", b"l"


@dataclass
class _Server:
    """The process that serves one zone; ``control`` tells it at the end whether to commit."""

    pid: int
    control: socket.socket


def main(argv: Sequence[str]) -> int:
    """``[--page-cache] -- program argument…``; the exit status is the program's, or 1 with a refusal reported."""
    options, command = list(argv[: argv.index("--")]), list(argv[argv.index("--") + 1 :])
    agent = AgentClient.from_environment()
    try:
        session = agent.session()
        zones = [(zone, _directory(zone)) for zone in session.zones]
        private = [Path(path) for prefix in session.private_prefixes if (path := local_path(prefix)) is not None]
        return _run(command, zones, private, page_cache=PAGE_CACHE in options)
    except CasemateError as exc:
        agent.report(exc)
        return 1
    finally:
        agent.close()


def _directory(zone: Zone) -> Path:
    path = local_path(zone.prefix)
    if path is None:
        raise MountUnavailableError(f"{zone.prefix}: only local directories can be mounted")
    directory = Path(path)
    if zone.access.can_write:
        directory.mkdir(parents=True, exist_ok=True)
    if not directory.is_dir():
        raise MountUnavailableError(f"{zone.prefix}: {'is a file' if directory.exists() else 'is not there'}")
    return directory


def _run(command: list[str], zones: list[tuple[Zone, Path]], private: list[Path], *, page_cache: bool) -> int:
    keep_descendants()
    ours, its = socket.socketpair()
    program = os.fork()
    if program == 0:
        ours.close()
        _become_program(command, [directory for _, directory in zones], private, its)
    its.close()
    stop = _Forwarding(program)
    message, connections, _, _ = socket.recv_fds(ours, 65536, max(len(zones), 1))
    if message[:1] != _GO:
        os.waitpid(program, 0)
        raise MountUnavailableError(message.decode() or "the program's namespace could not be made")
    servers: list[_Server] = []
    for (zone, _), connection in zip(zones, connections, strict=True):
        servers.append(_serve(zone, connection, ours, servers, page_cache=page_cache))
        os.close(connection)
    ready = all(server.control.recv(1) == _GO for server in servers)
    ours.send(_GO if ready else _LEAVE)
    status = os.waitstatus_to_exitcode(os.waitpid(program, 0)[1])
    stop.restore()
    _end_namespace(servers)
    well = ready and status == 0
    for server in servers:
        server.control.send(_COMMIT if well else _LEAVE)
    ends = [os.waitstatus_to_exitcode(os.waitpid(server.pid, 0)[1]) for server in servers]
    if status == 0 and (not ready or any(ends)):
        return 1
    return status if status >= 0 else 128 - status


def _become_program(command: list[str], directories: list[Path], private: list[Path], parent: socket.socket) -> None:
    """In the new process: make the namespace, hand the connections over, and be the program. Does not return."""
    try:
        die_with_parent()
        enter_private_namespace()
        make_read_only_but_for(private)
        connections = [mount_fuse(directory) for directory in directories]
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
    zone: Zone, connection: int, parent: socket.socket, others: Sequence[_Server], *, page_cache: bool
) -> _Server:
    """Fork the server of one zone."""
    ours, its = socket.socketpair()
    pid = os.fork()
    if pid:
        its.close()
        return _Server(pid, ours)
    for held in (ours, parent, *(other.control for other in others)):
        held.close()
    die_with_parent()
    for signum in _FORWARDED:
        signal.signal(signum, signal.SIG_IGN)  # it ends when the program has
    try:
        os._exit(_serve_until_unmounted(zone, connection, its, page_cache=page_cache))
    finally:
        os._exit(1)


def _serve_until_unmounted(zone: Zone, connection: int, control: socket.socket, *, page_cache: bool) -> int:
    from casemate.data.filesystem import ZoneFileSystem
    from casemate.data.session import ZoneSession

    session = ZoneSession.from_environment()
    root = local_path(zone.prefix)
    if root is None:
        raise AssertionError("unreachable")
    try:
        import mfusepy

        from casemate.workload.files.fuse_zone import FuseZone
    except (ImportError, OSError) as exc:
        session.tell(MountUnavailableError(f"libfuse and its Python binding: {exc}"))
        return 1
    served = FuseZone(ZoneFileSystem(session), root, writable=zone.access.can_write, ready=lambda: _send(control, _GO))
    mfusepy.FUSE(
        served,
        f"/dev/fd/{connection}",
        foreground=True,
        nothreads=True,
        direct_io=not page_cache,
        hard_remove=True,
        entry_timeout=0,
        attr_timeout=0,
        negative_timeout=0,
    )
    if control.recv(1) == _COMMIT and served.changed:
        try:
            session.commit(zone.prefix)
        except CasemateError as exc:
            session.tell(exc)
            return 1
    return 0


def _send(control: socket.socket, message: bytes) -> None:
    control.send(message)


def _end_namespace(servers: Sequence[_Server]) -> None:
    """Whoever else is left in the namespace keeps its mounts alive: end them."""
    own = {server.pid for server in servers}
    while left := set(descendants(os.getpid())) - own:
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            except (ProcessLookupError, ChildProcessError, PermissionError):
                continue


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
