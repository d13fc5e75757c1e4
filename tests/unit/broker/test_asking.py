"""A slow Rego policy makes wait only those who ask for its owner's data, and what changes meanwhile counts."""

from __future__ import annotations

import importlib.util
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.broker.support import PATIENTS, World, digest, grant, manifest, zone

from casemate.attestation.policies import parse_policy
from casemate.attestation.rego_worker import RegoWorker, shared_worker
from casemate.broker.asking import WAITING, Lanes
from casemate.broker.errors import GrantRevokedError, PolicyBusyError
from casemate.broker.grants import Grant, sign_grant
from casemate.broker.identity import Principal
from casemate.broker.releases import Releases
from casemate.crypto.jose import KeyPair
from casemate.errors import CasemateError
from casemate.model import Access, DatasetName

needs_engine = pytest.mark.skipif(importlib.util.find_spec("regorus") is None, reason="needs the extra rego")
SALES = DatasetName("shop", "sales")
QUICK = 'package casemate.policy\nimport rego.v1\nallow if input.claims.platform == "tdx"\n'
SLOW = """\
package casemate.policy
import rego.v1
allow if {
    some a in numbers.range(1, 100000)
    some b in numbers.range(1, 100000)
    a + b < 0
}
"""


class Gate:
    """An engine in the test's hand: says when it is asked, and waits until it may answer."""

    def __init__(self, engine: Any) -> None:
        self._engine, self.asked, self.go = engine, threading.Event(), threading.Event()

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        self.asked.set()
        assert self.go.wait(20)
        return self._engine.evaluate(*args, **kwargs)

    def close(self) -> None: ...


def document(name: str, rego: str) -> str:
    return json.dumps(
        {"version": 1, "name": name, "base": {"allow_simulated": True, "platforms": ["tdx"]}, "rego": rego}
    )


def give(world: World, text: str, base: Grant | None = None, **changes: Any) -> Grant:
    made = world.broker.registry.add_policy(world.owner, text)
    terms = {"policy_name": made["name"], "policy_digest": made["digest"], **changes}
    return world.give(replace(base or grant(), **terms))


def second_owner(world: World, text: str | None = None) -> dict[str, Any]:
    """A shop with a dataset of its own and a grant for the workload that is returned."""
    key = KeyPair.generate()
    shop = Principal(key.thumbprint, "shop")
    world.broker.registry.add_owner(world.admin, "shop", key.public)
    world.broker.registry.add_dataset(shop, SALES)
    workload = manifest(zones=[zone(SALES, "read")])
    terms = grant(workload, owner="shop", datasets={SALES: Access.READ}, recipients=())
    if text is not None:
        made = world.broker.registry.add_policy(shop, text)
        terms = replace(terms, policy_name=made["name"], policy_digest=made["digest"])
    world.broker.registry.add_grant(shop, sign_grant(terms, key))
    assert terms.workloads == (digest(workload),)
    return workload


@pytest.fixture
def gate(world: World) -> Iterator[Gate]:
    with RegoWorker() as worker:
        made = Gate(worker)
        lanes = Lanes(lambda: made)  # type: ignore[arg-type,return-value]
        world.broker.releases = Releases(world.broker.context, lanes)
        yield made
        made.go.set()


@needs_engine
def test_a_slow_policy_of_one_owner_does_not_delay_anothers_release(world: World) -> None:
    give(world, document("slow", SLOW))
    shop = second_owner(world, document("quick", QUICK))
    other = world.attest(job="shop", workload=shop)
    world.broker.releases.release_key(other, SALES, None)  # its engine has started
    found: list[CasemateError] = []

    def wait() -> None:
        with pytest.raises(CasemateError) as caught:
            world.broker.releases.release_key(slow, PATIENTS, None)
        found.append(caught.value)

    slow = world.attest(job="slow")
    began = time.monotonic()
    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    for _ in range(3):
        world.broker.releases.release_key(other, SALES, None)
    released = time.monotonic() - began
    for thread in threads:
        thread.join()
    assert time.monotonic() - began > released + 0.5
    assert [error.code for error in found] == ["appraisal-refused"] * 3
    entry = world.broker.audit.explain(world.owner, found[0].refusal_id or "")
    assert [clause["code"] for clause in entry["clauses"] if not clause["holds"]] == ["rego-timeout"]


@needs_engine
def test_a_grant_revoked_while_its_policy_is_evaluated_opens_nothing(world: World, gate: Gate) -> None:
    given = give(world, document("gate", QUICK))
    member = world.attest()
    found: list[CasemateError] = []

    def ask() -> None:
        try:
            world.broker.releases.release_key(member, PATIENTS, None)
        except CasemateError as exc:
            found.append(exc)

    thread = threading.Thread(target=ask)
    thread.start()
    assert gate.asked.wait(20)
    world.broker.registry.revoke_grant(world.owner, given.id)  # the write lock is free meanwhile
    gate.go.set()
    thread.join()
    assert [error.code for error in found] == [GrantRevokedError.code]


@needs_engine
def test_of_two_that_are_evaluated_for_the_last_release_one_gets_it(world: World, gate: Gate) -> None:
    give(world, document("gate", QUICK), max_releases=1)
    members = [world.attest(job=f"job-{n}") for n in range(2)]
    found: list[str] = []

    def ask(number: int) -> None:
        try:
            world.broker.releases.release_key(members[number], PATIENTS, None)
            found.append("released")
        except CasemateError as exc:
            found.append(exc.code)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    assert gate.asked.wait(20)
    gate.go.set()
    for thread in threads:
        thread.join()
    assert sorted(found) == ["grant-exhausted", "released"]


@needs_engine
def test_a_floor_set_while_a_policy_is_evaluated_counts(world: World, gate: Gate) -> None:
    give(world, document("gate", QUICK))
    floor = document("never", 'package casemate.policy\nimport rego.v1\nallow if input.claims.platform == "snp"\n')
    world.broker.registry.add_policy(world.admin, floor)
    member = world.attest()
    found: list[str] = []

    def ask() -> None:
        with pytest.raises(CasemateError) as caught:
            world.broker.releases.release_key(member, PATIENTS, None)
        found.append(caught.value.code)

    thread = threading.Thread(target=ask)
    thread.start()
    assert gate.asked.wait(20)
    world.broker.registry.set_floor(world.admin, None, parse_policy(floor, shared_worker()).digest)
    gate.go.set()
    thread.join()
    assert found == ["appraisal-refused"]


@needs_engine
def test_only_so_many_wait_for_one_owners_policies(world: World, gate: Gate) -> None:
    give(world, document("gate", QUICK))
    member = world.attest()
    found: list[str] = []

    def ask() -> None:
        try:
            world.broker.releases.release_key(member, PATIENTS, None)
            found.append("released")
        except CasemateError as exc:
            found.append(exc.code)

    threads = [threading.Thread(target=ask) for _ in range(WAITING + 3)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 20
    while len(found) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert found == [PolicyBusyError.code] * 2
    gate.go.set()
    for thread in threads:
        thread.join()
    assert sorted(found)[2:] == ["released"] * (WAITING + 1)
