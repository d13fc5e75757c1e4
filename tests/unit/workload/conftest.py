"""A workload, a key broker double, and an attester whose evidence is its report data."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.kbs_double import KbsDouble

from casemate.attestation.evidence import Evidence
from casemate.model import Access, DatasetName
from casemate.workload.build import broker_entry, build, zone_entry
from casemate.workload.manifest import WorkloadManifest

PATIENTS, REPORT = DatasetName("hospital", "patients"), DatasetName("hospital", "report")
PATIENTS_KEY, REPORT_KEY, OLD_KEY, JOB_SECRET = (bytes([n]) * 32 for n in (1, 2, 3, 4))


class EchoAttester:
    """Evidence for the double: the report data itself."""

    tee = "sample"

    def __init__(self) -> None:
        self.collected: list[bytes] = []

    def collect(self, report_data: bytes) -> Evidence:
        self.collected.append(report_data)
        return Evidence(self.tee, {"quote": base64.b64encode(report_data).decode()})


@pytest.fixture
def attester() -> EchoAttester:
    return EchoAttester()


@pytest.fixture
def kbs(tmp_path: Path) -> Iterator[KbsDouble]:
    with KbsDouble(tmp_path) as double:
        double.hold_key("hospital/patients", 1, OLD_KEY, current=False)
        double.hold_key("hospital/patients", 2, PATIENTS_KEY)
        double.hold_key("hospital/report", 1, REPORT_KEY)
        double.resources["job/job-1/secret"] = JOB_SECRET
        yield double


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "source" / "job.py"
    path.parent.mkdir()
    path.write_text("print('hello')\n")
    return path


def make_manifest(program: Path, url: str, ca: str, **options: Any) -> tuple[WorkloadManifest, dict[str, Path]]:
    root = program.parent
    zones = [
        zone_entry(PATIENTS, str(root / "in"), Access.READ),
        zone_entry(REPORT, str(root / "out"), Access.WRITE),
    ]
    options = {"engine": "plain", "zones": zones, "working_directory": root, **options}
    return build(program, ["a", "b c"], brokers={"default": broker_entry(url, ca)}, **options)


@pytest.fixture
def manifest(program: Path, kbs: KbsDouble) -> WorkloadManifest:
    return make_manifest(program, kbs.url, kbs.authority.pem)[0]


@pytest.fixture
def private_dir(tmp_path: Path) -> Path:
    path = tmp_path / "p"
    path.mkdir(mode=0o700)
    return path
