"""Why evidence, a policy or a token was not accepted. One class per reason; platforms add their own."""

from __future__ import annotations

from casemate.errors import RefusedError, UndecidedError, UsageError

__all__ = [
    "AppraisalRefusedError",
    "CollateralExpiredError",
    "CollateralMissingError",
    "EvidenceSignatureError",
    "MalformedEvidenceError",
    "MalformedPolicyError",
    "NoTeeError",
    "ReportDataMismatchError",
    "UntrustedRootError",
]


class MalformedEvidenceError(RefusedError):
    """The evidence is not of the form its platform defines: wrong size, version, field or encoding."""

    code = "evidence-malformed"
    http_status = 400
    fix = "Collect the evidence again; if it is fresh, the attester is of a version this verifier does not read."


class EvidenceSignatureError(RefusedError):
    """A signature in the evidence, or in the certificate chain that vouches for it, does not verify."""

    code = "evidence-signature-invalid"
    fix = "Collect the evidence again; it was changed, or signed by another key than its certificates name."


class UntrustedRootError(RefusedError):
    """The evidence's certificate chain ends in a root that this verifier does not trust."""

    code = "untrusted-root"
    fix = "Only a maker's pinned root, or a simulator root that was added on purpose, is trusted."


class ReportDataMismatchError(RefusedError):
    """The evidence is genuine but was made for another challenge or another key: a replay, or a relayed quote."""

    code = "report-data-mismatch"
    fix = "Attest again with a fresh challenge; evidence is good for one challenge and one key."


class CollateralMissingError(UndecidedError):
    """A piece of collateral (TCB info, identity, certificate, CRL) that the decision needs is not at hand."""

    code = "collateral-missing"
    fix = "Fetch or import the named piece of collateral and try again."


class CollateralExpiredError(UndecidedError):
    """A piece of collateral is past its next-update date, so that nothing can be said about the platform."""

    code = "collateral-expired"
    fix = "Fetch or import fresh collateral and try again."


class AppraisalRefusedError(RefusedError):
    """The evidence was read and verified; the appraisal policy does not accept it."""

    code = "appraisal-refused"
    fix = "Compare expected and got in each failed clause; change the platform or the policy."


class MalformedPolicyError(UsageError):
    """An appraisal policy has an unknown key, a value of the wrong type, or demands nothing at all."""

    code = "policy-malformed"
    fix = "Correct the key the message names; an empty policy accepts nothing."


class NoTeeError(UndecidedError):
    """No trusted execution environment was found on this machine."""

    code = "no-tee"
    fix = "Run inside a TEE, or let `casemate submit` start the program in the simulated one."
