"""A third party's view: the KBS protocol 0.4.0 with httpx, jwcrypto and rfc8785 alone, no Casemate in the client.

The machine (``broker.quote``) is the SIMULATED one; what it is given are 64 bytes, what it gives are a quote's bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import rfc8785
from jwcrypto import jwe, jwk, jws
from tests.integration.broker.conftest import RunningBroker
from tests.unit.broker.support import digest, manifest, text

Quote = Callable[[bytes], str]


class Guest:
    """Somebody else's client."""

    def __init__(self, url: str, ca_pem: str, quote: Quote, *, extra: Any = None, body: str | None = None) -> None:
        self.http = httpx.Client(base_url=url, verify=ssl.create_default_context(cadata=ca_pem), trust_env=False)
        self.key = jwk.JWK.generate(kty="EC", crv="P-256")
        self.public = self.key.export_public(as_dict=True)
        self.quote = quote
        self.extra = extra
        self.body = body
        self.nonce = ""
        self.token = ""

    def auth(self) -> httpx.Response:
        response = self.http.post(
            "/kbs/v0/auth", json={"version": "0.4.0", "tee": "tdx", "extra-params": self.extra or {}}
        )
        self.nonce = response.json()["nonce"]
        return response

    def message(self, **changes: Any) -> dict[str, Any]:
        bound = {"additional-evidence": "", "nonce": self.nonce, "tee-pubkey": self.public}
        report_data = hashlib.sha384(rfc8785.dumps(bound)).digest().ljust(64, b"\0")
        message: dict[str, Any] = {
            "runtime-data": {"nonce": self.nonce, "tee-pubkey": self.public},
            "tee-evidence": {"primary_evidence": {"quote": self.quote(report_data)}, "additional_evidence": ""},
        }
        if self.body is not None:
            message["init-data"] = {"format": "json", "body": self.body}
        return {**message, **changes}

    def attest(self, message: dict[str, Any] | None = None) -> httpx.Response:
        response = self.http.post("/kbs/v0/attest", json=message or self.message())
        if response.is_success:
            self.token = response.json()["token"]
        return response

    def resource(self, path: str, *, bearer: bool = False) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}"} if bearer else {}
        return self.http.get(f"/kbs/v0/resource/{path}", headers=headers)

    def open(self, response: httpx.Response) -> bytes:
        assert response.status_code == 200, response.text
        sealed = jwe.JWE()
        sealed.deserialize(response.text, key=self.key)
        return bytes(sealed.payload)


@pytest.fixture
def guest(broker: RunningBroker) -> Iterator[Callable[..., Guest]]:
    made: list[Guest] = []

    def make(workload: dict[str, Any] | None = None, job: str | None = None, role: str = "driver") -> Guest:
        workload = workload or manifest()
        extra = {"casemate": {"job": job, "role": role}} if job else None
        guest = Guest(
            broker.url, broker.ca_pem, lambda data: broker.quote(data, workload), extra=extra, body=text(workload)
        )
        made.append(guest)
        return guest

    yield make
    for each in made:
        each.http.close()


def code(response: httpx.Response, status: int) -> str:
    """The problem's code, after its form was checked (RFC 9457)."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert set(problem) == {"type", "title", "status", "code", "detail", "refusal_id"}
    assert problem["status"] == status
    assert response.headers["cache-control"] == "no-store"
    return str(problem["code"])


def test_auth_attest_resource(broker: RunningBroker, guest: Callable[..., Guest]) -> None:
    broker.give()
    client = guest()
    cookie = client.auth().headers["set-cookie"]
    assert cookie.startswith("kbs-session-id=")
    assert {"Secure", "HttpOnly"} <= {part.strip() for part in cookie.split(";")}
    assert client.attest().status_code == 200
    key = json.loads(client.open(client.resource("hospital/patients/current")))
    assert key["kty"] == "oct"
    assert key["kid"] == "hospital/patients/1"
    assert len(base64.urlsafe_b64decode(key["k"] + "=")) == 32
    assert json.loads(client.open(client.resource("hospital/patients/1"))) == key
    client.http.cookies.clear()
    assert json.loads(client.open(client.resource("hospital/patients/1", bearer=True))) == key


def test_the_sealed_answer_has_the_protocols_form(broker: RunningBroker, guest: Callable[..., Guest]) -> None:
    broker.give()
    client = guest()
    client.auth()
    client.attest()
    sealed = client.resource("hospital/patients/current").json()
    assert set(sealed) == {"protected", "encrypted_key", "iv", "ciphertext", "tag"}
    header = json.loads(base64.urlsafe_b64decode(sealed["protected"] + "=="))
    assert (header["alg"], header["enc"]) == ("ECDH-ES+A256KW", "A256GCM")
    assert header["epk"]["crv"] == "P-256"


def test_the_token_is_an_ear_that_the_published_keys_verify(guest: Callable[..., Guest]) -> None:
    client = guest(job="ear-1")
    client.auth()
    client.attest()
    keys = jwk.JWKSet.from_json(client.http.get("/.well-known/jwks.json").text)
    token = jws.JWS()
    token.deserialize(client.token)
    token.verify(keys.get_key(token.jose_header["kid"]))
    claims = json.loads(token.payload)
    assert claims["exp"] - claims["iat"] == 300
    assert claims["submods"]["cpu0"]["ear.status"] in ("affirming", "warning")
    assert claims["cnf"]["jwk"]["x"] == client.public["x"]
    annotated = claims["submods"]["cpu0"]["ear.veraison.annotated-evidence"]
    assert annotated["casemate"]["simulated"] is True
    assert annotated["init_data"] == digest(manifest())


def test_a_replayed_attestation_is_refused(guest: Callable[..., Guest]) -> None:
    client = guest()
    client.auth()
    message = client.message()
    assert client.attest(message).status_code == 200
    assert code(client.attest(message), 401) == "challenge-unknown"
    client.auth()  # a new session, the recorded message
    assert code(client.attest(message), 401) == "challenge-unknown"


def test_a_swapped_key_is_refused(guest: Callable[..., Guest]) -> None:
    client = guest()
    client.auth()
    message = client.message()
    thief = jwk.JWK.generate(kty="EC", crv="P-256").export_public(as_dict=True)
    message["runtime-data"]["tee-pubkey"] = thief
    assert code(client.attest(message), 403) == "report-data-mismatch"


def test_a_swapped_manifest_is_refused(guest: Callable[..., Guest]) -> None:
    client = guest()
    client.auth()
    other = {"format": "json", "body": text(manifest(arguments=["elsewhere"]))}
    response = client.attest(client.message(**{"init-data": other}))
    assert code(response, 403) == "workload-digest-mismatch"
    assert response.json()["refusal_id"]


def test_without_attestation_there_is_nothing(guest: Callable[..., Guest]) -> None:
    client = guest()
    assert code(client.resource("hospital/patients/current"), 401) == "not-attested"
    client.auth()
    assert code(client.resource("hospital/patients/current"), 401) == "not-attested"
    client.token = "a.b.c"
    assert code(client.resource("hospital/patients/current", bearer=True), 401) == "token-invalid"
    assert code(client.attest({**client.message(), "runtime-data": {}}), 400) == "request-malformed"


def test_refusals_are_problems_with_a_code_and_an_id(broker: RunningBroker, guest: Callable[..., Guest]) -> None:
    broker.give()
    client = guest(manifest(program={"path": "job.py", "sha256": "01" + "00" * 31}))
    client.auth()
    client.attest()
    response = client.resource("hospital/patients/current")
    assert code(response, 403) == "grant-workload-mismatch"
    assert digest(manifest())[:20] not in response.text  # what would have been right is for the owner alone
    with broker.client(broker.owner_key) as owner:
        entry = owner.explain(response.json()["refusal_id"])
    assert any(not clause["holds"] and clause["clause"] == "workload" for clause in entry["clauses"])
    assert code(client.resource("hospital/unknown/1"), 404) == "dataset-unknown"
    assert code(client.resource("hospital/patients/latest"), 400) == "request-malformed"
    assert code(client.resource("Hospital/patients/1"), 404) == "resource-unknown"


def test_the_members_of_a_job_share_a_secret_and_others_do_not(guest: Callable[..., Guest]) -> None:
    secrets = []
    for job, role in (("shared-1", "master"), ("shared-1", "worker"), ("shared-2", "driver")):
        client = guest(job=job, role=role)
        client.auth()
        client.attest()
        secrets.append(client.open(client.resource(f"job/{job}/secret")))
        other = "shared-2" if job == "shared-1" else "shared-1"
        assert code(client.resource(f"job/{other}/secret"), 403) == "not-authorised"
        assert code(client.resource(f"job/{job}/other"), 404) == "resource-unknown"
    assert secrets[0] == secrets[1] != secrets[2]
    assert len(secrets[0]) == 32


def test_a_worker_opens_no_dataset(broker: RunningBroker, guest: Callable[..., Guest]) -> None:
    broker.give()
    client = guest(job="worker-1", role="worker")
    client.auth()
    client.attest()
    assert code(client.resource("hospital/patients/current"), 403) == "role-not-entitled"


def test_an_rsa_key_is_sealed_to_as_well(broker: RunningBroker, guest: Callable[..., Guest]) -> None:
    broker.give()
    client = guest()
    client.key = jwk.JWK.generate(kty="RSA", size=2048)
    client.public = client.key.export_public(as_dict=True)
    client.auth()
    assert client.attest().status_code == 200
    assert json.loads(client.open(client.resource("hospital/patients/current")))["kty"] == "oct"


def test_an_expired_grant_is_refused(broker: RunningBroker, guest: Callable[..., Guest]) -> None:
    workload = manifest(arguments=["expired"])
    past = datetime.now(UTC) - timedelta(minutes=1)
    broker.give(workload=workload, not_after=past)
    client = guest(workload)
    client.auth()
    client.attest()
    assert code(client.resource("hospital/patients/current"), 403) == "grant-expired"


def test_of_jobs_that_race_one_gets_the_last_release(broker: RunningBroker, guest: Callable[..., Guest]) -> None:
    workload = manifest(arguments=["race"])
    broker.give(workload=workload, max_releases=1)
    clients = [guest(workload, job=f"race-{i}") for i in range(4)]
    for client in clients:
        client.auth()
        client.attest()
    answers: list[httpx.Response] = []
    threads = [
        threading.Thread(target=lambda c=client: answers.append(c.resource("hospital/patients/current")))
        for client in clients
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status_code for answer in answers) == [200, 403, 403, 403]
    assert {answer.json().get("code") for answer in answers if answer.status_code == 403} == {"grant-exhausted"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"version": 4, "tee": "tdx"}',
        b'{"version": "0.3.0", "tee": "tdx"}',
        b'{"version": "0.4.0", "tee": ""}',
        b"[" * 200_000,
        b'{"version": "0.4.0", "tee": "' + b"x" * 100_000 + b'"}',
        b"\xff\xfe",
        b'{"version": "0.4.0", "tee": "\\ud800"}',
        b'{"version": "0.4.0", "tee": "tdx", "extra-params": {"casemate": {"job": "\\ud800", "role": "driver"}}}',
        b'{"version": "0.4.0", "tee": ' + b"9" * 10_000 + b"}",
    ],
    ids=range(13),
)
def test_a_request_of_another_form_is_refused_without_an_echo(guest: Callable[..., Guest], body: bytes) -> None:
    client = guest()
    response = client.http.post("/kbs/v0/auth", content=body, headers={"Content-Type": "application/json"})
    assert code(response, 400) == "request-malformed"
    assert len(response.content) < 1500


@pytest.mark.parametrize(
    "change",
    [
        {"runtime-data": {"nonce": "\ud800", "tee-pubkey": {}}},
        {"runtime-data": {"nonce": "x", "tee-pubkey": {"kty": "EC", "crv": "P-256", "x": 1, "y": 2}}},
        {"runtime-data": {"nonce": "x", "tee-pubkey": {"kty": "\ud800"}}},
        {"runtime-data": {"nonce": None, "tee-pubkey": []}},
        {"init-data": {"format": "json", "body": "\ud800"}},
        {"init-data": {"format": "json", "body": "{}", "signatures": ["\ud800", "x.y.z"]}},
        {"init-data": {"format": "json", "body": 7}},
        {"tee-evidence": {"primary_evidence": {"quote": "\ud800"}}},
        {"tee-evidence": {"primary_evidence": {"quote": {"a": []}}, "additional_evidence": "\udfff"}},
        {"tee-evidence": {"primary_evidence": []}},
        {"tee-evidence": {"primary_evidence": {"quote": "A" * 3_000_000}}},
    ],
    ids=range(11),
)
def test_an_attestation_of_another_form_is_refused(guest: Callable[..., Guest], change: dict[str, Any]) -> None:
    client = guest()
    client.auth()
    message = client.message()
    for member, value in change.items():
        merged = {**message[member], **value}
        if merged.get("nonce") == "x":
            merged["nonce"] = client.nonce
        message[member] = merged
    raw = json.dumps(message).encode()
    response = client.http.post("/kbs/v0/attest", content=raw, headers={"Content-Type": "application/json"})
    assert response.status_code in (400, 401, 403)
    assert response.json()["code"] not in ("failed", "error")
    assert len(response.content) < 1500


def test_a_body_beyond_the_limit_is_refused_declared_or_not(guest: Callable[..., Guest]) -> None:
    client = guest()
    huge = b" " * (5 * 1024 * 1024)
    headers = {"Content-Type": "application/json"}
    assert code(client.http.post("/kbs/v0/attest", content=huge, headers=headers), 413) == "request-too-large"
    chunks = (huge[i : i + 65536] for i in range(0, len(huge), 65536))
    response = client.http.post("/kbs/v0/attest", content=chunks, headers=headers)
    assert code(response, 413) == "request-too-large"


def test_attest_and_release_answer_at_once(broker: RunningBroker, guest: Callable[..., Guest]) -> None:
    broker.give()
    times = []
    for _ in range(40):
        client = guest()
        client.http.get("/v1/health")  # the connection is there already
        client.auth()
        message = client.message()
        began = time.perf_counter()
        client.attest(message)
        client.resource("hospital/patients/current")
        times.append(time.perf_counter() - began)
        client.http.close()
    median = sorted(times)[len(times) // 2]
    print(f"attest + release: median {median * 1000:.1f} ms")
    assert median < 0.15  # a tenth of that alone on the machine; a stalled socket takes 40 ms per answer more
