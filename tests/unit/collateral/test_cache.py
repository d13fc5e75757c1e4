"""What is kept: whole files, newest wins, damage is named, a broker reads the same directory."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from casemate.attestation.collateral.amd import verify_endorsements
from casemate.attestation.collateral.cache import CollateralCache
from casemate.attestation.collateral.errors import CollateralCacheError
from casemate.attestation.collateral.importing import TrustedRoot, import_files
from casemate.attestation.collateral.pieces import State
from casemate.attestation.evidence import Evidence
from casemate.attestation.platforms.intel.collateral import Collateral
from casemate.attestation.platforms.simulator.pki import CollateralEdits, SimulatedPki
from casemate.attestation.platforms.simulator.quote import QuotingEnclave, TdReport
from casemate.attestation.platforms.snp.body import build_body
from casemate.attestation.platforms.snp.collateral import sort_collateral
from casemate.attestation.platforms.snp.errors import SnpCertificateMalformedError, SnpCrlMissingError
from casemate.attestation.platforms.snp.simulator import SimulatedAmd
from casemate.attestation.trust_files import load_trust

Make = Callable[..., Collateral]


@pytest.fixture
def cache(tmp_path: Path) -> CollateralCache:
    return CollateralCache(tmp_path / "trust" / "collateral")


def test_what_is_stored_is_loaded_again(cache: CollateralCache, parsed: Make, now: datetime) -> None:
    assert not cache.load().pieces()
    assert [one.action for one in cache.store([parsed()], [], now=now)] == ["added"]
    held = cache.load()
    assert [one.fmspc for one in held.intel] == ["53494d000000"]
    assert held.simulated
    assert all("SIMULATED" in piece.set for piece in held.pieces())
    assert sorted(path.name for path in cache.directory.iterdir()) == [next(cache.directory.iterdir()).name]
    assert cache.directory.stat().st_mode & 0o777 == 0o700


def test_newer_replaces_older_and_never_the_other_way(cache: CollateralCache, parsed: Make, now: datetime) -> None:
    old, new = parsed(edits=CollateralEdits(issued=now - timedelta(days=9))), parsed()
    cache.store([old], [], now=now)
    assert [one.action for one in cache.store([new], [], now=now)] == ["renewed"]
    assert [one.action for one in cache.store([new], [], now=now)] == ["unchanged"]
    (kept,) = cache.store([old], [], now=now)
    assert (kept.action, "TCB info" in kept.detail) == ("kept", True)
    assert cache.load().intel[0].document == new.document


def test_a_damaged_file_is_named_and_replaced(cache: CollateralCache, parsed: Make, now: datetime) -> None:
    good = parsed()
    cache.store([good], [], now=now)
    (path,) = cache.directory.iterdir()
    path.write_text(path.read_text().replace("UpToDate", "Revoked", 1))
    held = cache.load()
    assert not held.intel
    assert [(p.state(now), p.code) for p in held.pieces()] == [(State.DAMAGED, "tcb-info-signature-invalid")]
    path.write_bytes(path.read_bytes()[:100])
    assert cache.load().pieces()[0].code == "collateral-malformed"
    assert cache.store([good], [], now=now)[0].action == "added"
    assert cache.load().intel


def test_no_draft_stays_behind_when_the_disk_is_full(
    cache: CollateralCache, parsed: Make, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.store([parsed(edits=CollateralEdits(issued=now - timedelta(days=9)))], [], now=now)
    before = {path.name: path.read_bytes() for path in cache.directory.iterdir()}

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CollateralCacheError, match="No space left"):
        cache.store([parsed()], [], now=now)
    assert {path.name: path.read_bytes() for path in cache.directory.iterdir()} == before


def test_a_directory_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(CollateralCacheError):
        CollateralCache(tmp_path / "file").load()


def test_the_broker_reads_the_same_directory(
    cache: CollateralCache, parsed: Make, pki: SimulatedPki, now: datetime
) -> None:
    cache.store([parsed()], [], now=now)
    trust = cache.directory.parent
    (trust / "simulator_root.der").write_bytes(pki.root.der)
    quote = QuotingEnclave.create(pki).tdx_quote(TdReport(mrtd=bytes([7] * 48)))
    evidence = Evidence("tdx", {"quote": base64.b64encode(quote).decode()})
    claims = load_trust(trust).verify(evidence, now=now)
    assert (claims.measurement, claims.simulated) == ("07" * 48, True)


def test_amds_pieces_are_kept_and_expired_lists_cleared(
    cache: CollateralCache, amd: SimulatedAmd, now: datetime
) -> None:
    root, day = TrustedRoot.of(amd.certificates["ARK"]), timedelta(days=1)
    vek, old = amd.vek(), amd.crl(this_update=now - 9 * day, next_update=now + day)
    files = [("chain.pem", amd.chain_pem()), ("v.der", vek.der), ("l.crl", old)]
    assert cache.store([], import_files(files, now=now, root=root).amd, now=now)[0].action == "added"
    assert len(list(cache.directory.iterdir())) == 3
    later = now + 2 * day
    held = cache.load()
    assert [p.state(later) for p in held.pieces() if p.piece == "revocation list"] == [State.EXPIRED]
    new = amd.crl(this_update=now + day, next_update=now + 30 * day)
    found = import_files([("n.crl", new)], now=later, root=root, kept_amd=held.amd)
    assert cache.store([], found.amd, now=later)[0].action == "renewed"
    (one,) = cache.load().amd
    assert one.crls == (new,)
    assert one.veks == (vek.der,)


def test_a_set_without_a_revocation_list_is_incomplete(
    cache: CollateralCache, amd: SimulatedAmd, now: datetime
) -> None:
    found = import_files([("chain.pem", amd.chain_pem())], now=now, root=TrustedRoot.of(amd.certificates["ARK"]))
    cache.store([], found.amd, now=now)
    states = {piece.piece: piece.state(now) for piece in cache.load().pieces()}
    assert states["revocation list"] is State.MISSING
    assert states["certificate"] is State.CURRENT


def test_an_endorsement_key_that_was_exchanged_is_damage(
    cache: CollateralCache, amd: SimulatedAmd, now: datetime
) -> None:
    files = [("chain.pem", amd.chain_pem()), ("v.der", amd.vek().der)]
    cache.store([], import_files(files, now=now, root=TrustedRoot.of(amd.certificates["ARK"])).amd, now=now)
    next(cache.directory.glob("*.der")).write_bytes(amd.vek(flip_signature=True).der)
    assert [p.code for p in cache.load().pieces()] == ["snp-certificate-signature-invalid"]


def test_a_simulated_chain_gives_the_broker_no_verifier(
    cache: CollateralCache, amd: SimulatedAmd, now: datetime
) -> None:
    found = import_files([("chain.pem", amd.chain_pem())], now=now, root=TrustedRoot.of(amd.certificates["ARK"]))
    cache.store([], found.amd, now=now)
    assert "snp" not in load_trust(cache.directory.parent).kinds
    assert cache.endorsements() == []


def test_a_damaged_chain_is_named_to_the_broker(cache: CollateralCache) -> None:
    cache.directory.mkdir(parents=True)
    (cache.directory / "snp-milan-00000000.pem").write_bytes(b"-----BEGIN CERTIFICATE-----")
    with pytest.raises(SnpCertificateMalformedError, match=r"snp-milan-00000000\.pem"):
        load_trust(cache.directory.parent)


def test_the_broker_demands_a_list_for_real_reports(cache: CollateralCache, vectors: Path, now: datetime) -> None:
    blobs = [(vectors / "snp" / name).read_bytes() for name in ("milan_ask_ark_asvk.pem", "coco_milan_v2.vcek.der")]
    cache.store([], verify_endorsements(sort_collateral(blobs)), now=now)
    trust = load_trust(cache.directory.parent)
    report = (vectors / "snp" / "coco_milan_v2.report").read_bytes()
    assert len(cache.endorsements()) == 2
    with pytest.raises(SnpCrlMissingError):
        trust.verify(Evidence("snp", build_body(report)), now=now)


def test_documents_are_whole_json(cache: CollateralCache, parsed: Make, now: datetime) -> None:
    cache.store([parsed(), parsed("sgx")], [], now=now)
    assert [json.loads(json.loads(text)["tcb_info"])["id"] for text in cache.documents()] == ["SGX", "TDX"]
