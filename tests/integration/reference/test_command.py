"""`casemate reference` as a builder runs it."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.support.cli import Cli

from casemate.attestation.platforms.simulator.pki import SimulatedPki
from casemate.crypto.jose import KeyPair

APPEND = "console=ttyS0 loglevel=7"


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    for name in ("key.pem", "stranger.pem"):
        (tmp_path / name).write_bytes(KeyPair.generate().to_pem())
    return Cli(tmp_path / "home", tmp_path)


@pytest.fixture(scope="session")
def vectors() -> Path:
    """Real evidence lies beside the repository, not in it: `CASEMATE_VECTORS`, or `shared/vectors` next to it."""
    beside = Path(__file__).resolve().parents[4] / "shared" / "vectors"
    folder = Path(os.environ.get("CASEMATE_VECTORS", beside))
    if not folder.is_dir():
        pytest.skip(f"no real evidence at {folder}; set CASEMATE_VECTORS")
    return folder


def _snp(vectors: Path, append: str) -> list[str]:
    ovmf = str(vectors / "snp" / "ovmf_AmdSev_suffix.bin")
    return ["--ovmf", ovmf, "--kernel", "/dev/null", "--initrd", "/dev/null", "--append", append]


def test_compute_diff_and_policy_follow_from_each_other(cli: Cli, vectors: Path) -> None:
    key, log = ["--builder-key", "key.pem"], str(vectors / "tdx" / "google_cos113.ccel.bin")
    cli.ok("reference", "compute", "r1", *_snp(vectors, APPEND), "--event-log", log, *key, "--out", "r1.jws")
    cli.ok("reference", "compute", "r2", *_snp(vectors, "quiet"), "--event-log", log, *key, "--out", "r2.jws")
    found = cli.json("reference", "diff", "r1.jws", "r2.jws", *key)
    assert [(c["kind"], c["name"]) for c in found["changes"]] == [
        ("value", "snp.measurement"),
        ("parameter", "snp.append"),
    ]
    assert found["changes"][0]["because"] == ["the parameter snp.append"]
    assert cli.run("reference", "diff", "r1.jws", "r2.jws", "--exit-code").status == 1
    assert cli.run("reference", "diff", "r1.jws", "r1.jws", "--exit-code").status == 0
    quote = str(vectors / "tdx" / "google_cos113_v4.quote")
    assert cli.json("reference", "diff", "r1.jws", quote)["changed"] is False
    policy = cli.ok("reference", "policy", "r1.jws", "--platform", "snp", *key).out
    cli.write("p.yaml", policy)
    report = str(vectors / "snp" / "coco_milan_v2.report")
    certs = [str(vectors / "snp" / name) for name in ("milan_ask_ark_asvk.pem", "coco_milan_v2.vcek.der")]
    judged = cli.run("attest", "verify", report, "--certs", certs[0], "--certs", certs[1], "--policy", "p.yaml")
    assert "measurement-mismatch" in judged.err


def test_what_a_stranger_signed_is_refused(cli: Cli) -> None:
    cli.ok("reference", "compute", "r1", "--simulator", "--builder-key", "stranger.pem", "--out", "r1.jws")
    key = ("--builder-key", "key.pem")
    cli.run("reference", "policy", "r1.jws", *key).refused(1, "reference-builder-unknown")
    cli.run("reference", "policy", "r1.jws").refused(1, "reference-builder-unknown")
    cli.run("reference", "diff", "r1.jws", "r1.jws", *key).refused(1, "reference-builder-unknown")


def test_the_simulators_value_is_marked(cli: Cli) -> None:
    done = cli.ok("reference", "compute", "r1", "--simulator", "--builder-key", "key.pem")
    assert "SIMULATED" in done.err
    cli.write("r1.jws", done.out)
    assert "allow_simulated: true" in cli.ok("reference", "policy", "r1.jws", "--builder-key", "key.pem").out


def test_a_workload_manifest_gives_its_digest(cli: Cli) -> None:
    (cli.home / "broker").mkdir(parents=True)
    (cli.home / "broker" / "ca.pem").write_text(SimulatedPki.create(datetime.now(UTC)).root.pem)
    cli.write("job.py", "print('hello')\n")
    shown = cli.json("workload", "show", "job.py", "--engine", "plain")
    cli.write("workload.json", json.dumps(shown["manifest"], indent=2))
    found = cli.json("reference", "compute", "r1", "--manifest", "workload.json", "--builder-key", "key.pem")
    assert found["values"] == {"workload": shown["digest"]}
    cli.write("workload.json", "{}")
    done = cli.run("reference", "compute", "r1", "--manifest", "workload.json", "--builder-key", "key.pem")
    assert done.status in (1, 2)
    assert "manifest" in done.err


def test_wrong_usage_is_told(cli: Cli) -> None:
    key = ("--builder-key", "key.pem")
    cli.run("reference", "compute", "r1", *key).refused(2, "reference-empty")
    assert "--builder" in cli.run("reference", "compute", "r1", "--simulator").err
    assert cli.run("reference", "compute", "Not A Name", "--simulator", *key).status == 2
    assert "--ovmf" in cli.run("reference", "compute", "r1", "--kernel", "/dev/null", *key).err
    cli.run("reference", "compute", "r1", "--simulator", "--builder", "nobody").refused(2, "identity-missing")
    cli.write("x", "neither")
    cli.run("reference", "diff", "x", "x").refused(1, "reference-malformed")
