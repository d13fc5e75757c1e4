"""Releases over storage: counted, audited, sealed to the attested key; generations compare and swap."""

from __future__ import annotations

import base64
import json
import threading
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text as sql
from tests.unit.broker.support import PATIENTS, PRODUCTION, REPORT, START, World, grant, manifest, zone

from casemate.attestation.policy import AppraisalPolicy
from casemate.broker.errors import (
    DatasetUnknownError,
    GrantExhaustedError,
    KeyVersionUnknownError,
    NotAuthorisedError,
    RequestMalformedError,
)
from casemate.broker.grants import sign_grant
from casemate.broker.identity import Principal
from casemate.broker.sessions import Member
from casemate.crypto.errors import UnsealError, UnwrapError
from casemate.crypto.jose import KeyPair
from casemate.errors import CasemateError, GenerationConflictError, RefusedError
from casemate.model import Access, DatasetName

KEY = KeyPair.generate()


def opened(world: World, member: Member, key: KeyPair, name: DatasetName = PATIENTS, version: int | None = None) -> Any:
    return json.loads(key.unseal(world.broker.releases.release_key(member, name, version)).reveal())


def refusal(world: World, member: Member, name: DatasetName = PATIENTS) -> CasemateError:
    with pytest.raises(CasemateError) as caught:
        world.broker.releases.release_key(member, name, None)
    return caught.value


def test_a_granted_job_gets_the_key_that_its_owner_has(world: World) -> None:
    world.give()
    jwk = opened(world, world.attest(key=KEY), KEY)
    mine = KeyPair.generate()
    owners = world.broker.registry.release_to_owner(world.owner, PATIENTS, None, mine.public)
    assert json.loads(mine.unseal(owners).reveal()) == jwk
    assert jwk["kid"] == "hospital/patients/1"
    assert len(base64.urlsafe_b64decode(jwk["k"] + "=")) == 32


def test_the_answer_opens_with_the_attested_key_alone(world: World) -> None:
    world.give()
    sealed = world.broker.releases.release_key(world.attest(key=KEY), PATIENTS, None)
    with pytest.raises(UnsealError):
        KeyPair.generate().unseal(sealed)


def test_the_caller_gets_a_code_and_the_owner_the_reason(world: World) -> None:
    given = world.give(grant(not_after=START + timedelta(seconds=1)))
    world.clock.advance(seconds=2)
    error = refusal(world, world.attest())
    assert error.code == "grant-expired"
    assert given.id not in error.message
    entry = world.broker.audit.explain(world.owner, error.refusal_id or "")
    assert given.id in entry["message"]
    assert entry["subject"]["grant"] == given.id
    failed = [clause for clause in entry["clauses"] if not clause["holds"]]
    assert [clause["clause"] for clause in failed] == ["not_after"]
    assert failed[0]["expected"]
    assert failed[0]["got"]
    assert failed[0]["fix"]


def test_attacks_on_the_agreement_are_each_refused_for_their_own_reason(world: World) -> None:
    assert refusal(world, world.attest("a")).code == "grant-missing"
    world.give()
    changed = manifest(program={"path": "job.py", "sha256": "01" + "00" * 31})
    assert refusal(world, world.attest("b", workload=changed)).code == "grant-workload-mismatch"
    assert refusal(world, world.attest("c", workload=manifest(arguments=[]))).code == "grant-workload-mismatch"
    assert refusal(world, world.attest("d", "worker")).code == "role-not-entitled"
    assert refusal(world, world.attest("e"), DatasetName("hospital", "other")).code == "dataset-unknown"


def test_a_production_policy_refuses_the_simulator(world: World) -> None:
    policy = AppraisalPolicy.from_yaml(PRODUCTION)
    world.give(grant(policy_name=policy.name, policy_digest=policy.digest))
    error = refusal(world, world.attest())
    assert error.code == "appraisal-refused"
    assert "simulated-evidence" in error.message


def test_a_revoked_grant_releases_nothing_more(world: World) -> None:
    given = world.give()
    member = world.attest(key=KEY)
    opened(world, member, KEY)
    world.broker.registry.revoke_grant(world.owner, given.id)
    assert refusal(world, member).code == "grant-revoked"


def test_all_members_of_a_job_share_one_release(world: World) -> None:
    world.give(grant(max_releases=1))
    driver = world.attest("job-1", key=KEY)
    for name in (PATIENTS, REPORT, PATIENTS):
        opened(world, driver, KEY, name)
    for _ in range(3):
        opened(world, world.attest("job-1", "executor", key=KEY), KEY)
    renewed = world.attest("job-1", key=KEY)  # the same process, attesting again
    opened(world, renewed, KEY)
    assert refusal(world, world.attest("job-2")).code == "grant-exhausted"
    assert world.broker.registry.grants(world.owner)[0]["status"] == "exhausted"


def test_reusing_a_job_id_for_another_run_is_another_release(world: World) -> None:
    world.give(grant(max_releases=1))
    opened(world, world.attest("job-1", key=KEY), KEY)
    assert refusal(world, world.attest("job-1")).code == "grant-exhausted"


def test_of_jobs_that_race_for_the_last_release_one_wins(world: World) -> None:
    world.give(grant(max_releases=1))
    members = [world.attest(f"job-{i}") for i in range(8)]
    outcomes: list[str] = []
    start = threading.Barrier(len(members))

    def run(member: Member) -> None:
        start.wait()
        try:
            world.broker.releases.release_key(member, PATIENTS, None)
            outcomes.append("released")
        except GrantExhaustedError:
            outcomes.append("exhausted")

    threads = [threading.Thread(target=run, args=(member,)) for member in members]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["exhausted"] * 7 + ["released"]


def test_a_refused_release_counts_nothing(world: World) -> None:
    world.give(grant(max_releases=1))
    with pytest.raises(KeyVersionUnknownError):
        world.broker.releases.release_key(world.attest("job-1"), PATIENTS, 7)
    opened(world, world.attest("job-2", key=KEY), KEY)


def test_old_versions_stay_readable_after_rotation(world: World) -> None:
    world.give()
    member = world.attest(key=KEY)
    first = opened(world, member, KEY)
    assert world.broker.registry.rotate(world.owner, PATIENTS)["version"] == 2
    second = opened(world, member, KEY)
    assert second["kid"] == "hospital/patients/2"
    assert second["k"] != first["k"]
    assert opened(world, member, KEY, version=1) == first


def test_two_owners_decide_each_alone(world: World) -> None:
    clinic_key = KeyPair.generate()
    clinic, scans = Principal(clinic_key.thumbprint, "clinic"), DatasetName("clinic", "scans")
    world.broker.registry.add_owner(world.admin, "clinic", clinic_key.public)
    world.broker.registry.add_dataset(clinic, scans)
    joint = manifest(zones=[zone(PATIENTS, "read"), zone(scans, "read"), zone(REPORT, "write")])
    member = world.attest(workload=joint, key=KEY)
    world.give(grant(joint))
    opened(world, member, KEY)
    assert refusal(world, member, scans).code == "grant-missing"
    strict = AppraisalPolicy.from_yaml(PRODUCTION)
    theirs = grant(
        joint,
        owner="clinic",
        datasets={scans: Access.READ},
        policy_name=strict.name,
        policy_digest=strict.digest,
    )
    world.broker.registry.add_grant(clinic, sign_grant(theirs, clinic_key))
    assert refusal(world, member, scans).code == "appraisal-refused"
    assert opened(world, member, KEY)


def test_an_owners_key_swapped_in_the_database_opens_nothing(world: World) -> None:
    """Whoever writes to the database can replace an owner's key and sign a grant; the dataset key stays shut."""
    thief = KeyPair.generate()
    engine = world.broker.context.repository.engine  # type: ignore[attr-defined]
    with engine.begin() as connection:
        statement = sql("UPDATE owners SET jwk = :jwk, thumbprint = :thumbprint")
        connection.execute(statement, {"jwk": json.dumps(thief.public), "thumbprint": thief.thumbprint})
    world.owner_key = thief
    world.owner = type(world.owner)(thief.thumbprint, "hospital")
    world.give()
    with pytest.raises(UnwrapError):
        world.broker.releases.release_key(world.attest(), PATIENTS, None)
    with pytest.raises(UnwrapError):
        world.broker.registry.release_to_owner(world.owner, PATIENTS, None, thief.public)


# --- generations ---

WHERE = "file:///vault/report"


def test_generations_go_up_one_by_one(world: World) -> None:
    world.give()
    member = world.attest()
    releases = world.broker.releases
    assert releases.generation(member, REPORT, WHERE).number == 0
    for number in (1, 2, 3):
        releases.record(member, REPORT, WHERE, number, f"{number:064x}")
        assert releases.generation(member, REPORT, WHERE).number == number
    for number in (1, 3, 5):
        with pytest.raises(GenerationConflictError):
            releases.record(member, REPORT, WHERE, number, "0" * 64)
    assert releases.generation(world.owner, REPORT, WHERE).digest == f"{3:064x}"


def test_locations_do_not_share_generations(world: World) -> None:
    world.broker.releases.record(world.owner, REPORT, WHERE, 1, "0" * 64)
    assert world.broker.releases.generation(world.owner, REPORT, WHERE + "/a").number == 0
    assert world.broker.releases.generation(world.owner, PATIENTS, WHERE).number == 0


def test_of_writers_that_race_for_a_generation_one_wins(world: World) -> None:
    won: list[int] = []

    def write(number: int) -> None:
        try:
            world.broker.releases.record(world.owner, REPORT, WHERE, 1, f"{number:064x}")
            won.append(number)
        except GenerationConflictError:
            pass

    threads = [threading.Thread(target=write, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1


def test_a_workload_records_only_where_zone_and_grant_let_it_write(world: World) -> None:
    world.give()
    member = world.attest()
    for name, location in ((PATIENTS, "file:///vault/patients"), (REPORT, "file:///elsewhere"), (REPORT, "s3://b/r")):
        with pytest.raises(RefusedError) as caught:
            world.broker.releases.record(member, name, location, 1, "0" * 64)
        assert caught.value.code == "workload-zone-missing"
    assert world.broker.releases.generation(member, PATIENTS, "file:///vault/patients").number == 0


def test_a_workload_without_a_grant_sees_and_records_nothing(world: World) -> None:
    member = world.attest()
    with pytest.raises(RefusedError, match="grant"):
        world.broker.releases.generation(member, REPORT, WHERE)
    with pytest.raises(RefusedError, match="grant"):
        world.broker.releases.record(member, REPORT, WHERE, 1, "0" * 64)


def test_another_owner_may_not(world: World) -> None:
    other = type(world.owner)("x" * 43, "clinic")
    with pytest.raises(NotAuthorisedError):
        world.broker.releases.record(other, REPORT, WHERE, 1, "0" * 64)
    with pytest.raises(DatasetUnknownError):
        world.broker.releases.generation(world.owner, DatasetName("hospital", "nothing"), WHERE)


@pytest.mark.parametrize(
    "location", ["", "vault", "file:///a/", "file:///a/../b", "file:///a/./b", "file:///a\n", "x" * 3000]
)
def test_a_location_that_is_not_normalised_is_refused(world: World, location: str) -> None:
    with pytest.raises(RequestMalformedError):
        world.broker.releases.generation(world.owner, REPORT, location)


@pytest.mark.parametrize(("number", "digest"), [(0, "0" * 64), (-1, "0" * 64), (1, "0" * 63), (1, "G" * 64)])
def test_a_generation_of_the_wrong_form_is_refused(world: World, number: int, digest: str) -> None:
    with pytest.raises(RequestMalformedError):
        world.broker.releases.record(world.owner, REPORT, WHERE, number, digest)
