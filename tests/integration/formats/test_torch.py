"""PyTorch data sets over a zone: every row once, whatever the number of workers, and never a damaged one."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.fake_agent import FakeAgent

from casemate.data.dataset import encrypt_tree
from casemate.data.errors import FileTamperedError, SourceMissingError, StorageFailedError
from casemate.data.session import ZoneSession
from casemate.model import DatasetName

torch = pytest.importorskip("torch", reason="PyTorch comes with the extra torch")

from torch.utils.data import DataLoader  # noqa: E402

from casemate.data import torch_datasets  # noqa: E402
from casemate.data.torch_datasets import ZoneLines, ZoneRecords, ZoneRows, ZoneSamples  # noqa: E402

PATIENTS = DatasetName.parse("hospital/patients")
RECORD = 16


@pytest.fixture
def zone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, FakeAgent]]:
    path = tmp_path / "zone"
    with FakeAgent(tmp_path / "a.sock", [FakeAgent.zone(path, str(PATIENTS), "read")]) as agent:
        monkeypatch.setenv("CASEMATE_AGENT_SOCKET", str(agent.socket))
        yield path, agent
        ZoneSession.from_environment().close()


def stored(zone: tuple[Path, FakeAgent], files: dict[str, bytes]) -> Path:
    path, agent = zone
    plain = path.parent / "plain"
    for name, content in files.items():
        (plain / name).parent.mkdir(parents=True, exist_ok=True)
        (plain / name).write_bytes(content)
    encrypt_tree(plain, path, dataset=PATIENTS, keys=agent.keys, records=agent.records)
    return path


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_every_line_comes_once_from_files_cut_anywhere(
    zone: Any, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr(
        torch_datasets, "_RANGE", 1000
    )  # so that ranges end inside lines, at their ends, and before them
    lines = [f"{i}," + "x" * random.Random(i).randrange(200) for i in range(2000)]
    files = {
        "a.csv": "\n".join(["header", *lines[:700]]).encode() + b"\n",
        "b.csv": "\r\n".join(["header", *lines[700:]]).encode(),
        "empty.csv": b"",
        "_hidden.csv": b"not,this\n",
    }
    found = list(DataLoader(ZoneLines(str(stored(zone, files)), skip_first=True), batch_size=None, num_workers=workers))
    assert sorted(found) == sorted(lines)
    if not workers:
        assert found == lines


@pytest.mark.parametrize(("workers", "start"), [(0, None), (2, "fork"), (2, "spawn")])
def test_records_are_read_at_random_in_batches_by_workers(zone: Any, workers: int, start: str | None) -> None:
    numbers = torch.arange(20_000, dtype=torch.int64)
    raw = torch.stack([numbers, numbers * 7], dim=1).numpy().tobytes()
    cut = 7000 * RECORD
    path = stored(zone, {"0.bin": raw[:cut], "1.bin": raw[cut:]})
    records = ZoneRecords(str(path), RECORD, as_pair)
    assert len(records) == 20_000
    assert records[-1].tolist() == [19_999, 19_999 * 7]
    with pytest.raises(IndexError):
        records[20_000]
    loader = DataLoader(records, batch_size=500, shuffle=True, num_workers=workers, multiprocessing_context=start)
    found = torch.cat(list(loader))
    assert sorted(found[:, 0].tolist()) == list(range(20_000))
    assert bool((found[:, 1] == found[:, 0] * 7).all())


def as_pair(raw: bytes) -> Any:
    return torch.frombuffer(bytearray(raw), dtype=torch.int64)


def test_each_file_is_a_sample_with_its_path_for_a_label(zone: Any) -> None:
    files = {f"{kind}/{i}.png": f"{kind}{i}".encode() for kind in ("cat", "dog") for i in range(5)}
    samples = ZoneSamples(str(stored(zone, files)), bytes.decode, suffix=".png")
    loaded = [text for batch in DataLoader(samples, batch_size=3, num_workers=2) for text in batch]
    assert loaded == [f"{kind}{i}" for kind in ("cat", "dog") for i in range(5)]
    assert [path.split("/")[-2] for path in samples.paths] == ["cat"] * 5 + ["dog"] * 5


def test_rows_of_parquet_become_tensors_and_row_groups_are_shared_among_workers(zone: Any, tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pa.table({"id": range(10_000), "weight": [i / 2 for i in range(10_000)], "name": ["n"] * 10_000})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=900)
    path = stored(zone, {"t.parquet": (tmp_path / "t.parquet").read_bytes()})
    batches = list(DataLoader(ZoneRows(str(path), columns=["id", "weight"]), batch_size=None, num_workers=2))
    ids = torch.cat([batch["id"] for batch in batches])
    assert sorted(ids.tolist()) == list(range(10_000))
    assert float(torch.cat([batch["weight"] for batch in batches]).sum()) == sum(range(10_000)) / 2


def test_damage_reaches_the_training_loop_as_an_error(zone: Any) -> None:
    path = stored(zone, {"0.bin": bytes(RECORD * 50_000)})
    victim = path / "0.bin"
    data = bytearray(victim.read_bytes())
    data[300_000] ^= 1
    victim.write_bytes(data)
    records = ZoneRecords(str(path), RECORD)
    assert records[0] == bytes(RECORD)
    with pytest.raises(FileTamperedError, match=r"0\.bin"):
        list(DataLoader(records, batch_size=1000))
    with pytest.raises(Exception, match="0.bin"):  # noqa: RUF043 - a worker's error comes wrapped by PyTorch
        list(DataLoader(records, batch_size=1000, num_workers=1))


def test_what_is_no_data_set_is_named(zone: Any) -> None:
    path = stored(zone, {"0.bin": bytes(17)})
    with pytest.raises(StorageFailedError, match="17 bytes"):
        ZoneRecords(str(path), RECORD)
    with pytest.raises(SourceMissingError, match=r"\.png"):
        ZoneSamples(str(path), suffix=".png")
