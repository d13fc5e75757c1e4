"""Attestation tokens: EAR (draft-ietf-rats-ear) as a JWT, and what a relying party reads out of one.

Members and their names are those that the confidential-containers attestation service issues. ES256, five minutes;
the token names the attested key (``cnf``, RFC 7800), so that a stolen token alone opens nothing. No I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from casemate import __version__
from casemate.attestation.ar4si import AFFIRMING, CONTRAINDICATED, WARNING, status_of
from casemate.attestation.claims import Claims
from casemate.attestation.policy import Appraisal, Outcome
from casemate.attestation.token_errors import (
    TokenAudienceMismatchError,
    TokenExpiredError,
    TokenInvalidError,
    TokenIssuerMismatchError,
    TokenKeyUnknownError,
    TokenNotYetValidError,
    TokenSignatureError,
)
from casemate.crypto.errors import InvalidKeyError, SignatureInvalidError
from casemate.crypto.jose import Jwk, KeyPair, open_jws, peek_jws_header, public_jwk, thumbprint

__all__ = ["TOKEN_LIFETIME", "AttestationResult", "issue", "jwks", "verify"]

TOKEN_LIFETIME = timedelta(minutes=5)
PROFILE = "tag:github.com,2023:veraison/ear"
_TYP = "eat+jwt"  # RFC 9782
_MAX_SIZE = 256 * 1024  # characters
_AFFIRMING, _WARNING, _CONTRAINDICATED = 2, 32, 96  # the first value of each AR4SI tier
_VECTOR = frozenset(
    {
        "instance-identity",
        "configuration",
        "executables",
        "file-system",
        "hardware",
        "runtime-opaque",
        "storage-opaque",
        "sourced-data",
    }
)


@dataclass(frozen=True)
class AttestationResult:
    """What a verified token says: which key, with which claims, for which job, until when."""

    id: str
    issuer: str
    audience: str
    issued: datetime
    expires: datetime
    status: str  # affirming | warning | contraindicated | none
    tee_pubkey: Jwk
    claims: Claims
    workload: str | None  # the full digest of the workload manifest, hex
    job: str | None
    role: str | None
    policy_name: str
    policy_digest: str
    raw: Mapping[str, Any]
    accepted: bool = True  # the verifier's policy accepted the evidence; a vector of `warning` alone does not tell

    @property
    def key_thumbprint(self) -> str:
        """RFC 7638 thumbprint of the attested key: what a DPoP proof has to match."""
        return thumbprint(self.tee_pubkey)


def issue(
    signer: KeyPair,
    *,
    token_id: str,
    issuer: str,
    audience: str | Sequence[str],
    claims: Claims,
    appraisal: Appraisal,
    tee_pubkey: Jwk,
    now: datetime,
    nonce: str | None = None,
    workload: str | None = None,
    init_data: Mapping[str, Any] | None = None,
    job: str | None = None,
    role: str | None = None,
    lifetime: timedelta = TOKEN_LIFETIME,
) -> str:
    """A signed token over one appraisal; ``workload`` is the digest of the manifest that was checked with the claims.

    A relying party takes the token when its own name is among ``audience``.

    The caller decides whether to issue at all; a refused appraisal gives a token whose status says so."""
    issued = int(now.timestamp())
    key = public_jwk(tee_pubkey)
    annotated = {
        "casemate": claims.to_json(),
        "report_data": claims.report_data,
        "init_data": claims.workload,
        "init_data_claims": dict(init_data or {}),
        "runtime_data_claims": {"nonce": nonce, "tee-pubkey": key},
    }
    payload: dict[str, Any] = {
        "jti": token_id,
        "iss": issuer,
        "aud": audience if isinstance(audience, str) else audience[0] if len(audience) == 1 else list(audience),
        "iat": issued,
        "nbf": issued,
        "exp": issued + int(lifetime.total_seconds()),
        "eat_profile": PROFILE,
        "ear.verifier-id": {"developer": "https://github.com/casemate/casemate", "build": f"casemate {__version__}"},
        "cnf": {"jwk": key},
        "submods": {
            "cpu0": {
                **appraisal.extensions,  # first, so that none of ours can be replaced
                "ear.status": _status(claims, appraisal),
                "ear.trustworthiness-vector": _vector(claims, appraisal),
                "ear.appraisal-policy-id": f"{appraisal.policy_name}:{appraisal.policy_digest}",
                "ear.veraison.annotated-evidence": annotated,
            }
        },
        "casemate": {
            "job": job,
            "role": role,
            "workload": workload,
            "simulated": claims.simulated,
            "accepted": appraisal.outcome is Outcome.ACCEPTED,
        },
    }
    return signer.sign(payload, typ=_TYP, header={"jwk": signer.public})


def jwks(*keys: Jwk) -> dict[str, Any]:
    """A JSON Web Key Set (RFC 7517 section 5) of public keys, each with its thumbprint as ``kid``."""
    public = [public_jwk(key) for key in keys]
    return {"keys": [{**key, "kid": thumbprint(key), "alg": "ES256", "use": "sig"} for key in public]}


def verify(token: str, *, keys: Mapping[str, Any], issuer: str, audience: str, now: datetime) -> AttestationResult:
    """What ``token`` says, after its signature under one of ``keys`` (a JWKS), issuer, audience and dates were checked.

    Only ES256 of type ``eat+jwt``; the key is chosen by ``kid`` and never taken from the token itself. Raises a
    ``TokenInvalidError`` that names the failing check. The caller still compares ``status`` with what it needs."""
    # 1. Form.   2. Key and signature.   3. Issuer and audience.   4. Dates.   5. Content.
    if not isinstance(token, str) or len(token) > _MAX_SIZE:  # (1)
        raise TokenInvalidError("token: not text of a reasonable size")
    payload = _open(token, keys)  # (2)
    if not isinstance(payload, dict) or payload.get("eat_profile") != PROFILE:
        raise TokenInvalidError(f"token: need a JSON object of profile {PROFILE}")
    if payload.get("iss") != issuer:  # (3)
        raise TokenIssuerMismatchError(f"token: expected issuer {issuer}, got {payload.get('iss')}")
    named = payload.get("aud")
    if audience not in (named if isinstance(named, list) else [named]):
        raise TokenAudienceMismatchError(f"token: expected audience {audience}, got {named}")
    issued, expires = _date(payload, "iat"), _date(payload, "exp")  # (4)
    if now >= expires:
        raise TokenExpiredError(f"token: expired at {expires.isoformat()}, now {now.isoformat()}")
    if now < max(issued, _date(payload, "nbf")) - timedelta(seconds=1):
        raise TokenNotYetValidError(f"token: issued at {issued.isoformat()}, now {now.isoformat()}")
    try:
        return _result(payload, audience, issued, expires)  # (5)
    except (KeyError, TypeError, ValueError, AttributeError, InvalidKeyError) as exc:
        raise TokenInvalidError(f"token: a member is missing or of the wrong form ({type(exc).__name__})") from exc


def _open(token: str, keys: Mapping[str, Any]) -> Any:
    try:
        kid = peek_jws_header(token).get("kid")
    except SignatureInvalidError as exc:
        raise TokenInvalidError("token: not a compact JWS") from exc
    known = keys.get("keys")
    candidates = known if isinstance(known, list) else []
    try:
        key = next((k for k in candidates if isinstance(k, dict) and thumbprint(k) == kid), None)
    except InvalidKeyError as exc:
        raise TokenInvalidError("token: the key set has a key that cannot be used") from exc
    if key is None:
        raise TokenKeyUnknownError("token: signed by a key that the key set does not have")
    try:
        return open_jws(token, key, typ=_TYP)
    except SignatureInvalidError as exc:
        raise TokenSignatureError(f"token: {exc.message}") from exc


def _date(payload: Mapping[str, Any], name: str) -> datetime:
    value = payload.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise TokenInvalidError(f"token: {name} is not a number of seconds")
    try:
        return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError) as exc:
        raise TokenInvalidError(f"token: {name} is out of range") from exc


def _result(payload: dict[str, Any], audience: str, issued: datetime, expires: datetime) -> AttestationResult:
    module, own = payload["submods"]["cpu0"], payload["casemate"]
    name, _, digest = module["ear.appraisal-policy-id"].rpartition(":")
    return AttestationResult(
        id=str(payload["jti"]),
        issuer=payload["iss"],
        audience=audience,
        issued=issued,
        expires=expires,
        status=str(module["ear.status"]),
        tee_pubkey=public_jwk(payload["cnf"]["jwk"]),
        claims=Claims.from_json(module["ear.veraison.annotated-evidence"]["casemate"]),
        workload=own["workload"],
        job=own["job"],
        role=own["role"],
        policy_name=name,
        policy_digest=digest,
        raw=payload,
        accepted=own.get("accepted", module["ear.status"] in (AFFIRMING, WARNING)) is True,
    )


def _status(claims: Claims, appraisal: Appraisal) -> str:
    """``affirming`` and ``warning`` are for what was accepted; but a real TEE's vector speaks for itself."""
    if appraisal.outcome is Outcome.UNDECIDED:
        return "none"
    relaxed = claims.simulated or claims.debug or claims.tcb.status not in (None, "UpToDate")
    if appraisal.outcome is Outcome.REFUSED:
        # Relying parties that let simulated TEEs pass take their `warning`; what was refused must not look like it.
        spoken = appraisal.trust_vector is not None and not relaxed
        found = status_of((appraisal.trust_vector or {}).values()) if spoken else CONTRAINDICATED
        return found if found == WARNING else CONTRAINDICATED
    return WARNING if relaxed else AFFIRMING


def _vector(claims: Claims, appraisal: Appraisal) -> dict[str, int]:
    """The AR4SI vector: the policy's own, or one that follows from its clauses, where what is not judged is absent."""
    if appraisal.trust_vector is not None:
        return {name: value for name, value in appraisal.trust_vector.items() if name in _VECTOR}
    failed = {c.clause.split(".")[0] for c in appraisal.clauses if not c.holds}

    def tier(*clauses: str, relaxed: bool = False) -> int:
        return _CONTRAINDICATED if failed & set(clauses) else _WARNING if relaxed else _AFFIRMING

    vector = {
        "instance-identity": tier("platform_ids", "allow_simulated", relaxed=claims.simulated),
        "configuration": tier("insecure_allow_debug", "allow_attributes", "vmpls", "extra", relaxed=claims.debug),
        "hardware": tier(
            "tcb", "platforms", "collateral", relaxed=claims.simulated or claims.tcb.status not in (None, "UpToDate")
        ),
    }
    judged = {c.clause.split(".")[0] for c in appraisal.clauses}
    if judged & {"measurements", "signers", "rtmrs", "workloads"}:
        vector["executables"] = tier("measurements", "signers", "product_ids", "min_svn", "rtmrs", "workloads")
    return vector
