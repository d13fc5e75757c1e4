"""A bundle becomes verified sets, or nothing of it is kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from tests.support.pccs_double import as_json, pccs_routes

from casemate.attestation.collateral.errors import BundleMalformedError
from casemate.attestation.collateral.importing import TrustedRoot, import_files
from casemate.attestation.errors import CollateralMissingError
from casemate.attestation.platforms.intel import errors
from casemate.attestation.platforms.intel.collateral import Collateral
from casemate.attestation.platforms.simulator.pki import CollateralEdits, SimulatedPki
from casemate.attestation.platforms.snp.errors import (
    SnpArkUntrustedError,
    SnpCertificateSignatureError,
    SnpChainMissingError,
    SnpCrlExpiredError,
    SnpCrlSignatureError,
)
from casemate.attestation.platforms.snp.simulator import SimulatedAmd

Document = Callable[..., dict[str, Any]]
File = tuple[str, bytes]


def _loose(document: dict[str, Any], pki: SimulatedPki, tee: str = "tdx") -> dict[str, bytes]:
    """One set as single files: replies of a PCS without their headers, certificates, lists."""
    routes = pccs_routes(document, tee)
    own = f"/{tee}/certification/v4"
    return {
        "tcb.json": routes[f"{own}/tcb"].body,  # type: ignore[union-attr]
        "qe.json": routes[f"{own}/qe/identity"].body,  # type: ignore[union-attr]
        "signer.pem": pki.tcb_signer.pem.encode(),
        "root.der": pki.root.der,
        "authority.cer": pki.pck_ca.der,
        "root.crl": bytes.fromhex(document["root_ca_crl"]),
        "pck.crl": bytes.fromhex(document["pck_crl"]),
    }


def test_a_whole_set_is_taken_in(document: Document, pki: SimulatedPki, now: datetime) -> None:
    found = import_files([("c.json", as_json(document()))], now=now, root=TrustedRoot.of(pki.root.der))
    assert [(one.tee, one.ca) for one in found.intel] == [("tdx", "platform")]


def test_loose_pieces_are_put_together(document: Document, pki: SimulatedPki, now: datetime) -> None:
    whole = document()
    files = [*_loose(whole, pki).items(), ("README.txt", b"from the build machine, on a stick")]
    found = import_files(files, now=now, root=TrustedRoot.of(pki.root.der))
    made = found.intel[0].document
    assert {n: v for n, v in made.items() if "chain" not in n} == {n: v for n, v in whole.items() if "chain" not in n}
    assert found.ignored == ("README.txt",)


def test_pem_and_der_lists_both_are_read(document: Document, pki: SimulatedPki, parsed: Any, now: datetime) -> None:
    files = _loose(document(), pki)
    files["pck.crl"] = parsed().crl("pck_crl").public_bytes(Encoding.PEM)
    assert import_files(files.items(), now=now, root=TrustedRoot.of(pki.root.der)).intel


@pytest.mark.parametrize(
    ("without", "named"),
    [
        ("qe.json", "QE identity"),
        ("signer.pem", "signer"),
        ("authority.cer", "PCK Platform CA"),
        ("root.crl", "root CA CRL"),
        ("pck.crl", "PCK CRL"),
    ],
)
def test_a_missing_piece_is_named(
    without: str, named: str, document: Document, pki: SimulatedPki, now: datetime
) -> None:
    files = _loose(document(), pki)
    del files[without]
    with pytest.raises(CollateralMissingError, match=named):
        import_files(files.items(), now=now, root=TrustedRoot.of(pki.root.der))


def test_intels_root_has_to_be_at_hand_for_loose_pieces(document: Document, pki: SimulatedPki, now: datetime) -> None:
    with pytest.raises(CollateralMissingError, match="Intel SGX Root CA"):
        import_files(_loose(document(), pki).items(), now=now)


def test_a_fresh_list_alone_renews_what_is_kept(
    document: Document, pki: SimulatedPki, parsed: Callable[..., Collateral], now: datetime
) -> None:
    old = parsed(edits=CollateralEdits(issued=now - timedelta(days=20)))
    fresh = bytes.fromhex(document()["pck_crl"])
    found = import_files([("new.crl", fresh)], now=now, root=TrustedRoot.of(pki.root.der), kept_intel=[old])
    assert found.intel[0].document["pck_crl"] == fresh.hex()
    assert found.intel[0].document["root_ca_crl"] == old.document["root_ca_crl"]
    assert found.intel[0].tcb_info == old.tcb_info
    with pytest.raises(CollateralMissingError):
        import_files([("new.crl", fresh)], now=now, root=TrustedRoot.of(pki.root.der))


def test_an_older_list_does_not_replace_a_newer_one(
    document: Document, pki: SimulatedPki, parsed: Callable[..., Collateral], now: datetime
) -> None:
    stale = bytes.fromhex(document(edits=CollateralEdits(issued=now - timedelta(days=20)))["pck_crl"])
    kept = parsed()
    found = import_files([("old.crl", stale)], now=now, root=TrustedRoot.of(pki.root.der), kept_intel=[kept])
    assert found.intel[0].document["pck_crl"] == kept.document["pck_crl"]


def test_one_bad_piece_refuses_the_whole_bundle(document: Document, pki: SimulatedPki, now: datetime) -> None:
    good, bad = document("sgx"), document(tcb_info=document()["tcb_info"].replace("UpToDate", "Revoked", 1))
    with pytest.raises(errors.TcbInfoSignatureError):
        import_files([("a.json", as_json(good)), ("b.json", as_json(bad))], now=now, root=TrustedRoot.of(pki.root.der))


def test_expired_collateral_is_undecided(document: Document, pki: SimulatedPki, now: datetime) -> None:
    with pytest.raises(errors.TcbInfoExpiredError):
        import_files([("c.json", as_json(document()))], now=now + timedelta(days=40), root=TrustedRoot.of(pki.root.der))


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"\x30\x82", b"garbage", b"-----BEGIN CERTIFICATE-----\n"])
def test_a_file_that_is_nothing_is_refused(content: bytes, now: datetime) -> None:
    with pytest.raises((BundleMalformedError, errors.CollateralMalformedError)):
        import_files([("c.json", content)], now=now)


# -- AMD ---------------------------------------------------------------------------------------------------------------
def _crl(amd: SimulatedAmd, now: datetime, **changes: Any) -> bytes:
    return amd.crl(**{"this_update": now - timedelta(days=1), "next_update": now + timedelta(days=30), **changes})


def test_amds_chain_key_and_list_are_taken_in(amd: SimulatedAmd, now: datetime) -> None:
    vek = amd.vek()
    files = [("chain.pem", amd.chain_pem()), ("vcek.der", vek.der), ("list.crl", _crl(amd, now))]
    found = import_files(files, now=now, root=TrustedRoot.of(amd.certificates["ARK"]))
    (one,) = found.amd
    assert one.chain.simulated
    assert one.veks == (vek.der,)
    assert len(one.crls) == 1


def test_a_simulated_chain_is_not_taken_for_amds(amd: SimulatedAmd, now: datetime) -> None:
    with pytest.raises(SnpArkUntrustedError):
        import_files([("chain.pem", amd.chain_pem())], now=now)


def test_a_key_needs_a_chain_given_or_kept(amd: SimulatedAmd, now: datetime) -> None:
    root, vek = TrustedRoot.of(amd.certificates["ARK"]), amd.vek()
    kept = import_files([("chain.pem", amd.chain_pem())], now=now, root=root).amd
    with pytest.raises(SnpChainMissingError):
        import_files([("vcek.der", vek.der)], now=now)
    with pytest.raises(SnpChainMissingError):
        import_files([("vcek.der", vek.der)], now=now, kept_amd=kept)  # what is kept is simulated, nobody said so
    assert import_files([("vcek.der", vek.der)], now=now, root=root, kept_amd=kept).amd[0].veks == (vek.der,)


def test_a_key_or_list_that_amd_did_not_sign_is_refused(amd: SimulatedAmd, now: datetime) -> None:
    root, chain = TrustedRoot.of(amd.certificates["ARK"]), ("chain.pem", amd.chain_pem())
    with pytest.raises(SnpCertificateSignatureError):
        import_files([chain, ("v.der", amd.vek(flip_signature=True).der)], now=now, root=root)
    with pytest.raises(SnpCrlSignatureError):
        import_files([chain, ("l.crl", _crl(amd, now, signed_by="ASK"))], now=now, root=root)


def test_an_expired_list_is_undecided(amd: SimulatedAmd, now: datetime) -> None:
    files = [("chain.pem", amd.chain_pem()), ("l.crl", _crl(amd, now))]
    with pytest.raises(SnpCrlExpiredError):
        import_files(files, now=now + timedelta(days=31), root=TrustedRoot.of(amd.certificates["ARK"]))


def test_real_pieces_are_taken_in_under_the_pinned_roots(vectors: Path) -> None:
    moment = datetime.fromisoformat("2025-11-10T00:00:00+00:00")
    names = ["snp/milan_ask_ark_asvk.pem", "snp/genoa_ask_ark_asvk.pem", "snp/turin_ask_ark_asvk.pem"]
    names += ["snp/coco_milan_v2.vcek.der", "snp/virtee_turin.vcek.der"]
    found = import_files([(name, (vectors / name).read_bytes()) for name in names], now=moment)
    assert [str(one.product) for one in found.amd] == ["Genoa", "Milan", "Turin"]
    whole = json.loads((vectors / "tdx" / "fmspc_90c06f_2026-02.collateral.json").read_text())
    raw = (vectors / "tdx" / "google_90c06f_2026-02.tcbInfo.json").read_bytes()
    rest = {name: value for name, value in whole.items() if not name.startswith("tcb_info") or name.endswith("chain")}
    moment = datetime.fromisoformat("2026-02-25T00:00:00+00:00")
    joined = import_files([("tcb.json", raw), ("rest.json", json.dumps(rest).encode())], now=moment)
    assert joined.intel[0].fmspc == "90c06f000000"
