"""Whatever bytes or JSON come in, parsers and verifiers answer with our own errors, quickly, and accept none of it."""

from __future__ import annotations

import contextlib
import json
import random
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casemate.attestation.eventlog import check_pcrs, parse_event_log, replay_pcrs, replay_rtmrs
from casemate.attestation.evidence import Evidence
from casemate.attestation.platforms.linux.snp_certificates import parse_certificate_table
from casemate.attestation.platforms.tpm.azure import AzureVerifier, parse_hcl_report
from casemate.attestation.platforms.tpm.simulator import SimulatedTpm
from casemate.attestation.platforms.tpm.structures import (
    parse_public_key,
    parse_quote,
    parse_signature,
    parse_tpmt_public,
)
from casemate.attestation.platforms.tpm.trust import TpmTrust, parse_certificate
from casemate.attestation.platforms.tpm.verifier import TpmVerifier
from casemate.errors import CasemateError

NOW = datetime(2026, 6, 1, tzinfo=UTC)
TPM = SimulatedTpm("ecdsa")
PCRS = {n: bytes([n]) * 32 for n in range(9)}
QUOTE = TPM.quote(PCRS, b"nonce")
PARSERS: dict[Any, bytes] = {
    parse_quote: QUOTE,
    parse_signature: TPM.sign(QUOTE),
    parse_tpmt_public: TPM.tpmt_public(),
    parse_public_key: TPM.spki,
    parse_certificate: b"\x30\x82\x01\x00",
    parse_hcl_report: b"HCLA" + bytes(28 + 1184) + (22).to_bytes(4, "little") + b"\1\0\0\0\2\0\0\0\1\0\0\0\2\0\0\0{}",
    parse_event_log: bytes.fromhex("0000000003000000")
    + bytes(20)
    + b"\x21\0\0\0Spec ID Event03\0"
    + bytes(8)
    + b"\1\0\0\0\x0b\0\x20\0\0"
    + b"\1\0\0\0\x0d\0\0\0\1\0\0\0\x0b\0"
    + bytes(32)
    + b"\1\0\0\0x",
    parse_certificate_table: bytes(24),
}

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=80)
    | st.binary(max_size=40).map(bytes.hex),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=12), inner, max_size=6),
    max_leaves=20,
)


def mutate(raw: bytes, source: random.Random) -> bytes:
    data = bytearray(raw)
    for _ in range(source.randint(1, 4)):
        if not data:
            break
        kind, at = source.randrange(5), source.randrange(len(data))
        if kind == 0:
            data[at] ^= 1 << source.randrange(8)
        elif kind == 1:
            data[at] = source.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif kind == 2:
            del data[at : at + source.randint(1, 8)]
        elif kind == 3:
            data[at:at] = source.randbytes(source.randint(1, 8))
        else:
            data[at : at + 4] = source.choice((b"\xff\xff\xff\xff", b"\x40\0\0\0", b"\0\0\0\x40", bytes(4)))
    return bytes(data)


@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.__name__)
def test_any_bytes_give_a_value_or_our_error(parser: Any) -> None:
    if parser is not parse_certificate:
        parser(PARSERS[parser])

    @settings(max_examples=200, deadline=None, database=None)
    @given(st.binary(max_size=3000))
    def check(raw: bytes) -> None:
        with contextlib.suppress(CasemateError):
            parser(raw)

    check()


@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.__name__)
def test_any_mutation_of_good_bytes_gives_a_value_or_our_error(parser: Any) -> None:
    @settings(max_examples=400, deadline=None, database=None)
    @given(st.integers(0, 2**32))
    def check(seed: int) -> None:
        with contextlib.suppress(CasemateError):
            parser(mutate(PARSERS[parser], random.Random(seed)))

    check()


@settings(max_examples=300, deadline=None, database=None)
@given(st.integers(0, 2**32))
def test_any_mutated_event_log_replays_or_is_refused(seed: int) -> None:
    try:
        log = parse_event_log(mutate(PARSERS[parse_event_log], random.Random(seed)))
        for event in log.events:
            _ = event.name, event.data_is_measured
        check_pcrs(log, "sha256", replay_pcrs(log, "sha256"))
        replay_rtmrs(log)
    except CasemateError:
        pass


@settings(max_examples=300, deadline=None, database=None)
@given(st.integers(0, 2**32))
def test_no_mutated_quote_or_signature_is_accepted(seed: int) -> None:
    source = random.Random(seed)
    body = TPM.evidence(PCRS, b"nonce")
    member = source.choice(("message", "signature"))
    good = QUOTE if member == "message" else TPM.sign(QUOTE)
    bad = mutate(good, source)
    if bad == good:
        return
    signature = TPM.sign(QUOTE) if member == "message" else bad
    body["tpm_quote"] |= {"message": (bad if member == "message" else QUOTE).hex(), "signature": signature.hex()}
    with pytest.raises(CasemateError):
        TpmVerifier(TpmTrust(keys=[TPM.spki])).verify(Evidence("tpm", body), now=NOW)


@settings(max_examples=300, deadline=None, database=None)
@given(
    st.dictionaries(
        st.sampled_from(
            [
                "tpm_quote",
                "quotes",
                "ak_public",
                "ak_pem",
                "ak_pub_tpmt",
                "ak_cert_der",
                "nonce",
                "message",
                "signature_tpmt",
                "pcr_bank",
                "pcrs",
                "event_log",
                "workload",
                "ak_cert_chain",
            ]
        ),
        JSON,
    )
)
def test_any_json_as_tpm_evidence_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(CasemateError):
        TpmVerifier(TpmTrust(), insecure_allow_unknown_ak=True).verify(Evidence("tpm", body), now=NOW)


@settings(max_examples=200, deadline=None, database=None)
@given(st.data())
def test_good_tpm_evidence_with_any_one_member_replaced_gives_claims_or_our_error(data: st.DataObject) -> None:
    body = TPM.evidence(PCRS, b"nonce")
    target = data.draw(st.sampled_from([body, body["tpm_quote"]]))
    target[data.draw(st.sampled_from(sorted(target)))] = data.draw(JSON)
    with contextlib.suppress(CasemateError):
        TpmVerifier(TpmTrust(keys=[TPM.spki])).verify(Evidence("tpm", body), now=NOW)


@settings(max_examples=200, deadline=None, database=None)
@given(
    st.dictionaries(
        st.sampled_from(["hcl_report", "report", "tpm_quote", "quote", "vcek", "td_quote", "version"]), JSON
    )
)
def test_any_json_as_azure_evidence_is_refused(body: dict[str, Any]) -> None:
    for tee in ("az-snp-vtpm", "az-tdx-vtpm"):
        with pytest.raises(CasemateError):
            AzureVerifier().verify(Evidence(tee, body), now=NOW)


@settings(max_examples=200, deadline=None, database=None)
@given(JSON)
def test_any_hcl_claims_are_read_or_refused(claims: Any) -> None:
    text = json.dumps(claims).encode()
    sizes = b"".join(n.to_bytes(4, "little") for n in (len(text) + 20, 1, 2, 1, len(text)))
    try:
        report = parse_hcl_report(b"HCLA" + bytes(28 + 1184) + sizes + text)
        _ = report.user_data, report.attestation_key
    except CasemateError:
        pass
