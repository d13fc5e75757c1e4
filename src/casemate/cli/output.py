"""How a command speaks: data on stdout, talk on stderr, colour and bars only on a terminal."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, TextIO

__all__ = ["Format", "Output", "one_line", "red", "table", "terminal_width"]


class Format(StrEnum):
    """``--format``: text for people, json for programs."""

    TEXT = "text"
    JSON = "json"


def _colours(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def red(text: str, stream: TextIO) -> str:
    """``text`` in red where ``stream`` shows colours; the words alone must carry the meaning."""
    return f"\x1b[1;31m{text}\x1b[0m" if _colours(stream) else text


def one_line(text: object, limit: int = 2000) -> str:
    """``text`` on one line, control characters escaped: names and messages may come from an adversary."""
    joined = " ".join(str(text).split())
    shown = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in joined)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def terminal_width() -> int | None:
    """Columns of the terminal that stdout is, or what ``COLUMNS`` says; ``None`` for a file or pipe: nothing is cut."""
    if not sys.stdout.isatty() and not os.environ.get("COLUMNS", "").isdecimal():
        return None
    return max(40, shutil.get_terminal_size().columns)


def table(rows: Sequence[Sequence[object]], header: Sequence[str]) -> str:
    """Columns aligned by spaces, the header first; an empty table is the header alone."""
    cells = [list(header), *([one_line(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells)


class Output:
    """One command's voice. ``data`` is its result, everything else is talk."""

    current: Output | None = None
    """The voice of the running command: the last resort that prints an error needs its format."""

    def __init__(self, fmt: Format = Format.TEXT) -> None:
        self.format = fmt
        Output.current = self

    @property
    def is_json(self) -> bool:
        return self.format is Format.JSON

    def data(self, value: Any, text: str | Callable[[], str] | None = None) -> None:
        """Print the result: ``value`` as JSON, or ``text`` (nothing when it is None)."""
        if self.is_json:
            print(json.dumps(value, indent=2, ensure_ascii=False, sort_keys=False))
        elif text is not None:
            shown = text if isinstance(text, str) else text()
            if shown:
                print(shown)
        sys.stdout.flush()

    def say(self, text: str) -> None:
        """One line of talk."""
        print(one_line(text), file=sys.stderr, flush=True)

    def simulated(self, text: str) -> None:
        """One line of talk that says, in red, that a TEE is simulated."""
        print(f"{red('SIMULATED', sys.stderr)} {one_line(text)}", file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        print(f"{red('warning:', sys.stderr)} {one_line(text)}", file=sys.stderr, flush=True)

    @contextmanager
    def progress(self, label: str, total: int | None, unit: str = "bytes") -> Iterator[Callable[[int], None]]:
        """A bar on stderr when people read that on a terminal; yields ``advance(amount)``, which else does nothing."""
        if self.is_json or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
            yield lambda amount: None
            return
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        columns = [TextColumn("{task.description}"), BarColumn()]
        if unit == "bytes":
            columns += [DownloadColumn(binary_units=True), TransferSpeedColumn()]
        else:
            columns += [TextColumn(f"{{task.completed}}/{{task.total}} {unit}")]
        console = Console(stderr=True, no_color=bool(os.environ.get("NO_COLOR")) or None)
        with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
            task = bar.add_task(label, total=total)
            yield lambda amount: bar.advance(task, amount)
