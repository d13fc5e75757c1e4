"""How `casemate run` tells its launcher what happens, and its user how it ended."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from casemate.attestation.platforms.simulator.client import TEE_SOCKET_VARIABLE, SimulatorAttester
from casemate.errors import CasemateError, FailedError, UndecidedError

__all__ = ["QUIET_VARIABLE", "Reporter", "outcome_of"]

QUIET_VARIABLE = "CASEMATE_QUIET"  # the launcher prints the outcome itself


def outcome_of(error: CasemateError | None) -> str:
    """done, failed, refused or undecided. Whatever else a check says no to inside a TEE is a refusal."""
    if error is None:
        return "done"
    if isinstance(error, UndecidedError):
        return "undecided"
    return "failed" if isinstance(error, FailedError) else "refused"


class Reporter:
    """Progress to the TEE's launcher, when it listens; the end also to stderr. A launcher that is gone is no error."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        path = environment.get(TEE_SOCKET_VARIABLE)
        self._launcher = SimulatorAttester(Path(path)) if path else None
        self.role: str | None = None  # told with every report, once it is known
        self._quiet = bool(environment.get(QUIET_VARIABLE))

    def progress(self, phase: str, **fields: Any) -> None:
        self._tell(phase=phase, **fields)

    def end(self, error: CasemateError | None) -> None:
        """Report how it ended; a refusal or failure is one line and a hint on stderr."""
        fields: dict[str, Any] = {"outcome": outcome_of(error)}
        if error is not None:
            message = " ".join(error.message.split())
            fields |= {"code": error.code, "message": message, "hint": error.fix, "refusal_id": error.refusal_id}
            if not self._tell(**fields) or not self._quiet:
                print(f"{fields['outcome']}: {error.code}: {message}", file=sys.stderr)
                print(f"hint: {_hint(error)}", file=sys.stderr, flush=True)
        else:
            self._tell(**fields)

    def note(self, code: str, message: str) -> None:
        """A refusal that the program itself dealt with."""
        print(f"note: {code}: {message}", file=sys.stderr, flush=True)

    def _tell(self, **fields: Any) -> bool:
        if self._launcher is not None:
            with contextlib.suppress(CasemateError):
                self._launcher.report(**({} if self.role is None else {"role": self.role}), **fields)
                return True
        return False


def _hint(error: CasemateError) -> str:
    return error.fix.replace("<refusal id>", error.refusal_id or "<refusal id>")
