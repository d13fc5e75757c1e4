"""What simulated machines of every product and report version claim; refusing any of it is a policy's business."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from casemate.attestation.claims import WorkloadBinding
from casemate.attestation.evidence import Evidence
from casemate.attestation.platforms.snp.endorsement import OID_PRODUCT, VekKind
from casemate.attestation.platforms.snp.errors import (
    SnpCertificateUsageError,
    SnpEvidenceMalformedError,
    SnpVekMissingError,
)
from casemate.attestation.platforms.snp.report import PLATFORM_INFO_BITS, POLICY_BITS
from casemate.attestation.platforms.snp.simulator import SimulatedAmd
from casemate.attestation.platforms.snp.tcb import Product
from casemate.attestation.platforms.snp.verifier import SnpVerifier

Trust = Callable[..., SnpVerifier]


@pytest.mark.parametrize("version", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", list(VekKind))
@pytest.mark.parametrize("product", ["amd", "turin"])
def test_every_version_and_kind_is_accepted(
    request: pytest.FixtureRequest, trust: Trust, now: datetime, product: str, kind: VekKind, version: int
) -> None:
    authority: SimulatedAmd = request.getfixturevalue(product)
    vek = authority.vek(kind)
    evidence = authority.evidence(vek, b"\x11" * 64, version=version, mitigations=(5, 1 << 63))
    claims = trust(authority).verify(evidence, now=now)
    assert claims.simulated
    assert claims.report_data == "11" * 64
    assert claims.tcb.reported == vek.tcb
    assert claims.extra["product"] == authority.product
    assert claims.extra["signing_key"] == kind
    vectors = (claims.extra["launch_mit_vector"], claims.extra["current_mit_vector"])
    assert vectors == ((5, 1 << 63) if version == 5 else (None, None))
    assert (claims.extra["cpuid_fam_id"] is None) == (version == 2)
    assert (claims.platform_id is None) == (kind is VekKind.VLEK)


def test_a_genoa_machine_and_its_relatives_are_one_product(trust: Trust, now: datetime) -> None:
    genoa = SimulatedAmd(Product.GENOA, not_before=now - timedelta(1), not_after=now + timedelta(1))
    vek = genoa.vek(hwid_octet_string=True)
    for model in (0x10, 0x11, 0x1F, 0xA0, 0xAF):
        report = genoa.report(vek, cpuid=(0x19, model, 0))
        assert trust(genoa).verify_report(report, vek.der, now=now).extra["product"] == "Genoa"


@pytest.mark.parametrize("name", POLICY_BITS)
def test_each_policy_bit_is_a_claim_of_its_own(
    amd: SimulatedAmd, verifier: SnpVerifier, now: datetime, name: str
) -> None:
    vek = amd.vek()
    claims = verifier.verify_report(amd.report(vek, policy=1 << 17 | 1 << POLICY_BITS[name]), vek.der, now=now)
    assert [bit for bit in POLICY_BITS if claims.extra["policy"][bit]] == [name]
    assert claims.debug == (name == "debug")


@pytest.mark.parametrize("name", PLATFORM_INFO_BITS)
def test_each_platform_bit_is_a_claim_of_its_own(
    amd: SimulatedAmd, verifier: SnpVerifier, now: datetime, name: str
) -> None:
    vek = amd.vek()
    claims = verifier.verify_report(amd.report(vek, platform_info=1 << PLATFORM_INFO_BITS[name]), vek.der, now=now)
    assert [bit for bit in PLATFORM_INFO_BITS if claims.extra["platform_info"][bit]] == [name]


def test_bits_of_the_host_that_are_unknown_are_shown_not_refused(
    amd: SimulatedAmd, verifier: SnpVerifier, now: datetime
) -> None:
    vek = amd.vek()
    claims = verifier.verify_report(amd.report(vek, platform_info=1 << 40), vek.der, now=now)
    assert claims.extra["platform_info"]["value"] == 1 << 40


@pytest.mark.parametrize("vmpl", [0, 1, 2, 3])
def test_the_privilege_level_is_a_claim(amd: SimulatedAmd, verifier: SnpVerifier, now: datetime, vmpl: int) -> None:
    vek = amd.vek()
    assert verifier.verify_report(amd.report(vek, vmpl=vmpl), vek.der, now=now).vmpl == vmpl


def test_host_data_carries_the_workload_digest_bound_at_launch(
    amd: SimulatedAmd, verifier: SnpVerifier, now: datetime
) -> None:
    vek = amd.vek()
    claims = verifier.verify_report(amd.report(vek, host_data=b"\xab" * 32), vek.der, now=now)
    assert claims.workload == "ab" * 32
    assert claims.workload_binding is WorkloadBinding.LAUNCH
    none = verifier.verify_report(amd.report(vek), vek.der, now=now)
    assert (none.workload, none.workload_binding) == (None, None)


def test_the_author_key_signs_for_the_guest_only_when_it_is_in_force(
    amd: SimulatedAmd, verifier: SnpVerifier, now: datetime
) -> None:
    vek = amd.vek()
    fields: dict[str, Any] = {"id_key_digest": b"\1" * 48, "author_key_digest": b"\2" * 48, "guest_svn": 7}
    fields |= {"family_id": b"\3" * 16, "image_id": b"\4" * 16, "measurement": b"\5" * 48}
    claims = verifier.verify_report(amd.report(vek, key_info=1, **fields), vek.der, now=now)
    assert (claims.signer, claims.svn, claims.measurement) == ("02" * 48, 7, "05" * 48)
    assert (claims.extra["id_key_digest"], claims.extra["author_key_digest"]) == ("01" * 48, "02" * 48)
    assert (claims.extra["family_id"], claims.extra["image_id"]) == ("03" * 16, "04" * 16)
    assert verifier.verify_report(amd.report(vek, key_info=0, **fields), vek.der, now=now).signer is None


def test_the_four_tcb_versions_stay_apart(turin: SimulatedAmd, trust: Trust, now: datetime) -> None:
    vek = turin.vek(tcb={"fmc": 200, "bootloader": 128, "tee": 1, "snp": 255, "microcode": 127})
    newer = {**vek.tcb, "microcode": 130}
    newest = {**vek.tcb, "microcode": 131}
    older = {**vek.tcb, "microcode": 9}
    report = turin.report(vek, committed_tcb=newer, current_tcb=newest, launch_tcb=older)
    claims = trust(turin).verify_report(report, vek.der, now=now)
    assert claims.tcb.reported == {"fmc": 200, "bootloader": 128, "tee": 1, "snp": 255, "microcode": 127}
    assert (claims.tcb.committed, claims.extra["current_tcb"], claims.tcb.launch) == (newer, newest, older)


def test_a_vlek_may_come_with_a_chip_identity(amd: SimulatedAmd, verifier: SnpVerifier, now: datetime) -> None:
    vek = amd.vek(VekKind.VLEK, csp_id="CN=cloud.example")
    claims = verifier.verify_report(amd.report(vek, chip_id=b"\7" * 64), vek.der, now=now)
    assert (claims.platform_id, claims.extra["csp_id"]) == ("07" * 64, "CN=cloud.example")


def test_a_masked_chip_key_does_not_bar_a_vlek(amd: SimulatedAmd, verifier: SnpVerifier, now: datetime) -> None:
    vek = amd.vek(VekKind.VLEK)
    assert verifier.verify_report(amd.report(vek, key_info=1 << 2 | 2), vek.der, now=now).extra["mask_chip_key"]


def test_claims_expire_with_the_first_piece_that_does(amd: SimulatedAmd, trust: Trust, now: datetime) -> None:
    soon, later = now + timedelta(hours=1), now + timedelta(days=2)
    vek = amd.vek(not_after=later)
    assert trust(amd).verify_report(amd.report(vek), vek.der, now=now).collateral_expires == later
    lists = [
        amd.crl(this_update=now - timedelta(days=9), next_update=now - timedelta(days=1)),
        amd.crl(this_update=now - timedelta(days=1), next_update=soon),
    ]
    claims = trust(amd, crls={"Milan": lists}, require_crl=True).verify_report(amd.report(vek), vek.der, now=now)
    assert claims.collateral_expires == soon


def test_a_product_may_have_several_bundles_but_a_bundle_only_one_root(
    amd: SimulatedAmd, other_amd: SimulatedAmd, now: datetime
) -> None:
    vek = amd.vek()
    both = SnpVerifier({"Milan": [amd.chain_pem(), amd.chain_pem()]}, simulated_ark_pins={"Milan": amd.ark_pin})
    assert both.verify_report(amd.report(vek), vek.der, now=now).simulated
    mixed = SnpVerifier({"Milan": amd.chain_pem() + other_amd.chain_pem()}, simulated_ark_pins={"Milan": amd.ark_pin})
    with pytest.raises(SnpCertificateUsageError):
        mixed.verify_report(amd.report(vek), vek.der, now=now)


def test_certificates_at_hand_serve_evidence_that_brings_none(amd: SimulatedAmd, trust: Trust, now: datetime) -> None:
    mine, others = amd.vek(), [amd.vek(), amd.vek(tcb={"snp": 3}), amd.vek(VekKind.VLEK)]
    report = amd.report(mine)
    verifier = trust(amd, veks=[*(vek.der for vek in others), mine.der])
    assert verifier.verify_report(report, now=now).platform_id == mine.hwid.hex()
    with pytest.raises(SnpVekMissingError, match=r"https://kdsintf\.amd\.com/vcek/v1/Milan/"):
        trust(amd, veks=[vek.der for vek in others]).verify_report(report, now=now)
    with pytest.raises(SnpVekMissingError):
        trust(amd).verify_report(amd.report(others[2]), now=now)


def test_a_product_needs_no_stepping_in_the_certificate(
    amd: SimulatedAmd, verifier: SnpVerifier, now: datetime
) -> None:
    for name in ("Milan", "Milan-B0", "Milan-B1"):
        vek = amd.vek(override={OID_PRODUCT: b"\x16" + bytes([len(name)]) + name.encode()})
        assert verifier.verify_report(amd.report(vek), vek.der, now=now).extra["product"] == "Milan"


BODIES: dict[str, dict[str, Any]] = {
    "empty": {},
    "both_forms": {"report": "", "attestation_report": ""},
    "unknown_member": {"report": "", "quote": ""},
    "report_is_no_text": {"report": 7},
    "report_is_no_base64": {"report": "A=A"},
    "report_is_urlsafe_base64": {"report": "__--"},
    "report_is_huge": {"report": "A" * 100_000},
    "raw_form_is_a_structure": {"report": {}},
    "structure_is_empty": {"attestation_report": {}},
    "structure_is_a_list": {"attestation_report": []},
    "chain_is_no_list": {"report": "", "cert_chain": {}},
    "chain_is_too_long": {"report": "", "cert_chain": [{"cert_type": "ASK", "data": []}] * 17},
    "chain_entry_is_text": {"report": "", "cert_chain": ["VCEK"]},
    "chain_entry_lacks_data": {"report": "", "cert_chain": [{"cert_type": "VCEK"}]},
    "chain_data_is_no_bytes": {"report": "", "cert_chain": [{"cert_type": "VCEK", "data": [256]}]},
    "chain_data_is_true": {"report": "", "cert_chain": [{"cert_type": "VCEK", "data": [True]}]},
    "chain_data_is_huge": {"report": "", "cert_chain": [{"cert_type": "VCEK", "data": [0] * 20_000}]},
    "two_endorsement_keys": {
        "report": "",
        "cert_chain": [{"cert_type": kind, "data": []} for kind in ("VCEK", "VLEK")],
    },
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_a_body_of_another_shape_is_malformed(verifier: SnpVerifier, now: datetime, body: dict[str, Any]) -> None:
    with pytest.raises(SnpEvidenceMalformedError):
        verifier.verify(Evidence("snp", body), now=now)
