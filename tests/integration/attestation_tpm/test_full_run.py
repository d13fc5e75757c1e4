"""`casemate run` on a machine with a TPM: a real swtpm, a real broker, programs that read and write their zones."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.stage import Job
from tests.support.swtpm import SoftwareTpm, require_swtpm
from tests.support.tpm_stage import TpmStage

from casemate.attestation.evidence import Evidence
from casemate.attestation.platforms.tpm.attester import TpmAttester
from casemate.errors import CasemateError
from casemate.model import Role

require_swtpm()

EXAMPLES = Path(__file__).parents[3] / "examples"
COPY = """
import sys, fsspec
zone = fsspec.filesystem("zone")
text = zone.cat_file(sys.argv[1] + "/people.csv").decode()
zone.makedirs(sys.argv[2], exist_ok=True)
with zone.open(sys.argv[2] + "/upper.csv", "w") as out:
    out.write(text.upper())
zone.touch(sys.argv[2] + "/_SUCCESS")
print(len(text.splitlines()), "lines", flush=True)
"""
FAST = {
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1",
    "spark.executor.extraJavaOptions": "-XX:TieredStopAtLevel=1",
    "spark.sql.shuffle.partitions": "2",
}
WAIT = "import time\nprint('running', flush=True)\ntime.sleep(60)\n"


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TpmStage]:
    with TpmStage(tmp_path_factory.mktemp("tpm")) as stage:
        (stage.root / "plain").mkdir()
        (stage.root / "plain" / "people.csv").write_text("name\nada\ngrace\n")
        stage.encrypt("people", stage.root / "plain", stage.root / "vault")
        yield stage


@pytest.fixture
def booted(stage: TpmStage) -> TpmStage:
    """The machine after a fresh start."""
    stage.tpm.reset()
    return stage


def new_job(stage: TpmStage, source: str, name: str, **options: Any) -> Job:
    program, out = stage.root / f"{name}.py", stage.root / name
    program.write_text(source)
    zones = [stage.input("people", stage.root / "vault"), stage.output(f"out-{name}", out)]
    return stage.job(program, [str(stage.root / "vault"), str(out)], zones, engine="plain", **options)


def result(stage: TpmStage, name: str) -> Path:
    stage.decrypt(stage.root / name, stage.root / f"{name}-plain")
    return stage.root / f"{name}-plain"


class Altered:
    """A machine that changes what its TPM said, or says something that its TPM did not."""

    tee = "tpm"

    def __init__(self, attester: TpmAttester, change: Callable[[dict[str, Any]], None]) -> None:
        self._attester, self._change = attester, change

    def collect(self, report_data: bytes) -> Evidence:
        body = dict(self._attester.collect(report_data).body)
        self._change(body)
        return Evidence(self.tee, body)


def refusal(stage: TpmStage, job: Job, attester: Any) -> str:
    with pytest.raises(CasemateError) as caught:
        stage.attest(job, attester).close()
    return caught.value.code


def test_a_plain_program_reads_and_writes_its_zones(booted: TpmStage) -> None:
    job = new_job(booted, COPY, "upper")
    ended = booted.casemate_run(job)
    assert (ended.status, ended.output) == (0, "3 lines\n"), ended
    assert b"ADA" not in (booted.root / "upper" / "upper.csv").read_bytes()
    assert (result(booted, "upper") / "upper.csv").read_text() == "NAME\nADA\nGRACE\n"
    again = booted.casemate_run(job)  # the same workload in the same boot: PCR 8 says so already
    assert again.code != "tpm-workload-register-used", again


@pytest.mark.spark
def test_an_unchanged_spark_program_reads_and_writes_its_zones(booted: TpmStage) -> None:
    out = booted.root / "rows"
    zones = [booted.input("people", booted.root / "vault"), booted.output("rows", out)]
    job = booted.job(
        EXAMPLES / "copy_rows.py",
        [str(booted.root / "vault"), str(out)],
        zones,
        engine="spark",
        engine_settings={"master": "local[1]", "conf": FAST},
    )
    ended = booted.casemate_run(job, role=Role.DRIVER)
    assert ended.status == 0, ended
    (part,) = result(booted, "rows").glob("part-*.csv")
    assert part.read_text() == "name\nada\ngrace\n"


def test_a_machine_that_ran_another_workload_is_refused(booted: TpmStage) -> None:
    """By itself before it asks anybody, and by the broker when it claims otherwise."""
    job = new_job(booted, COPY, "other")
    with TpmAttester(booted.tpm.tcti) as attester:
        attester.extend_workload(hashlib.sha384(b"another").digest())
        claim = {"workload": job.manifest.digest()}
        assert refusal(booted, job, Altered(attester, lambda body: body.update(claim))) == "tpm-workload-mismatch"
        assert refusal(booted, job, Altered(attester, lambda body: body.pop("workload"))) == "tpm-workload-mismatch"
        assert refusal(booted, job, attester) == "workload-digest-mismatch"  # proves honestly what it launched
    ended = booted.casemate_run(job)
    assert (ended.status, ended.code, ended.output) == (1, "tpm-workload-register-used", "")


def test_pcr_8_extended_twice_or_never_is_refused(booted: TpmStage) -> None:
    job = new_job(booted, COPY, "twice")
    digest = bytes.fromhex(job.manifest.digest())
    with TpmAttester(booted.tpm.tcti) as attester:
        assert refusal(booted, job, attester) == "tpm-workload-missing"
        attester.extend_workload(digest)
        booted.attest(job, attester).close()
        attester.extend_workload(digest)
        assert refusal(booted, job, attester) == "tpm-workload-repeated"


def test_a_quote_is_good_for_one_challenge_and_one_boot(booted: TpmStage) -> None:
    job = new_job(booted, COPY, "replay")
    seen: list[dict[str, Any]] = []
    with TpmAttester(booted.tpm.tcti) as attester:
        attester.bind_workload(bytes.fromhex(job.manifest.digest()))
        booted.attest(job, Altered(attester, lambda body: seen.append(dict(body)))).close()
        assert refusal(booted, job, Altered(attester, lambda body: body.update(seen[0]))) == "report-data-mismatch"
    booted.tpm.reset()
    with TpmAttester(booted.tpm.tcti) as attester:
        assert refusal(booted, job, attester) == "tpm-workload-missing"


def test_another_tpm_is_refused_although_it_ran_the_workload(booted: TpmStage, tmp_path: Path) -> None:
    job = new_job(booted, COPY, "foreign")
    with SoftwareTpm(tmp_path) as other:
        ended = booted.casemate_run(job, CASEMATE_TPM=other.tcti)
    assert (ended.status, ended.code, ended.output) == (1, "tpm-ak-untrusted", "")


def test_an_enrolled_tpm_that_the_owner_did_not_name_gets_no_key(booted: TpmStage, tmp_path: Path) -> None:
    """The broker's list says whom it can verify; the owner's policy says who gets the data."""
    job = new_job(booted, COPY, "unnamed")
    enrolled = booted.keys_dir / "second.der"
    with SoftwareTpm(tmp_path) as other:
        with TpmAttester(other.tcti) as attester:
            enrolled.write_bytes(attester.ak_spki)
        booted.trust_changed()
        ended = booted.casemate_run(job, CASEMATE_TPM=other.tcti)
        assert (ended.status, ended.output) == (1, "")
        assert "platform-id-not-allowed" in booted.why(), ended
        enrolled.unlink()
        simulated = booted.state.trust / "tpm-simulated" / "keys"
        simulated.mkdir(parents=True)
        with TpmAttester(other.tcti) as attester:
            (simulated / "second.der").write_bytes(attester.ak_spki)
        booted.trust_changed()
        ended = booted.casemate_run(job, CASEMATE_TPM=other.tcti)
        assert "simulated-evidence" in booted.why(), ended


def test_a_tpm_that_goes_away_stops_the_program(booted: TpmStage) -> None:
    job = new_job(booted, WAIT, "wait")
    ended = booted.casemate_run(job, while_running=lambda: booted.tpm.stop(signal.SIGKILL))
    assert (ended.status, ended.code, ended.output) == (3, "tpm-unavailable", "running\n")
    assert (booted.casemate_run(job).status, booted.casemate_run(job).code) == (3, "tpm-unavailable")


def test_a_tpm_that_is_reset_stops_the_program(booted: TpmStage) -> None:
    """A program that survives a reset is not the one that PCR 8 would speak of."""
    job = new_job(booted, WAIT, "survivor")
    ended = booted.casemate_run(job, while_running=booted.tpm.reset)
    assert ended.status in (1, 3), ended
    assert ended.code in ("tpm-unavailable", "tpm-workload-missing")
