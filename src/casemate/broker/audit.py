"""The audit log's entries and checkpoints, and the check that a log is whole. No I/O, no clock.

Every entry is canonical JSON with a random salt, so that its hash alone (all that others than its owner get to see)
says nothing about it. A checkpoint is a JWS over the size and root of the RFC 6962 tree; one is signed with every
entry. What a single copy of the database cannot show, that it is an *old* copy, a checkpoint kept elsewhere shows.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from casemate.broker import merkle
from casemate.broker.errors import AuditInconsistentError
from casemate.crypto.canonical import canonical_json
from casemate.crypto.errors import SignatureInvalidError
from casemate.crypto.jose import Jwk, KeyPair, open_jws

__all__ = ["CHECKPOINT_TYPE", "Checkpoint", "Entry", "open_checkpoint", "open_entry", "sign_checkpoint", "verify"]

CHECKPOINT_TYPE = "casemate-audit-checkpoint+jws"


@dataclass(frozen=True)
class Entry:
    """One thing the broker did or refused to do.

    ``kind`` is what was asked (``release``, ``attest``, ``grant.create`` ...), ``owners`` whom it concerns, ``subject``
    what it is about (dataset, job, grant ...), ``clauses`` the explanation. Never key bytes."""

    kind: str
    outcome: str  # accepted | refused | undecided
    owners: tuple[str, ...] = ()
    code: str | None = None
    message: str | None = None
    refusal_id: str | None = None
    subject: dict[str, Any] | None = None
    clauses: tuple[dict[str, Any], ...] = ()

    def body(self, index: int, time: datetime) -> bytes:
        """The bytes that are stored and hashed: canonical JSON with place, time and a fresh salt."""
        return canonical_json(
            {
                "index": index,
                "time": time.isoformat(),
                "kind": self.kind,
                "outcome": self.outcome,
                "owners": list(self.owners),
                "code": self.code,
                "message": self.message,
                "refusal_id": self.refusal_id,
                "subject": self.subject or {},
                "clauses": list(self.clauses),
                "salt": secrets.token_hex(16),
            }
        )


@dataclass(frozen=True)
class Checkpoint:
    """A signed statement: the log had ``size`` entries and this root (32 bytes) at ``time``."""

    size: int
    root: bytes
    time: str
    jws: str


def sign_checkpoint(key: KeyPair, *, size: int, root: bytes, now: datetime) -> Checkpoint:
    time = now.isoformat()
    payload = {"version": 1, "size": size, "root": root.hex(), "time": time}
    return Checkpoint(size, root, time, key.sign(payload, typ=CHECKPOINT_TYPE))


def open_checkpoint(jws: str, public: Jwk) -> Checkpoint:
    """A checkpoint whose signature verifies; else ``AuditInconsistentError``."""
    try:
        payload = open_jws(jws, public, typ=CHECKPOINT_TYPE)
        size, root = payload["size"], bytes.fromhex(payload["root"])
        if payload["version"] != 1 or type(size) is not int or size < 0 or len(root) != 32:
            raise ValueError("not a checkpoint of version 1")
        return Checkpoint(size, root, str(payload["time"]), jws)
    except (SignatureInvalidError, ValueError, KeyError, TypeError) as exc:
        raise AuditInconsistentError("a checkpoint of the audit log is not signed by the broker's audit key") from exc


def open_entry(body: bytes, leaf: bytes, index: int) -> dict[str, Any]:
    """The content of one stored entry, checked against its leaf hash and its place."""
    if merkle.leaf_hash(body) != leaf:
        raise AuditInconsistentError(f"audit entry {index} was edited: its bytes do not match its hash")
    try:
        value: dict[str, Any] = json.loads(body)
        found = value["index"]
    except (ValueError, KeyError, TypeError) as exc:
        raise AuditInconsistentError(f"audit entry {index} is not an entry of this log") from exc
    if found != index:
        raise AuditInconsistentError(f"audit entry {index} says it is entry {found}: moved or copied")
    return value


def verify(leaves: Sequence[bytes], checkpoints: Iterable[str], public: Jwk, seen: Iterable[str] = ()) -> Checkpoint:
    """Check a whole log, given as leaf hashes in order, against its stored and the previously ``seen`` checkpoints.

    Finds every edit, deletion, insertion, reordering and fork below any checkpoint; a checkpoint larger than the log
    means that the log was cut or rolled back. The latest stored checkpoint has to cover the whole log. Returns it."""
    wanted: dict[int, list[Checkpoint]] = {}
    latest: Checkpoint | None = None
    for origin, group in (("stored", checkpoints), ("seen", seen)):
        for jws in group:
            checkpoint = open_checkpoint(jws, public)
            if checkpoint.size > len(leaves):
                raise AuditInconsistentError(
                    f"the audit log has {len(leaves)} entries, a {origin} checkpoint of {checkpoint.time} says "
                    f"{checkpoint.size}: entries were removed, or an old database was restored"
                )
            wanted.setdefault(checkpoint.size, []).append(checkpoint)
            if origin == "stored" and (latest is None or checkpoint.size >= latest.size):
                latest = checkpoint
    if latest is None or latest.size != len(leaves):
        covered = 0 if latest is None else latest.size
        raise AuditInconsistentError(
            f"the audit log has {len(leaves)} entries, its latest checkpoint covers {covered}: entries were added "
            "without the broker, or checkpoints removed"
        )
    frontier = merkle.Frontier()
    for size in range(len(leaves) + 1):
        for checkpoint in wanted.get(size, ()):
            if checkpoint.root != frontier.root():
                raise AuditInconsistentError(
                    f"the first {size} audit entries are not those of the checkpoint of {checkpoint.time}: "
                    "edited, reordered, or another branch of the log"
                )
        if size < len(leaves):
            frontier = frontier.append(leaves[size])
    return latest
