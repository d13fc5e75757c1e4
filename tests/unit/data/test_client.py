from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.agent import MemoryAgent, serve
from tests.support.memory import MemoryKeys, MemoryRecords

from casemate.data.client import SOCKET_VARIABLE, AgentClient
from casemate.data.errors import AgentUnreachableError, KeyDeniedError, OutsideZonesError
from casemate.data.generations import Generation
from casemate.errors import RefusedError
from casemate.model import Access, DatasetName, Role, Zone

SESSION: dict[str, Any] = {
    "job": "j1",
    "role": "driver",
    "workload": "ab" * 48,
    "simulated": True,
    "strict": True,
    "plaintext_output": "deny",
    "private_prefixes": ["file:///dev/shm/tee"],
    "zones": [{"prefix": "file:///vault", "dataset": "hospital/patients", "access": "read"}],
}


@pytest.fixture
def agent(keys: MemoryKeys, records: MemoryRecords) -> MemoryAgent:
    return MemoryAgent(keys, records, dict(SESSION))


@pytest.fixture
def client(agent: MemoryAgent, tmp_path: Path) -> Iterator[AgentClient]:
    with serve(agent, tmp_path / "agent.sock") as path:
        connected = AgentClient(path)
        yield connected
        connected.close()


def framed(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


def test_the_session_says_what_the_job_may_do(client: AgentClient, dataset: DatasetName) -> None:
    session = client.session()
    assert (session.job, session.role, session.simulated, session.strict) == ("j1", Role.DRIVER, True, True)
    assert session.zones == (Zone("file:///vault", dataset, Access.READ),)
    zones = session.zone_map()
    assert zones.resolve_write("/dev/shm/tee/x") is None
    with pytest.raises(OutsideZonesError):
        zones.resolve_write("/elsewhere")


@pytest.mark.parametrize(
    "change",
    [
        {"zones": None},
        {"zones": [{}]},
        {"zones": [{"prefix": "file:///v", "dataset": "a/b", "access": "all"}]},
        {"role": "king"},
        {"private_prefixes": 1},
        {"job": ...},
    ],
    ids=repr,
)
def test_a_session_of_another_form_is_no_session(
    client: AgentClient, agent: MemoryAgent, change: dict[str, Any]
) -> None:
    agent.session = {k: v for k, v in {**SESSION, **change}.items() if v is not ...}
    with pytest.raises(AgentUnreachableError):
        client.session()


def test_whatever_weakens_must_be_said_in_so_many_words(client: AgentClient, agent: MemoryAgent) -> None:
    agent.session = {**SESSION, "strict": 0, "simulated": None, "plaintext_output": "ALLOW"}
    session = client.session()
    assert (session.strict, session.simulated, session.plaintext_output) == (True, True, "deny")


def test_a_key_version_is_asked_for_once_but_the_current_one_each_time(
    client: AgentClient, agent: MemoryAgent, dataset: DatasetName
) -> None:
    for _ in range(3):
        client.key(dataset, 1)
    assert len(agent.requests) == 1
    agent.keys.rotate(dataset)
    assert client.current_key(dataset).version == 2
    assert client.key(dataset, 1).version == 1


def test_an_error_keeps_its_code_over_the_wire(client: AgentClient, agent: MemoryAgent, dataset: DatasetName) -> None:
    with pytest.raises(KeyDeniedError, match="no key of version 9"):
        client.key(dataset, 9)
    agent.answer_raw = framed(b'{"error":{"code":"never-heard-of","message":"why"}}')
    with pytest.raises(RefusedError, match="never-heard-of: why"):
        client.session()


@pytest.mark.parametrize(
    "raw",
    [
        framed(b"no json"),
        framed(b"[]"),
        framed(b"\xff"),
        framed(b"null"),
        (2**31).to_bytes(4, "big"),
        framed(b"{}"),
        framed(b'{"dataset":"hospital/patients","version":1,"key":"AAAA"}'),
        framed(b'{"dataset":"hospital/patients","version":1,"key":null}'),
        framed(b'{"dataset":"hospital/report","version":1,"key":"%s"}' % (b"A" * 43 + b"=")),
        framed(b'{"dataset":"hospital/patients","version":2,"key":"%s"}' % (b"A" * 43 + b"=")),
        framed(b'{"dataset":"hospital/patients","version":true,"key":"%s"}' % (b"A" * 43 + b"=")),
    ],
)
def test_a_reply_of_another_form_gives_no_key(
    client: AgentClient, agent: MemoryAgent, dataset: DatasetName, raw: bytes
) -> None:
    agent.answer_raw = raw
    with pytest.raises(AgentUnreachableError) as caught:
        client.key(dataset, 1)
    assert "AAAA" not in str(caught.value)
    assert client.key(dataset, 1).version == 1, "the connection is made anew"


@pytest.mark.parametrize(
    "reply",
    [{"generation": "7", "digest": "aa"}, {"generation": 0, "digest": "aa"}, {"generation": 7, "digest": None}, {}],
    ids=repr,
)
def test_a_generation_of_another_form_is_not_taken_for_nothing_recorded(
    client: AgentClient, agent: MemoryAgent, dataset: DatasetName, reply: dict[str, Any]
) -> None:
    agent.answer_raw = framed(json.dumps(reply).encode())
    with pytest.raises(AgentUnreachableError):
        client.generation(dataset, "file:///vault")


def test_without_an_agent_nothing_is_decided(
    tmp_path: Path, dataset: DatasetName, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = AgentClient(tmp_path / "nowhere.sock")
    with pytest.raises(AgentUnreachableError, match=r"nowhere\.sock"):
        client.current_key(dataset)
    monkeypatch.delenv(SOCKET_VARIABLE, raising=False)
    with pytest.raises(AgentUnreachableError, match=SOCKET_VARIABLE):
        AgentClient.from_environment()


def test_a_report_reaches_the_agent_and_never_raises(client: AgentClient, agent: MemoryAgent, tmp_path: Path) -> None:
    client.report(OutsideZonesError("file:///x: outside"))
    assert agent.reports == [("outside-zones", "file:///x: outside")]
    AgentClient(tmp_path / "nowhere.sock").report(OutsideZonesError("x"))


def test_a_forked_child_talks_over_a_connection_of_its_own(
    client: AgentClient, agent: MemoryAgent, dataset: DatasetName
) -> None:
    client.current_key(dataset)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, str(client.generation(dataset, "file:///child").number).encode())
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert os.read(read, 10) == b"0"
    os.close(read)
    os.close(write)
    client.record(dataset, "file:///parent", Generation(1, "00" * 32))
    assert client.generation(dataset, "file:///parent").number == 1
    assert len(agent.connections) == 2


def test_an_agent_that_was_restarted_is_found_again(agent: MemoryAgent, tmp_path: Path, dataset: DatasetName) -> None:
    client = AgentClient(tmp_path / "agent.sock")
    with serve(agent, tmp_path / "agent.sock"):
        client.current_key(dataset)
    for connection in agent.connections:
        connection.close()
    with serve(agent, tmp_path / "agent.sock"):
        for _ in range(2):
            try:
                found = client.current_key(dataset)
            except AgentUnreachableError:
                continue
        assert found.version == 1
    client.close()
