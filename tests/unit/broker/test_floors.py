"""Floors: policies of the broker or of one owner that hold beside every grant's; and grants under Rego policies."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.broker.support import PATIENTS, POLICY, PRODUCTION, World, grant

from casemate.attestation.errors import MalformedPolicyError
from casemate.attestation.policies import document_of, parse_policy
from casemate.attestation.policy import AppraisalPolicy
from casemate.attestation.rego import RegoUnavailableError
from casemate.attestation.rego_worker import shared_worker
from casemate.broker.errors import NotAuthorisedError, OwnerUnknownError, PolicyUnknownError
from casemate.broker.identity import Principal
from casemate.broker.registry import read_policy
from casemate.crypto.jose import KeyPair
from casemate.errors import CasemateError
from casemate.model import DatasetName

STRICT = AppraisalPolicy.from_yaml(PRODUCTION).digest
TRIAL = AppraisalPolicy.from_yaml(POLICY).digest


def outcome(world: World, name: DatasetName = PATIENTS, **attested: Any) -> CasemateError | None:
    try:
        world.broker.releases.release_key(world.attest(**attested), name, None)
    except CasemateError as exc:
        return exc
    return None


def failed(world: World, error: CasemateError | None) -> list[dict[str, Any]]:
    assert error is not None
    entry = world.broker.audit.explain(world.owner, error.refusal_id or "")
    return [clause for clause in entry["clauses"] if not clause["holds"]]


@pytest.mark.parametrize("owner", [None, "hospital"])
def test_a_floor_holds_beside_the_policy_of_a_grant_made_before(world: World, owner: str | None) -> None:
    world.give()
    assert outcome(world, job="before") is None
    world.broker.registry.set_floor(world.admin, owner, STRICT)
    error = outcome(world, job="after")
    assert error is not None
    assert error.code == "appraisal-refused"
    (clause,) = failed(world, error)
    whose = "the broker" if owner is None else "hospital"
    assert (clause["clause"], clause["code"]) == ("allow_simulated", "simulated-evidence")
    assert clause["policy"] == f"production, floor of {whose}"
    entry = world.broker.audit.explain(world.owner, error.refusal_id or "")
    assert f"allow_simulated of policy production, floor of {whose} expected a real platform" in entry["message"]
    world.broker.registry.set_floor(world.admin, owner, None)
    assert outcome(world, job="again") is None


def test_a_floor_cannot_widen_what_a_grant_allows(world: World) -> None:
    world.give(grant(policy_name="production", policy_digest=STRICT))
    world.broker.registry.set_floor(world.admin, None, TRIAL)
    assert [clause["policy"] for clause in failed(world, outcome(world))] == ["production of the grant"]


def test_an_owners_floor_counts_for_that_owner_alone(world: World) -> None:
    registry, clinic = world.broker.registry, KeyPair.generate()
    registry.add_owner(world.admin, "clinic", clinic.public)
    registry.set_floor(world.admin, "clinic", STRICT)
    world.give()
    assert outcome(world) is None
    assert registry.floors(world.owner) == []
    assert [row["owner"] for row in registry.floors(Principal(clinic.thumbprint, "clinic"))] == ["clinic"]
    assert [row["owner"] for row in registry.floors(world.admin)] == ["clinic"]


def test_only_an_administrator_sets_floors_and_each_change_is_in_the_log(world: World) -> None:
    registry = world.broker.registry
    with pytest.raises(NotAuthorisedError):
        registry.set_floor(world.owner, "hospital", TRIAL)
    with pytest.raises(OwnerUnknownError):
        registry.set_floor(world.admin, "nobody", TRIAL)
    with pytest.raises(PolicyUnknownError):
        registry.set_floor(world.admin, None, "00" * 32)
    registry.set_floor(world.admin, "hospital", TRIAL)
    registry.set_floor(world.admin, "hospital", STRICT)
    registry.set_floor(world.admin, "hospital", None)
    said = [(e["outcome"], e["subject"].get("digest")) for e in world.entries("floor.set")]
    assert said == [
        ("refused", TRIAL),
        ("refused", TRIAL),
        ("refused", "00" * 32),
        ("accepted", TRIAL),
        ("accepted", STRICT),
    ]
    assert [e["subject"]["scope"] for e in world.entries("floor.clear")] == ["hospital"]
    assert registry.floors(world.admin) == []


# -- Rego --------------------------------------------------------------------------------------------------------------
needs_rego = pytest.mark.skipif(importlib.util.find_spec("regorus") is None, reason="needs the extra casemate[rego]")
RULES = """\
package casemate.policy
import rego.v1

default allow := false

allow if {
    input.claims.measurement in query_reference_value("released")
    every zone in input.init_data.zones { startswith(zone.dataset, "hospital/") }
}
"""


def document(rules: str = RULES, **changes: Any) -> str:
    whole = {"version": 1, "name": "gate", "rego": rules, "reference_values": {"released": ["ab" * 48]}}
    return json.dumps({**whole, "base": {"allow_simulated": True, "platforms": ["tdx"]}, **changes})


@needs_rego
def test_a_grant_may_name_a_policy_in_rego_by_its_digest(world: World) -> None:
    view = world.broker.registry.add_policy(world.owner, document())
    world.give(grant(policy_name="gate", policy_digest=view["digest"]))
    assert outcome(world) is None
    assert world.broker.registry.policy(view["digest"])["yaml"] == document()


@needs_rego
def test_rego_that_does_not_say_true_refuses_a_release(world: World) -> None:
    view = world.broker.registry.add_policy(world.owner, document(reference_values={"released": []}))
    world.give(grant(policy_name="gate", policy_digest=view["digest"]))
    error = outcome(world)
    assert [clause["code"] for clause in failed(world, error)] == ["rego-refused"]


@needs_rego
def test_what_is_no_rego_never_comes_in(world: World) -> None:
    for text in (
        document("package casemate.policy\nallow if {"),
        document(extra=1),
        document(base=7),
        document(name=3),
    ):
        with pytest.raises(MalformedPolicyError):
            world.broker.registry.add_policy(world.owner, text)


@needs_rego
def test_a_document_and_its_policy_have_one_digest() -> None:
    policy = parse_policy(document(), shared_worker())
    assert parse_policy(document_of(policy), shared_worker()).digest == policy.digest
    declarative = parse_policy(POLICY, shared_worker())
    assert parse_policy(document_of(declarative), shared_worker()).digest == declarative.digest


def test_without_the_extra_a_policy_in_rego_is_refused_by_name(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = shared_worker()
    worker.close()
    read_policy.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RegoUnavailableError, match=r"casemate\[rego\]"):
        world.broker.registry.add_policy(world.owner, document())
    stored = parse_policy(document(), worker, known_good=True)
    with world.broker.context.repository.writing() as writer:
        from casemate.broker.storage.repository import PolicyRow

        writer.add_policy(PolicyRow(stored.digest, stored.name, document(), world.clock()))
    world.give(replace(grant(), policy_name="gate", policy_digest=stored.digest))
    assert [clause["code"] for clause in failed(world, outcome(world))] == ["rego-unavailable"]
    read_policy.cache_clear()
