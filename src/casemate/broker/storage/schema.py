"""The broker's tables. Key material is stored wrapped under the root key, session ids as hashes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Dialect,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

__all__ = [
    "admins",
    "audit_checkpoints",
    "audit_entries",
    "dataset_keys",
    "datasets",
    "generations",
    "grant_datasets",
    "grant_uses",
    "grants",
    "jobs",
    "metadata",
    "owners",
    "policies",
    "policy_floors",
    "proofs",
    "sessions",
    "workloads",
]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Moment(TypeDecorator[datetime]):
    """A point in time as microseconds since 1970, UTC: exact, and the same in every database."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        return None if value is None else (value - _EPOCH) // timedelta(microseconds=1)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        return None if value is None else _EPOCH + timedelta(microseconds=value)


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

admins = Table(
    "admins",
    metadata,
    Column("thumbprint", String(43), primary_key=True),
    Column("jwk", Text, nullable=False),
    Column("created", Moment, nullable=False),
)

owners = Table(
    "owners",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("thumbprint", String(43), nullable=False, unique=True),
    Column("jwk", Text, nullable=False),
    Column("created", Moment, nullable=False),
)

datasets = Table(
    "datasets",
    metadata,
    Column("name", String(191), primary_key=True),
    Column("owner", ForeignKey("owners.name"), nullable=False, index=True),
    Column("created", Moment, nullable=False),
)

dataset_keys = Table(
    "dataset_keys",
    metadata,
    Column("dataset", ForeignKey("datasets.name"), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("wrapped", LargeBinary, nullable=False),
    Column("created", Moment, nullable=False),
)

policies = Table(
    "policies",
    metadata,
    Column("digest", String(128), primary_key=True),
    Column("name", String(63), nullable=False),
    Column("yaml", Text, nullable=False),
    Column("created", Moment, nullable=False),
)

policy_floors = Table(
    "policy_floors",
    metadata,
    Column("scope", String(63), primary_key=True),  # an owner's name, or * for the broker
    Column("policy", ForeignKey("policies.digest"), nullable=False),
    Column("created", Moment, nullable=False),
)

grants = Table(
    "grants",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("owner", ForeignKey("owners.name"), nullable=False, index=True),
    Column("jws", Text, nullable=False),
    Column("created", Moment, nullable=False),
    Column("revoked", Moment),
    Column("not_after", Moment),  # a copy, to find grants by; the signed document decides
)

grant_datasets = Table(
    "grant_datasets",
    metadata,
    Column("dataset", ForeignKey("datasets.name"), primary_key=True),
    Column("grant_id", ForeignKey("grants.id"), primary_key=True),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("workload", String(96), nullable=False),
    Column("created", Moment, nullable=False),
    Column("certificate", Text),
    Column("wrapped_key", LargeBinary),
    Column("wrapped_secret", LargeBinary),
)

grant_uses = Table(
    "grant_uses",
    metadata,
    Column("grant_id", ForeignKey("grants.id"), primary_key=True),
    Column("job", ForeignKey("jobs.id"), primary_key=True),
    # which process opened the job: a driver's or task's key; executors share the job's opening
    Column("opener", String(43), primary_key=True),
    Column("created", Moment, nullable=False),
)

workloads = Table(
    "workloads",
    metadata,
    Column("bound", String(128), primary_key=True),
    Column("format", String(8), primary_key=True),
    Column("body", Text, nullable=False),
)

sessions = Table(
    "sessions",
    metadata,
    Column("id_hash", String(64), primary_key=True),
    Column("nonce", String(64), nullable=False),
    Column("tee", String(32), nullable=False),
    Column("job", String(64), nullable=False),
    Column("role", String(16), nullable=False),
    Column("created", Moment, nullable=False),
    Column("expires", Moment, nullable=False, index=True),  # the later of the challenge's and the token's end
    Column("state", String(8), nullable=False),  # spent | attested
    Column("token_id", String(36), unique=True),
    Column("token", Text),  # signed by the broker: claims, key, job and workload are read from it, never from columns
    Column("workload_bound", String(128)),
    Column("workload_format", String(8)),
)

proofs = Table(
    "proofs",
    metadata,
    Column("thumbprint", String(43), primary_key=True),
    Column("jti", String(128), primary_key=True),
    Column("expires", Moment, nullable=False, index=True),
)

generations = Table(
    "generations",
    metadata,
    Column("dataset", ForeignKey("datasets.name"), primary_key=True),
    Column("location", String(2048), primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("updated", Moment, nullable=False),
)

audit_entries = Table(
    "audit_entries",
    metadata,
    Column("index", Integer, primary_key=True, autoincrement=False),
    Column("body", LargeBinary, nullable=False),
    Column("leaf", LargeBinary, nullable=False),
    Column("refusal_id", String(32)),
    UniqueConstraint("refusal_id"),
)

audit_checkpoints = Table(
    "audit_checkpoints",
    metadata,
    Column("size", Integer, primary_key=True, autoincrement=False),
    Column("root", LargeBinary, nullable=False),
    Column("frontier", LargeBinary, nullable=False),  # 32 bytes per complete subtree
    Column("jws", Text, nullable=False),
)
