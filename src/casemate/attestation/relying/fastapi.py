"""A FastAPI dependency: an endpoint that only attested callers reach.

``attested = Attested(broker_url, ca=..., url="https://this.service")`` and ``Depends(attested)`` are all it takes.
"""

from collections.abc import Iterable
from pathlib import Path

from fastapi import HTTPException, Request

from casemate.attestation.relying.demands import Demands
from casemate.attestation.relying.errors import TokenMissingError, TokenProofInvalidError
from casemate.attestation.relying.keys import JwksCache
from casemate.attestation.relying.verifier import KeySource, TokenVerifier
from casemate.attestation.token import AttestationResult
from casemate.errors import CasemateError, UsageError

__all__ = ["Attested"]


class Attested:
    """Calls of an endpoint that depends on this need ``Authorization: DPoP <token>`` and a ``DPoP`` proof.

    ``url`` is this service's own address as its clients write it: a proof made for another service is none here.
    ``issuer`` and ``audience`` are the broker's URL unless given. Refusals are HTTP 401 or 403 with a stable ``code``;
    503 when the broker's keys are out of reach. The endpoint gets the ``AttestationResult``."""

    def __init__(
        self,
        broker_url: str,
        *,
        url: str,
        ca: str | Path | None = None,
        issuer: str | None = None,
        audience: str | None = None,
        statuses: Iterable[str] = ("affirming",),
        workloads: Iterable[str] = (),
        policies: Iterable[str] = (),
        allow_simulated: bool = False,
        insecure_allow_bearer: bool = False,
        keys: KeySource | None = None,
    ) -> None:
        if "://" not in url:
            raise UsageError(f"service URL {url!r}: need scheme and host, for example https://service.example")
        self._base = url.rstrip("/")
        demands = Demands(
            frozenset(statuses), frozenset(workloads), frozenset(policies), allow_simulated, insecure_allow_bearer
        )
        issuer = issuer or broker_url.rstrip("/")
        self._verifier = TokenVerifier(
            keys or JwksCache(broker_url, ca), issuer=issuer, audience=audience, demands=demands
        )

    def __call__(self, request: Request) -> AttestationResult:
        """Who called; FastAPI runs this in a thread, since keys may have to be fetched."""
        try:
            token, proof = _credentials(request)
            path = request.scope.get("raw_path") or request.url.path.encode()
            url = f"{self._base}{path.decode('ascii', 'replace')}"
            return self._verifier.verify(token, method=request.method, url=url, proof=proof)
        except CasemateError as exc:
            headers = {"WWW-Authenticate": f'DPoP algs="ES256", error="{exc.code}"'} if exc.http_status == 401 else None
            detail = {"code": exc.code, "detail": exc.message, "fix": exc.fix}
            raise HTTPException(exc.http_status, detail, headers) from exc


def _credentials(request: Request) -> tuple[str, str | None]:
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    if kind.lower() not in ("dpop", "bearer") or not token.strip():
        raise TokenMissingError("request: no attestation token in its Authorization header")
    proofs = request.headers.getlist("dpop")
    if len(proofs) > 1:
        raise TokenProofInvalidError(f"request: {len(proofs)} DPoP headers, need one")
    return token.strip(), proofs[0] if proofs else None
