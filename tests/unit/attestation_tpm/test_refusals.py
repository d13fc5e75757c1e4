"""TPM faults, one at a time: each is refused for its own reason, and the reason is its code."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from casemate.attestation.evidence import Evidence
from casemate.attestation.platforms.certificates import der_of
from casemate.attestation.platforms.tpm.simulator import AkAuthority, SimulatedTpm, attest_quote, pcr_selection
from casemate.attestation.platforms.tpm.trust import TpmTrust
from casemate.attestation.platforms.tpm.verifier import TpmVerifier
from casemate.attestation.platforms.tpm.workload import workload_pcr
from casemate.errors import CasemateError, RefusedError, UndecidedError, UsageError

NOW = datetime(2026, 6, 1, tzinfo=UTC)
NONCE = hashlib.sha384(b"challenge").digest() + bytes(16)
PCRS = {n: hashlib.sha256(bytes([n])).digest() for n in range(9)}
DIGEST = hashlib.sha384(b"workload").digest()


@dataclass
class Case:
    """Good evidence to be spoilt: change any of these, and verify."""

    tpm: SimulatedTpm
    authority: AkAuthority
    body: dict[str, Any] = field(default_factory=dict)
    trust: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    call: dict[str, Any] = field(default_factory=dict)
    now: datetime = NOW

    def __post_init__(self) -> None:
        self.body = self.tpm.evidence(PCRS, NONCE)
        self.trust = {"keys": [self.tpm.spki]}

    def verify(self) -> Any:
        verifier = TpmVerifier(TpmTrust(**self.trust), **self.options)
        return verifier.verify(Evidence("tpm", self.body), now=self.now, **({"challenge": NONCE} | self.call))

    def message(self, message: bytes, *, signature: bytes | None = None) -> None:
        """Another quote, well signed unless a signature is given."""
        self.body["tpm_quote"]["message"] = message.hex()
        self.body["tpm_quote"]["signature"] = (self.tpm.sign(message) if signature is None else signature).hex()

    def quote(self, pcrs: dict[int, bytes] | None = None, nonce: bytes = NONCE, **fields: Any) -> None:
        self.message(self.tpm.quote(PCRS if pcrs is None else pcrs, nonce, **fields))

    def certify(self, **validity: Any) -> None:
        """Trust by certificate in place of the allow-list."""
        self.certificate = self.authority.certify(self.tpm.public_key, **validity)
        self.body["ak_cert_der"] = der_of(self.certificate).hex()
        self.trust = {
            "roots": [der_of(self.authority.root)],
            "intermediates": [der_of(self.authority.intermediate)],
        }


@pytest.fixture
def case(tpm: SimulatedTpm, authority: AkAuthority) -> Case:
    return Case(tpm, authority)


def test_evidence_without_a_fault_is_accepted(case: Case) -> None:
    claims = case.verify()
    assert (claims.platform, claims.simulated, claims.report_data) == ("tpm", False, NONCE.hex())
    case.certify()
    assert case.verify().extra["ak_trust"] == "certificate"


@pytest.mark.parametrize("scheme", ["rsassa", "rsapss", "ecdsa"])
@pytest.mark.parametrize("digest", ["sha256", "sha384"])
def test_every_scheme_and_hash_is_accepted(scheme: str, digest: str, rsa_tpm: SimulatedTpm) -> None:
    key = None if scheme == "ecdsa" else rsa_tpm._key
    tpm = SimulatedTpm(scheme, digest, key=key)
    body = tpm.evidence(PCRS, NONCE) | {"ak_pub_tpmt": tpm.tpmt_public().hex()}
    claims = TpmVerifier(TpmTrust(keys=[tpm.spki])).verify(Evidence("tpm", body), now=NOW, challenge=NONCE)
    assert claims.extra["signature"] == f"{scheme}-{digest}"
    assert claims.extra["ak_restricted"] is True


# -- one function per fault, one line per expectation ----------------------------------------------------------
def wrong_magic(c: Case) -> None:
    c.quote(magic=0xFF544348)


def type_is_certify(c: Case) -> None:
    c.quote(kind=0x8017)


def type_is_time(c: Case) -> None:
    c.quote(kind=0x8019)


def replayed_nonce(c: Case) -> None:
    c.quote(nonce=hashlib.sha384(b"yesterday").digest() + bytes(16))


def empty_nonce(c: Case) -> None:
    c.quote(nonce=b"")


def shortened_nonce(c: Case) -> None:
    c.quote(nonce=NONCE[:32])


def stated_nonce_differs(c: Case) -> None:
    c.body["nonce"] = "00"


def pcr_value_changed(c: Case) -> None:
    c.body["tpm_quote"]["pcrs"]["4"] = "00" * 32


def pcr_values_swapped(c: Case) -> None:
    pcrs = c.body["tpm_quote"]["pcrs"]
    pcrs["1"], pcrs["2"] = pcrs["2"], pcrs["1"]


def digest_in_quote_wrong(c: Case) -> None:
    c.quote(digest=bytes(32))


def digest_by_another_hash(c: Case) -> None:
    c.quote(digest=hashlib.sha384(b"".join(PCRS.values())).digest())


def pcr_value_missing(c: Case) -> None:
    del c.body["tpm_quote"]["pcrs"]["7"]


def pcr_value_not_quoted(c: Case) -> None:
    c.body["tpm_quote"]["pcrs"]["9"] = "00" * 32


def pcr_value_short(c: Case) -> None:
    c.body["tpm_quote"]["pcrs"]["0"] = "00" * 31


def pcr_number_is_no_number(c: Case) -> None:
    c.body["tpm_quote"]["pcrs"]["0x1"] = "00" * 32


def pcr_number_too_often(c: Case) -> None:
    c.body["tpm_quote"]["pcrs"]["07"] = c.body["tpm_quote"]["pcrs"]["7"]


def required_pcr_left_out(c: Case) -> None:
    c.options["required_pcrs"] = (0, 7, 11)


def bank_stated_is_not_quoted(c: Case) -> None:
    c.body["tpm_quote"]["pcr_bank"] = "sha384"


def bank_is_sha1_only(c: Case) -> None:
    c.body = c.tpm.evidence({n: value[:20] for n, value in PCRS.items()}, NONCE, bank="sha1")


def bank_unknown_in_body(c: Case) -> None:
    c.body["tpm_quote"]["pcr_bank"] = 0x0012


def bank_unknown_in_quote(c: Case) -> None:
    c.message(attest_quote(NONCE, [pcr_selection(0x0012, PCRS)], bytes(32)))


def selection_empty(c: Case) -> None:
    c.message(attest_quote(NONCE, [], hashlib.sha256().digest()))


def selection_of_no_pcr(c: Case) -> None:
    c.message(attest_quote(NONCE, [pcr_selection("sha256", ())], hashlib.sha256().digest()))


def selection_of_a_bank_twice(c: Case) -> None:
    c.message(attest_quote(NONCE, [pcr_selection("sha256", (0,)), pcr_selection("sha256", (1,))], bytes(32)))


def selection_count_huge(c: Case) -> None:
    message = bytearray(c.tpm.quote(PCRS, NONCE))
    offset = 4 + 2 + 2 + 34 + 2 + len(NONCE) + 17 + 8
    message[offset : offset + 4] = struct.pack(">I", 0x40000000)
    c.message(bytes(message))


def selection_bitmap_huge(c: Case) -> None:
    c.message(attest_quote(NONCE, [pcr_selection("sha256", PCRS, size=200)], bytes(32)))


def quote_truncated(c: Case) -> None:
    c.message(c.tpm.quote(PCRS, NONCE)[:-1])


def quote_is_empty(c: Case) -> None:
    c.message(b"")


def quote_trailing_byte(c: Case) -> None:
    c.message(c.tpm.quote(PCRS, NONCE) + b"\0")


def quote_oversized(c: Case) -> None:
    c.message(c.tpm.quote(PCRS, NONCE) + bytes(5000))


def nonce_field_oversized(c: Case) -> None:
    c.quote(nonce=bytes(67))


def signer_field_oversized(c: Case) -> None:
    c.quote(signer=bytes(67))


def signature_wrong(c: Case) -> None:
    c.message(c.tpm.quote(PCRS, NONCE), signature=c.tpm.sign(b"something else"))


def signature_by_another_tpm(c: Case) -> None:
    message = c.tpm.quote(PCRS, NONCE)
    c.message(message, signature=SimulatedTpm("ecdsa").sign(message))


def signature_zero(c: Case) -> None:
    c.message(
        c.tpm.quote(PCRS, NONCE), signature=struct.pack(">HHH", 0x18, 0x0B, 32) + bytes(32) + b"\0\x20" + bytes(32)
    )


def signature_scheme_unknown(c: Case) -> None:
    signature = c.tpm.sign(c.tpm.quote(PCRS, NONCE))
    c.body["tpm_quote"]["signature"] = (b"\x00\x1a" + signature[2:]).hex()  # ECDAA


def signature_scheme_of_another_key_type(c: Case) -> None:
    c.body["tpm_quote"]["signature"] = (struct.pack(">HHH", 0x14, 0x0B, 256) + bytes(256)).hex()


def signature_hash_sha1(c: Case) -> None:
    c.body = SimulatedTpm("ecdsa", "sha1", key=c.tpm._key).evidence(PCRS, NONCE)


def signature_hash_relabelled(c: Case) -> None:
    signature = bytes.fromhex(c.tpm.sign(c.tpm.quote(PCRS, NONCE)).hex())
    c.body["tpm_quote"]["signature"] = (signature[:2] + b"\x00\x0c" + signature[4:]).hex()


def signature_truncated(c: Case) -> None:
    c.body["tpm_quote"]["signature"] = c.tpm.sign(c.tpm.quote(PCRS, NONCE))[:-1].hex()


def signature_trailing_bytes(c: Case) -> None:
    c.body["tpm_quote"]["signature"] = (c.tpm.sign(c.tpm.quote(PCRS, NONCE)) + b"\0\0").hex()


def signature_part_oversized(c: Case) -> None:
    c.body["tpm_quote"]["signature"] = (struct.pack(">HHH", 0x18, 0x0B, 0xFFFF) + bytes(64)).hex()


def key_not_allowed(c: Case) -> None:
    c.trust = {"keys": [SimulatedTpm("ecdsa").spki]}


def key_trust_empty(c: Case) -> None:
    c.trust = {}


def key_is_another(c: Case) -> None:
    other = SimulatedTpm("ecdsa")
    c.trust = {"keys": [other.spki]}
    c.body["ak_public"] = other.spki.hex()


def key_is_not_a_key(c: Case) -> None:
    c.body["ak_public"] = "00" * 90


def key_is_missing(c: Case) -> None:
    del c.body["ak_public"]


def key_stated_twice_differently(c: Case) -> None:
    c.body["ak_pub_tpmt"] = SimulatedTpm("ecdsa").tpmt_public().hex()


def key_is_not_restricted(c: Case) -> None:
    c.body["ak_pub_tpmt"] = c.tpm.tpmt_public(0x00040072).hex()


def key_also_decrypts(c: Case) -> None:
    c.body["ak_pub_tpmt"] = c.tpm.tpmt_public(0x00070072).hex()


def key_may_leave_its_tpm(c: Case) -> None:
    c.body["ak_pub_tpmt"] = c.tpm.tpmt_public(0x00050060).hex()


def key_off_the_curve(c: Case) -> None:
    raw = bytearray(c.tpm.tpmt_public())
    raw[-1] ^= 1
    c.body["ak_pub_tpmt"] = bytes(raw).hex()


def certificate_expired(c: Case) -> None:
    c.certify(not_before=NOW - timedelta(days=9), not_after=NOW - timedelta(days=1))


def certificate_not_yet_valid(c: Case) -> None:
    c.certify(not_before=NOW + timedelta(days=1))


def certificate_of_another_authority(c: Case) -> None:
    c.certify()
    c.trust["roots"] = [der_of(AkAuthority(NOW).root)]


def certificate_intermediate_missing(c: Case) -> None:
    c.certify()
    c.trust["intermediates"] = []


def certificate_issuer_impersonated(c: Case) -> None:
    c.certify()
    c.trust["intermediates"] = [der_of(AkAuthority(NOW).intermediate)]


def certificate_revoked(c: Case) -> None:
    c.certify()
    c.trust["crls"] = [c.authority.crl(c.certificate)]


def certificate_crl_expired(c: Case) -> None:
    c.certify()
    c.trust["crls"] = [c.authority.crl(next_update=NOW - timedelta(days=1))]


def certificate_crl_forged(c: Case) -> None:
    c.certify()
    c.trust["crls"] = [AkAuthority(NOW).crl()]


def certificate_is_for_another_key(c: Case) -> None:
    c.certify()
    c.body["ak_cert_der"] = der_of(c.authority.certify(SimulatedTpm("ecdsa").public_key)).hex()


def certificate_is_a_ca(c: Case) -> None:
    c.certify(ca=True)


def certificate_issued_by_a_leaf(c: Case) -> None:
    c.certify()
    rogue = AkAuthority(NOW)
    rogue._key = c.tpm._key
    rogue.intermediate = c.certificate
    other = SimulatedTpm("ecdsa")
    forged = rogue.certify(other.public_key)
    c.body = other.evidence(PCRS, NONCE) | {"ak_cert_der": der_of(forged).hex()}
    c.trust["intermediates"].append(der_of(c.certificate))


def certificate_garbled(c: Case) -> None:
    c.certify()
    c.body["ak_cert_der"] = c.body["ak_cert_der"][:-20]


def workload_differs(c: Case) -> None:
    c.call["workload"] = DIGEST


def workload_too_short(c: Case) -> None:
    c.call["workload"] = b"\0" * 20


def workload_extended_twice(c: Case) -> None:
    value = hashlib.sha256(workload_pcr(DIGEST) + DIGEST[:32]).digest()
    c.body = c.tpm.evidence(PCRS | {8: value}, NONCE) | {"workload": DIGEST.hex()}


def workload_pcr_not_quoted(c: Case) -> None:
    c.body = c.tpm.evidence({0: bytes(32)}, NONCE) | {"workload": DIGEST.hex()}


def body_without_quote(c: Case) -> None:
    del c.body["tpm_quote"]


def body_quote_is_text(c: Case) -> None:
    c.body["tpm_quote"] = "quote"


def body_message_is_no_encoding(c: Case) -> None:
    c.body["tpm_quote"]["message"] = "%%%"


def body_message_is_huge(c: Case) -> None:
    c.body["tpm_quote"]["message"] = "0" * 10_000_000


def body_pcrs_are_too_many(c: Case) -> None:
    c.body["tpm_quote"]["pcrs"] = ["00" * 32] * 1000


def two_banks(c: Case, second: dict[str, Any], **fields: Any) -> None:
    sha384 = {n: hashlib.sha384(bytes([n])).digest() for n in range(3)}
    quotes = []
    for bank, pcrs, extra in (("sha256", PCRS, fields), ("sha384", sha384, second)):
        message = c.tpm.quote(pcrs, extra.pop("nonce", NONCE), bank=bank, **extra)
        quotes.append(
            {
                "pcr_bank": bank,
                "message": message.hex(),
                "signature": c.tpm.sign(message).hex(),
                "pcrs": {str(n): v.hex() for n, v in pcrs.items()},
            }
        )
    c.body = {"ak_public": c.tpm.spki.hex(), "quotes": quotes}


def banks_of_two_boots(c: Case) -> None:
    two_banks(c, {"resets": 2})


def banks_of_two_challenges(c: Case) -> None:
    two_banks(c, {"nonce": bytes(64)})


def banks_of_two_keys(c: Case) -> None:
    two_banks(c, {"signer": b"\x00\x0b" + b"\1" * 32})


def bank_quoted_twice(c: Case) -> None:
    two_banks(c, {})
    c.body["quotes"].append(c.body["quotes"][0])


FAULTS: dict[Callable[[Case], None], str] = {
    wrong_magic: "tpm-magic-wrong",
    type_is_certify: "tpm-attest-type-wrong",
    type_is_time: "tpm-attest-type-wrong",
    replayed_nonce: "tpm-nonce-mismatch",
    empty_nonce: "tpm-nonce-mismatch",
    shortened_nonce: "tpm-nonce-mismatch",
    stated_nonce_differs: "tpm-nonce-mismatch",
    pcr_value_changed: "tpm-pcr-digest-mismatch",
    pcr_values_swapped: "tpm-pcr-digest-mismatch",
    digest_in_quote_wrong: "tpm-pcr-digest-mismatch",
    digest_by_another_hash: "tpm-pcr-digest-mismatch",
    pcr_value_missing: "tpm-pcr-missing",
    pcr_value_not_quoted: "tpm-pcr-not-quoted",
    pcr_value_short: "tpm-pcr-size",
    pcr_number_is_no_number: "tpm-evidence-malformed",
    pcr_number_too_often: "tpm-evidence-malformed",
    required_pcr_left_out: "tpm-pcr-required",
    bank_stated_is_not_quoted: "tpm-pcr-bank",
    bank_is_sha1_only: "tpm-pcr-bank",
    bank_unknown_in_body: "tpm-hash-unsupported",
    bank_unknown_in_quote: "tpm-hash-unsupported",
    selection_empty: "tpm-pcr-selection",
    selection_of_no_pcr: "tpm-pcr-selection",
    selection_of_a_bank_twice: "tpm-pcr-selection",
    selection_count_huge: "tpm-oversized",
    selection_bitmap_huge: "tpm-oversized",
    quote_truncated: "tpm-truncated",
    quote_is_empty: "tpm-truncated",
    quote_trailing_byte: "tpm-trailing-bytes",
    quote_oversized: "tpm-oversized",
    nonce_field_oversized: "tpm-oversized",
    signer_field_oversized: "tpm-oversized",
    signature_wrong: "tpm-signature-invalid",
    signature_by_another_tpm: "tpm-signature-invalid",
    signature_zero: "tpm-signature-invalid",
    signature_scheme_unknown: "tpm-scheme-unsupported",
    signature_scheme_of_another_key_type: "tpm-key-unsupported",
    signature_hash_sha1: "tpm-hash-unsupported",
    signature_hash_relabelled: "tpm-signature-invalid",
    signature_truncated: "tpm-truncated",
    signature_trailing_bytes: "tpm-trailing-bytes",
    signature_part_oversized: "tpm-oversized",
    key_not_allowed: "tpm-ak-untrusted",
    key_trust_empty: "tpm-ak-untrusted",
    key_is_another: "tpm-signature-invalid",
    key_is_not_a_key: "tpm-key-unsupported",
    key_is_missing: "tpm-evidence-malformed",
    key_stated_twice_differently: "tpm-key-mismatch",
    key_is_not_restricted: "tpm-key-attributes",
    key_also_decrypts: "tpm-key-attributes",
    key_may_leave_its_tpm: "tpm-key-attributes",
    key_off_the_curve: "tpm-key-unsupported",
    certificate_expired: "tpm-ak-certificate-expired",
    certificate_not_yet_valid: "tpm-ak-certificate-expired",
    certificate_of_another_authority: "tpm-ak-certificate-invalid",  # the root has the right name, another key
    certificate_intermediate_missing: "tpm-ak-certificate-untrusted",
    certificate_issuer_impersonated: "tpm-ak-certificate-invalid",
    certificate_revoked: "tpm-ak-certificate-revoked",
    certificate_crl_expired: "tpm-crl-expired",
    certificate_crl_forged: "tpm-ak-certificate-invalid",
    certificate_is_for_another_key: "tpm-key-mismatch",
    certificate_is_a_ca: "tpm-ak-certificate-invalid",
    certificate_issued_by_a_leaf: "tpm-ak-certificate-invalid",
    certificate_garbled: "tpm-ak-certificate-invalid",
    workload_differs: "tpm-workload-mismatch",
    workload_too_short: "tpm-workload-mismatch",
    workload_extended_twice: "tpm-workload-repeated",
    workload_pcr_not_quoted: "tpm-workload-mismatch",
    body_without_quote: "tpm-evidence-malformed",
    body_quote_is_text: "tpm-evidence-malformed",
    body_message_is_no_encoding: "tpm-evidence-malformed",
    body_message_is_huge: "tpm-oversized",
    body_pcrs_are_too_many: "tpm-oversized",
    banks_of_two_boots: "tpm-quotes-inconsistent",
    banks_of_two_challenges: "tpm-quotes-inconsistent",
    banks_of_two_keys: "tpm-quotes-inconsistent",
    bank_quoted_twice: "tpm-pcr-bank",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_each_fault_is_refused_for_its_own_reason(fault: Callable[[Case], None], case: Case) -> None:
    case.verify()
    fault(case)
    with pytest.raises(CasemateError) as caught:
        case.verify()
    assert caught.value.code == FAULTS[fault], caught.value.message
    assert isinstance(caught.value, UndecidedError if fault is certificate_crl_expired else RefusedError)


def test_a_bad_signature_is_refused_in_every_scheme(rsa_tpm: SimulatedTpm, tpm: SimulatedTpm) -> None:
    for scheme in ("rsassa", "rsapss", "ecdsa"):
        signer = SimulatedTpm(scheme, key=(tpm if scheme == "ecdsa" else rsa_tpm)._key)
        body = signer.evidence(PCRS, NONCE)
        body["tpm_quote"]["signature"] = signer.sign(b"another message").hex()
        with pytest.raises(CasemateError) as caught:
            TpmVerifier(TpmTrust(keys=[signer.spki])).verify(Evidence("tpm", body), now=NOW)
        assert caught.value.code == "tpm-signature-invalid"


def test_a_signature_of_one_rsa_scheme_does_not_pass_as_the_other(rsa_tpm: SimulatedTpm) -> None:
    body = rsa_tpm.evidence(PCRS, NONCE)
    signature = SimulatedTpm("rsapss", key=rsa_tpm._key).sign(rsa_tpm.quote(PCRS, NONCE))
    body["tpm_quote"]["signature"] = (b"\x00\x14" + signature[2:]).hex()
    with pytest.raises(CasemateError) as caught:
        TpmVerifier(TpmTrust(keys=[rsa_tpm.spki])).verify(Evidence("tpm", body), now=NOW)
    assert caught.value.code == "tpm-signature-invalid"


class TestWorkload:
    def test_the_digest_in_pcr_8_becomes_the_workload_claim_cut_to_what_the_bank_proves(self, case: Case) -> None:
        case.body = case.tpm.evidence(PCRS | {8: workload_pcr(DIGEST)}, NONCE)
        assert case.verify().workload is None  # a hash does not tell what was hashed
        case.call["workload"] = DIGEST
        claims = case.verify()
        assert (claims.workload, claims.workload_binding) == (DIGEST[:32].hex(), "launch")

    def test_evidence_may_bring_the_digest_itself(self, case: Case) -> None:
        case.body = case.tpm.evidence(PCRS | {8: workload_pcr(DIGEST)}, NONCE) | {"workload": DIGEST.hex()}
        assert case.verify().workload == DIGEST[:32].hex()

    def test_the_sha384_bank_proves_the_whole_digest(self, case: Case) -> None:
        pcrs = {8: workload_pcr(DIGEST, "sha384")}
        case.body = case.tpm.evidence(pcrs, NONCE, bank="sha384") | {"workload": DIGEST.hex()}
        assert case.verify().workload == DIGEST.hex()

    def test_a_digest_of_32_bytes_gives_what_confidential_containers_compute(self) -> None:
        digest = hashlib.sha256(b"init data").digest()
        assert workload_pcr(digest) == hashlib.sha256(bytes(32) + digest).digest()


class TestSimulatedTrust:
    def test_what_a_simulated_anchor_vouches_for_says_so(self, case: Case) -> None:
        simulated = TpmTrust(keys=[case.tpm.spki], simulated=True)
        claims = TpmVerifier(TpmTrust(), simulator_trust=simulated).verify(Evidence("tpm", case.body), now=NOW)
        assert claims.simulated

    def test_an_anchor_cannot_be_real_and_simulated(self, case: Case) -> None:
        keys = [case.tpm.spki]
        with pytest.raises(UsageError):
            TpmVerifier(TpmTrust(keys=keys), simulator_trust=TpmTrust(keys=keys, simulated=True))
        with pytest.raises(UsageError):
            TpmVerifier(TpmTrust(keys=keys, simulated=True))

    def test_files_are_sorted_into_keys_and_roots(self, case: Case) -> None:
        case.certify()
        root, intermediate = case.authority.root, case.authority.intermediate
        trust = TpmTrust.from_files([case.tpm.spki, der_of(root)], [der_of(intermediate)])
        assert len(trust.anchors) == 2
        assert TpmVerifier(trust).verify(Evidence("tpm", case.body), now=NOW).extra["ak_trust"] == "allow-list"
