"""Bring a database to the newest schema; run at every start. The migrations are part of the package."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine

from casemate.errors import FailedError

__all__ = ["upgrade"]


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Apply what is missing, in one transaction: a crash leaves the old schema. Never goes back.

    Raises ``FailedError`` for a database that a newer version made."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    scripts = ScriptDirectory.from_config(config)
    with engine.connect() as connection:
        connection = connection.execution_options(casemate_writes=True)
        with connection.begin():
            current = MigrationContext.configure(connection).get_current_revision()
            if current == scripts.get_current_head():
                return
            if current is not None and current not in {script.revision for script in scripts.walk_revisions()}:
                raise FailedError(f"the database is of schema {current}, which this version does not know; upgrade it")
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
