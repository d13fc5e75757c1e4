"""Scan and write each format by Spark, on plain storage and in an encrypted zone in turn; compare splits and blocks.

One big file of each format: that it feeds as many tasks, cut at the same places, as its plain twin is compared and not
just timed.
"""

from __future__ import annotations

import math
import shutil
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from casemate.bench import machine, scan_data
from casemate.bench.errors import BenchDirectoryError
from casemate.bench.scan_work import FORMATS
from casemate.bench.spark_daemons import Shape
from casemate.bench.spark_sessions import SparkSessions, open_sessions, processor_seconds
from casemate.demo.sandbox import Sandbox
from casemate.errors import UsageError

__all__ = ["Plan", "ScanResult", "run"]

_DATASET, _WRITTEN = "bench/scan", "bench/written"
_SIDES = ("plain", "zone")
_SECONDS = 1800.0
_ROW_SIZE = 80  # bytes of a row that is made up to be written, about
_SHOWN_SPLITS = 3


@dataclass(frozen=True)
class Plan:
    """``size_bytes`` of each file to scan; a quarter of it is written."""

    size_bytes: int
    formats: tuple[str, ...]
    repeats: int

    def __post_init__(self) -> None:
        if unknown := [name for name in self.formats if name not in FORMATS]:
            raise UsageError(f"--formats: unknown {unknown[0]!r}, know {', '.join(FORMATS)}")


@dataclass
class ScanResult:
    """Per format: seconds of each side and run by the clock, medians of processor time, tasks, and whether splits and
    blocks are the same."""

    plan: Plan
    formats: dict[str, dict[str, Any]] = field(default_factory=dict)
    conditions: dict[str, Any] = field(default_factory=dict)

    @property
    def same_layout(self) -> bool:
        """Whether every format has the same rows, tasks, splits and blocks on both sides."""
        names = ("same_rows", "same_tasks", "same_splits", "same_blocks")
        return all(entry[name] for entry in self.formats.values() for name in names)

    def to_json(self) -> dict[str, Any]:
        return {
            "same_layout": self.same_layout,
            "geomean": {work: round(self._geomean(work), 4) for work in ("scan", "write")},
            "formats": self.formats,
            "size_bytes": self.plan.size_bytes,
            "repeats": self.plan.repeats,
            "simulated_machine": True,
            **self.conditions,
        }

    def _geomean(self, work: str) -> float:
        return math.exp(statistics.fmean(math.log(entry[work]["ratio"]) for entry in self.formats.values()))

    @property
    def text(self) -> str:
        """One line per format, for people."""
        lines = []
        for kind, entry in self.formats.items():
            scan, write, tasks = entry["scan"], entry["write"], entry["tasks"]
            same = all(entry[name] for name in ("same_rows", "same_tasks", "same_splits", "same_blocks"))
            lines.append(
                f"{kind}: scan {scan['plain']:.2f} s plain, {scan['zone']:.2f} s zone ({scan['ratio']:.2f}); "
                f"write {write['plain']:.2f} s plain, {write['zone']:.2f} s zone ({write['ratio']:.2f}); "
                f"tasks {tasks['plain']} and {tasks['zone']}, splits and blocks {'the same' if same else 'DIFFER'}"
            )
        return "\n".join(lines)


def run(plan: Plan, out: Path, progress: Callable[[str], None] = lambda line: None) -> ScanResult:
    """Make the files below ``out``, scan and write; raises ``BenchDirectoryError`` or ``BenchSessionError``."""
    out = out.absolute()
    mark = out / "scan-size"
    if out.exists() and any(out.iterdir()) and not (mark.exists() and mark.read_text() == str(plan.size_bytes)):
        raise BenchDirectoryError(
            f"{out} is not empty, and holds no files of {plan.size_bytes} bytes of this benchmark"
        )
    out.mkdir(parents=True, exist_ok=True)
    mark.write_text(str(plan.size_bytes))
    result = ScanResult(plan, conditions={"machine": machine.describe()})
    scan_data.make(out / "plain", plan.size_bytes, progress)
    shape = Shape.of_this_machine(local=True)
    with Sandbox(out / "home") as sandbox:
        zones = _prepare(sandbox, out, progress)
        with open_sessions(sandbox, _SIDES, zones, shape=shape, logs=out / "logs", progress=progress) as sessions:
            result.conditions |= {"versions": dict(sessions.versions), "cores_of_each_side": shape.cores}
            for kind in plan.formats:
                result.formats[kind] = entry = _measure(sessions, plan, kind, out, shape)
                progress(f"{kind}: scan {entry['scan']['ratio']:.2f}, write {entry['write']['ratio']:.2f} times plain")
    return result


def _prepare(sandbox: Sandbox, out: Path, progress: Callable[[str], None]) -> dict[str, Sequence[str]]:
    progress("encrypting the files")
    for dataset in (_DATASET, _WRITTEN):
        sandbox.casemate("key", "create", dataset).check()
    shutil.rmtree(out / "zone", ignore_errors=True)
    sandbox.casemate("encrypt", str(out / "plain"), str(out / "zone"), "--dataset", _DATASET).check()
    for side in _SIDES:
        shutil.rmtree(out / "written" / side, ignore_errors=True)
        (out / "written" / side).mkdir(parents=True)
    written = out / "written" / "zone"
    reads = ("--read", f"{_DATASET}={out / 'zone'}", "--read", f"{_WRITTEN}={written}")
    return {"zone": (*reads, "--write", f"{_WRITTEN}={written}")}


def _measure(sessions: SparkSessions, plan: Plan, kind: str, out: Path, shape: Shape) -> dict[str, Any]:
    rows, partitions = max(1, plan.size_bytes // 4 // _ROW_SIZE), 2 * shape.cores
    requests: dict[str, Callable[[str], dict[str, Any]]] = {
        "scan": lambda side: {"op": "scan", "kind": kind, "path": f"file://{out / side / kind}"},
        "write": lambda side: {
            "op": "write",
            "kind": kind,
            "path": f"file://{out / 'written' / side / kind}",
            "rows": rows,
            "partitions": partitions,
        },
    }
    entry: dict[str, Any] = {}
    tasks: dict[str, int] = {}
    for work, request in requests.items():
        seconds: dict[str, list[float]] = {side: [] for side in _SIDES}
        processor: dict[str, list[float]] = {side: [] for side in _SIDES}
        for turn in range(plan.repeats + 1):
            for side in _SIDES if turn % 2 else reversed(_SIDES):
                before = processor_seconds()
                reply = sessions[side].ask(request(side), _SECONDS)
                spent = processor_seconds() - before
                if work == "scan":
                    tasks[side] = reply["tasks"]
                if turn:  # the first one is to warm up
                    seconds[side].append(reply["seconds"])
                    processor[side].append(spent)
        medians = {side: round(statistics.median(values), 4) for side, values in seconds.items()}
        entry[work] = {**medians, "ratio": round(medians["zone"] / medians["plain"], 4), "runs": seconds}
        entry[work]["processor"] = {side: round(statistics.median(values), 3) for side, values in processor.items()}
    for side in _SIDES:
        shutil.rmtree(out / "written" / side / kind, ignore_errors=True)
    seen = {
        side: sessions[side].ask({"op": "layout", "kind": kind, "path": f"file://{out / side / kind}"}, _SECONDS)
        for side in _SIDES
    }
    return {
        **entry,
        "tasks": tasks,
        "rows": seen["plain"]["rows"],
        "same_rows": seen["plain"]["rows"] == seen["zone"]["rows"],
        "same_tasks": tasks["plain"] == tasks["zone"],
        "same_splits": seen["plain"]["splits"] == seen["zone"]["splits"],
        "same_blocks": seen["plain"]["blocks"] == seen["zone"]["blocks"],
        "splits": len(seen["plain"]["splits"]),
        "first_splits": {side: seen[side]["splits"][:_SHOWN_SPLITS] for side in _SIDES},
        "blocks": {side: seen[side]["blocks"] for side in _SIDES},
    }
