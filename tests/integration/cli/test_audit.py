"""`casemate audit verify` finds an edited and a rolled-back log."""

from __future__ import annotations

import json
import shutil
import sqlite3

import pytest
from tests.support.cli import Cli


def test_a_whole_log_is_whole_and_remembered(cli: Cli) -> None:
    cli.ok("up", "--port", "0")
    cli.ok("key", "create", "o/d")
    first = cli.json("audit", "verify")
    cli.ok("key", "rotate", "o/d")
    second = cli.json("audit", "verify")
    assert first["whole"] is second["whole"] is True
    assert second["entries"] > first["entries"]
    kinds = [entry["kind"] for entry in cli.json("audit", "log", "--last", "0")]
    assert {"owner.create", "dataset.create", "dataset.rotate"} <= set(kinds)


@pytest.mark.parametrize("verified_before", [True, False])
def test_an_old_database_put_back_is_found_by_whoever_saw_a_later_checkpoint(cli: Cli, verified_before: bool) -> None:
    cli.ok("up", "--port", "0")
    cli.ok("key", "create", "o/d")
    cli.ok("down")
    database = cli.home / "broker" / "broker.db"
    shutil.copy(database, cli.home / "old.db")
    cli.ok("up")
    cli.ok("key", "rotate", "o/d")
    if verified_before:
        cli.ok("audit", "verify")
    cli.ok("down")
    for path in (cli.home / "broker").glob("broker.db-*"):
        path.unlink()
    shutil.copy(cli.home / "old.db", database)
    cli.ok("up")
    done = cli.run("audit", "verify")
    if verified_before:
        done.refused(1, "audit-inconsistent")
        assert "removed" in done.err or "restored" in done.err
    else:  # said so in the documentation: nobody saw the later one
        assert done.status == 0


def test_an_edited_entry_is_found(cli: Cli) -> None:
    cli.ok("up", "--port", "0")
    cli.ok("key", "create", "o/d")
    cli.ok("audit", "verify")
    with sqlite3.connect(cli.home / "broker" / "broker.db") as database:
        tables = [row[0] for row in database.execute("select name from sqlite_master where type='table'")]
        table = next(name for name in tables if "entries" in name or "entry" in name)
        columns = [row[1] for row in database.execute(f"pragma table_info({table})")]
        assert "body" in columns
        for (trigger,) in database.execute("select name from sqlite_master where type='trigger'").fetchall():
            database.execute(f"drop trigger {trigger}")
        database.execute(f"update {table} set body = cast(replace(cast(body as text), 'o/d', 'o/e') as blob)")  # noqa: S608
    database.close()
    cli.run("audit", "verify").refused(1, "audit-inconsistent")


def test_a_damaged_memory_is_no_fresh_start(cli: Cli) -> None:
    cli.ok("up", "--port", "0")
    cli.ok("audit", "verify")
    (cli.home / "audit-checkpoint.json").write_text(json.dumps({"x": 1}))
    cli.run("audit", "verify").refused(1, "remembered-malformed")
