"""What every repository promises. A new database gets a subclass with its ``repository`` fixture."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from casemate.broker.storage.migrate import upgrade
from casemate.broker.storage.repository import (
    AttestedRow,
    CheckpointRow,
    EntryRow,
    GenerationRow,
    GrantRow,
    JobRow,
    OwnerRow,
    PolicyRow,
    Repository,
    SessionRow,
)
from casemate.broker.storage.schema import metadata
from casemate.broker.storage.sql import SqlRepository, open_engine

NOW = datetime(2026, 11, 23, 12, 0, 0, 123456, tzinfo=UTC)
OWNER = OwnerRow("hospital", "t" * 43, {"kty": "EC"}, NOW)
SESSION = SessionRow("h" * 64, "nonce", "tdx", "job", "driver", NOW, NOW + timedelta(minutes=5))
ATTESTED = AttestedRow("token-1", "a.b.c", "d" * 96, "json", "{}")


class RepositoryContract:
    """Subclasses provide ``repository``: empty, with its tables."""

    @pytest.fixture(autouse=True)
    def _owner(self, repository: Repository) -> None:
        with repository.writing() as writer:
            assert writer.add_owner(OWNER)
            assert writer.add_dataset("hospital/patients", "hospital", NOW)
            assert writer.add_key("hospital/patients", 1, b"\0wrapped", NOW)

    def test_what_was_written_is_read_back_to_the_microsecond(self, repository: Repository) -> None:
        policy = PolicyRow("ab" * 32, "p", "yaml: 'ä'", NOW)
        with repository.writing() as writer:
            assert writer.add_policy(policy)
        with repository.reading() as reader:
            assert reader.owner("hospital") == reader.owner_by_thumbprint("t" * 43) == OWNER
            assert reader.policy("ab" * 32) == policy
            assert reader.policies() == [policy]
            dataset = reader.dataset("hospital/patients")
            assert dataset is not None
            assert (dataset.version, dataset.created) == (1, NOW)
            assert reader.wrapped_key("hospital/patients", 1) == b"\0wrapped"

    def test_what_is_not_there_is_none(self, repository: Repository) -> None:
        with repository.reading() as reader:
            assert reader.owner("x") is reader.dataset("x/y") is reader.policy("x") is reader.grant("x") is None
            assert reader.job("x") is reader.session("x") is reader.session_by_token("x") is None
            assert reader.wrapped_key("hospital/patients", 2) is reader.checkpoint() is None
            assert reader.entry_of_refusal("x") is None
            assert reader.generation("hospital/patients", "file:///x") == GenerationRow(0, None)
            assert reader.entries(0, 10) == reader.leaves(10) == reader.grants() == []
            assert reader.audit_size() == 0
            assert not reader.is_admin("x")

    def test_adding_twice_is_told_and_changes_nothing(self, repository: Repository) -> None:
        with repository.writing() as writer:
            assert not writer.add_owner(OwnerRow("hospital", "u" * 43, {}, NOW))
            assert not writer.add_owner(OwnerRow("other", "t" * 43, {}, NOW))
            assert not writer.add_dataset("hospital/patients", "hospital", NOW)
            assert not writer.add_key("hospital/patients", 1, b"other", NOW)
            assert writer.add_proof("t", "jti", NOW)
            assert not writer.add_proof("t", "jti", NOW)
            assert writer.add_proof("u", "jti", NOW)
            assert writer.wrapped_key("hospital/patients", 1) == b"\0wrapped"

    def test_a_block_that_raises_leaves_nothing(self, repository: Repository) -> None:
        def half() -> None:
            with repository.writing() as writer:
                writer.add_dataset("hospital/half", "hospital", NOW)
                raise RuntimeError("power cut")

        with pytest.raises(RuntimeError):
            half()
        with repository.reading() as reader:
            assert [row.name for row in reader.datasets()] == ["hospital/patients"]

    def test_a_reader_sees_one_moment(self, repository: Repository) -> None:
        with repository.reading() as reader:
            assert len(reader.datasets()) == 1
            with repository.writing() as writer:
                writer.add_dataset("hospital/report", "hospital", NOW)
                writer.add_key("hospital/report", 1, b"x", NOW)
            assert len(reader.datasets()) == 1
        with repository.reading() as reader:
            assert len(reader.datasets()) == 2

    def test_the_latest_key_version_is_the_datasets(self, repository: Repository) -> None:
        with repository.writing() as writer:
            for version in (2, 3):
                assert writer.add_key("hospital/patients", version, b"x", NOW)
            dataset = writer.dataset("hospital/patients")
            assert dataset is not None
            assert dataset.version == 3

    def test_grants_are_found_by_dataset_and_carry_their_uses(self, repository: Repository) -> None:
        with repository.writing() as writer:
            assert writer.add_grant(GrantRow("g", "hospital", "jws", NOW, None), ["hospital/patients"])
            assert not writer.add_grant(GrantRow("g", "hospital", "other", NOW, None), ["hospital/patients"])
            writer.add_job(JobRow("job", "w", NOW))
            assert writer.add_use("g", "job", "a", NOW)
            assert not writer.add_use("g", "job", "a", NOW)
            assert writer.add_use("g", "job", "b", NOW)
            assert writer.revoke_grant("g", NOW)
            assert not writer.revoke_grant("g", NOW + timedelta(days=1))
        with repository.reading() as reader:
            (found,) = reader.grants_for("hospital/patients", NOW)
            assert found == reader.grant("g") == reader.grants("hospital")[0]
            assert found.openers == {("job", "a"), ("job", "b")}
            assert (found.jws, found.revoked) == ("jws", NOW)
            assert reader.grants_for("hospital/other", NOW) == reader.grants("clinic") == []

    def test_live_grants_are_all_found_and_of_ended_ones_the_newest(self, repository: Repository) -> None:
        def made(name: str, minute: int, end: datetime | None) -> GrantRow:
            return GrantRow(name, "hospital", "jws", NOW + timedelta(minutes=minute), None, not_after=end)

        with repository.writing() as writer:
            for i in range(60):
                writer.add_grant(made(f"ended-{i}", i, NOW), ["hospital/patients"])
            for i in range(60):
                writer.add_grant(made(f"live-{i}", i - 100, NOW + timedelta(days=1)), ["hospital/patients"])
            writer.add_grant(made("undated", -200, None), ["hospital/patients"])
            writer.add_grant(made("revoked", -200, NOW + timedelta(days=1)), ["hospital/patients"])
            writer.revoke_grant("revoked", NOW)
            found = {row.id for row in writer.grants_for("hospital/patients", NOW)}
        assert {f"live-{i}" for i in range(60)} | {"undated", "ended-59"} <= found
        assert not {"ended-0", "revoked"} & found

    def test_a_challenge_is_used_once(self, repository: Repository) -> None:
        attested = replace(SESSION, state="attested", attested=ATTESTED)
        with repository.writing() as writer:
            assert writer.add_session(attested)
            assert not writer.add_session(attested)
            assert not writer.add_session(SESSION)
        with repository.reading() as reader:
            assert reader.session_by_token("token-1") == reader.session("h" * 64) == attested

    def test_a_spent_challenge_attests_nothing(self, repository: Repository) -> None:
        with repository.writing() as writer:
            assert writer.add_session(SESSION)
            assert writer.session("h" * 64) == SESSION
        with repository.writing() as writer:
            assert not writer.add_session(replace(SESSION, state="attested", attested=ATTESTED))
            assert writer.session("h" * 64) == SESSION
            assert writer.session_by_token("token-1") is None

    def test_purging_forgets_what_ended_before(self, repository: Repository) -> None:
        with repository.writing() as writer:
            writer.add_session(SESSION)
            writer.add_proof("t", "jti", NOW)
            writer.purge(NOW)
            assert writer.session("h" * 64) is not None
            writer.purge(NOW + timedelta(hours=1))
            assert writer.session("h" * 64) is None
            assert writer.add_proof("t", "jti", NOW)

    def test_a_generation_is_swapped_only_after_its_predecessor(self, repository: Repository) -> None:
        with repository.writing() as writer:

            def swap(number: int, digest: str) -> bool:
                return writer.swap_generation("hospital/patients", "file:///x", number, digest * 64, NOW)

            assert not swap(2, "0")
            assert swap(1, "1")
            assert not swap(1, "2")
            assert not swap(3, "3")
            assert swap(2, "2")
            assert writer.generation("hospital/patients", "file:///x") == GenerationRow(2, "2" * 64)

    def test_of_writers_that_race_each_sees_what_the_one_before_wrote(self, repository: Repository) -> None:
        def add() -> None:
            with repository.writing() as writer:
                number = writer.generation("hospital/patients", "file:///x").number
                assert writer.swap_generation("hospital/patients", "file:///x", number + 1, "0" * 64, NOW)

        threads = [threading.Thread(target=add) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with repository.reading() as reader:
            assert reader.generation("hospital/patients", "file:///x").number == 12

    def test_entries_come_back_in_order_with_their_checkpoints(self, repository: Repository) -> None:
        with repository.writing() as writer:
            for index in range(3):
                writer.append_entry(
                    EntryRow(index, f"body {index}".encode(), bytes([index] * 32), f"r-{index}"),
                    CheckpointRow(index + 1, bytes(32), (b"a" * 32, b"b" * 32), f"jws {index}"),
                )
        with repository.reading() as reader:
            assert [row.index for row in reader.entries(1, 9)] == [1, 2]
            assert reader.leaves(2) == [bytes(32), b"\1" * 32]
            assert reader.audit_size() == 3
            latest, first = reader.checkpoint(), reader.checkpoint(1)
            assert latest is not None
            assert first is not None
            assert (latest.size, latest.frontier) == (3, (b"a" * 32, b"b" * 32))
            assert first.jws == "jws 0"
            found = reader.entry_of_refusal("r-1")
            assert found is not None
            assert found.body == b"body 1"


class TestSqlite(RepositoryContract):
    @pytest.fixture
    def repository(self, tmp_path: Path) -> Iterator[Repository]:
        engine = open_engine(f"sqlite:///{tmp_path}/broker.db")
        upgrade(engine)
        made = SqlRepository(engine)
        yield made
        made.close()


def test_a_database_of_the_first_schema_keeps_its_grants(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path}/broker.db")
    upgrade(engine, "0001")
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO owners VALUES ('hospital', 't', '{}', 1)")
        connection.exec_driver_sql("INSERT INTO datasets VALUES ('hospital/patients', 'hospital', 1)")
        connection.exec_driver_sql("INSERT INTO grants VALUES ('g', 'hospital', 'jws', 1, NULL)")
        connection.exec_driver_sql("INSERT INTO grant_datasets VALUES ('hospital/patients', 'g')")
    upgrade(engine)
    repository = SqlRepository(engine)
    with repository.reading() as reader:
        (kept,) = reader.grants_for("hospital/patients", NOW)
    assert (kept.id, kept.jws, kept.not_after) == ("g", "jws", None)
    repository.close()


def test_the_migrations_make_exactly_the_schema(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path}/broker.db")
    upgrade(engine)
    upgrade(engine)  # again: nothing to do
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    engine.dispose()
