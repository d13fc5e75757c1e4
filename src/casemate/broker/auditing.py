"""The audit log on its storage: append within the transaction that does the deed, record refusals, show, prove."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from casemate.broker import audit, merkle
from casemate.broker.errors import AuditInconsistentError, EntryUnknownError, RefusalUnknownError
from casemate.broker.identity import Principal
from casemate.broker.storage.repository import CheckpointRow, EntryRow, Reader, Repository, Writer
from casemate.crypto.jose import Jwk, KeyPair
from casemate.errors import RefusedError, UndecidedError

__all__ = ["PAGE_SIZE", "AuditLog", "Record", "new_refusal_id"]

PAGE_SIZE = 1000  # entries of one answer


def new_refusal_id() -> str:
    return f"r-{secrets.token_hex(8)}"


@dataclass
class Record:
    """What a refusal's entry will say, filled in as it becomes known."""

    kind: str
    subject: dict[str, Any]
    owners: tuple[str, ...] = ()
    clauses: tuple[dict[str, Any], ...] = ()
    message: str | None = None  # for the owner, where the caller gets to know less

    def entry(self, outcome: str, **details: Any) -> audit.Entry:
        return audit.Entry(self.kind, outcome, self.owners, subject=self.subject, clauses=self.clauses, **details)

    def refusal(self, error: RefusedError | UndecidedError) -> audit.Entry:
        """The entry for ``error``, which gets its refusal id here."""
        error.refusal_id = error.refusal_id or new_refusal_id()
        outcome = "refused" if isinstance(error, RefusedError) else "undecided"
        return self.entry(outcome, code=error.code, message=self.message or error.message, refusal_id=error.refusal_id)


@dataclass
class AuditLog:
    """Append-only. Refuses to continue a log that is not the one this process last saw."""

    repository: Repository
    key: KeyPair
    clock: Callable[[], datetime]
    _seen: CheckpointRow | None = None  # committed
    _written: CheckpointRow | None = None  # committed, unless its transaction failed
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def public_key(self) -> Jwk:
        return self.key.public

    def check(self) -> None:
        """Verify the whole log against its latest checkpoint; raises ``AuditInconsistentError``."""
        with self.repository.reading() as reader:
            size, latest = reader.audit_size(), reader.checkpoint()
            leaves = reader.leaves(size)
            for start in range(0, size, PAGE_SIZE):
                for row in reader.entries(start, start + PAGE_SIZE):
                    audit.open_entry(row.body, row.leaf, row.index)
        self._seen = latest
        if size == 0 and latest is None:
            return
        audit.verify(leaves, [] if latest is None else [latest.jws], self.public_key)

    def append(self, writer: Writer, entry: audit.Entry, now: datetime) -> int:
        """Add an entry and the checkpoint over it to the open transaction; the entry's index."""
        last = writer.checkpoint()
        frontier = merkle.Frontier() if last is None else merkle.Frontier(last.size, last.frontier)
        if frontier.root() != (merkle.EMPTY_ROOT if last is None else last.root):
            raise AuditInconsistentError("the audit log's entries and its latest checkpoint do not fit together")
        self._require_continuity(writer, last)
        body = entry.body(frontier.size, now)
        leaf = merkle.leaf_hash(body)
        after = frontier.append(leaf)
        signed = audit.sign_checkpoint(self.key, size=after.size, root=after.root(), now=now)
        checkpoint = CheckpointRow(after.size, after.root(), after.roots, signed.jws)
        writer.append_entry(EntryRow(frontier.size, body, leaf, entry.refusal_id), checkpoint)
        self._written = checkpoint
        return frontier.size

    def _require_continuity(self, reader: Reader, last: CheckpointRow | None) -> None:
        """The committed log still has the checkpoint this process saw last: a database swapped underneath shows."""
        with self._lock:
            seen, written = self._seen, self._written
            nobody_else_wrote = last is not None and written is not None and last.root == written.root
            if seen is not None and not nobody_else_wrote:
                still = reader.checkpoint(seen.size)
                if still is None or still.root != seen.root:
                    raise AuditInconsistentError(f"the audit log no longer has its first {seen.size} entries")
            self._seen = last

    @contextmanager
    def recording(self, kind: str, **subject: Any) -> Iterator[Record]:
        """Enter a refusal into the log, in a transaction of its own, when the block raises one not yet entered."""
        record = Record(kind, {name: value for name, value in subject.items() if value is not None})
        try:
            yield record
        except (RefusedError, UndecidedError) as exc:
            if exc.refusal_id is None and not isinstance(exc, AuditInconsistentError):
                self.refuse(record, exc)
            raise

    def refuse(self, record: Record, error: RefusedError | UndecidedError) -> None:
        """Enter a refusal in a transaction of its own."""
        with self.repository.writing() as writer:
            self.append(writer, record.refusal(error), self.clock())

    # --- showing ---

    def entries(self, principal: Principal, start: int, end: int | None) -> list[dict[str, Any]]:
        """Entries ``start`` to ``end`` (exclusive), at most ``PAGE_SIZE``; others' are their leaf hash alone."""
        with self.repository.reading() as reader:
            size = reader.audit_size()
            if not 0 <= start <= size or (end is not None and end < start):
                raise EntryUnknownError(f"the audit log has {size} entries; asked for {start} to {end}")
            rows = reader.entries(start, min(size if end is None else end, start + PAGE_SIZE))
        return [_shown(row, principal) for row in rows]

    def explain(self, principal: Principal, refusal_id: str) -> dict[str, Any]:
        """The entry of one refusal; raises ``RefusalUnknownError`` also when it is not the principal's business."""
        with self.repository.reading() as reader:
            row = reader.entry_of_refusal(refusal_id)
        entry = None if row is None else _shown(row, principal)["entry"]
        if entry is None:
            raise RefusalUnknownError(f"no refusal {refusal_id} that concerns you")
        found: dict[str, Any] = entry
        return found

    def checkpoint(self, size: int | None = None) -> audit.Checkpoint:
        """The signed checkpoint of ``size``, or the latest."""
        with self.repository.reading() as reader:
            row = reader.checkpoint(size)
        if row is None:
            raise EntryUnknownError("the audit log has no such checkpoint")
        return audit.open_checkpoint(row.jws, self.public_key)

    def inclusion(self, index: int, size: int | None) -> dict[str, Any]:
        """Proof that entry ``index`` is in the log of ``size`` entries (default: the latest)."""
        checkpoint = self.checkpoint(size)
        leaves = self._leaves(checkpoint.size)
        if not 0 <= index < len(leaves):
            raise EntryUnknownError(f"no entry {index} in a log of {len(leaves)}")
        path = merkle.inclusion_proof(leaves, index)
        return {
            "index": index,
            "size": checkpoint.size,
            "root": checkpoint.root.hex(),
            "leaf_hash": leaves[index].hex(),
            "proof": [node.hex() for node in path],
            "checkpoint": checkpoint.jws,
        }

    def consistency(self, first: int, second: int | None) -> dict[str, Any]:
        """Proof that the log of ``second`` entries (default: the latest) continues the log of ``first``."""
        checkpoint = self.checkpoint(second)
        if not 0 < first <= checkpoint.size:
            raise EntryUnknownError(f"no proof from size {first} to size {checkpoint.size}")
        path = merkle.consistency_proof(self._leaves(checkpoint.size), first)
        return {
            "first": first,
            "second": checkpoint.size,
            "proof": [node.hex() for node in path],
            "checkpoint": checkpoint.jws,
        }

    def _leaves(self, size: int) -> list[bytes]:
        with self.repository.reading() as reader:
            return reader.leaves(size)


def _shown(row: EntryRow, principal: Principal) -> dict[str, Any]:
    entry = audit.open_entry(row.body, row.leaf, row.index)
    visible = principal.may_see(entry["owners"])
    return {"index": row.index, "leaf_hash": row.leaf.hex(), "entry": entry if visible else None}
