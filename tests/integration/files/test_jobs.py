"""Whole jobs on zones as plain files, from the manifest to the outcome that the submitter is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.plain_programs import BOTH, needs_fuse
from tests.support.stage import Job, Stage

from casemate.model import Access
from casemate.workload.build import zone_entry

CANARY = "Ada-Lovelace-0815"


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(tmp_path_factory.mktemp("stage")) as stage:
        plain = stage.root / "plain"
        plain.mkdir()
        (plain / "rows.csv").write_text("id,name\n" + "".join(f"{i},{CANARY}\n" for i in range(20_000)))
        stage.encrypt("patients", plain, stage.root / "vault" / "patients")
        yield stage


def run(stage: Stage, how: str, script: str, *, name: str) -> Job:
    """A shell script as the job's program; its arguments are the zone it reads and the one it writes."""
    program = stage.root / f"{name}.sh"
    program.write_text(f"#!/bin/sh\nset -eu\n{script}\n")
    zones = [
        zone_entry(stage.dataset("patients"), str(stage.root / "vault" / "patients"), Access.READ),
        zone_entry(stage.dataset(f"report-{name}"), str(stage.root / "vault" / name), Access.READ | Access.WRITE),
    ]
    job = stage.job(
        program,
        ["vault/patients", f"vault/{name}"],
        zones,
        engine="plain",
        command=("{program}", "{args}"),
        engine_settings={"files": how},
    )
    stage.run(job)
    return job


@BOTH
def test_a_damaged_file_fails_the_program_and_the_job(stage: Stage, how: str) -> None:
    victim = stage.root / "vault" / "patients" / "rows.csv"
    good = victim.read_bytes()
    victim.write_bytes(good[:-40] + bytes([good[-40] ^ 1]) + good[-39:])
    try:
        job = run(stage, how, 'cat "$1/rows.csv" > "$2/copy.csv" || true', name=f"damaged-{how}")
    finally:
        victim.write_bytes(good)
    assert (job.outcome.outcome, job.outcome.code) == ("refused", "file-tampered"), job.output
    assert str(victim) in job.outcome.message


@needs_fuse
def test_a_program_that_fails_commits_nothing(stage: Stage) -> None:
    job = run(stage, "mount", 'echo half > "$2/half"; exit 7', name="fails")
    assert (job.outcome.outcome, job.outcome.code) == ("failed", "program-ended")
    assert not list((stage.root / "vault" / "fails").rglob("manifest-*"))


@needs_fuse
def test_nothing_is_mounted_when_the_job_has_ended_even_with_children_left_behind(stage: Stage) -> None:
    job = run(stage, "mount", '(sleep 300 & ) ; echo kept > "$2/kept"', name="left")
    assert job.outcome.outcome == "done", (job.outcome, job.output)
    assert "casemate" not in Path("/proc/self/mounts").read_text().replace(str(stage.root), "")
    assert list((stage.root / "vault" / "left").rglob("manifest-*"))
