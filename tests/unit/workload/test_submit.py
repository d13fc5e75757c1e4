"""What a job's outcome is made of: the members' own words, told by a machine that plays its part over sockets."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.support.kbs_double import Authority
from tests.unit.workload.conftest import make_manifest

from casemate.attestation.platforms.simulator import wire
from casemate.attestation.platforms.simulator.client import LauncherClient, RunningTee
from casemate.errors import CasemateError, UndecidedError
from casemate.workload import submit as submit_module
from casemate.workload.manifest import WorkloadManifest
from casemate.workload.submit import Outcome, submit

Script = list[dict[str, Any]]
ADDRESS = {"event": "report", "role": "master", "phase": "address", "url": "spark://127.0.0.1:7077"}
ATTESTED = {"event": "report", "phase": "attested"}


def ended(role: str, outcome: str = "done", status: int = 0, **fields: Any) -> Script:
    return [
        {"event": "report", "role": role, "outcome": outcome, **fields},
        {"event": "exited", "status": status},
    ]


class PlayedMachine(LauncherClient):
    """Launches nothing: each member's events are in the script of its role, and come as soon as it is launched."""

    def __init__(self, scripts: Mapping[str, list[Script]], says: str = "") -> None:
        super().__init__(Path("/nowhere"))
        self._scripts = {role: list(scripts_) for role, scripts_ in scripts.items()}
        self._says = says
        self.launched: list[tuple[str, dict[str, str]]] = []
        self._ends: list[socket.socket] = []

    def launch(self, manifest: Mapping[str, Any], **options: Any) -> RunningTee:
        role = options["role"]
        self.launched.append((role, dict(options["environment"])))
        os.write(options["stdio"][2], self._says.encode())
        ours, theirs = socket.socketpair()
        for event in self._scripts[role].pop(0):
            wire.send(ours, event)
        self._ends.append(ours)
        threading.Thread(target=self._until_killed, args=(ours,), daemon=True).start()
        return RunningTee(theirs, {"tee": role, "pid": 1, "measurement": "aa", "workload": "bb"})

    @staticmethod
    def _until_killed(ours: socket.socket) -> None:
        with contextlib.suppress(CasemateError):
            if wire.receive(ours) == {"op": "kill"}:
                wire.send(ours, {"event": "exited", "status": 137})

    def close(self) -> None:
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@pytest.fixture
def cluster(program: Path) -> WorkloadManifest:
    settings = {"master": "standalone", "workers": 2}
    url, ca = "https://127.0.0.1:1", Authority().pem
    return make_manifest(program, url, ca, engine="spark", engine_settings=settings)[0]


def outcome_of(
    manifest: WorkloadManifest, tmp_path: Path, scripts: Mapping[str, list[Script]], says: str = ""
) -> tuple[Outcome, PlayedMachine, list[Mapping[str, Any]]]:
    heard: list[Mapping[str, Any]] = []
    machine = PlayedMachine(scripts, says)
    try:
        null = os.open(os.devnull, os.O_RDWR)
        outcome = submit(manifest, tmp_path, machine, heard.append, job="job-1", stdio=(null, null, null))
        os.close(null)
    finally:
        machine.close()
    return outcome, machine, heard


def test_a_cluster_is_a_master_then_workers_then_the_driver(cluster: WorkloadManifest, tmp_path: Path) -> None:
    running: list[Script] = [[{**ATTESTED, "role": "worker"}, {**ATTESTED, "role": "executor"}]] * 2
    scripts = {"master": [[{**ATTESTED, "role": "master"}, ADDRESS]], "worker": running, "driver": [ended("driver")]}
    outcome, machine, heard = outcome_of(cluster, tmp_path, scripts)
    assert (outcome.outcome, outcome.exit_status, outcome.job) == ("done", 0, "job-1")
    assert [role for role, _ in machine.launched] == ["master", "worker", "worker", "driver"]
    assert [env.get("CASEMATE_MASTER") for _, env in machine.launched] == [None, *["spark://127.0.0.1:7077"] * 3]
    assert {event["member"] for event in heard} == {"master", "worker-1", "worker-2", "driver"}


def test_a_master_that_ends_is_told_with_its_last_words(cluster: WorkloadManifest, tmp_path: Path) -> None:
    scripts: dict[str, list[Script]] = {"master": [[{"event": "exited", "status": 137}]]}
    outcome, machine, _ = outcome_of(cluster, tmp_path, scripts, says="first\njava: out of memory\n\n")
    assert (outcome.outcome, outcome.code, outcome.member) == ("failed", "member-lost", "master")
    assert outcome.message == "master: ended with status 137: java: out of memory"
    assert len(machine.launched) == 1


def test_a_master_that_is_never_ready_is_given_up(
    cluster: WorkloadManifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submit_module, "READY_TIMEOUT", 0.2)
    outcome, _, _ = outcome_of(cluster, tmp_path, {"master": [[]]})
    assert outcome.code == "member-lost"
    assert "not ready" in outcome.message


@pytest.mark.parametrize("fields", [{"code": "grant-missing", "message": "m", "hint": "h", "refusal_id": "r-1"}])
def test_a_refused_member_speaks_for_the_job(cluster: WorkloadManifest, tmp_path: Path, fields: dict[str, Any]) -> None:
    for role in ("master", "worker", "driver"):
        said = ended(role, "refused", 1, **fields)
        scripts: dict[str, list[Script]] = {"master": [[ADDRESS]], "worker": [[], []], "driver": [[]]}
        scripts[role][0] = said
        outcome, _, _ = outcome_of(cluster, tmp_path, scripts)
        assert (outcome.outcome, outcome.exit_status) == ("refused", 1)
        assert (outcome.code, outcome.message, outcome.hint, outcome.refusal_id) == ("grant-missing", "m", "h", "r-1")
        assert outcome.member.startswith(role)


def test_one_lost_worker_of_two_is_sparks_business_both_are_the_jobs(cluster: WorkloadManifest, tmp_path: Path) -> None:
    lost: Script = [{"event": "exited", "status": 137}]
    scripts = {"master": [[ADDRESS]], "worker": [lost, []], "driver": [ended("driver")]}
    assert outcome_of(cluster, tmp_path, scripts)[0].outcome == "done"
    scripts = {"master": [[ADDRESS]], "worker": [lost, lost], "driver": [[]]}
    assert outcome_of(cluster, tmp_path, scripts)[0].code == "member-lost"


def test_an_executors_refusal_explains_a_failed_program(cluster: WorkloadManifest, tmp_path: Path) -> None:
    refused = {"event": "report", "role": "executor", "outcome": "refused", "code": "grant-revoked", "message": "m"}
    failed = ended("driver", "failed", 1, code="program-ended", message="status 1")
    scripts: dict[str, list[Script]] = {"master": [[ADDRESS]], "worker": [[refused], []], "driver": [failed]}
    outcome, _, _ = outcome_of(cluster, tmp_path, scripts)
    assert (outcome.outcome, outcome.code, outcome.member) == ("refused", "grant-revoked", "executor")


@pytest.mark.parametrize(("outcome", "status"), [("undecided", 3), ("failed", 1), ("refused", 1), ("done", 0)])
def test_the_exit_status_follows_the_outcome(outcome: str, status: int) -> None:
    assert Outcome(outcome, "job-1").exit_status == status


def test_a_program_killed_without_a_word_is_a_failure(program: Path, tmp_path: Path) -> None:
    manifest, _ = make_manifest(program, "https://127.0.0.1:1", Authority().pem)
    outcome, _, _ = outcome_of(manifest, tmp_path, {"task": [[{"event": "exited", "status": 137}]]})
    assert (outcome.outcome, outcome.code) == ("failed", "program-ended")
    assert "137" in outcome.message


def test_a_machine_that_goes_away_leaves_nothing_open(program: Path, tmp_path: Path) -> None:
    manifest, _ = make_manifest(program, "https://127.0.0.1:1", Authority().pem)

    class Going(PlayedMachine):
        def launch(self, manifest: Mapping[str, Any], **options: Any) -> RunningTee:
            tee = super().launch(manifest, **options)
            self.close()
            return tee

    with pytest.raises(UndecidedError):
        submit(manifest, tmp_path, Going({"task": [[]]}))
