"""What the demonstration found, as JSON for scripts and as lines for people."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from casemate.demo.dataset import LICENCE, SOURCE

__all__ = ["Attack", "Report"]


@dataclass(frozen=True)
class Attack:
    """One attack: whether it was refused, with which stable code, and the line a person would read."""

    name: str
    refused: bool
    code: str | None
    line: str


@dataclass
class Report:
    """Grows while the demonstration runs. ``seconds`` is wall-clock time per step."""

    rows: int = 0
    result_equal_to_plain: bool = False
    differences: list[str] = field(default_factory=list)
    attestations: int = 0
    attacks: list[Attack] = field(default_factory=list)
    canary_hits: int = 0
    canary_places: list[str] = field(default_factory=list)
    plain_canary_hits: int = 0
    plain_canary_places: list[str] = field(default_factory=list)
    files_searched: int = 0
    loopback_captured: bool = False
    audit_whole: bool = False
    audit_entries: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    simulated: bool = True
    source: str = SOURCE
    licence: str = LICENCE

    @property
    def ok(self) -> bool:
        """Equal results, a whole log, every attack refused, the canary seen in the plain run alone."""
        return (
            self.rows >= 300_000
            and self.result_equal_to_plain
            and self.attestations > 0
            and self.audit_whole
            and bool(self.attacks)
            and all(attack.refused for attack in self.attacks)
            and self.canary_hits == 0
            and self.plain_canary_hits > 0
        )

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step."""
        begin = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = round(time.monotonic() - begin, 2)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "ok": self.ok}

    @property
    def summary(self) -> str:
        refused = sum(attack.refused for attack in self.attacks)
        return "\n".join(
            [
                f"rows                    {self.rows} ({self.source}, {self.licence})",
                f"same result as plain    {'yes' if self.result_equal_to_plain else 'NO'}",
                f"attestations            {self.attestations} (SIMULATED TEE)",
                f"attacks refused         {refused} of {len(self.attacks)}",
                f"canary found            {self.canary_hits} places; in the plain run {self.plain_canary_hits}",
                f"audit log               {'whole' if self.audit_whole else 'NOT WHOLE'}, {self.audit_entries} entries",
                f"seconds                 {sum(self.seconds.values()):.0f}",
            ]
        )
