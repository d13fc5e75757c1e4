"""The attesting client against a broker written from the protocol alone."""

from __future__ import annotations

import hashlib
import json
import socket
import ssl
from collections.abc import Callable, Iterator

import pytest
from tests.support.kbs_double import Authority, KbsDouble
from tests.unit.workload.conftest import JOB_SECRET, OLD_KEY, PATIENTS, PATIENTS_KEY, EchoAttester

from casemate.crypto.errors import UnsealError
from casemate.crypto.jose import KeyPair
from casemate.crypto.jwk import b64encode
from casemate.data.errors import (
    KeyDeniedError,
)
from casemate.data.generations import NOTHING_RECORDED, Generation
from casemate.errors import CasemateError, FailedError, GenerationConflictError, RefusedError, UndecidedError
from casemate.model import DatasetName, Role
from casemate.workload.errors import (
    KeyBrokerAnswerError,
    KeyBrokerRefusedError,
    KeyBrokerUnreachableError,
    WrongBrokerError,
)
from casemate.workload.kbs import KeyBroker
from casemate.workload.manifest import WorkloadManifest

Connect = Callable[[WorkloadManifest], KeyBroker]


@pytest.fixture
def connect(attester: EchoAttester) -> Iterator[Connect]:
    made: list[KeyBroker] = []

    def new(manifest: WorkloadManifest) -> KeyBroker:
        init_data = manifest.canonical().decode()
        entry, key = manifest.brokers["default"], KeyPair.generate()
        made.append(KeyBroker(entry, attester, key, job="job-1", role=Role.DRIVER, init_data=init_data))
        return made[-1]

    yield new
    for broker in made:
        broker.close()


@pytest.fixture
def broker(manifest: WorkloadManifest, connect: Connect) -> KeyBroker:
    return connect(manifest)


def with_broker(manifest: WorkloadManifest, **changes: str) -> WorkloadManifest:
    entry = {**manifest.brokers["default"].to_json(), **changes}
    return WorkloadManifest.from_json({**manifest.to_json(), "brokers": {"default": entry}})


def test_an_attested_client_gets_the_current_key(kbs: KbsDouble, broker: KeyBroker) -> None:
    broker.attest()
    key = broker.dataset_key(PATIENTS)
    assert (key.version, key.secret.reveal()) == (2, PATIENTS_KEY)
    assert broker.dataset_key(PATIENTS, 1).secret.reveal() == OLD_KEY
    assert broker.job_secret().reveal() == JOB_SECRET


def test_the_messages_are_those_of_the_protocol(
    kbs: KbsDouble, broker: KeyBroker, attester: EchoAttester, manifest: WorkloadManifest
) -> None:
    broker.attest()
    auth, attest = kbs.requests
    assert auth.body == {
        "version": "0.4.0",
        "tee": "sample",
        "extra-params": {"casemate": {"job": "job-1", "role": "driver"}},
    }
    assert set(attest.body) == {"init-data", "runtime-data", "tee-evidence"}
    assert attest.body["init-data"] == {"format": "json", "body": manifest.canonical().decode()}
    assert set(attest.body["runtime-data"]["tee-pubkey"]) == {"kty", "crv", "alg", "x", "y"}
    assert attest.body["tee-evidence"]["additional_evidence"] == ""
    assert "kbs-session-id=" in attest.headers["Cookie"]
    assert len(attester.collected) == 1


def test_each_attestation_answers_a_fresh_challenge(kbs: KbsDouble, broker: KeyBroker, attester: EchoAttester) -> None:
    broker.attest()
    broker.attest()
    assert len(set(attester.collected)) == 2


def test_a_session_that_the_broker_forgot_is_earned_again(kbs: KbsDouble, broker: KeyBroker) -> None:
    broker.attest()
    kbs.forget_sessions()
    kbs.deny("/kbs/v0/resource", 401, code="not-attested", detail="who are you")
    with pytest.raises(RefusedError) as caught:
        broker.dataset_key(PATIENTS)
    assert caught.value.code == "not-attested"
    assert kbs.attestations == 2  # tried again once, not for ever
    kbs.denials.clear()
    assert broker.dataset_key(PATIENTS).version == 2


def test_a_denied_key_keeps_the_brokers_code_and_refusal_id(kbs: KbsDouble, broker: KeyBroker) -> None:
    broker.attest()
    kbs.deny("/kbs/v0/resource", 403, code="grant-expired", detail="until yesterday", refusal_id="r-1")
    with pytest.raises(RefusedError) as caught:
        broker.dataset_key(PATIENTS)
    assert (caught.value.code, caught.value.refusal_id, caught.value.exit_status) == ("grant-expired", "r-1", 1)


def test_another_kbs_that_knows_no_codes_is_understood(kbs: KbsDouble, broker: KeyBroker) -> None:
    broker.attest()
    with pytest.raises(KeyBrokerRefusedError, match="no resource"):
        broker.dataset_key(DatasetName("hospital", "unknown"))


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_broker_that_cannot_answer_now_is_undecided(kbs: KbsDouble, broker: KeyBroker, status: int) -> None:
    kbs.deny("/kbs/v0/auth", status, detail="later")
    with pytest.raises(UndecidedError):
        broker.attest()


def test_a_broker_that_breaks_is_a_failure_and_not_a_refusal(kbs: KbsDouble, broker: KeyBroker) -> None:
    kbs.deny("/kbs/v0/auth", 500, detail="broken")
    with pytest.raises(FailedError):
        broker.attest()


def test_a_broker_out_of_reach_is_undecided(manifest: WorkloadManifest, connect: Connect) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        other = with_broker(manifest, url=f"https://127.0.0.1:{unused.getsockname()[1]}")
        with pytest.raises(KeyBrokerUnreachableError, match="refused"):
            connect(other).attest()


def test_a_server_of_another_authority_is_not_spoken_to(
    manifest: WorkloadManifest, kbs: KbsDouble, attester: EchoAttester, connect: Connect
) -> None:
    pem = Authority().pem
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
    with pytest.raises(WrongBrokerError):
        connect(with_broker(manifest, ca_pem=pem, ca_sha256=digest)).attest()
    assert kbs.requests == []
    assert attester.collected == []


def test_a_server_under_another_name_is_not_spoken_to(
    manifest: WorkloadManifest, kbs: KbsDouble, connect: Connect
) -> None:
    with pytest.raises((WrongBrokerError, KeyBrokerUnreachableError)):  # the second where only 127.0.0.1 is up
        connect(with_broker(manifest, url=kbs.url.replace("127.0.0.1", "127.0.0.2"))).attest()
    assert kbs.requests == []


def test_a_key_of_another_dataset_or_version_is_not_taken(kbs: KbsDouble, broker: KeyBroker) -> None:
    broker.attest()
    kbs.resources["hospital/patients/current"] = kbs.resources["hospital/report/1"]
    with pytest.raises(KeyDeniedError, match="hospital/report/1"):
        broker.dataset_key(PATIENTS)
    kbs.resources["hospital/patients/5"] = kbs.resources["hospital/patients/1"]
    with pytest.raises(KeyDeniedError, match="asked for key version 5"):
        broker.dataset_key(PATIENTS, 5)


@pytest.mark.parametrize(
    "resource",
    [b"", b"{}", b"[]", b"\xff", b'{"kty":"oct"}', b'{"kty":"EC","kid":"hospital/patients/2","k":"AA"}']
    + [
        json.dumps({"kty": "oct", "kid": f"hospital/patients/{v}", "k": "AA"}).encode()
        for v in ("0", "-1", "x", "²", "2")
    ],
)
def test_a_resource_that_is_no_key_is_refused_without_showing_it(
    kbs: KbsDouble, broker: KeyBroker, resource: bytes
) -> None:
    broker.attest()
    kbs.resources["hospital/patients/current"] = resource
    with pytest.raises(CasemateError) as caught:
        broker.dataset_key(PATIENTS)
    assert '"AA"' not in str(caught.value)


def test_a_key_sealed_to_somebody_else_does_not_open(
    kbs: KbsDouble, manifest: WorkloadManifest, connect: Connect
) -> None:
    first, second = connect(manifest), connect(manifest)
    first.attest()
    second.attest()
    one, two = kbs.sessions.values()
    one.jwk = two.jwk
    with pytest.raises(UnsealError):
        first.dataset_key(PATIENTS)


def test_a_job_certificate_needs_a_proof_of_the_attested_key(kbs: KbsDouble, broker: KeyBroker) -> None:
    broker.attest()
    issued = broker.certificate(("worker.example",))
    assert issued.ca == kbs.job_authority.pem
    assert "BEGIN CERTIFICATE" in issued.certificate
    assert kbs.requests[-1].body == {"names": ["worker.example"]}
    assert kbs.requests[-1].headers["Authorization"].startswith("DPoP ")


def test_generations_are_recorded_in_order(kbs: KbsDouble, broker: KeyBroker) -> None:
    broker.attest()
    where = "file:///data/with space & ümlaut"
    assert broker.generation(PATIENTS, where) == NOTHING_RECORDED
    broker.record(PATIENTS, where, Generation(1, "ab" * 32))
    assert broker.generation(PATIENTS, where) == Generation(1, "ab" * 32)
    with pytest.raises(GenerationConflictError):
        broker.record(PATIENTS, where, Generation(1, "cd" * 32))


def test_a_generation_that_makes_no_sense_is_an_error(kbs: KbsDouble, broker: KeyBroker) -> None:
    broker.attest()
    kbs.generations["hospital/patients", "file:///x"] = (-1, "ab")
    with pytest.raises(KeyBrokerAnswerError):
        broker.generation(PATIENTS, "file:///x")


def test_a_kept_connection_that_the_server_closed_is_opened_again(kbs: KbsDouble, broker: KeyBroker) -> None:
    broker.attest()
    connection = broker._connection._connection._connection
    assert connection is not None
    assert connection.sock is not None
    connection.sock.shutdown(socket.SHUT_RDWR)
    assert broker.dataset_key(PATIENTS).version == 2


def test_no_secret_is_sent(kbs: KbsDouble, broker: KeyBroker) -> None:
    broker.attest()
    broker.dataset_key(PATIENTS)
    broker.certificate()
    everything = repr([(r.path, r.headers, r.body) for r in kbs.requests])
    private = b64encode(broker._key._key.private_numbers().private_value.to_bytes(32, "big"))
    assert private not in everything
