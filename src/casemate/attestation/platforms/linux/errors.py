"""What can go wrong between an attester and the kernel."""

from __future__ import annotations

from casemate.attestation.errors import MalformedEvidenceError
from casemate.errors import FailedError, UndecidedError

__all__ = ["TsmBusyError", "TsmCertificateTableError", "TsmFailedError", "TsmGenerationError", "TsmTooLargeError"]


class TsmBusyError(UndecidedError):
    """The TEE's quoting service was busy, or did not answer in time, at every try."""

    code = "tsm-busy"
    fix = "Try again; if it stays busy, check the quote generation service on the host."


class TsmGenerationError(UndecidedError):
    """Another process kept changing this request's inputs, so that no report could be told to be ours."""

    code = "tsm-generation"
    fix = (
        "Find out which process writes below /sys/kernel/config/tsm/report; each request needs a directory of its own."
    )


class TsmTooLargeError(FailedError):
    """The report is larger than the kernel hands out."""

    code = "tsm-too-large"
    fix = "Update the kernel; older ones cut reports at 32 KiB."


class TsmFailedError(FailedError):
    """The kernel or the libOS refused a step of making a report or extending a register."""

    code = "tsm-failed"
    fix = "Read the step and the error in the message; permissions and kernel version are the usual causes."


class TsmCertificateTableError(MalformedEvidenceError):
    """The SEV-SNP certificate table that came with the report is not of the form the GHCB specification gives it."""

    code = "tsm-certificate-table"
    fix = "Have the host load a valid table, or let the verifier fetch the certificates."
