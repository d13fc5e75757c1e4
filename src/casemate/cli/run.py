"""`casemate run`: what a TEE's launcher starts. Imports no command-line library, since every process pays for it."""

from __future__ import annotations

import os
from collections.abc import Sequence

from casemate import engines
from casemate.errors import UsageError
from casemate.workload.run import run

__all__ = ["USAGE", "main"]

USAGE = """usage: casemate run [-- ENGINE ARGUMENTS]

The entry point of everything inside a TEE: attests, fetches granted keys, runs the workload. A launcher starts it
(`casemate submit` asks one to) and says what to run: CASEMATE_MANIFEST, CASEMATE_BUNDLE, CASEMATE_JOB, CASEMATE_ROLE,
CASEMATE_TEE_DIR. Exit status: 0 done, 1 refused or failed, 2 usage, 3 undecided."""


def main(arguments: Sequence[str]) -> int:
    """Run the workload that the environment names."""
    if list(arguments[:1]) in (["--help"], ["-h"]):
        print(USAGE)
        return 0
    if arguments and arguments[0] != "--":
        raise UsageError(f"casemate run takes no argument {arguments[0]!r}; engine arguments follow `--`")
    return run(engines.load, os.environ, tuple(arguments[1:]))
