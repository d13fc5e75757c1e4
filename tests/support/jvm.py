"""Operations on zones by a JVM that runs ``java/test``'s ``Probe``: many tests share its start."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support.fake_agent import FakeAgent

__all__ = ["AREAS", "JavaError", "World"]

AREAS = ("rw", "ro", "wo", "other", "private", "outside", "kit")


@dataclass
class JavaError(Exception):
    """What the JVM threw."""

    type: str
    message: str

    @property
    def code(self) -> str:
        """The stable code the message begins with; empty for anything but a refusal of ours."""
        match = re.match(r"[a-z-]+(?=: )", self.message)
        return match[0] if match else ""

    def __str__(self) -> str:
        return f"{self.type}: {self.message}"


@dataclass
class World:
    """Zones over real directories, their agent, and operations on them by the JVM."""

    base: Path
    agent: FakeAgent
    process: subprocess.Popen[str]

    def __getattr__(self, name: str) -> Path:
        if name in AREAS:
            return self.base / name
        raise AttributeError(name)

    def call(self, op: str, path: Path | str, **more: Any) -> Any:
        """The result of one operation; raises ``JavaError``."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"op": op, "path": str(path), **more}) + "\n")
        self.process.stdin.flush()
        reply = json.loads(self.process.stdout.readline())
        if "error" in reply:
            raise JavaError(reply["type"], reply["error"])
        return reply["result"]

    def read(self, path: Path | str) -> bytes:
        return base64.b64decode(self.call("read", path))

    def read_ranges(self, path: Path, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        return [base64.b64decode(part) for part in self.call("read_ranges", path, ranges=list(ranges))]

    def write(self, path: Path | str, data: bytes = b"") -> None:
        self.call("write", path, data=base64.b64encode(data).decode())

    def commit(self, directory: Path) -> None:
        """As Hadoop's committers do when a job is done."""
        self.write(directory / "_SUCCESS")

    def list(self, path: Path | str) -> dict[str, int]:
        """Names and plaintext lengths; -1 for a directory."""
        return {str(name): int(length) for name, length in self.call("list", path)}

    def refused(self, op: str, path: Path | str, **more: Any) -> JavaError:
        """The refusal that an operation must end in."""
        with pytest.raises(JavaError) as caught:
            self.call(op, path, **more)
        assert caught.value.code, caught.value
        return caught.value
