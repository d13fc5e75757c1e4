"""What can go wrong between a program and the SIMULATED machine that runs it."""

from __future__ import annotations

from casemate.errors import FailedError, RefusedError, UndecidedError, UsageError

__all__ = [
    "LaunchRequestError",
    "OutsideTeeError",
    "SimulatorBusyError",
    "SimulatorProtocolError",
    "SimulatorUnreachableError",
]


class SimulatorUnreachableError(UndecidedError):
    """The simulated TEE host does not answer on its socket, or ended."""

    code = "tee-host-unreachable"
    fix = "Start it with `casemate up` and try again."


class SimulatorProtocolError(FailedError):
    """The simulated TEE host or its client sent a message that is not of the agreed form."""

    code = "tee-host-protocol"
    http_status = 400
    fix = "Use the same Casemate version on both sides of the socket."


class SimulatorBusyError(FailedError):
    """Another simulated TEE host already listens on the socket."""

    code = "tee-host-running"
    fix = "Use the running one, or stop it first with `casemate down`."


class LaunchRequestError(UsageError):
    """The simulated TEE host cannot start what it was asked to start."""

    code = "launch-invalid"
    fix = "Correct what the message names; nothing was started."


class OutsideTeeError(RefusedError):
    """A process asked for evidence that does not run inside the TEE whose evidence it asked for."""

    code = "outside-tee"
    fix = "Start the program through `casemate submit`; only a TEE's own processes get its evidence."
