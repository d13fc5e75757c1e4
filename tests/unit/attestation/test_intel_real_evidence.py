"""Real quotes at the time they were good, and at times they were not. Network, disk and clock are not asked."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from casemate.attestation.claims import Claims
from casemate.attestation.evidence import Evidence
from casemate.attestation.platforms.intel.collateral import Collateral, SingleCollateral, parse_collateral
from casemate.attestation.platforms.intel.quote import parse_quote
from casemate.attestation.platforms.intel.tcb import judge
from casemate.attestation.policy import Outcome, default_policy
from casemate.attestation.trust import TrustStore
from casemate.errors import CasemateError, UndecidedError


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def collateral_of(vectors: Path, name: str) -> Collateral:
    return parse_collateral((vectors / f"{name}.collateral.json").read_text())


def verify(vectors: Path, quote: str, collateral: str, when: str, *, simulated_root: bool = True) -> Claims:
    store = TrustStore(
        intel_root=(vectors / "sgx/intel_sgx_root_ca.der").read_bytes(),
        simulator_root=(vectors / "sgx/sim_root_ca.der").read_bytes() if simulated_root else None,
        collateral=SingleCollateral(collateral_of(vectors, collateral)),
    )
    raw = (vectors / f"{quote}.quote").read_bytes()
    body = {"quote": base64.b64encode(raw).decode()}
    return store.verify(Evidence(quote.split("/")[0], body), now=at(when))


# quote, collateral, time, TCB status, advisories, reasons of the default policy
VERIFIED = [
    (
        "sgx/phala_v3",
        "sgx/phala_v3",
        "2025-06-20T12:00",
        "ConfigurationAndSWHardeningNeeded",
        ("INTEL-SA-00289", "INTEL-SA-00615"),
        ("tcb-status-not-accepted",),
    ),
    ("tdx/phala_v4_td10", "tdx/phala_v4_td10", "2025-06-20T12:00", "UpToDate", (), ()),
    ("sgx/sim_v3", "sgx/sim_ok", "2026-01-10T00:00", "UpToDate", (), ("simulated-evidence",)),
    (
        "sgx/sim_v3",
        "sgx/sim_outofdate",
        "2026-01-10T00:00",
        "OutOfDate",
        ("INTEL-SA-00001",),
        ("simulated-evidence", "tcb-status-not-accepted"),
    ),
    ("sgx/sim_v3_debug", "sgx/sim_ok", "2026-01-10T00:00", "UpToDate", (), ("simulated-evidence", "debug-enabled")),
    ("tdx/sim_v4_td10", "tdx/sim_ok", "2026-01-10T00:00", "UpToDate", (), ("simulated-evidence",)),
    ("tdx/sim_v5_td15", "tdx/sim_ok", "2026-01-10T00:00", "UpToDate", (), ("simulated-evidence",)),
    ("tdx/sim_v4_debug", "tdx/sim_ok", "2026-01-10T00:00", "UpToDate", (), ("simulated-evidence", "debug-enabled")),
    (
        "tdx/sim_v4_no_septve",
        "tdx/sim_ok",
        "2026-01-10T00:00",
        "UpToDate",
        (),
        ("simulated-evidence", "sept-ve-not-disabled"),
    ),
]


@pytest.mark.parametrize(("quote", "collateral", "when", "status", "advisories", "codes"), VERIFIED)
def test_genuine_quotes_give_claims_and_the_policy_decides(
    vectors: Path,
    quote: str,
    collateral: str,
    when: str,
    status: str,
    advisories: tuple[str, ...],
    codes: tuple[str, ...],
) -> None:
    claims = verify(vectors, quote, collateral, when)
    assert (claims.tcb.status, claims.tcb.advisories) == (status, advisories)
    assert claims.simulated is ("sim_" in quote)
    appraisal = default_policy().appraise(claims, now=at(when))
    assert appraisal.codes == codes
    assert appraisal.outcome is (Outcome.REFUSED if codes else Outcome.ACCEPTED)
    assert Claims.from_json(json.loads(json.dumps(claims.to_json()))) == claims


@pytest.mark.parametrize(
    ("quote", "collateral", "when", "code"),
    [
        ("sgx/phala_v3", "sgx/phala_v3", "2025-07-20T12:00", "tcb-info-expired"),
        ("sgx/phala_v3", "sgx/phala_v3", "2025-06-18T00:00", "tcb-info-from-the-future"),
        ("sgx/sim_v3_tampered", "sgx/sim_ok", "2026-01-10T00:00", "quote-signature-invalid"),
        ("sgx/sim_v3", "sgx/sim_pck_revoked", "2026-01-10T00:00", "pck-revoked"),
        ("sgx/sim_v3", "sgx/sim_ca_revoked", "2026-01-10T00:00", "pck-ca-revoked"),
        ("sgx/sim_v3", "sgx/sim_revoked_tcb", "2026-01-10T00:00", "tcb-revoked"),
        ("sgx/sim_v3", "sgx/sim_bad_qe_signer", "2026-01-10T00:00", "qe-mrsigner-mismatch"),
        ("sgx/sim_v3", "sgx/sim_wrong_fmspc", "2026-01-10T00:00", "fmspc-mismatch"),
        ("tdx/phala_v5_td15_no_tcb_level", "tdx/fmspc_90c06f_2026-02", "2026-02-25T00:00", "no-matching-tcb-level"),
        ("tdx/coco_v5_td15", "tdx/fmspc_90c06f_2026-02", "2026-02-25T00:00", "no-matching-tcb-level"),
        ("tdx/google_v4_spr_e4", "tdx/google_v4_spr_e4", "2023-07-01T01:00", "no-matching-tcb-level"),
        ("tdx/google_v4_spr_e4", "tdx/google_v4_spr_e4", "2023-09-01T01:00", "tcb-info-expired"),
        ("tdx/google_cos113_v4", "tdx/sim_ok", "2026-01-10T00:00", "collateral-untrusted-root"),
        ("sgx/sim_v3", "tdx/sim_ok", "2026-01-10T00:00", "collateral-tee-mismatch"),
        ("tdx/sim_v4_td10", "sgx/sim_ok", "2026-01-10T00:00", "collateral-tee-mismatch"),
    ],
)
def test_each_faulty_one_is_not_accepted_for_its_own_reason(
    vectors: Path, quote: str, collateral: str, when: str, code: str
) -> None:
    with pytest.raises(CasemateError) as caught:
        verify(vectors, quote, collateral, when)
    assert caught.value.code == code
    assert isinstance(caught.value, UndecidedError) is code.endswith("expired")


@pytest.mark.parametrize("quote", ["sgx/sim_v3", "tdx/sim_v4_td10", "tdx/sim_v5_td15"])
def test_simulated_evidence_does_not_verify_under_the_maker_s_root(vectors: Path, quote: str) -> None:
    with pytest.raises(CasemateError) as caught:
        verify(vectors, quote, f"{quote.split('/')[0]}/sim_ok", "2026-01-10T00:00", simulated_root=False)
    assert caught.value.code == "untrusted-root"


def test_quote_with_matching_tcb_info_and_identity_of_the_same_month_is_out_of_date(vectors: Path) -> None:
    """No revocation lists of that month are at hand, so the levels alone are judged; signatures are tested above."""
    quote = parse_quote((vectors / "tdx/coco_v4_00a06d.quote").read_bytes())
    tcb_info = json.loads((vectors / "tdx/coco_00a06d_2025-10.tcbInfo.json").read_text())["tcbInfo"]
    identity = json.loads((vectors / "tdx/coco_00a06d_2025-10.enclaveIdentity.json").read_text())["enclaveIdentity"]
    import dcap_qvl

    raw = (vectors / "tdx/coco_v4_00a06d.quote").read_bytes()
    pck = dcap_qvl.parse_quote(raw).pck_extension()
    assert pck.fmspc.hex().upper() == tcb_info["fmspc"]
    state = judge(
        tcb_info,
        identity,
        sgx_svns=list(pck.cpu_svn),
        pce_svn=pck.pce_svn,
        qe_svn=int.from_bytes(quote.qe_report[258:260], "little"),
        tdx_svns=list(quote.body[:16]),
    )
    assert state.status == "OutOfDate"


@pytest.mark.parametrize(
    ("quote", "collateral", "when"),
    [(q, c, w) for q, c, w, *_ in VERIFIED if "debug" not in q and "septve" not in q],
)
def test_the_status_for_debug_tees_is_judged_as_the_library_judges_others(
    vectors: Path, quote: str, collateral: str, when: str
) -> None:
    claims = verify(vectors, quote, collateral, when)
    parsed = parse_quote((vectors / f"{quote}.quote").read_bytes())
    documents, reported = collateral_of(vectors, collateral), claims.tcb.reported
    assert reported is not None
    state = judge(
        documents.tcb_info,
        documents.qe_identity,
        sgx_svns=[reported[f"sgx{i:02}"] for i in range(1, 17)],
        pce_svn=reported["pcesvn"],
        qe_svn=reported["qesvn"],
        tdx_svns=list(parsed.body[:16]) if parsed.tee == "tdx" else None,
    )
    assert (state.status, state.date) == (claims.tcb.status, claims.tcb.date)
    assert sorted(state.advisories) == sorted(claims.tcb.advisories)


def test_padding_after_a_quote_is_cut_off_and_counted(vectors: Path) -> None:
    quote = parse_quote((vectors / "tdx/google_cos113_v4.quote").read_bytes())
    assert len(quote.raw) + quote.trailing_bytes == 8000
    report_data = quote.body[520:584]
    assert report_data == (vectors / "tdx/google_cos113.nonce.bin").read_bytes().ljust(64, b"\0")


SIGNED = [("sgx/phala_v3", "sgx/phala_v3", 48 + 384), ("tdx/phala_v4_td10", "tdx/phala_v4_td10", 48 + 584)]


@pytest.mark.parametrize(("name", "collateral", "signed"), SIGNED)
def test_no_flipped_bit_of_header_or_body_is_accepted(vectors: Path, name: str, collateral: str, signed: int) -> None:
    """One bit of each byte here; the benchmark target flips them all."""
    raw = (vectors / f"{name}.quote").read_bytes()
    store = TrustStore(
        intel_root=(vectors / "sgx/intel_sgx_root_ca.der").read_bytes(), collateral=[collateral_of(vectors, collateral)]
    )
    tee = name.split("/")[0]
    for index in range(signed):
        spoiled = bytearray(raw)
        spoiled[index] ^= 1 << index % 8
        with pytest.raises(CasemateError):
            store.verify(Evidence(tee, {"quote": base64.b64encode(spoiled).decode()}), now=at("2025-06-20T12:00"))
