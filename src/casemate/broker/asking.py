"""Rego policies beside transactions: an engine is asked while no transaction is open, owners apart from one another.

A transaction that needs an answer nobody asked for yet is undone; the engine is asked; the transaction runs again from
the start, on what is stored by then, and finds the answer. So a decision is made whole inside one transaction, as with
declarative policies, but a policy that takes its deadline makes wait only those who asked for its owner's data.
An answer depends on policy, reference values and claims alone, so asking earlier changes nothing.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from casemate.attestation.policies import Policy
from casemate.attestation.rego import Evaluation, RegoEngine, RegoPolicy
from casemate.attestation.rego_worker import RegoWorker
from casemate.broker.errors import PolicyBusyError
from casemate.errors import CasemateError

__all__ = ["Answers", "Lanes"]

WORKERS = 4  # owners whose policies are evaluated at the same time
WAITING = 4  # requests that may wait for one owner's policies; each holds a thread
PATIENCE_SECONDS = 30.0  # for all the policies of one release

_Result = TypeVar("_Result")


class _UnaskedError(Exception):
    """Not an answer: undoes the transaction that needs one."""

    def __init__(self, key: str, ask: Callable[[RegoEngine], Evaluation]) -> None:
        super().__init__(key)
        self.key, self.ask = key, ask


@dataclass
class Answers:
    """A ``RegoEngine`` that knows what was asked for one request, and asks nobody."""

    _known: dict[str, Evaluation | CasemateError] = field(default_factory=dict)

    def of(self, policy: Policy) -> Policy:
        """The same policy, evaluated by these answers if it is in Rego."""
        return replace(policy, engine=self) if isinstance(policy, RegoPolicy) else policy

    def check(self, policy: str) -> None:
        raise NotImplementedError("policies are checked when they come in")

    def evaluate(
        self, policy: str, rule: str, *, document: Mapping[str, Any], reference_values: Mapping[str, Any]
    ) -> Evaluation:
        key = json.dumps([policy, rule, dict(document), dict(reference_values)], sort_keys=True)
        if key not in self._known:
            question = {"document": document, "reference_values": reference_values}
            raise _UnaskedError(key, lambda engine: engine.evaluate(policy, rule, **question))
        known = self._known[key]
        if isinstance(known, CasemateError):
            raise known
        return known

    def learn(self, question: _UnaskedError, engine: RegoEngine) -> None:
        """Ask; a failure is an answer, too."""
        try:
            self._known[question.key] = question.ask(engine)
        except CasemateError as exc:
            self._known[question.key] = exc


class Lanes:
    """A few engines, of which the policies of one owner occupy one at a time. Safe to use from threads."""

    def __init__(self, make: Callable[[], RegoWorker] = RegoWorker, workers: int = WORKERS) -> None:
        self._make = make
        self._free = threading.BoundedSemaphore(workers)
        self._idle: list[RegoWorker] = []
        self._turns: dict[str, tuple[threading.Lock, list[None]]] = {}  # a lock, and who holds or awaits it
        self._lock = threading.Lock()
        self._closed = False

    def settle(self, owner: str, deed: Callable[[Answers], _Result]) -> _Result:
        """What ``deed``, a whole transaction, returns once everything it has to ask about ``owner``'s data is answered.

        Raises ``PolicyBusyError`` when too many wait for this owner's policies, or they take too long together."""
        answers, end = Answers(), time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return deed(answers)
            except _UnaskedError as question:
                missing = question
            if time.monotonic() >= end:
                raise PolicyBusyError(f"the policies for data of {owner} took more than {PATIENCE_SECONDS:g} s")
            with self._turn(owner), self._engine() as engine:
                answers.learn(missing, engine)

    def close(self) -> None:
        """End the engines; those at work end with their question."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for engine in idle:
            engine.close()

    @contextmanager
    def _turn(self, owner: str) -> Iterator[None]:
        with self._lock:
            turn, queue = self._turns.setdefault(owner, (threading.Lock(), []))
            if len(queue) > WAITING:
                raise PolicyBusyError(f"{len(queue)} requests wait for policies of {owner} already")
            queue.append(None)
        try:
            with turn:
                yield
        finally:
            with self._lock:
                queue.pop()
                if not queue:
                    del self._turns[owner]

    @contextmanager
    def _engine(self) -> Iterator[RegoWorker]:
        with self._free:
            with self._lock:
                engine = self._idle.pop() if self._idle else self._make()
            try:
                yield engine
            finally:
                with self._lock:
                    kept = not self._closed
                    if kept:
                        self._idle.append(engine)
                if not kept:
                    engine.close()
