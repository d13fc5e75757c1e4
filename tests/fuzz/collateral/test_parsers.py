"""Whatever a service, a stick or a builder hands over: our own errors, and nothing but good sets is kept."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.attestation.collateral.bundle import read_bundle
from casemate.attestation.collateral.importing import TrustedRoot, import_files
from casemate.attestation.collateral.sources import Fetched, IntelTarget, intel_collateral
from casemate.attestation.platforms.sgx.sigstruct import parse_sigstruct
from casemate.attestation.platforms.simulator.pki import SimulatedPki
from casemate.attestation.reference import open_reference
from casemate.errors import CasemateError

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PKI = SimulatedPki.create(NOW)
DOCUMENT = PKI.collateral("tdx", NOW)
WHOLE = json.dumps(DOCUMENT)
PIECES = [
    f'{{"tcbInfo":{DOCUMENT["tcb_info"]},"signature":"{DOCUMENT["tcb_info_signature"]}"}}'.encode(),
    f'{{"enclaveIdentity":{DOCUMENT["qe_identity"]},"signature":"{DOCUMENT["qe_identity_signature"]}"}}'.encode(),
    bytes.fromhex(DOCUMENT["root_ca_crl"]),
    bytes.fromhex(DOCUMENT["pck_crl"]),
    PKI.tcb_signer.der,
    PKI.pck_ca.der,
]
SUFFIX = [".json", ".json", ".crl", ".crl", ".der", ".der"]


def _damaged(data: st.DataObject, raw: bytes) -> bytes:
    out = bytearray(raw)
    at = data.draw(st.integers(0, len(out) - 1))
    end = data.draw(st.integers(at, min(len(out), at + 8)))
    out[at:end] = data.draw(st.binary(max_size=8))
    return bytes(out)


@given(st.data())
def test_a_damaged_whole_set_is_taken_only_unchanged(data: st.DataObject) -> None:
    raw = _damaged(data, WHOLE.encode())
    try:
        found = import_files([("c.json", raw)], now=NOW, root=TrustedRoot.of(PKI.root.der))
    except CasemateError:
        return
    for name in ("tcb_info", "tcb_info_signature", "qe_identity", "root_ca_crl", "pck_crl"):
        assert found.intel[0].document[name].lower() == DOCUMENT[name].lower()


@given(st.data())
def test_damaged_pieces_are_refused_by_our_own_errors(data: st.DataObject) -> None:
    which = data.draw(st.integers(0, len(PIECES) - 1))
    files = [(f"p{i}{SUFFIX[i]}", _damaged(data, raw) if i == which else raw) for i, raw in enumerate(PIECES)]
    try:
        import_files(files, now=NOW, root=TrustedRoot.of(PKI.root.der))
    except CasemateError:
        return


@given(st.binary(max_size=600), st.dictionaries(st.text(max_size=20), st.text(max_size=40), max_size=3))
def test_any_reply_is_refused_by_our_own_errors(content: bytes, headers: dict[str, str]) -> None:
    replies = dict.fromkeys(("tcb info", "QE identity", "PCK CRL", "root CA CRL"), Fetched(200, headers, content))
    with pytest.raises(CasemateError):
        intel_collateral(IntelTarget("tdx", "00a06d080000", "platform"), replies)


@given(
    content=st.binary(max_size=2000),
    head=st.sampled_from([b"", b"PK\x03\x04", b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\0"]),
)
def test_any_archive_is_refused_by_our_own_errors(
    content: bytes, head: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = Path(tmp_path_factory.getbasetemp()) / "fuzzed"
    path.write_bytes(head + content)
    try:
        files = [(file.name, file.content) for file in read_bundle(path)]
        import_files(files, now=NOW)
    except CasemateError:
        return


@given(st.text(max_size=400))
def test_any_text_is_no_reference(text: str) -> None:
    with pytest.raises(CasemateError):
        open_reference(text)


@given(st.binary(min_size=1808, max_size=1808))
def test_any_bytes_are_no_sigstruct(raw: bytes) -> None:
    with pytest.raises(CasemateError):
        parse_sigstruct(raw)
