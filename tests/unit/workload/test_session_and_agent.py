"""What an attested process may have, and how it hands that to the program's libraries."""

from __future__ import annotations

import base64
import json
import os
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.kbs_double import KbsDouble
from tests.unit.workload.conftest import (
    JOB_SECRET,
    OLD_KEY,
    PATIENTS,
    PATIENTS_KEY,
    REPORT,
    EchoAttester,
    make_manifest,
)

from casemate.data.client import AgentClient
from casemate.data.errors import (
    FileTamperedError,
    KeyDeniedError,
)
from casemate.data.generations import NOTHING_RECORDED, Generation
from casemate.errors import GenerationConflictError, RefusedError
from casemate.model import Access, ColumnKeys, DatasetName, Role
from casemate.workload.agent import MAX_MESSAGE, Agent
from casemate.workload.build import zone_entry
from casemate.workload.manifest import WorkloadManifest
from casemate.workload.session import AttestedSession

DIAGNOSIS = DatasetName("hospital", "diagnosis")


def test_a_columns_key_is_fetched_when_it_is_used_and_the_job_goes_on_without(
    kbs: KbsDouble, program: Path, private_dir: Path
) -> None:
    columns = ColumnKeys.of({str(DIAGNOSIS): ["diagnosis"], "hospital/notes": ["note"]})
    zones = [zone_entry(PATIENTS, str(program.parent / "in"), Access.READ, parquet=columns)]
    manifest, _ = make_manifest(program, kbs.url, kbs.authority.pem, zones=zones)
    kbs.hold_key(str(DIAGNOSIS), 1, b"d" * 32)
    kbs.deny("/kbs/v0/resource/hospital/notes", 403, code="grant-missing", detail="no grant names it")
    session = new_session(manifest, private_dir)
    session.open()
    assert not any("diagnosis" in request.path for request in kbs.requests)
    assert session.key(DIAGNOSIS, 1).secret.reveal() == b"d" * 32
    with pytest.raises(RefusedError, match="no grant names it"):
        session.current_key(DatasetName("hospital", "notes"))
    with pytest.raises(KeyDeniedError, match="no zone"):
        session.current_key(DatasetName("hospital", "else"))
    kbs.deny("/kbs/v0/resource/hospital/diagnosis", 403, code="grant-expired", detail="until yesterday")
    with pytest.raises(RefusedError, match="until yesterday"):  # what was opened is asked for again
        session.renew()
    session.close()


def new_session(manifest: WorkloadManifest, private: Path, role: Role = Role.DRIVER) -> AttestedSession:
    return AttestedSession(
        manifest,
        EchoAttester(),
        job="job-1",
        role=role,
        private_dir=private,
        program=private / "bundle" / "job.py",
        simulated=True,
    )


@pytest.fixture
def session(manifest: WorkloadManifest, private_dir: Path) -> Iterator[AttestedSession]:
    session = new_session(manifest, private_dir)
    yield session
    session.close()


@pytest.fixture
def reports() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def agent(session: AttestedSession, reports: list[tuple[str, str]]) -> Iterator[Agent]:
    session.open()
    agent = Agent(session, lambda code, message: reports.append((code, message)))
    agent.start()
    yield agent
    agent.close()


@pytest.fixture
def client(agent: Agent, session: AttestedSession) -> Iterator[AgentClient]:
    client = AgentClient(session.agent_socket)
    yield client
    client.close()


# --- the session ---


def test_opening_fetches_keys_certificate_and_secret(session: AttestedSession, kbs: KbsDouble) -> None:
    session.open()
    asked = len(kbs.requests)
    assert session.current_key(PATIENTS).secret.reveal() == PATIENTS_KEY
    assert session.key(PATIENTS, 2).secret.reveal() == PATIENTS_KEY
    assert session.job_secret is not None
    assert session.job_secret.reveal() == JOB_SECRET
    assert session.certificate is not None
    assert len(kbs.requests) == asked  # all of it was there
    assert session.key(PATIENTS, 1).secret.reveal() == OLD_KEY
    assert len(kbs.requests) == asked + 1


@pytest.mark.parametrize("role", [Role.MASTER, Role.WORKER])
def test_a_role_that_opens_no_dataset_asks_for_none(
    manifest: WorkloadManifest, private_dir: Path, kbs: KbsDouble, role: Role
) -> None:
    session = new_session(manifest, private_dir, role)
    session.open()
    assert session.zones == ()
    assert not [r for r in kbs.requests if "hospital" in r.path]
    with pytest.raises(KeyDeniedError, match=f"role {role}"):
        session.current_key(PATIENTS)
    session.close()


def test_a_dataset_that_no_zone_names_is_denied(session: AttestedSession, kbs: KbsDouble) -> None:
    session.open()
    kbs.hold_key("hospital/other", 1, bytes(32))
    with pytest.raises(KeyDeniedError, match="no zone"):
        session.current_key(DatasetName("hospital", "other"))
    assert not [r for r in kbs.requests if "other" in r.path]


def test_one_refused_dataset_refuses_the_session(session: AttestedSession, kbs: KbsDouble) -> None:
    kbs.deny("/kbs/v0/resource/hospital/report", 403, code="grant-missing", detail="none")
    with pytest.raises(RefusedError) as caught:
        session.open()
    assert caught.value.code == "grant-missing"


def test_renewal_notices_a_withdrawn_grant_although_the_key_is_cached(session: AttestedSession, kbs: KbsDouble) -> None:
    session.open()
    session.renew()
    assert kbs.attestations == 2
    kbs.deny("/kbs/v0/resource/hospital/patients", 403, code="grant-revoked", detail="at noon")
    with pytest.raises(RefusedError) as caught:
        session.renew()
    assert caught.value.code == "grant-revoked"


def test_each_dataset_is_asked_for_at_its_own_broker(
    program: Path, private_dir: Path, kbs: KbsDouble, tmp_path: Path
) -> None:
    other_dir = tmp_path / "other"
    other_dir.mkdir()
    with KbsDouble(other_dir) as second:
        second.hold_key("bank/accounts", 7, b"k" * 32)
        one, _ = make_manifest(program, kbs.url, kbs.authority.pem)
        value = one.to_json()
        value["brokers"]["bank"] = {
            **make_manifest(program, second.url, second.authority.pem)[0].brokers["default"].to_json()
        }
        accounts = DatasetName("bank", "accounts")
        value["zones"].append(zone_entry(accounts, str(tmp_path / "acc"), Access.READ, broker="bank").to_json())
        session = new_session(WorkloadManifest.from_json(value), private_dir)
        session.open()
        assert session.current_key(accounts).version == 7
        assert {r.path.split("/")[4] for r in second.requests if "resource" in r.path} == {"bank"}
        assert "bank" not in repr([r.path for r in kbs.requests])
        assert [r.path for r in second.requests if "/v1/jobs" in r.path] == []  # certificates: the coordinator alone
        session.close()


def test_generations_are_asked_for_inside_zones_only(session: AttestedSession, kbs: KbsDouble, program: Path) -> None:
    session.open()
    zone = f"file://{program.parent}/out"
    session.record(REPORT, f"{zone}/r", Generation(1, "ab" * 32))
    assert session.generation(REPORT, f"{zone}/r") == Generation(1, "ab" * 32)
    asked = len(kbs.requests)
    for location in ("file:///elsewhere", f"{zone}-not", f"file://{program.parent}/in"):
        with pytest.raises(KeyDeniedError, match="none of its zones"):
            session.generation(REPORT, location)
    with pytest.raises(KeyDeniedError, match="only for reading"):
        session.record(PATIENTS, f"file://{program.parent}/in", Generation(1, "ab" * 32))
    assert len(kbs.requests) == asked


# --- the agent ---


def test_the_socket_is_for_this_user_alone(agent: Agent, session: AttestedSession) -> None:
    assert stat.S_IMODE(session.agent_socket.stat().st_mode) == 0o600


def test_a_library_gets_the_session_keys_and_generations(client: AgentClient, program: Path) -> None:
    session = client.session()
    assert (session.job, session.role, session.simulated, session.strict) == ("job-1", Role.DRIVER, True, True)
    assert session.plaintext_output == "deny"
    assert [str(zone.dataset) for zone in session.zones] == ["hospital/patients", "hospital/report"]
    assert client.current_key(PATIENTS).secret.reveal() == PATIENTS_KEY
    assert client.key(PATIENTS, 1).secret.reveal() == OLD_KEY
    where = f"file://{program.parent}/out"
    assert client.generation(REPORT, where) == NOTHING_RECORDED
    client.record(REPORT, where, Generation(1, "ab" * 32))
    with pytest.raises(GenerationConflictError):
        client.record(REPORT, where, Generation(1, "ab" * 32))


def test_a_refusal_reaches_whoever_runs_the_program_as_one_line(
    client: AgentClient, reports: list[tuple[str, str]]
) -> None:
    client.report(FileTamperedError("file:///x.csv:\nsegment 3 " + "y" * 10_000))
    code, message = reports[0]
    assert code == "file-tampered"
    assert message.startswith("file:///x.csv: segment 3 ")
    assert "\n" not in message
    assert len(message) <= 4096


def test_what_the_broker_refuses_keeps_its_code(client: AgentClient, kbs: KbsDouble) -> None:
    kbs.deny("/kbs/v0/resource/hospital/patients/9", 403, code="grant-expired", detail="yesterday")
    with pytest.raises(RefusedError) as caught:
        client.key(PATIENTS, 9)
    assert "grant-expired" in f"{caught.value.code} {caught.value}"


@pytest.mark.parametrize(
    "request_",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"op":null}',
        b'{"op":"exec"}',
        b'{"op":"__init__"}',
        b'{"op":"key"}',
        b'{"op":"key","dataset":"hospital/patients","version":"2"}',
        b'{"op":"key","dataset":"hospital/patients","version":0}',
        b'{"op":"key","dataset":"hospital/patients","version":true}',
        b'{"op":"key","dataset":"../x","version":1}',
        b'{"op":"key","dataset":1}',
        b'{"op":"generation","dataset":"hospital/report","location":"file:///a/../b"}',
        b'{"op":"generation","dataset":"hospital/report","location":1}',
        b'{"op":"commit","dataset":"hospital/report","location":"file:///a","generation":0,"digest":"ab"}',
        b'{"op":"report","code":1,"message":"x"}',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_a_malformed_request_gets_an_error_and_the_connection_lives(
    agent: Agent, session: AttestedSession, request_: bytes
) -> None:
    with connected(session) as sock:
        assert "error" in ask(sock, request_)
        assert ask(sock, b'{"op":"session"}')["job"] == "job-1"


@pytest.mark.parametrize("raw", [b"\xff\xff\xff\xff", (MAX_MESSAGE + 1).to_bytes(4, "big"), b"\0\0", b"\0\0\0\5ab"])
def test_a_broken_frame_ends_its_own_connection_only(agent: Agent, session: AttestedSession, raw: bytes) -> None:
    with connected(session) as broken, connected(session) as good:
        broken.sendall(raw)
        broken.shutdown(socket.SHUT_WR)
        assert broken.recv(1) == b""
        assert ask(good, b'{"op":"session"}')["role"] == "driver"


def test_many_clients_at_once_get_the_right_answers(agent: Agent, session: AttestedSession) -> None:
    wrong: list[Any] = []

    def work(number: int) -> None:
        dataset, key = (PATIENTS, 2) if number % 2 else (REPORT, 1)
        with connected(session) as sock:
            for _ in range(20):
                reply = ask(sock, json.dumps({"op": "key", "dataset": str(dataset), "version": None}).encode())
                if (reply["dataset"], reply["version"]) != (str(dataset), key):
                    wrong.append(reply)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_closing_ends_every_connection_and_removes_the_socket(agent: Agent, session: AttestedSession) -> None:
    with connected(session) as sock:
        ask(sock, b'{"op":"session"}')
        agent.close()
        assert sock.recv(1) == b""
    assert not session.agent_socket.exists()


def test_a_process_of_another_user_gets_nothing(
    agent: Agent, session: AttestedSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with connected(session) as sock:
        sock.settimeout(5)
        assert sock.recv(1) == b""


def test_nothing_the_agent_says_of_itself_holds_a_key(agent: Agent, session: AttestedSession) -> None:
    shown = repr(vars(agent)) + repr(vars(session)) + repr(session.current_key(PATIENTS))
    for secret in (PATIENTS_KEY, JOB_SECRET):
        for text in (repr(secret), secret.hex(), base64.b64encode(secret).decode()):
            assert text not in shown


def connected(session: AttestedSession) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(10)
    sock.connect(str(session.agent_socket))
    return sock


def ask(sock: socket.socket, request: bytes) -> dict[str, Any]:
    sock.sendall(len(request).to_bytes(4, "big") + request)
    size = int.from_bytes(exactly(sock, 4), "big")
    reply = json.loads(exactly(sock, size))
    assert isinstance(reply, dict)
    return reply


def exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        assert piece
        data += piece
    return data
