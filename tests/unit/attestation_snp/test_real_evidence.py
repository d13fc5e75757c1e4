"""Reports and certificates of real machines get the outcome and the claims they must."""

from __future__ import annotations

import base64
import json
import socket
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from casemate.attestation.claims import Claims
from casemate.attestation.evidence import Evidence
from casemate.attestation.platforms.snp.certificates import split_certificates
from casemate.attestation.platforms.snp.chain import build_chain, verify_vek
from casemate.attestation.platforms.snp.endorsement import VekKind, parse_vek
from casemate.attestation.platforms.snp.report import REPORT_SIZE, parse_report
from casemate.attestation.platforms.snp.simulator import SimulatedAmd
from casemate.attestation.platforms.snp.tcb import Product
from casemate.attestation.platforms.snp.verifier import SnpVerifier
from casemate.errors import CasemateError, UndecidedError

IN_2024 = datetime(2024, 6, 1, tzinfo=UTC)
IN_2025 = datetime(2025, 6, 1, tzinfo=UTC)  # the VLEK is valid from December 2024 for a year


@pytest.fixture(autouse=True)
def network_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("verification opened a socket")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def verify(real: Any, report: str, vek: str, *, now: datetime = IN_2024, **chains: bytes) -> Claims:
    verifier = SnpVerifier(chains) if chains else real.verifier()
    return verifier.verify_report(real.read(f"{report}.report"), real.read(f"{report}.{vek}.der"), now=now)


def code_of(real: Any, report: str, vek: str, *, now: datetime = IN_2024, **chains: bytes) -> str:
    with pytest.raises(CasemateError) as caught:
        verify(real, report, vek, now=now, **chains)
    return caught.value.code


def test_milan_v2_with_debug_allowed_is_genuine_and_says_so(real: Any) -> None:
    claims = verify(real, "google_milan_v2_debug", "vcek")
    assert claims.debug
    assert claims.extra["policy"]["value"] == 0xB0000
    assert claims.extra["policy"]["debug"]
    assert claims.extra["policy"]["smt"]
    assert not claims.extra["policy"]["migrate_ma"]
    assert not claims.extra["policy"]["single_socket"]
    assert claims.report_data == "0102030405".ljust(128, "0")
    assert claims.tcb.reported == {"bootloader": 2, "tee": 0, "snp": 5, "microcode": 68}
    assert not claims.simulated


def test_milan_v2_is_accepted_with_its_claims(real: Any) -> None:
    claims = verify(real, "coco_milan_v2", "vcek")
    levels = {"bootloader": 3, "tee": 0, "snp": 8, "microcode": 115}
    assert (claims.platform, claims.simulated, claims.debug, claims.vmpl, claims.svn) == ("snp", False, False, 0, 4)
    assert claims.extra["policy"]["value"] == 0x3001F
    assert (claims.extra["policy"]["abi_major"], claims.extra["policy"]["abi_minor"]) == (0, 31)
    assert claims.tcb.reported == claims.tcb.committed == claims.tcb.launch == levels
    assert claims.extra["current_tcb"] == {**levels, "microcode": 206}
    assert claims.measurement is not None
    assert len(claims.measurement) == 96
    assert claims.platform_id is not None
    assert claims.platform_id.startswith("c38427a30d4c7af9")
    assert len(claims.platform_id) == 128
    assert (claims.workload, claims.workload_binding) == (None, None)  # HOST_DATA is zero
    assert claims.extra["cpuid_fam_id"] is None
    assert claims.extra["launch_mit_vector"] is None
    assert claims.extra["signing_key"] == "VCEK"
    assert claims.collateral_expires == datetime(2030, 1, 24, 17, 58, 26, tzinfo=UTC)
    assert json.loads(json.dumps(claims.to_json()))["extra"]["product"] == "Milan"


@pytest.mark.parametrize("vek", ["vcek_bad_legacy", "vcek_bad_new"])
def test_altered_certificates_fail_at_the_asks_signature(real: Any, vek: str) -> None:
    assert code_of(real, "coco_milan_v2", vek) == "snp-certificate-signature-invalid"


def test_milan_v3_signed_by_a_vlek_is_accepted_with_its_vmpl(real: Any) -> None:
    claims = verify(real, "coco_milan_v3_vlek", "vlek", now=IN_2025)
    assert claims.vmpl == 1
    assert claims.platform_id is None  # a VLEK report tells no chip
    assert claims.extra["version"] == 3
    assert claims.extra["csp_id"] == "CN=cc-us-east-2.amazonaws.com"
    assert (claims.extra["cpuid_fam_id"], claims.extra["cpuid_mod_id"], claims.extra["cpuid_step"]) == (0x19, 1, 1)
    assert claims.tcb.reported == {"bootloader": 4, "tee": 0, "snp": 24, "microcode": 217}
    assert claims.tcb.committed == {"bootloader": 4, "tee": 0, "snp": 24, "microcode": 219}
    assert claims.extra["current_version"] == {"major": 1, "minor": 55, "build": 29}
    assert claims.extra["platform_info"]["alias_check_complete"]
    assert claims.collateral_expires == datetime(2025, 12, 10, 22, 14, 21, tzinfo=UTC)


def test_a_vlek_is_refused_through_the_ask(real: Any) -> None:
    """The bundle's order is ASK, ARK, ASVK; without the last one nobody in it issued the VLEK."""
    certificates = real.chain("Milan").split(b"-----BEGIN")
    ask_and_ark = b"-----BEGIN" + b"-----BEGIN".join(certificates[1:3])
    assert len(split_certificates(ask_and_ark)) == 2
    assert code_of(real, "coco_milan_v3_vlek", "vlek", now=IN_2025, Milan=ask_and_ark) == "snp-issuer-mismatch"


def test_a_vlek_is_undecided_after_its_year(real: Any) -> None:
    with pytest.raises(UndecidedError) as caught:
        verify(real, "coco_milan_v3_vlek", "vlek", now=datetime(2026, 1, 1, tzinfo=UTC))
    assert caught.value.code == "snp-certificate-expired"
    assert "2025-12-10" in caught.value.message
    assert code_of(real, "coco_milan_v3_vlek", "vlek", now=IN_2024) == "snp-certificate-not-yet-valid"


@pytest.mark.parametrize("other", ["Genoa", "Turin"])
def test_no_other_products_chain_will_do(real: Any, other: str) -> None:
    assert code_of(real, "coco_milan_v2", "vcek", Milan=real.chain(other)) == "snp-ark-untrusted"
    assert code_of(real, "coco_milan_v2", "vcek", **{other: real.chain(other)}) == "snp-chain-missing"


def test_no_other_machines_certificate_will_do(real: Any) -> None:
    report, vek = real.read("coco_milan_v2.report"), real.read("google_milan_v2_debug.vcek.der")
    with pytest.raises(CasemateError) as caught:
        real.verifier().verify_report(report, vek, now=IN_2024)
    assert caught.value.code == "snp-signature-invalid"


def test_the_turin_vcek_chains_to_turins_ark_and_no_other(real: Any) -> None:
    vek = parse_vek(real.read("virtee_turin.vcek.der"))
    assert (vek.kind, vek.product) == (VekKind.VCEK, Product.TURIN)
    assert vek.hwid == bytes.fromhex("1e550a8ee5cf9f4d")
    assert vek.spl == {"fmc": 0, "bootloader": 0, "tee": 0, "snp": 0, "microcode": 9}
    verify_vek(vek, build_chain(Product.TURIN, split_certificates(real.chain("Turin")), simulated_pins={}))
    for other in (Product.MILAN, Product.GENOA):
        chain = build_chain(other, split_certificates(real.chain(other)), simulated_pins={})
        with pytest.raises(CasemateError) as caught:
            verify_vek(vek, chain)
        assert caught.value.code == "snp-issuer-mismatch"


@pytest.mark.parametrize("product", list(Product))
def test_the_pinned_roots_are_amds(real: Any, product: Product) -> None:
    chain = build_chain(product, split_certificates(real.chain(product)), simulated_pins={})
    assert not chain.simulated
    assert chain.ask is not None
    assert chain.asvk is not None
    assert chain.ark.subject_cn == f"ARK-{product}"
    assert 2045 <= chain.ark.not_after.year <= 2048


@pytest.mark.parametrize(("vek", "microcode"), [("vcek_bad_legacy", 169), ("vcek_bad_new", 30), ("vcek", 115)])
def test_both_encodings_of_the_hwid_are_read(real: Any, vek: str, microcode: int) -> None:
    found = parse_vek(real.read(f"coco_milan_v2.{vek}.der"))
    assert found.spl["microcode"] == microcode  # 169 is written 00 a9
    assert found.hwid is not None
    assert len(found.hwid) == 64
    if vek != "vcek":
        assert found.hwid == bytes(range(64))


@pytest.mark.parametrize("name", ["azure_snp_evidence-v1", "azure_snp_evidence-v2", "azure_snp_genoa"])
def test_the_reports_inside_azures_evidence_are_genuine(real: Any, name: str) -> None:
    evidence = json.loads((real.folder.parent / "tpm" / f"{name}.json").read_text())
    decoded = {key: base64.urlsafe_b64decode(evidence[key] + "===") for key in ("hcl_report", "vcek")}
    report = decoded["hcl_report"][0x20 : 0x20 + REPORT_SIZE]
    claims = real.verifier().verify_report(report, decoded["vcek"], now=datetime(2026, 1, 1, tzinfo=UTC))
    assert claims.extra["version"] == 3
    assert claims.extra["product"] == ("Genoa" if "genoa" in name else "Milan")
    assert not claims.debug


def test_evidence_as_confidential_containers_send_it_is_read(real: Any) -> None:
    """The same report, raw and as the structure older and newer guests write, gives the same claims."""
    raw = real.read("coco_milan_v3_vlek.report")
    vlek = real.read("coco_milan_v3_vlek.vlek.der")
    bodies: list[dict[str, Any]] = [
        {"report": base64.b64encode(raw).decode(), "cert_chain": [_entry("VLEK", list(vlek))]},
        {"attestation_report": base64.b64encode(raw).decode(), "cert_chain": [_entry("VLEK", list(vlek))]},
        {"attestation_report": structure(raw), "cert_chain": [_entry("VLEK", list(vlek)), _entry("Empty", [])]},
        {
            "attestation_report": structure(raw, old=True),
            "cert_chain": [_entry("VLEK", base64.b64encode(vlek).decode()), {"cert_type": {"OTHER": "0"}, "data": []}],
        },
    ]
    expected = verify(real, "coco_milan_v3_vlek", "vlek", now=IN_2025)
    for body in bodies:
        body = json.loads(json.dumps(body))
        assert real.verifier().verify(Evidence("snp", body), now=IN_2025) == expected


def test_a_structure_with_one_number_changed_is_refused(real: Any) -> None:
    raw, vlek = real.read("coco_milan_v3_vlek.report"), real.read("coco_milan_v3_vlek.vlek.der")
    for change in ({"vmpl": 0}, {"guest_svn": 1}, {"launch_tcb": {**structure(raw)["launch_tcb"], "snp": 99}}):
        body = {"attestation_report": {**structure(raw), **change}, "cert_chain": [_entry("VLEK", list(vlek))]}
        with pytest.raises(CasemateError) as caught:
            real.verifier().verify(Evidence("snp", body), now=IN_2025)
        assert caught.value.code == "snp-signature-invalid"


def test_a_real_and_a_simulated_root_never_vouch_for_each_other(real: Any, amd: SimulatedAmd) -> None:
    """Side by side in one verifier, each kind of evidence says which root it has; names decide nothing alone."""
    pins = {"Milan": amd.ark_pin}
    both = SnpVerifier({"Milan": [real.chain("Milan"), amd.chain_pem()]}, simulated_ark_pins=pins)
    real_report, real_vek = real.read("coco_milan_v2.report"), real.read("coco_milan_v2.vcek.der")
    vek = amd.vek()
    assert not both.verify_report(real_report, real_vek, now=IN_2024).simulated
    assert both.verify_report(amd.report(vek), vek.der, now=IN_2024).simulated
    with pytest.raises(CasemateError) as caught:
        SnpVerifier({"Milan": real.chain("Milan")}).verify_report(amd.report(vek), vek.der, now=IN_2024)
    assert caught.value.code == "snp-issuer-mismatch"
    only_simulated = SnpVerifier({"Milan": amd.chain_pem()}, simulated_ark_pins=pins)
    with pytest.raises(CasemateError) as caught:
        only_simulated.verify_report(real_report, real_vek, now=IN_2024)
    assert caught.value.code == "snp-issuer-mismatch"


def test_an_unsigned_chain_in_the_evidence_must_end_in_the_pinned_root(real: Any) -> None:
    """Issuers from the evidence serve when the caller has none; they are trusted no more than any bytes."""
    ask, ark, asvk = split_certificates(real.chain("Milan"))
    foreign = split_certificates(real.chain("Genoa"))[1]
    raw, vek = real.read("coco_milan_v2.report"), real.read("coco_milan_v2.vcek.der")
    body: dict[str, Any] = {"report": base64.b64encode(raw).decode()}
    body["cert_chain"] = [_entry("VCEK", list(vek)), _entry("ASK", list(ask)), _entry("ARK", list(ark))]
    assert SnpVerifier({}).verify(Evidence("snp", body), now=IN_2024).platform == "snp"
    body["cert_chain"][2] = _entry("ARK", list(foreign))
    with pytest.raises(CasemateError) as caught:
        SnpVerifier({}).verify(Evidence("snp", body), now=IN_2024)
    assert caught.value.code == "snp-ark-untrusted"
    body["cert_chain"] = [_entry("VCEK", list(vek)), _entry("ASK", list(asvk)), _entry("ARK", list(ark))]
    with pytest.raises(CasemateError) as caught:
        SnpVerifier({}).verify(Evidence("snp", body), now=IN_2024)
    assert caught.value.code == "snp-issuer-mismatch"


def test_no_single_flipped_bit_is_accepted(real: Any) -> None:
    """All 9472 bits of one real report: signed region, signature, and the unsigned padding behind it."""
    raw, vek = real.read("coco_milan_v2.report"), real.read("coco_milan_v2.vcek.der")
    verifier = real.verifier()
    assert verifier.verify_report(raw, vek, now=IN_2024).platform == "snp"
    accepted, codes = [], set()
    for bit in range(8 * REPORT_SIZE):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            verifier.verify_report(bytes(flipped), vek, now=IN_2024)
        except CasemateError as exc:
            codes.add(exc.code)
        else:
            accepted.append(bit)
    assert accepted == []
    assert {"snp-signature-invalid", "snp-report-reserved-not-zero", "snp-signature-out-of-range"} <= codes


def test_no_flipped_bit_of_the_certificate_is_accepted(real: Any) -> None:
    """Every byte of a real VCEK certificate, one bit each: nothing in it is outside the signature's protection."""
    raw, vek = real.read("coco_milan_v2.report"), real.read("coco_milan_v2.vcek.der")
    verifier = real.verifier()
    for index in range(len(vek)):
        flipped = bytearray(vek)
        flipped[index] ^= 1 << index % 8
        with pytest.raises(CasemateError):
            verifier.verify_report(raw, bytes(flipped), now=IN_2024)


def test_a_core_verifies_some_hundred_reports_a_second(real: Any) -> None:
    """With the certificate verified anew each time; the floor is far below the aim of 300, for busy machines."""
    raw, vek = real.read("coco_milan_v2.report"), real.read("coco_milan_v2.vcek.der")
    verifier, count = real.verifier(), 100
    verifier.verify_report(raw, vek, now=IN_2024)
    start = time.process_time()
    for _ in range(count):
        verifier._verified_veks.clear()
        verifier.verify_report(raw, vek, now=IN_2024)
    assert count / (time.process_time() - start) > 100


def _entry(kind: str, data: Any) -> dict[str, Any]:
    return {"cert_type": kind, "data": data}


def structure(raw: bytes, *, old: bool = False) -> dict[str, Any]:
    """The JSON structure of a report as confidential-containers guests write it; `old` with the fields of 2023."""
    report = parse_report(raw)

    def tcb(value: bytes) -> dict[str, Any]:
        levels: dict[str, Any] = {"bootloader": value[0], "tee": value[1], "snp": value[6], "microcode": value[7]}
        return {**levels, "_reserved": [0, 0, 0, 0]} if old else {"fmc": None, **levels}

    fields: dict[str, Any] = {
        "version": report.version,
        "guest_svn": report.guest_svn,
        "policy": report.policy,
        "vmpl": report.vmpl,
        "sig_algo": 1,
        "plat_info": report.platform_info,
        "_author_key_en" if old else "key_info": int.from_bytes(raw[0x48:0x4C], "little"),
        "cpuid_fam_id": report.cpuid_fam_id,
        "cpuid_mod_id": report.cpuid_mod_id,
        "cpuid_step": report.cpuid_step,
        "signature": {"r": list(raw[0x2A0:0x2E8]), "s": list(raw[0x2E8:0x330])},
    }
    for name in ("family_id", "image_id", "report_data", "measurement", "host_data", "id_key_digest"):
        fields[name] = list(getattr(report, name))
    for name in ("author_key_digest", "report_id", "report_id_ma", "chip_id"):
        fields[name] = list(getattr(report, name))
    for name in ("current_tcb", "reported_tcb", "committed_tcb", "launch_tcb"):
        fields[name] = tcb(getattr(report, name))
    for name, version in (("current", report.current_version), ("committed", report.committed_version)):
        numbers = dict(zip(("major", "minor", "build"), version, strict=True))
        if old:
            fields.update({f"{name}_{key}": value for key, value in numbers.items()})
        else:
            fields[name] = numbers
    if old:
        fields.update({"_reserved_0": 0, "_reserved_4": [0] * 168})
        fields["signature"]["_reserved"] = [0] * 368
    else:
        fields.update({"launch_mit_vector": None, "current_mit_vector": None})
    return fields
