"""Pieces of collateral with their dates, and what a list of them comes to at a given time. No network, disk or clock.

One set is what a verifier needs for one family of Intel platforms, or for one AMD product."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from casemate.errors import CasemateError

__all__ = ["CachedPiece", "State", "worst_first"]


class State(StrEnum):
    """What a piece is worth at a time. Only ``current`` is ever used to accept anything."""

    CURRENT = "current"
    EXPIRING = "expiring"
    FUTURE = "not yet valid"
    EXPIRED = "expired"
    MISSING = "missing"
    DAMAGED = "damaged"


@dataclass(frozen=True)
class CachedPiece:
    """One piece: the set it belongs to, its name in that set, who it speaks of, and when it holds.

    ``expires`` is its next update, or the end of a certificate; ``None`` when it has no date or is missing.
    ``flaw`` says why it is damaged, ``code`` is the error behind it."""

    set: str
    piece: str
    subject: str
    issued: datetime | None = None
    expires: datetime | None = None
    flaw: str | None = None
    code: str | None = None

    @classmethod
    def damaged(cls, set_: str, piece: str, error: CasemateError) -> CachedPiece:
        return cls(set_, piece, "", flaw=error.message, code=error.code)

    def state(self, now: datetime, *, margin: timedelta = timedelta(0)) -> State:
        """Its state at ``now``; ``margin`` is how much longer it has to be good."""
        if self.flaw is not None:
            return State.DAMAGED
        if self.expires is None:
            return State.MISSING
        if now > self.expires:
            return State.EXPIRED
        if self.issued is not None and now < self.issued:
            return State.FUTURE
        return State.EXPIRING if now + margin > self.expires else State.CURRENT

    def explain(self, now: datetime, *, margin: timedelta = timedelta(0)) -> str:
        """One line that names the piece and says what is amiss with it."""
        state = self.state(now, margin=margin)
        where = f"{self.set}: {self.piece}" + (f" ({self.subject})" if self.subject else "")
        if state is State.DAMAGED:
            return f"{where}: {self.flaw}"
        if state is State.FUTURE and self.issued is not None:
            return f"{where}: issued {self.issued.isoformat()}, now {now.isoformat()}"
        if self.expires is not None:
            return f"{where}: good until {self.expires.isoformat()}, now {now.isoformat()}"
        return f"{where}: not at hand"

    def to_json(self, now: datetime, *, margin: timedelta = timedelta(0)) -> dict[str, Any]:
        return {
            "set": self.set,
            "piece": self.piece,
            "subject": self.subject,
            "issued": self.issued and self.issued.isoformat(),
            "next_update": self.expires and self.expires.isoformat(),
            "state": str(self.state(now, margin=margin)),
            "code": self.code,
            "flaw": self.flaw,
        }


_ORDER = (State.DAMAGED, State.MISSING, State.EXPIRED, State.FUTURE, State.EXPIRING, State.CURRENT)


def worst_first(pieces: Iterable[CachedPiece], now: datetime, *, margin: timedelta = timedelta(0)) -> list[CachedPiece]:
    """The pieces that cannot be used at ``now``, the worst first; nothing when all are current."""
    bad = [piece for piece in pieces if piece.state(now, margin=margin) is not State.CURRENT]
    return sorted(bad, key=lambda piece: _ORDER.index(piece.state(now, margin=margin)))
