"""Canary search: look for byte strings in files, process arguments and environments, and loopback traffic.

The same search runs over a protected and over a plain run, so that finding nothing means something.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISREG
from types import TracebackType

from casemate.demo.sandbox import die_with_parent

__all__ = ["Hit", "LoopbackCapture", "Watcher", "search_processes", "search_tree"]

_CHUNK = 8 * 1024 * 1024  # bytes read at once


@dataclass(frozen=True, order=True)
class Hit:
    """One place where a needle was found: ``needle`` is its label, never its bytes."""

    needle: str
    place: str


def _search_file(path: Path, needles: Mapping[str, bytes]) -> set[str]:
    found: set[str] = set()
    overlap = max((len(n) for n in needles.values()), default=1) - 1
    tail = b""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            window = tail + chunk
            found |= {label for label, needle in needles.items() if needle in window}
            tail = window[-overlap:] if overlap else b""
    return found


@dataclass
class _Seen:
    """Remembers what was searched already, so that watching a growing tree stays cheap."""

    states: dict[str, tuple[int, int, int]] = field(default_factory=dict)

    def is_new(self, path: Path, stat: os.stat_result) -> bool:
        state = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        if self.states.get(str(path)) == state:
            return False
        self.states[str(path)] = state
        return True


def search_tree(
    root: Path,
    needles: Mapping[str, bytes],
    *,
    skip: Iterable[Path] = (),
    since: float = 0.0,
    seen: _Seen | None = None,
) -> set[Hit]:
    """Every regular file below ``root`` (names too) that holds a needle; vanished files are passed over.

    ``since`` (seconds since the epoch) leaves out files that did not change after it."""
    hits: set[Hit] = set()
    skipped = {str(path) for path in skip}
    for directory, names, files in os.walk(root):
        names[:] = [name for name in names if str(Path(directory, name)) not in skipped]
        for name in files:
            path = Path(directory, name)
            if str(path) in skipped:
                continue
            with suppress(OSError):
                stat = path.lstat()
                if not S_ISREG(stat.st_mode) or stat.st_ctime < since or (seen and not seen.is_new(path, stat)):
                    continue
                hits |= {Hit(label, str(path)) for label in _search_file(path, needles)}
            encoded = os.fsencode(str(path))
            hits |= {Hit(label, f"name of {path}") for label, needle in needles.items() if needle in encoded}
    return hits


def search_processes(needles: Mapping[str, bytes], *, environ: bool = True) -> set[Hit]:
    """Needles in ``/proc/*/cmdline`` and ``environ`` of every other process that may be read."""
    hits: set[Hit] = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or entry.name == str(os.getpid()):
            continue
        for part in ("cmdline", "environ") if environ else ("cmdline",):
            with suppress(OSError):
                content = (entry / part).read_bytes()
                program = content.split(b"\0")[0].decode(errors="replace") if part == "cmdline" else ""
                hits |= {
                    Hit(label, f"{part} of a {Path(program).name or 'process'}")
                    for label, needle in needles.items()
                    if needle in content
                }
    return hits


class Watcher:
    """Searches trees and processes again and again while a job runs: spill and shuffle files do not outlive it.

    In ``shared`` trees (``/tmp``) only what changes meanwhile is searched."""

    def __init__(
        self,
        needles: Mapping[str, bytes],
        roots: Iterable[Path],
        *,
        shared: Iterable[Path] = (),
        skip: Iterable[Path] = (),
        environ: bool = True,
        period_seconds: float = 0.7,
    ) -> None:
        now = time.time()
        self._trees = [*((root, 0.0) for root in roots), *((root, now) for root in shared)]
        self._environ = environ
        self._needles, self._skip, self._period = dict(needles), list(skip), period_seconds
        self._stop = threading.Event()
        self._seen = _Seen()
        self._thread = threading.Thread(target=self._watch, name="canary-watcher", daemon=True)
        self.hits: set[Hit] = set()
        self.files_searched = 0

    def _once(self) -> None:
        for root, since in self._trees:
            self.hits |= search_tree(root, self._needles, skip=self._skip, since=since, seen=self._seen)
        self.hits |= search_processes(self._needles, environ=self._environ)
        self.files_searched = len(self._seen.states)

    def _watch(self) -> None:
        pause = self._period
        while not self._stop.wait(pause):
            begin = time.monotonic()
            self._once()
            pause = max(self._period, 6 * (time.monotonic() - begin))  # a large tree must not slow the job down

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._once()


class LoopbackCapture:
    """tcpdump on the loopback device, where that is permitted; ``why_not`` says why it did not run."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._process: subprocess.Popen[bytes] | None = None
        self.why_not: str | None = None

    @property
    def available(self) -> bool:
        return self.why_not is None

    def __enter__(self) -> LoopbackCapture:
        program = shutil.which("tcpdump") or shutil.which("tcpdump", path="/usr/sbin:/sbin")
        if program is None:
            self.why_not = "tcpdump is not installed"
            return self
        # Root's tcpdump would drop to a user of its own, who could not write into a private directory.
        user = ["-Z", "root"] if os.geteuid() == 0 else []
        self._process = subprocess.Popen(
            [program, "-i", "lo", "-w", str(self._path), "-B", "65536", "-s", "0", "-U", "-n", *user, "tcp"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            preexec_fn=die_with_parent(),
        )
        for line in self._process.stderr or ():
            if b"listening on" in line:
                return self
        self.why_not = "tcpdump is not permitted to capture on the loopback device"
        self._end()
        return self

    def _end(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGINT)
            self._process.communicate(timeout=30)
            self._process = None

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def search(self, needles: Mapping[str, bytes]) -> set[Hit]:
        """Needles in the captured packets. A needle cut by a packet border is missed."""
        if not self.available:
            return set()
        return {Hit(label, "loopback traffic") for label in _search_file(self._path, needles)}
