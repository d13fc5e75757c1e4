"""The administration API, /v1/: registry, jobs, generations, refusals, audit log."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from casemate import __version__
from casemate.attestation import token as tokens
from casemate.broker.http.access import CurrentAsker, CurrentBroker, CurrentMember, CurrentPrincipal
from casemate.model import DatasetName

__all__ = ["public_router", "router"]

public_router = APIRouter(tags=["public"])
router = APIRouter(prefix="/v1")

_Version = Annotated[int, Field(strict=True, ge=1, le=2**31 - 1)]
_Location = Annotated[str, Query(max_length=2048)]
_Index = Annotated[int, Query(ge=0, le=2**31 - 1)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class OwnerBody(_Body):
    name: Annotated[str, Field(max_length=63)]
    jwk: dict[str, Any]


class DatasetBody(_Body):
    name: Annotated[str, Field(max_length=191)]


class OwnerReleaseBody(_Body):
    version: _Version | None = None
    recipient: dict[str, Any]


class PolicyBody(_Body):
    yaml: Annotated[str, Field(max_length=256 * 1024)]


class FloorBody(_Body):
    digest: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class GrantBody(_Body):
    jws: Annotated[str, Field(max_length=256 * 1024)]


class CertificateBody(_Body):
    names: Annotated[list[Annotated[str, Field(max_length=253)]], Field(max_length=30)] = []


class GenerationBody(_Body):
    generation: Annotated[int, Field(strict=True, ge=1, le=2**53 - 1)]
    digest: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


@public_router.get("/v1/health")
def health(broker: CurrentBroker) -> dict[str, str]:
    """Whether the broker answers, its version, and its id (SHA-256 of its CA certificate)."""
    return {"status": "ok", "version": __version__, "broker": broker.context.config.broker_id}


@public_router.get("/.well-known/jwks.json")
def jwks(broker: CurrentBroker) -> dict[str, Any]:
    """The keys that attestation tokens are signed with."""
    return tokens.jwks(broker.context.token_key.public)


@public_router.get("/v1/audit/key")
def audit_key(broker: CurrentBroker) -> dict[str, Any]:
    """The key that audit checkpoints are signed with."""
    return {"jwk": broker.audit.public_key}


# --- registry ---


@router.post("/owners", status_code=201, tags=["registry"])
def add_owner(body: OwnerBody, broker: CurrentBroker, principal: CurrentPrincipal) -> dict[str, Any]:
    """Register a data owner's key. Administrators only."""
    return broker.registry.add_owner(principal, body.name, body.jwk)


@router.get("/owners", tags=["registry"])
def owners(broker: CurrentBroker, principal: CurrentPrincipal) -> dict[str, Any]:
    return {"owners": broker.registry.owners()}


@router.post("/datasets", status_code=201, tags=["registry"])
def add_dataset(body: DatasetBody, broker: CurrentBroker, principal: CurrentPrincipal) -> dict[str, Any]:
    """Make a dataset's key. Its owner only."""
    return broker.registry.add_dataset(principal, DatasetName.parse(body.name))


@router.get("/datasets", tags=["registry"])
def datasets(broker: CurrentBroker, principal: CurrentPrincipal) -> dict[str, Any]:
    return {"datasets": broker.registry.datasets(principal)}


@router.post("/datasets/{owner}/{name}/rotate", tags=["registry"])
def rotate(owner: str, name: str, broker: CurrentBroker, principal: CurrentPrincipal) -> dict[str, Any]:
    """Make the next version of a dataset's key. Its owner only."""
    return broker.registry.rotate(principal, DatasetName(owner, name))


@router.post("/datasets/{owner}/{name}/release", tags=["registry"])
def release(
    owner: str, name: str, body: OwnerReleaseBody, broker: CurrentBroker, principal: CurrentPrincipal
) -> dict[str, Any]:
    """A dataset key for its owner's own use, sealed to ``recipient``."""
    return {"jwe": broker.registry.release_to_owner(principal, DatasetName(owner, name), body.version, body.recipient)}


@router.post("/policies", status_code=201, tags=["registry"])
def add_policy(body: PolicyBody, broker: CurrentBroker, principal: CurrentPrincipal) -> dict[str, Any]:
    return broker.registry.add_policy(principal, body.yaml)


@router.get("/policies", tags=["registry"])
def policies(broker: CurrentBroker, principal: CurrentPrincipal) -> dict[str, Any]:
    return {"policies": broker.registry.policies()}


@router.get("/policies/{digest}", tags=["registry"])
def policy(digest: str, broker: CurrentBroker, principal: CurrentPrincipal) -> dict[str, Any]:
    """One policy with its text."""
    return broker.registry.policy(digest)


@router.get("/floors", tags=["registry"])
def floors(broker: CurrentBroker, principal: CurrentPrincipal) -> dict[str, Any]:
    """Policies that have to hold beside those of grants; an owner sees the broker's and their own."""
    return {"floors": broker.registry.floors(principal)}


@router.put("/floors/broker", tags=["registry"])
def set_broker_floor(body: FloorBody, broker: CurrentBroker, principal: CurrentPrincipal) -> dict[str, Any]:
    """The policy that has to hold for every release of this broker. Administrators only."""
    return broker.registry.set_floor(principal, None, body.digest)


@router.delete("/floors/broker", tags=["registry"])
def clear_broker_floor(broker: CurrentBroker, principal: CurrentPrincipal) -> dict[str, Any]:
    return broker.registry.set_floor(principal, None, None)


@router.put("/floors/owners/{owner}", tags=["registry"])
def set_owner_floor(owner: str, body: FloorBody, broker: CurrentBroker, principal: CurrentPrincipal) -> dict[str, Any]:
    """The policy that has to hold for every release of one owner's datasets. Administrators only."""
    return broker.registry.set_floor(principal, owner, body.digest)


@router.delete("/floors/owners/{owner}", tags=["registry"])
def clear_owner_floor(owner: str, broker: CurrentBroker, principal: CurrentPrincipal) -> dict[str, Any]:
    return broker.registry.set_floor(principal, owner, None)


@router.post("/grants", status_code=201, tags=["registry"])
def add_grant(body: GrantBody, broker: CurrentBroker, principal: CurrentPrincipal) -> dict[str, Any]:
    """Bring a grant that its owner signed."""
    return broker.registry.add_grant(principal, body.jws)


@router.get("/grants", tags=["registry"])
def grants(broker: CurrentBroker, principal: CurrentPrincipal) -> dict[str, Any]:
    return {"grants": broker.registry.grants(principal)}


@router.post("/grants/{grant_id}/revoke", tags=["registry"])
def revoke(grant_id: str, broker: CurrentBroker, principal: CurrentPrincipal) -> dict[str, Any]:
    return broker.registry.revoke_grant(principal, grant_id)


# --- attested workloads ---


@router.post("/jobs/{job}/certificate", tags=["jobs"])
def certificate(
    job: str, broker: CurrentBroker, member: CurrentMember, body: CertificateBody | None = None
) -> dict[str, str]:
    """A certificate of the job's authority for the attested key, at most an hour long."""
    return broker.jobs.certificate(member, job, body.names if body else ())


@router.get("/datasets/{owner}/{name}/generations", tags=["jobs"])
def generation(
    owner: str, name: str, location: _Location, broker: CurrentBroker, asker: CurrentAsker
) -> dict[str, Any]:
    """The generation recorded for a location; 0 when there is none."""
    found = broker.releases.generation(asker, DatasetName(owner, name), location)
    return {"generation": found.number, "digest": found.digest}


@router.put("/datasets/{owner}/{name}/generations", tags=["jobs"])
def record_generation(
    owner: str, name: str, location: _Location, body: GenerationBody, broker: CurrentBroker, asker: CurrentAsker
) -> dict[str, Any]:
    """Record the next generation of a location; 409 when another is recorded than the one before."""
    broker.releases.record(asker, DatasetName(owner, name), location, body.generation, body.digest)
    return {"generation": body.generation, "digest": body.digest}


# --- audit ---


@router.get("/refusals/{refusal_id}", tags=["audit"])
def refusal(refusal_id: str, broker: CurrentBroker, principal: CurrentPrincipal) -> dict[str, Any]:
    """Why something was refused, clause by clause; for the owners it concerns and administrators."""
    return broker.audit.explain(principal, refusal_id)


@router.get("/audit/entries", tags=["audit"])
def entries(
    broker: CurrentBroker, principal: CurrentPrincipal, start: _Index = 0, end: _Index | None = None
) -> dict[str, Any]:
    """Entries from ``start`` up to, not including, ``end``, at most 1000; others' entries are their hash alone."""
    return {"entries": broker.audit.entries(principal, start, end)}


@router.get("/audit/checkpoint", tags=["audit"])
def checkpoint(broker: CurrentBroker, principal: CurrentPrincipal, size: _Index | None = None) -> dict[str, Any]:
    """The signed checkpoint of ``size``, by default the latest."""
    found = broker.audit.checkpoint(size)
    return {
        "size": found.size,
        "root": found.root.hex(),
        "time": found.time,
        "jws": found.jws,
        "jwk": broker.audit.public_key,
    }


@router.get("/audit/proof/inclusion", tags=["audit"])
def inclusion(
    broker: CurrentBroker, principal: CurrentPrincipal, index: _Index, size: _Index | None = None
) -> dict[str, Any]:
    return broker.audit.inclusion(index, size)


@router.get("/audit/proof/consistency", tags=["audit"])
def consistency(
    broker: CurrentBroker, principal: CurrentPrincipal, first: _Index, second: _Index | None = None
) -> dict[str, Any]:
    return broker.audit.consistency(first, second)
