"""Verify the token of one request: keys, content, demands, and the proof that its holder sent it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from casemate.attestation import token as tokens
from casemate.attestation.relying.demands import Demands
from casemate.attestation.relying.errors import (
    TokenProofInvalidError,
    TokenProofMissingError,
    TokenProofReplayedError,
)
from casemate.attestation.token import AttestationResult
from casemate.attestation.token_errors import TokenKeyUnknownError
from casemate.crypto.errors import SignatureInvalidError
from casemate.crypto.proof import PROOF_LIFETIME, verify_proof

__all__ = ["KeySource", "TokenVerifier"]

_MAX_PROOFS = 100_000  # remembered; when so many are fresh, the oldest go


class KeySource(Protocol):
    """Where the issuer's key set (JWKS) comes from."""

    def keys(self) -> Mapping[str, Any]:
        """The key set; raises ``KeySetUnreachableError``."""
        ...

    def refreshed(self) -> Mapping[str, Any]:
        """The key set, fetched anew when that is due: an unknown key may be one that was rotated in."""
        ...


class TokenVerifier:
    """Verifies tokens of one issuer for one audience (the issuer itself when not given). Safe to use from threads."""

    def __init__(
        self,
        keys: KeySource,
        *,
        issuer: str,
        audience: str | None = None,
        demands: Demands | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._keys, self._issuer, self._audience = keys, issuer, audience or issuer
        self._demands = demands or Demands()
        self._clock = clock
        self._proofs: OrderedDict[tuple[str, str], datetime] = OrderedDict()
        self._lock = threading.Lock()

    def verify(self, token: str, *, method: str, url: str, proof: str | None = None) -> AttestationResult:
        """Who sent the request ``method url``; raises the error of the step that failed.

        A proof that comes along is always checked; without one, only ``insecure_allow_bearer`` lets a token pass."""
        # 1. Signature, issuer, audience, dates.   2. Proof of the attested key.   3. What this service demands.
        now = self._clock()
        result = self._open(token, now)  # (1)
        if proof is not None:
            self._check_proof(result, token, proof, method, url, now)  # (2)
        elif not self._demands.insecure_allow_bearer:
            raise TokenProofMissingError("request: an attestation token without a DPoP proof")
        self._demands.check(result)  # (3)
        return result

    def _open(self, token: str, now: datetime) -> AttestationResult:
        try:
            return self._open_with(self._keys.keys(), token, now)
        except TokenKeyUnknownError:
            return self._open_with(self._keys.refreshed(), token, now)

    def _open_with(self, keys: Mapping[str, Any], token: str, now: datetime) -> AttestationResult:
        return tokens.verify(token, keys=keys, issuer=self._issuer, audience=self._audience, now=now)

    def _check_proof(
        self, result: AttestationResult, token: str, proof: str, method: str, url: str, now: datetime
    ) -> None:
        try:
            found = verify_proof(proof, method=method, url=url, now=now, token=token)
        except SignatureInvalidError as exc:
            raise TokenProofInvalidError(exc.message) from exc
        if found.thumbprint != result.key_thumbprint:
            raise TokenProofInvalidError(
                f"request proof: by key {found.thumbprint}, the token names {result.key_thumbprint}"
            )
        with self._lock:
            while self._proofs and (
                len(self._proofs) >= _MAX_PROOFS or next(iter(self._proofs.values())) + 2 * PROOF_LIFETIME < now
            ):
                self._proofs.popitem(last=False)
            if (found.thumbprint, found.jti) in self._proofs:
                raise TokenProofReplayedError("request proof: used before")
            self._proofs[found.thumbprint, found.jti] = now
