"""What a broker keeps: through restarts, kill -9, a tampered or rolled-back database; and no secret of it on disk."""

from __future__ import annotations

import base64
import json
import shutil
import signal
import sqlite3
import subprocess
import threading
import time
from pathlib import Path

import pytest
from tests.integration.broker.conftest import RunningBroker, command, free_port
from tests.integration.broker.test_administration import member
from tests.unit.broker.support import PATIENTS, REPORT, Machine

from casemate.broker.errors import (
    AuditInconsistentError,
    BrokerUnreachableError,
    RootKeyLockedError,
    RootKeyMissingError,
)
from casemate.broker.identity import Principal
from casemate.broker.setup import initialise
from casemate.broker.state import StateDirectory, host_names, open_broker
from casemate.crypto.errors import UnwrapError
from casemate.crypto.jose import KeyPair
from casemate.crypto.secret import Secret
from casemate.errors import CasemateError, FailedError
from casemate.model import DatasetName


def test_a_restart_keeps_keys_grants_generations_and_log(own_broker: RunningBroker) -> None:
    given = own_broker.give()
    with own_broker.client(own_broker.owner_key) as owner:
        key = owner.dataset_key(PATIENTS)
        owner.record_generation(REPORT, "file:///vault/report", 1, "1" * 64)
        seen = owner.verify_audit().checkpoint
        health = owner.health()
    assert own_broker.stop() == 0
    own_broker.start()
    with own_broker.client(own_broker.owner_key) as owner:
        assert owner.health() == health
        assert owner.dataset_key(PATIENTS) == key
        assert owner.generation(REPORT, "file:///vault/report") == (1, "1" * 64)
        assert given.id in {row["id"] for row in owner.grants()}
        assert owner.verify_audit(seen=[seen.jws]).size > seen.size


def test_kill_9_during_writes_leaves_every_write_whole_or_undone(own_broker: RunningBroker) -> None:
    """Four clients write as fast as they can; the broker is killed in the middle, three times over."""
    done: set[str] = set()
    for round_ in range(3):
        stop = threading.Event()

        def write(worker: int, number: int = round_, stop: threading.Event = stop) -> None:
            with own_broker.client(own_broker.owner_key) as owner:
                count = 0
                while not stop.is_set():
                    name = DatasetName("hospital", f"d{number}-{worker}-{count}")
                    count += 1
                    try:
                        owner.create_dataset(name)
                    except BrokerUnreachableError:
                        return
                    done.add(str(name))

        threads = [threading.Thread(target=write, args=(worker,)) for worker in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.7)
        own_broker.stop(signal.SIGKILL)
        stop.set()
        for thread in threads:
            thread.join()
        own_broker.start()  # verifies the whole log before it answers
    with own_broker.client(own_broker.owner_key) as owner:
        report = owner.verify_audit()
        logged = {e["subject"]["dataset"] for e in report.entries if e["kind"] == "dataset.create"}
        stored = {row["name"] for row in owner.datasets()}
        assert done <= stored
        assert stored == logged  # the deed and its entry were one
        for name in sorted(stored)[:5]:
            assert len(owner.dataset_key(DatasetName.parse(name))[1]) == 32
    assert len(done) > 6


def test_an_old_copy_of_the_database_shows_against_a_kept_checkpoint(own_broker: RunningBroker) -> None:
    own_broker.stop()
    old = own_broker.state.parent / "old.db"
    shutil.copy(own_broker.state / "broker.db", old)
    own_broker.start()
    with own_broker.client(own_broker.owner_key) as owner:
        owner.create_dataset(DatasetName("hospital", "later"))
        kept = owner.verify_audit().checkpoint.jws
    own_broker.stop()
    shutil.copy(old, own_broker.state / "broker.db")
    own_broker.start()
    with own_broker.client(own_broker.owner_key) as owner:
        owner.verify_audit()  # in itself it is a whole log
        with pytest.raises(AuditInconsistentError, match="old database"):
            owner.verify_audit(seen=[kept])
        for number in range(5):  # growing over the old size hides nothing: it is another branch
            owner.create_dataset(DatasetName("hospital", f"other-{number}"))
        with pytest.raises(AuditInconsistentError, match="another branch"):
            owner.verify_audit(seen=[kept])


def edit(database: Path, statement: str, *parameters: object) -> None:
    with sqlite3.connect(database) as connection:
        connection.execute(statement, parameters)
    connection.close()


TAMPERING = {
    "edited": ("UPDATE audit_entries SET body = replace(body, 'accepted', 'refused!') WHERE \"index\" = 2",),
    "deleted": ('DELETE FROM audit_entries WHERE "index" = 1',),
    "cut": (
        'DELETE FROM audit_entries WHERE "index" >= 3',
        "DELETE FROM audit_checkpoints WHERE size > 4",
    ),
    "without its checkpoint": ("DELETE FROM audit_checkpoints WHERE size = (SELECT max(size) FROM audit_checkpoints)",),
    "with another root": ("UPDATE audit_checkpoints SET jws = (SELECT jws FROM audit_checkpoints WHERE size = 1)",),
}


@pytest.mark.parametrize("statements", TAMPERING.values(), ids=TAMPERING.keys())
def test_a_tampered_log_keeps_the_broker_from_starting(tmp_path: Path, statements: tuple[str, ...]) -> None:
    state = small_broker(tmp_path)
    for statement in statements:
        edit(state.database, statement)
    with pytest.raises(AuditInconsistentError):
        open_broker(state, port=1)


def small_broker(tmp_path: Path) -> StateDirectory:
    """A state directory with a handful of log entries; nothing runs on it."""
    state = initialise(tmp_path / "broker", KeyPair.generate().public)
    for _ in range(4):
        initialise(state, KeyPair.generate().public)
    open_broker(state, port=1).close()
    return state


def test_a_database_swapped_under_a_running_broker_shows_at_the_next_write(tmp_path: Path) -> None:
    state = small_broker(tmp_path)
    broker = open_broker(state, port=1)
    statements = ('DELETE FROM audit_entries WHERE "index" >= 4', "DELETE FROM audit_checkpoints WHERE size > 4")
    for statement in statements:
        edit(state.database, statement)
    admin = Principal("x", None, admin=True)
    with pytest.raises(AuditInconsistentError):
        broker.registry.add_owner(admin, "hospital", KeyPair.generate().public)
    broker.close()


def test_no_key_lies_on_disk_in_any_form(broker: RunningBroker) -> None:
    broker.give()
    secrets: list[bytes] = []
    with broker.client(broker.owner_key) as owner:
        for name in (PATIENTS, REPORT):
            secrets += [owner.dataset_key(name)[1].reveal()]
            owner.rotate(name)
            secrets += [owner.dataset_key(name)[1].reveal()]
    attested = KeyPair.generate()
    with member(broker, attested) as driver:
        driver.job_certificate("job-a")
        token = driver._token or ""
        bearer = {"Authorization": f"Bearer {token}"}
        path = "/kbs/v0/resource/job/job-a/secret"
        sealed = driver._connection.exchange("GET", path, None, lambda: bearer, again=False)
        secrets.append(attested.unseal(json.loads(sealed.body)).reveal())
    state = StateDirectory(broker.state)
    root = state.open_root_key()
    secrets.append(root._root_key.reveal())
    secrets.append(state.authority(root).private_key.reveal())
    haystack = b"".join(path.read_bytes() for path in broker.state.parent.rglob("*") if path.is_file())
    assert b"hospital/patients" in haystack
    for secret in secrets:
        for form in (secret, secret.hex().encode(), base64.b64encode(secret), base64.urlsafe_b64encode(secret)):
            assert form.rstrip(b"=") not in haystack
    assert b"PRIVATE KEY" not in haystack
    assert b"DPoP ey" not in broker.log.read_bytes()
    assert "GET /v1/datasets" not in broker.log.read_text() or "location" not in broker.log.read_text()


def test_private_files_are_private(broker: RunningBroker) -> None:
    assert broker.state.stat().st_mode & 0o777 == 0o700
    for path in broker.state.rglob("*"):
        if path.is_file() and path.name != "ca.pem" and "trust" not in path.parts:
            assert path.stat().st_mode & 0o077 == 0, path


# --- starting ---


def run(state: Path, *options: str, port: int | None = None) -> tuple[int, str]:
    """A broker that is not expected to come up: its exit status and what it said."""
    ended = subprocess.run(command(state, port or free_port(), *options), capture_output=True, text=True, timeout=60)
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr
    return ended.returncode, ended.stderr


def test_a_taken_port_and_a_state_in_use_are_one_clear_line(own_broker: RunningBroker, tmp_path: Path) -> None:
    status, said = run(own_broker.state, port=free_port())
    assert (status, "state-in-use" in said) == (1, True)
    initialise(tmp_path / "second")
    status, said = run(tmp_path / "second", port=own_broker.port)
    assert status == 1
    assert said.splitlines()[0] == (
        f"failed: listen-failed: cannot listen on 127.0.0.1 port {own_broker.port}: the port is taken"
    )


def test_a_wrong_passphrase_and_a_missing_state_are_one_clear_line(tmp_path: Path) -> None:
    initialise(tmp_path / "state", passphrase=Secret(b"correct"))
    assert not (tmp_path / "state" / "root.passphrase").exists()
    (tmp_path / "wrong").write_text("incorrect\n")
    status, said = run(tmp_path / "state", "--passphrase-file", str(tmp_path / "wrong"))
    assert (status, "root-key-locked" in said) == (1, True)
    with pytest.raises(RootKeyMissingError, match=r"root\.passphrase"):
        open_broker(StateDirectory(tmp_path / "state"), port=1)
    with pytest.raises(RootKeyMissingError, match="nowhere"):
        open_broker(StateDirectory(tmp_path / "nowhere"), port=1)


def test_a_chosen_passphrase_opens(tmp_path: Path, machine: Machine) -> None:
    broker = RunningBroker(tmp_path / "state", machine)
    initialise(broker.state, broker.admin_key.public, passphrase=Secret(b"correct"))
    (tmp_path / "passphrase").write_text("correct\n")
    broker.start("--passphrase-file", str(tmp_path / "passphrase"), "--name", "broker.example")
    try:
        with broker.client(broker.admin_key) as admin:
            assert admin.owners() == []
    finally:
        assert broker.stop() == 0


def test_sigterm_ends_with_status_zero_and_finishes_what_is_under_way(own_broker: RunningBroker) -> None:
    assert own_broker.stop(signal.SIGTERM) == 0
    own_broker.start()
    assert own_broker.stop(signal.SIGINT) == 0


# --- setting up ---


def test_a_broker_sets_itself_up_for_an_administrator(tmp_path: Path, machine: Machine) -> None:
    broker = RunningBroker(tmp_path / "state", machine)
    private = tmp_path / "admin.pem"
    private.write_bytes(broker.admin_key.to_pem())
    status, said = run(broker.state, "--administrator", str(private))
    assert (status, "BEGIN PUBLIC KEY" in said) == (1, True)
    assert not broker.state.exists()
    public = tmp_path / "admin.pub.pem"
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
    try:
        for _ in range(2):
            broker.start("--administrator", str(public))
            with broker.client(broker.admin_key) as admin:
                assert admin.owners() == []
            assert broker.stop() == 0
    finally:
        broker.stop(signal.SIGKILL)


def test_setting_up_twice_changes_nothing(tmp_path: Path) -> None:
    admin = KeyPair.generate()
    state = initialise(tmp_path / "state", admin.public)

    def content() -> dict[str, bytes]:
        return {
            str(path): path.read_bytes()
            for path in state.root.rglob("*")
            if path.is_file() and not path.name.startswith("broker.db")
        }

    before = content()
    initialise(state, admin.public)
    assert content() == before
    broker = open_broker(state, port=1)
    assert broker.context.repository.engine  # type: ignore[attr-defined]
    with broker.context.repository.reading() as reader:
        assert reader.audit_size() == 2
    broker.close()


@pytest.mark.parametrize(
    "missing", ["ca.pem", "ca.key.wrapped", "token.key.wrapped", "broker.db", "policies/default.yaml"]
)
def test_a_setup_cut_short_is_finished_by_the_next(tmp_path: Path, missing: str) -> None:
    state = initialise(tmp_path / "state")
    for path in state.root.glob(f"{missing}*"):
        path.unlink()
    initialise(state)
    open_broker(state, port=1).close()


def test_a_lost_root_key_is_not_papered_over(tmp_path: Path) -> None:
    state = initialise(tmp_path / "state")
    state.root_key.unlink()
    with pytest.raises(RootKeyMissingError):
        initialise(state)
    with pytest.raises(RootKeyMissingError):
        open_broker(state, port=1)


def test_keys_of_another_broker_do_not_open(tmp_path: Path) -> None:
    one, two = initialise(tmp_path / "one"), initialise(tmp_path / "two")
    shutil.copy(one.token_key, two.token_key)
    with pytest.raises(UnwrapError):
        open_broker(two, port=1)
    shutil.copy(two.audit_key, two.token_key)  # right root key, wrong purpose
    with pytest.raises(UnwrapError):
        open_broker(two, port=1)
    with pytest.raises(RootKeyLockedError):
        open_broker(one, port=1, passphrase=Secret(b"guess"))


def test_a_database_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    state = initialise(tmp_path / "state")
    edit(state.database, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(FailedError, match="9999"):
        open_broker(state, port=1)


def test_a_broken_default_policy_or_trust_anchor_is_named(tmp_path: Path) -> None:
    state = initialise(tmp_path / "state")
    good = state.default_policy.read_text()
    state.default_policy.write_text("version: 1\n")
    with pytest.raises(CasemateError, match="policy"):
        open_broker(state, port=1)
    state.default_policy.write_text(good)
    (state.trust / "simulator_root.der").write_bytes(b"junk")
    with pytest.raises(CasemateError, match="trust anchor"):
        open_broker(state, port=1)


def test_host_names_say_what_the_broker_answers_for() -> None:
    hosts = host_names(["broker.example", "front.example:443"], 7443)
    assert {"127.0.0.1:7443", "localhost:7443", "[::1]:7443", "broker.example:7443", "front.example:443"} == hosts
    assert "broker.example" in host_names(["broker.example"], 443)


def test_the_log_on_disk_is_canonical_json(tmp_path: Path) -> None:
    state = small_broker(tmp_path)
    with sqlite3.connect(state.database) as connection:
        bodies = [row[0] for row in connection.execute('SELECT body FROM audit_entries ORDER BY "index"')]
    connection.close()
    assert [json.loads(body)["index"] for body in bodies] == list(range(len(bodies)))
