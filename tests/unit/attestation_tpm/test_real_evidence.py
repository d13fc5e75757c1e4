"""Every piece of real TPM evidence gets the verdict and the claims it must."""

from __future__ import annotations

import base64
import hashlib
import socket
from datetime import UTC, datetime
from typing import Any

import pytest

from casemate.attestation.claims import Claims
from casemate.attestation.eventlog import (
    EventLogMismatchError,
    check_pcrs,
    check_rtmrs,
    parse_event_log,
    replay_rtmrs,
)
from casemate.attestation.evidence import Evidence
from casemate.attestation.platforms.certificates import Roots, load_certificates
from casemate.attestation.platforms.snp.verifier import SnpVerifier
from casemate.attestation.platforms.tpm.azure import AzureVerifier, parse_hcl_report
from casemate.attestation.platforms.tpm.errors import (
    TpmAkCertificateExpiredError,
    TpmAkCertificateUntrustedError,
    TpmAkUntrustedError,
    TpmHclBindingError,
    TpmHclReportTypeError,
    TpmHclUserDataError,
    TpmNonceMismatchError,
    TpmPcrDigestMismatchError,
    TpmSignatureError,
)
from casemate.attestation.platforms.tpm.evidence import decode_binary
from casemate.attestation.platforms.tpm.gce import GOOGLE_ROOT_PINS, google_trust
from casemate.attestation.platforms.tpm.trust import TpmTrust
from casemate.attestation.platforms.tpm.verifier import TpmVerifier
from casemate.errors import RefusedError, UndecidedError

# Google's issuer names are longer than X.520 allows, and pytest undoes the filter the code sets.
pytestmark = pytest.mark.filterwarnings("ignore:Attribute's length must be")

NOW = datetime(2026, 1, 10, tzinfo=UTC)
V2_NONCE = "982f5c6e45df0ed3f10b6f60b02f0c8390e281300f3805e2279c16168cd6ae9aa398f647caa2338748cd0fd9f5f819ef"


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a verifier reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def snp(real: Any) -> SnpVerifier:
    return SnpVerifier(
        {name: real.read(f"snp/{name.lower()}_ask_ark_asvk.pem") for name in ("Milan", "Genoa", "Turin")}
    )


def td_claims(quote: bytes, *, now: datetime) -> Claims:
    """What a TDX verifier would give for a genuine v4 quote; its own tests are elsewhere."""
    return Claims("tdx", simulated=False, debug=False, report_data=quote[568:632].hex())


def allowed(real: Any, name: str, member: str) -> TpmVerifier:
    value = real.body(name)[member]
    raw = value.encode() if value.startswith("-----") else base64.b64decode(value)
    return TpmVerifier(TpmTrust(keys=[raw]))


class TestAzure:
    @pytest.mark.parametrize(
        ("name", "challenge", "product"),
        [
            ("azure_snp_evidence-v1.json", b"challenge", "Milan"),
            ("azure_snp_evidence-v2.json", bytes.fromhex(V2_NONCE), "Milan"),
            ("azure_snp_genoa.json", None, "Genoa"),
        ],
    )
    def test_snp_evidence_is_accepted_down_to_amds_root(
        self, real: Any, snp: SnpVerifier, name: str, challenge: bytes | None, product: str
    ) -> None:
        claims = AzureVerifier(verify_snp=snp.verify_report).verify(
            real.evidence(name, "az-snp-vtpm"), now=NOW, challenge=challenge
        )
        assert claims.platform == "snp"
        assert not claims.simulated
        assert claims.vmpl == 0
        assert claims.extra["product"] == product
        assert claims.extra["vtpm"]["ak_trust"] == "hcl"
        assert len(claims.extra["vtpm"]["pcrs"]["sha256"]) == 24
        assert claims.extra["azure"]["vm_configuration"]["secure-boot"] is True
        assert claims.report_data != claims.extra["hardware_report_data"]
        if challenge is not None:
            assert claims.report_data == challenge.ljust(64, b"\0").hex()

    def test_tdx_evidence_binds_the_key_to_the_td_quote(self, real: Any) -> None:
        evidence = real.evidence("azure_tdx_evidence-v1.json", "az-tdx-vtpm")
        claims = AzureVerifier(verify_tdx=td_claims).verify(evidence, now=NOW, challenge=b"challenge")
        assert claims.platform == "tdx"
        assert claims.report_data == b"challenge".ljust(64, b"\0").hex()

    def test_without_a_verifier_for_the_hardware_nothing_is_decided(self, real: Any) -> None:
        for name, tee in (("azure_snp_genoa.json", "az-snp-vtpm"), ("azure_tdx_evidence-v1.json", "az-tdx-vtpm")):
            with pytest.raises(UndecidedError):
                AzureVerifier().verify(real.evidence(name, tee), now=NOW)

    def test_another_challenge_is_refused(self, real: Any, snp: SnpVerifier) -> None:
        with pytest.raises(TpmNonceMismatchError, match="challenge"):
            AzureVerifier(verify_snp=snp.verify_report).verify(
                real.evidence("azure_snp_evidence-v1.json", "az-snp-vtpm"), now=NOW, challenge=b"challengf"
            )

    def test_snp_evidence_sent_as_tdx_is_refused(self, real: Any, snp: SnpVerifier) -> None:
        with pytest.raises(TpmHclReportTypeError):
            AzureVerifier(verify_snp=snp.verify_report).verify(
                real.evidence("azure_snp_genoa.json", "az-tdx-vtpm"), now=NOW
            )

    def test_the_quote_of_one_machine_with_the_report_of_another_is_refused(self, real: Any, snp: SnpVerifier) -> None:
        body = real.body("azure_snp_evidence-v1.json")
        body["tpm_quote"] = real.body("azure_snp_genoa.json")["tpm_quote"]
        with pytest.raises(TpmSignatureError):
            AzureVerifier(verify_snp=snp.verify_report).verify(Evidence("az-snp-vtpm", body), now=NOW)

    def test_claims_that_the_hardware_did_not_hash_are_refused(self, real: Any, snp: SnpVerifier) -> None:
        body = real.body("azure_snp_evidence-v1.json")
        report = decode_binary(body["hcl_report"], "hcl_report").replace(b'"secure-boot":true', b'"secure-boot":null')
        body["hcl_report"] = report.hex()
        with pytest.raises(TpmHclBindingError):
            AzureVerifier(verify_snp=snp.verify_report).verify(Evidence("az-snp-vtpm", body), now=NOW)

    def test_a_td_quote_of_another_machine_is_refused(self, real: Any) -> None:
        body = real.body("azure_tdx_evidence-v1.json")
        body["td_quote"] = real.read("tdx/coco_v4_00a06d.quote").hex()
        with pytest.raises(TpmHclBindingError):
            AzureVerifier(verify_tdx=td_claims).verify(Evidence("az-tdx-vtpm", body), now=NOW)

    def test_evidence_of_version_2_must_have_the_challenge_in_its_user_data(self, real: Any, snp: SnpVerifier) -> None:
        body = real.body("azure_snp_evidence-v1.json") | {"version": 2}
        with pytest.raises(TpmHclUserDataError):
            AzureVerifier(verify_snp=snp.verify_report).verify(Evidence("az-snp-vtpm", body), now=NOW)

    def test_evidence_as_byte_arrays_under_its_old_names_is_read(self, real: Any, snp: SnpVerifier) -> None:
        body = real.body("azure_snp_genoa.json")
        quote = body["tpm_quote"]
        old = {
            "report": list(decode_binary(body["hcl_report"], "")),
            "quote": {
                "message": list(bytes.fromhex(quote["message"])),
                "signature": list(bytes.fromhex(quote["signature"])),
                "pcrs": [list(bytes.fromhex(pcr)) for pcr in quote["pcrs"]],
            },
            "vcek": body["vcek"],
        }
        AzureVerifier(verify_snp=snp.verify_report).verify(Evidence("az-snp-vtpm", old), now=NOW)

    def test_every_flipped_bit_of_the_hcl_claims_is_refused(self, real: Any) -> None:
        evidence = real.body("azure_tdx_evidence-v1.json")
        report = bytearray(decode_binary(evidence["hcl_report"], ""))
        hash_before = parse_hcl_report(bytes(report)).claims_hash
        verifier = AzureVerifier(verify_tdx=td_claims)
        for bit in range((32 + 1184 + 20) * 8, (32 + 1184 + 20 + 1201) * 8, 7):
            report[bit // 8] ^= 1 << bit % 8
            with pytest.raises(RefusedError):
                verifier.verify(Evidence("az-tdx-vtpm", evidence | {"hcl_report": report.hex()}), now=NOW)
            report[bit // 8] ^= 1 << bit % 8
        assert parse_hcl_report(bytes(report)).claims_hash == hash_before


class TestGoogle:
    def trust(self, real: Any) -> TpmTrust:
        return google_trust([real.read("tpm/tpm_ek_intermediate_2.crt"), real.read("tpm/tpm_ek_root_1.cer")])

    def test_three_banks_a_certificate_and_an_event_log_are_accepted(self, real: Any) -> None:
        claims = TpmVerifier(self.trust(real), required_pcrs=range(24)).verify(
            real.evidence("gce_cos85_no_nonce.json"), now=NOW, event_log=real.read("tpm/gce_cos85.eventlog.bin")
        )
        assert set(claims.extra["pcrs"]) == {"sha1", "sha256", "sha384"}
        assert claims.extra["ak_trust"] == "certificate"
        assert claims.extra["ak_restricted"] is True
        assert claims.extra["gce"]["instance_name"] == "cos-test"
        assert claims.extra["gce"]["is_production"] is True
        assert claims.extra["event_log"]["explained_pcrs"]["sha384"] == list(range(10))
        assert claims.report_data is None  # it was quoted without a challenge
        assert claims.collateral_expires == datetime(2051, 8, 24, 23, 16, 5, tzinfo=UTC)

    def test_quoted_without_a_challenge_answers_none(self, real: Any) -> None:
        with pytest.raises(TpmNonceMismatchError):
            TpmVerifier(self.trust(real)).verify(real.evidence("gce_cos85_no_nonce.json"), now=NOW, challenge=b"x")

    def test_before_the_certificate_was_issued_it_is_refused(self, real: Any) -> None:
        with pytest.raises(TpmAkCertificateExpiredError, match="valid from"):
            TpmVerifier(self.trust(real)).verify(
                real.evidence("gce_cos85_no_nonce.json"), now=datetime(2021, 1, 1, tzinfo=UTC)
            )

    def test_googles_other_root_does_not_vouch_for_it(self, real: Any) -> None:
        other = [real.read("tpm/gcp_ek_ak_ca_intermediate_v3.crt"), real.read("tpm/gcp_ek_ak_ca_root.crt")]
        with pytest.raises(TpmAkCertificateUntrustedError, match="not at hand"):
            TpmVerifier(google_trust(other)).verify(real.evidence("gce_cos85_no_nonce.json"), now=NOW)

    def test_googles_newer_chain_reaches_its_pinned_root(self, real: Any) -> None:
        (root,) = load_certificates(real.read("tpm/gcp_ek_ak_ca_root.crt"), "root")
        (intermediate,) = load_certificates(real.read("tpm/gcp_ek_ak_ca_intermediate_v3.crt"), "intermediate")
        assert Roots(pins=GOOGLE_ROOT_PINS).trusts(root)
        intermediate.verify_directly_issued_by(root)

    def test_the_event_log_of_another_machine_is_refused_naming_the_register(self, real: Any) -> None:
        with pytest.raises(EventLogMismatchError, match=r"PCR sha1:0: quoted"):
            TpmVerifier(self.trust(real)).verify(
                real.evidence("gce_cos85_no_nonce.json"),
                now=NOW,
                event_log=real.read("tpm/gce_ubuntu2404_sevsnp.eventlog.bin"),
            )


class TestBare:
    def test_the_confidential_containers_evidence_is_accepted_with_its_key_allowed(self, real: Any) -> None:
        claims = allowed(real, "coco_tpm_evidence.json", "ak_public").verify(
            real.evidence("coco_tpm_evidence.json"), now=NOW
        )
        assert claims.extra["ak_trust"] == "allow-list"
        assert claims.extra["software_tpm"] is True
        assert claims.report_data is not None
        assert claims.report_data.startswith("a04182b506878d4f")

    def test_swtpm_evidence_is_accepted_with_its_key_allowed(self, real: Any) -> None:
        nonce = bytes.fromhex(real.body("swtpm_ecc.json")["nonce"])
        claims = allowed(real, "swtpm_ecc.json", "ak_pem").verify(
            real.evidence("swtpm_ecc.json"), now=NOW, challenge=nonce
        )
        assert claims.extra["signature"] == "ecdsa-sha256"
        assert list(claims.extra["pcrs"]["sha256"]) == ["0", "1", "2", "3", "4", "5", "6", "7", "16"]

    def test_evidence_whose_key_nobody_vouches_for_is_refused(self, real: Any) -> None:
        for name in ("coco_tpm_evidence.json", "swtpm_ecc.json"):
            with pytest.raises(TpmAkUntrustedError):
                TpmVerifier(TpmTrust()).verify(real.evidence(name), now=NOW)

    def test_an_unknown_key_passes_only_when_asked_for_and_the_claims_say_so(self, real: Any) -> None:
        verifier = TpmVerifier(TpmTrust(), insecure_allow_unknown_ak=True)
        assert verifier.verify(real.evidence("swtpm_ecc.json"), now=NOW).extra["ak_trust"] == "none"

    @pytest.mark.parametrize(
        ("change", "error"),
        [
            ({"nonce": "00" * 32}, TpmNonceMismatchError),
            ({"pcrs": {"16": "00" * 32}}, TpmPcrDigestMismatchError),
            ({"message": -1}, TpmPcrDigestMismatchError),
        ],
    )
    def test_swtpm_evidence_with_one_thing_changed_is_refused(
        self, real: Any, change: dict[str, Any], error: type[RefusedError]
    ) -> None:
        body = real.body("swtpm_ecc.json")
        if "message" in change:
            last = int(body["message"][-1], 16) ^ 1
            body["message"] = f"{body['message'][:-1]}{last:x}"
            error = TpmSignatureError
        elif "pcrs" in change:
            body["pcrs"] |= change["pcrs"]
        else:
            body |= change
        with pytest.raises(error):
            allowed(real, "swtpm_ecc.json", "ak_pem").verify(Evidence("tpm", body), now=NOW)

    def test_every_flipped_bit_of_a_quote_its_signature_and_its_pcrs_is_refused(self, real: Any) -> None:
        body = real.body("swtpm_ecc.json")
        verifier = allowed(real, "swtpm_ecc.json", "ak_pem")
        verifier.verify(Evidence("tpm", body), now=NOW)
        tried = 0
        for member in ("message", "signature_tpmt"):
            raw = bytearray.fromhex(body[member])
            for bit in range(len(raw) * 8):
                raw[bit // 8] ^= 1 << bit % 8
                with pytest.raises(RefusedError):
                    verifier.verify(Evidence("tpm", body | {member: raw.hex()}), now=NOW)
                raw[bit // 8] ^= 1 << bit % 8
                tried += 1
        for number, value in body["pcrs"].items():
            raw = bytearray.fromhex(value)
            for bit in range(256):
                raw[bit // 8] ^= 1 << bit % 8
                with pytest.raises(TpmPcrDigestMismatchError):
                    verifier.verify(Evidence("tpm", body | {"pcrs": body["pcrs"] | {number: raw.hex()}}), now=NOW)
                raw[bit // 8] ^= 1 << bit % 8
                tried += 1
        assert tried == (145 + 72) * 8 + 9 * 256


class TestEventLogs:
    def test_a_google_cloud_log_replays_in_all_three_banks(self, real: Any) -> None:
        log = parse_event_log(real.read("tpm/gce_cos85.eventlog.bin"))
        assert len(log.events) == 44
        for quote, bank in zip(
            real.body("gce_cos85_no_nonce.json")["quotes"], ("sha1", "sha256", "sha384"), strict=True
        ):
            quoted = {int(number): bytes.fromhex(value) for number, value in quote["pcrs"].items()}
            assert check_pcrs(log, bank, quoted) == tuple(range(10))

    def test_a_log_of_a_sev_snp_machine_is_read(self, real: Any) -> None:
        log = parse_event_log(real.read("tpm/gce_ubuntu2404_sevsnp.eventlog.bin"))
        assert len(log.events) == 116
        assert {event.name for event in log.events} >= {"EV_SEPARATOR", "EV_IPL", "EV_EFI_BOOT_SERVICES_APPLICATION"}

    def test_a_ccel_replays_to_the_four_rtmrs_of_its_quote(self, real: Any) -> None:
        quote = real.read("tdx/google_cos113_v4.quote")
        rtmrs = [quote[48 + 328 + 48 * n : 48 + 328 + 48 * (n + 1)] for n in range(4)]
        log = parse_event_log(real.read("tdx/google_cos113.ccel.bin"))
        assert len(log.events) == 43
        assert list(replay_rtmrs(log)) == rtmrs
        check_rtmrs(log, rtmrs)
        rtmrs[2] = hashlib.sha384(rtmrs[2]).digest()
        with pytest.raises(EventLogMismatchError, match="RTMR2: quoted"):
            check_rtmrs(log, rtmrs)
        check_rtmrs(log, rtmrs, registers=(0, 1, 3))

    @pytest.mark.parametrize("padding", [b"\0" * 4096, b"\0" * 3])
    def test_padding_after_a_ccel_is_passed_over(self, real: Any, padding: bytes) -> None:
        raw = real.read("tdx/google_cos113.ccel.bin")
        unpadded = raw.rstrip(b"\xff")
        assert len(parse_event_log(unpadded + padding).events) == 43
