"""Intel collateral is kept only when the pinned root vouches for every piece, and only while it holds."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from casemate.attestation.collateral.errors import CollateralNotYetValidError
from casemate.attestation.collateral.intel import check_dates, is_older, pieces_of, verify_collateral
from casemate.attestation.collateral.pieces import CachedPiece, State, worst_first
from casemate.attestation.platforms.intel import errors
from casemate.attestation.platforms.intel.collateral import Collateral, parse_collateral
from casemate.attestation.platforms.simulator.pki import CollateralEdits, SimulatedPki, make_authority
from casemate.errors import CasemateError, RefusedError, UndecidedError

Make = Callable[..., Collateral]


def test_a_good_set_verifies_under_its_root_alone(parsed: Make, pki: SimulatedPki, now: datetime) -> None:
    verify_collateral(parsed(), pki.root.der)
    check_dates(parsed(), now)
    with pytest.raises(errors.CollateralUntrustedError):
        verify_collateral(parsed())  # Intel's root is the default
    with pytest.raises(errors.CollateralUntrustedError):
        verify_collateral(parsed(), SimulatedPki.create(now).root.der)


def _spoilt(text: str) -> str:
    return text.replace('"UpToDate"', '"OutOfDate"', 1)


def _other_signature(text: str) -> str:
    return text[:-2] + ("00" if text[-2:] != "00" else "01")


@pytest.mark.parametrize(
    ("member", "spoil", "error"),
    [
        ("tcb_info", _spoilt, errors.TcbInfoSignatureError),
        ("tcb_info_signature", _other_signature, errors.TcbInfoSignatureError),
        ("tcb_info_signature", lambda text: text[:-2], errors.TcbInfoSignatureError),
        ("qe_identity", _spoilt, errors.QeIdentitySignatureError),
        ("qe_identity_signature", _other_signature, errors.QeIdentitySignatureError),
        ("root_ca_crl", _other_signature, errors.CrlInvalidError),
        ("pck_crl", _other_signature, errors.CrlInvalidError),
    ],
)
def test_a_piece_that_nobody_signed_is_refused(
    member: str,
    spoil: Callable[[str], str],
    error: type[CasemateError],
    document: Callable[..., dict[str, Any]],
    parsed: Make,
    pki: SimulatedPki,
) -> None:
    spoilt = spoil(document()[member])
    with pytest.raises(error):
        verify_collateral(parsed(**{member: spoilt}), pki.root.der)


def test_a_chain_without_its_root_or_through_a_stranger_is_refused(
    parsed: Make, pki: SimulatedPki, now: datetime
) -> None:
    with pytest.raises(errors.CollateralChainError):
        verify_collateral(parsed(qe_identity_issuer_chain=pki.tcb_signer.pem), pki.root.der)
    stranger = make_authority("SIMULATED SGX TCB Signing", None, now, years=1)
    with pytest.raises(errors.CollateralChainError):
        verify_collateral(parsed(tcb_info_issuer_chain=stranger.pem + pki.root.pem), pki.root.der)
    with pytest.raises(errors.CollateralUntrustedError):
        verify_collateral(parsed(tcb_info_issuer_chain=pki.tcb_signer.pem + stranger.pem), pki.root.der)


def test_a_ca_may_not_sign_tcb_info(parsed: Make, pki: SimulatedPki) -> None:
    with pytest.raises(errors.CollateralChainError):
        verify_collateral(parsed(edits=CollateralEdits(tcb_signer=pki.pck_ca)), pki.root.der)


def test_a_revoked_signer_or_authority_is_refused(parsed: Make, pki: SimulatedPki) -> None:
    with pytest.raises(errors.CollateralSignerRevokedError):
        verify_collateral(parsed(edits=CollateralEdits(revoke=(pki.tcb_signer.certificate,))), pki.root.der)
    with pytest.raises(errors.PckCaRevokedError):
        verify_collateral(parsed(edits=CollateralEdits(revoke=(pki.pck_ca.certificate,))), pki.root.der)


def test_a_pck_list_by_another_key_is_refused(parsed: Make, pki: SimulatedPki, now: datetime) -> None:
    other = make_authority("SIMULATED Intel SGX PCK Platform CA", pki.root, now, years=1, path_length=0)
    with pytest.raises(errors.CrlInvalidError):
        verify_collateral(parsed(edits=CollateralEdits(crl_signer=other)), pki.root.der)


@pytest.mark.parametrize(
    ("edits", "error"),
    [
        (CollateralEdits(tcb_info=lambda t: t.update(nextUpdate="2026-03-01T11:59:59Z")), errors.TcbInfoExpiredError),
        (
            CollateralEdits(qe_identity=lambda t: t.update(nextUpdate="2026-02-28T12:00:00Z")),
            errors.QeIdentityExpiredError,
        ),
        (CollateralEdits(crl_expires=datetime.fromisoformat("2026-03-01T11:00:00Z")), errors.CrlExpiredError),
    ],
)
def test_an_expired_piece_is_undecided_and_named(
    edits: CollateralEdits, error: type[CasemateError], parsed: Make, now: datetime
) -> None:
    with pytest.raises(error) as caught:
        check_dates(parsed(edits=edits), now)
    assert isinstance(caught.value, UndecidedError)
    assert "53494d000000" in caught.value.message


def test_a_piece_from_the_future_is_refused(parsed: Make, now: datetime) -> None:
    with pytest.raises(CollateralNotYetValidError) as caught:
        check_dates(parsed(), now - timedelta(days=40))
    assert isinstance(caught.value, RefusedError)


def test_a_set_that_goes_back_is_told_apart(parsed: Make, now: datetime) -> None:
    old = parsed(edits=CollateralEdits(issued=now - timedelta(days=3)))
    lower = parsed(edits=CollateralEdits(tcb_info=lambda t: t.update(tcbEvaluationDataNumber=19)))
    assert is_older(parsed(), old) is None
    assert is_older(old, parsed()) == "TCB info"
    assert is_older(lower, parsed()) == "TCB evaluation data number"


def test_pieces_name_their_subjects_and_dates(parsed: Make, now: datetime) -> None:
    pieces = pieces_of(parsed())
    assert [p.piece for p in pieces[:4]] == ["TCB info", "QE identity", "root CA CRL", "PCK CRL"]
    assert {p.subject for p in pieces} >= {"evaluation 20", "TD_QE", "SIMULATED SGX Root CA"}
    assert not worst_first(pieces, now)
    assert len(worst_first(pieces, now + timedelta(days=30))) == 4
    assert {p.state(now, margin=timedelta(days=60)) for p in pieces[:4]} == {State.EXPIRING}


def test_the_worst_piece_comes_first(now: datetime) -> None:
    day = timedelta(days=1)
    pieces = [
        CachedPiece("s", "good", "", now - day, now + day),
        CachedPiece("s", "future", "", now + day, now + day),
        CachedPiece("s", "expired", "", now - day, now - day),
        CachedPiece("s", "missing", ""),
        CachedPiece("s", "damaged", "", flaw="not JSON"),
    ]
    assert [p.piece for p in worst_first(pieces, now)] == ["damaged", "missing", "expired", "future"]


def test_real_collateral_verifies_under_intels_pinned_root(vectors: Path) -> None:
    for name in ("sgx/phala_v3", "tdx/phala_v4_td10", "tdx/fmspc_90c06f_2026-02"):
        text = (vectors / f"{name}.collateral.json").read_text()
        verify_collateral(parse_collateral(text))
    simulated = parse_collateral((vectors / "sgx" / "sim_ok.collateral.json").read_text())
    with pytest.raises(errors.CollateralUntrustedError):
        verify_collateral(simulated)
