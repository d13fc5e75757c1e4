"""When a grant ends, as a column: a release looks at the grants that can still hold, however many there were before."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Null for grants from before; those are looked at always.
    op.add_column("grants", sa.Column("not_after", sa.BigInteger(), nullable=True))
