"""The ``casemate`` command: finds the subcommand, imports only that, and reports whatever ends it.

``casemate run`` is the entry point of everything inside a TEE, where start-up time and the amount of code count:
it takes a path of its own that imports no command-line library.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import NoReturn

__all__ = ["Stopped", "invoke", "main"]


class Stopped(KeyboardInterrupt):
    """SIGTERM or SIGHUP: ends a command as Ctrl-C does, through every ``finally``."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def _stop(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # once is enough; what cleans up must not be cut short
    raise Stopped(number)


def invoke(arguments: list[str]) -> int:
    """Run one command line and return its exit status; never raises but for ``SystemExit`` of the program itself."""
    try:
        if arguments[:1] == ["run"]:
            from casemate.cli.run import main as run

            return run(arguments[1:])
        from casemate.cli.app import dispatch

        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _stop)
        return dispatch(arguments)
    except BrokenPipeError:
        _silence_stdout()
        return 1
    except (Exception, KeyboardInterrupt) as exc:
        from casemate.cli.failure import report

        status = report(exc)
        return 128 + exc.number if isinstance(exc, Stopped) else status


def main() -> NoReturn:
    """Console entry point."""
    status = invoke(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _silence_stdout()
    sys.exit(status)


def _silence_stdout() -> None:
    """The reader of our output has gone (``casemate … | head``): say nothing more, not even at exit."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
