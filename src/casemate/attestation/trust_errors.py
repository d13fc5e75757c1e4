"""What can be wrong with trust anchors and with evidence nobody has an anchor for."""

from __future__ import annotations

from casemate.attestation.errors import MalformedEvidenceError
from casemate.errors import UndecidedError, UsageError

__all__ = ["EvidenceKindUnknownError", "TrustAnchorError", "TrustUnreadableError"]


class TrustAnchorError(UsageError):
    """A trust anchor is not a certificate, or not the one that its place demands."""

    code = "trust-anchor-invalid"
    fix = "Give the maker's own root certificate in DER; the simulator's root goes in its own place."


class EvidenceKindUnknownError(MalformedEvidenceError):
    """The evidence is of a kind for which this verifier has no verifier or no trust anchor."""

    code = "evidence-kind-unknown"
    fix = "Configure a trust anchor for this kind of evidence, or attest with another kind."


class TrustUnreadableError(UndecidedError):
    """A file of the verifier's trust anchors or collateral is damaged, so that evidence that needs it is not judged."""

    code = "trust-unreadable"
    fix = "Replace or remove the file that the message names; a running broker notices within seconds."
