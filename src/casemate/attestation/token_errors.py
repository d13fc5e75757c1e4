"""Why an attestation token was not accepted."""

from __future__ import annotations

from casemate.errors import RefusedError

__all__ = [
    "TokenAudienceMismatchError",
    "TokenExpiredError",
    "TokenInvalidError",
    "TokenIssuerMismatchError",
    "TokenKeyUnknownError",
    "TokenNotYetValidError",
    "TokenSignatureError",
]


class TokenInvalidError(RefusedError):
    """An attestation token is not of the form it must have."""

    code = "token-invalid"
    http_status = 401
    fix = "Attest again to get a fresh token, and send it unchanged."


class TokenSignatureError(TokenInvalidError):
    """An attestation token's signature, algorithm or type is wrong."""

    code = "token-signature-invalid"
    fix = "Attest again; the token was changed, or is a signed document of another kind."


class TokenKeyUnknownError(TokenInvalidError):
    """An attestation token was signed by a key that the relying party does not know."""

    code = "token-key-unknown"
    fix = "Attest to the broker whose key set the relying party uses, or fetch that key set again."


class TokenIssuerMismatchError(TokenInvalidError):
    """An attestation token was issued by another broker than the expected one."""

    code = "token-issuer-mismatch"
    fix = "Attest to the broker that the relying party trusts."


class TokenAudienceMismatchError(TokenInvalidError):
    """An attestation token was issued for another relying party."""

    code = "token-audience-mismatch"
    fix = "Ask for a token for this relying party."


class TokenExpiredError(TokenInvalidError):
    """An attestation token is past its expiry."""

    code = "token-expired"
    fix = "Attest again; tokens are good for five minutes. If they always expire, compare both clocks."


class TokenNotYetValidError(TokenInvalidError):
    """An attestation token is from the future."""

    code = "token-not-yet-valid"
    fix = "Compare the clocks of the issuer and of the relying party."
