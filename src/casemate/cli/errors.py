"""What can go wrong on the owner's or submitter's own machine."""

from __future__ import annotations

from casemate.errors import FailedError, RefusedError, UndecidedError, UsageError

__all__ = [
    "DiskFullError",
    "ExtraMissingError",
    "FileMissingError",
    "IdentityMissingError",
    "IoFailedError",
    "JavaMissingError",
    "LaunchFailedError",
    "NotRunningError",
    "OutOfReachError",
    "PermissionDeniedError",
    "PortInUseError",
    "RememberedMalformedError",
    "RuntimeChangedError",
    "StartFailedError",
    "StateBusyError",
]


class FileMissingError(UsageError):
    """A file or directory that the command names does not exist, or is of another kind."""

    code = "file-missing"
    fix = "Check the path that the message names."


class IdentityMissingError(UsageError):
    """The private key of an owner or administrator is not on this machine."""

    code = "identity-missing"
    fix = "Run the command on the owner's machine, or create the identity with `casemate key create OWNER/DATASET`."


class DiskFullError(FailedError):
    """There is no room left on the device, or the quota is used up."""

    code = "disk-full"
    fix = "Make room, or write to another device; nothing was half-written."


class PermissionDeniedError(FailedError):
    """The operating system does not permit this user to touch the file."""

    code = "permission-denied"
    fix = "Run as the user who owns the file, or change its mode."


class PortInUseError(FailedError):
    """Another process listens on the port that the broker should use."""

    code = "port-in-use"
    fix = "Stop the other process, or choose a port: `casemate up --port 7444`."


class IoFailedError(FailedError):
    """The operating system reported an error that has no name of its own here."""

    code = "io-failed"
    fix = "Mend what the message names and run the command again."


class StartFailedError(FailedError):
    """A background process ended, or did not become ready, while it was being started; what was started is stopped."""

    code = "start-failed"
    fix = "Read the log that the message names, then run `casemate doctor`."


class LaunchFailedError(FailedError):
    """The program ended with an error of its own, inside its TEE."""

    code = "program-failed"
    fix = "Read the program's own output above; nothing was refused."


class JavaMissingError(FailedError):
    """Spark needs Java 17 or newer, and none was found."""

    code = "java-missing"
    fix = "Install a Java 17 runtime (Debian: `apt-get install openjdk-17-jre-headless`), or set JAVA_HOME."


class NotRunningError(UndecidedError):
    """A local service (broker or simulated TEE host) is not running."""

    code = "not-running"
    fix = "Start it with `casemate up`."


class OutOfReachError(UndecidedError):
    """A service did not answer over the network."""

    code = "out-of-reach"
    fix = "Check that the service runs and that its address in config.json is right, then try again."


class RuntimeChangedError(RefusedError):
    """The default policy pins the measurement of an earlier runtime than the one now installed."""

    code = "runtime-changed"
    fix = "If you changed the installation yourself, run `casemate up` to pin the new measurement."


class StateBusyError(UndecidedError):
    """Another command is starting or stopping services in the same state directory."""

    code = "state-busy"
    fix = "Wait until the other command has ended and try again."


class RememberedMalformedError(RefusedError):
    """The file of audit checkpoints that this machine remembers was changed or damaged."""

    code = "remembered-malformed"
    fix = "Restore the file from a backup; remove it only if you accept that earlier roll-backs are not found."


class ExtraMissingError(FailedError):
    """An optional part of the installation that the command needs is not there."""

    code = "extra-missing"
    fix = "Install it: `pip install 'casemate[demo]'`, or use `make demo`, which does."
