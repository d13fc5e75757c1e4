"""The repository over SQLAlchemy Core. One URL decides: ``sqlite:///…`` (the embedded default) or PostgreSQL.

SQLite runs in WAL mode with every commit flushed to disk; a writing transaction takes the write lock when it begins,
so that nothing it read can change under it. How PostgreSQL does the same: ``postgres``.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, Table, bindparam, create_engine, event, func, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    SQLAlchemyError,
    TimeoutError,
)

from casemate.broker.errors import RequestMalformedError, StorageDriverError, StorageUnreachableError
from casemate.broker.storage import schema as t
from casemate.broker.storage.postgres import open_postgres
from casemate.broker.storage.repository import (
    AttestedRow,
    CheckpointRow,
    DatasetRow,
    EntryRow,
    FloorRow,
    GenerationRow,
    GrantRow,
    JobRow,
    OwnerRow,
    PolicyRow,
    SessionRow,
)
from casemate.crypto.jose import Jwk

__all__ = ["SqlRepository", "SqlTransaction", "open_engine"]

_log = logging.getLogger("casemate.broker.storage")
_HASH_SIZE = 32  # bytes
_ENDED_GRANTS = 32  # looked at beside the live ones, so that a refusal can say which one ended

# Statements of the release path, built once.
_OWNER = select(t.owners).where(t.owners.c.name == bindparam("name"))
_DATASET = (
    select(t.datasets, func.max(t.dataset_keys.c.version).label("version"))
    .join(t.dataset_keys, t.dataset_keys.c.dataset == t.datasets.c.name)
    .group_by(t.datasets.c.name)
    .order_by(t.datasets.c.name)
)
_DATASET_BY_NAME = _DATASET.where(t.datasets.c.name == bindparam("name"))
_WRAPPED_KEY = select(t.dataset_keys.c.wrapped).where(
    t.dataset_keys.c.dataset == bindparam("dataset"), t.dataset_keys.c.version == bindparam("version")
)
_POLICY = select(t.policies).where(t.policies.c.digest == bindparam("digest"))
_EVERYBODY = "*"  # no owner has this name
_FLOORS = (
    select(t.policy_floors.c.scope, t.policy_floors.c.created.label("since"), t.policies)
    .join(t.policies, t.policies.c.digest == t.policy_floors.c.policy)
    .order_by(t.policy_floors.c.scope)
)
_FLOORS_FOR = _FLOORS.where(t.policy_floors.c.scope.in_([_EVERYBODY, bindparam("owner")]))
_GRANTS_FOR = (
    select(t.grants)
    .join(t.grant_datasets, t.grant_datasets.c.grant_id == t.grants.c.id)
    .where(t.grant_datasets.c.dataset == bindparam("dataset"))
)
_GRANTS_FOR = _GRANTS_FOR.where(
    (t.grants.c.revoked.is_(None) & (t.grants.c.not_after.is_(None) | (t.grants.c.not_after > bindparam("now"))))
    | t.grants.c.id.in_(
        _GRANTS_FOR.with_only_columns(t.grants.c.id).order_by(t.grants.c.created.desc()).limit(_ENDED_GRANTS)
    )
)
_USES = select(t.grant_uses).where(t.grant_uses.c.grant_id.in_(bindparam("grants", expanding=True)))
_JOB = select(t.jobs).where(t.jobs.c.id == bindparam("id"))
_WORKLOAD = select(t.workloads.c.bound).where(
    t.workloads.c.bound == bindparam("bound"), t.workloads.c.format == bindparam("format")
)
_SESSION = select(t.sessions, t.workloads.c.body).outerjoin(
    t.workloads,
    (t.workloads.c.bound == t.sessions.c.workload_bound) & (t.workloads.c.format == t.sessions.c.workload_format),
)
_SESSION_BY_ID = _SESSION.where(t.sessions.c.id_hash == bindparam("id_hash"))
_SESSION_BY_TOKEN = _SESSION.where(t.sessions.c.token_id == bindparam("token_id"))
_SESSION_KNOWN = select(t.sessions.c.id_hash).where(t.sessions.c.id_hash == bindparam("id_hash"))
_LATEST_CHECKPOINT = select(t.audit_checkpoints).order_by(t.audit_checkpoints.c.size.desc()).limit(1)


def open_engine(url: str | URL) -> Engine:
    """An engine with the settings the broker relies on; raises ``StorageDriverError``."""
    try:
        parsed = make_url(url)
    except ArgumentError as exc:
        raise StorageDriverError("database URL: need sqlite:///PATH or postgresql://HOST/NAME") from exc
    if parsed.get_backend_name() != "sqlite":
        return open_postgres(parsed)
    engine = create_engine(parsed, pool_size=16, max_overflow=32, connect_args={"timeout": 10})

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver must not begin transactions behind our back
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "busy_timeout=10000",
            "trusted_schema=OFF",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("casemate_writes", False)
        # Straight to the driver: this is a good part of what a short transaction costs.
        connection.connection.cursor().execute("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


@contextmanager
def _reached() -> Iterator[None]:
    """Foreign exceptions stop here: ``StorageUnreachableError``; ``RequestMalformedError`` for what no column holds."""
    try:
        yield
    except DataError as exc:
        raise RequestMalformedError("a value is longer, or of another form, than the broker stores") from exc
    except (OperationalError, InterfaceError, TimeoutError) as exc:
        _log.error("database: %s", _reason(exc))
        raise StorageUnreachableError("the broker's database did not answer") from exc


def _reason(error: SQLAlchemyError) -> str:
    """What the driver says, without a statement's values."""
    return " ".join(str(getattr(error, "orig", error)).split())[:300]


class SqlRepository:
    """Implements ``Repository``. Thread-safe; the tables have to exist (``migrate.upgrade``)."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._writer = threading.Lock()  # threads of this process queue here instead of polling the database

    @contextmanager
    def reading(self) -> Iterator[SqlTransaction]:
        with _reached(), self.engine.connect() as connection, connection.begin():
            yield SqlTransaction(connection)

    @contextmanager
    def writing(self) -> Iterator[SqlTransaction]:
        with _reached(), self._writer, self.engine.connect() as connection:
            connection = connection.execution_options(casemate_writes=True)
            with connection.begin():
                yield SqlTransaction(connection)

    def close(self) -> None:
        self.engine.dispose()


def _raw(value: bytes | str) -> bytes:
    """A binary column; a database that was edited by hand may hold text there, which then fails its own check."""
    return value.encode() if isinstance(value, str) else bytes(value)


def _owner(row: Row[Any] | None) -> OwnerRow | None:
    return None if row is None else OwnerRow(row.name, row.thumbprint, json.loads(row.jwk), row.created)


class SqlTransaction:
    """Implements ``Writer`` on one open transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def _one(self, statement: Any, **parameters: Any) -> Row[Any] | None:
        return self._connection.execute(statement, parameters).one_or_none()

    def _insert(self, table: Table, **values: Any) -> bool:
        try:
            with self._connection.begin_nested():
                self._connection.execute(table.insert(), values)
        except IntegrityError:
            return False
        return True

    # --- identities ---

    def is_admin(self, thumbprint: str) -> bool:
        return self._one(select(t.admins.c.thumbprint).where(t.admins.c.thumbprint == thumbprint)) is not None

    def add_admin(self, thumbprint: str, jwk: Jwk, now: datetime) -> bool:
        return self._insert(t.admins, thumbprint=thumbprint, jwk=json.dumps(jwk), created=now)

    def owner(self, name: str) -> OwnerRow | None:
        return _owner(self._one(_OWNER, name=name))

    def owner_by_thumbprint(self, thumbprint: str) -> OwnerRow | None:
        return _owner(self._one(select(t.owners).where(t.owners.c.thumbprint == thumbprint)))

    def owners(self) -> list[OwnerRow]:
        rows = self._connection.execute(select(t.owners).order_by(t.owners.c.name))
        return [OwnerRow(row.name, row.thumbprint, json.loads(row.jwk), row.created) for row in rows]

    def add_owner(self, owner: OwnerRow) -> bool:
        return self._insert(
            t.owners, name=owner.name, thumbprint=owner.thumbprint, jwk=json.dumps(owner.jwk), created=owner.created
        )

    # --- datasets and their keys ---

    def _datasets(self, statement: Any, **parameters: Any) -> list[DatasetRow]:
        rows = self._connection.execute(statement, parameters)
        return [DatasetRow(row.name, row.owner, row.version, row.created) for row in rows]

    def dataset(self, name: str) -> DatasetRow | None:
        found = self._datasets(_DATASET_BY_NAME, name=name)
        return found[0] if found else None

    def datasets(self, owner: str | None = None) -> list[DatasetRow]:
        return self._datasets(_DATASET if owner is None else _DATASET.where(t.datasets.c.owner == owner))

    def add_dataset(self, name: str, owner: str, now: datetime) -> bool:
        return self._insert(t.datasets, name=name, owner=owner, created=now)

    def wrapped_key(self, dataset: str, version: int) -> bytes | None:
        row = self._one(_WRAPPED_KEY, dataset=dataset, version=version)
        return None if row is None else _raw(row.wrapped)

    def add_key(self, dataset: str, version: int, wrapped: bytes, now: datetime) -> bool:
        return self._insert(t.dataset_keys, dataset=dataset, version=version, wrapped=wrapped, created=now)

    # --- policies and grants ---

    def policy(self, digest: str) -> PolicyRow | None:
        row = self._one(_POLICY, digest=digest)
        return None if row is None else PolicyRow(row.digest, row.name, row.yaml, row.created)

    def policies(self) -> list[PolicyRow]:
        rows = self._connection.execute(select(t.policies).order_by(t.policies.c.name, t.policies.c.created))
        return [PolicyRow(row.digest, row.name, row.yaml, row.created) for row in rows]

    def add_policy(self, policy: PolicyRow) -> bool:
        return self._insert(
            t.policies, digest=policy.digest, name=policy.name, yaml=policy.yaml, created=policy.created
        )

    def floors(self, owner: str | None = None) -> list[FloorRow]:
        rows = self._connection.execute(*((_FLOORS,) if owner is None else (_FLOORS_FOR, {"owner": owner}))).all()
        return [
            FloorRow(
                None if row.scope == _EVERYBODY else row.scope,
                PolicyRow(row.digest, row.name, row.yaml, row.created),
                row.since,
            )
            for row in rows
        ]

    def set_floor(self, owner: str | None, digest: str | None, now: datetime) -> None:
        scope = _EVERYBODY if owner is None else owner
        self._connection.execute(t.policy_floors.delete().where(t.policy_floors.c.scope == scope))
        if digest is not None:
            self._insert(t.policy_floors, scope=scope, policy=digest, created=now)

    def _grants(self, statement: Any, **parameters: Any) -> list[GrantRow]:
        rows = self._connection.execute(statement, parameters).all()
        openers: dict[str, set[tuple[str, str]]] = {}
        for start in range(0, len(rows), 500):
            ids = [row.id for row in rows[start : start + 500]]
            for use in self._connection.execute(_USES, {"grants": ids}):
                openers.setdefault(use.grant_id, set()).add((use.job, use.opener))
        return [
            GrantRow(r.id, r.owner, r.jws, r.created, r.revoked, frozenset(openers.get(r.id, ())), r.not_after)
            for r in rows
        ]

    def grant(self, grant_id: str) -> GrantRow | None:
        found = self._grants(select(t.grants).where(t.grants.c.id == grant_id))
        return found[0] if found else None

    def grants(self, owner: str | None = None) -> list[GrantRow]:
        statement = select(t.grants).order_by(t.grants.c.created, t.grants.c.id)
        return self._grants(statement if owner is None else statement.where(t.grants.c.owner == owner))

    def grants_for(self, dataset: str, now: datetime) -> list[GrantRow]:
        return self._grants(_GRANTS_FOR, dataset=dataset, now=now)

    def add_grant(self, grant: GrantRow, datasets: Sequence[str]) -> bool:
        added = self._insert(
            t.grants,
            id=grant.id,
            owner=grant.owner,
            jws=grant.jws,
            created=grant.created,
            not_after=grant.not_after,
        )
        if added:
            rows = [{"dataset": name, "grant_id": grant.id} for name in datasets]
            self._connection.execute(t.grant_datasets.insert(), rows)
        return added

    def revoke_grant(self, grant_id: str, now: datetime) -> bool:
        statement = t.grants.update().where(t.grants.c.id == grant_id, t.grants.c.revoked.is_(None))
        return self._connection.execute(statement.values(revoked=now)).rowcount == 1

    def add_use(self, grant_id: str, job: str, opener: str, now: datetime) -> bool:
        return self._insert(t.grant_uses, grant_id=grant_id, job=job, opener=opener, created=now)

    # --- jobs ---

    def job(self, job_id: str) -> JobRow | None:
        row = self._one(_JOB, id=job_id)
        return None if row is None else JobRow(**row._mapping)

    def add_job(self, job: JobRow) -> bool:
        return self._insert(t.jobs, id=job.id, workload=job.workload, created=job.created)

    def set_job_authority(self, job_id: str, certificate: str, wrapped_key: bytes) -> None:
        statement = t.jobs.update().where(t.jobs.c.id == job_id)
        self._connection.execute(statement.values(certificate=certificate, wrapped_key=wrapped_key))

    def set_job_secret(self, job_id: str, wrapped_secret: bytes) -> None:
        self._connection.execute(t.jobs.update().where(t.jobs.c.id == job_id).values(wrapped_secret=wrapped_secret))

    # --- sessions ---

    def _session(self, statement: Any, **parameters: Any) -> SessionRow | None:
        row = self._one(statement, **parameters)
        if row is None:
            return None
        attested = None
        if row.state == "attested":
            attested = AttestedRow(
                token_id=row.token_id,
                token=row.token,
                workload_bound=row.workload_bound,
                workload_format=row.workload_format,
                workload_body=row.body,
            )
        return SessionRow(
            row.id_hash, row.nonce, row.tee, row.job, row.role, row.created, row.expires, row.state, attested
        )

    def session(self, id_hash: str) -> SessionRow | None:
        return self._session(_SESSION_BY_ID, id_hash=id_hash)

    def session_by_token(self, token_id: str) -> SessionRow | None:
        return self._session(_SESSION_BY_TOKEN, token_id=token_id)

    def add_session(self, session: SessionRow) -> bool:
        if self._one(_SESSION_KNOWN, id_hash=session.id_hash) is not None:
            return False
        attested = session.attested
        self._connection.execute(
            t.sessions.insert(),
            {
                "id_hash": session.id_hash,
                "nonce": session.nonce,
                "tee": session.tee,
                "job": session.job,
                "role": session.role,
                "created": session.created,
                "expires": session.expires,
                "state": session.state,
                "token_id": None if attested is None else attested.token_id,
                "token": None if attested is None else attested.token,
                "workload_bound": None if attested is None else attested.workload_bound,
                "workload_format": None if attested is None else attested.workload_format,
            },
        )
        if attested is not None and attested.workload_body is not None:
            key = {"bound": attested.workload_bound, "format": attested.workload_format}
            if self._one(_WORKLOAD, **key) is None:
                self._connection.execute(t.workloads.insert(), {**key, "body": attested.workload_body})
        return True

    def add_proof(self, thumbprint: str, jti: str, expires: datetime) -> bool:
        return self._insert(t.proofs, thumbprint=thumbprint, jti=jti, expires=expires)

    def purge(self, before: datetime) -> None:
        for table in (t.sessions, t.proofs):
            self._connection.execute(table.delete().where(table.c.expires < before))

    # --- generations ---

    def generation(self, dataset: str, location: str) -> GenerationRow:
        c = t.generations.c
        row = self._one(select(c.number, c.digest).where(c.dataset == dataset, c.location == location))
        return GenerationRow() if row is None else GenerationRow(row.number, row.digest)

    def swap_generation(self, dataset: str, location: str, number: int, digest: str, now: datetime) -> bool:
        if number == 1:
            return self._insert(t.generations, dataset=dataset, location=location, number=1, digest=digest, updated=now)
        c = t.generations.c
        statement = t.generations.update().where(c.dataset == dataset, c.location == location, c.number == number - 1)
        return self._connection.execute(statement.values(number=number, digest=digest, updated=now)).rowcount == 1

    # --- audit log ---

    def entries(self, start: int, end: int) -> list[EntryRow]:
        c = t.audit_entries.c
        rows = self._connection.execute(
            select(t.audit_entries).where(c.index >= start, c.index < end).order_by(c.index)
        )
        return [EntryRow(row._mapping["index"], _raw(row.body), _raw(row.leaf), row.refusal_id) for row in rows]

    def entry_of_refusal(self, refusal_id: str) -> EntryRow | None:
        row = self._one(select(t.audit_entries).where(t.audit_entries.c.refusal_id == refusal_id))
        return None if row is None else EntryRow(row._mapping["index"], _raw(row.body), _raw(row.leaf), row.refusal_id)

    def leaves(self, size: int) -> list[bytes]:
        c = t.audit_entries.c
        rows = self._connection.execute(select(c.leaf).where(c.index < size).order_by(c.index))
        return [_raw(row.leaf) for row in rows]

    def checkpoint(self, size: int | None = None) -> CheckpointRow | None:
        exact = select(t.audit_checkpoints).where(t.audit_checkpoints.c.size == size)
        row = self._one(_LATEST_CHECKPOINT if size is None else exact)
        if row is None:
            return None
        packed = _raw(row.frontier)
        frontier = tuple(packed[at : at + _HASH_SIZE] for at in range(0, len(packed), _HASH_SIZE))
        return CheckpointRow(row.size, _raw(row.root), frontier, row.jws)

    def audit_size(self) -> int:
        highest = self._connection.execute(select(func.max(t.audit_entries.c.index))).scalar()
        return 0 if highest is None else int(highest) + 1

    def append_entry(self, entry: EntryRow, checkpoint: CheckpointRow) -> None:
        self._connection.execute(
            t.audit_entries.insert(),
            {"index": entry.index, "body": entry.body, "leaf": entry.leaf, "refusal_id": entry.refusal_id},
        )
        self._connection.execute(
            t.audit_checkpoints.insert(),
            {
                "size": checkpoint.size,
                "root": checkpoint.root,
                "frontier": b"".join(checkpoint.frontier),
                "jws": checkpoint.jws,
            },
        )
