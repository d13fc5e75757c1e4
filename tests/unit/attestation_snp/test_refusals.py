"""Each fault is refused for its own reason: one authority, one fault at a time, one code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from casemate.attestation.errors import CollateralMissingError, EvidenceSignatureError, UntrustedRootError
from casemate.attestation.platforms.snp.endorsement import OID_CSP_ID, OID_HWID, OID_PRODUCT, SPL_OIDS, VekKind
from casemate.attestation.platforms.snp.report import P384_ORDER
from casemate.attestation.platforms.snp.simulator import SimulatedAmd
from casemate.attestation.platforms.snp.tcb import Product
from casemate.attestation.platforms.snp.verifier import SnpVerifier
from casemate.errors import CasemateError, RefusedError, UndecidedError, UsageError, error_class

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)
VCEK, VLEK = VekKind.VCEK, VekKind.VLEK
PKCS1_SHA384 = bytes.fromhex("300d06092a864886f70d01010c0500")
CRITICAL_UNKNOWN = ("1.3.6.1.4.1.99999.1", True, b"\x05\x00")
NO_CA = (("2.5.29.19", True, bytes.fromhex("3000")), ("2.5.29.15", True, bytes.fromhex("03020106")))
NO_CERT_SIGN = (("2.5.29.19", True, bytes.fromhex("30030101ff")), ("2.5.29.15", True, bytes.fromhex("03020780")))
IS_CA = ("2.5.29.19", True, bytes.fromhex("30030101ff"))


def spki(key: Any) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@dataclass
class Scene:
    """One verification with one fault in it: what to bend in certificate, report, chain, revocation list, bytes."""

    vek: dict[str, Any] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)
    chain: Callable[[SimulatedAmd, SimulatedAmd], bytes] | None = None
    crl: dict[str, Any] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    bend_report: Callable[[bytes], bytes] = bytes
    bend_vek: Callable[[bytes], bytes] = bytes
    bend_crl: Callable[[bytes], bytes] = bytes
    now: datetime = NOW

    def verify(self, amd: SimulatedAmd, other: SimulatedAmd) -> None:
        vek = amd.vek(**self.vek)
        report = self.bend_report(amd.report(vek, **self.report))
        settings: dict[str, Any] = {"chains": {amd.product: (self.chain or (lambda a, _: a.chain_pem()))(amd, other)}}
        if self.crl is not None:
            dates = {"this_update": NOW - DAY, "next_update": NOW + DAY}
            settings["crls"] = {amd.product: [self.bend_crl(amd.crl(**{**dates, **self.crl}))]}
        verifier = SnpVerifier(**settings, simulated_ark_pins={amd.product: amd.ark_pin}, **self.settings)
        verifier.verify_report(report, self.bend_vek(vek.der), now=self.now)


def patched(offset: int, value: bytes, version: int = 3) -> Scene:
    return Scene(report={"patch": {offset: value}, "version": version})


def bumped(component: str) -> Scene:
    """The certificate is for a patch level one above the report's."""
    return Scene(vek={"override": {SPL_OIDS[component]: b"\x02\x01\x63"}})


def swap(der: bytes, old: bytes, new: bytes) -> bytes:
    assert len(old) == len(new)
    assert old in der
    return der.replace(old, new)


CASES: dict[str, tuple[str, Scene]] = {
    # -- the report's form
    "report_empty": ("snp-report-truncated", Scene(bend_report=lambda _: b"")),
    "report_truncated_by_one_byte": ("snp-report-truncated", Scene(bend_report=lambda raw: raw[:-1])),
    "report_without_its_signature": ("snp-report-truncated", Scene(bend_report=lambda raw: raw[:0x2A0])),
    "report_with_a_trailing_byte": ("snp-report-trailing-bytes", Scene(bend_report=lambda raw: raw + b"\0")),
    "report_of_a_megabyte": ("snp-report-trailing-bytes", Scene(bend_report=lambda raw: raw.ljust(1 << 20, b"\0"))),
    "version_0": ("snp-report-version-unsupported", Scene(report={"version": 0})),
    "version_1": ("snp-report-version-unsupported", Scene(report={"version": 1})),
    "version_6": ("snp-report-version-unsupported", Scene(report={"version": 6})),
    "version_of_32_bits": ("snp-report-version-unsupported", Scene(report={"version": 0xFFFFFFFF})),
    "reserved_4c": ("snp-report-reserved-not-zero", patched(0x4C, b"\1")),
    "reserved_cpuid_in_version_2": ("snp-report-reserved-not-zero", patched(0x188, b"\x19", version=2)),
    "reserved_18b": ("snp-report-reserved-not-zero", patched(0x18B, b"\1")),
    "reserved_1eb": ("snp-report-reserved-not-zero", patched(0x1EB, b"\1")),
    "reserved_1ef": ("snp-report-reserved-not-zero", patched(0x1EF, b"\1")),
    "reserved_mitigation_vector_in_version_3": ("snp-report-reserved-not-zero", patched(0x1F8, b"\1")),
    "reserved_208_in_version_5": ("snp-report-reserved-not-zero", patched(0x208, b"\1", version=5)),
    "reserved_29f": ("snp-report-reserved-not-zero", patched(0x29F, b"\1", version=4)),
    "reserved_after_the_signature": (
        "snp-report-reserved-not-zero",
        Scene(bend_report=lambda raw: raw[:0x330] + b"\1" + raw[0x331:]),
    ),
    "reserved_last_byte": ("snp-report-reserved-not-zero", Scene(bend_report=lambda raw: raw[:-1] + b"\1")),
    "reserved_policy_bit": ("snp-report-reserved-not-zero", Scene(report={"policy": 0x30000 | 1 << 26})),
    "reserved_key_information": ("snp-report-reserved-not-zero", Scene(report={"key_info": 1 << 5})),
    "reserved_tcb_byte": ("snp-report-reserved-not-zero", patched(0x183, b"\1")),
    "reserved_tcb_byte_of_the_committed_tcb": ("snp-report-reserved-not-zero", patched(0x1E3, b"\1")),
    "policy_bit_17_clear": ("snp-policy-bit17-clear", Scene(report={"policy": 0x10000})),
    "policy_zero": ("snp-policy-bit17-clear", Scene(report={"policy": 0})),
    "vmpl_4": ("snp-report-vmpl-invalid", Scene(report={"vmpl": 4})),
    "requested_by_the_hypervisor": ("snp-report-vmpl-invalid", Scene(report={"vmpl": 0xFFFFFFFF})),
    "signature_algorithm_0": ("snp-signature-algorithm-unsupported", Scene(report={"signature_algo": 0})),
    "signature_algorithm_2": ("snp-signature-algorithm-unsupported", Scene(report={"signature_algo": 2})),
    "signing_key_none": ("snp-signing-key-unsupported", Scene(report={"key_info": 7 << 2})),
    "signing_key_reserved": ("snp-signing-key-unsupported", Scene(report={"key_info": 2 << 2})),
    # -- the report's signature
    "signature_r_zero": ("snp-signature-out-of-range", Scene(report={"r": 0})),
    "signature_s_zero": ("snp-signature-out-of-range", Scene(report={"s": 0})),
    "signature_r_is_the_order": ("snp-signature-out-of-range", Scene(report={"r": P384_ORDER})),
    "signature_s_is_the_order": ("snp-signature-out-of-range", Scene(report={"s": P384_ORDER})),
    "signature_r_above_the_order": ("snp-signature-out-of-range", Scene(report={"r": P384_ORDER + 1})),
    "signature_r_wider_than_48_bytes": ("snp-signature-out-of-range", Scene(report={"r": 1 << 384})),
    "signature_s_of_72_bytes": ("snp-signature-out-of-range", Scene(report={"s": (1 << 576) - 1})),
    "signature_all_zero": (
        "snp-signature-out-of-range",
        Scene(bend_report=lambda raw: raw[:0x2A0].ljust(0x4A0, b"\0")),
    ),
    "signature_r_wrong": ("snp-signature-invalid", Scene(report={"r": 1})),
    "signature_s_wrong": ("snp-signature-invalid", Scene(report={"s": P384_ORDER - 1})),
    "measurement_changed": (
        "snp-signature-invalid",
        Scene(bend_report=lambda raw: raw[:0x90] + b"\xff" + raw[0x91:]),
    ),
    "report_data_changed": (
        "snp-signature-invalid",
        Scene(bend_report=lambda raw: raw[:0x50] + b"\xff" + raw[0x51:]),
    ),
    "debug_bit_cleared_by_the_host": (
        "snp-signature-invalid",
        Scene(report={"policy": 0xB0000}, bend_report=lambda raw: raw[:0x0A] + b"\x03" + raw[0x0B:]),
    ),
    # -- which key, which chip, which TCB
    "vlek_report_with_a_vcek": ("snp-vek-kind-mismatch", Scene(report={"key_info": 1 << 2})),
    "vcek_report_with_a_vlek": ("snp-vek-kind-mismatch", Scene(vek={"kind": VLEK}, report={"key_info": 0})),
    "subject_is_no_endorsement_key": ("snp-vek-kind-mismatch", Scene(vek={"subject": "SEV-MILAN"})),
    "chip_key_masked": ("snp-chip-key-masked", Scene(report={"key_info": 2})),
    "chip_id_masked": ("snp-chip-id-masked", Scene(report={"chip_id": bytes(64)})),
    "hwid_of_another_chip": ("snp-hwid-mismatch", Scene(vek={"override": {OID_HWID: bytes(range(64))}})),
    "hwid_differs_in_the_last_byte": (
        "snp-hwid-mismatch",
        Scene(vek={"hwid": b"\7" * 64}, report={"chip_id": b"\7" * 63 + b"\6"}),
    ),
    "tcb_bootloader_differs": ("snp-tcb-mismatch", bumped("bootloader")),
    "tcb_tee_differs": ("snp-tcb-mismatch", bumped("tee")),
    "tcb_snp_differs": ("snp-tcb-mismatch", bumped("snp")),
    "tcb_microcode_differs": ("snp-tcb-mismatch", bumped("microcode")),
    "tcb_of_a_vlek_differs": (
        "snp-tcb-mismatch",
        Scene(vek={"kind": VLEK, "override": {SPL_OIDS["snp"]: b"\x02\x02\x00\xff"}}),
    ),
    "report_of_a_genoa_processor": ("snp-product-mismatch", Scene(report={"cpuid": (0x19, 0x11, 1)})),
    "report_of_a_turin_processor": ("snp-product-mismatch", Scene(report={"cpuid": (0x1A, 0x02, 1)})),
    "report_of_an_unknown_processor": ("snp-product-unknown", Scene(report={"cpuid": (0x17, 0x31, 0)})),
    # -- the endorsement key's certificate
    "certificate_empty": ("snp-certificate-malformed", Scene(bend_vek=lambda _: b"")),
    "certificate_truncated": ("snp-certificate-malformed", Scene(bend_vek=lambda der: der[:-1])),
    "certificate_with_trailing_bytes": ("snp-certificate-malformed", Scene(bend_vek=lambda der: der + b"\0")),
    "certificate_is_text": ("snp-certificate-malformed", Scene(bend_vek=lambda _: b"<html>429</html>")),
    "certificate_of_a_gigabyte_length": (
        "snp-certificate-malformed",
        Scene(bend_vek=lambda _: bytes.fromhex("308440000000")),
    ),
    "certificate_of_indefinite_length": (
        "snp-certificate-malformed",
        Scene(bend_vek=lambda der: b"\x30\x80" + der[4:] + b"\0\0"),
    ),
    "certificate_of_version_1": ("snp-certificate-malformed", Scene(vek={"version": 0})),
    "certificate_with_two_algorithms": (
        "snp-certificate-malformed",
        Scene(vek={"outer_algorithm": PKCS1_SHA384}),
    ),
    "certificate_with_a_negative_serial": (
        "snp-certificate-malformed",
        Scene(bend_vek=lambda der: swap(der, b"\xa0\x03\x02\x01\x02\x02\x01\x00", b"\xa0\x03\x02\x01\x02\x02\x01\xff")),
    ),
    "certificate_with_another_month_13": (
        "snp-certificate-malformed",
        Scene(bend_vek=lambda der: swap(der, b"440601", b"441301")),
    ),
    "certificate_key_is_no_key": ("snp-certificate-malformed", Scene(vek={"public_key": b"\x30\x00"})),
    "certificate_key_on_p256": ("snp-vek-key-unsupported", Scene(vek={"curve": ec.SECP256R1()})),
    "certificate_key_on_p521": ("snp-vek-key-unsupported", Scene(vek={"curve": ec.SECP521R1()})),
    "certificate_key_is_rsa": (
        "snp-vek-key-unsupported",
        Scene(vek={"public_key": spki(rsa.generate_private_key(65537, 2048))}),
    ),
    "certificate_is_a_ca": ("snp-certificate-usage-wrong", Scene(vek={"extra": [IS_CA]})),
    "certificate_has_an_unknown_critical_extension": (
        "snp-certificate-extension-critical",
        Scene(vek={"extra": [CRITICAL_UNKNOWN]}),
    ),
    "certificate_without_product": ("snp-certificate-extension-missing", Scene(vek={"drop": [OID_PRODUCT]})),
    "certificate_without_hwid": ("snp-certificate-extension-missing", Scene(vek={"drop": [OID_HWID]})),
    "certificate_without_csp_id": (
        "snp-certificate-extension-missing",
        Scene(vek={"kind": VLEK, "drop": [OID_CSP_ID]}),
    ),
    **{
        f"certificate_without_{name}_level": (
            "snp-certificate-extension-missing",
            Scene(vek={"drop": [SPL_OIDS[name]]}),
        )
        for name in ("bootloader", "tee", "snp", "microcode")
    },
    "certificate_with_two_hwids": ("snp-certificate-extension-duplicate", Scene(vek={"duplicate": [OID_HWID]})),
    "certificate_with_two_snp_levels": (
        "snp-certificate-extension-duplicate",
        Scene(vek={"duplicate": [SPL_OIDS["snp"]]}),
    ),
    "hwid_of_63_bytes": ("snp-certificate-extension-malformed", Scene(vek={"override": {OID_HWID: bytes(63)}})),
    "hwid_as_an_octet_string_of_63_bytes": (
        "snp-certificate-extension-malformed",
        Scene(vek={"override": {OID_HWID: b"\x04\x3f" + bytes(63)}}),
    ),
    "hwid_of_a_turin_chip": ("snp-certificate-extension-malformed", Scene(vek={"override": {OID_HWID: bytes(8)}})),
    "level_negative": (
        "snp-certificate-extension-malformed",
        Scene(vek={"override": {SPL_OIDS["microcode"]: b"\x02\x01\xdb"}}),
    ),
    "level_256": (
        "snp-certificate-extension-malformed",
        Scene(vek={"override": {SPL_OIDS["microcode"]: b"\x02\x02\x01\x00"}}),
    ),
    "level_with_a_needless_zero": (
        "snp-certificate-extension-malformed",
        Scene(vek={"override": {SPL_OIDS["snp"]: b"\x02\x02\x00\x18"}}),
    ),
    "level_is_a_string": (
        "snp-certificate-extension-malformed",
        Scene(vek={"override": {SPL_OIDS["snp"]: b"\x04\x01\x18"}}),
    ),
    "level_with_trailing_bytes": (
        "snp-certificate-extension-malformed",
        Scene(vek={"override": {SPL_OIDS["snp"]: b"\x02\x01\x18\x00"}}),
    ),
    "reserved_level_not_zero": (
        "snp-certificate-extension-malformed",
        Scene(vek={"extra": [("1.3.6.1.4.1.3704.1.3.5", False, b"\x02\x01\x01")]}),
    ),
    "product_not_text": (
        "snp-certificate-extension-malformed",
        Scene(vek={"override": {OID_PRODUCT: b"\x04\x05Milan"}}),
    ),
    "certificate_of_an_unknown_product": ("snp-product-unknown", Scene(vek={"product_name": "Naples-A1"})),
    "certificate_of_a_product_without_a_chain": ("snp-chain-missing", Scene(vek={"product_name": "Genoa-B1"})),
    "certificate_signature_flipped": ("snp-certificate-signature-invalid", Scene(vek={"flip_signature": True})),
    "certificate_changed_after_signing": (
        "snp-certificate-signature-invalid",
        Scene(bend_vek=lambda der: swap(der, b"Milan-B0", b"Milan-B1")),
    ),
    "certificate_with_20_bytes_of_salt": ("snp-certificate-signature-invalid", Scene(vek={"salt_length": 20})),
    "certificate_claims_pkcs1": (
        "snp-certificate-algorithm-unsupported",
        Scene(vek={"algorithm": PKCS1_SHA384}),
    ),
    "certificate_expired": ("snp-certificate-expired", Scene(vek={"not_after": NOW - DAY})),
    "certificate_not_yet_valid": ("snp-certificate-not-yet-valid", Scene(vek={"not_before": NOW + DAY})),
    # -- the chain
    "vcek_signed_by_the_ark": ("snp-certificate-signature-invalid", Scene(vek={"signed_by": "ARK"})),
    "vcek_signed_by_the_asvk": ("snp-certificate-signature-invalid", Scene(vek={"signed_by": "ASVK"})),
    "vcek_issued_by_the_asvk": (
        "snp-issuer-mismatch",
        Scene(vek={"signed_by": "ASVK", "issuer": "SEV-VLEK-Milan"}),
    ),
    "vlek_signed_by_the_ask": (
        "snp-certificate-signature-invalid",
        Scene(vek={"kind": VLEK, "signed_by": "ASK"}),
    ),
    "vlek_issued_by_the_ask": (
        "snp-issuer-mismatch",
        Scene(vek={"kind": VLEK, "signed_by": "ASK", "issuer": "SEV-Milan"}),
    ),
    "vlek_without_the_asvk": (
        "snp-issuer-mismatch",
        Scene(vek={"kind": VLEK}, chain=lambda amd, _: amd.chain_pem(("ASK", "ARK"))),
    ),
    "chain_without_an_ark": ("snp-chain-missing", Scene(chain=lambda amd, _: amd.chain_pem(("ASK", "ASVK")))),
    "chain_of_an_ark_alone": ("snp-chain-missing", Scene(chain=lambda amd, _: amd.chain_pem(("ARK",)))),
    "chain_empty": ("snp-chain-missing", Scene(chain=lambda *_: b"")),
    "chain_is_no_pem": ("snp-certificate-malformed", Scene(chain=lambda *_: b"-----BEGIN NOTHING-----\n")),
    "chain_pem_is_no_base64": (
        "snp-certificate-malformed",
        Scene(chain=lambda *_: b"-----BEGIN CERTIFICATE-----\nA=A\n-----END CERTIFICATE-----\n"),
    ),
    "ark_of_another_authority": ("snp-ark-untrusted", Scene(chain=lambda _, other: other.chain_pem())),
    "ark_made_anew_with_the_same_key": (
        "snp-ark-untrusted",
        Scene(chain=lambda amd, _: amd.chain_pem(ARK=amd.issuer("ARK"))),
    ),
    "two_arks": ("snp-certificate-usage-wrong", Scene(chain=lambda amd, other: amd.chain_pem() + other.chain_pem())),
    "ask_of_another_authority": (
        "snp-certificate-signature-invalid",
        Scene(chain=lambda amd, other: amd.chain_pem(ASK=other.certificates["ASK"])),
    ),
    "ask_under_another_issuers_name": (
        "snp-issuer-mismatch",
        Scene(chain=lambda amd, _: amd.chain_pem(ASK=amd.issuer("ASK", issuer="ARK-Genoa"))),
    ),
    "ask_swapped_for_the_asvk": (
        "snp-issuer-mismatch",
        Scene(chain=lambda amd, _: amd.chain_pem(ASK=amd.certificates["ASVK"])),
    ),
    "ask_of_another_product": (
        "snp-product-mismatch",
        Scene(chain=lambda amd, _: amd.chain_pem(ASK=amd.issuer("ASK", subject="SEV-Genoa"))),
    ),
    "two_different_asks": (
        "snp-certificate-usage-wrong",
        Scene(chain=lambda amd, _: amd.chain_pem() + amd.chain_pem(("ASK",), ASK=amd.issuer("ASK", serial=9))),
    ),
    "ask_is_no_ca": (
        "snp-certificate-usage-wrong",
        Scene(chain=lambda amd, _: amd.chain_pem(ASK=amd.issuer("ASK", extensions=NO_CA))),
    ),
    "ask_may_not_sign_certificates": (
        "snp-certificate-usage-wrong",
        Scene(chain=lambda amd, _: amd.chain_pem(ASK=amd.issuer("ASK", extensions=NO_CERT_SIGN))),
    ),
    "ask_has_an_unknown_critical_extension": (
        "snp-certificate-extension-critical",
        Scene(chain=lambda amd, _: amd.chain_pem(ASK=amd.issuer("ASK", extensions=[CRITICAL_UNKNOWN]))),
    ),
    "ask_signed_with_20_bytes_of_salt": (
        "snp-certificate-signature-invalid",
        Scene(chain=lambda amd, _: amd.chain_pem(ASK=amd.issuer("ASK", salt_length=20))),
    ),
    "ask_expired": (
        "snp-certificate-expired",
        Scene(chain=lambda amd, _: amd.chain_pem(ASK=amd.issuer("ASK", not_after=NOW - DAY))),
    ),
    "ask_not_yet_valid": (
        "snp-certificate-not-yet-valid",
        Scene(chain=lambda amd, _: amd.chain_pem(ASK=amd.issuer("ASK", not_before=NOW + DAY))),
    ),
    "everything_expired": ("snp-certificate-expired", Scene(now=NOW.replace(year=2045))),
    "before_everything": ("snp-certificate-not-yet-valid", Scene(now=NOW.replace(year=2023))),
    # -- revocation
    "ask_revoked": ("snp-ask-revoked", Scene(crl={"revoked": [0x70001]})),
    "asvk_revoked": ("snp-ask-revoked", Scene(vek={"kind": VLEK}, crl={"revoked": [0x70101]})),
    "ask_revoked_by_a_list_that_has_expired": (
        "snp-ask-revoked",
        Scene(crl={"revoked": [0x70001], "next_update": NOW - timedelta(hours=1)}),
    ),
    "vek_revoked": ("snp-vek-revoked", Scene(vek={"serial": 77}, crl={"revoked_by": {"ASK": [76, 77]}})),
    "vlek_revoked": (
        "snp-vek-revoked",
        Scene(vek={"kind": VLEK, "serial": 78}, crl={"revoked_by": {"ASVK": [78]}}),
    ),
    "crl_required_and_missing": ("snp-crl-missing", Scene(settings={"require_crl": True})),
    "crl_expired": ("snp-crl-expired", Scene(crl={"next_update": NOW - timedelta(hours=1)})),
    "crl_without_an_end": ("snp-crl-expired", Scene(crl={"next_update": None})),
    "crl_from_the_future": ("snp-crl-not-yet-valid", Scene(crl={"this_update": NOW + timedelta(hours=1)})),
    "crl_signed_by_another_key": ("snp-crl-signature-invalid", Scene(crl={"signed_by": "ASK"})),
    "crl_signature_flipped": (
        "snp-crl-signature-invalid",
        Scene(crl={}, bend_crl=lambda der: der[:-1] + bytes([der[-1] ^ 1])),
    ),
    "crl_with_20_bytes_of_salt": ("snp-crl-signature-invalid", Scene(crl={"salt_length": 20})),
    "crl_claims_pkcs1": ("snp-certificate-algorithm-unsupported", Scene(crl={"algorithm": PKCS1_SHA384})),
    "crl_of_another_issuer": ("snp-crl-issuer-mismatch", Scene(crl={"issuer": "ASK"})),
    "crl_truncated": ("snp-crl-malformed", Scene(crl={}, bend_crl=lambda der: der[:-1])),
    "crl_is_text": ("snp-crl-malformed", Scene(crl={}, bend_crl=lambda _: b"-----BEGIN NOTHING-----")),
    "crl_with_an_unknown_critical_extension": (
        "snp-crl-malformed",
        Scene(crl={"extensions": [CRITICAL_UNKNOWN]}),
    ),
}


@pytest.mark.parametrize(("code", "scene"), CASES.values(), ids=CASES.keys())
def test_refused_for_its_own_reason(amd: SimulatedAmd, other_amd: SimulatedAmd, code: str, scene: Scene) -> None:
    with pytest.raises(CasemateError) as caught:
        scene.verify(amd, other_amd)
    assert caught.value.code == code, caught.value


@pytest.mark.parametrize("component", ["fmc", "bootloader", "tee", "snp", "microcode"])
def test_each_turin_component_must_match(turin: SimulatedAmd, other_amd: SimulatedAmd, component: str) -> None:
    with pytest.raises(CasemateError) as caught:
        bumped(component).verify(turin, other_amd)
    assert caught.value.code == "snp-tcb-mismatch"
    assert component in str(caught.value)


TURIN_CASES: dict[str, tuple[str, Scene]] = {
    "certificate_without_fmc_level": (
        "snp-certificate-extension-missing",
        Scene(vek={"drop": [SPL_OIDS["fmc"]]}),
    ),
    "hwid_of_64_bytes": ("snp-certificate-extension-malformed", Scene(vek={"override": {OID_HWID: bytes(64)}})),
    "chip_id_beyond_the_hwid": (
        "snp-hwid-mismatch",
        Scene(vek={"hwid": b"\7" * 8}, report={"chip_id": b"\7" * 9}),
    ),
    "milan_processor": ("snp-product-mismatch", Scene(report={"cpuid": (0x19, 0x01, 1)})),
    "milan_tcb_layout": (
        "snp-report-reserved-not-zero",
        Scene(report={"patch": {0x180: bytes((4, 0, 0, 0, 0, 0, 24, 219))}}),
    ),
}


@pytest.mark.parametrize(("code", "scene"), TURIN_CASES.values(), ids=TURIN_CASES.keys())
def test_turin_refused_for_its_own_reason(
    turin: SimulatedAmd, other_amd: SimulatedAmd, code: str, scene: Scene
) -> None:
    with pytest.raises(CasemateError) as caught:
        scene.verify(turin, other_amd)
    assert caught.value.code == code, caught.value


def test_the_scene_without_a_fault_is_accepted(amd: SimulatedAmd, other_amd: SimulatedAmd) -> None:
    """Otherwise every case above could pass for a reason of its own."""
    Scene().verify(amd, other_amd)
    Scene(vek={"kind": VLEK}).verify(amd, other_amd)
    Scene(crl={"revoked": [1], "revoked_by": {"ASK": [5], "ASVK": [0]}}, settings={"require_crl": True}).verify(
        amd, other_amd
    )
    Scene(vek={"serial": 78}, crl={"revoked_by": {"ASVK": [78]}}).verify(amd, other_amd)  # another issuer's 78


def test_only_missing_and_expired_collateral_is_undecided() -> None:
    undecided = {code for code, _ in CASES.values() if issubclass(error_class(code), UndecidedError)}
    assert undecided == {
        "snp-chain-missing",
        "snp-certificate-expired",
        "snp-crl-missing",
        "snp-crl-expired",
    }
    assert all(issubclass(error_class(code), RefusedError | UndecidedError) for code, _ in CASES.values())


def test_outcomes_keep_their_family() -> None:
    assert issubclass(error_class("snp-signature-invalid"), EvidenceSignatureError)
    assert issubclass(error_class("snp-ark-untrusted"), UntrustedRootError)
    assert issubclass(error_class("snp-crl-missing"), CollateralMissingError)


def test_a_missing_piece_is_named(amd: SimulatedAmd, other_amd: SimulatedAmd) -> None:
    with pytest.raises(CollateralMissingError, match=r"revocation list of Milan \(VCEK branch\)"):
        CASES["crl_required_and_missing"][1].verify(amd, other_amd)
    with pytest.raises(CollateralMissingError, match="chain of Genoa"):
        CASES["certificate_of_a_product_without_a_chain"][1].verify(amd, other_amd)


def test_a_time_without_zone_is_not_guessed(amd: SimulatedAmd, other_amd: SimulatedAmd) -> None:
    with pytest.raises(UsageError, match="time zone"):
        Scene(now=datetime(2026, 6, 1)).verify(amd, other_amd)  # noqa: DTZ001


def test_revocation_holds_for_a_certificate_that_was_accepted_before(amd: SimulatedAmd) -> None:
    """Signatures are remembered, dates are not: the same verifier refuses later what it accepted earlier."""
    vek = amd.vek(not_after=NOW + DAY)
    crl = amd.crl(this_update=NOW - DAY, next_update=NOW + timedelta(hours=12))
    verifier = SnpVerifier(
        {amd.product: amd.chain_pem()}, crls={"Milan": [crl]}, simulated_ark_pins={"Milan": amd.ark_pin}
    )
    report = amd.report(vek)
    verifier.verify_report(report, vek.der, now=NOW)
    with pytest.raises(CasemateError) as caught:
        verifier.verify_report(report, vek.der, now=NOW + timedelta(hours=13))
    assert caught.value.code == "snp-crl-expired"
    with pytest.raises(CasemateError) as caught:
        verifier.verify_report(report, vek.der, now=NOW + 2 * DAY)
    assert caught.value.code == "snp-certificate-expired"


def test_a_remembered_certificate_is_no_use_for_another_kind_or_chip(amd: SimulatedAmd) -> None:
    vek = amd.vek()
    verifier = SnpVerifier({amd.product: amd.chain_pem()}, simulated_ark_pins={"Milan": amd.ark_pin})
    verifier.verify_report(amd.report(vek), vek.der, now=NOW)
    for faults, code in (
        ({"key_info": 4}, "snp-vek-kind-mismatch"),
        ({"chip_id": bytes(range(64))}, "snp-hwid-mismatch"),
        ({"tcb": {**vek.tcb, "snp": 3}}, "snp-tcb-mismatch"),
        ({"cpuid": (0x1A, 2, 1)}, "snp-product-mismatch"),
    ):
        with pytest.raises(CasemateError) as caught:
            verifier.verify_report(amd.report(vek, **faults), vek.der, now=NOW)
        assert caught.value.code == code


def test_no_root_of_amds_can_be_declared_a_simulators() -> None:
    pin = "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd"
    with pytest.raises(UsageError, match="AMD root"):
        SnpVerifier({}, simulated_ark_pins={"Milan": pin.upper()})


def test_a_simulated_root_is_refused_unless_it_was_added(amd: SimulatedAmd) -> None:
    vek = amd.vek()
    with pytest.raises(UntrustedRootError):
        SnpVerifier({amd.product: amd.chain_pem()}).verify_report(amd.report(vek), vek.der, now=NOW)


def test_a_simulated_root_counts_for_its_own_product_only(amd: SimulatedAmd, turin: SimulatedAmd) -> None:
    verifier = SnpVerifier({Product.TURIN: turin.chain_pem()}, simulated_ark_pins={Product.MILAN: turin.ark_pin})
    vek = turin.vek()
    with pytest.raises(UntrustedRootError):
        verifier.verify_report(turin.report(vek), vek.der, now=NOW)
