"""Certificates with serial number 0 are read whatever `cryptography` thinks of them."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.utils import CryptographyDeprecationWarning

from casemate.attestation.platforms.snp import simulator_der as writer
from casemate.attestation.platforms.snp.certificates import parse_certificate, split_certificates
from casemate.attestation.platforms.snp.der import children, read_certificate, read_element
from casemate.attestation.platforms.snp.endorsement import parse_vek
from casemate.attestation.platforms.snp.errors import SnpCertificateMalformedError
from casemate.attestation.platforms.snp.simulator import SimulatedAmd
from casemate.attestation.platforms.snp.verifier import SnpVerifier

REAL_VEKS = (
    "coco_milan_v2.vcek",
    "coco_milan_v2.vcek_bad_legacy",
    "coco_milan_v2.vcek_bad_new",
    "coco_milan_v3_vlek.vlek",
    "google_milan_v2_debug.vcek",
    "virtee_turin.vcek",
)


def test_real_evidence_is_accepted_when_cryptography_refuses_serial_number_0(
    real: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The day it has announced, played: its loader raises, as it will, and nothing changes."""
    load = x509.load_der_x509_certificate

    def refuse_serial_0(der: bytes) -> x509.Certificate:
        if read_certificate(der).serial == 0:
            raise ValueError("serial number must be positive")
        return load(der)

    monkeypatch.setattr(x509, "load_der_x509_certificate", refuse_serial_0)
    verifier = real.verifier()
    for name, kind in (("coco_milan_v2", "vcek"), ("google_milan_v2_debug", "vcek"), ("coco_milan_v3_vlek", "vlek")):
        report, vek = real.read(f"{name}.report"), real.read(f"{name}.{kind}.der")
        assert verifier.verify_report(report, vek, now=datetime(2025, 6, 1, tzinfo=UTC)).platform == "snp"
    assert parse_vek(real.read("virtee_turin.vcek.der")).product == "Turin"


def test_no_warning_is_raised_on_the_way(real: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        verifier = real.verifier()
        report, vek = real.read("coco_milan_v2.report"), real.read("coco_milan_v2.vcek.der")
        verifier.verify_report(report, vek, now=datetime(2025, 6, 1, tzinfo=UTC))


@pytest.mark.parametrize("name", REAL_VEKS)
def test_cryptography_reads_the_same_in_real_certificates(real: Any, name: str) -> None:
    """When this fails because `cryptography` refuses to load: it has done what it announced about serial number 0.
    The verifier does not depend on it (see the first test here); drop the comparison below, keep our reader."""
    der = real.read(f"{name}.der")
    mine = read_certificate(der)
    assert mine.serial == 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        other = x509.load_der_x509_certificate(der)
        assert other.serial_number == 0
    assert mine.tbs == other.tbs_certificate_bytes
    assert mine.signature == other.signature
    assert mine.issuer == other.issuer.public_bytes()
    assert mine.subject == other.subject.public_bytes()
    assert (mine.not_before, mine.not_after) == (other.not_valid_before_utc, other.not_valid_after_utc)
    values = {item.oid.dotted_string: (item.critical, item.value.public_bytes()) for item in other.extensions}
    assert {oid: (item.critical, item.value) for oid, item in mine.extensions.items()} == values


@pytest.mark.parametrize("product", ["Milan", "Genoa", "Turin"])
def test_cryptography_reads_the_same_in_amds_roots(real: Any, product: str) -> None:
    bundle = real.chain(product)
    ders = split_certificates(bundle)
    assert [x509.load_der_x509_certificate(der) for der in ders] == x509.load_pem_x509_certificates(bundle)
    assert split_certificates(b"".join(ders)) == ders
    for der in ders:
        assert parse_certificate(der).serial > 0


def test_two_readers_must_agree_about_every_other_serial_number(
    amd: SimulatedAmd, monkeypatch: pytest.MonkeyPatch
) -> None:
    der = amd.certificates["ASK"]
    assert parse_certificate(der).subject_cn == "SEV-Milan"
    monkeypatch.setattr(x509, "load_der_x509_certificate", lambda _: _raise(ValueError("no")))
    with pytest.raises(SnpCertificateMalformedError):
        parse_certificate(der)
    other = x509.load_pem_x509_certificate(amd.chain_pem(("ASVK",)))
    monkeypatch.setattr(x509, "load_der_x509_certificate", lambda _: other)
    with pytest.raises(SnpCertificateMalformedError, match="disagree"):
        parse_certificate(der)


def test_the_verifier_of_simulated_evidence_knows_serial_number_0_too(
    amd: SimulatedAmd, verifier: SnpVerifier, now: datetime
) -> None:
    vek = amd.vek()
    assert read_certificate(vek.der).serial == 0
    verifier.verify_report(amd.report(vek), vek.der, now=now)


MALFORMED = {
    "nothing": b"",
    "tag_alone": b"\x30",
    "tag_of_two_bytes": b"\x3f\x21\x00",
    "indefinite_length": b"\x30\x80\x00\x00",
    "length_of_three_bytes": b"\x30\x83\x00\x00\x00",
    "length_of_127_bytes": b"\x30\xff" + b"\xff" * 127,
    "short_length_in_long_form": b"\x30\x81\x7f" + bytes(0x7F),
    "length_with_a_leading_zero": b"\x30\x82\x00\x80" + bytes(0x80),
    "value_cut_short": b"\x30\x02\x00",
    "length_cut_short": b"\x30\x82\x01",
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_elements_that_are_not_strict_der_are_refused(data: bytes) -> None:
    with pytest.raises(SnpCertificateMalformedError):
        read_element(data)


def test_the_writer_and_the_reader_agree() -> None:
    for size in (0, 1, 127, 128, 255, 256, 65535):
        element, end = read_element(writer.octets(bytes(size)))
        assert (element.value, end) == (bytes(size), len(element.raw))
    assert [item.value for item in children(writer.integer(0) + writer.integer(128) + writer.integer(255))] == [
        b"\x00",
        b"\x00\x80",
        b"\x00\xff",
    ]


def test_a_huge_certificate_is_refused_before_it_is_read() -> None:
    with pytest.raises(SnpCertificateMalformedError, match="at most"):
        read_certificate(bytes(1 << 20))


@pytest.mark.parametrize(
    ("text", "tag", "expected"),
    [
        ("491231235959Z", 0x17, datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ("500101000000Z", 0x17, datetime(1950, 1, 1, tzinfo=UTC)),
        ("20500101000000Z", 0x18, datetime(2050, 1, 1, tzinfo=UTC)),
        ("4912312359Z", 0x17, None),
        ("491231235959+", 0x17, None),
        ("49123123595Z9", 0x17, None),
        ("490229000000Z", 0x17, None),
        ("20500101000000.5Z", 0x18, None),
        ("491231235959Z", 0x04, None),
    ],
)
def test_times_are_those_of_rfc_5280(amd: SimulatedAmd, text: str, tag: int, expected: datetime | None) -> None:
    der = amd.vek().der
    outer = children(read_element(der)[0].value)
    fields = children(outer[0].value)
    bent = writer.sequence(writer.text(text, tag), writer.text("20600101000000Z", 0x18))
    tbs = writer.sequence(*(bent if index == 4 else item.raw for index, item in enumerate(fields)))
    certificate = writer.sequence(tbs, outer[1].raw, outer[2].raw)
    if expected is None:
        with pytest.raises(SnpCertificateMalformedError):
            read_certificate(certificate)
    else:
        assert read_certificate(certificate).not_before == expected


def _raise(exc: Exception) -> Any:
    raise exc
