"""What can be wrong with a benchmark itself; what it measures raises errors of its own."""

from __future__ import annotations

from casemate.errors import FailedError, UsageError

__all__ = ["BenchDirectoryError", "BenchProcessError", "BenchSessionError", "BenchUnavailableError"]


class BenchUnavailableError(FailedError):
    """A benchmark needs a package that is not installed."""

    code = "bench-unavailable"
    fix = "Install what the message names: `pip install 'casemate[bench]'`."


class BenchDirectoryError(UsageError):
    """The directory given with ``--out`` holds an earlier run with other options, or files that are not of a run."""

    code = "bench-directory"
    fix = "Give the options of the earlier run to go on with it, or another `--out`."


class BenchSessionError(FailedError):
    """One of the Spark sessions that a benchmark compares did not start, ended, or failed to do its work."""

    code = "bench-session"
    fix = "Read the session's log, whose path the message gives."


class BenchProcessError(FailedError):
    """One of the processes that a benchmark runs side by side ended before its work was done."""

    code = "bench-process"
    fix = "Read its error before this one; most often memory is short, and a smaller `--size` helps."
