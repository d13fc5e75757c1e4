"""The broker's trust directory: what lies in it is what is verified, also when it changes while the broker runs."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from casemate.attestation.evidence import Evidence
from casemate.attestation.platforms.gpu.simulator import SimulatedGpu
from casemate.attestation.platforms.intel.errors import CollateralMalformedError
from casemate.attestation.platforms.simulator.pki import SimulatedPki
from casemate.attestation.platforms.simulator.quote import QuotingEnclave, TdReport
from casemate.attestation.platforms.snp.body import build_body
from casemate.attestation.platforms.tpm.simulator import AkAuthority, SimulatedTpm
from casemate.attestation.policy import default_policy
from casemate.attestation.trust_errors import TrustAnchorError
from casemate.broker import trust as module
from casemate.broker.trust import DirectoryTrust
from casemate.errors import CasemateError

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)
Put = Callable[[str, bytes], Path]


@pytest.fixture(autouse=True)
def always_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY", 0.0)


@pytest.fixture
def put(tmp_path: Path) -> Put:
    def write(name: str, content: bytes) -> Path:
        path = tmp_path / "trust" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    return write


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "trust").mkdir()
    return tmp_path / "trust"


@pytest.fixture(scope="module")
def vectors() -> Path:
    """Real evidence lies beside the repository, not in it: ``CASEMATE_VECTORS``, or ``shared/vectors`` next to it."""
    found = Path(os.environ.get("CASEMATE_VECTORS", Path(__file__).resolve().parents[4] / "shared" / "vectors"))
    if not found.is_dir():
        pytest.skip(f"no real evidence at {found}; set CASEMATE_VECTORS")
    return found


@pytest.fixture(scope="module")
def pki() -> SimulatedPki:
    return SimulatedPki.create(NOW)


def td_quote(pki: SimulatedPki) -> Evidence:
    quote = QuotingEnclave.create(pki).tdx_quote(TdReport())
    return Evidence("tdx", {"quote": base64.b64encode(quote).decode()})


def code(trust: DirectoryTrust, evidence: Evidence, now: datetime = NOW) -> str | None:
    """The reason why evidence is not verified; None when it is."""
    try:
        trust.verify(evidence, now=now)
    except CasemateError as exc:
        return exc.code
    return None


def tpm_evidence(tpm: SimulatedTpm) -> Evidence:
    return Evidence("tpm", tpm.evidence({0: bytes(32)}, b"nonce"))


def test_a_broker_that_runs_for_months_takes_up_renewed_collateral(
    directory: Path, put: Put, pki: SimulatedPki, tmp_path: Path
) -> None:
    put("simulator_root.der", pki.root.der)
    put("collateral/tdx.json", json.dumps(pki.collateral("tdx", NOW)).encode())
    elsewhere = tmp_path / "cache"
    trust, evidence, later = DirectoryTrust(directory, [elsewhere]), td_quote(pki), NOW + 45 * DAY
    assert code(trust, evidence) is None
    assert code(trust, evidence, later) == "tcb-info-expired"
    elsewhere.mkdir()  # the operator's own cache did not exist when the broker was started
    (elsewhere / "renewed.json").write_text(json.dumps(pki.collateral("tdx", later)))
    assert code(trust, evidence, later) is None


def test_a_file_replaced_within_the_same_second_and_of_the_same_size_is_noticed(directory: Path, put: Put) -> None:
    one, two = SimulatedTpm(), SimulatedTpm()
    path = put("tpm/keys/machine.der", one.spki)
    trust = DirectoryTrust(directory)
    assert (code(trust, tpm_evidence(one)), code(trust, tpm_evidence(two))) == (None, "tpm-ak-untrusted")
    stamp = path.stat()
    draft = path.with_name(".draft")
    draft.write_bytes(two.spki)
    os.utime(draft, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    draft.replace(path)
    assert (code(trust, tpm_evidence(one)), code(trust, tpm_evidence(two))) == ("tpm-ak-untrusted", None)


def test_a_key_that_is_taken_back_is_refused_at_once(directory: Path, put: Put) -> None:
    tpm = SimulatedTpm()
    path = put("tpm/keys/machine.pem", tpm.spki)
    trust = DirectoryTrust(directory)
    assert code(trust, tpm_evidence(tpm)) is None
    path.unlink()
    assert code(trust, tpm_evidence(tpm)) == "evidence-kind-unknown"


def test_a_damaged_file_leaves_its_platform_undecided_and_the_others_as_they_were(
    directory: Path, put: Put, pki: SimulatedPki, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody knows what a damaged list took back, so that the old one is not good enough either."""
    tpm = SimulatedTpm()
    put("simulator_root.der", pki.root.der)
    put("collateral/tdx.json", json.dumps(pki.collateral("tdx", NOW)).encode())
    put("tpm/keys/machine.der", tpm.spki)
    trust = DirectoryTrust(directory)
    spoilt = put("tpm/keys/second.der", b"half a ke")
    assert code(trust, tpm_evidence(tpm)) == "trust-unreadable"
    assert "second.der" in caplog.text
    assert code(trust, td_quote(pki)) is None
    put("collateral/other.json", b"{")
    assert code(trust, td_quote(pki)) is None
    spoilt.unlink()
    assert code(trust, tpm_evidence(tpm)) is None
    put("simulator_root.der", b"junk")
    assert code(trust, td_quote(pki)) == "trust-unreadable"


def test_what_is_damaged_at_the_start_is_named_and_nothing_starts(directory: Path, put: Put) -> None:
    put("tpm/roots/authority.pem", b"-----BEGIN CERTIFICATE-----")
    with pytest.raises(TrustAnchorError, match=r"tpm/roots/authority\.pem"):
        DirectoryTrust(directory)
    (directory / "tpm" / "roots" / "authority.pem").unlink()
    put("collateral/tdx.json", b"{}")
    with pytest.raises(CollateralMalformedError, match=r"tdx\.json"):
        DirectoryTrust(directory)


def test_an_authority_of_ones_own_and_its_revocation_list(directory: Path, put: Put) -> None:
    authority, tpm = AkAuthority(NOW), SimulatedTpm()
    certificate = authority.certify(tpm.public_key)
    body = tpm.evidence({0: bytes(32)}, b"nonce")
    body["ak_cert_der"] = base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()
    evidence = Evidence("tpm", body)
    put("tpm/roots/root.pem", authority.root.public_bytes(Encoding.PEM))
    trust = DirectoryTrust(directory)
    assert code(trust, evidence) == "tpm-ak-certificate-untrusted"  # the intermediate is nowhere
    put("tpm/certificates/issuer.der", authority.intermediate.public_bytes(Encoding.DER))
    put("tpm/crls/issuer.crl", authority.crl())
    assert code(trust, evidence) is None
    assert code(trust, evidence, NOW + 31 * DAY) == "tpm-crl-expired"
    put("tpm/crls/issuer.crl", authority.crl(certificate))
    assert code(trust, evidence) == "tpm-ak-certificate-revoked"


class TestRealAndSimulatedNeverMix:
    def test_a_simulated_tpm_is_verified_as_one_and_refused_in_production(self, directory: Path, put: Put) -> None:
        tpm = SimulatedTpm()
        put("tpm-simulated/keys/toy.der", tpm.spki)
        claims = DirectoryTrust(directory).verify(tpm_evidence(tpm), now=NOW)
        assert claims.simulated
        assert default_policy().appraise(claims, now=NOW).code == "simulated-evidence"

    def test_one_key_in_both_places_starts_nothing(self, directory: Path, put: Put) -> None:
        tpm = SimulatedTpm()
        put("tpm/keys/machine.der", tpm.spki)
        put("tpm-simulated/keys/toy.der", tpm.spki)
        with pytest.raises(TrustAnchorError, match="share none"):
            DirectoryTrust(directory)

    def test_a_key_that_turns_up_in_both_places_is_not_judged(self, directory: Path, put: Put) -> None:
        tpm = SimulatedTpm()
        put("tpm/keys/machine.der", tpm.spki)
        trust = DirectoryTrust(directory)
        put("tpm-simulated/keys/toy.der", tpm.spki)
        assert code(trust, tpm_evidence(tpm)) == "trust-unreadable"

    def test_makers_roots_never_vouch_for_simulated_evidence(self, directory: Path, put: Put, vectors: Path) -> None:
        google = (vectors / "tpm" / "tpm_ek_root_1.cer").read_bytes()
        path = put("tpm-simulated/roots/google.cer", google)
        with pytest.raises(TrustAnchorError, match="maker's root"):
            DirectoryTrust(directory)
        path.unlink()
        path = put("simulator_root.der", (vectors / "sgx" / "intel_sgx_root_ca.der").read_bytes())
        with pytest.raises(TrustAnchorError, match="share no anchor"):
            DirectoryTrust(directory)

    def test_a_simulated_gpu_root_is_not_taken_for_nvidias(self, directory: Path, put: Put) -> None:
        gpu = SimulatedGpu(NOW)
        root = gpu.root.public_bytes(Encoding.PEM)
        path = put("gpu/roots/root.pem", root)
        with pytest.raises(TrustAnchorError, match="NVIDIA"):
            DirectoryTrust(directory)
        path.unlink()
        put("gpu-simulated/roots/root.pem", root)
        claims = DirectoryTrust(directory).verify(Evidence("nvidia", gpu.evidence(bytes(32))), now=NOW)
        assert claims.simulated


class TestRealEvidence:
    """The very files of real machines, verified by a broker's trust directory alone."""

    def test_google_cloud(self, directory: Path, put: Put, vectors: Path) -> None:
        tpm = vectors / "tpm"
        put("tpm/roots/google.cer", (tpm / "tpm_ek_root_1.cer").read_bytes())
        put("tpm/certificates/google.crt", (tpm / "tpm_ek_intermediate_2.crt").read_bytes())
        evidence = Evidence("tpm", json.loads((tpm / "gce_cos85_no_nonce.json").read_text()))
        claims = DirectoryTrust(directory).verify(evidence, now=NOW)
        assert (claims.simulated, claims.extra["ak_trust"]) == (False, "certificate")

    def test_azure_needs_the_hardwares_anchors_alone(self, directory: Path, put: Put, vectors: Path) -> None:
        put("collateral/snp-milan-real.pem", (vectors / "snp" / "milan_ask_ark_asvk.pem").read_bytes())
        trust = DirectoryTrust(directory)
        assert trust.kinds == ("az-snp-vtpm", "snp")
        body = json.loads((vectors / "tpm" / "azure_snp_evidence-v1.json").read_text())
        assert code(trust, Evidence("az-snp-vtpm", body)) == "snp-crl-missing"
        report = (vectors / "snp" / "coco_milan_v2.report").read_bytes()
        vek = (vectors / "snp" / "coco_milan_v2.vcek.der").read_bytes()
        assert code(trust, Evidence("snp", build_body(report, vek))) == "snp-crl-missing"

    def test_intel_with_the_root_that_its_collateral_brings(self, directory: Path, put: Put, vectors: Path) -> None:
        """No anchor has to be fetched by hand: its key is pinned."""
        put("collateral/tdx.json", (vectors / "tdx" / "phala_v4_td10.collateral.json").read_bytes())
        trust = DirectoryTrust(directory)
        assert trust.kinds == ("az-tdx-vtpm", "sgx", "tdx")
        quote = base64.b64encode((vectors / "tdx" / "phala_v4_td10.quote").read_bytes()).decode()
        claims = trust.verify(Evidence("tdx", {"quote": quote}), now=datetime(2025, 6, 20, tzinfo=UTC))
        assert (claims.simulated, claims.tcb.status) == (False, "UpToDate")
        assert code(trust, Evidence("tdx", {"quote": quote})) == "tcb-info-expired"
