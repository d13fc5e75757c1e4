"""Why a stored file could not be appraised: what it is, what it is not, and which piece is missing beside it."""

from __future__ import annotations

from casemate.attestation.errors import MalformedEvidenceError
from casemate.errors import RefusedError, UndecidedError, UsageError

__all__ = [
    "ChallengeFormError",
    "EventLogNotApplicableError",
    "EvidenceIncompleteError",
    "EvidencePlatformMismatchError",
    "EvidenceUnrecognisedError",
    "NotEvidenceError",
    "QuoteTrailingBytesError",
    "TdReportUnsignedError",
]


class EvidenceUnrecognisedError(MalformedEvidenceError):
    """The file's content is of no kind of evidence that is known here."""

    code = "evidence-unrecognised"
    fix = "Give the quote, report or evidence JSON as the attester wrote it; `--platform` names its kind."


class EvidencePlatformMismatchError(RefusedError):
    """The evidence is of another platform than the one that was asked for."""

    code = "evidence-platform-mismatch"
    fix = "Name the right `--platform`, or leave it at auto."


class EvidenceIncompleteError(MalformedEvidenceError):
    """The file holds a part of an evidence only, which proves nothing without the rest."""

    code = "evidence-incomplete"
    fix = "Give the whole evidence as the attester sends it: quote, signature and register values."


class NotEvidenceError(UndecidedError):
    """The file is an endorsement (certificate, revocation list, collateral) or an event log, in order as far as one can
    see; it says nothing about a TEE without the evidence it belongs to."""

    code = "not-evidence"
    fix = "Give the quote or report as EVIDENCE, and this file by `--certs`, `--collateral` or `--event-log`."


class TdReportUnsignedError(UndecidedError):
    """A TDREPORT carries a MAC that only the processor which made it can check; it is no evidence to anyone else."""

    code = "td-report-unsigned"
    fix = "Have the machine's quoting service turn the TDREPORT into a quote."


class QuoteTrailingBytesError(MalformedEvidenceError):
    """Bytes other than zeros follow the end of a quote; platforms pad with zeros, and with nothing else."""

    code = "quote-trailing-bytes"
    fix = "Cut the file at the end of the quote; find out what wrote the rest."


class ChallengeFormError(UsageError):
    """A challenge is not hexadecimal, or is longer than the platform's report data."""

    code = "challenge-malformed"
    fix = "Give at most 64 bytes in hexadecimal (GPUs: 32), as the attester was asked with."


class EventLogNotApplicableError(UsageError):
    """An event log was given for evidence that has no registers to replay it into."""

    code = "event-log-not-applicable"
    fix = "Leave `--event-log` away; SGX, SEV-SNP and GPU evidence has no runtime registers."
