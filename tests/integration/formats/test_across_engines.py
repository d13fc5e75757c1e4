"""Every engine reads what every other has written in a zone, in every format that both know; nothing is in clear."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.fake_agent import FakeAgent
from tests.support.formats import CELLS, ENGINES, FORMATS, ROWS, Engines
from tests.support.zone_spark import zone_spark

from casemate.data.filesystem import ZoneFileSystem

pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def zone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("formats")
    for area in ("zone", "private"):
        (base / area).mkdir()
    return base / "zone"


@pytest.fixture(scope="module")
def engines(zone: Path) -> Iterator[Engines]:
    private = zone.parent / "private"
    zones = [FakeAgent.zone(zone, "hospital/patients")]
    with (
        FakeAgent(zone.parent / "agent.sock", zones, private_prefixes=[f"file://{private}"]) as agent,
        zone_spark(agent, private, {"spark.sql.warehouse.dir": f"file://{zone}/warehouse"}) as spark,
    ):
        yield Engines(ZoneFileSystem(), spark)


@pytest.mark.parametrize("kind", FORMATS)
def test_each_reads_what_each_has_written(engines: Engines, zone: Path, kind: str) -> None:
    written = {}
    for engine in ENGINES:
        cell = CELLS.get((engine, kind))
        if cell is not None and cell.write is not None:
            written[engine] = f"{zone}/{kind}-by-{engine}"
            cell.write(engines, written[engine])
    assert written
    wrong = []
    for reader in ENGINES:
        cell = CELLS.get((reader, kind))
        if cell is None or cell.read is None:
            continue
        for writer, path in written.items():
            try:
                found: object = cell.read(engines, path)
            except Exception as exc:
                found = exc
            if found != ROWS:
                wrong.append(f"{reader} reads {kind} of {writer}: {found}")
    assert wrong == []
    for stored in (path for path in zone.rglob("*") if path.is_file() and "_casemate" not in path.parts):
        assert stored.read_bytes()[:4] == b"CSMT", stored
