"""PyArrow and pandas in a job: column keys as the job's zone says, over the zone's own file system."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.fake_agent import FakeAgent

from casemate.data.errors import ColumnDeniedError
from casemate.data.filesystem import ZoneFileSystem
from casemate.data.parquet import ParquetKeys
from casemate.data.zones import local_uri
from casemate.errors import UsageError
from casemate.model import Access, ColumnKeys, DatasetName, Zone

pa = pytest.importorskip("pyarrow", reason="PyArrow comes with the extra spark")
pd = pytest.importorskip("pandas", reason="pandas comes with the extra spark")
ds = pytest.importorskip("pyarrow.dataset", reason="PyArrow comes with the extra spark")
pq = pytest.importorskip("pyarrow.parquet", reason="PyArrow comes with the extra spark")

PATIENTS, DIAGNOSIS = DatasetName("hospital", "patients"), DatasetName("hospital", "diagnosis")


@pytest.fixture
def vault(tmp_path: Path) -> Path:
    path = tmp_path / "vault"
    path.mkdir()
    return path


@pytest.fixture
def agent(vault: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeAgent]:
    columns = ColumnKeys.of({str(DIAGNOSIS): ["diagnosis"]})
    zone = Zone(local_uri(vault), PATIENTS, Access.READ_WRITE, columns)
    with FakeAgent(tmp_path / "a.sock", [zone]) as agent:
        agent.keys.rotate(DIAGNOSIS)
        monkeypatch.setenv("CASEMATE_AGENT_SOCKET", str(agent.socket))
        yield agent


def test_a_jobs_zone_gives_datasets_and_columns(agent: FakeAgent, vault: Path) -> None:
    table = pa.table({"age": [1, 2], "city": ["a", "b"], "diagnosis": ["CANARY", "CANARY"]})
    files, keys = ZoneFileSystem(), ParquetKeys.of_zone(str(vault))
    name = f"{vault}/part-0.parquet"
    with files.open(name, "wb") as file:
        pq.write_table(table, file, encryption_properties=keys.encryption_properties(table.schema))
    options = keys.write_options(table.schema)
    ds.write_dataset(table, f"{vault}/more", filesystem=files, format="parquet", file_options=options)
    stored = [path.read_bytes() for path in vault.rglob("*.parquet")]
    assert len(stored) == 2
    assert not any(b"CANARY" in data or b"PARE" in data for data in stored)
    with files.open(name) as file:
        assert file.read(4) == b"PARE"
        frame = pd.read_parquet(file, decryption_properties=keys.decryption_properties())
    assert list(frame["diagnosis"]) == ["CANARY", "CANARY"]
    agent.keys.deny(DIAGNOSIS)
    keys = ParquetKeys.of_zone(str(vault))
    found = ds.dataset(f"{vault}/more", filesystem=files, format=keys.dataset_format())
    assert found.to_table(columns=["age", "city"]).num_rows == 2
    with pytest.raises(ColumnDeniedError, match="column diagnosis of hospital/diagnosis"):
        found.to_table(columns=["diagnosis"])
    with files.open(name) as file, pytest.raises(ColumnDeniedError):
        keys.read_table(file, ["diagnosis"])
    assert [report.partition(":")[0] for report in agent.reports] == ["column-denied", "column-denied"]


def test_a_place_outside_the_zones_has_no_column_keys(agent: FakeAgent) -> None:
    with pytest.raises(UsageError, match="none of the job's zones"):
        ParquetKeys.of_zone("/elsewhere")
