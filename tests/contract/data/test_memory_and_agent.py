from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.contract.data.contracts import KNOWN, OTHER, GenerationRecordsContract, KeyProviderContract
from tests.support.agent import MemoryAgent, serve
from tests.support.memory import MemoryKeys, MemoryRecords

from casemate.data.client import AgentClient
from casemate.data.keys import RememberedKeys


class TestMemoryKeys(KeyProviderContract):
    @pytest.fixture
    def keys(self) -> MemoryKeys:
        return MemoryKeys(str(KNOWN), str(OTHER))


class TestRememberedKeys(KeyProviderContract):
    @pytest.fixture
    def keys(self) -> RememberedKeys:
        return RememberedKeys(MemoryKeys(str(KNOWN), str(OTHER)))


class TestMemoryRecords(GenerationRecordsContract):
    @pytest.fixture
    def records(self) -> MemoryRecords:
        return MemoryRecords()


@pytest.fixture
def client(tmp_path: Path) -> Iterator[AgentClient]:
    agent = MemoryAgent(MemoryKeys(str(KNOWN), str(OTHER)), MemoryRecords(), {})
    with serve(agent, tmp_path / "agent.sock") as path:
        connected = AgentClient(path)
        yield connected
        connected.close()


class TestAgentClientKeys(KeyProviderContract):
    @pytest.fixture
    def keys(self, client: AgentClient) -> AgentClient:
        return client


class TestAgentClientRecords(GenerationRecordsContract):
    @pytest.fixture
    def records(self, client: AgentClient) -> AgentClient:
        return client
