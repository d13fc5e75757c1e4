"""Policies that have to hold beside those of grants: one for the broker, one for each owner."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "policy_floors",
        sa.Column("scope", sa.String(length=63), nullable=False),
        sa.Column("policy", sa.String(length=128), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["policy"], ["policies.digest"], name=op.f("fk_policy_floors_policy")),
        sa.PrimaryKeyConstraint("scope", name=op.f("pk_policy_floors")),
    )
