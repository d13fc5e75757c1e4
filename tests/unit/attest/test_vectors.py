"""Every piece of real evidence at hand gets the outcome, the code and the claims it must get. Offline."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.unit.attest.conftest import Run

EXITS = {"accepted": 0, "refused": 1, "undecided": 3}
SIMULATED = "version: 1\nname: trial\nallow_simulated: true\nplatforms: [sgx, tdx, tpm]\n"
LATER = "2026-06-01"


@dataclass(frozen=True)
class Row:
    """One row of the vectors' README. ``code`` None is accepted; ``claims`` are dotted paths and what they must be."""

    evidence: str
    code: str | None = None
    at: str = LATER
    options: tuple[str, ...] = ()
    policy: str | None = None
    undecided: bool = False
    claims: dict[str, Any] = field(default_factory=dict)


def collateral(*names: str) -> tuple[str, ...]:
    return tuple(part for name in names for part in ("--collateral", name))


def certs(*names: str) -> tuple[str, ...]:
    return tuple(part for name in names for part in ("--certs", name))


def real(quote: str, document: str, at: str, code: str | None, **claims: Any) -> Row:
    return Row(quote, code, at, collateral(document), claims={"simulated": False, "debug": False, **claims})


def sim(tee: str, quote: str, document: str, code: str | None, *, policy: str | None = SIMULATED, **claims: Any) -> Row:
    """A simulated quote under the simulated root."""
    options = (*collateral(f"{tee}/{document}.collateral.json"), "--trust-anchor", "sgx/sim_root_ca.der")
    return Row(f"{tee}/{quote}.quote", code, "2026-01-10T00:00", options, policy, claims={"simulated": True, **claims})


SIM_QUOTES = [("sgx", "sim_v3"), ("tdx", "sim_v4_td10"), ("tdx", "sim_v5_td15")]
MILAN = "snp/milan_ask_ark_asvk.pem"
GCE = certs("tpm/tpm_ek_intermediate_2.crt", "tpm/tpm_ek_root_1.cer")
DEBUG_REPORT_DATA = "01020304" + "00" * 60
CHALLENGE = b"challenge".hex()

ROWS: dict[str, Row] = {
    # -- SGX
    "sgx_real": real(
        "sgx/phala_v3.quote",
        "sgx/phala_v3.collateral.json",
        "2025-06-20T12:00",
        "tcb-status-not-accepted",
        **{
            "verified": True,
            "platform": "sgx",
            "tcb.status": "ConfigurationAndSWHardeningNeeded",
            "tcb.advisories": ["INTEL-SA-00289", "INTEL-SA-00615"],
            "extra.fmspc": "00a067110000",
            "extra.pck_ca": "processor",
        },
    ),
    "sgx_real_with_a_policy_that_names_the_status": Row(
        "sgx/phala_v3.quote",
        None,
        "2025-06-20T12:00",
        collateral("sgx/phala_v3.collateral.json"),
        "version: 1\nname: relaxed\ntcb: {statuses: [UpToDate, ConfigurationAndSWHardeningNeeded]}\n",
    ),
    "sgx_real_after_the_tcb_info_expired": Row(
        "sgx/phala_v3.quote",
        "tcb-info-expired",
        "2025-07-20T12:00",
        collateral("sgx/phala_v3.collateral.json"),
        undecided=True,
        claims={"verified": False, "platform": "sgx", "tcb.status": "ConfigurationAndSWHardeningNeeded"},
    ),
    "sgx_real_before_the_tcb_info_was_issued": Row(
        "sgx/phala_v3.quote",
        "tcb-info-from-the-future",
        "2025-06-18",
        collateral("sgx/phala_v3.collateral.json"),
        claims={"verified": False},
    ),
    "sgx_real_without_collateral": Row(
        "sgx/phala_v3.quote", "collateral-missing", undecided=True, claims={"extra.fmspc": "00a067110000"}
    ),
    "sgx_real_under_the_simulated_root": Row(
        "sgx/phala_v3.quote",
        "untrusted-root",
        "2025-06-20T12:00",
        (*collateral("sgx/phala_v3.collateral.json"), "--trust-anchor", "sgx/sim_root_ca.der"),
        SIMULATED,
    ),
    "sgx_real_with_intels_root_named": Row(
        "sgx/phala_v3.quote",
        "tcb-status-not-accepted",
        "2025-06-20T12:00",
        (*collateral("sgx/phala_v3.collateral.json"), "--trust-anchor", "sgx/intel_sgx_root_ca.der"),
        claims={"simulated": False, "verified": True},
    ),
    "intel_root_alone": Row("sgx/intel_sgx_root_ca.der", "not-evidence", undecided=True),
    **{
        f"{quote}_under_its_own_root": sim(tee, quote, "sim_ok", None, **{"tcb.status": "UpToDate", "verified": True})
        for tee, quote in SIM_QUOTES
    },
    **{
        f"{quote}_under_the_strict_policy": sim(tee, quote, "sim_ok", "simulated-evidence", policy=None)
        for tee, quote in SIM_QUOTES
    },
    **{
        f"{quote}_against_intels_root": Row(
            f"{tee}/{quote}.quote",
            "untrusted-root",
            "2026-01-10",
            (*collateral(f"{tee}/sim_ok.collateral.json"), "--trust-anchor", "sgx/intel_sgx_root_ca.der"),
            SIMULATED,
        )
        for tee, quote in SIM_QUOTES
    },
    **{
        f"{quote}_with_no_anchor_named": Row(
            f"{tee}/{quote}.quote",
            "untrusted-root",
            "2026-01-10",
            collateral(f"{tee}/sim_ok.collateral.json"),
            SIMULATED,
        )
        for tee, quote in SIM_QUOTES
    },
    "sgx_debug": sim("sgx", "sim_v3_debug", "sim_ok", "debug-enabled", debug=True),
    "sgx_tampered": sim("sgx", "sim_v3_tampered", "sim_ok", "quote-signature-invalid", verified=False),
    "sgx_pck_revoked": sim("sgx", "sim_v3", "sim_pck_revoked", "pck-revoked"),
    "sgx_ca_revoked": sim("sgx", "sim_v3", "sim_ca_revoked", "pck-ca-revoked"),
    "sgx_tcb_revoked": sim("sgx", "sim_v3", "sim_revoked_tcb", "tcb-revoked"),
    "sgx_bad_qe_signer": sim("sgx", "sim_v3", "sim_bad_qe_signer", "qe-mrsigner-mismatch"),
    "sgx_wrong_fmspc": sim("sgx", "sim_v3", "sim_wrong_fmspc", "fmspc-mismatch"),
    "sgx_out_of_date": sim(
        "sgx",
        "sim_v3",
        "sim_outofdate",
        "tcb-status-not-accepted",
        **{"tcb.status": "OutOfDate", "tcb.advisories": ["INTEL-SA-00001"], "verified": True},
    ),
    # -- TDX
    "tdx_real": real(
        "tdx/phala_v4_td10.quote",
        "tdx/phala_v4_td10.collateral.json",
        "2025-06-20T12:00",
        None,
        **{
            "verified": True,
            "platform": "tdx",
            "tcb.status": "UpToDate",
            "tcb.advisories": [],
            "extra.fmspc": "b0c06f000000",
            "extra.dynamic_platform": True,
        },
    ),
    "tdx15_no_tcb_level": real(
        "tdx/phala_v5_td15_no_tcb_level.quote",
        "tdx/fmspc_90c06f_2026-02.collateral.json",
        "2026-02-25",
        "no-matching-tcb-level",
        **{"extra.quote_version": 5, "extra.body": "td15"},
    ),
    "tdx15_of_2024": real(
        "tdx/coco_v5_td15.quote",
        "tdx/fmspc_90c06f_2026-02.collateral.json",
        "2026-02-25",
        "no-matching-tcb-level",
        **{"extra.quote_version": 5},
    ),
    "tdx_pre_production": real(
        "tdx/google_v4_spr_e4.quote",
        "tdx/google_v4_spr_e4.collateral.json",
        "2023-07-01T01:00",
        "no-matching-tcb-level",
        **{"extra.fmspc": "50806f000000"},
    ),
    "tdx_pre_production_after_the_collateral_expired": Row(
        "tdx/google_v4_spr_e4.quote",
        "tcb-info-expired",
        "2023-09-01",
        collateral("tdx/google_v4_spr_e4.collateral.json"),
        undecided=True,
        claims={"platform": "tdx"},
    ),
    "tdx_out_of_date_with_collateral_in_pieces": Row(
        "tdx/coco_v4_00a06d.quote",
        "tcb-status-not-accepted",
        "2025-11-10",
        collateral(
            "tdx/coco_00a06d_2025-10.tcbInfo.json",
            "tdx/coco_00a06d_2025-10.enclaveIdentity.json",
            "tdx/fmspc_90c06f_2026-02.collateral.json",
        ),
        claims={"verified": True, "tcb.status": "OutOfDate", "extra.fmspc": "00a06d080000"},
    ),
    "tdx_with_tcb_info_and_identity_alone": Row(
        "tdx/coco_v4_00a06d.quote",
        "collateral-missing",
        "2025-11-10",
        collateral("tdx/coco_00a06d_2025-10.tcbInfo.json", "tdx/coco_00a06d_2025-10.enclaveIdentity.json"),
        undecided=True,
        claims={"verified": False, "extra.fmspc": "00a06d080000"},
    ),
    "tdx_with_tcb_info_for_another_platform": Row(
        "tdx/coco_v4_00a06d.quote",
        "fmspc-mismatch",
        "2026-02-25",
        collateral("tdx/google_90c06f_2026-02.tcbInfo.json", "tdx/fmspc_90c06f_2026-02.collateral.json"),
    ),
    "tdx_padded_with_its_event_log": Row(
        "tdx/google_cos113_v4.quote",
        "collateral-missing",
        options=("--event-log", "tdx/google_cos113.ccel.bin", "--challenge", "@tdx/google_cos113.nonce.bin"),
        undecided=True,
        claims={
            "verified": False,
            "report_data": "@tdx/google_cos113.nonce.bin",
            "extra.event_log.events": 43,
            "extra.event_log.explained_rtmrs": [0, 1, 2, 3],
        },
    ),
    "tdx_padded_with_another_event_log": Row(
        "tdx/google_cos113_v4.quote",
        "eventlog-malformed",
        options=("--event-log", "tpm/gce_ubuntu2404_sevsnp.eventlog.bin"),
    ),
    "tdx_with_the_event_log_of_another": Row(
        "tdx/phala_v4_td10.quote",
        "eventlog-mismatch",
        "2025-06-20T12:00",
        (*collateral("tdx/phala_v4_td10.collateral.json"), "--event-log", "tdx/google_cos113.ccel.bin"),
    ),
    "tdreport": Row(
        "tdx/google_tdreport.bin", "td-report-unsigned", undecided=True, claims={"platform": "tdx", "verified": False}
    ),
    "ccel_alone": Row("tdx/google_cos113.ccel.bin", "not-evidence", undecided=True),
    "tcb_info_alone": Row("tdx/google_90c06f_2026-02.tcbInfo.json", "not-evidence", undecided=True),
    "nonce_alone": Row("tdx/google_cos113.nonce.bin", "evidence-unrecognised"),
    "tdx_debug": sim("tdx", "sim_v4_debug", "sim_ok", "debug-enabled", debug=True),
    "tdx_no_septve": sim("tdx", "sim_v4_no_septve", "sim_ok", "sept-ve-not-disabled"),
    # -- SEV-SNP
    "snp_milan": Row(
        "snp/coco_milan_v2.report",
        options=certs("snp/coco_milan_v2.vcek.der", MILAN),
        claims={
            "platform": "snp",
            "simulated": False,
            "debug": False,
            "verified": True,
            "tcb.reported": {"bootloader": 3, "tee": 0, "snp": 8, "microcode": 115},
            "extra.policy.value": 0x3001F,
        },
    ),
    "snp_debug": Row(
        "snp/google_milan_v2_debug.report",
        "debug-enabled",
        options=certs("snp/google_milan_v2_debug.vcek.der", MILAN),
        claims={
            "debug": True,
            "verified": True,
            "report_data": "0102030405" + "00" * 59,
            "extra.policy.value": 0xB0000,
        },
    ),
    "snp_debug_when_a_policy_allows_it": Row(
        "snp/google_milan_v2_debug.report",
        None,
        options=certs("snp/google_milan_v2_debug.vcek.der", MILAN),
        policy="version: 1\nname: dev\ninsecure_allow_debug: true\nplatforms: [snp]\n",
    ),
    "snp_without_its_vcek": Row("snp/coco_milan_v2.report", "snp-vek-missing", options=certs(MILAN), undecided=True),
    "snp_without_its_chain": Row(
        "snp/coco_milan_v2.report",
        "snp-chain-missing",
        options=certs("snp/coco_milan_v2.vcek.der"),
        undecided=True,
        claims={"platform": "snp", "verified": False},
    ),
    "snp_altered_vcek_raw": Row(
        "snp/coco_milan_v2.report",
        "snp-certificate-signature-invalid",
        options=certs("snp/coco_milan_v2.vcek_bad_legacy.der", MILAN),
    ),
    "snp_altered_vcek_octet_string": Row(
        "snp/coco_milan_v2.report",
        "snp-certificate-signature-invalid",
        options=certs("snp/coco_milan_v2.vcek_bad_new.der", MILAN),
    ),
    "snp_vcek_of_another_chip": Row(
        "snp/coco_milan_v2.report",
        "snp-signature-invalid",
        options=certs("snp/google_milan_v2_debug.vcek.der", MILAN),
    ),
    "snp_vlek": Row(
        "snp/coco_milan_v3_vlek.report",
        at="2025-06-01",
        options=certs("snp/coco_milan_v3_vlek.vlek.der", MILAN),
        claims={"vmpl": 1, "extra.version": 3, "extra.signing_key": "VLEK", "verified": True},
    ),
    "snp_vlek_where_vmpl_0_is_demanded": Row(
        "snp/coco_milan_v3_vlek.report",
        "vmpl-not-accepted",
        "2025-06-01",
        options=certs("snp/coco_milan_v3_vlek.vlek.der", MILAN),
        policy="version: 1\nname: prod\nvmpls: [0]\n",
        claims={"vmpl": 1},
    ),
    "snp_vlek_through_the_ask": Row(
        "snp/coco_milan_v3_vlek.report",
        "snp-issuer-mismatch",
        options=certs("snp/coco_milan_v3_vlek.vlek.der", "#snp/milan_ask_ark_asvk.pem"),
    ),
    **{
        f"snp_chain_{product}": Row(f"snp/{product}_ask_ark_asvk.pem", "not-evidence", undecided=True)
        for product in ("milan", "genoa", "turin")
    },
    "snp_turin_vcek": Row(
        "snp/virtee_turin.vcek.der",
        "not-evidence",
        options=certs("snp/turin_ask_ark_asvk.pem"),
        undecided=True,
        claims={"extra.product": "Turin"},
    ),
    "snp_turin_vcek_below_milans_chain": Row(
        "snp/virtee_turin.vcek.der", "snp-chain-missing", options=certs(MILAN), undecided=True
    ),
    "snp_altered_vcek_alone": Row(
        "snp/coco_milan_v2.vcek_bad_new.der", "snp-certificate-signature-invalid", options=certs(MILAN)
    ),
    "ovmf_tail": Row("snp/ovmf_AmdSev_suffix.bin", "evidence-unrecognised"),
    # -- TPM, Azure, Google Cloud
    "azure_snp_v1": Row(
        "tpm/azure_snp_evidence-v1.json",
        options=(*certs(MILAN), "--challenge", CHALLENGE, "--platform", "azure"),
        claims={"platform": "snp", "verified": True, "simulated": False, "extra.vtpm.nonce": CHALLENGE},
    ),
    "azure_snp_v1_for_another_challenge": Row(
        "tpm/azure_snp_evidence-v1.json", "tpm-nonce-mismatch", options=(*certs(MILAN), "--challenge", "00")
    ),
    "azure_snp_v1_without_the_chain": Row(
        "tpm/azure_snp_evidence-v1.json",
        "snp-chain-missing",
        undecided=True,
        claims={"platform": "snp", "verified": False, "extra.vtpm.nonce": CHALLENGE},
    ),
    "azure_snp_v2": Row("tpm/azure_snp_evidence-v2.json", options=certs(MILAN), claims={"platform": "snp"}),
    "azure_snp_genoa": Row(
        "tpm/azure_snp_genoa.json",
        options=certs("snp/genoa_ask_ark_asvk.pem"),
        claims={"platform": "snp", "extra.product": "Genoa"},
    ),
    "azure_tdx": Row(
        "tpm/azure_tdx_evidence-v1.json",
        "collateral-missing",
        options=("--challenge", CHALLENGE),
        undecided=True,
        claims={"platform": "tdx", "verified": False, "extra.unsafe_attributes": ["sept-ve"]},
    ),
    "bare_tpm_of_nobody": Row(
        "tpm/coco_tpm_evidence.json",
        "tpm-ak-untrusted",
        claims={"platform": "tpm", "verified": False, "extra.ak_trust": "none"},
    ),
    "bare_tpm_vouched_for_by_the_policy": Row(
        "tpm/coco_tpm_evidence.json",
        policy="version: 1\nname: fleet\n"
        "platform_ids: [a517f03ffdaee469aef1a19569547e330726335d0461c3ef6383409c6295679e]\n",
        claims={"verified": True, "extra.ak_trust": "allow-list"},
    ),
    "gce": Row(
        "tpm/gce_cos85_no_nonce.json",
        options=(*GCE, "--event-log", "tpm/gce_cos85.eventlog.bin", "--platform", "gce"),
        claims={
            "platform": "tpm",
            "verified": True,
            "extra.ak_trust": "certificate",
            "extra.event_log.explained_pcrs": {bank: list(range(10)) for bank in ("sha1", "sha256", "sha384")},
        },
    ),
    "gce_without_certificates": Row("tpm/gce_cos85_no_nonce.json", "collateral-missing", undecided=True),
    "gce_with_the_event_log_of_another": Row(
        "tpm/gce_cos85_no_nonce.json",
        "eventlog-mismatch",
        options=(*GCE, "--event-log", "tpm/gce_ubuntu2404_sevsnp.eventlog.bin"),
    ),
    "gce_of_no_challenge_for_a_challenge": Row(
        "tpm/gce_cos85_no_nonce.json", "tpm-nonce-mismatch", options=(*GCE, "--challenge", "00ff")
    ),
    "event_log_alone": Row("tpm/gce_ubuntu2404_sevsnp.eventlog.bin", "not-evidence", undecided=True),
    "swtpm_under_its_key": Row(
        "tpm/swtpm_ecc.json",
        options=("--certs", "%tpm/swtpm_ecc.json", "--challenge", "%nonce"),
        claims={"platform": "tpm", "verified": True, "extra.software_tpm": True},
    ),
    "swtpm_under_its_key_as_an_anchor": Row(
        "tpm/swtpm_ecc.json",
        "simulated-evidence",
        options=("--trust-anchor", "%tpm/swtpm_ecc.json"),
        claims={"simulated": True},
    ),
    "swtpm_of_nobody": Row("tpm/swtpm_ecc.json", "tpm-ak-untrusted"),
    # -- NVIDIA
    "gpu_hopper": Row(
        "gpu/hopperAttestationReport.txt",
        options=certs("gpu/hopper_cert_chain_case1.txt", "gpu/nvidia_device_root.pem"),
        claims={"platform": "gpu", "verified": True, "simulated": False, "extra.measurements_compared": False},
    ),
    "gpu_hopper_root_alone": Row(
        "gpu/hopperAttestationReport.txt",
        "gpu-certificate-invalid",
        options=certs("gpu/hopper_cert_chain_case2.txt"),
        claims={"platform": "gpu", "verified": False},
    ),
    "gpu_hopper_intermediate_missing": Row(
        "gpu/hopperAttestationReport.txt",
        "gpu-certificate-untrusted",
        options=certs("gpu/hopper_cert_chain_case3.txt"),
        claims={"verified": False},
    ),
    "gpu_hopper_without_a_chain": Row("gpu/hopperAttestationReport.txt", "collateral-missing", undecided=True),
    "gpu_hopper_for_another_challenge": Row(
        "gpu/hopperAttestationReport.txt",
        "gpu-nonce-mismatch",
        options=(*certs("gpu/hopper_cert_chain_case1.txt"), "--challenge", "00"),
    ),
    # Its chain ends in the same root and its signature verifies: there is nothing to refuse it for.
    "gpu_blackwell": Row("gpu/blackwell_evidence.json", claims={"platform": "gpu", "verified": True}),
    "gpu_claims_are_no_evidence": Row("gpu/hopperAttestationReport-claims.txt", "evidence-unrecognised"),
}


def at_path(value: Any, path: str) -> Any:
    for part in path.split("."):
        value = value[part]
    return value


def argument(vectors: Path, tmp_path: Path, row: Row, text: str) -> str:
    """``@file`` is its content in hex, ``#file`` its first two PEM blocks, ``%…`` the key or nonce in TPM JSON."""
    if text.startswith("@"):
        return (vectors / text[1:]).read_bytes().hex()
    if text.startswith("#"):
        end = "-----END CERTIFICATE-----\n"
        blocks = (vectors / text[1:]).read_text().split(end)[:2]
        (tmp_path / "two.pem").write_text("".join(block + end for block in blocks))
        return str(tmp_path / "two.pem")
    if text == "%nonce":
        return str(json.loads((vectors / row.evidence).read_text())["nonce"])
    if text.startswith("%"):
        (tmp_path / "ak.pem").write_text(json.loads((vectors / text[1:]).read_text())["ak_pem"])
        return str(tmp_path / "ak.pem")
    return str(vectors / text) if "/" in text else text


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
def test_real_evidence_gets_what_it_must_get(vectors: Path, tmp_path: Path, run: Run, row: Row) -> None:
    options = [argument(vectors, tmp_path, row, text) for text in row.options]
    if row.policy is not None:
        (tmp_path / "policy.yaml").write_text(row.policy)
        options += ["--policy", str(tmp_path / "policy.yaml")]
    status, found = run(vectors / row.evidence, "--at", row.at, *options)
    outcome = "accepted" if row.code is None else "undecided" if row.undecided else "refused"
    assert (found["outcome"], found["code"], status) == (outcome, row.code, EXITS[outcome]), found["clauses"]
    assert set(found) == {"outcome", "code", "claims", "clauses"}
    for clause in found["clauses"]:
        assert {"clause", "expected", "got", "holds", "fix"} <= set(clause)
    for path, expected in row.claims.items():
        wanted = argument(vectors, tmp_path, row, expected) if isinstance(expected, str) else expected
        assert at_path(found["claims"], path) == wanted, path


def test_every_file_of_the_vectors_is_in_a_row(vectors: Path) -> None:
    """No file is forgotten; those that only tests of parsers use are named."""
    elsewhere = {"snp/ovmf_OvmfX64_suffix.bin", "tpm/gcp_ek_ak_ca_intermediate_v3.crt", "tpm/gcp_ek_ak_ca_root.crt"}
    named = {row.evidence for row in ROWS.values()} | elsewhere
    named |= {text.lstrip("@#%") for row in ROWS.values() for text in row.options}
    files = {path.relative_to(vectors).as_posix() for path in vectors.glob("*/*") if path.parent.name != "LICENSES"}
    assert files - named == set()
