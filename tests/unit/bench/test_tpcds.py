"""The judge of answers, the arithmetic and the memory of ``bench tpcds``, without Spark."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from casemate.bench import tpcds
from casemate.bench.answers import difference
from casemate.bench.errors import BenchDirectoryError
from casemate.bench.plots import plot_scan, plot_tpcds
from casemate.bench.spark_sessions import SparkSessions
from casemate.bench.tpcds import Plan, TpcdsResult
from casemate.bench.tpcds_data import Reference, spark_text
from casemate.cli.bench_spark import numbers, size_bytes
from casemate.errors import UsageError

ROWS = [["a", 1, 2.5, None], ["b", 2, 0.333333333, "2001-01-01"], ["b", 2, 7.25, None]]


def changed(row: int, column: int, value: Any) -> list[list[Any]]:
    return [
        [value if (r, c) == (row, column) else cell for c, cell in enumerate(cells)] for r, cells in enumerate(ROWS)
    ]


def test_the_same_rows_in_another_order_and_within_rounding_are_the_same_answer() -> None:
    assert difference(ROWS, list(reversed(ROWS))) is None
    assert difference(ROWS, changed(1, 2, 0.333333)) is None
    assert difference([], []) is None


@pytest.mark.parametrize(
    ("row", "column", "value"),
    [(0, 0, "A"), (0, 1, 2), (0, 2, 2.51), (0, 2, None), (0, 3, 0), (0, 3, ""), (1, 3, "2001-01-02"), (2, 2, 7.2501)],
)
def test_any_other_value_is_another_answer(row: int, column: int, value: Any) -> None:
    assert "no row like" in (difference(ROWS, changed(row, column, value)) or "")


def test_a_row_more_less_or_twice_is_another_answer() -> None:
    assert difference(ROWS, ROWS[:2]) == "2 rows, expected 3"
    assert difference(ROWS, [*ROWS, ROWS[0]]) == "4 rows, expected 3"
    assert difference(ROWS, [ROWS[0], ROWS[1], ROWS[1]]) is not None
    assert difference(ROWS, [row[:3] for row in ROWS]) is not None


def test_rounding_that_sorts_rows_apart_does_not_matter() -> None:
    assert difference([[1.0000001, "x"], [1.0, "x"]], [[1.0, "x"], [1.0000002, "x"]]) is None


def test_spark_reads_quoted_names() -> None:
    assert spark_text('SELECT a AS "30 days" FROM t\nLIMIT 100;\n') == "SELECT a AS `30 days` FROM t\nLIMIT 100"


def test_lists_of_queries_and_sizes_are_read_or_refused() -> None:
    assert numbers("7,1-3,2") == (1, 2, 3, 7)
    assert size_bytes("2g") == 2 * 2**30
    for text in ("a", "1-b", "--"):
        with pytest.raises(UsageError):
            numbers(text)
    for text in ("", "0", "1t", "-5m", "1.5g"):
        with pytest.raises(UsageError):
            size_bytes(text)


@pytest.mark.parametrize("queries", [(), (0,), (100,)])
def test_queries_that_tpcds_does_not_have_are_refused(queries: tuple[int, ...]) -> None:
    with pytest.raises(UsageError):
        Plan(1.0, queries, ("plain",), 1)


def result() -> TpcdsResult:
    seconds = {
        1: {"plain": [1.0, 9.0, 1.0], "zone": [2.0, 2.0, 0.1], "full": [4.0, 4.0, 4.0]},
        2: {"plain": [4.0, 4.0, 4.0], "zone": [2.0, 2.0, 2.0], "full": [6.0, 6.0, 6.0]},
    }
    plan = Plan(1.0, (1, 2), ("plain", "zone", "full"), 3)
    return TpcdsResult(plan, seconds, seconds, conditions={"machine": {"cores": 2, "processor": "test"}})


def test_figures_are_medians_and_their_geometric_means_over_plain() -> None:
    value = result().to_json()
    assert value["queries"] == {
        "1": {"plain": 1.0, "zone": 2.0, "full": 4.0},
        "2": {"plain": 4.0, "zone": 2.0, "full": 6.0},
    }
    assert value["geomean"] == {"zone": 1.0, "full": pytest.approx(6**0.5, abs=1e-4)}
    assert value["slow_queries"] == [{"query": 2, "setup": "full", "ratio": 1.5}]  # query 1 is a short one
    assert value["total_seconds"] == {"plain": 5.0, "zone": 4.0, "full": 10.0}
    assert value["wrong_answers"] == []
    assert value["processor"] == {"geomean": value["geomean"], "queries": value["queries"]}


def test_the_pictures_are_drawn_and_the_same_figures_draw_the_same_file(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra `bench` is not installed")
    first = [path.read_bytes() for path in plot_tpcds(result().to_json(), tmp_path)]
    assert first[0].startswith(b"<?xml")
    assert first[1].startswith(b"\x89PNG")
    assert plot_tpcds(result().to_json(), tmp_path)[0].read_bytes() == first[0]
    work = {"plain": 1.0, "zone": 1.1, "ratio": 1.1}
    scanned = {"formats": {"csv": {"scan": work, "write": work}}, "size_bytes": 1, "geomean": {"scan": 1, "write": 1}}
    assert all(path.stat().st_size > 1000 for path in plot_scan(scanned, tmp_path))


class Session:
    """Answers as DuckDB did, apart from what ``spoiled`` says; is killed before ``limit`` queries are done."""

    def __init__(self, setup: str, asked: list[tuple[str, str]], spoiled: Mapping[str, str], limit: int) -> None:
        self._setup, self._asked, self._spoiled, self._limit = setup, asked, spoiled, limit

    def ask(self, request: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        if request["op"] == "tables":
            return {"tables": len(request["names"])}
        if request["op"] == "tidy":
            return {}
        if len(self._asked) >= self._limit:
            raise KeyboardInterrupt
        self._asked.append((self._setup, request["text"]))
        rows: list[list[Any]] = [[request["text"], 1]]
        if self._spoiled.get(self._setup) == request["text"]:
            rows = [[request["text"], 2]]
        return {"seconds": 1.0 if self._setup == "plain" else 1.1, "rows": rows}


Runner = Callable[..., TpcdsResult]


@pytest.fixture
def asked() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[tuple[str, str]]) -> Runner:
    reference = Reference({n: f"q{n};" for n in range(1, 100)}, {n: [[f"q{n}", 1]] for n in range(1, 100)})

    def run(
        *, spoiled: Mapping[str, str] | None = None, limit: int = 10**6, queries: Sequence[int] = (1, 2, 3), **more: Any
    ) -> TpcdsResult:
        @contextmanager
        def sessions(_: Any, setups: Sequence[str], *args: Any, **kwargs: Any) -> Iterator[SparkSessions]:
            made: Any = {setup: Session(setup, asked, spoiled or {}, limit) for setup in setups}
            yield SparkSessions(made, {"spark": "4", "java": "17"})

        @contextmanager
        def sandbox(home: Path, keep: bool) -> Iterator[None]:
            yield

        monkeypatch.setattr(tpcds, "processor_seconds", iter(range(10**6)).__next__)
        monkeypatch.setattr(tpcds, "_WARM_UP", ())
        monkeypatch.setattr(tpcds, "make", lambda *_: reference)
        monkeypatch.setattr(tpcds, "prepare", lambda *_: {})
        monkeypatch.setattr(tpcds, "Sandbox", sandbox)
        monkeypatch.setattr(tpcds, "open_sessions", sessions)
        setups = ("plain", "zone", "full")
        plan = Plan(more.pop("scale", 1.0), tuple(queries), setups, more.pop("repeats", 1), warm_each=True)
        return tpcds.run(plan, tmp_path / "out")

    return run


def test_every_query_runs_in_all_set_ups_in_turn_the_order_rotating(
    runner: Runner, asked: list[tuple[str, str]]
) -> None:
    runner(queries=(3,), repeats=2)
    order = [setup for setup, _ in asked]
    assert [order[i : i + 3] for i in (0, 3, 6)] == [
        ["plain", "zone", "full"],
        ["zone", "full", "plain"],
        ["full", "plain", "zone"],
    ]


def test_a_spoiled_answer_is_listed_with_its_query_and_set_up(runner: Runner) -> None:
    value = runner(spoiled={"full": "q2"}).to_json()
    assert [(entry["query"], entry["setup"]) for entry in value["wrong_answers"]] == [(2, "full")]
    assert "no row like ['q2', 1]; instead ['q2', 2]" in value["wrong_answers"][0]["why"]
    assert value["geomean"] == {"zone": 1.1, "full": 1.1}


def test_a_killed_run_goes_on_and_keeps_what_it_found(runner: Runner, asked: list[tuple[str, str]]) -> None:
    with pytest.raises(KeyboardInterrupt):
        runner(spoiled={"zone": "q1"}, limit=9 + 3 + 2)  # warm, and dies in the middle of query 2
    done = len(asked)
    value = runner().to_json()
    assert {text for _, text in asked[done:]} == {"q2", "q3"}
    assert sorted(value["queries"]) == ["1", "2", "3"]
    assert [entry["query"] for entry in value["wrong_answers"]] == [1]
    assert runner().to_json()["queries"] == value["queries"]  # nothing is left to run


def test_a_line_that_was_cut_off_is_run_again(runner: Runner, tmp_path: Path, asked: list[tuple[str, str]]) -> None:
    runner()
    kept = tmp_path / "out" / "progress.jsonl"
    kept.write_bytes(kept.read_bytes()[:-20])
    asked.clear()
    assert sorted(runner().seconds) == [1, 2, 3]
    assert {text for _, text in asked} == {"q3"}
    asked.clear()
    assert sorted(runner().seconds) == [1, 2, 3]
    assert asked == []


def test_more_queries_or_repeats_go_on_and_other_data_does_not(runner: Runner, asked: list[tuple[str, str]]) -> None:
    runner()
    asked.clear()
    runner(queries=(1, 2, 3, 4))
    assert {text for _, text in asked} == {"q4"}
    assert len(runner(queries=(1,), repeats=2).seconds[1]["zone"]) == 2
    with pytest.raises(BenchDirectoryError, match=r"holds a run with .*'scale': 1\.0"):
        runner(scale=2.0)


def test_a_directory_of_something_else_is_left_alone(runner: Runner, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(BenchDirectoryError):
        runner()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_the_reference_is_kept_as_json(tmp_path: Path) -> None:
    stored = {"queries": {"1": "q"}, "answers": {"1": [[None, 1.5]]}}
    (tmp_path / "reference.json").write_text(json.dumps(stored))
    assert Reference.load(tmp_path) == Reference({1: "q"}, {1: [[None, 1.5]]})
