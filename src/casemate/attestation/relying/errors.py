"""Why a relying party turned a request away, beyond the faults of the token itself."""

from __future__ import annotations

from casemate.errors import RefusedError, UndecidedError

__all__ = [
    "KeySetUnreachableError",
    "TokenBrokerAnswerError",
    "TokenMissingError",
    "TokenPolicyMismatchError",
    "TokenProofInvalidError",
    "TokenProofMissingError",
    "TokenProofReplayedError",
    "TokenSimulatedError",
    "TokenStatusNotAcceptedError",
    "TokenWorkloadMismatchError",
]


class TokenMissingError(RefusedError):
    """A request to a service that demands attestation brings no attestation token."""

    code = "token-missing"
    http_status = 401
    fix = "Send `Authorization: DPoP <token>` and a `DPoP` proof; `AttestedAuth` for httpx does both."


class TokenProofMissingError(RefusedError):
    """A request brings an attestation token, and no proof that it comes from the attested key's holder."""

    code = "token-proof-missing"
    http_status = 401
    fix = "Send a `DPoP` proof (RFC 9449) made with the attested key; a token alone could be a stolen one."


class TokenProofInvalidError(RefusedError):
    """The proof beside an attestation token is not of this request, this token, this time or the attested key."""

    code = "token-proof-invalid"
    http_status = 401
    fix = "Make a proof for each request, for the service's own URL, with the key the token names (`cnf`)."


class TokenProofReplayedError(RefusedError):
    """The proof beside an attestation token was used before."""

    code = "token-proof-replayed"
    http_status = 401
    fix = "Make a fresh proof for each request."


class TokenStatusNotAcceptedError(RefusedError):
    """The attestation token is genuine; its status is not one that this service accepts."""

    code = "token-status-not-accepted"
    fix = "Bring the platform up to what the broker's policy calls affirming, or let the service accept `warning`."


class TokenSimulatedError(RefusedError):
    """The attestation token is of a SIMULATED TEE, and this service wants a real one."""

    code = "token-simulated"
    fix = "Run on a real TEE; for a trial the service may set `allow_simulated`."


class TokenWorkloadMismatchError(RefusedError):
    """The attestation token is of another workload than those this service serves."""

    code = "token-workload-mismatch"
    fix = "Compare the workload digest with `casemate workload show`; the service lists the ones it serves."


class TokenPolicyMismatchError(RefusedError):
    """The attestation token was earned under another appraisal policy than those this service relies on."""

    code = "token-policy-mismatch"
    fix = "Let the broker appraise under one of the policies the service names by digest."


class KeySetUnreachableError(UndecidedError):
    """The broker's key set, which tokens are verified with, could not be fetched."""

    code = "key-set-unreachable"
    fix = "Bring the broker within the service's reach; see that the service has the broker's own CA certificate."


class TokenBrokerAnswerError(UndecidedError):
    """A broker did not answer a request for a token in the way the protocol says."""

    code = "token-broker-answer"
    fix = "See that the address is a broker's (KBS protocol 0.4.0) and that the CA certificate is the broker's own."
