"""The first schema: identities, datasets, policies, grants, jobs, sessions, generations, audit log."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

MOMENT = sa.BigInteger()  # microseconds since 1970, UTC


def upgrade() -> None:
    op.create_table(
        "admins",
        sa.Column("thumbprint", sa.String(length=43), nullable=False),
        sa.Column("jwk", sa.Text(), nullable=False),
        sa.Column("created", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("thumbprint", name=op.f("pk_admins")),
    )
    op.create_table(
        "audit_checkpoints",
        sa.Column("size", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("root", sa.LargeBinary(), nullable=False),
        sa.Column("frontier", sa.LargeBinary(), nullable=False),
        sa.Column("jws", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("size", name=op.f("pk_audit_checkpoints")),
    )
    op.create_table(
        "audit_entries",
        sa.Column("index", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("leaf", sa.LargeBinary(), nullable=False),
        sa.Column("refusal_id", sa.String(length=32), nullable=True),
        sa.PrimaryKeyConstraint("index", name=op.f("pk_audit_entries")),
        sa.UniqueConstraint("refusal_id", name=op.f("uq_audit_entries_refusal_id")),
    )
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("workload", sa.String(length=96), nullable=False),
        sa.Column("created", MOMENT, nullable=False),
        sa.Column("certificate", sa.Text(), nullable=True),
        sa.Column("wrapped_key", sa.LargeBinary(), nullable=True),
        sa.Column("wrapped_secret", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
    )
    op.create_table(
        "owners",
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("thumbprint", sa.String(length=43), nullable=False),
        sa.Column("jwk", sa.Text(), nullable=False),
        sa.Column("created", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_owners")),
        sa.UniqueConstraint("thumbprint", name=op.f("uq_owners_thumbprint")),
    )
    op.create_table(
        "policies",
        sa.Column("digest", sa.String(length=128), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("yaml", sa.Text(), nullable=False),
        sa.Column("created", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_policies")),
    )
    op.create_table(
        "proofs",
        sa.Column("thumbprint", sa.String(length=43), nullable=False),
        sa.Column("jti", sa.String(length=128), nullable=False),
        sa.Column("expires", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("thumbprint", "jti", name=op.f("pk_proofs")),
    )
    op.create_index(op.f("ix_proofs_expires"), "proofs", ["expires"], unique=False)
    op.create_table(
        "sessions",
        sa.Column("id_hash", sa.String(length=64), nullable=False),
        sa.Column("nonce", sa.String(length=64), nullable=False),
        sa.Column("tee", sa.String(length=32), nullable=False),
        sa.Column("job", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("created", MOMENT, nullable=False),
        sa.Column("expires", MOMENT, nullable=False),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.Column("token_id", sa.String(length=36), nullable=True),
        sa.Column("token", sa.Text(), nullable=True),
        sa.Column("workload_bound", sa.String(length=128), nullable=True),
        sa.Column("workload_format", sa.String(length=8), nullable=True),
        sa.PrimaryKeyConstraint("id_hash", name=op.f("pk_sessions")),
        sa.UniqueConstraint("token_id", name=op.f("uq_sessions_token_id")),
    )
    op.create_index(op.f("ix_sessions_expires"), "sessions", ["expires"], unique=False)
    op.create_table(
        "workloads",
        sa.Column("bound", sa.String(length=128), nullable=False),
        sa.Column("format", sa.String(length=8), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("bound", "format", name=op.f("pk_workloads")),
    )
    op.create_table(
        "datasets",
        sa.Column("name", sa.String(length=191), nullable=False),
        sa.Column("owner", sa.String(length=63), nullable=False),
        sa.Column("created", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["owner"], ["owners.name"], name=op.f("fk_datasets_owner")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_datasets")),
    )
    op.create_index(op.f("ix_datasets_owner"), "datasets", ["owner"], unique=False)
    op.create_table(
        "grants",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("owner", sa.String(length=63), nullable=False),
        sa.Column("jws", sa.Text(), nullable=False),
        sa.Column("created", MOMENT, nullable=False),
        sa.Column("revoked", MOMENT, nullable=True),
        sa.ForeignKeyConstraint(["owner"], ["owners.name"], name=op.f("fk_grants_owner")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_grants")),
    )
    op.create_index(op.f("ix_grants_owner"), "grants", ["owner"], unique=False)
    op.create_table(
        "dataset_keys",
        sa.Column("dataset", sa.String(length=191), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("wrapped", sa.LargeBinary(), nullable=False),
        sa.Column("created", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["dataset"], ["datasets.name"], name=op.f("fk_dataset_keys_dataset")),
        sa.PrimaryKeyConstraint("dataset", "version", name=op.f("pk_dataset_keys")),
    )
    op.create_table(
        "generations",
        sa.Column("dataset", sa.String(length=191), nullable=False),
        sa.Column("location", sa.String(length=2048), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("updated", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["dataset"], ["datasets.name"], name=op.f("fk_generations_dataset")),
        sa.PrimaryKeyConstraint("dataset", "location", name=op.f("pk_generations")),
    )
    op.create_table(
        "grant_datasets",
        sa.Column("dataset", sa.String(length=191), nullable=False),
        sa.Column("grant_id", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["dataset"], ["datasets.name"], name=op.f("fk_grant_datasets_dataset")),
        sa.ForeignKeyConstraint(["grant_id"], ["grants.id"], name=op.f("fk_grant_datasets_grant_id")),
        sa.PrimaryKeyConstraint("dataset", "grant_id", name=op.f("pk_grant_datasets")),
    )
    op.create_table(
        "grant_uses",
        sa.Column("grant_id", sa.String(length=64), nullable=False),
        sa.Column("job", sa.String(length=64), nullable=False),
        sa.Column("opener", sa.String(length=43), nullable=False),
        sa.Column("created", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["grant_id"], ["grants.id"], name=op.f("fk_grant_uses_grant_id")),
        sa.ForeignKeyConstraint(["job"], ["jobs.id"], name=op.f("fk_grant_uses_job")),
        sa.PrimaryKeyConstraint("grant_id", "job", "opener", name=op.f("pk_grant_uses")),
    )
