"""Why collateral could not be fetched, read or kept. What is wrong inside a piece, its platform's errors say."""

from __future__ import annotations

from casemate.attestation.errors import CollateralMissingError
from casemate.errors import FailedError, RefusedError, UsageError

__all__ = [
    "BundleMalformedError",
    "CollateralBusyError",
    "CollateralCacheError",
    "CollateralNotServedError",
    "CollateralNotYetValidError",
    "CollateralReplyMalformedError",
    "CollateralReplyOversizedError",
    "CollateralTargetError",
    "CollateralUnreachableError",
    "CollateralUrlError",
]


class CollateralUrlError(UsageError):
    """The address of a collateral service is not an https URL, or the certificate file for it is unusable."""

    code = "collateral-url-invalid"
    fix = "Give `--url https://host:port`, and with `--ca FILE` the PEM certificate that signed the service's own."


class CollateralTargetError(UsageError):
    """The command does not say for which platform collateral is wanted, or says it twice differently."""

    code = "collateral-target-missing"
    fix = "Give a quote or report with `--evidence FILE`, or name the platform: `--fmspc HEX`, or `--product Milan`."


class CollateralUnreachableError(CollateralMissingError):
    """The collateral service did not answer in time, not over trusted TLS, or answered with an error of its own."""

    code = "collateral-service-unreachable"
    fix = "Check the address and the network; for a private service give its CA by `--ca FILE`. Nothing was changed."


class CollateralBusyError(CollateralMissingError):
    """The collateral service limits its callers and asked to come back later than this command waits."""

    code = "collateral-service-busy"
    fix = "Try again after the time the message names; what is in the cache stays in use until it expires."


class CollateralNotServedError(CollateralMissingError):
    """The collateral service does not know the platform, or does not offer this piece (404)."""

    code = "collateral-not-served"
    fix = "Check the FMSPC and the service; a PCCS may have to be filled first. Else import the piece from a file."


class CollateralReplyMalformedError(RefusedError):
    """The collateral service sent something that is not the piece it was asked for, or broke off in the middle."""

    code = "collateral-reply-malformed"
    fix = "Check that the address is that of a PCS, PCCS or KDS of the right version. Nothing was changed."


class CollateralReplyOversizedError(RefusedError):
    """The collateral service sent more than any genuine piece has."""

    code = "collateral-reply-oversized"
    fix = "Check that the address is that of a collateral service. Nothing was kept."


class BundleMalformedError(RefusedError):
    """A bundle to import is no archive, directory, JSON, certificate or revocation list that can be read safely."""

    code = "collateral-bundle-malformed"
    fix = "Give a directory, tar or zip of regular files: collateral JSON, PCS replies, PEM, DER, revocation lists."


class CollateralNotYetValidError(RefusedError):
    """A piece of collateral is dated in the future."""

    code = "collateral-from-the-future"
    fix = "Check this machine's clock; if it is right, do not use that source."


class CollateralCacheError(FailedError):
    """The directory of kept collateral cannot be read or written."""

    code = "collateral-cache-unusable"
    fix = "Check the directory's owner, mode and free space; nothing was half-written."
