"""Why reference values could not be computed, read or used."""

from __future__ import annotations

from casemate.errors import FailedError, RefusedError, UndecidedError, UsageError

__all__ = [
    "ReferenceBuilderUnknownError",
    "ReferenceEmptyError",
    "ReferenceExpiredError",
    "ReferenceInputError",
    "ReferenceMalformedError",
    "ReferenceSignatureError",
    "ReferenceToolFailedError",
    "ReferenceToolMissingError",
]


class ReferenceMalformedError(RefusedError):
    """A document of reference values is not of the form it must have."""

    code = "reference-malformed"
    fix = "Give a document that `casemate reference compute` wrote, unchanged."


class ReferenceSignatureError(RefusedError):
    """A document of reference values was changed, or was not signed by the builder it names."""

    code = "reference-signature-invalid"
    fix = "Get the document from the builder again."


class ReferenceBuilderUnknownError(RefusedError):
    """The builder who signed the reference values is not the one that was demanded, or none was named."""

    code = "reference-builder-unknown"
    fix = "Name the builder you trust: `--builder NAME` for an identity of this machine, or `--builder-key FILE`."


class ReferenceExpiredError(UndecidedError):
    """The reference values are past the date their builder stands by."""

    code = "reference-expired"
    fix = "Compute them again from the build that is in use now."


class ReferenceEmptyError(UsageError):
    """Nothing was given to compute reference values from, or a document has none for the platform."""

    code = "reference-empty"
    fix = "Give at least one of --ovmf, --event-log, --manifest, --sigstruct, --gramine-manifest, --simulator."


class ReferenceInputError(UsageError):
    """A file or setting to compute reference values from is not of the form it must have."""

    code = "reference-input-invalid"
    fix = "Correct the file or setting the message names."


class ReferenceToolMissingError(FailedError):
    """A program or package that computes a reference value is not installed."""

    code = "reference-tool-missing"
    fix = "Install what the message names, or leave that value out."


class ReferenceToolFailedError(FailedError):
    """A program that computes a reference value ended with an error."""

    code = "reference-tool-failed"
    fix = "Run the program the message names by hand and mend what it complains about."
