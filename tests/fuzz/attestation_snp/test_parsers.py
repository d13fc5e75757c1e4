"""Whatever bytes come, the parsers of SEV-SNP evidence raise only errors of ours, soon, and accept nothing forged."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from casemate.attestation.claims import Claims
from casemate.attestation.evidence import Evidence
from casemate.attestation.platforms.snp.body import parse_body
from casemate.attestation.platforms.snp.certificates import parse_certificate, split_certificates
from casemate.attestation.platforms.snp.der import children, read_certificate
from casemate.attestation.platforms.snp.endorsement import VekKind, parse_vek
from casemate.attestation.platforms.snp.kds import parse_chain_reply, parse_crl_reply, parse_vcek_reply
from casemate.attestation.platforms.snp.report import REPORT_SIZE, parse_report
from casemate.attestation.platforms.snp.revocation import parse_crl
from casemate.attestation.platforms.snp.simulator import SimulatedAmd
from casemate.attestation.platforms.snp.tcb import Product
from casemate.attestation.platforms.snp.verifier import SnpVerifier
from casemate.errors import CasemateError

NOW = datetime(2026, 6, 1, tzinfo=UTC)
AMD = SimulatedAmd(Product.TURIN, not_before=NOW - timedelta(1), not_after=NOW + timedelta(1))
VCEK, VLEK = AMD.vek(), AMD.vek(VekKind.VLEK)
REPORT = AMD.report(VCEK, version=5)
CRL = AMD.crl(this_update=NOW, next_update=NOW + timedelta(1), revoked=[1, 2], revoked_by={"ASK": [3]})
VERIFIER = SnpVerifier({"Turin": AMD.chain_pem()}, simulated_ark_pins={"Turin": AMD.ark_pin})
BODY = dict(AMD.evidence(VCEK, bytes(64)).body)
SLOWLY = settings(max_examples=300, deadline=2000, suppress_health_check=[HealthCheck.too_slow])

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=12), inner, max_size=5),
    max_leaves=20,
)


@st.composite
def mutated(draw: st.DrawFn, original: bytes) -> bytes:
    """The original with bytes overwritten, cut, inserted or doubled."""
    data = bytearray(original)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        size = draw(st.integers(0, 12))
        new = draw(st.binary(min_size=size, max_size=size))
        match draw(st.sampled_from(["overwrite", "cut", "insert", "double"])):
            case "overwrite":
                data[at : at + size] = new
            case "cut":
                del data[at : at + size]
            case "insert":
                data[at:at] = new
            case _:
                data[at:at] = data[at : at + size]
    return bytes(data)


def only_ours(parse: Any, *arguments: Any) -> Any:
    try:
        return parse(*arguments)
    except CasemateError:
        return None


@SLOWLY
@given(st.binary(max_size=1500) | mutated(REPORT) | st.binary(min_size=REPORT_SIZE, max_size=REPORT_SIZE))
def test_report(data: bytes) -> None:
    report = only_ours(parse_report, data)
    if report is not None:
        only_ours(lambda: report.product)


@SLOWLY
@given(mutated(REPORT))
def test_no_changed_report_is_accepted(data: bytes) -> None:
    if data != REPORT:
        assert not isinstance(only_ours(lambda: VERIFIER.verify_report(data, VCEK.der, now=NOW)), Claims)


@SLOWLY
@given(mutated(VCEK.der))
def test_no_changed_certificate_is_accepted(data: bytes) -> None:
    if data != VCEK.der:
        assert not isinstance(only_ours(lambda: VERIFIER.verify_report(REPORT, data, now=NOW)), Claims)


@SLOWLY
@given(st.binary(max_size=400) | mutated(VCEK.der) | mutated(VLEK.der) | mutated(AMD.certificates["ASK"]))
def test_certificate(data: bytes) -> None:
    for parse in (read_certificate, parse_certificate, parse_vek, children):
        only_ours(parse, data)
    only_ours(parse_vcek_reply, 200, data)


@SLOWLY
@given(st.binary(max_size=400) | mutated(AMD.chain_pem()) | mutated(AMD.certificates["ASK"] * 2))
def test_bundle(data: bytes) -> None:
    only_ours(split_certificates, data)
    only_ours(parse_chain_reply, 200, data)
    verifier = SnpVerifier({"Turin": data}, simulated_ark_pins={"Turin": AMD.ark_pin})
    only_ours(lambda: verifier.verify_report(REPORT, VCEK.der, now=NOW))


@SLOWLY
@given(st.binary(max_size=400) | mutated(CRL))
def test_revocation_list(data: bytes) -> None:
    only_ours(parse_crl, data)
    only_ours(parse_crl_reply, 200, data)
    verifier = SnpVerifier(
        {"Turin": AMD.chain_pem()}, crls={"Turin": [data]}, simulated_ark_pins={"Turin": AMD.ark_pin}
    )
    only_ours(lambda: verifier.verify_report(REPORT, VCEK.der, now=NOW))


@SLOWLY
@given(
    st.dictionaries(st.sampled_from(["report", "attestation_report", "cert_chain", "x"]), JSON)
    | st.fixed_dictionaries({"report": JSON, "cert_chain": JSON})
    | st.fixed_dictionaries({**{key: st.just(value) for key, value in BODY.items()}, "cert_chain": JSON})
)
def test_body(body: dict[str, Any]) -> None:
    only_ours(parse_body, body)
    only_ours(lambda: VERIFIER.verify(Evidence("snp", body), now=NOW))


FIELDS = [
    "version",
    "guest_svn",
    "policy",
    "family_id",
    "image_id",
    "vmpl",
    "sig_algo",
    "current_tcb",
    "plat_info",
    "key_info",
    "_author_key_en",
    "report_data",
    "measurement",
    "host_data",
    "id_key_digest",
    "author_key_digest",
    "report_id",
    "report_id_ma",
    "reported_tcb",
    "cpuid_fam_id",
    "chip_id",
    "committed_tcb",
    "current",
    "committed",
    "launch_tcb",
    "launch_mit_vector",
    "signature",
    "_reserved_1",
    "other",
]


@SLOWLY
@given(st.dictionaries(st.sampled_from(FIELDS), JSON | st.lists(st.integers(0, 255), min_size=16, max_size=16)))
def test_structure(fields: dict[str, Any]) -> None:
    complete = {name: [0] * 64 for name in FIELDS} | fields
    only_ours(parse_body, {"attestation_report": fields})
    only_ours(parse_body, {"attestation_report": complete})


def test_the_unchanged_evidence_is_accepted() -> None:
    """Otherwise nothing above would mean anything."""
    assert VERIFIER.verify_report(REPORT, VCEK.der, now=NOW).simulated
    parse_crl(CRL)


@pytest.mark.parametrize("parse", [parse_report, read_certificate, parse_vek, parse_crl, split_certificates])
def test_sixteen_megabytes_are_refused_at_once(parse: Any) -> None:
    start = datetime.now(UTC)
    for filler in (b"\0", b"\x30", b"-----BEGIN CERTIFICATE-----"):
        only_ours(parse, (filler * (1 << 24))[: 1 << 24])
    assert datetime.now(UTC) - start < timedelta(seconds=10)
