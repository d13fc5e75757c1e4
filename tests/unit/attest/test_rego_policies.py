"""``--policy FILE.rego``: real evidence under policies in Rego, with and without reference values."""

from __future__ import annotations

import base64
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.unit.attest.conftest import Run

from casemate.attestation.claims import Claims, TcbClaims
from casemate.attestation.eventlog import parse_event_log
from casemate.attestation.policies import rego_policy
from casemate.attestation.rego_events import uefi_events
from casemate.attestation.rego_worker import shared_worker

pytest.importorskip("regorus", reason="needs the extra casemate[rego]")

# The features that policies of confidential-containers use: `in`, `else`, defaults, iteration over events, members
# with dashes in their names, and reference values both by function and as data.
GATE = """\
package policy
import rego.v1

default executables := 33
default hardware := 97
default configuration := 36

trust_claims := {"executables": executables, "hardware": hardware, "configuration": configuration}

executables := 3 if {
	input.tdx
	input.tdx.quote.body.rtmr_1 in query_reference_value("rtmr_1")
	kernel_ok
}
else := 4 if input.tdx.quote.body.rtmr_1 in query_reference_value("rtmr_1")

kernel_ok if {
	event := input.tdx.uefi_event_logs[_]
	event.type_name == "EV_EFI_BOOT_SERVICES_APPLICATION"
	some path in event.details.device_paths
	startswith(path, "File(")
	event.digests[_].digest in data.reference.boot_loader
}

executables := 3 if input["az-snp-vtpm"].tpm.pcr11 in query_reference_value("pcr11")
executables := 3 if input.snp.evidence.measurement in query_reference_value("snp")
executables := 3 if input.sgx.body.mr_enclave in query_reference_value("mr_enclave")
executables := 3 if {
	input.tpm.ak_public in query_reference_value("aks")
	input.tpm.pcr07
}

hardware := 2 if input.tdx.tcb_status == "UpToDate"
hardware := 2 if input.snp.evidence.reported_tcb.snp >= query_reference_value("least_snp")
hardware := 2 if input["az-snp-vtpm"].reported_tcb_snp in data.reference.tcb_snp
hardware := 2 if "INTEL-SA-00289" in input.sgx.advisory_ids
hardware := 2 if input.tpm

configuration := 2 if {
	input.tdx.td_attributes.debug == false
	input.tdx.quote.body.xfam in query_reference_value("xfam")
}
configuration := 3 if input.snp.evidence.policy.debug_allowed == false
configuration := 3 if input.sgx
configuration := 0 if input.tpm
configuration := 2 if input["az-snp-vtpm"].policy_debug_allowed == "false"
"""
MR_TD = "91eb2b44d141d4ece09f0c75c2c53d247a3c68edd7fafe8a3520c942a604a407de03ae6dc5f87f27428b2538873118b7"
RTMR_1 = "0084452c01668329d4bc06acdf58a7205c26743304509973949e5619bf81a6a7aea8c323c173019b3093d54e579e9378"
RTMR_2 = "d833feef2cd945148aa38ead2c53e9b7f138190aaaebfc551dccd829fc207aa3ba80b70870d7330733642e01d48c3132"
LAUNCH = "a1f3930413247bb38cfc171579ea3c12d5fe4901f0c792f63fd75d98f1ef827c23500644e0e692e6be917f9050d3d38c"
MR_ENCLAVE = "33d8736db756ed4997e04ba358d27833188f1932ff7b1d156904d3f560452fbb"
MEASURED = "6a063be9dd79f6371c842e480f8dc3b5c725961344e57130e88c5adf49e8f7f6c79b75a5eb77fc769959f4aeb2f9401e"
LAX = "version: 1\nname: lax\nplatforms: [sgx]\ntcb: {statuses: [ConfigurationAndSWHardeningNeeded]}\n"


class Evidence:
    """The arguments that accept each piece of real evidence under the strict policy."""

    def __init__(self, vectors: Path) -> None:
        milan = ["--certs", vectors / "snp/milan_ask_ark_asvk.pem"]
        self.tdx = [vectors / "tdx/phala_v4_td10.quote", "--collateral", vectors / "tdx/phala_v4_td10.collateral.json"]
        self.tdx += ["--at", "2025-06-20T12:00"]
        self.sgx = [vectors / "sgx/phala_v3.quote", "--collateral", vectors / "sgx/phala_v3.collateral.json"]
        self.sgx += ["--at", "2025-06-20T12:00"]
        self.snp = [vectors / "snp/coco_milan_v2.report", "--certs", vectors / "snp/coco_milan_v2.vcek.der", *milan]
        self.azure = [vectors / "tpm/azure_snp_evidence-v1.json", *milan, "--at", "2025-06-01"]
        self.gpu = [vectors / "gpu/hopperAttestationReport.txt", "--certs", vectors / "gpu/hopper_cert_chain_case1.txt"]
        self.tpm = vectors / "tpm/coco_tpm_evidence.json"


@pytest.fixture
def evidence(vectors: Path) -> Evidence:
    return Evidence(vectors)


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    (tmp_path / "Gate 1.rego").write_text(GATE)
    return tmp_path / "Gate 1.rego"


def values(tmp_path: Path, **named: Any) -> list[object]:
    (tmp_path / "values.json").write_text(json.dumps(named))
    return ["--reference-values", tmp_path / "values.json"]


def failed(found: dict[str, Any]) -> dict[str, str]:
    return {c["clause"]: c["got"] for c in found["clauses"] if not c["holds"]}


def test_a_rego_file_decides_with_the_reference_values_given(
    evidence: Evidence, gate: Path, tmp_path: Path, run: Run
) -> None:
    given = values(tmp_path, rtmr_1=[RTMR_1], xfam=["e702060000000000"])
    status, found = run(*evidence.tdx, "--policy", gate, *given)
    assert (status, found["outcome"], found["trust_vector"]["executables"]) == (0, "accepted", 4)
    status, found = run(*evidence.tdx, "--policy", gate)
    assert (status, found["outcome"], found["code"]) == (1, "refused", "rego-trust-claim")
    assert failed(found)["rego.executables"].startswith("33 (warning); no reference value rtmr_1")


def test_every_platform_has_its_member(evidence: Evidence, gate: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "lax.yaml").write_text(LAX)
    key = json.loads(evidence.tpm.read_text())["ak_public"]
    named = {"snp": [LAUNCH], "least_snp": 8, "mr_enclave": [MR_ENCLAVE], "tcb_snp": ["24"], "aks": [key]}
    (tmp_path / "ak.der").write_bytes(base64.b64decode(key))
    pcr11 = run(*evidence.azure)[1]["claims"]["extra"]["vtpm"]["pcrs"]["sha256"]["11"]
    given = ["--policy", gate, *values(tmp_path, **named, pcr11=[pcr11])]
    tpm = [evidence.tpm, "--certs", tmp_path / "ak.der"]
    for arguments in (evidence.snp, evidence.azure, tpm, [*evidence.sgx, "--policy", tmp_path / "lax.yaml"]):
        status, found = run(*arguments, *given)
        assert (status, failed(found)) == (0, {}), arguments[0]


def test_rego_cannot_widen_the_strict_policy(evidence: Evidence, tmp_path: Path, run: Run) -> None:
    (tmp_path / "open.rego").write_text("package casemate.policy\nallow := true\n")
    status, found = run(*evidence.sgx, "--policy", tmp_path / "open.rego")
    assert (status, found["code"]) == (1, "tcb-status-not-accepted")
    assert not [c for c in found["clauses"] if c["clause"].startswith("rego")]


def test_the_events_of_a_log_are_there_for_rules(vectors: Path) -> None:
    events = uefi_events(parse_event_log((vectors / "tdx/google_cos113.ccel.bin").read_bytes()))
    assert len(events) == 43
    loaded = [e for e in events if e["type_name"] == "EV_EFI_BOOT_SERVICES_APPLICATION"]
    assert any("File(" in path for e in loaded for path in e["details"]["device_paths"])
    claims = Claims("tdx", simulated=False, debug=False, rtmr=("00" * 48, RTMR_1), tcb=TcbClaims("UpToDate"))
    values = {"rtmr_1": [RTMR_1], "boot_loader": [loaded[0]["digests"][0]["digest"]]}
    policy = rego_policy("gate", GATE, shared_worker(), reference_values=values)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert (policy.appraise(claims, now=now).trust_vector or {})["executables"] == 4
    assert (policy.beside(events=events).appraise(claims, now=now).trust_vector or {})["executables"] == 3


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--policy", "/nowhere.rego"], "file-missing"),
        (["--policy", "{bad}"], "policy-malformed"),
        (["--policy", "{gate}", "--reference-values", "{bad}"], "policy-malformed"),
        (["--reference-values", "{some}"], "usage"),
    ],
)
def test_wrong_files_are_wrong_usage(
    evidence: Evidence, gate: Path, tmp_path: Path, run: Run, options: list[str], code: str
) -> None:
    (tmp_path / "bad.rego").write_text("package policy\ntrust_claims := {")
    (tmp_path / "some.json").write_text('{"name": 1}')
    names = {"bad": tmp_path / "bad.rego", "gate": gate, "some": tmp_path / "some.json"}
    status, found = run(*evidence.tdx, *(option.format(**names) for option in options))
    assert (status, found["code"]) == (2, code)


# -- the policies that Trustee publishes -------------------------------------------------------------------------------
@pytest.fixture
def published() -> Path:
    """A folder with `ear_default_policy_cpu.rego` and `ear_default_policy_gpu.rego`, as published."""
    folder = os.environ.get("TRUSTEE_POLICIES")
    if folder is None:
        pytest.skip("set TRUSTEE_POLICIES to a folder with ear_default_policy_{cpu,gpu}.rego of Trustee")
    return Path(folder)


def vector(found: dict[str, Any]) -> tuple[int, int, int]:
    claims = found["trust_vector"]
    return claims["executables"], claims["hardware"], claims["configuration"]


def test_trustees_cpu_policy_runs_unchanged(published: Path, evidence: Evidence, tmp_path: Path, run: Run) -> None:
    policy = ["--policy", published / "ear_default_policy_cpu.rego"]
    (tmp_path / "lax.yaml").write_text(LAX)
    assert vector(run(*evidence.tdx, *policy)[1]) == (33, 97, 36)
    assert vector(run(*evidence.snp, *policy)[1]) == (33, 97, 3)
    assert vector(run(*evidence.azure, *policy)[1]) == (33, 97, 36)
    # It has no rules for SGX, so nothing about an enclave is ever found good.
    assert vector(run(*evidence.sgx, *policy, "--policy", tmp_path / "lax.yaml")[1]) == (33, 97, 36)
    tdx = {"mr_td": [MR_TD], "rtmr_1": [RTMR_1], "rtmr_2": [RTMR_2], "xfam": ["e702060000000000"]}
    status, found = run(*evidence.tdx, *policy, *values(tmp_path, **tdx))
    assert (status, vector(found)) == (0, (4, 2, 2))
    for name in tdx:
        fewer = {key: value for key, value in tdx.items() if key != name}
        assert run(*evidence.tdx, *policy, *values(tmp_path, **fewer))[0] == 1
    snp = {"snp_launch_measurement": [LAUNCH], "snp_bootloader": [3], "snp_microcode": [115], "snp_snp_svn": [8]}
    snp |= {"snp_tee_svn": [0], "snp_smt_enabled": True, "snp_tsme_enabled": False, "snp_guest_abi_major": 0}
    snp |= {"snp_guest_abi_minor": 31, "snp_single_socket": False, "snp_smt_allowed": True}
    status, found = run(*evidence.snp, *policy, *values(tmp_path, **snp))
    assert (status, vector(found)) == (0, (3, 2, 2))
    assert vector(run(*evidence.snp, *policy, *values(tmp_path, **{**snp, "snp_snp_svn": [9]}))[1]) == (3, 97, 2)
    pcr11 = run(*evidence.azure)[1]["claims"]["extra"]["vtpm"]["pcrs"]["sha256"]["11"]
    azure: dict[str, Any] = {"measurement": [base64.b64encode(bytes.fromhex(MEASURED)).decode()], "snp_pcr11": [pcr11]}
    azure |= {"tcb_bootloader": ["4"], "tcb_tee": ["0"], "tcb_snp": ["24"], "tcb_microcode": ["219"]}
    azure |= {"smt_enabled": ["true"], "tsme_enabled": ["true", "false"], "abi_major": ["0"], "abi_minor": ["31"]}
    azure |= {"single_socket": ["false"], "smt_allowed": ["true"]}
    status, found = run(*evidence.azure, *policy, *values(tmp_path, **azure))
    assert (status, vector(found)) == (0, (3, 2, 2))


def test_trustees_gpu_policy_runs_unchanged(
    published: Path, evidence: Evidence, tmp_path: Path, run: Run, vectors: Path
) -> None:
    policy = ["--policy", published / "ear_default_policy_gpu.rego"]
    assert vector(run(*evidence.gpu, *policy)[1]) == (33, 2, 36)
    said = json.loads((vectors / "gpu/hopperAttestationReport-claims.txt").read_text())
    named: dict[str, Any] = {"allowed_gpu_fwids": [said["config"]["fwid"]]}
    named["allowed_gpu_measurements"] = {n: said["measurements"][n] for n in ("2", "3", "12")}
    for name in ("driver_version", "vbios_version"):
        named[f"allowed_{name}s"] = [said["config"][name]]
    status, found = run(*evidence.gpu, *policy, *values(tmp_path, **named))
    assert (status, vector(found)) == (0, (3, 2, 2))
