from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from casemate.attestation.detect import find_attester
from casemate.attestation.errors import CollateralMissingError, NoTeeError
from casemate.attestation.evidence import Evidence
from casemate.attestation.platforms.intel.collateral import Collateral, CollateralStore, parse_collateral
from casemate.attestation.platforms.intel.errors import CollateralMalformedError
from casemate.attestation.platforms.simulator.client import SimulatorAttester
from casemate.attestation.platforms.simulator.pki import CollateralEdits, SimulatedPki
from casemate.attestation.platforms.simulator.quote import QuotingEnclave, TdReport
from casemate.attestation.trust import TrustStore
from casemate.attestation.trust_errors import TrustAnchorError
from casemate.attestation.trust_files import load_collateral, load_trust
from casemate.errors import CasemateError

MakeCollateral = Callable[..., Collateral]


def test_only_intel_s_own_root_serves_as_intel_root(pki: SimulatedPki) -> None:
    with pytest.raises(TrustAnchorError):
        TrustStore(intel_root=pki.root.der)


def test_intel_s_root_never_serves_the_simulator(vectors: Path) -> None:
    with pytest.raises(TrustAnchorError, match="share no anchor"):
        TrustStore(simulator_root=(vectors / "sgx/intel_sgx_root_ca.der").read_bytes())


@pytest.mark.parametrize("der", [b"", b"\0" * 100, b"-----BEGIN CERTIFICATE-----"])
def test_an_anchor_that_is_no_certificate_is_refused(der: bytes) -> None:
    with pytest.raises(TrustAnchorError):
        TrustStore(intel_root=der)
    with pytest.raises(TrustAnchorError):
        TrustStore(simulator_root=der)


def test_without_anchors_nothing_is_verified(
    enclave: QuotingEnclave, evidence: Callable[..., Evidence], now: datetime
) -> None:
    with pytest.raises(CasemateError) as caught:
        TrustStore().verify(evidence(enclave.tdx_quote(TdReport())), now=now)
    assert caught.value.code == "evidence-kind-unknown"


def test_simulated_evidence_stays_simulated_beside_intel_s_root(
    vectors: Path,
    pki: SimulatedPki,
    enclave: QuotingEnclave,
    evidence: Callable[..., Evidence],
    make_collateral: MakeCollateral,
    now: datetime,
) -> None:
    intel = (vectors / "sgx/intel_sgx_root_ca.der").read_bytes()
    store = TrustStore(intel_root=intel, simulator_root=pki.root.der, collateral=[make_collateral()])
    assert store.verify(evidence(enclave.tdx_quote(TdReport())), now=now).simulated
    only_intel = TrustStore(intel_root=intel, collateral=[make_collateral()])
    with pytest.raises(CasemateError) as caught:
        only_intel.verify(evidence(enclave.tdx_quote(TdReport())), now=now)
    assert caught.value.code == "untrusted-root"


def test_real_evidence_is_not_judged_by_simulated_collateral(
    vectors: Path, evidence: Callable[..., Evidence], now: datetime
) -> None:
    """A simulated maker that claims a real platform's FMSPC gets its collateral stored apart."""
    pki = SimulatedPki.create(now)
    claimed = CollateralEdits(tcb_info=lambda t: t.update(fmspc="B0C06F000000"))
    store = TrustStore(
        intel_root=(vectors / "sgx/intel_sgx_root_ca.der").read_bytes(),
        simulator_root=pki.root.der,
        collateral=[parse_collateral(json.dumps(pki.collateral("tdx", now, claimed)))],
    )
    with pytest.raises(CollateralMissingError, match="b0c06f000000"):
        store.verify(evidence((vectors / "tdx/phala_v4_td10.quote").read_bytes()), now=now)


def test_a_time_without_a_zone_is_a_programming_error(now: datetime) -> None:
    with pytest.raises(ValueError, match="time zone"):
        TrustStore().verify(Evidence("tdx", {}), now=now.replace(tzinfo=None))


def test_the_store_prefers_collateral_that_is_current(make_collateral: MakeCollateral, now: datetime) -> None:
    old = make_collateral(edits=CollateralEdits(issued=now - timedelta(days=60)))
    current = make_collateral()
    ahead = make_collateral(edits=CollateralEdits(issued=now + timedelta(days=10)))
    store = CollateralStore([current, ahead, old])
    assert len(list(store)) == 3

    def find(when: datetime) -> Collateral | None:
        return store.find(root=current.root, tee="tdx", fmspc=current.fmspc, ca="platform", now=when)

    assert find(now) is current
    assert find(now - timedelta(days=45)) is old
    assert find(now + timedelta(days=365)) is ahead
    assert store.find(root=b"other", tee="tdx", fmspc=current.fmspc, ca="platform", now=now) is None
    assert store.find(root=current.root, tee="sgx", fmspc=current.fmspc, ca="platform", now=now) is None


def test_trust_is_read_from_a_directory(
    tmp_path: Path,
    pki: SimulatedPki,
    enclave: QuotingEnclave,
    evidence: Callable[..., Evidence],
    now: datetime,
) -> None:
    assert load_trust(tmp_path).kinds == ()
    (tmp_path / "simulator_root.der").write_bytes(pki.root.der)
    (tmp_path / "collateral").mkdir()
    (tmp_path / "collateral" / "tdx.json").write_text(json.dumps(pki.collateral("tdx", now)))
    assert load_trust(tmp_path).verify(evidence(enclave.tdx_quote(TdReport())), now=now).simulated


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"tcb_info": 1}', "{" * 100_000])
def test_malformed_collateral_names_its_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(CollateralMalformedError, match=r"bad\.json"):
        load_collateral(path)


def test_absent_collateral_is_undecided(tmp_path: Path) -> None:
    with pytest.raises(CollateralMissingError):
        load_collateral(tmp_path / "none.json")


def test_without_a_tee_the_message_says_what_was_looked_for(tmp_path: Path) -> None:
    for environment in ({}, {"CASEMATE_TEE_SOCKET": ""}, {"CASEMATE_TPM": ""}):
        with pytest.raises(NoTeeError, match=r"CASEMATE_TEE_SOCKET.*Gramine.*SEV-SNP"):
            find_attester(environment, root=tmp_path)


def test_real_machines_are_found_by_their_files(tmp_path: Path) -> None:
    (tmp_path / "sys/kernel/config/tsm/report").mkdir(parents=True)
    assert type(find_attester({}, root=tmp_path)).__name__ == "TsmAttester"
    (tmp_path / "dev/attestation").mkdir(parents=True)
    (tmp_path / "dev/attestation/attestation_type").write_text("dcap")
    assert find_attester({}, root=tmp_path).tee == "sgx"


def test_the_simulator_is_found_by_its_socket(tmp_path: Path) -> None:
    attester = find_attester({"CASEMATE_TEE_SOCKET": str(tmp_path / "tee.sock")})
    assert isinstance(attester, SimulatorAttester)
    with pytest.raises(CasemateError) as caught:
        attester.collect(bytes(64))
    assert caught.value.code == "tee-host-unreachable"
    with pytest.raises(CasemateError, match="need 64"):
        attester.collect(bytes(63))
