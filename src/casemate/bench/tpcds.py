"""TPC-DS: the 99 queries by Spark on the same data, unprotected and protected, in turn; every answer checked.

Each query runs in all set-ups, ``repeats`` times, the order rotating, before the next query: what the machine does
meanwhile hits all set-ups alike. Before, a few queries warm the sessions up; ``warm_each`` runs each once unmeasured.
Finished queries are kept in ``progress.jsonl``, so that a run that was stopped goes on where it was.
"""

from __future__ import annotations

import json
import math
import shutil
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from casemate.bench import machine
from casemate.bench.answers import difference
from casemate.bench.errors import BenchDirectoryError
from casemate.bench.spark_daemons import Shape
from casemate.bench.spark_sessions import SETUPS, SparkSessions, open_sessions, processor_seconds
from casemate.bench.tpcds_data import DUCKDB, TABLES, Reference, make, spark_text
from casemate.demo.sandbox import Sandbox
from casemate.errors import UsageError

__all__ = ["AIMS", "Plan", "TpcdsResult", "run"]

AIMS = {"zone": 1.05, "parquet_encryption": 1.05, "full": 1.15}
"""Geometric means over plain that Casemate aims at."""

LONG_SECONDS, LONG_AIM = 2.0, 1.3  # no query that takes longer than this on plain data may be slower than that
_DATASET, _COLUMNS = "bench/tpcds", "bench/columns"
_QUERY_SECONDS = 1800.0
_WARM_UP = (3, 7, 19, 42, 52, 55, 96)  # short ones that read the big tables


Figures = dict[int, dict[str, list[float]]]
"""By query and set-up, one for each repeat."""


@dataclass(frozen=True)
class Plan:
    """What to run. ``scale`` in GB of text."""

    scale: float
    queries: tuple[int, ...]
    setups: tuple[str, ...]
    repeats: int
    local: bool = False  # no cluster: one JVM for each set-up
    warm_each: bool = False  # else a query's own compilation is in its first figure, in all set-ups alike

    def __post_init__(self) -> None:
        if unknown := [name for name in self.setups if name not in SETUPS]:
            raise UsageError(f"--setups: unknown {unknown[0]!r}, know {', '.join(SETUPS)}")
        if bad := [number for number in self.queries if not 1 <= number <= 99]:
            raise UsageError(f"--queries: {bad[0]}: TPC-DS has queries 1 to 99")
        if not (self.queries and self.setups):
            raise UsageError("need at least one query and one set-up")

    def to_json(self) -> dict[str, Any]:
        """What has to be the same for a later run to go on with an earlier one; more queries or repeats are fine."""
        return {
            "scale": self.scale,
            "setups": list(self.setups),
            "local": self.local,
            "warm_each": self.warm_each,
        }


@dataclass
class TpcdsResult:
    """``seconds[query][setup]``: one figure for each repeat, by the clock; ``processor``: seconds that all processes of
    the set-up together computed in. ``wrong``: every answer that was not DuckDB's."""

    plan: Plan
    seconds: Figures = field(default_factory=dict)
    processor: Figures = field(default_factory=dict)
    wrong: list[dict[str, Any]] = field(default_factory=list)
    conditions: dict[str, Any] = field(default_factory=dict)

    def medians(self) -> dict[int, dict[str, float]]:
        return _medians(self.seconds)

    def geomean(self) -> dict[str, float]:
        """For each protected set-up the geometric mean, over all queries, of its median over plain's."""
        return self._geomean(self.seconds)

    def _geomean(self, figures: Figures) -> dict[str, float]:
        medians = _medians(figures).values()
        ratios = {
            setup: [by_setup[setup] / by_setup["plain"] for by_setup in medians]
            for setup in self.plan.setups
            if setup != "plain" and "plain" in self.plan.setups
        }
        return {
            setup: math.exp(statistics.fmean(math.log(value) for value in values))
            for setup, values in ratios.items()
            if values
        }

    def slow(self) -> list[dict[str, Any]]:
        """Queries of over ``LONG_SECONDS`` that a set-up makes slower than ``LONG_AIM``."""
        return [
            {"query": query, "setup": setup, "ratio": round(seconds / by_setup["plain"], 3)}
            for query, by_setup in self.medians().items()
            for setup, seconds in by_setup.items()
            if by_setup.get("plain", 0) > LONG_SECONDS and seconds / by_setup["plain"] > LONG_AIM
        ]

    def to_json(self) -> dict[str, Any]:
        medians = self.medians()
        return {
            "geomean": {setup: round(value, 4) for setup, value in self.geomean().items()},
            "aims": {setup: AIMS[setup] for setup in self.plan.setups if setup in AIMS},
            "wrong_answers": self.wrong,
            "slow_queries": self.slow(),
            "total_seconds": {
                setup: round(sum(by_setup[setup] for by_setup in medians.values()), 2) for setup in self.plan.setups
            },
            "queries": {
                str(query): {setup: round(value, 4) for setup, value in by_setup.items()}
                for query, by_setup in medians.items()
            },
            "processor": {
                "geomean": {setup: round(value, 4) for setup, value in self._geomean(self.processor).items()},
                "queries": {
                    str(query): {setup: round(value, 3) for setup, value in by_setup.items()}
                    for query, by_setup in _medians(self.processor).items()
                },
            },
            "answers_checked": sum(len(values) for by in self.seconds.values() for values in by.values()),
            "warm_up": "each query once" if self.plan.warm_each else f"queries {', '.join(map(str, _WARM_UP))}",
            "scale": self.plan.scale,
            "repeats": self.plan.repeats,
            "simulated_machine": True,
            **self.conditions,
        }

    @property
    def text(self) -> str:
        """One line per set-up, for people."""
        count, totals = len(self.seconds), self.to_json()["total_seconds"]
        processor = self._geomean(self.processor)
        lines = [f"TPC-DS scale {self.plan.scale:g}, {count} queries, {len(self.wrong)} wrong answers"]
        lines += [
            f"{setup}: {value:.3f} times plain (geometric mean), aim {AIMS[setup]:.2f}; "
            f"{totals[setup]:.1f} s in all, plain {totals['plain']:.1f} s; processor time {processor[setup]:.3f}"
            for setup, value in self.geomean().items()
        ]
        lines += [f"wrong: query {w['query']}, {w['setup']}: {w['why']}" for w in self.wrong]
        lines += [f"slow: query {s['query']}, {s['setup']}: {s['ratio']:.2f} times plain" for s in self.slow()]
        return "\n".join(lines)


def _medians(figures: Figures) -> dict[int, dict[str, float]]:
    return {
        query: {setup: statistics.median(values) for setup, values in by_setup.items()}
        for query, by_setup in sorted(figures.items())
    }


def run(plan: Plan, out: Path, progress: Callable[[str], None] = lambda line: None) -> TpcdsResult:
    """Make the data below ``out``, run, and give all figures, also those of earlier runs with the same ``out``.

    Raises ``BenchUnavailableError``, ``BenchDirectoryError`` or ``BenchSessionError``."""
    out = out.absolute()
    kept = _Kept(out, plan)
    result = TpcdsResult(plan, wrong=[])
    todo = kept.restore(result)
    conditions = {"machine": machine.describe(), "duckdb": DUCKDB, "local": plan.local}
    data = out / "data"
    reference = make(data, plan.scale, progress)
    if todo:
        shape = Shape.of_this_machine(local=plan.local)
        with Sandbox(out / "home", keep=True) as sandbox:
            zones = prepare(sandbox, data, plan.setups, progress)
            with open_sessions(
                sandbox, plan.setups, zones, shape=shape, logs=out / "logs", progress=progress
            ) as sessions:
                _register(sessions, plan.setups, data)
                conditions |= {"versions": dict(sessions.versions), "shape": str(shape)}
                kept.note(conditions)
                _rounds(sessions, plan, reference, todo, kept, result, progress)
    result.conditions = {**conditions, **kept.conditions()}
    return result


def prepare(
    sandbox: Sandbox, data: Path, setups: Sequence[str], progress: Callable[[str], None]
) -> Mapping[str, Sequence[str]]:
    """Encrypt the plain tables for the protected set-ups; gives the zones of each one's job."""
    plain, zone, columns = data / "plain", data / "zone", data / "columns"
    if {"zone", "full"} & set(setups):
        with _once(sandbox, "tpcds-zone") as missing:
            if missing:
                progress("encrypting the tables for the zone")
                sandbox.casemate("key", "create", _DATASET)  # may be there from an interrupted run
                sandbox.casemate("encrypt", str(plain), str(zone), "--dataset", _DATASET, "--overwrite").check()
    if "parquet_encryption" in setups:
        with _once(sandbox, "tpcds-columns") as missing:
            if missing:
                progress("encrypting the tables by Parquet Modular Encryption (SIMULATED TEE)")
                sandbox.casemate("key", "create", _COLUMNS)
                shutil.rmtree(columns, ignore_errors=True)
                columns.mkdir()
                sandbox.casemate(
                    *("submit", "--engine", "plain", "--write", f"{_COLUMNS}={columns}"),
                    *(str(Path(__file__).with_name("tpcds_columns.py")), str(plain), str(columns), _COLUMNS),
                ).check()
    reads = ("--read", f"{_DATASET}={zone}")
    return {"zone": reads, "full": reads, "parquet_encryption": ("--read", f"{_COLUMNS}={columns}")}


@contextmanager
def _once(sandbox: Sandbox, name: str) -> Iterator[bool]:
    """Whether this is still to do; the mark is set at the end, beside the keys, without which it had to be redone."""
    mark = sandbox.home / name
    yield not mark.exists()
    mark.touch()


def _register(sessions: SparkSessions, setups: Iterable[str], data: Path) -> None:
    for setup in setups:
        directory = data / {"plain": "plain", "parquet_encryption": "columns"}.get(setup, "zone")
        sessions[setup].ask({"op": "tables", "directory": str(directory), "names": TABLES}, _QUERY_SECONDS)


def _rounds(
    sessions: SparkSessions,
    plan: Plan,
    reference: Reference,
    todo: Sequence[tuple[int, int]],
    kept: _Kept,
    result: TpcdsResult,
    progress: Callable[[str], None],
) -> None:
    progress("warming the sessions up")
    for number in sorted({query for _, query in todo}) if plan.warm_each else _WARM_UP:
        _ask(sessions, plan.setups, reference, number)
    started = time.monotonic()
    for done, (turn, number) in enumerate(todo, 1):
        entry = {"pass": turn, **_ask(sessions, _rotated(plan.setups, number + turn), reference, number)}
        kept.add(entry)
        _take(result, entry)
        left = (time.monotonic() - started) / done * (len(todo) - done)
        figures = "  ".join(f"{setup} {entry['seconds'][setup]:.2f}" for setup in plan.setups)
        state = f"{len(entry['wrong'])} WRONG" if entry["wrong"] else "right"
        progress(f"pass {turn}, query {number}: {figures} s, {state}; {done}/{len(todo)}, {left / 60:.1f} min left")


def _ask(sessions: SparkSessions, setups: Iterable[str], reference: Reference, number: int) -> dict[str, Any]:
    """One query once in every set-up: seconds by the clock and of processors, and what was wrong with the answers."""
    text, expected = spark_text(reference.queries[number]), reference.answers[number]
    seconds, processor, wrong = {}, {}, []
    for setup in setups:
        before = processor_seconds()
        reply = sessions[setup].ask({"op": "sql", "text": text}, _QUERY_SECONDS)
        processor[setup] = processor_seconds() - before
        seconds[setup] = reply["seconds"]
        sessions[setup].ask({"op": "tidy"}, _QUERY_SECONDS)  # scratch space lies in memory
        if (why := difference(expected, reply["rows"])) is not None:
            wrong.append({"query": number, "setup": setup, "why": why})
    return {"query": number, "seconds": seconds, "processor": processor, "wrong": wrong}


def _take(result: TpcdsResult, entry: Mapping[str, Any]) -> None:
    for figures, name in ((result.seconds, "seconds"), (result.processor, "processor")):
        by_setup = figures.setdefault(entry["query"], {setup: [] for setup in result.plan.setups})
        for setup, value in entry[name].items():
            by_setup[setup].append(value)
    known = {(wrong["query"], wrong["setup"]) for wrong in result.wrong}
    result.wrong += [wrong for wrong in entry["wrong"] if (wrong["query"], wrong["setup"]) not in known]


def _rotated(setups: Sequence[str], by: int) -> list[str]:
    return [setups[(index + by) % len(setups)] for index in range(len(setups))]


class _Kept:
    """What an earlier run with the same ``--out`` measured: one line of JSON for each query of each pass."""

    def __init__(self, out: Path, plan: Plan) -> None:
        self._file, self._conditions, self._plan = out / "progress.jsonl", out / "conditions.json", plan
        head = out / "plan.json"
        if head.exists():
            if (found := json.loads(head.read_text())) != plan.to_json():
                raise BenchDirectoryError(f"{out} holds a run with {found}, not {plan.to_json()}")
        elif out.exists() and any(out.iterdir()):
            raise BenchDirectoryError(f"{out} is not empty, and holds no run of this benchmark")
        else:
            out.mkdir(parents=True, exist_ok=True)
            head.write_text(json.dumps(plan.to_json()) + "\n")

    def restore(self, result: TpcdsResult) -> list[tuple[int, int]]:
        """Put what is kept into ``result``; gives the passes and queries that are still to run, pass by pass."""
        lines = self._file.read_text().splitlines() if self._file.exists() else []
        found = set()
        for line in lines:
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # the run was killed while it wrote this one
            one = entry["pass"], entry["query"]
            if one[0] <= self._plan.repeats and one[1] in self._plan.queries and one not in found:
                found.add(one)
                _take(result, entry)
        every = ((turn, query) for turn in range(1, self._plan.repeats + 1) for query in self._plan.queries)
        return [one for one in every if one not in found]

    def add(self, entry: Mapping[str, Any]) -> None:
        torn = self._file.exists() and not self._file.read_bytes().endswith(b"\n")
        with self._file.open("a") as file:
            file.write("\n" * torn + json.dumps(entry) + "\n")

    def note(self, conditions: Mapping[str, Any]) -> None:
        self._conditions.write_text(json.dumps(conditions) + "\n")

    def conditions(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._conditions.read_text()) if self._conditions.exists() else {}
        return found
