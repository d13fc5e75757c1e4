"""The first process of a SIMULATED TEE: starts the program, adopts its orphans, and ends everything with it.

A forked copy of the single-threaded host that never returns. It is a subreaper, so a daemonised descendant stays a
descendant; the kernel tells it when the host dies, even by ``kill -9``, and the whole tree dies with it.
"""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import signal
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from casemate.attestation.platforms.simulator.processes import become_subreaper, die_with_parent, end_children

__all__ = ["FORWARD_TERM", "REPORT", "Program", "start_guard"]

FORWARD_TERM = signal.SIGUSR1
REPORT = struct.Struct("<ii")  # pid of the program, errno when it could not start
_WAITED = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, FORWARD_TERM}


@dataclass(frozen=True)
class Program:
    """What to start, and what to clean up afterwards."""

    command: Sequence[str]
    environment: Mapping[str, str]
    cwd: Path
    stdio: tuple[int, int, int]
    cleanup: tuple[Path, ...]


def start_guard(program: Program, report: int) -> int:
    """Fork a guard that starts ``program`` and writes ``REPORT`` to the descriptor ``report``; gives the guard's pid.

    Descriptors 0 to 2 must be open in the caller, and none of those given may be among them.
    The guard exits with the program's status, 128 + n for a signal, after the last of its processes has ended."""
    host = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        gc.disable()  # no finaliser may close a descriptor that has been given to somebody else
        _guard(program, report, host)
    except BaseException as exc:
        with contextlib.suppress(OSError):
            os.write(2, f"SIMULATED TEE host: guard: {type(exc).__name__}: {exc}\n".encode())
        os._exit(125)


def _guard(program: Program, report: int, host: int) -> NoReturn:
    os.setsid()
    signal.set_wakeup_fd(-1)
    for signum in _WAITED:
        signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED)
    die_with_parent(host, signal.SIGTERM)
    become_subreaper()
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    _close_all_but(0, 1, 2, report, *program.stdio)
    child, failed = _start(program)
    for fd in set(program.stdio):
        os.close(fd)
    os.write(report, REPORT.pack(child, failed))
    os.close(report)
    status = 127 if failed else _wait(child)
    end_children()
    for path in program.cleanup:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # the last guard of a dead host removes the directory of all
            if os.getppid() != host:
                path.parent.rmdir()
    os._exit(status)


def _wait(child: int) -> int:
    """Reap adopted orphans until the program ends or the host wants the end; the program's status."""
    while True:
        signum = signal.sigwait(_WAITED)
        if signum == FORWARD_TERM:
            os.kill(child, signal.SIGTERM)
        elif signum != signal.SIGCHLD:
            return 128 + signal.SIGKILL
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                pid = 0
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
            if pid == 0:
                break


def _start(program: Program) -> tuple[int, int]:
    """Fork and execute; the pid, and the errno of an execution that failed."""
    reader, writer = os.pipe()  # closed by a successful execve
    guard = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            die_with_parent(guard, signal.SIGKILL)
            _execute(program, writer)
        except OSError as exc:
            os.write(writer, REPORT.pack(0, exc.errno or 1))
        finally:
            os._exit(127)
    os.close(writer)
    answer = os.read(reader, REPORT.size)
    os.close(reader)
    return pid, REPORT.unpack(answer)[1] if len(answer) == REPORT.size else 0


def _execute(program: Program, writer: int) -> NoReturn:
    os.chdir(program.cwd)
    for target, fd in enumerate(program.stdio):
        os.dup2(fd, target)
    _close_all_but(0, 1, 2, writer)
    for signum in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and that would be inherited
        signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    os.execve(program.command[0], list(program.command), dict(program.environment))  # noqa: S606


def _close_all_but(*keep: int) -> None:
    last = -1
    for fd in sorted(set(keep)):
        if fd > last + 1:  # os.closerange(0, 0) closes everything
            os.closerange(last + 1, fd)
        last = fd
    os.closerange(last + 1, 1 << 20)
