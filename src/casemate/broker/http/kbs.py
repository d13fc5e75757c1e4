"""The confidential-containers KBS protocol, version 0.4.0: auth, attest, resource."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Cookie, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from casemate.broker.errors import KeyVersionUnknownError, RequestMalformedError, ResourceUnknownError
from casemate.broker.http.access import COOKIE, CurrentBroker, resource_member
from casemate.broker.sessions import AttestRequest
from casemate.errors import UsageError
from casemate.model import DatasetName

__all__ = ["router"]

router = APIRouter(prefix="/kbs/v0", tags=["attestation (KBS 0.4.0)"])
_MAX_VERSION = 2**31 - 1


class _Message(BaseModel):
    """The protocol's messages may grow members; those not known here are left alone."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)


class AuthBody(_Message):
    version: Annotated[str, Field(max_length=16)]
    tee: Annotated[str, Field(min_length=1, max_length=32)]
    extra_params: Annotated[Any, Field(alias="extra-params")] = None


class InitData(_Message):
    """``body`` is the text whose digest the evidence carries; ``signatures`` may vouch for the workload."""

    format: Annotated[str, Field(max_length=8)]
    body: Annotated[str, Field(max_length=1024 * 1024)]
    signatures: Annotated[list[str], Field(max_length=8)] = []


class RuntimeData(_Message):
    nonce: Annotated[str, Field(max_length=256)]
    tee_pubkey: Annotated[dict[str, Any], Field(alias="tee-pubkey")]


class TeeEvidence(_Message):
    primary_evidence: dict[str, Any]
    additional_evidence: str = ""


class AttestBody(_Message):
    init_data: Annotated[InitData | None, Field(alias="init-data")] = None
    runtime_data: Annotated[RuntimeData, Field(alias="runtime-data")]
    tee_evidence: Annotated[TeeEvidence, Field(alias="tee-evidence")]


@router.post("/auth")
async def auth(body: AuthBody, broker: CurrentBroker, response: Response) -> dict[str, Any]:
    """Ask for a challenge; the session is in the cookie."""
    # Nothing is stored or waited for: no thread needed.
    challenge = broker.sessions.challenge(body.version, body.tee, body.extra_params)
    lifetime = int(broker.context.config.challenge_lifetime.total_seconds())
    lifetime += int(broker.context.config.token_lifetime.total_seconds())
    response.set_cookie(
        COOKIE, challenge.session, max_age=lifetime, path="/kbs", secure=True, httponly=True, samesite="strict"
    )
    response.headers["Cache-Control"] = "no-store"
    return {"nonce": challenge.nonce, "extra-params": {}}


@router.post("/attest")
def attest(
    body: AttestBody,
    broker: CurrentBroker,
    response: Response,
    session: Annotated[str | None, Cookie(alias=COOKIE)] = None,
) -> dict[str, str]:
    """Answer the challenge with evidence; get an attestation token (EAR)."""
    init = body.init_data
    request = AttestRequest(
        nonce=body.runtime_data.nonce,
        tee_pubkey=body.runtime_data.tee_pubkey,
        primary_evidence=body.tee_evidence.primary_evidence,
        additional_evidence=body.tee_evidence.additional_evidence,
        init_format=None if init is None else init.format,
        init_body=None if init is None else init.body,
        signatures=() if init is None else tuple(init.signatures),
    )
    response.headers["Cache-Control"] = "no-store"
    return {"token": broker.sessions.attest(session, request)}


@router.get("/resource/{repository}/{type_}/{tag}")
def resource(
    repository: str, type_: str, tag: str, broker: CurrentBroker, request: Request, response: Response
) -> dict[str, Any]:
    """A dataset key (``owner/dataset/version|current``) or the job's secret (``job/<id>/secret``), sealed (JWE)."""
    response.headers["Cache-Control"] = "no-store"
    member = resource_member(request)
    if repository == "job":
        if tag != "secret":
            raise ResourceUnknownError(f"job/{type_[:64]} has no {tag[:32]!r}")
        return broker.jobs.secret(member, type_)
    try:
        name = DatasetName(repository, type_)
    except UsageError as exc:
        raise ResourceUnknownError("no resource of this name") from exc
    return broker.releases.release_key(member, name, _version(tag))


def _version(tag: str) -> int | None:
    if tag == "current":
        return None
    if not (tag.isascii() and tag.isdecimal()) or len(tag) > 10:
        raise RequestMalformedError("key version: need a whole number or `current`")
    if not 1 <= int(tag) <= _MAX_VERSION:
        raise KeyVersionUnknownError(f"no key version {tag}")
    return int(tag)
