"""The ``casemate`` command: finds the subcommand, imports only that, and reports whatever ends it.

``casemate run`` is the entry point of everything inside a TEE, where start-up time and the amount of code count:
it takes a path of its own that imports no command-line library.
"""

from __future__ import annotations

import sys
from typing import NoReturn

__all__ = ["invoke", "main"]


def invoke(arguments: list[str]) -> int:
    """Run one command line and return its exit status; never raises but for ``SystemExit`` of the program itself."""
    try:
        if arguments[:1] == ["run"]:
            from casemate.cli.run import main as run

            return run(arguments[1:])
        from casemate.cli.app import dispatch

        return dispatch(arguments)
    except BrokenPipeError:
        _silence_stdout()
        return 1
    except (Exception, KeyboardInterrupt) as exc:
        from casemate.cli.failure import report

        return report(exc)


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
