"""Why a workload does not start, or does not go on, inside its TEE."""

from __future__ import annotations

from casemate.errors import CasemateError, FailedError, RefusedError, UndecidedError, UsageError, error_class

__all__ = [
    "BundleMissingError",
    "KeyBrokerAnswerError",
    "KeyBrokerRefusedError",
    "KeyBrokerUnreachableError",
    "ManifestMalformedError",
    "MemberLostError",
    "MountLostError",
    "MountUnavailableError",
    "ProgramChangedError",
    "ProgramFailedError",
    "RunEnvironmentError",
    "RuntimeMismatchError",
    "StageTooSmallError",
    "WrongBrokerError",
    "broker_error",
]


class ManifestMalformedError(UsageError):
    """The workload manifest has an unknown, missing or ill-typed member."""

    code = "workload-manifest-malformed"
    fix = "Make the manifest with `casemate submit` or `casemate workload show`, and do not edit it."


class BundleMissingError(UsageError):
    """A file that the workload manifest names was not delivered with it."""

    code = "bundle-missing"
    http_status = 404
    fix = "Deliver every file that the manifest names beside it; `casemate submit` does so by itself."


class ProgramChangedError(RefusedError):
    """A program file is not the one the workload manifest names: it was changed after the manifest was made."""

    code = "program-changed"
    fix = "Submit again: a changed program has another digest and needs a grant of its own."


class RuntimeMismatchError(RefusedError):
    """Python, Casemate or the installed packages are not those that the workload manifest was made for."""

    code = "runtime-mismatch"
    fix = "Run the workload on the installation it was made on, or submit it again from this one."


class RunEnvironmentError(UsageError):
    """`casemate run` was started without what the TEE's launcher has to tell it."""

    code = "run-environment"
    fix = "Start programs with `casemate submit`; it sets what the message names."


class KeyBrokerUnreachableError(UndecidedError):
    """The broker that a zone or the job needs does not answer, or its certificate is not the one in the manifest."""

    code = "key-broker-unreachable"
    fix = "Bring the broker within reach (`casemate status`) and submit again; nothing was released."


class WrongBrokerError(RefusedError):
    """Whoever answers at the broker's address has no certificate of the authority that the manifest names."""

    code = "broker-not-trusted"
    fix = "Check the broker's address and its CA certificate; somebody else may be answering there."


class KeyBrokerAnswerError(FailedError):
    """The broker sent an answer that is not of the form its protocol defines."""

    code = "key-broker-answer"
    http_status = 502
    fix = "Check that the address in the manifest is a key broker's and that it speaks KBS protocol 0.4.0."


class ProgramFailedError(FailedError):
    """The program ran inside its TEE and ended with an error of its own."""

    code = "program-ended"
    fix = "Read the program's own output above; nothing was refused by Casemate."


class MemberLostError(FailedError):
    """A member of the job's cluster (master or worker) ended, or did not become ready in time."""

    code = "member-lost"
    fix = "Look at the member's own line above; submit again when the cause is mended."


class KeyBrokerRefusedError(RefusedError):
    """The broker said no without a code that Casemate knows; the message has its own words."""

    code = "key-broker-refused"
    fix = "Read the broker's words in the message; its operator's log has the details."


class MountUnavailableError(FailedError):
    """The zones cannot be mounted here: no /dev/fuse, no libfuse, or no right to make a mount namespace."""

    code = "mount-unavailable"
    fix = "Install fuse3 and `casemate[fuse]` and allow /dev/fuse inside the TEE, or submit with --stage instead."


class MountLostError(FailedError):
    """The process that serves a zone to the program was killed, so that what the program wrote may be incomplete."""

    code = "mount-lost"
    fix = "Submit the job again; nothing was committed. If memory ran out, give the TEE more."


class StageTooSmallError(FailedError):
    """The TEE's private memory does not hold the plaintext of the zones that the job wants as files."""

    code = "stage-too-small"
    fix = "Give the TEE more memory, read fewer files, or submit with --mount, which keeps nothing in memory."


def broker_error(code: str, status: int, detail: str, refusal_id: str | None) -> CasemateError:
    """The error a broker answered with, under the broker's own code even when this process does not know it."""
    error = error_class(code, status)(detail, refusal_id=refusal_id)
    if error.code != code:
        setattr(error, "code", code)  # noqa: B010 - a code of the broker's, beside its branch
    return error
