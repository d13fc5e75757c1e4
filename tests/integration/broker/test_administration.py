"""Owners and administrators through the client: who may do what, and the audit log they can check."""

from __future__ import annotations

import base64
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from cryptography import x509
from jwcrypto import jwk
from tests.integration.broker.conftest import RunningBroker, free_port
from tests.unit.broker.support import PATIENTS, POLICY, REPORT, grant, manifest, text

from casemate.attestation.binding import report_data
from casemate.broker import audit, merkle
from casemate.broker.client import BrokerClient
from casemate.broker.errors import (
    BrokerUnreachableError,
    DatasetExistsError,
    DatasetUnknownError,
    GrantConflictError,
    GrantMalformedError,
    HostUnknownError,
    NotAuthorisedError,
    OwnerExistsError,
    OwnerUnknownError,
    PolicyUnknownError,
    ProofMissingError,
    ProofReplayedError,
    RefusalUnknownError,
)
from casemate.broker.grants import sign_grant
from casemate.broker.job_ca import create_authority
from casemate.crypto.errors import InvalidKeyError, SignatureInvalidError
from casemate.crypto.jose import KeyPair
from casemate.crypto.proof import make_proof
from casemate.errors import GenerationConflictError, UsageError, error_class
from casemate.model import DatasetName


@pytest.fixture
def owner(broker: RunningBroker) -> Iterator[BrokerClient]:
    with broker.client(broker.owner_key) as client:
        yield client


@pytest.fixture
def admin(broker: RunningBroker) -> Iterator[BrokerClient]:
    with broker.client(broker.admin_key) as client:
        yield client


@pytest.fixture
def clinic(broker: RunningBroker, admin: BrokerClient) -> Iterator[BrokerClient]:
    """Another owner."""
    key = KeyPair.generate()
    admin.register_owner(f"clinic-{os.urandom(4).hex()}", key.public)
    with broker.client(key) as client:
        yield client


def member(broker: RunningBroker, key: KeyPair, job: str = "job-a", role: str = "driver") -> BrokerClient:
    """An attested process, with the broker's own client."""
    http = httpx.Client(base_url=broker.url, verify=broker_context(broker), trust_env=False)
    with http:
        extra = {"casemate": {"job": job, "role": role}}
        nonce = http.post("/kbs/v0/auth", json={"version": "0.4.0", "tee": "tdx", "extra-params": extra}).json()[
            "nonce"
        ]
        message = {
            "init-data": {"format": "json", "body": text(manifest())},
            "runtime-data": {"nonce": nonce, "tee-pubkey": key.public},
            "tee-evidence": {
                "primary_evidence": {"quote": broker.quote(report_data(nonce, key.public))},
                "additional_evidence": "",
            },
        }
        token = http.post("/kbs/v0/attest", json=message).json()["token"]
    return broker.client(key, token)


def broker_context(broker: RunningBroker) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=broker.ca_pem)


# --- who may do what ---


def test_the_owner_gets_the_keys_of_all_versions(owner: BrokerClient) -> None:
    name = DatasetName("hospital", f"d{os.urandom(4).hex()}")
    assert owner.create_dataset(name) == 1
    first = owner.dataset_key(name)
    assert owner.rotate(name) == 2
    second = owner.dataset_key(name)
    assert (first[0], second[0]) == (1, 2)
    assert first[1] != second[1]
    assert owner.dataset_key(name, 1) == first
    assert {"name": str(name), "version": 2}.items() <= next(
        row for row in owner.datasets() if row["name"] == str(name)
    ).items()


def test_nobody_else_gets_them(clinic: BrokerClient, admin: BrokerClient, broker: RunningBroker) -> None:
    for client in (clinic, admin):
        for attempt in (
            lambda c: c.dataset_key(PATIENTS),
            lambda c: c.rotate(PATIENTS),
            lambda c: c.create_dataset(DatasetName("hospital", "theirs")),
            lambda c: c.generation(PATIENTS, "file:///x"),
            lambda c: c.record_generation(PATIENTS, "file:///x", 1, "0" * 64),
        ):
            with pytest.raises(NotAuthorisedError) as caught:
                attempt(client)
            assert caught.value.refusal_id
    with broker.client(KeyPair.generate()) as stranger, pytest.raises(NotAuthorisedError):
        stranger.owners()
    assert str(PATIENTS) not in {row["name"] for row in clinic.datasets()}
    assert str(PATIENTS) in {row["name"] for row in admin.datasets()}


def test_only_administrators_register_owners_and_names_and_keys_are_unique(
    owner: BrokerClient, admin: BrokerClient, broker: RunningBroker
) -> None:
    with pytest.raises(NotAuthorisedError):
        owner.register_owner("friend", KeyPair.generate().public)
    again = admin.register_owner("hospital", broker.owner_key.public)
    assert again["thumbprint"] == broker.owner_key.thumbprint
    with pytest.raises(OwnerExistsError):
        admin.register_owner("hospital", KeyPair.generate().public)
    with pytest.raises(OwnerExistsError):
        admin.register_owner("hospital-2", broker.owner_key.public)
    for name in ("", "Hospital", "a/b", "job", "x" * 64):
        with pytest.raises(UsageError):
            admin.register_owner(name, KeyPair.generate().public)
    with pytest.raises((InvalidKeyError, UsageError)):
        admin.register_owner("odd", {"kty": "oct", "k": "AAAA"})


def test_a_private_key_sent_by_mistake_is_refused_and_not_stored(admin: BrokerClient, broker: RunningBroker) -> None:
    private = jwk.JWK.generate(kty="EC", crv="P-256").export_private(as_dict=True)
    with pytest.raises(InvalidKeyError):
        admin.register_owner("careless", private)
    assert private["d"].encode() not in b"".join(p.read_bytes() for p in broker.state.glob("broker.db*"))


def test_a_dataset_is_made_once(owner: BrokerClient) -> None:
    with pytest.raises(DatasetExistsError) as caught:
        owner.create_dataset(PATIENTS)
    assert caught.value.exit_status == 2
    with pytest.raises(DatasetUnknownError):
        owner.dataset_key(DatasetName("hospital", "nothing"))
    with pytest.raises(DatasetUnknownError):
        owner.rotate(DatasetName("hospital", "nothing"))


def test_grants_are_checked_when_they_come(broker: RunningBroker, owner: BrokerClient, clinic: BrokerClient) -> None:
    given = grant(not_before=datetime.now(UTC), not_after=datetime.now(UTC) + timedelta(hours=1))
    jws = sign_grant(given, broker.owner_key)
    assert owner.add_grant(jws) == owner.add_grant(jws) == given.id
    with pytest.raises(GrantConflictError):
        owner.add_grant(sign_grant(replace(given, max_releases=1), broker.owner_key))
    with pytest.raises(OwnerUnknownError):
        owner.add_grant(sign_grant(given, KeyPair.generate()))
    with pytest.raises(NotAuthorisedError):
        clinic.add_grant(sign_grant(grant(), broker.owner_key))
    nothing = {DatasetName("hospital", "nothing"): given.datasets[PATIENTS]}
    with pytest.raises(DatasetUnknownError):
        owner.add_grant(sign_grant(grant(datasets=nothing), broker.owner_key))
    with pytest.raises(PolicyUnknownError):
        owner.add_grant(sign_grant(grant(policy_digest="ab" * 32), broker.owner_key))
    with pytest.raises(GrantMalformedError):
        owner.add_grant(broker.owner_key.sign({"version": 1}, typ="casemate-grant+jws"))
    with pytest.raises(SignatureInvalidError):
        owner.add_grant("nonsense")
    with pytest.raises(NotAuthorisedError):
        clinic.revoke_grant(given.id)
    owner.revoke_grant(given.id)
    shown = next(row for row in owner.grants() if row["id"] == given.id)
    assert shown["status"] == "revoked"
    assert not [row for row in clinic.grants() if row["id"] == given.id]
    with pytest.raises(UsageError):
        owner.revoke_grant("no-such-grant")


def test_a_policy_is_known_by_its_digest(owner: BrokerClient) -> None:
    first = owner.add_policy(POLICY)
    assert owner.add_policy(POLICY + "# a comment changes nothing\n") == first
    assert first["digest"] in {row["digest"] for row in owner.policies()}
    for yaml in ("", "version: 1\nname: x\n", "version: 1\nname: x\nunknown: 1\n", "[", "version: 2\n"):
        with pytest.raises(UsageError) as caught:
            owner.add_policy(yaml)
        assert caught.value.code == "policy-malformed"


# --- proofs ---


def test_a_request_without_a_proof_or_with_a_used_one_is_refused(broker: RunningBroker) -> None:
    url = f"{broker.url}/v1/owners"
    proof = make_proof(broker.owner_key, method="GET", url=url, now=datetime.now(UTC))
    with httpx.Client(verify=broker_context(broker), trust_env=False) as http:

        def ask(**headers: str) -> tuple[int, str]:
            response = http.get(url, headers=headers)
            return response.status_code, response.json().get("code", "")

        assert ask() == (401, ProofMissingError.code)
        assert ask(DPoP=proof)[0] == 200
        assert ask(DPoP=proof) == (401, ProofReplayedError.code)
        assert ask(DPoP="nonsense") == (403, "signature-invalid")
        for other in (
            make_proof(broker.owner_key, method="POST", url=url, now=datetime.now(UTC)),
            make_proof(broker.owner_key, method="GET", url=url + "/", now=datetime.now(UTC)),
            make_proof(broker.owner_key, method="GET", url=url, now=datetime.now(UTC) - timedelta(minutes=2)),
            make_proof(broker.owner_key, method="GET", url=url, now=datetime.now(UTC) + timedelta(minutes=2)),
        ):
            assert ask(DPoP=other) == (403, "signature-invalid")


def test_a_proof_made_for_another_broker_is_refused(broker: RunningBroker) -> None:
    elsewhere = "https://other.example:7443/v1/owners"
    proof = make_proof(broker.owner_key, method="GET", url=elsewhere, now=datetime.now(UTC))
    with httpx.Client(verify=broker_context(broker), trust_env=False) as http:
        headers = {"DPoP": proof, "Host": "other.example:7443"}
        response = http.get(f"{broker.url}/v1/owners", headers=headers)
    assert (response.status_code, response.json()["code"]) == (421, HostUnknownError.code)


def test_all_of_the_brokers_names_answer(broker: RunningBroker) -> None:
    url = f"https://localhost:{broker.port}"
    with BrokerClient(url, broker.ca_pem, broker.owner_key) as client:
        assert client.owners()


# --- attested members ---


def test_a_member_gets_a_certificate_for_its_attested_key(broker: RunningBroker) -> None:
    key = KeyPair.generate()
    with member(broker, key) as driver, member(broker, KeyPair.generate(), role="worker") as worker:
        mine = driver.job_certificate("job-a", ["node-1"])
        assert worker.job_certificate("job-a")["ca"] == mine["ca"]
        with pytest.raises(NotAuthorisedError):
            driver.job_certificate("job-b")
        with pytest.raises(UsageError):
            driver.job_certificate("job-a", ["not a name"])
    certificate = x509.load_pem_x509_certificate(mine["certificate"].encode())
    x = base64.urlsafe_b64decode(key.public["x"] + "=")
    assert certificate.public_key().public_numbers().x == int.from_bytes(x, "big")  # type: ignore[union-attr]
    assert certificate.not_valid_after_utc - datetime.now(UTC) <= timedelta(hours=1)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert set(names.get_values_for_type(x509.DNSName)) == {"localhost", "node-1"}
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]


def test_a_stolen_token_is_of_no_use_without_its_key(broker: RunningBroker) -> None:
    with member(broker, KeyPair.generate()) as honest:
        token = honest._token
    with broker.client(KeyPair.generate(), token) as thief:
        with pytest.raises(SignatureInvalidError):
            thief.job_certificate("job-a")
        with pytest.raises(SignatureInvalidError):
            thief.generation(REPORT, "file:///vault/report")


def test_a_member_is_no_owner(broker: RunningBroker) -> None:
    with member(broker, KeyPair.generate()) as driver, pytest.raises(SignatureInvalidError):
        driver.owners()  # the proof is bound to the token, which no route for owners takes


def test_a_member_records_generations_and_the_owner_reads_them(broker: RunningBroker, owner: BrokerClient) -> None:
    broker.give()
    where = "file:///vault/report/run"
    with member(broker, KeyPair.generate()) as driver:
        assert driver.generation(REPORT, where) == (0, None)
        driver.record_generation(REPORT, where, 1, "1" * 64)
        with pytest.raises(GenerationConflictError):
            driver.record_generation(REPORT, where, 1, "2" * 64)
    assert owner.generation(REPORT, where) == (1, "1" * 64)


# --- audit ---


def test_the_log_verifies_and_grows_consistently(owner: BrokerClient, admin: BrokerClient) -> None:
    before = admin.verify_audit()
    owner.dataset_key(PATIENTS)
    after = admin.verify_audit(seen=[before.checkpoint.jws], key=admin.audit_key())
    assert after.size > before.size
    assert after.visible == after.size
    proof = admin.consistency_proof(before.size, after.size)
    merkle.verify_consistency(
        before.size,
        before.checkpoint.root,
        after.size,
        after.checkpoint.root,
        [bytes.fromhex(node) for node in proof["proof"]],
    )
    admin.verify_inclusion(after.size - 1, after.checkpoint)
    old = audit.open_checkpoint(admin.audit_checkpoint(before.size)["jws"], admin.audit_key())
    assert old.root == before.checkpoint.root


def test_an_owner_sees_its_own_entries_and_of_others_the_hash_alone(owner: BrokerClient, clinic: BrokerClient) -> None:
    owner.dataset_key(PATIENTS)
    theirs = clinic.verify_audit()
    assert 0 < theirs.visible < theirs.size
    assert not any("hospital" in entry["owners"] for entry in theirs.entries)
    mine = owner.verify_audit()
    assert any(entry["kind"] == "release.owner" for entry in mine.entries)
    assert mine.size >= theirs.size


def test_a_refusal_is_explained_to_the_owner_alone(
    broker: RunningBroker, owner: BrokerClient, clinic: BrokerClient
) -> None:
    with pytest.raises(NotAuthorisedError) as caught:
        clinic.dataset_key(PATIENTS)
    refusal = caught.value.refusal_id or ""
    assert owner.explain(refusal)["code"] == "not-authorised"
    with pytest.raises(RefusalUnknownError):
        clinic.explain(refusal)
    with pytest.raises(RefusalUnknownError):
        owner.explain("r-0000")


def test_asking_beyond_the_log_is_a_usage_error(admin: BrokerClient) -> None:
    for attempt in (
        lambda: admin.audit_entries(10**6),
        lambda: admin.audit_checkpoint(10**6),
        lambda: admin.inclusion_proof(10**6),
        lambda: admin.consistency_proof(10**6),
        lambda: admin.consistency_proof(0),
    ):
        with pytest.raises(UsageError):
            attempt()


# --- the server ---


def test_openapi_describes_every_route(broker: RunningBroker) -> None:
    with httpx.Client(verify=broker_context(broker), trust_env=False) as http:
        document = http.get(f"{broker.url}/v1/openapi.json").json()
    assert {
        "/kbs/v0/auth",
        "/kbs/v0/attest",
        "/kbs/v0/resource/{repository}/{type_}/{tag}",
        "/v1/health",
        "/v1/owners",
        "/v1/datasets",
        "/v1/grants",
        "/v1/audit/checkpoint",
        "/.well-known/jwks.json",
    } <= set(document["paths"])


def test_health_names_version_and_broker(owner: BrokerClient) -> None:
    health = owner.health()
    assert health["status"] == "ok"
    assert len(health["broker"]) == 64
    assert owner.jwks()["keys"][0]["use"] == "sig"


def test_tls_below_1_3_and_another_ca_are_refused(broker: RunningBroker) -> None:
    old = ssl.create_default_context(cadata=broker.ca_pem)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection(("127.0.0.1", broker.port), timeout=5) as plain,
        pytest.raises(ssl.SSLError),
        old.wrap_socket(plain, server_hostname="127.0.0.1"),
    ):
        pass
    other = create_authority("other", "other", now=datetime.now(UTC)).certificate_pem
    with BrokerClient(broker.url, other, broker.owner_key) as client, pytest.raises(BrokerUnreachableError):
        client.health()


def test_a_broker_that_is_not_there_is_undecided(broker: RunningBroker) -> None:
    url = f"https://127.0.0.1:{free_port()}"
    with BrokerClient(url, broker.ca_pem, broker.owner_key) as client:
        with pytest.raises(BrokerUnreachableError) as caught:
            client.health()
        assert caught.value.exit_status == 3


def test_every_code_the_client_may_get_maps_to_its_class() -> None:
    for code in ("grant-expired", "appraisal-refused", "token-expired", "challenge-unknown", "key-invalid"):
        assert error_class(code).code == code


def test_the_client_needs_neither_web_framework_nor_database_library() -> None:
    probe = "import sys, casemate.broker.client; print(sorted({'fastapi','sqlalchemy','alembic'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_floors_travel_through_the_client(broker: RunningBroker, admin: BrokerClient, owner: BrokerClient) -> None:
    digest = str(admin.add_policy(POLICY)["digest"])
    assert admin.policy(digest)["yaml"] == POLICY
    with pytest.raises(NotAuthorisedError):
        owner.set_floor(digest)
    with pytest.raises(OwnerUnknownError):
        admin.set_floor(digest, "nobody")
    with pytest.raises(PolicyUnknownError):
        admin.set_floor("00" * 32)
    admin.set_floor(digest)
    admin.set_floor(digest, "hospital")
    assert [(row["owner"], row["digest"]) for row in owner.floors()] == [(None, digest), ("hospital", digest)]
    admin.clear_floor()
    admin.clear_floor("hospital")
    assert owner.floors() == []
