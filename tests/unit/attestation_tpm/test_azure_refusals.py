"""Azure faults, built on a simulated vTPM and a hardware report that is taken for granted."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from casemate.attestation.claims import Claims
from casemate.attestation.errors import CollateralMissingError
from casemate.attestation.evidence import Evidence
from casemate.attestation.platforms.tpm.azure import AzureVerifier
from casemate.attestation.platforms.tpm.simulator import SimulatedTpm
from casemate.attestation.platforms.tpm.workload import workload_pcr
from casemate.errors import CasemateError

NOW = datetime(2026, 6, 1, tzinfo=UTC)
NONCE = hashlib.sha384(b"challenge").digest()
DIGEST = hashlib.sha384(b"workload").digest()
PCRS = {n: bytes(32) for n in range(24)} | {8: workload_pcr(DIGEST)}


def b64url(number: int) -> str:
    raw = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def trusting(report: bytes, vek: bytes | None = None, *, now: datetime) -> Claims:
    """A hardware verifier that believes the report it is given."""
    return Claims("snp", simulated=False, debug=False, measurement="aa" * 48, report_data=report[0x50:0x90].hex())


@dataclass
class Case:
    tpm: SimulatedTpm
    claims: dict[str, Any] = field(default_factory=dict)
    text: bytes | None = None
    report_type: int = 2
    hash_type: int = 1
    size_error: int = 0
    report_data: bytes | None = None
    magic: bytes = b"HCLA"
    tail: bytes = bytes(100)
    nonce: bytes = NONCE
    tee: str = "az-snp-vtpm"
    extra: dict[str, Any] = field(default_factory=dict)
    call: dict[str, Any] = field(default_factory=dict)
    hardware: Any = trusting

    def __post_init__(self) -> None:
        key = self.tpm.public_key
        assert isinstance(key, rsa.RSAPublicKey)
        numbers = key.public_numbers()
        jwk = {"kid": "HCLAkPub", "kty": "RSA", "e": b64url(numbers.e), "n": b64url(numbers.n)}
        self.claims = {
            "keys": [jwk],
            "vm-configuration": {"secure-boot": True},
            "user-data": NONCE.hex().upper() + "00" * 16,
        }

    def body(self) -> dict[str, Any]:
        text = json.dumps(self.claims).encode() if self.text is None else self.text
        data = hashlib.sha256(text).digest() + bytes(32) if self.report_data is None else self.report_data
        report = bytes(0x50) + data + bytes(1184 - 0x50 - 64)
        trailer = struct.pack("<5I", len(text) + 20 + self.size_error, 1, self.report_type, self.hash_type, len(text))
        hcl = self.magic + bytes(28) + report + trailer + text + self.tail
        message = self.tpm.quote(PCRS, self.nonce)
        quote = {
            "message": message.hex(),
            "signature": self.tpm.sign(message)[6:].hex(),
            "pcrs": [value.hex() for value in PCRS.values()],
        }
        return {"version": 2, "hcl_report": hcl.hex(), "tpm_quote": quote, "vcek": "00"} | self.extra

    def verify(self) -> Claims:
        return AzureVerifier(verify_snp=self.hardware).verify(
            Evidence(self.tee, self.body()), now=NOW, **({"challenge": NONCE} | self.call)
        )


@pytest.fixture
def case(rsa_tpm: SimulatedTpm) -> Case:
    return Case(rsa_tpm)


def test_good_evidence_has_the_hardwares_claims_and_the_vtpms(case: Case) -> None:
    case.call["workload"] = DIGEST
    claims = case.verify()
    assert (claims.platform, claims.measurement) == ("snp", "aa" * 48)
    assert claims.report_data == NONCE.hex() + "00" * 16
    assert claims.workload == DIGEST[:32].hex()
    assert claims.extra["vtpm"]["ak_trust"] == "hcl"


def header_wrong(c: Case) -> None:
    c.magic = b"HCLB"


def report_is_for_sgx(c: Case) -> None:
    c.report_type = 3


def report_is_for_tdx(c: Case) -> None:
    c.report_type = 4


def td_quote_beside_an_snp_report(c: Case) -> None:
    c.extra["td_quote"] = "00" * 700


def hash_is_sha384(c: Case) -> None:
    c.hash_type = 2


def sizes_disagree(c: Case) -> None:
    c.size_error = 1


def bytes_after_the_claims(c: Case) -> None:
    c.tail = b"x"


def claims_are_no_json(c: Case) -> None:
    c.text = b"{"


def claims_are_a_list(c: Case) -> None:
    c.text = b"[]"


def claims_name_a_member_twice(c: Case) -> None:
    c.text = b'{"keys": [], "keys": []}'


def claims_nest_too_deep(c: Case) -> None:
    c.text = b"[" * 30_000


def claims_are_not_hashed(c: Case) -> None:
    c.report_data = bytes(64)


def report_data_has_more_than_the_hash(c: Case) -> None:
    c.report_data = hashlib.sha256(json.dumps(c.claims).encode()).digest() + b"\1" * 32


def verified_report_differs_from_the_one_sent(c: Case) -> None:
    c.hardware = lambda report, vek=None, *, now: Claims("snp", False, False, report_data="00" * 64)


def no_key(c: Case) -> None:
    c.claims["keys"] = []


def keys_are_an_object(c: Case) -> None:
    c.claims["keys"] = {"HCLAkPub": {}}


def two_keys(c: Case) -> None:
    c.claims["keys"] *= 2


def key_of_another_kind(c: Case) -> None:
    c.claims["keys"][0] |= {"kty": "EC"}


def key_is_no_base64(c: Case) -> None:
    c.claims["keys"][0] |= {"n": "é"}


def key_too_short(c: Case) -> None:
    c.claims["keys"][0] |= {"n": b64url((1 << 1024) - 1)}


def key_is_another(c: Case) -> None:
    c.claims["keys"][0] |= {"n": b64url(rsa.generate_private_key(65537, 2048).public_key().public_numbers().n)}


def replayed(c: Case) -> None:
    c.nonce = b"yesterday"


def user_data_of_another_session(c: Case) -> None:
    c.claims["user-data"] = "00" * 64


def user_data_missing(c: Case) -> None:
    del c.claims["user-data"]


def workload_is_another(c: Case) -> None:
    c.call["workload"] = bytes(48)


def quote_missing(c: Case) -> None:
    c.extra["tpm_quote"] = {"message": ""}


def report_huge(c: Case) -> None:
    c.tail = bytes(100_000)


def report_cut(c: Case) -> None:
    c.extra["hcl_report"] = "48434c41" + "00" * 500


def hardware_undecided(c: Case) -> None:
    def missing(report: bytes, vek: bytes | None = None, *, now: datetime) -> Claims:
        raise CollateralMissingError("VCEK")

    c.hardware = missing


FAULTS: dict[Callable[[Case], None], str] = {
    header_wrong: "tpm-hcl-malformed",
    report_is_for_sgx: "tpm-hcl-report-type",
    report_is_for_tdx: "tpm-hcl-report-type",
    td_quote_beside_an_snp_report: "tpm-hcl-report-type",
    hash_is_sha384: "tpm-hash-unsupported",
    sizes_disagree: "tpm-hcl-malformed",
    bytes_after_the_claims: "tpm-hcl-malformed",
    claims_are_no_json: "tpm-hcl-malformed",
    claims_are_a_list: "tpm-hcl-malformed",
    claims_name_a_member_twice: "tpm-hcl-malformed",
    claims_nest_too_deep: "tpm-hcl-malformed",
    claims_are_not_hashed: "tpm-hcl-binding",
    report_data_has_more_than_the_hash: "tpm-hcl-binding",
    verified_report_differs_from_the_one_sent: "tpm-hcl-binding",
    no_key: "tpm-hcl-key-missing",
    keys_are_an_object: "tpm-hcl-key-missing",
    two_keys: "tpm-hcl-key-missing",
    key_of_another_kind: "tpm-hcl-key-missing",
    key_is_no_base64: "tpm-hcl-key-missing",
    key_too_short: "tpm-key-unsupported",
    key_is_another: "tpm-signature-invalid",
    replayed: "tpm-nonce-mismatch",
    user_data_of_another_session: "tpm-hcl-user-data",
    user_data_missing: "tpm-hcl-user-data",
    workload_is_another: "tpm-workload-mismatch",
    quote_missing: "tpm-evidence-malformed",
    report_huge: "tpm-oversized",
    report_cut: "tpm-hcl-malformed",
    hardware_undecided: "collateral-missing",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_each_fault_is_refused_for_its_own_reason(fault: Callable[[Case], None], case: Case) -> None:
    case.verify()
    fault(case)
    with pytest.raises(CasemateError) as caught:
        case.verify()
    assert caught.value.code == FAULTS[fault], caught.value.message
