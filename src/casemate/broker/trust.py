"""The broker's trust anchors and collateral: files, read again when they change, so that a broker need not be stopped.

Collateral is good for about a month, keys are enrolled and taken back at any time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from casemate.attestation.claims import Claims
from casemate.attestation.evidence import Evidence
from casemate.attestation.trust import TrustStore
from casemate.attestation.trust_files import load_trust
from casemate.errors import CasemateError

__all__ = ["LOOK_EVERY", "DirectoryTrust"]

LOOK_EVERY = 5.0  # seconds

_log = logging.getLogger("casemate.broker.trust")
_Stamp = tuple[tuple[str, int, int, int], ...]


class DirectoryTrust:
    """As ``TrustStore``, over a trust directory and further directories of collateral; safe to use from threads.

    A change is noticed within ``LOOK_EVERY`` seconds. A file that is damaged is logged; evidence that it is for stays
    undecided until it is mended, since nobody can know what it took back. At the start it raises instead."""

    def __init__(self, directory: Path, collateral: Sequence[Path] = ()) -> None:
        self._directory, self._collateral = directory, tuple(collateral)
        self._lock = threading.Lock()
        self._stamp = self._look()
        self._store = load_trust(directory, collateral=self._collateral)
        self._looked = time.monotonic()
        _log.info("trust: %s", _summary(self._store))

    @property
    def kinds(self) -> tuple[str, ...]:
        """The names of evidence that can be verified now."""
        return self._current().kinds

    def verify(self, evidence: Evidence, *, now: datetime) -> Claims:
        """As ``TrustStore.verify``; ``TrustUnreadableError`` when a file that it takes is damaged."""
        return self._current().verify(evidence, now=now)

    def _current(self) -> TrustStore:
        with self._lock:
            if time.monotonic() - self._looked >= LOOK_EVERY:
                stamp = self._look()  # before reading: what changes meanwhile is seen the next time
                if stamp != self._stamp:
                    self._store = load_trust(self._directory, collateral=self._collateral, on_damage=_damaged)
                    self._stamp = stamp
                    _log.info("trust was read anew: %s", _summary(self._store))
                self._looked = time.monotonic()
            return self._store

    def _look(self) -> _Stamp:
        """What tells a file from the one that was there before, without reading it."""
        found = []
        for directory in (self._directory, *self._collateral):
            for path in sorted(directory.rglob("*")):
                try:
                    status = path.stat()
                except OSError:
                    continue
                found.append((str(path), status.st_mtime_ns, status.st_size, status.st_ino))
        return tuple(found)


def _summary(store: TrustStore) -> str:
    return f"verifies {', '.join(store.kinds)}" if store.kinds else "verifies nothing: no trust anchor"


def _damaged(error: CasemateError) -> None:
    _log.error("trust: %s: %s", error.code, " ".join(error.message.split()))
