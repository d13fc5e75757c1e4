"""Turn whatever ended a command into one line, a hint and an exit status. No traceback reaches a user."""

from __future__ import annotations

import errno
import json
import os
import sys
import traceback

from casemate.cli.errors import (
    DiskFullError,
    FileMissingError,
    IoFailedError,
    OutOfReachError,
    PermissionDeniedError,
    PortInUseError,
)
from casemate.cli.output import Output, one_line, red
from casemate.errors import CasemateError, FailedError, RefusedError, UndecidedError, UsageError

__all__ = ["INTERRUPTED", "as_casemate_error", "label_of", "print_outcome", "report"]

INTERRUPTED = 130  # 128 + SIGINT, as shells report it

_BY_ERRNO: dict[int, type[CasemateError]] = {
    errno.ENOSPC: DiskFullError,
    errno.EDQUOT: DiskFullError,
    errno.EFBIG: DiskFullError,
    errno.EACCES: PermissionDeniedError,
    errno.EPERM: PermissionDeniedError,
    errno.EROFS: PermissionDeniedError,
    errno.EADDRINUSE: PortInUseError,
    errno.ENOENT: FileMissingError,
    errno.ENOTDIR: FileMissingError,
    errno.EISDIR: FileMissingError,
    errno.ECONNREFUSED: OutOfReachError,
    errno.ECONNRESET: OutOfReachError,
    errno.EHOSTUNREACH: OutOfReachError,
    errno.ENETUNREACH: OutOfReachError,
    errno.ETIMEDOUT: OutOfReachError,
}


def label_of(error: CasemateError | type[CasemateError]) -> str:
    """The word for the outcome: refused, failed, usage or undecided."""
    kind = error if isinstance(error, type) else type(error)
    for branch in (RefusedError, UsageError, UndecidedError):
        if issubclass(kind, branch):
            return branch.code
    return FailedError.code


def as_casemate_error(exc: BaseException) -> CasemateError | None:
    """The typed error for ``exc``, or None when it is a defect of ours."""
    if isinstance(exc, CasemateError):
        return exc
    if isinstance(exc, OSError):
        kind = _BY_ERRNO.get(exc.errno or 0, OutOfReachError if isinstance(exc, TimeoutError) else IoFailedError)
        reason = exc.strerror or str(exc) or type(exc).__name__
        where = " -> ".join(str(name) for name in (exc.filename, exc.filename2) if name is not None)
        return kind(f"{where}: {reason}" if where else reason)
    if isinstance(exc, MemoryError):
        return IoFailedError("out of memory")
    return None


def report(exc: BaseException) -> int:
    """Print what ended the command and return its exit status.

    stderr gets ``<outcome>: <code>: <message>`` and ``hint: <fix>``; with ``--format json`` stdout gets the same as an
    object. A defect of ours is one line as well; ``CASEMATE_DEBUG=1`` adds where it happened."""
    if isinstance(exc, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    if os.environ.get("CASEMATE_DEBUG"):
        traceback.print_exception(exc)
    error = as_casemate_error(exc)
    if error is None:
        error = FailedError(f"internal error: {type(exc).__name__}: {_words(exc)}")
        hint = "this is a defect of Casemate; run again with CASEMATE_DEBUG=1 and report what it prints"
    else:
        hint = _hint(error)
    label, code = label_of(error), error.code
    message = one_line(error.message)
    _print(label, code, message, hint)
    if Output.current is not None and Output.current.is_json:
        value = {"outcome": label, "code": code, "message": message, "hint": hint, "refusal_id": error.refusal_id}
        print(json.dumps(value, indent=2), flush=True)
    return error.exit_status


def print_outcome(label: str, code: str, message: str, hint: str, refusal_id: str | None) -> None:
    """The same two lines for an outcome that a TEE reported."""
    _print(label, code, one_line(message), _with_refusal(hint, refusal_id))


def _print(label: str, code: str, message: str, hint: str) -> None:
    heading = red(f"{label}:", sys.stderr)
    print(f"{heading} {message}" if code in ("", label) else f"{heading} {code}: {message}", file=sys.stderr)
    if hint:
        print(f"hint: {one_line(hint)}", file=sys.stderr, flush=True)


def _hint(error: CasemateError) -> str:
    return _with_refusal(error.fix, error.refusal_id)


def _with_refusal(fix: str, refusal_id: str | None) -> str:
    if refusal_id is None:
        return fix if "<refusal id>" not in fix else "The owner's audit log has the details."
    if "<refusal id>" in fix:
        return fix.replace("<refusal id>", refusal_id)
    return f"{fix} `casemate explain {refusal_id}` shows every clause.".strip()


def _words(exc: BaseException) -> str:
    """What an exception says; some of other libraries' raise another one when they are asked."""
    try:
        return str(exc)
    except Exception:  # the first one is what matters
        return "it does not say what"
