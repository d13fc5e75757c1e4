"""The storage protocol: records, and what can be read and written in one transaction.

A transaction is all or nothing, also when the process is killed; writing transactions follow one another, so that what
one of them counts (releases, generations, the audit log's size) stays true until it is committed.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from casemate.crypto.jose import Jwk

__all__ = [
    "AttestedRow",
    "CheckpointRow",
    "DatasetRow",
    "EntryRow",
    "FloorRow",
    "GenerationRow",
    "GrantRow",
    "JobRow",
    "OwnerRow",
    "PolicyRow",
    "Reader",
    "Repository",
    "SessionRow",
    "Writer",
]


@dataclass(frozen=True)
class OwnerRow:
    name: str
    thumbprint: str
    jwk: Jwk
    created: datetime


@dataclass(frozen=True)
class DatasetRow:
    """``version`` is the latest key version, from 1."""

    name: str
    owner: str
    version: int
    created: datetime


@dataclass(frozen=True)
class PolicyRow:
    digest: str
    name: str
    yaml: str
    created: datetime


@dataclass(frozen=True)
class FloorRow:
    """A policy that has to hold beside those of grants; ``owner`` None: for every owner."""

    owner: str | None
    policy: PolicyRow
    created: datetime


@dataclass(frozen=True)
class GrantRow:
    """``openers`` are the (job, opener) pairs that were released to under this grant; ``not_after`` is a copy of the
    signed time, to find grants by."""

    id: str
    owner: str
    jws: str
    created: datetime
    revoked: datetime | None
    openers: frozenset[tuple[str, str]] = frozenset()
    not_after: datetime | None = None


@dataclass(frozen=True)
class JobRow:
    """Private key and secret are wrapped under the root key."""

    id: str
    workload: str
    created: datetime
    certificate: str | None = None
    wrapped_key: bytes | None = None
    wrapped_secret: bytes | None = None


@dataclass(frozen=True)
class AttestedRow:
    """What an accepted attestation adds to a session: its token, and the init-data that came with it."""

    token_id: str
    token: str
    workload_bound: str | None = None
    workload_format: str | None = None
    workload_body: str | None = None


@dataclass(frozen=True)
class SessionRow:
    """An answered challenge, ``spent`` in vain or ``attested``; ``expires``: its or its token's end, the later one."""

    id_hash: str
    nonce: str
    tee: str
    job: str
    role: str
    created: datetime
    expires: datetime
    state: str = "spent"
    attested: AttestedRow | None = None


@dataclass(frozen=True)
class GenerationRow:
    """Number 0 and digest None: nothing recorded."""

    number: int = 0
    digest: str | None = None


@dataclass(frozen=True)
class EntryRow:
    index: int
    body: bytes
    leaf: bytes
    refusal_id: str | None = None


@dataclass(frozen=True)
class CheckpointRow:
    size: int
    root: bytes
    frontier: tuple[bytes, ...]
    jws: str


class Reader(Protocol):
    """Reads of one moment. What is not there is None, or an empty list."""

    def is_admin(self, thumbprint: str) -> bool: ...
    def owner(self, name: str) -> OwnerRow | None: ...
    def owner_by_thumbprint(self, thumbprint: str) -> OwnerRow | None: ...
    def owners(self) -> list[OwnerRow]: ...
    def dataset(self, name: str) -> DatasetRow | None: ...
    def datasets(self, owner: str | None = None) -> list[DatasetRow]: ...
    def wrapped_key(self, dataset: str, version: int) -> bytes | None: ...
    def policy(self, digest: str) -> PolicyRow | None: ...
    def policies(self) -> list[PolicyRow]: ...
    def floors(self, owner: str | None = None) -> list[FloorRow]:
        """Every floor, the broker's first; with ``owner`` those that count for the datasets of one."""
        ...

    def grant(self, grant_id: str) -> GrantRow | None: ...
    def grants(self, owner: str | None = None) -> list[GrantRow]: ...
    def grants_for(self, dataset: str, now: datetime) -> list[GrantRow]:
        """Grants that name a dataset: all that neither ended nor were revoked, and the newest of the others."""
        ...

    def job(self, job_id: str) -> JobRow | None: ...
    def session(self, id_hash: str) -> SessionRow | None: ...
    def session_by_token(self, token_id: str) -> SessionRow | None: ...
    def generation(self, dataset: str, location: str) -> GenerationRow: ...
    def entries(self, start: int, end: int) -> list[EntryRow]: ...
    def entry_of_refusal(self, refusal_id: str) -> EntryRow | None: ...
    def leaves(self, size: int) -> list[bytes]: ...
    def checkpoint(self, size: int | None = None) -> CheckpointRow | None:
        """The checkpoint of ``size``, or the latest."""
        ...

    def audit_size(self) -> int:
        """One more than the highest entry index."""
        ...


class Writer(Reader, Protocol):
    """Writes; ``add_`` methods return False, and change nothing, when the thing is there already."""

    def add_admin(self, thumbprint: str, jwk: Jwk, now: datetime) -> bool: ...
    def add_owner(self, owner: OwnerRow) -> bool: ...
    def add_dataset(self, name: str, owner: str, now: datetime) -> bool: ...
    def add_key(self, dataset: str, version: int, wrapped: bytes, now: datetime) -> bool: ...
    def add_policy(self, policy: PolicyRow) -> bool: ...
    def set_floor(self, owner: str | None, digest: str | None, now: datetime) -> None:
        """Put a known policy in place of the floor of ``owner`` (None: the broker's); None takes it away."""
        ...

    def add_grant(self, grant: GrantRow, datasets: Sequence[str]) -> bool: ...
    def revoke_grant(self, grant_id: str, now: datetime) -> bool: ...
    def add_use(self, grant_id: str, job: str, opener: str, now: datetime) -> bool: ...
    def add_job(self, job: JobRow) -> bool: ...
    def set_job_authority(self, job_id: str, certificate: str, wrapped_key: bytes) -> None: ...
    def set_job_secret(self, job_id: str, wrapped_secret: bytes) -> None: ...
    def add_session(self, session: SessionRow) -> bool: ...
    def add_proof(self, thumbprint: str, jti: str, expires: datetime) -> bool: ...
    def purge(self, before: datetime) -> None:
        """Forget sessions and request proofs that ended before ``before``."""
        ...

    def swap_generation(self, dataset: str, location: str, number: int, digest: str, now: datetime) -> bool:
        """Record ``number`` if ``number - 1`` is what is recorded (0: nothing); else False."""
        ...

    def append_entry(self, entry: EntryRow, checkpoint: CheckpointRow) -> None: ...


class Repository(Protocol):
    """A place that remembers."""

    def reading(self) -> AbstractContextManager[Reader]: ...
    def writing(self) -> AbstractContextManager[Writer]:
        """A transaction: committed when the block ends, undone when it raises."""
        ...

    def close(self) -> None: ...
