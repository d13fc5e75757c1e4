"""The error tree: one root, one branch per outcome, a stable ``code`` shared by API, CLI, audit log and docs.

Every class carries its documentation: the docstring is the cause, ``fix`` says what to do. The reference page of
error codes is generated from these. Packages add their own leaves in ``<package>/errors.py``.
Messages give both sides (expected, got) and never key bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

__all__ = [
    "CasemateError",
    "FailedError",
    "GenerationConflictError",
    "RefusedError",
    "UndecidedError",
    "UsageError",
    "error_class",
    "error_classes",
]


class CasemateError(Exception):
    """Root of everything Casemate raises on purpose."""

    code: ClassVar[str] = "error"
    exit_status: ClassVar[int] = 1
    http_status: ClassVar[int] = 500
    fix: ClassVar[str] = "Read the message; if it does not help, run `casemate doctor`."

    def __init__(self, message: str, *, refusal_id: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.refusal_id = refusal_id


class UsageError(CasemateError):
    """The command, file or request is not of the form it must have."""

    code = "usage"
    exit_status = 2
    http_status = 400
    fix = "Correct the argument, file or setting that the message names."


class GenerationConflictError(UsageError):
    """Somebody else committed the same dataset in the meantime; nothing was recorded.

    Shared, because the broker that keeps the records and the data code that commits may not import one another."""

    code = "generation-conflict"
    http_status = 409
    fix = "Look at the new state of the dataset and run the command or job again."


class FailedError(CasemateError):
    """Something on this machine did not work: a full disk, a port in use, a program that ended with an error."""

    code = "failed"
    exit_status = 1
    http_status = 500
    fix = "Mend what the message names and run the command again; nothing was half-written."


class RefusedError(CasemateError):
    """The request was read and understood, and the answer is no."""

    code = "refused"
    exit_status = 1
    http_status = 403
    fix = "Run `casemate explain <refusal id>` to see which clause did not hold."


class UndecidedError(CasemateError):
    """An endorsement, a broker or a piece of collateral was out of reach; trying again later may work."""

    code = "undecided"
    exit_status = 3
    http_status = 503
    fix = "Bring the named service or endorsement within reach and try again; nothing was accepted."


def error_classes(root: type[CasemateError] = CasemateError) -> Iterator[type[CasemateError]]:
    """Every error class below ``root`` that has been imported, the root first."""
    yield root
    for sub in root.__subclasses__():
        yield from error_classes(sub)


def error_class(code: str, http_status: int = 403) -> type[CasemateError]:
    """The class for a ``code`` that came over the wire; an unknown code falls back to its HTTP status's branch."""
    for cls in error_classes():
        if cls.code == code:
            return cls
    if http_status in (400, 404, 409, 422):
        return UsageError
    return UndecidedError if http_status in (429, 502, 503, 504) else RefusedError
