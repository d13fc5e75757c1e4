"""Whatever bytes arrive: an error of ours, soon, or a good answer. Nothing spoiled is ever accepted."""

from __future__ import annotations

import base64
import contextlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casemate.attestation.claims import Claims
from casemate.attestation.errors import MalformedPolicyError
from casemate.attestation.evidence import Evidence
from casemate.attestation.platforms.intel.collateral import SingleCollateral, parse_collateral
from casemate.attestation.platforms.intel.quote import parse_quote
from casemate.attestation.platforms.simulator.errors import LaunchRequestError
from casemate.attestation.platforms.simulator.launch import parse_launch
from casemate.attestation.platforms.simulator.pki import SimulatedPki
from casemate.attestation.platforms.simulator.quote import EnclaveReport, QuotingEnclave, TdReport
from casemate.attestation.platforms.simulator.wire import FrameBuffer
from casemate.attestation.policy import AppraisalPolicy, Outcome, default_policy
from casemate.attestation.token import jwks, verify
from casemate.attestation.trust import TrustStore
from casemate.crypto.jose import KeyPair
from casemate.errors import CasemateError

NOW = datetime(2026, 3, 1, tzinfo=UTC)
PKI = SimulatedPki.create(NOW)
ENCLAVE = QuotingEnclave.create(PKI)
QUOTES = {
    "v4": ("tdx", ENCLAVE.tdx_quote(TdReport())),
    "v5": ("tdx", ENCLAVE.tdx_quote(TdReport(), version=5, td15=True)),
    "v3": ("sgx", ENCLAVE.sgx_quote(EnclaveReport())),
}
COLLATERAL = {tee: json.dumps(PKI.collateral(tee, NOW)) for tee in ("tdx", "sgx")}
STORES = {
    tee: TrustStore(simulator_root=PKI.root.der, collateral=SingleCollateral(parse_collateral(text)))
    for tee, text in COLLATERAL.items()
}
KEYS = jwks(KeyPair.generate().public)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
FUZZ = settings(max_examples=100, deadline=2000)


def verified(tee: str, raw: bytes) -> Claims | None:
    """Claims, or None for an error of ours; any other exception fails the test."""
    try:
        return STORES[tee].verify(Evidence(tee, {"quote": base64.b64encode(raw).decode()}), now=NOW)
    except CasemateError:
        return None


@FUZZ
@given(st.binary(max_size=2000))
def test_random_bytes_are_no_quote(raw: bytes) -> None:
    with pytest.raises(CasemateError):
        parse_quote(raw)


@pytest.mark.parametrize("kind", QUOTES)
@FUZZ
@given(data=st.data())
def test_a_mutated_quote_is_refused_or_says_the_same(kind: str, data: st.DataObject) -> None:
    tee, good = QUOTES[kind]
    spoiled = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(spoiled) - 1))
        action = data.draw(st.sampled_from(("flip", "cut", "insert", "ffff", "repeat")))
        if action == "flip":
            spoiled[at] ^= data.draw(st.integers(1, 255))
        elif action == "cut":
            del spoiled[at : at + data.draw(st.integers(1, 64))]
        elif action == "insert":
            spoiled[at:at] = data.draw(st.binary(min_size=1, max_size=16))
        elif action == "ffff":
            spoiled[at : at + 4] = b"\xff" * len(spoiled[at : at + 4])
        else:
            spoiled += spoiled[at : at + 256]
        if not spoiled:
            break
    claims, expected = verified(tee, bytes(spoiled)), verified(tee, good)
    # Only what no signature covers may differ: PEM text around the certificates, and what follows the quote.
    if claims is not None and expected is not None:
        left, right = claims.to_json(), expected.to_json()
        left["extra"].pop("trailing_bytes")
        right["extra"].pop("trailing_bytes")
        assert left == right


# The list's issuer comes with the quote's own chain; this member is for those who check the list alone.
NEEDED = sorted(set(json.loads(COLLATERAL["tdx"])) - {"pck_crl_issuer_chain"})


@FUZZ
@given(name=st.sampled_from(NEEDED), value=JSON)
def test_collateral_with_a_replaced_member_never_verifies(name: str, value: Any) -> None:
    document = json.loads(COLLATERAL["tdx"]) | {name: value}
    try:
        source = SingleCollateral(parse_collateral(json.dumps(document)))
        store = TrustStore(simulator_root=PKI.root.der, collateral=source)
        store.verify(Evidence("tdx", {"quote": base64.b64encode(QUOTES["v4"][1]).decode()}), now=NOW)
    except CasemateError:
        return
    pytest.fail(f"accepted with {name} = {value!r}")


@FUZZ
@given(name=st.sampled_from(("tcb_info", "qe_identity")), at=st.integers(0, 10_000), text=st.text(max_size=3))
def test_collateral_with_edited_signed_text_never_verifies(name: str, at: int, text: str) -> None:
    document = json.loads(COLLATERAL["tdx"])
    signed = document[name]
    at %= len(signed)
    document[name] = signed[:at] + text + signed[at + 1 :]
    if document[name] == signed:
        return
    try:
        source = SingleCollateral(parse_collateral(json.dumps(document)))
        store = TrustStore(simulator_root=PKI.root.der, collateral=source)
        store.verify(Evidence("tdx", {"quote": base64.b64encode(QUOTES["v4"][1]).decode()}), now=NOW)
    except CasemateError:
        return
    pytest.fail("accepted")


@FUZZ
@given(JSON)
def test_any_evidence_body_is_refused_with_an_error_of_ours(body: Any) -> None:
    for tee in ("tdx", "sgx", "snp", ""):
        for candidate in (body, {"quote": body}):
            with pytest.raises(CasemateError):
                STORES["tdx"].verify(Evidence(tee, candidate), now=NOW)


@FUZZ
@given(st.text(max_size=500))
def test_any_text_is_a_policy_or_a_malformed_one(text: str) -> None:
    with contextlib.suppress(MalformedPolicyError):
        AppraisalPolicy.from_yaml(text)


@FUZZ
@given(
    st.dictionaries(
        st.sampled_from(sorted({*AppraisalPolicy.model_json_schema()["properties"], "other"})), JSON, max_size=6
    )
)
def test_any_document_is_a_policy_or_a_malformed_one(document: dict[str, Any]) -> None:
    try:
        policy = AppraisalPolicy.from_document({"version": 1, "name": "x", **document})
    except MalformedPolicyError:
        return
    simulated = Claims(platform="tdx", simulated=True, debug=True)
    appraisal = policy.appraise(simulated, now=NOW)
    assert appraisal.outcome is not Outcome.ACCEPTED or (policy.allow_simulated and policy.insecure_allow_debug)


@FUZZ
@given(JSON)
def test_claims_of_any_shape_in_extra_do_not_break_the_policy(value: Any) -> None:
    for name in ("unsafe_attributes", "collateral_issued", "smt_enabled"):
        claims = Claims(platform="snp", simulated=False, debug=False, extra={name: value})
        default_policy().appraise(claims, now=NOW)


@FUZZ
@given(st.text(max_size=300) | st.from_regex(r"\A[A-Za-z0-9_-]{1,60}\.[A-Za-z0-9_-]{1,60}\.[A-Za-z0-9_-]{0,60}\Z"))
def test_any_text_is_refused_as_a_token(text: str) -> None:
    with pytest.raises(CasemateError):
        verify(text, keys=KEYS, issuer="i", audience="a", now=NOW)


@FUZZ
@given(st.binary(max_size=300), st.integers(1, 50))
def test_any_stream_is_frames_or_an_error(stream: bytes, size: int) -> None:
    frames = FrameBuffer()
    try:
        for at in range(0, len(stream), size):
            assert all(isinstance(message, dict) for message in frames.feed(stream[at : at + size]))
    except CasemateError:
        pass


@FUZZ
@given(st.dictionaries(st.sampled_from(("op", "manifest", "job", "role", "environment", "cwd", "image")), JSON))
def test_any_launch_request_is_good_or_refused(message: dict[str, Any]) -> None:
    with contextlib.suppress(LaunchRequestError):
        parse_launch(message)
