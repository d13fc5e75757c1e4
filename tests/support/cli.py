"""The `casemate` command as a user runs it: real processes, a state directory of one's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Cli", "Done", "processes_of"]


@dataclass(frozen=True)
class Done:
    """A command that ended."""

    status: int
    out: str
    err: str

    @property
    def value(self) -> Any:
        return json.loads(self.out)

    def refused(self, status: int, *codes: str) -> Done:
        """This, after checking that it ended as a refusal should: status, code, one line, one hint, no traceback."""
        assert self.status == status, self.err
        lines = [
            line for line in self.err.splitlines() if line.startswith(("refused:", "failed:", "usage:", "undecided:"))
        ]
        assert len(lines) == 1, self.err
        assert lines[0].split(": ")[1] in codes, self.err
        assert self.err.count("\nhint: ") == 1 or self.err.startswith("hint: "), self.err
        assert "Traceback" not in self.err
        return self


@dataclass(frozen=True)
class Cli:
    """Runs commands in ``where`` with the state directory ``home``."""

    home: Path
    where: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def environment(self) -> dict[str, str]:
        return {**os.environ, "CASEMATE_HOME": str(self.home)}

    def start(self, *arguments: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "casemate", *arguments],
            env=self.environment(),
            cwd=self.where,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def close(self) -> None:
        """End whatever a failed test left, and the services."""
        for process in self.started:
            if process.poll() is None:
                process.terminate()
                process.communicate(timeout=60)
        self.run("down")
        assert processes_of(self.home) == []

    def run(self, *arguments: str, stdin: str | None = None) -> Done:
        process = self.start(*arguments, stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE)
        out, err = process.communicate(stdin, timeout=240)
        self.started.remove(process)
        return Done(process.returncode, out, err)

    def ok(self, *arguments: str) -> Done:
        done = self.run(*arguments)
        assert done.status == 0, f"{' '.join(arguments)}: {done.err}"
        return done

    def json(self, *arguments: str) -> Any:
        return self.ok(*arguments, "--format", "json").value

    def write(self, name: str, text: str) -> Path:
        path = self.where / name
        path.write_text(text)
        return path


def processes_of(home: Path) -> list[str]:
    """Command lines of processes that mention ``home``."""
    found = []
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit() and int(directory.name) != os.getpid():
            try:
                line = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(home) in line:
                found.append(line)
    return found
