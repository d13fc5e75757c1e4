"""Linux processes: who descends from whom, and how to end a whole tree for certain."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import struct
import time
from pathlib import Path

__all__ = ["become_subreaper", "children_of", "descends_from", "die_with_parent", "end_children", "peer"]

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_LIBC = ctypes.CDLL(None, use_errno=True)  # loaded before any fork
_DEEPEST = 4096


def _prctl(option: int, value: int) -> None:
    if _LIBC.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def become_subreaper() -> None:
    """Orphaned descendants become children of this process, instead of escaping to init."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int, signum: int) -> None:
    """Have the kernel send ``signum`` when the parent's thread that forked this process ends, ``kill -9`` included.

    Only safe when that thread is the parent's main thread; ends at once if the parent is gone already."""
    _prctl(_PR_SET_PDEATHSIG, signum)
    if os.getppid() != parent:
        os._exit(1)


def peer(sock: socket.socket) -> tuple[int, int]:
    """Process id and user id of the process that connected (unix(7), SO_PEERCRED)."""
    pid, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, uid


def _parent_of(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    return int(stat[stat.rindex(b")") + 1 :].split()[1])


def descends_from(pid: int, ancestor: int) -> bool:
    """Whether ``pid`` is ``ancestor`` or one of its descendants, now."""
    current: int | None = pid
    for _ in range(_DEEPEST):
        if current is None or current <= 1:
            return False
        if current == ancestor:
            return True
        current = _parent_of(current)
    return False


def children_of(pid: int) -> list[int]:
    """The direct children of a process with one thread."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_bytes().split()]
    except OSError:  # a kernel without CONFIG_PROC_CHILDREN
        pids = [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()]
        return [child for child in pids if _parent_of(child) == pid]


def end_children(keep: frozenset[int] = frozenset(), *, deadline_seconds: float = 10.0) -> None:
    """Kill and reap all children of this process but ``keep``, again and again until none is left.

    In a subreaper this ends whole trees: the children of the killed become its own children."""
    end = time.monotonic() + deadline_seconds
    while time.monotonic() < end:
        doomed = [pid for pid in children_of(os.getpid()) if pid not in keep]
        for pid in doomed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in doomed:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        if not doomed and (keep or _childless()):
            return
        time.sleep(0.001)


def _childless() -> bool:
    """Certain, where the kernel's list of children may miss one that forks while it is read (proc(5))."""
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return True
    return False
