"""Fifty TEEs at once: everybody gets the key, every decision is in the log, and a challenge is good once."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.integration.broker.conftest import RunningBroker
from tests.unit.broker.support import PATIENTS, manifest, text

from casemate.attestation.binding import report_data
from casemate.attestation.evidence import Evidence
from casemate.crypto.jose import KeyPair
from casemate.https import HttpsConnection
from casemate.model import Role
from casemate.workload.kbs import KeyBroker
from casemate.workload.manifest import BrokerEntry

CLIENTS = 50


class MachineAttester:
    """The SIMULATED machine's quotes; it makes one at a time."""

    tee = "tdx"

    def __init__(self, broker: RunningBroker) -> None:
        self._broker = broker
        self._lock = threading.Lock()

    def collect(self, report_data: bytes) -> Evidence:
        with self._lock:
            return Evidence(self.tee, {"quote": self._broker.quote(report_data)})


@pytest.fixture
def granted(broker: RunningBroker) -> RunningBroker:
    broker.give()
    return broker


def test_fifty_at_once_lose_nothing(granted: RunningBroker) -> None:
    entry, attester = BrokerEntry(granted.url, granted.ca_pem, ""), MachineAttester(granted)
    together = threading.Barrier(CLIENTS)

    def one(number: int) -> tuple[bytes, float]:
        job = f"crowd-{number}"
        client = KeyBroker(entry, attester, KeyPair.generate(), job=job, role=Role.DRIVER, init_data=text(manifest()))
        try:
            together.wait(timeout=60)
            begin = time.perf_counter()
            client.attest()
            key = client.dataset_key(PATIENTS)
            return key.secret.reveal(), time.perf_counter() - begin
        finally:
            client.close()

    with granted.client(granted.admin_key) as admin:
        before = admin.verify_audit()
        with ThreadPoolExecutor(CLIENTS) as pool:
            keys, seconds = zip(*pool.map(one, range(CLIENTS)), strict=True)
        after = admin.verify_audit([before.checkpoint.jws])
    assert len(set(keys)) == 1
    assert max(seconds) < 30  # nobody is left waiting for good
    done = Counter((e["kind"], e["subject"]["job"]) for e in after.entries[before.size :] if e["outcome"] == "accepted")
    assert done == Counter((kind, f"crowd-{n}") for kind in ("attest", "release") for n in range(CLIENTS))


def test_of_many_answers_to_one_challenge_one_is_accepted(granted: RunningBroker) -> None:
    def post(path: str, body: object, cookie: str = "") -> tuple[int, dict[str, str], tuple[str, ...]]:
        connection = HttpsConnection(granted.url, granted.ca_pem, timeout=30)
        try:
            reply = connection.exchange(
                "POST", path, json.dumps(body).encode(), lambda: {"Cookie": cookie}, again=False
            )
            return reply.status, json.loads(reply.body), reply.cookies
        finally:
            connection.close()

    _, challenge, cookies = post("/kbs/v0/auth", {"version": "0.4.0", "tee": "tdx", "extra-params": {}})
    key = KeyPair.generate().public
    answer = {
        "init-data": {"format": "json", "body": text(manifest())},
        "runtime-data": {"nonce": challenge["nonce"], "tee-pubkey": key},
        "tee-evidence": {
            "primary_evidence": {"quote": granted.quote(report_data(challenge["nonce"], key))},
            "additional_evidence": "",
        },
    }
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: post("/kbs/v0/attest", answer, cookies[0]), range(8)))
    assert sorted(status for status, _, _ in replies) == [200] + [401] * 7
    assert {body.get("code") for status, body, _ in replies if status == 401} == {"challenge-unknown"}
