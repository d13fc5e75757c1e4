"""Jobs of one plain process against the real broker and the real simulated machine: what runs, and what does not."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.support.stage import Job, Stage

from casemate.workload.manifest import WorkloadManifest
from casemate.workload.submit import submit

READ_KEY = """
import sys, time
from casemate.data.client import AgentClient
from casemate.model import DatasetName
client = AgentClient.from_environment()
print("key version", client.current_key(DatasetName("hospital", "patients")).version, flush=True)
time.sleep(float(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(tmp_path_factory.mktemp("stage"), token_seconds=4) as stage:
        (stage.root / "plain.csv").write_text("id\n1\n")
        stage.encrypt("patients", stage.root / "plain.csv", stage.root / "vault")
        yield stage


def new_job(stage: Stage, seconds: float = 0, **options: Any) -> Job:
    from casemate.model import Access
    from casemate.workload.build import zone_entry

    program = stage.root / "read_key.py"
    program.write_text(READ_KEY)
    zone = zone_entry(stage.dataset("patients"), str(stage.root / "vault"), Access.READ)
    return stage.job(program, [str(seconds)], [zone], engine="plain", **options)


def processes_of(stage: Stage) -> list[str]:
    return [" ".join(p.cmdline()) for p in psutil.Process(stage.host_pid).children(recursive=True)]


def test_a_granted_program_gets_its_key_and_leaves_nothing(stage: Stage) -> None:
    job = new_job(stage)
    outcome = stage.run(job)
    assert (outcome.outcome, outcome.exit_status, outcome.attestations) == ("done", 0, 1), job.output
    assert "key version 1" in job.output
    assert processes_of(stage) == []
    assert outcome.seconds["attested task"] < 5


def test_without_a_grant_no_key(stage: Stage) -> None:
    job = new_job(stage, 0.001, granted=False)
    outcome = stage.run(job)
    assert (outcome.outcome, outcome.exit_status) == ("refused", 1)
    assert outcome.code in ("grant-missing", "grant-workload-mismatch")
    assert outcome.refusal_id is not None
    assert stage.client.explain(outcome.refusal_id)
    assert job.output == ""


def test_another_argument_than_the_granted_one_is_refused(stage: Stage) -> None:
    granted = new_job(stage, 0.002)
    other = WorkloadManifest.from_json({**granted.manifest.to_json(), "arguments": ["0.003"]})
    outcome = stage.run(Job(other, granted.bundle))
    assert (outcome.outcome, outcome.code) == ("refused", "grant-workload-mismatch")


def test_a_program_changed_by_one_byte_is_refused_inside_the_tee(stage: Stage) -> None:
    job = new_job(stage, 0.004)
    path = job.bundle / "read_key.py"
    path.write_bytes(path.read_bytes().replace(b"key version", b"Key version"))
    outcome = stage.run(job)
    assert (outcome.outcome, outcome.code) == ("refused", "program-changed")
    assert "read_key.py: expected SHA-256 " in outcome.message
    assert job.output == ""


def test_an_expired_grant_is_refused(stage: Stage) -> None:
    job = new_job(stage, 0.005, granted=False)
    now = datetime.now(UTC)
    stage.grant(job.manifest, not_before=now - timedelta(days=2), not_after=now - timedelta(days=1))
    assert stage.run(job).code == "grant-expired"


def test_revoking_the_grant_stops_the_running_program(stage: Stage) -> None:
    job = new_job(stage, 120)
    assert job.grant is not None
    grant = job.grant
    started = time.monotonic()

    def revoke(event: Mapping[str, Any]) -> None:
        if event.get("phase") == "started":
            stage.client.revoke_grant(grant)

    outcome = stage.run(job, revoke)
    assert (outcome.outcome, outcome.code) == ("refused", "grant-revoked")
    assert time.monotonic() - started < 30
    assert processes_of(stage) == []


def test_killing_casemate_run_leaves_no_process(stage: Stage) -> None:
    job = new_job(stage, 121)

    def kill(event: Mapping[str, Any]) -> None:
        if event.get("phase") == "started":
            parent = psutil.Process(int(event["pid"])).ppid()
            os.kill(parent, signal.SIGKILL)

    outcome = stage.run(job, kill)
    assert (outcome.outcome, outcome.code) == ("failed", "program-ended")
    assert processes_of(stage) == []


def test_an_interrupted_submitter_leaves_no_process(stage: Stage) -> None:
    job = new_job(stage, 122)

    def interrupt(event: Mapping[str, Any]) -> None:
        if event.get("phase") == "started":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        submit(job.manifest, job.bundle, stage.launcher, interrupt)
    assert processes_of(stage) == []


def test_a_submitter_cannot_choose_the_tees_manifest_or_code(stage: Stage) -> None:
    from casemate.errors import CasemateError

    job = new_job(stage, 0.006)
    for name in ("CASEMATE_MANIFEST", "PYTHONPATH", "LD_PRELOAD"):
        with pytest.raises(CasemateError):
            stage.launcher.launch(job.manifest.to_json(), job="x", role="task", environment={name: "x"}, cwd=stage.root)


def test_private_memory_is_empty_again(stage: Stage) -> None:
    left = [p for base in Path("/dev/shm").glob(f"casemate-tee-{stage.host_pid}-*") for p in base.iterdir()]
    assert left == []


def test_a_broker_that_is_away_is_undecided(tmp_path: Path) -> None:
    with Stage(tmp_path) as stage:
        stage.dataset("patients")
        job = new_job(stage, 0.007)
        stage.stop_broker()
        outcome = stage.run(job)
    assert (outcome.outcome, outcome.exit_status, outcome.code) == ("undecided", 3, "key-broker-unreachable")
