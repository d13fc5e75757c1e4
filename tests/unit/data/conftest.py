from __future__ import annotations

import pytest
from tests.support.memory import MemoryKeys, MemoryRecords

from casemate.model import DatasetName

PATIENTS = "hospital/patients"


@pytest.fixture
def dataset() -> DatasetName:
    return DatasetName.parse(PATIENTS)


@pytest.fixture
def keys() -> MemoryKeys:
    return MemoryKeys(PATIENTS, "hospital/report")


@pytest.fixture
def records() -> MemoryRecords:
    return MemoryRecords()
