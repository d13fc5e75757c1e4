"""The broker on PostgreSQL: the same promises, also with two brokers on one database, and when either is killed."""

from __future__ import annotations

import itertools
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from tests.contract.broker.test_repository import NOW, OWNER, RepositoryContract
from tests.integration.broker.conftest import RunningBroker, populate
from tests.integration.broker.test_administration import broker_context
from tests.support.postgres import PostgresServer, binaries, postgres_server
from tests.unit.broker.support import PATIENTS, Machine, manifest, text

from casemate.attestation.binding import report_data
from casemate.broker.errors import (
    RequestMalformedError,
    StorageDriverError,
    StorageUnreachableError,
)
from casemate.broker.serve import main
from casemate.broker.setup import initialise
from casemate.broker.storage.migrate import upgrade
from casemate.broker.storage.repository import OwnerRow, Repository
from casemate.broker.storage.schema import metadata
from casemate.broker.storage.sql import SqlRepository, open_engine
from casemate.crypto.jose import KeyPair

PROGRAMS = binaries()
pytestmark = [
    pytest.mark.xdist_group("postgres"),  # one server for all of them
    pytest.mark.skipif(PROGRAMS is None, reason="needs PostgreSQL's server programs (Debian: postgresql)"),
]
_TABLES = ", ".join(f'"{name}"' for name in metadata.tables)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    pytest.importorskip("psycopg", reason="needs the extra postgres")
    assert PROGRAMS is not None
    with postgres_server(PROGRAMS) as running:
        yield running


@pytest.fixture
def repository(server: PostgresServer) -> Iterator[SqlRepository]:
    """An empty database with its tables."""
    engine = open_engine(server.url)
    upgrade(engine)
    with engine.connect().execution_options(casemate_writes=True) as connection, connection.begin():
        connection.exec_driver_sql(f"TRUNCATE {_TABLES}")
    yield SqlRepository(engine)
    engine.dispose()


class TestPostgres(RepositoryContract):
    """Every promise of a repository."""

    def test_what_no_column_holds_is_refused_and_changes_nothing(self, repository: Repository) -> None:
        for name in ("x" * 64, "nul\0"):
            with pytest.raises(RequestMalformedError), repository.writing() as writer:
                writer.add_owner(OwnerRow(name, "u" * 43, {}, NOW))
        with repository.reading() as reader:
            assert reader.owners() == [OWNER]

    def test_the_longest_location_has_a_generation(self, repository: Repository) -> None:
        location = "file:///" + "é" * 1020  # 2,048 bytes
        with repository.writing() as writer:
            assert writer.swap_generation("hospital/patients", location, 1, "1" * 64, NOW)

    def test_the_migrations_make_exactly_the_schema(self, repository: SqlRepository) -> None:
        with repository.engine.connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection), metadata) == []

    def test_a_commit_is_on_disk_whatever_the_role_says(
        self, repository: SqlRepository, server: PostgresServer
    ) -> None:
        with repository.writing() as writer:
            writer._connection.exec_driver_sql("ALTER ROLE casemate SET synchronous_commit = off")  # type: ignore[attr-defined]
        engine = open_engine(server.url)
        try:
            with engine.connect() as connection:
                assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"
        finally:
            engine.dispose()
            with repository.writing() as writer:
                writer._connection.exec_driver_sql("ALTER ROLE casemate RESET synchronous_commit")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://db.example/casemate?sslmode=require", "verify-full"),
        ("postgresql+psycopg2://db.example/casemate", "psycopg2"),
        ("mysql://db.example/casemate", "mysql"),
        ("nonsense", "postgresql://"),
    ],
)
def test_a_database_url_that_cannot_be_used_says_why(url: str, said: str) -> None:
    with pytest.raises(StorageDriverError, match=said):
        open_engine(url)


def test_a_server_elsewhere_has_to_show_its_certificate() -> None:
    engine = open_engine("postgresql://casemate@db.example/casemate")
    assert engine.url.query["sslmode"] == "verify-full"


def test_a_password_does_not_go_into_the_process_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--state", str(tmp_path), "--database-url", "postgresql://casemate:hunter2@/casemate"]) == 1
    said = capsys.readouterr().err
    assert "PGPASSFILE" in said
    assert "hunter2" not in said


# --- two brokers on one database ---


@pytest.fixture(scope="module")
def shared(server: PostgresServer) -> str:
    """The URL of a database of the brokers' own."""
    engine = open_engine(server.url)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT", casemate_writes=True) as connection:
        connection.connection.driver_connection.execute("CREATE DATABASE shared")  # type: ignore[union-attr]
    engine.dispose()
    return server.url.replace("/postgres?", "/shared?")


@pytest.fixture(scope="module")
def brokers(
    shared: str, tmp_path_factory: pytest.TempPathFactory, machine: Machine
) -> Iterator[tuple[RunningBroker, RunningBroker]]:
    """Two brokers of one state (root key, authority, signing keys) on one database."""
    one, two = (tmp_path_factory.mktemp(name) / "broker" for name in ("one", "two"))
    first = RunningBroker(one, machine)
    initialise(first.state, first.admin_key.public, database_url=shared)
    machine.write_trust(first.state / "trust")
    assert not first.state.joinpath("broker.db").exists()
    shutil.copytree(one, two)
    second = RunningBroker(two, machine, first.admin_key, first.owner_key)
    try:
        for broker in (first, second):
            start(broker, shared)
        populate(first)
        yield first, second
    finally:
        for broker in (first, second):
            broker.stop(signal.SIGKILL)


def start(broker: RunningBroker, url: str) -> None:
    broker.start("--database-url", url, "--issuer", "https://broker.example")


@dataclass
class Work:
    """A workload that a grant is for."""

    brokers: tuple[RunningBroker, RunningBroker]
    manifest: dict[str, Any]
    grant: str

    @classmethod
    def agreed(cls, brokers: tuple[RunningBroker, RunningBroker], name: str, **terms: Any) -> Work:
        workload = manifest(name=name)
        return cls(brokers, workload, brokers[0].give(workload=workload, **terms).id)

    def guest(self, at: int, job: str) -> Guest:
        return Guest(self.brokers[at], self.manifest, f"{self.manifest['name']}-{job}")

    def released(self, at: int) -> set[str]:
        """The jobs with a release in the log, which is whole; the grant's count is the same."""
        broker = self.brokers[at]
        with broker.client(broker.owner_key) as owner:
            report = owner.verify_audit()
            (given,) = [row for row in owner.grants() if row["id"] == self.grant]
        entries = [e for e in report.entries if (e["kind"], e["outcome"]) == ("release", "accepted")]
        jobs = [e["subject"]["job"] for e in entries if e["subject"]["grant"] == self.grant]
        assert given["releases"] == len(set(jobs))
        return set(jobs)

    def while_released(self, harm: Callable[[], object]) -> set[str]:
        """Attest and release at both, do harm meanwhile, go on for a while: the jobs that were answered with a key."""
        done: set[str] = set()
        stop = threading.Event()

        def work(worker: int) -> None:
            for count in itertools.count():
                if stop.is_set():
                    return
                try:
                    guest = self.guest(worker % 2, f"{worker}-{count}")
                    if guest.attest() == guest.release() == "accepted":
                        done.add(guest.job)
                except (httpx.HTTPError, ValueError, KeyError):
                    time.sleep(0.05)

        threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
        for thread in threads:
            thread.start()
        try:
            wait_for(lambda: len(done) > 6)
            harm()
            before = len(done)
            wait_for(lambda: len(done) > before + 3)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        return done


class Guest:
    """An attested process with plain HTTP: attests and asks for a key, wherever it is sent."""

    def __init__(self, broker: RunningBroker, workload: dict[str, Any], job: str) -> None:
        self.broker, self.workload, self.job, self.key = broker, workload, job, KeyPair.generate()
        self.context, self.cookies = broker_context(broker), httpx.Cookies()
        extra = {"casemate": {"job": job, "role": "driver"}}
        body = {"version": "0.4.0", "tee": "tdx", "extra-params": extra}
        answer = self._ask("POST", "/kbs/v0/auth", None, json=body)
        self.nonce, self.cookies = answer.json()["nonce"], answer.cookies

    def attest(self, at: RunningBroker | None = None) -> str:
        """``accepted``, or the code of the refusal."""
        quote = self.broker.quote(report_data(self.nonce, self.key.public), self.workload)
        message = {
            "init-data": {"format": "json", "body": text(self.workload)},
            "runtime-data": {"nonce": self.nonce, "tee-pubkey": self.key.public},
            "tee-evidence": {"primary_evidence": {"quote": quote}, "additional_evidence": ""},
        }
        return self._code("POST", "/kbs/v0/attest", at, json=message)

    def release(self, at: RunningBroker | None = None) -> str:
        return self._code("GET", f"/kbs/v0/resource/{PATIENTS}/current", at)

    def _code(self, method: str, path: str, at: RunningBroker | None, **body: Any) -> str:
        answer = self._ask(method, path, at, **body)
        return "accepted" if answer.status_code == 200 else str(answer.json()["code"])

    def _ask(self, method: str, path: str, at: RunningBroker | None, **body: Any) -> httpx.Response:
        url = f"{(at or self.broker).url}{path}"
        with httpx.Client(verify=self.context, trust_env=False, timeout=30, cookies=self.cookies) as http:
            return http.request(method, url, **body)


def test_two_brokers_share_challenges_counts_and_one_log(brokers: tuple[RunningBroker, RunningBroker]) -> None:
    first, second = brokers
    work = Work.agreed(brokers, "shared", max_releases=5)
    moved = work.guest(0, "moved")
    assert moved.attest(at=second) == "accepted"  # challenged by one, answered to the other
    assert moved.attest(at=first) == "challenge-unknown"  # and used up for both
    assert moved.release(at=first) == "accepted"
    guests = [work.guest(number % 2, f"{number}") for number in range(8)]
    assert at_once(Guest.attest, guests) == ["accepted"] * 8
    assert sorted(at_once(Guest.release, guests)) == ["accepted"] * 4 + ["grant-exhausted"] * 4  # of five in all
    with second.client(second.owner_key) as owner:
        owner.revoke_grant(work.grant)
    assert moved.release(at=first) == "grant-revoked"
    assert len(work.released(0)) == 5
    assert work.released(0) == work.released(1)


def test_a_broker_killed_in_the_middle_loses_nothing(brokers: tuple[RunningBroker, RunningBroker], shared: str) -> None:
    work = Work.agreed(brokers, "broker-killed")
    answered = work.while_released(lambda: brokers[0].stop(signal.SIGKILL))
    assert answered <= work.released(1)  # the lock went with the broker that held it
    start(brokers[0], shared)  # verifies the log, too
    assert answered <= work.released(0)


def test_a_database_killed_in_the_middle_loses_nothing(
    brokers: tuple[RunningBroker, RunningBroker], server: PostgresServer
) -> None:
    work = Work.agreed(brokers, "database-killed")

    def crash() -> None:
        server.kill()
        with pytest.raises(StorageUnreachableError), brokers[0].client(brokers[0].owner_key) as owner:
            owner.datasets()
        server.start()

    answered = work.while_released(crash)
    for at in range(2):  # without a restart
        assert work.guest(at, f"after-{at}").attest() == "accepted"
        assert answered <= work.released(at)


def at_once(ask: Callable[[Guest], str], guests: list[Guest]) -> list[str]:
    with ThreadPoolExecutor(len(guests)) as pool:
        return list(pool.map(ask, guests))


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
