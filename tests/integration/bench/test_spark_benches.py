"""The Spark benches end to end, small: every set-up really runs, and what is wrong is seen."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from casemate.bench import tpcds_data
from casemate.bench.spark_sessions import SETUPS
from casemate.bench.tpcds import Plan
from casemate.cli.main import invoke

pytestmark = [
    pytest.mark.spark,
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("duckdb_extension_tpcds") is None, reason="the extra `bench` is not installed"
    ),
]


def load(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text())
    return value


@pytest.mark.timeout(900)
def test_right_answers_in_every_set_up_and_a_spoiled_one_is_named(tmp_path: Path) -> None:
    out = tmp_path / "out"
    tpcds_data.make(out / "data", 0.01)
    (out / "plan.json").write_text(json.dumps(Plan(0.01, (1,), SETUPS, 1, local=True, warm_each=True).to_json()))
    stored = load(out / "data" / "reference.json")
    stored["answers"]["96"][0][0] += 1
    (out / "data" / "reference.json").write_text(json.dumps(stored))
    options = ["--scale", "0.01", "--queries", "42,52,96", "--local", "--warm-each", "--out", str(out)]
    status = invoke(["bench", "tpcds", *options])
    value = load(out / "tpcds.json")
    assert status == 1
    assert sorted((wrong["query"], wrong["setup"]) for wrong in value["wrong_answers"]) == sorted(
        (96, setup) for setup in SETUPS
    )
    assert set(value["queries"]) == {"42", "52", "96"}
    assert all(set(by_setup) == set(SETUPS) for by_setup in value["queries"].values())
    assert set(value["geomean"]) == {"zone", "parquet_encryption", "full"}
    assert all(0.1 < ratio < 10 for ratio in value["geomean"].values())
    for path in sorted((out / "data" / "zone").rglob("*.parquet")) + sorted((out / "data" / "columns").rglob("*")):
        assert path.is_dir() or not path.read_bytes().startswith(b"PAR1"), path
    assert not list(Path("/dev/shm").glob("bench-*"))


@pytest.mark.timeout(600)
def test_every_format_is_cut_at_the_same_places_as_on_plain_storage(tmp_path: Path) -> None:
    out = tmp_path / "scan"
    assert invoke(["bench", "scan", "--size", "4m", "--repeats", "1", "--out", str(out)]) == 0
    value = load(out / "scan.json")
    assert list(value["formats"]) == ["csv", "json", "text", "parquet", "orc"]
    for kind, entry in value["formats"].items():
        assert entry["tasks"]["plain"] == entry["tasks"]["zone"] >= 1, kind
        assert entry["same_rows"], kind
        assert entry["same_splits"], kind
        assert entry["same_blocks"], kind
        assert entry["rows"] > 10_000, kind
