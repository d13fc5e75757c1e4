"""One fault at a time, on every platform: each is refused for its own reason, and the reason is its code.

Every case goes the whole way that ``casemate attest verify`` goes: recognise, verify, challenge, event log, policy.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.unit.attest.makers import CHALLENGE, DAY, NOW, PCRS, Given, Makers, policy

from casemate.attestation.appraise import Platform
from casemate.attestation.platforms.simulator.pki import CollateralEdits, make_authority
from casemate.attestation.platforms.simulator.quote import QuotingEnclave
from casemate.attestation.platforms.snp.endorsement import OID_HWID, SPL_OIDS, VekKind
from casemate.attestation.platforms.tpm.simulator import SimulatedTpm
from casemate.attestation.policy import Outcome
from casemate.errors import UndecidedError, error_class

Case = Callable[[Makers], Given]
Edit = Callable[[dict[str, Any]], None]


# -- what a case may change -----------------------------------------------------------------------------------------
def level(**changes: Any) -> Edit:
    """Change the one TCB level of TCB info or QE identity."""
    return lambda value: value["tcbLevels"][0].update(changes)


def need(tcb: str, svn: int) -> Edit:
    def edit(value: dict[str, Any]) -> None:
        for component in value["tcbLevels"][0]["tcb"][tcb]:
            component["svn"] = svn

    return edit


def member(name: str, value: Any) -> Edit:
    return lambda document: document.update({name: value})


def tcb(edit: Edit) -> CollateralEdits:
    return CollateralEdits(tcb_info=edit)


def identity(edit: Edit) -> CollateralEdits:
    return CollateralEdits(qe_identity=edit)


def date(days: float) -> str:
    return (NOW + timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")


def put(given: Given, offset: int, value: bytes) -> Given:
    return given.but(content=given.content[:offset] + value + given.content[offset + len(value) :])


def document(given: Given, **members: str | None) -> Given:
    """The same with members of its collateral replaced, or taken away."""
    value = json.loads(given.collateral[0]) | members
    return given.but(collateral=(json.dumps({k: v for k, v in value.items() if v is not None}),))


def text_changed(given: Given, name: str) -> Given:
    text = json.loads(given.collateral[0])[name]
    return document(given, **{name: text.replace("2026-01-01T", "2026-01-02T")})


def ruled(platform: str = "tdx", **rules: Any) -> Case:
    return lambda m: getattr(m, platform)().but(policy=policy(**rules))


def qe(**fields: int | bytes) -> Case:
    return lambda m: m.sgx(enclave=QuotingEnclave.create(m.pki, **fields))


def certification(m: Makers) -> int:
    """Where a version 4 quote has its outer certification type."""
    return 48 + 584 + 4 + 128


INTEL: dict[str, tuple[str, Case]] = {
    # -- framing
    "tdx_quote_cut_in_its_header": ("quote-malformed", lambda m: m.tdx().but(content=m.tdx().content[:40])),
    "tdx_quote_cut_in_its_body": ("quote-malformed", lambda m: m.tdx().but(content=m.tdx().content[:400])),
    "tdx_quote_cut_by_a_byte": ("quote-malformed", lambda m: m.tdx().but(content=m.tdx().content[:-1])),
    "sgx_quote_cut_by_a_byte": ("quote-malformed", lambda m: m.sgx().but(content=m.sgx().content[:-1])),
    "tdx_signature_length_of_a_gigabyte": (
        "quote-malformed",
        lambda m: put(m.tdx(), 48 + 584, struct.pack("<I", 1 << 30)),
    ),
    "tdx_certification_length_of_a_gigabyte": (
        "quote-malformed",
        lambda m: put(m.tdx(), certification(m) + 2, struct.pack("<I", 1 << 30)),
    ),
    "tdx_quote_followed_by_bytes": ("quote-trailing-bytes", lambda m: m.tdx().but(content=m.tdx().content + b"x")),
    "tdx_quote_of_version_3": ("quote-version-unsupported", lambda m: put(m.tdx(), 0, b"\3\0")),
    "tdx_quote_of_version_6": ("quote-version-unsupported", lambda m: put(m.tdx(), 0, b"\6\0")),
    "sgx_quote_of_version_4": ("quote-version-unsupported", lambda m: put(m.sgx(), 0, b"\4\0")),
    "tdx_body_of_an_unknown_type": ("quote-version-unsupported", lambda m: put(m.tdx(version=5), 48, b"\4\0")),
    "tdx_body_of_another_size": ("quote-version-unsupported", lambda m: put(m.tdx(version=5), 50, b"\x49\2\0\0")),
    "tdx_attestation_key_on_p384": ("attestation-key-unsupported", lambda m: put(m.tdx(), 2, b"\3\0")),
    "sgx_attestation_key_epid": ("attestation-key-unsupported", lambda m: put(m.sgx(), 2, b"\0\0")),
    "tdx_quoting_enclave_of_another_vendor": ("qe-vendor-unknown", lambda m: put(m.tdx(), 12, bytes(16))),
    "tdx_outer_certification_type_5": ("certification-data-unsupported", lambda m: m.tdx(outer_type=5)),
    "tdx_outer_certification_type_0": ("certification-data-unsupported", lambda m: m.tdx(outer_type=0)),
    # -- signatures
    "tdx_measurement_changed": ("quote-signature-invalid", lambda m: m.tdx().flipped(48 + 136)),
    "tdx_report_data_changed": ("quote-signature-invalid", lambda m: m.tdx().flipped(48 + 520)),
    "tdx_signature_changed": ("quote-signature-invalid", lambda m: m.tdx().flipped(48 + 584 + 4)),
    "tdx15_service_svn_changed": ("quote-signature-invalid", lambda m: m.tdx(version=5, td15=True).flipped(54 + 590)),
    "sgx_measurement_changed": ("quote-signature-invalid", lambda m: m.sgx().flipped(48 + 64)),
    "sgx_debug_bit_set_by_the_host": ("quote-signature-invalid", lambda m: m.sgx().flipped(48 + 48, 2)),
    "sgx_quoting_enclave_report_changed": ("qe-report-signature-invalid", lambda m: m.sgx().flipped(48 + 384 + 132)),
    "sgx_quoting_enclave_signed_by_another_platform": (
        "qe-report-signature-invalid",
        lambda m: m.sgx(enclave=replace(m.enclave, parts=QuotingEnclave.create(m.other_pki).parts)),
    ),
    "tdx_attestation_key_of_another_enclave": (
        "attestation-key-unbound",
        lambda m: m.tdx(enclave=replace(m.enclave, key=ec.generate_private_key(ec.SECP256R1()))),
    ),
    # -- the platform's certificate
    "tdx_of_another_maker": (
        "untrusted-root",
        lambda m: m.tdx(enclave=QuotingEnclave.create(m.other_pki)),
    ),
    "tdx_without_an_anchor": ("untrusted-root", lambda m: m.tdx().but(trust_anchor=None)),
    "pck_revoked": ("pck-revoked", lambda m: m.tdx(CollateralEdits(revoke=(m.pki.pck.certificate,)))),
    "pck_authority_revoked": ("pck-ca-revoked", lambda m: m.tdx(CollateralEdits(revoke=(m.pki.pck_ca.certificate,)))),
    "pck_expired": (
        "pck-certificate-expired",
        lambda m: m.tdx().but(now=NOW + 3700 * DAY, collateral=(m.collateral("tdx", now=NOW + 3700 * DAY),)),
    ),
    # -- collateral
    "collateral_missing": ("collateral-missing", lambda m: m.tdx().but(collateral=())),
    "collateral_is_no_json": ("collateral-malformed", lambda m: m.tdx().but(collateral=("{",))),
    "collateral_of_unknown_members": ("collateral-malformed", lambda m: m.tdx().but(collateral=('{"a": 1}',))),
    "collateral_without_a_pck_crl": ("collateral-missing", lambda m: document(m.tdx(), pck_crl=None)),
    "collateral_without_a_root_crl": ("collateral-missing", lambda m: document(m.tdx(), root_ca_crl=None)),
    "collateral_without_qe_identity": ("collateral-missing", lambda m: document(m.tdx(), qe_identity=None)),
    "collateral_of_another_maker": (
        "collateral-untrusted-root",
        lambda m: m.tdx().but(collateral=(json.dumps(m.other_pki.collateral("tdx", NOW)),)),
    ),
    "collateral_for_sgx_beside_a_tdx_quote": (
        "collateral-tee-mismatch",
        lambda m: m.tdx().but(collateral=(m.collateral("sgx"),)),
    ),
    "collateral_for_tdx_beside_an_sgx_quote": (
        "collateral-tee-mismatch",
        lambda m: m.sgx().but(collateral=(m.collateral("tdx"),)),
    ),
    "collateral_signer_revoked": (
        "collateral-signer-revoked",
        lambda m: m.tdx(CollateralEdits(revoke=(m.pki.tcb_signer.certificate,))),
    ),
    "collateral_signer_expired": (
        "collateral-signer-expired",
        lambda m: m.tdx(
            CollateralEdits(
                tcb_signer=make_authority("TCB", m.pki.root, NOW, years=1, valid_from=NOW - 500 * DAY),
            )
        ),
    ),
    "collateral_signed_by_the_pck_authority": (
        "tcb-info-signature-invalid",
        lambda m: document(m.tdx(), tcb_info_signature=json.loads(m.collateral("sgx"))["tcb_info_signature"]),
    ),
    "tcb_info_changed": ("tcb-info-signature-invalid", lambda m: text_changed(m.tdx(), "tcb_info")),
    "tcb_info_expired": ("tcb-info-expired", lambda m: m.tdx(tcb(member("nextUpdate", date(-0.5))))),
    "tcb_info_from_the_future": ("tcb-info-from-the-future", lambda m: m.tdx(tcb(member("issueDate", date(1))))),
    "tcb_info_of_another_fmspc": ("fmspc-mismatch", lambda m: m.tdx(tcb(member("fmspc", "00906ED50000")))),
    "qe_identity_changed": ("qe-identity-signature-invalid", lambda m: text_changed(m.tdx(), "qe_identity")),
    "qe_identity_expired": ("qe-identity-expired", lambda m: m.tdx(identity(member("nextUpdate", date(-0.5))))),
    "qe_identity_from_the_future": (
        "qe-identity-from-the-future",
        lambda m: m.tdx(identity(member("issueDate", date(1)))),
    ),
    "crls_expired": ("crl-expired", lambda m: m.tdx(CollateralEdits(crl_expires=NOW - timedelta(hours=1)))),
    "crl_signed_by_another_key": (
        "crl-invalid",
        lambda m: m.tdx(CollateralEdits(crl_signer=m.other_pki.pck_ca)),
    ),
    # -- the state of the platform
    "tcb_downgraded": ("no-matching-tcb-level", lambda m: m.tdx(tcb(need("sgxtcbcomponents", 6)))),
    "tcb_pce_downgraded": (
        "no-matching-tcb-level",
        lambda m: m.sgx(tcb(lambda value: value["tcbLevels"][0]["tcb"].update(pcesvn=14))),
    ),
    "tcb_out_of_date": ("tcb-status-not-accepted", lambda m: m.tdx(tcb(level(tcbStatus="OutOfDate")))),
    "tcb_needs_configuration": (
        "tcb-status-not-accepted",
        lambda m: m.tdx(tcb(level(tcbStatus="ConfigurationNeeded"))),
    ),
    "tcb_needs_hardening": ("tcb-status-not-accepted", lambda m: m.sgx(tcb(level(tcbStatus="SWHardeningNeeded")))),
    "tcb_relaunch_advised": (
        "tcb-status-not-accepted",
        lambda m: m.tdx(tcb(level(tcbStatus="OutOfDateConfigurationNeeded"))),
    ),
    "tcb_revoked": ("tcb-revoked", lambda m: m.sgx(tcb(level(tcbStatus="Revoked")))),
    "tcb_of_an_unknown_status": ("tcb-status-unknown", lambda m: m.sgx(tcb(level(tcbStatus="Fine")))),
    "tdx_module_of_another_signer": ("tdx-module-mismatch", lambda m: m.tdx(mr_signer_seam=b"\1" * 48)),
    "quoting_enclave_of_another_signer": (
        "qe-mrsigner-mismatch",
        lambda m: m.sgx(identity(member("mrsigner", "11" * 32))),
    ),
    "quoting_enclave_of_another_product": ("qe-isvprodid-mismatch", lambda m: m.sgx(identity(member("isvprodid", 9)))),
    "quoting_enclave_of_other_attributes": (
        "qe-attributes-mismatch",
        lambda m: m.sgx(identity(member("attributes", "31" + "00" * 15))),
    ),
    "quoting_enclave_of_other_miscselect": ("qe-miscselect-mismatch", qe(misc_select=1)),
    "quoting_enclave_downgraded": ("qe-no-matching-tcb-level", qe(svn=5)),
    "quoting_enclave_in_debug": ("qe-debug-enabled", qe(flags=0x13)),
    # -- attributes
    "td_in_debug": ("debug-enabled", lambda m: m.tdx(td_attributes=1 << 28 | 1)),
    "enclave_in_debug": ("debug-enabled", lambda m: m.sgx(flags=0x07)),
    "td_with_sept_ve": ("sept-ve-not-disabled", lambda m: m.tdx(td_attributes=0)),
    "td_with_pks": ("pks-enabled", lambda m: m.tdx(td_attributes=1 << 28 | 1 << 30)),
    "td_with_key_locker": ("key-locker-enabled", lambda m: m.tdx(td_attributes=1 << 28 | 1 << 31)),
    "td_with_perfmon": ("perfmon-enabled", lambda m: m.tdx(td_attributes=1 << 28 | 1 << 63)),
    "td_that_may_migrate": ("td-migratable", lambda m: m.tdx(td_attributes=1 << 28 | 1 << 29)),
    "td_with_profiling": ("td-profiling-enabled", lambda m: m.tdx(td_attributes=1 << 28 | 1 << 4)),
    "td_with_a_reserved_attribute": ("td-attributes-reserved", lambda m: m.tdx(td_attributes=1 << 28 | 1 << 40)),
    "td_with_a_service_td": (
        "service-td-bound",
        lambda m: m.tdx(version=5, td15=True, mr_service_td=b"\1" * 48),
    ),
    "td_with_a_reserved_xfam_bit": ("xfam-invalid", lambda m: m.tdx(xfam=0x602E7 | 1 << 20)),
    "td_without_sse": ("xfam-invalid", lambda m: m.tdx(xfam=0x602E5)),
    "enclave_not_initialised": ("sgx-attributes-invalid", lambda m: m.sgx(flags=0x04)),
    "enclave_with_the_provision_key": ("provision-key-allowed", lambda m: m.sgx(flags=0x15)),
    "enclave_with_the_launch_key": ("einittoken-key-allowed", lambda m: m.sgx(flags=0x25)),
    # -- asked, answered, expected
    "tdx_answers_another_challenge": (
        "report-data-mismatch",
        lambda m: m.tdx(report_data=b"yesterday".ljust(64, b"\0")),
    ),
    "sgx_answers_no_challenge": ("report-data-mismatch", lambda m: m.sgx(report_data=bytes(64))),
    "tdx_challenge_cut_short": ("report-data-mismatch", lambda m: m.tdx().but(challenge=CHALLENGE[:47])),
    "tdx_where_sgx_is_asked_for": ("evidence-platform-mismatch", lambda m: m.tdx().but(platform=Platform.SGX)),
    "sgx_where_gpu_is_asked_for": ("evidence-platform-mismatch", lambda m: m.sgx().but(platform=Platform.GPU)),
    "tdx_event_log_is_no_log": ("eventlog-malformed", lambda m: m.tdx().but(event_log=bytes(100))),
    # -- policy
    "simulated_under_the_strict_policy": ("simulated-evidence", lambda m: m.tdx().but(policy=None)),
    "simulated_sgx_under_the_strict_policy": ("simulated-evidence", lambda m: m.sgx().but(policy=None)),
    "platform_not_named": ("platform-not-accepted", ruled(platforms=["sgx"])),
    "measurement_not_named": ("measurement-mismatch", ruled(measurements=["00" * 48])),
    "signer_not_named": ("signer-mismatch", ruled("sgx", signers=["11" * 32])),
    "product_not_named": ("product-id-mismatch", ruled("sgx", product_ids=[5])),
    "svn_too_low": ("svn-too-low", ruled("sgx", min_svn=4)),
    "rtmr_not_named": ("rtmr-mismatch", ruled(rtmrs={"2": ["11" * 48]})),
    "workload_not_named": ("workload-mismatch", ruled(workloads=["08" * 48])),
    "workload_not_bound_at_launch": ("workload-binding-mismatch", ruled(workload_binding="agent")),
    "machine_not_listed": ("platform-id-not-allowed", ruled(platform_ids=["ff" * 16])),
    "advisory_not_tolerated": (
        "advisory-not-accepted",
        lambda m: m.tdx(tcb(level(advisoryIDs=["INTEL-SA-00001"]))).but(
            policy=policy(tcb={"advisories": {"allow": []}})
        ),
    ),
    "component_below_its_floor": ("tcb-below-floor", ruled(tcb={"floors": {"reported": {"pcesvn": 14}}})),
    "evaluation_number_too_low": ("tcb-evaluation-number-too-low", ruled(tcb={"min_evaluation_number": 21})),
    "collateral_too_old": (
        "collateral-too-old",
        lambda m: m.tdx().but(now=NOW + 20 * DAY, policy=policy(collateral={"max_age_days": 7})),
    ),
    "collateral_ends_soon": ("collateral-expires-soon", ruled(collateral={"min_remaining_hours": 24 * 40})),
    "claim_of_the_platform_differs": ("claim-mismatch", ruled(extra={"smt_enabled": False})),
    "no_alternative_holds": ("no-alternative-holds", ruled(any=[{"measurements": ["00" * 48]}, {"vmpls": [1]}])),
    "excluded": ("excluded-evidence", ruled(**{"not": {"platforms": ["tdx"]}})),
}

SNP: dict[str, tuple[str, Case]] = {
    "snp_report_cut": ("snp-report-truncated", lambda m: m.snp(bend=lambda raw: raw[:-1])),
    "snp_report_followed_by_a_byte": ("snp-report-trailing-bytes", lambda m: m.snp(bend=lambda raw: raw + b"\1")),
    "snp_report_of_version_1": ("snp-report-version-unsupported", lambda m: m.snp(version=1)),
    "snp_report_of_version_6": ("snp-report-version-unsupported", lambda m: m.snp(version=6)),
    "snp_report_by_the_hypervisor": ("snp-report-vmpl-invalid", lambda m: m.snp(vmpl=0xFFFFFFFF)),
    "snp_reserved_byte_set": ("snp-report-reserved-not-zero", lambda m: m.snp(patch={0x4C: b"\1"})),
    "snp_policy_bit_17_clear": ("snp-policy-bit17-clear", lambda m: m.snp(policy=0x10000)),
    "snp_signature_of_an_unknown_kind": ("snp-signature-algorithm-unsupported", lambda m: m.snp(signature_algo=2)),
    "snp_signed_by_no_key": ("snp-signing-key-unsupported", lambda m: m.snp(key_info=7 << 2)),
    "snp_signature_of_zeros": ("snp-signature-out-of-range", lambda m: m.snp(r=0)),
    "snp_measurement_changed": (
        "snp-signature-invalid",
        lambda m: m.snp(bend=lambda raw: raw[:0x90] + b"\1" + raw[0x91:]),
    ),
    "snp_in_debug": ("debug-enabled", lambda m: m.snp(policy=0xB0000)),
    "snp_chip_of_another": ("snp-hwid-mismatch", lambda m: m.snp(chip_id=b"\1" * 64)),
    "snp_chip_masked": ("snp-chip-id-masked", lambda m: m.snp(chip_id=bytes(64))),
    "snp_chip_key_masked": ("snp-chip-key-masked", lambda m: m.snp(key_info=2)),
    "snp_tcb_rolled_back": ("snp-tcb-mismatch", lambda m: m.snp(tcb={**m.vek.tcb, "snp": 3})),
    "snp_of_another_product": ("snp-product-mismatch", lambda m: m.snp(cpuid=(0x1A, 2, 1))),
    "snp_of_an_unknown_product": ("snp-product-unknown", lambda m: m.snp(vek=m.amd.vek(product_name="Naples-A1"))),
    "snp_vcek_for_a_vlek_report": ("snp-vek-kind-mismatch", lambda m: m.snp(key_info=1 << 2)),
    "snp_certificate_missing": ("snp-vek-missing", lambda m: m.snp(with_vek=False)),
    "snp_certificate_not_signed_by_the_ask": (
        "snp-certificate-signature-invalid",
        lambda m: m.snp(vek=m.amd.vek(signed_by="ARK")),
    ),
    "snp_certificate_issued_by_the_asvk": (
        "snp-issuer-mismatch",
        lambda m: m.snp(vek=m.amd.vek(signed_by="ASVK", issuer="SEV-VLEK-Milan")),
    ),
    "snp_certificate_without_a_chip": (
        "snp-certificate-extension-missing",
        lambda m: m.snp(vek=m.amd.vek(drop=[OID_HWID])),
    ),
    "snp_certificate_with_two_levels": (
        "snp-certificate-extension-duplicate",
        lambda m: m.snp(vek=m.amd.vek(duplicate=[SPL_OIDS["snp"]])),
    ),
    "snp_certificate_on_another_curve": (
        "snp-vek-key-unsupported",
        lambda m: m.snp(vek=m.amd.vek(curve=ec.SECP256R1())),
    ),
    "snp_certificate_expired": ("snp-certificate-expired", lambda m: m.snp(vek=m.amd.vek(not_after=NOW - DAY))),
    "snp_certificate_not_yet_valid": (
        "snp-certificate-not-yet-valid",
        lambda m: m.snp(vek=m.amd.vek(not_before=NOW + DAY)),
    ),
    "snp_chain_missing": ("snp-chain-missing", lambda m: m.snp(chain=b"")),
    "snp_chain_of_another_authority": (
        "snp-certificate-usage-wrong",
        lambda m: m.snp(chain=m.other_amd.chain_pem()),
    ),
    "snp_anchor_of_another_authority": (
        "snp-ark-untrusted",
        lambda m: m.snp().but(trust_anchor=None),
    ),
    "snp_ask_revoked": (
        "snp-ask-revoked",
        lambda m: m.snp(crl=m.amd.crl(this_update=NOW - DAY, next_update=NOW + DAY, revoked=[0x70001])),
    ),
    "snp_key_revoked": (
        "snp-vek-revoked",
        lambda m: m.snp(
            vek=m.amd.vek(serial=77),
            crl=m.amd.crl(this_update=NOW - DAY, next_update=NOW + DAY, revoked_by={"ASK": [77]}),
        ),
    ),
    "snp_crl_expired": (
        "snp-crl-expired",
        lambda m: m.snp(crl=m.amd.crl(this_update=NOW - 2 * DAY, next_update=NOW - DAY)),
    ),
    "snp_crl_signed_by_another": (
        "snp-crl-signature-invalid",
        lambda m: m.snp(crl=m.amd.crl(this_update=NOW - DAY, next_update=NOW + DAY, signed_by="ASK")),
    ),
    "snp_vmpl_not_named": ("vmpl-not-accepted", lambda m: m.snp(vmpl=1).but(policy=policy(vmpls=[0]))),
    "snp_below_its_floor": (
        "tcb-below-floor",
        ruled("snp", tcb={"floors": {"committed": {"microcode": 220}}}),
    ),
    "snp_answers_another_challenge": ("report-data-mismatch", lambda m: m.snp(report_data=b"\1" * 64)),
    "snp_simulated_under_the_strict_policy": ("simulated-evidence", lambda m: m.snp().but(policy=None)),
    "snp_json_without_a_report": ("snp-evidence-malformed", lambda m: m.snp().but(content=b'{"report": {}}')),
    "snp_vlek_without_its_issuer": (
        "snp-issuer-mismatch",
        lambda m: m.snp(vek=m.amd.vek(VekKind.VLEK), chain=m.amd.chain_pem(("ASK", "ARK"))),
    ),
}


def quoted(name: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda body: body["tpm_quote"].update({name: value})


def pcr(number: int, value: str | None) -> Callable[[dict[str, Any]], Any]:
    def change(body: dict[str, Any]) -> None:
        if value is None:
            del body["tpm_quote"]["pcrs"][str(number)]
        else:
            body["tpm_quote"]["pcrs"][str(number)] = value

    return change


TPM: dict[str, tuple[str, Case]] = {
    "tpm_magic_wrong": ("tpm-magic-wrong", lambda m: m.tpm(magic=0xFF544348)),
    "tpm_attests_a_certified_key": ("tpm-attest-type-wrong", lambda m: m.tpm(kind=0x8017)),
    "tpm_signature_of_something_else": (
        "tpm-signature-invalid",
        lambda m: m.tpm(quoted("signature", m.tpm_key.sign(b"else").hex())),
    ),
    "tpm_quote_cut": ("tpm-truncated", lambda m: m.tpm(quoted("message", m.tpm_key.quote(PCRS, CHALLENGE)[:-1].hex()))),
    "tpm_quote_with_a_tail": (
        "tpm-trailing-bytes",
        lambda m: m.tpm(quoted("message", (m.tpm_key.quote(PCRS, CHALLENGE) + b"\0").hex())),
    ),
    "tpm_pcr_changed": ("tpm-pcr-digest-mismatch", lambda m: m.tpm(pcr(4, "00" * 32))),
    "tpm_pcr_left_out": ("tpm-pcr-missing", lambda m: m.tpm(pcr(7, None))),
    "tpm_pcr_that_was_not_quoted": ("tpm-pcr-not-quoted", lambda m: m.tpm(pcr(9, "00" * 32))),
    "tpm_pcr_too_short": ("tpm-pcr-size", lambda m: m.tpm(pcr(0, "00" * 31))),
    "tpm_sha1_alone": (
        "tpm-pcr-bank",
        lambda m: m.tpm(pcrs={n: value[:20] for n, value in PCRS.items()}, bank="sha1"),
    ),
    "tpm_key_not_on_the_list": ("tpm-ak-untrusted", lambda m: m.tpm().but(trust_anchor=SimulatedTpm().spki)),
    "tpm_key_of_nobody": ("tpm-ak-untrusted", lambda m: m.tpm().but(trust_anchor=None)),
    "tpm_two_keys": (
        "tpm-key-mismatch",
        lambda m: m.tpm(lambda body: body.update(ak_pub_tpmt=SimulatedTpm().tpmt_public().hex())),
    ),
    "tpm_key_that_signs_anything": (
        "tpm-key-attributes",
        lambda m: m.tpm(lambda body: body.update(ak_pub_tpmt=m.tpm_key.tpmt_public(0x00040072).hex())),
    ),
    "tpm_replayed_quote": ("tpm-nonce-mismatch", lambda m: m.tpm(nonce=b"yesterday")),
    "tpm_quote_without_a_challenge": ("tpm-nonce-mismatch", lambda m: m.tpm(nonce=b"")),
    "tpm_stated_nonce_differs": ("tpm-nonce-mismatch", lambda m: m.tpm(lambda body: body.update(nonce="00"))),
    "tpm_workload_that_pcr_8_does_not_hold": (
        "tpm-workload-mismatch",
        lambda m: m.tpm(lambda body: body.update(workload="11" * 48)),
    ),
    "tpm_certificate_expired": (
        "tpm-ak-certificate-expired",
        lambda m: m.certified(not_before=NOW - 9 * DAY, not_after=NOW - DAY),
    ),
    "tpm_certificate_below_another_root": (
        "tpm-ak-certificate-untrusted",
        lambda m: m.certified().but(
            trust_anchor=m.pki.root.der,
            certificates=(
                *m.certified().certificates,
                m.certified().trust_anchor or b"",
            ),
        ),
    ),
    "tpm_certificate_issuer_missing": ("collateral-missing", lambda m: m.certified().but(certificates=())),
    "tpm_certificate_revoked": ("tpm-ak-certificate-revoked", lambda m: revoked(m)),
    "tpm_crl_expired": (
        "tpm-crl-expired",
        lambda m: m.certified(crls=(m.authority.crl(next_update=NOW - DAY),)),
    ),
    "tpm_simulated_under_the_strict_policy": ("simulated-evidence", lambda m: m.tpm().but(policy=None)),
    "tpm_json_without_a_quote": ("tpm-evidence-malformed", lambda m: m.tpm(lambda body: body["tpm_quote"].clear())),
}


def revoked(m: Makers) -> Given:
    certificate = m.authority.certify(m.tpm_key.public_key)
    return m.certified(crls=(m.authority.crl(certificate),), certificate=certificate)


GPU: dict[str, tuple[str, Case]] = {
    "gpu_measurement_changed": ("gpu-signature-invalid", lambda m: gpu_flipped(m, -200)),
    "gpu_signature_changed": ("gpu-signature-invalid", lambda m: gpu_flipped(m, -1)),
    "gpu_report_cut": ("gpu-truncated", lambda m: gpu_report(m, lambda raw: raw[:50])),
    "gpu_request_without_a_signature": ("gpu-spdm-message", lambda m: m.gpu(request=b"\x11\xe0\x00\xff")),
    "gpu_response_of_another_kind": ("gpu-spdm-message", lambda m: m.gpu(response=b"\x11\x61\x00\x00")),
    "gpu_measurement_count_wrong": ("gpu-measurement-malformed", lambda m: m.gpu(count=3)),
    "gpu_opaque_data_cut": ("gpu-opaque-data", lambda m: m.gpu(opaque=b"\3\0\xff\xff")),
    "gpu_of_another_firmware": ("gpu-firmware-id", lambda m: m.gpu(opaque={20: b"\1" * 48})),
    "gpu_of_another_architecture": ("gpu-architecture", lambda m: m.gpu(arch="BLACKWELL")),
    "gpu_answers_another_challenge": ("gpu-nonce-mismatch", lambda m: m.gpu(nonce=b"\1" * 32)),
    "gpu_root_untrusted": ("gpu-certificate-untrusted", lambda m: m.gpu().but(trust_anchor=None)),
    "gpu_certificate_expired": (
        "gpu-certificate-expired",
        lambda m: m.gpu().but(now=NOW + 4000 * DAY),
    ),
    "gpu_certificate_revoked": (
        "gpu-certificate-revoked",
        lambda m: m.gpu(certificates=(m.device.crl(m.device.leaf),)),
    ),
    "gpu_crl_expired": ("gpu-crl-expired", lambda m: m.gpu(certificates=(m.device.crl(next_update=NOW - DAY),))),
    "gpu_without_certificates": ("collateral-missing", lambda m: gpu_bare(m)),
    "gpu_list_empty": ("gpu-evidence-malformed", lambda m: m.gpu().but(content=b"[]")),
    "gpu_simulated_under_the_strict_policy": ("simulated-evidence", lambda m: m.gpu().but(policy=None)),
}


def gpu_report(m: Makers, bend: Callable[[bytes], bytes]) -> Given:
    body = m.device.evidence(CHALLENGE[:32])
    (device,) = body["device_evidence_list"]
    device["evidence"] = base64.b64encode(bend(base64.b64decode(device["evidence"]))).decode()
    return m.gpu().but(content=json.dumps(body).encode())


def gpu_flipped(m: Makers, place: int) -> Given:
    return gpu_report(m, lambda raw: raw[: len(raw) + place] + bytes([raw[place] ^ 1]) + raw[len(raw) + place + 1 :])


def gpu_bare(m: Makers) -> Given:
    report = m.device.sign(m.device.message(CHALLENGE[:32]))
    return Given(report.hex().encode(), challenge=CHALLENGE[:32])


OTHERS: dict[str, tuple[str, Case]] = {
    "file_empty": ("evidence-unrecognised", lambda m: Given(b"")),
    "file_of_zeros": ("evidence-unrecognised", lambda m: Given(bytes(5000))),
    "file_of_prose": ("evidence-unrecognised", lambda m: Given(b"This is no evidence at all, dear reader.")),
    "json_of_an_unknown_kind": ("evidence-unrecognised", lambda m: Given(b'{"hello": "world"}')),
    "json_with_a_name_twice": ("evidence-unrecognised", lambda m: Given(b'{"quote": "00", "quote": "11"}')),
    "json_nested_without_end": ("evidence-unrecognised", lambda m: Given(b"[" * 100_000)),
    # A simulated root is no anchor by itself: alone in a file it is refused, not merely incomplete.
    "certificate_in_place_of_evidence": ("snp-ark-untrusted", lambda m: Given(m.amd.chain_pem())),
    "collateral_in_place_of_evidence": ("not-evidence", lambda m: Given(m.collateral("tdx").encode())),
    "vtpm_quote_without_its_signature": (
        "evidence-incomplete",
        lambda m: Given(m.tpm_key.quote(PCRS, CHALLENGE)),
    ),
    "certificate_file_of_prose": (
        "endorsement-malformed",
        lambda m: m.snp().but(certificates=(b"not a certificate",)),
    ),
}

CASES = INTEL | SNP | TPM | GPU | OTHERS


@pytest.fixture(scope="module")
def makers() -> Makers:
    return Makers()


@pytest.mark.parametrize(("code", "case"), CASES.values(), ids=CASES.keys())
def test_refused_for_its_own_reason(makers: Makers, code: str, case: Case) -> None:
    judgement = case(makers).judge()
    assert judgement.code == code, [(c.clause, c.code, c.got) for c in judgement.clauses if not c.holds]
    undecided = issubclass(error_class(code), UndecidedError)
    assert judgement.outcome is (Outcome.UNDECIDED if undecided else Outcome.REFUSED)
    reason = judgement.reason
    assert reason is not None
    assert reason.fix
    assert not reason.holds


def test_without_a_fault_everything_is_accepted(makers: Makers) -> None:
    """Otherwise every case above could pass for a reason of its own."""
    good = [
        makers.tdx(),
        makers.tdx(version=5),
        makers.tdx(version=5, td15=True),
        makers.sgx(),
        makers.snp(),
        makers.snp(vek=makers.amd.vek(VekKind.VLEK)),
        makers.snp(crl=makers.amd.crl(this_update=NOW - DAY, next_update=NOW + DAY)),
        makers.tpm(),
        makers.certified(),
        makers.certified(crls=(makers.authority.crl(),)),
        makers.gpu(),
        makers.gpu(certificates=(makers.device.crl(),)),
    ]
    for given in good:
        judgement = given.judge()
        assert judgement.outcome is Outcome.ACCEPTED, judgement.reason
        assert judgement.verified
        assert judgement.claims is not None
        assert judgement.claims.simulated


def test_there_are_more_than_a_hundred_reasons_and_cases() -> None:
    assert len(CASES) >= 150
    assert len({code for code, _ in CASES.values()}) >= 100
