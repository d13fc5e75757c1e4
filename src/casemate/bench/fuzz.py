"""Mutate good evidence and feed it to every parser and verifier: only errors of ours, nothing spoiled accepted, soon.

Mutations flip, cut, insert, double and overwrite bytes, put huge numbers where lengths are, and bend JSON by its
structure. An answer that says exactly what the good evidence says is no acceptance of anything else: it is counted as
``same`` (PEM text around a certificate, zeros after a quote).
"""

from __future__ import annotations

import random
import resource
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from casemate.bench.fuzz_targets import Target, targets
from casemate.bench.mutations import mutate
from casemate.errors import CasemateError, UsageError

__all__ = ["FuzzResult", "TargetResult", "run"]

HANG_SECONDS = 5.0  # of processor time for one input; more counts as a hang
MEMORY_LIMIT_BYTES = 512 * 1024 * 1024  # growth of the process over the whole run
_KEPT_FINDINGS = 20


class _Hang(BaseException):
    """Raised by the timer into whatever does not come to an end."""


@dataclass
class TargetResult:
    """What one parser or verifier did with its mutated inputs."""

    mutations: int = 0
    refused: int = 0
    same: int = 0
    parsed: int = 0  # a parser gave a value: it promises form, not truth
    accepted: int = 0
    crashed: int = 0
    hung: int = 0
    slowest_ms: float = 0.0

    @property
    def good(self) -> bool:
        return not (self.accepted or self.crashed or self.hung)


@dataclass
class FuzzResult:
    """All targets; ``findings`` are the first inputs that went wrong: target, seed, what happened."""

    seed: int
    targets: dict[str, TargetResult] = field(default_factory=dict)
    findings: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    memory_growth_bytes: int = 0

    @property
    def good(self) -> bool:
        in_bounds = self.memory_growth_bytes <= MEMORY_LIMIT_BYTES
        return in_bounds and all(result.good for result in self.targets.values())

    def to_json(self) -> dict[str, Any]:
        results = self.targets.values()
        return {
            "mutations": sum(r.mutations for r in results),
            "accepted": sum(r.accepted for r in results),
            "foreign_exceptions": sum(r.crashed for r in results),
            "hangs": sum(r.hung for r in results),
            "slowest_ms": round(max((r.slowest_ms for r in results), default=0.0), 1),
            "seconds": round(self.seconds, 1),
            "memory_growth_bytes": self.memory_growth_bytes,
            "memory_limit_bytes": MEMORY_LIMIT_BYTES,
            "good": self.good,
            "seed": self.seed,
            "targets": {
                name: {**vars(result), "slowest_ms": round(result.slowest_ms, 1)}
                for name, result in self.targets.items()
            },
            "findings": self.findings,
        }


def run(
    *,
    mutations: int = 100_000,
    seed: int = 0,
    only: str = "",
    progress: Callable[[str], None] = lambda line: None,
) -> FuzzResult:
    """Spread ``mutations`` evenly over all targets (those whose name contains ``only``); the same seed does the same.

    Runs in the main thread, since a timer ends what hangs."""
    result = FuzzResult(seed)
    chosen = [target for target in targets() if only in target.name]
    if not chosen:
        raise UsageError(f"--only {only!r}: no target has that in its name")
    begin, memory = time.perf_counter(), _peak_memory()
    with _timer():
        for place, target in enumerate(chosen):
            share = mutations // len(chosen) + (place < mutations % len(chosen))
            found = _fuzz(target, share, seed, result.findings)
            result.targets[target.name] = found
            progress(
                f"{target.name}: {share} mutations, {found.refused} refused, {found.parsed} parsed, {found.same} same, "
                f"{found.accepted} accepted, {found.crashed + found.hung} broken"
            )
    result.seconds = time.perf_counter() - begin
    result.memory_growth_bytes = _peak_memory() - memory
    return result


def _fuzz(target: Target, count: int, seed: int, findings: list[dict[str, Any]]) -> TargetResult:
    result = TargetResult()
    good = [target.run(value) if target.decides else None for value in target.seeds]
    for number in range(count):
        source = random.Random(f"{seed}:{target.name}:{number}")  # noqa: S311  (repeatable, not secret)
        which = number % len(target.seeds)
        value = mutate(source, target.seeds[which])
        result.mutations += 1
        begin = time.process_time()
        kind = _judge(target, value, good[which])
        elapsed = 1000 * (time.process_time() - begin)
        result.slowest_ms = max(result.slowest_ms, elapsed)
        label, _, detail = kind.partition(": ")
        setattr(result, label, getattr(result, label) + 1)
        if label in ("accepted", "crashed", "hung") and len(findings) < _KEPT_FINDINGS:
            findings.append({"target": target.name, "number": number, "what": label, "detail": detail})
    return result


def _judge(target: Target, value: Any, good: Any) -> str:
    signal.setitimer(signal.ITIMER_VIRTUAL, HANG_SECONDS)
    try:
        answer = target.run(value)
    except CasemateError:
        return "refused"
    except _Hang:
        return f"hung: more than {HANG_SECONDS:.0f} s"
    except Exception as exc:  # whatever else it is: that is the finding
        where = traceback.extract_tb(exc.__traceback__)[-1]
        return f"crashed: {type(exc).__name__} at {where.filename}:{where.lineno}: {str(exc)[:200]}"
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    if not target.decides:
        return "parsed"
    return "same" if answer == good else "accepted: another answer than for the good evidence"


@contextmanager
def _timer() -> Iterator[None]:
    def ring(_number: int, _frame: FrameType | None) -> None:
        raise _Hang

    before = signal.signal(signal.SIGVTALRM, ring)
    try:
        yield
    finally:
        signal.signal(signal.SIGVTALRM, before)


def _peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
