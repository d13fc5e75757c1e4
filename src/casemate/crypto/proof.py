"""Proof of possession for HTTP requests: DPoP (RFC 9449), so that a stolen token alone opens nothing.

Owners and administrators prove their identity key with it, attested workloads the key their evidence binds.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from casemate.crypto.errors import InvalidKeyError, SignatureInvalidError
from casemate.crypto.jose import Jwk, KeyPair, open_jws, peek_jws_header, public_jwk, thumbprint

__all__ = ["PROOF_LIFETIME", "Proof", "make_proof", "verify_proof"]

PROOF_LIFETIME = timedelta(seconds=60)
_TYP = "dpop+jwt"


@dataclass(frozen=True)
class Proof:
    """A verified proof: who signed (RFC 7638 thumbprint and key), and its unique id, which a server accepts once."""

    key: Jwk
    thumbprint: str
    jti: str


def _ath(token: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).rstrip(b"=").decode()


def make_proof(key: KeyPair, *, method: str, url: str, now: datetime, token: str | None = None) -> str:
    """A DPoP header value for one request; ``url`` without query and fragment, ``token`` when one is sent along."""
    claims: dict[str, Any] = {
        "jti": secrets.token_urlsafe(16),
        "htm": method.upper(),
        "htu": url.split("?")[0].split("#")[0],
        "iat": int(now.timestamp()),
    }
    if token is not None:
        claims["ath"] = _ath(token)
    return key.sign(claims, typ=_TYP, header={"jwk": key.public})


def verify_proof(proof: str, *, method: str, url: str, now: datetime, token: str | None = None) -> Proof:
    """Check a DPoP proof (RFC 9449 4.3) against the request it came with; raises ``SignatureInvalidError``.

    The caller still has to decide whether the key is one it knows, and to refuse a ``jti`` seen before."""
    key = peek_jws_header(proof).get("jwk")
    if not isinstance(key, dict):
        raise SignatureInvalidError("request proof: no key in its header")
    try:
        claims = open_jws(proof, key, typ=_TYP)
    except InvalidKeyError as exc:
        raise SignatureInvalidError("request proof: no usable public key in its header") from exc
    expected = {
        "htm": method.upper(),
        "htu": url.split("?")[0].split("#")[0],
        "ath": None if token is None else _ath(token),
    }
    for name, want in expected.items():
        if not isinstance(claims, dict) or claims.get(name) != want:
            raise SignatureInvalidError(f"request proof: {name} does not match the request")
    issued, jti = claims.get("iat"), claims.get("jti")
    if not isinstance(issued, int) or abs(now.timestamp() - issued) > PROOF_LIFETIME.total_seconds():
        raise SignatureInvalidError("request proof: too old, or from the future; check both clocks")
    if not isinstance(jti, str) or not 8 <= len(jti) <= 128:
        raise SignatureInvalidError("request proof: no usable jti")
    return Proof(public_jwk(key), thumbprint(key), jti)
