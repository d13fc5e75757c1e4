"""Programs on zones as plain files, mounted or staged, as ``casemate run`` starts them; keys and records in memory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
from tests.support.fake_agent import FakeAgent

from casemate.model import Zone

__all__ = ["BOTH", "Programs", "Ran", "needs_fuse"]

_TRY = """
import pathlib, sys, mfusepy
from casemate.workload.files.namespace import enter_private_namespace, make_read_only_but_for, mount_fuse
enter_private_namespace()
make_read_only_but_for([])
mount_fuse(pathlib.Path(sys.argv[1]), writable=False)
"""


def _can_mount() -> bool:
    """Whether this machine lets us: sandboxes may have the device and still forbid its use."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return False
    with tempfile.TemporaryDirectory() as directory:
        return subprocess.run([sys.executable, "-c", _TRY, directory], capture_output=True, timeout=60).returncode == 0


needs_fuse = pytest.mark.skipif(not _can_mount(), reason="no /dev/fuse, no libfuse3, or no right to mount here")
BOTH = pytest.mark.parametrize("how", [pytest.param("mount", marks=needs_fuse), "stage"])


@dataclass(frozen=True)
class Ran:
    """What a program's run left: its exit status, what it printed, what was refused (``code: message``)."""

    status: int
    output: str
    reports: list[str]


class Programs:
    """An agent over ``zones`` and private memory of its own. A context manager; relative paths are below ``base``."""

    def __init__(self, base: Path, zones: Iterable[Zone], *, agent: FakeAgent | None = None) -> None:
        self.base = base
        self.private = Path(tempfile.mkdtemp(prefix="casemate-test-", dir="/dev/shm"))
        self.agent = agent or FakeAgent(base / "agent.sock", zones)
        self.agent.private_prefixes = [f"file://{self.private}"]

    def __enter__(self) -> Self:
        self.agent.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.agent.__exit__(kind, error, trace)
        shutil.rmtree(self.private)

    def start(self, how: str, command: Sequence[str], *options: str) -> subprocess.Popen[str]:
        """``how``: ``mount`` or ``stage``."""
        environment = {**self.agent.environment(), "TMPDIR": str(self.private), "HOME": str(self.private)}
        return subprocess.Popen(
            [sys.executable, "-P", "-m", f"casemate.workload.files.{how}", *options, "--", *command],
            env={**environment, "LC_ALL": "C.UTF-8"},
            cwd=self.base,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )

    def finish(self, process: subprocess.Popen[str], before: int = 0) -> Ran:
        try:
            output, _ = process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return Ran(process.returncode, output, self.agent.reports[before:])

    def run(self, how: str, command: Sequence[str], *options: str) -> Ran:
        before = len(self.agent.reports)
        return self.finish(self.start(how, command, *options), before)

    def shell(self, how: str, script: str, *arguments: str) -> Ran:
        """``set -eu`` and a script for /bin/sh."""
        return self.run(how, ["/bin/sh", "-euc", script, "program", *arguments])

    def python(self, how: str, code: str, *arguments: str, options: Sequence[str] = ()) -> Ran:
        return self.run(how, [sys.executable, "-c", code, *arguments], *options)
