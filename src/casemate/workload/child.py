"""The program as a child process: dies with us, gets our signals, and leaves no descendant behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from types import FrameType

from casemate.errors import FailedError
from casemate.workload.profile import Launch

__all__ = ["GRACE", "Child", "descendants", "die_with_parent", "end_descendants", "keep_descendants"]

GRACE = 10.0  # seconds between SIGTERM and SIGKILL
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_libc = ctypes.CDLL(None, use_errno=True)

OnAnnouncement = Callable[[str, dict[str, str]], None]


def die_with_parent(signum: int = signal.SIGKILL) -> None:
    """Have the kernel send this process ``signum`` when the thread that started it ends (prctl(2))."""
    _libc.prctl(_PR_SET_PDEATHSIG, signum, 0, 0, 0)


def keep_descendants() -> None:
    """Become the parent of every descendant whose own parent ends, so that none gets away (prctl(2))."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_descendants(but: Collection[int] = ()) -> None:
    """Kill every descendant of this process and reap it, but for the children ``but``. Needs ``keep_descendants``."""
    while left := [pid for pid in descendants(os.getpid()) if pid not in but]:
        for pid in left:
            with contextlib.suppress(ProcessLookupError, ChildProcessError, PermissionError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, os.WNOHANG)
        time.sleep(0.001)


class Child:
    """One running program. Start it from the main thread: the kernel ties its life to the thread that started it."""

    def __init__(self, launch: Launch, on_announcement: OnAnnouncement) -> None:
        keep_descendants()
        self.stopped_by: int | None = None
        self._launch, self._on_announcement = launch, on_announcement
        try:
            self._process = subprocess.Popen(
                launch.argv,
                env=dict(launch.environment),
                cwd=launch.working_directory,
                stderr=subprocess.PIPE if launch.announcements else None,
                preexec_fn=die_with_parent,
            )
        except OSError as exc:
            raise FailedError(f"{launch.argv[0]}: {exc.strerror or exc}") from exc
        self._reader: threading.Thread | None = None
        if launch.announcements:
            self._reader = threading.Thread(target=self._read_stderr, name="stderr", daemon=True)
            self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait(self) -> int:
        """The exit status when the program ends, 128 + n when signal n ended it."""
        status = self._process.wait()
        if self._reader is not None:
            self._reader.join(timeout=1.0)
        return status if status >= 0 else 128 - status

    @contextlib.contextmanager
    def forwarding_signals(self) -> Iterator[None]:
        """Pass SIGTERM, SIGINT and SIGHUP on to the program; after ``GRACE`` seconds, kill it and all it started."""

        def forward(signum: int, _frame: FrameType | None) -> None:
            self.stop(signum)

        previous = {signum: signal.signal(signum, forward) for signum in _FORWARDED}
        try:
            yield
        finally:
            for signum, handler in previous.items():
                signal.signal(signum, handler)

    def stop(self, signum: int = signal.SIGTERM) -> None:
        """Ask the program to end, and see to it that it does."""
        first, self.stopped_by = self.stopped_by is None, signum
        self._signal(signum)
        if first:
            timer = threading.Timer(GRACE, self._signal, (signal.SIGKILL,))
            timer.daemon = True
            timer.start()

    def kill_all(self) -> None:
        """Kill whatever is left of the program and its descendants, and reap it."""
        deadline = time.monotonic() + GRACE
        while left := descendants(os.getpid()):
            for pid in left:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            if time.monotonic() > deadline:
                return
            time.sleep(0.01)

    def _signal(self, signum: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signum)

    def _read_stderr(self) -> None:
        waiting = list(self._launch.announcements)
        stream = self._process.stderr
        if stream is None:
            return
        for raw in stream:
            sys.stderr.buffer.write(raw)
            sys.stderr.buffer.flush()
            line = raw.decode(errors="replace")
            for announcement in list(waiting):
                if match := announcement.pattern.search(line):
                    waiting.remove(announcement)
                    self._on_announcement(announcement.phase, match.groupdict())


def descendants(root: int) -> list[int]:
    """Every process below ``root``, the nearest first (proc(5): fourth field of ``stat``)."""
    children: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if not entry.name.isdecimal():
            continue
        with contextlib.suppress(OSError, ValueError, IndexError):
            with open(f"/proc/{entry.name}/stat", "rb") as file:  # noqa: PTH123 - hot, and no Path is needed
                fields = file.read().rpartition(b")")[2].split()
            if fields[0] != b"Z" or int(fields[1]) == root:
                children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, queue = [], [root]
    while queue:
        for pid in children.get(queue.pop(0), ()):
            found.append(pid)
            queue.append(pid)
    return found
