"""Real GPU evidence gets its verdict; simulated faults are refused, each with its own code."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from casemate.attestation.evidence import Evidence
from casemate.attestation.platforms.certificates import load_certificates
from casemate.attestation.platforms.gpu.binding import check_device_nonce, device_nonce, device_report_data
from casemate.attestation.platforms.gpu.errors import (
    GpuCertificateError,
    GpuCertificateUntrustedError,
    GpuNonceMismatchError,
    GpuSignatureError,
)
from casemate.attestation.platforms.gpu.evidence import parse_devices, read_evidence
from casemate.attestation.platforms.gpu.report import parse_report
from casemate.attestation.platforms.gpu.simulator import SimulatedGpu, measurement_block
from casemate.attestation.platforms.gpu.verifier import NVIDIA_DEVICE_ROOT_PIN, GpuVerifier, verify_signature
from casemate.crypto.jose import KeyPair
from casemate.errors import CasemateError, RefusedError, UndecidedError, UsageError

NOW = datetime(2026, 6, 1, tzinfo=UTC)
NONCE = hashlib.sha256(b"challenge").digest()
HOPPER_NONCE = bytes.fromhex("931d8dd0add203ac3d8b4fbde75e115278eefcdceac5b87671a748f32364dfcb")


@pytest.fixture(scope="module")
def folder() -> Path:
    """Real evidence lies beside the repository, not in it: ``CASEMATE_VECTORS``, or ``shared/vectors`` next to it."""
    beside = Path(__file__).resolve().parents[4] / "shared" / "vectors"
    found = Path(os.environ.get("CASEMATE_VECTORS", beside)) / "gpu"
    if not found.is_dir():
        pytest.skip(f"no real evidence at {found}; set CASEMATE_VECTORS")
    return found


@pytest.fixture(scope="module")
def gpu() -> SimulatedGpu:
    return SimulatedGpu(NOW)


def hopper(folder: Path, case: int = 1) -> Evidence:
    chain = (folder / f"hopper_cert_chain_case{case}.txt").read_bytes()
    return read_evidence((folder / "hopperAttestationReport.txt").read_bytes(), [chain])


class TestRealEvidence:
    def test_an_h100_report_is_accepted_with_the_claims_it_must_have(self, folder: Path) -> None:
        claims = GpuVerifier().verify(hopper(folder), now=NOW, report_data=HOPPER_NONCE + bytes(32))
        assert (claims.platform, claims.simulated) == ("gpu", False)
        assert claims.report_data == HOPPER_NONCE.hex()
        assert claims.extra["measurements_compared"] is False
        (device,) = claims.extra["devices"]
        expected = json.loads((folder / "hopperAttestationReport-claims.txt").read_text())
        assert device["measurements"] == expected["measurements"]
        assert {name: device[name] for name in expected["config"]} == expected["config"]
        assert device["architecture"] == "HOPPER"

    def test_a_blackwell_list_is_read_and_its_signature_holds_too(self, folder: Path) -> None:
        evidence = read_evidence((folder / "blackwell_evidence.json").read_bytes())
        (device,) = parse_devices(evidence.body)
        assert device.architecture == "BLACKWELL"
        assert parse_report(device.report).nonce == device.nonce
        claims = GpuVerifier().verify(evidence, now=NOW)
        assert claims.extra["devices"][0]["architecture"] == "BLACKWELL"
        assert claims.extra["devices"][0]["driver_version"] == "590.48.01"

    def test_a_chain_of_the_root_alone_is_refused(self, folder: Path) -> None:
        with pytest.raises(GpuCertificateError):
            GpuVerifier().verify(hopper(folder, 2), now=NOW)

    def test_a_chain_without_an_intermediate_is_refused(self, folder: Path) -> None:
        with pytest.raises(GpuCertificateUntrustedError, match="not at hand"):
            GpuVerifier().verify(hopper(folder, 3), now=NOW)

    def test_another_challenge_is_refused(self, folder: Path) -> None:
        with pytest.raises(GpuNonceMismatchError):
            GpuVerifier().verify(hopper(folder), now=NOW, report_data=bytes(64))

    def test_the_chain_of_another_device_is_refused(self, folder: Path) -> None:
        body = dict(hopper(folder).body)
        other = json.loads((folder / "blackwell_evidence.json").read_text())[0]["certificate"]
        body["device_evidence_list"] = [body["device_evidence_list"][0] | {"certificate": other}]
        with pytest.raises(GpuSignatureError):
            GpuVerifier().verify(Evidence("nvidia", body), now=NOW)

    def test_every_flipped_bit_of_the_report_is_refused(self, folder: Path) -> None:
        """Under the device's key; what does not parse goes sooner. A P-384 verification takes a millisecond or two, so
        one bit of every byte is tried, or all eight with ``CASEMATE_EXHAUSTIVE=1``."""
        (device,) = parse_devices(hopper(folder).body)
        leaf = load_certificates(device.certificates, "chain")[0]
        verify_signature(parse_report(device.report), leaf)
        report = bytearray(device.report)
        exhaustive = os.environ.get("CASEMATE_EXHAUSTIVE") == "1"
        for byte in range(len(report)):
            for bit in range(8) if exhaustive else (byte % 8,):
                report[byte] ^= 1 << bit
                with pytest.raises(RefusedError):
                    verify_signature(parse_report(bytes(report)), leaf)
                report[byte] ^= 1 << bit

    def test_flipped_bits_are_refused_by_the_whole_verifier_too(self, folder: Path) -> None:
        evidence = hopper(folder)
        (device,) = parse_devices(evidence.body)
        chain = evidence.body["device_evidence_list"][0]["certificate"]
        verifier = GpuVerifier()
        report = bytearray(device.report)
        for bit in range(0, len(report) * 8, 67):
            report[bit // 8] ^= 1 << bit % 8
            body = {"device_evidence_list": [{"evidence": report.hex(), "certificate": chain}]}
            with pytest.raises(RefusedError):
                verifier.verify(Evidence("nvidia", body), now=NOW)
            report[bit // 8] ^= 1 << bit % 8


@dataclass
class Case:
    """Good evidence to be spoilt: change any of these, and verify."""

    gpu: SimulatedGpu
    body: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.body = self.gpu.evidence(NONCE)
        self.options = {"pins": [self.gpu.pin]}

    def verify(self) -> Any:
        return GpuVerifier(**self.options).verify(Evidence("nvidia", self.body), now=NOW, report_data=NONCE + bytes(32))

    def report(self, raw: bytes) -> None:
        self.body["device_evidence_list"][0]["evidence"] = base64.b64encode(raw).decode()

    def parts(self, **parts: Any) -> None:
        self.body = self.gpu.evidence(NONCE, **parts)

    def chain(self, *certificates: Any) -> None:
        self.body = self.gpu.evidence(NONCE, chain=self.gpu.chain(*certificates))


@pytest.fixture
def case(gpu: SimulatedGpu) -> Case:
    return Case(gpu)


def signature_wrong(c: Case) -> None:
    c.report(c.gpu.message(NONCE) + c.gpu.sign(b"another message")[-96:])


def signature_by_another_device(c: Case) -> None:
    c.report(SimulatedGpu(NOW).sign(c.gpu.message(NONCE)))


def signature_zero(c: Case) -> None:
    c.report(c.gpu.message(NONCE) + bytes(96))


def replayed(c: Case) -> None:
    c.body = c.gpu.evidence(hashlib.sha256(b"yesterday").digest())


def stated_nonce_differs(c: Case) -> None:
    c.body["device_evidence_list"][0]["nonce"] = "00" * 32


def two_devices_two_challenges(c: Case) -> None:
    other = c.gpu.evidence(bytes(32))["device_evidence_list"]
    c.body["device_evidence_list"] += other


def report_truncated(c: Case) -> None:
    c.report(c.gpu.sign(c.gpu.message(NONCE)[:60]))


def report_shorter_than_its_signature(c: Case) -> None:
    c.report(bytes(95))


def report_oversized(c: Case) -> None:
    c.report(bytes(70_000))


def bytes_before_the_signature(c: Case) -> None:
    c.parts(tail=b"\0")


def spdm_1_2(c: Case) -> None:
    c.parts(request=b"\x12\xe0\x01\xff")


def response_is_an_error(c: Case) -> None:
    c.parts(response=b"\x11\x7f\x00\x00")


def signature_was_not_asked_for(c: Case) -> None:
    c.parts(request=b"\x11\xe0\x00\xff")


def only_one_measurement_was_asked_for(c: Case) -> None:
    c.parts(request=b"\x11\xe0\x01\x01")


def measurement_twice(c: Case) -> None:
    c.parts(record=measurement_block(1, bytes(48)) * 2)


def measurement_count_wrong(c: Case) -> None:
    c.parts(count=3)


def measurement_of_a_vendor_form(c: Case) -> None:
    c.parts(record=measurement_block(1, bytes(48), specification=2), count=1)


def measurement_digest_short(c: Case) -> None:
    c.parts(record=measurement_block(1, bytes(20)), count=1)


def no_measurement(c: Case) -> None:
    c.parts(record=b"", count=0)


def record_size_of_16_megabytes(c: Case) -> None:
    message = bytearray(c.gpu.message(NONCE))
    message[37 + 5 : 37 + 8] = b"\xff\xff\xff"
    c.report(c.gpu.sign(bytes(message)))


def opaque_field_twice(c: Case) -> None:
    c.parts(opaque=struct.pack("<HH", 3, 1) + b"5" + struct.pack("<HH", 3, 1) + b"6")


def opaque_field_too_long(c: Case) -> None:
    c.parts(opaque=struct.pack("<HH", 3, 0xFFFF) + b"5")


def firmware_id_is_not_the_certified(c: Case) -> None:
    c.parts(opaque={20: bytes(48)})


def firmware_id_missing(c: Case) -> None:
    c.parts(opaque={3: b"1"})


def certificate_expired(c: Case) -> None:
    past = {"not_before": NOW - timedelta(days=3), "not_after": NOW - timedelta(days=1)}
    c.chain(c.gpu.certify("GH100", **past), c.gpu.ca, c.gpu.root)


def certificate_not_yet_valid(c: Case) -> None:
    c.chain(c.gpu.certify("GH100", not_before=NOW + timedelta(days=1)), c.gpu.ca, c.gpu.root)


def root_not_pinned(c: Case) -> None:
    c.options = {}


def intermediate_missing(c: Case) -> None:
    c.chain(c.gpu.leaf, c.gpu.root)


def intermediate_impersonated(c: Case) -> None:
    rogue = SimulatedGpu(NOW)
    forged = rogue._issue("simulated device CA", rogue._ca_key, c.gpu.root, rogue._root_key, ca=True)
    leaf = rogue._issue("GH100", rogue._key, forged, rogue._ca_key)
    c.body = rogue.evidence(NONCE, chain=rogue.chain(leaf, forged, c.gpu.root))


def chain_upside_down(c: Case) -> None:
    c.chain(c.gpu.root, c.gpu.ca, c.gpu.leaf)


def chain_empty(c: Case) -> None:
    c.body["device_evidence_list"][0]["certificate"] = ""


def chain_garbled(c: Case) -> None:
    c.body["device_evidence_list"][0]["certificate"] = base64.b64encode(b"-----BEGIN CERTIFICATE-----").decode()


def key_on_another_curve(c: Case) -> None:
    other = SimulatedGpu(NOW, curve=ec.SECP256R1())
    c.options = {"pins": [other.pin]}
    c.body = c.gpu.evidence(NONCE, chain=other.chain())


def leaf_revoked(c: Case) -> None:
    c.options["crls"] = [c.gpu.crl(c.gpu.leaf)]


def crl_expired(c: Case) -> None:
    c.options["crls"] = [c.gpu.crl(next_update=NOW - timedelta(hours=1))]


def architecture_is_not_the_certified(c: Case) -> None:
    c.body["device_evidence_list"][0]["arch"] = "BLACKWELL"


def architecture_unknown(c: Case) -> None:
    c.chain(c.gpu.certify("TU102"), c.gpu.ca, c.gpu.root)


def list_empty(c: Case) -> None:
    c.body = {"device_evidence_list": []}


def list_too_long(c: Case) -> None:
    c.body["device_evidence_list"] *= 65


def device_without_report(c: Case) -> None:
    del c.body["device_evidence_list"][0]["evidence"]


def report_is_no_encoding(c: Case) -> None:
    c.body["device_evidence_list"][0]["evidence"] = "%%%"


FAULTS: dict[Callable[[Case], None], str] = {
    signature_wrong: "gpu-signature-invalid",
    signature_by_another_device: "gpu-signature-invalid",
    signature_zero: "gpu-signature-invalid",
    replayed: "gpu-nonce-mismatch",
    stated_nonce_differs: "gpu-nonce-mismatch",
    two_devices_two_challenges: "gpu-nonce-mismatch",
    report_truncated: "gpu-truncated",
    report_shorter_than_its_signature: "gpu-truncated",
    report_oversized: "gpu-oversized",
    bytes_before_the_signature: "gpu-trailing-bytes",
    spdm_1_2: "gpu-spdm-message",
    response_is_an_error: "gpu-spdm-message",
    signature_was_not_asked_for: "gpu-spdm-message",
    only_one_measurement_was_asked_for: "gpu-spdm-message",
    measurement_twice: "gpu-measurement-malformed",
    measurement_count_wrong: "gpu-measurement-malformed",
    measurement_of_a_vendor_form: "gpu-measurement-malformed",
    measurement_digest_short: "gpu-measurement-malformed",
    no_measurement: "gpu-measurement-malformed",
    record_size_of_16_megabytes: "gpu-truncated",
    opaque_field_twice: "gpu-opaque-data",
    opaque_field_too_long: "gpu-opaque-data",
    firmware_id_is_not_the_certified: "gpu-firmware-id",
    firmware_id_missing: "gpu-firmware-id",
    certificate_expired: "gpu-certificate-expired",
    certificate_not_yet_valid: "gpu-certificate-expired",
    root_not_pinned: "gpu-certificate-untrusted",
    intermediate_missing: "gpu-certificate-untrusted",
    intermediate_impersonated: "gpu-certificate-invalid",
    chain_upside_down: "gpu-certificate-invalid",
    chain_empty: "gpu-certificate-invalid",
    chain_garbled: "gpu-certificate-invalid",
    key_on_another_curve: "gpu-certificate-invalid",
    leaf_revoked: "gpu-certificate-revoked",
    crl_expired: "gpu-crl-expired",
    architecture_is_not_the_certified: "gpu-architecture",
    architecture_unknown: "gpu-architecture",
    list_empty: "gpu-evidence-malformed",
    list_too_long: "gpu-oversized",
    device_without_report: "gpu-evidence-malformed",
    report_is_no_encoding: "gpu-evidence-malformed",
}


def test_evidence_without_a_fault_is_accepted(case: Case) -> None:
    claims = case.verify()
    assert not claims.simulated
    assert claims.extra["devices"][0]["uuid"] == "GPU-simulated"


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_each_fault_is_refused_for_its_own_reason(fault: Callable[[Case], None], case: Case) -> None:
    fault(case)
    with pytest.raises(CasemateError) as caught:
        case.verify()
    assert caught.value.code == FAULTS[fault], caught.value.message
    assert isinstance(caught.value, UndecidedError if fault is crl_expired else RefusedError)


def test_all_devices_of_a_list_are_verified_or_none_is_accepted(case: Case) -> None:
    second = case.gpu.evidence(NONCE)["device_evidence_list"][0]
    case.body["device_evidence_list"].append(second)
    assert len(case.verify().extra["devices"]) == 2
    second["evidence"] = base64.b64encode(case.gpu.message(NONCE) + bytes(96)).decode()
    with pytest.raises(GpuSignatureError):
        case.verify()


def test_a_simulated_root_makes_simulated_claims_and_cannot_be_nvidias(case: Case) -> None:
    case.options = {"simulated_pins": [case.gpu.pin]}
    assert case.verify().simulated
    with pytest.raises(UsageError):
        GpuVerifier(simulated_pins=[NVIDIA_DEVICE_ROOT_PIN])


def test_devices_answer_the_challenge_and_key_of_the_session() -> None:
    key, other = KeyPair.generate().public, KeyPair.generate().public
    report_data = device_report_data("bm9uY2U=", key)
    assert len(report_data) == 64
    nonce = device_nonce(report_data)
    check_device_nonce(nonce, report_data)
    for changed in (device_report_data("bm9uY2Y=", key), device_report_data("bm9uY2U=", other)):
        with pytest.raises(GpuNonceMismatchError):
            check_device_nonce(nonce, changed)
