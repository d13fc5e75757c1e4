"""AMD's key distribution service: the right URLs, and replies that are what they should be."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from casemate.attestation.platforms.snp.endorsement import VekKind
from casemate.attestation.platforms.snp.errors import (
    SnpChipIdMaskedError,
    SnpKdsReplyMalformedError,
    SnpKdsUnavailableError,
    SnpKdsUnknownChipError,
    SnpProductUnknownError,
    SnpSigningKeyError,
)
from casemate.attestation.platforms.snp.kds import (
    chain_url,
    crl_url,
    parse_chain_reply,
    parse_crl_reply,
    parse_vcek_reply,
    vcek_url,
)
from casemate.attestation.platforms.snp.report import parse_report
from casemate.attestation.platforms.snp.simulator import SimulatedAmd
from casemate.attestation.platforms.snp.tcb import Product
from casemate.errors import UndecidedError


def test_a_milan_report_leads_to_its_vcek(amd: SimulatedAmd) -> None:
    vek = amd.vek(hwid=bytes(range(64)), tcb={"bootloader": 4, "tee": 0, "snp": 24, "microcode": 219})
    assert vcek_url(parse_report(amd.report(vek))) == (
        f"https://kdsintf.amd.com/vcek/v1/Milan/{bytes(range(64)).hex()}?blSPL=04&teeSPL=00&snpSPL=24&ucodeSPL=219"
    )


def test_a_turin_report_names_the_fmc_and_eight_bytes_of_the_chip(turin: SimulatedAmd) -> None:
    vek = turin.vek(hwid=b"\1\2\3\4\5\6\7\10", tcb={"fmc": 1, "bootloader": 2, "tee": 3, "snp": 4, "microcode": 9})
    assert vcek_url(parse_report(turin.report(vek)), base="http://cache.example") == (
        "http://cache.example/vcek/v1/Turin/0102030405060708?fmcSPL=01&blSPL=02&teeSPL=03&snpSPL=04&ucodeSPL=09"
    )


def test_a_version_2_report_needs_its_product_named(amd: SimulatedAmd) -> None:
    report = parse_report(amd.report(amd.vek(), version=2))
    with pytest.raises(SnpProductUnknownError):
        vcek_url(report)
    assert "/vcek/v1/Genoa/" in vcek_url(report, Product.GENOA)


def test_the_report_is_believed_before_the_caller(amd: SimulatedAmd) -> None:
    assert "/vcek/v1/Milan/" in vcek_url(parse_report(amd.report(amd.vek())), Product.GENOA)


def test_there_is_no_vcek_for_a_vlek_report_or_a_masked_chip(amd: SimulatedAmd) -> None:
    with pytest.raises(SnpSigningKeyError):
        vcek_url(parse_report(amd.report(amd.vek(VekKind.VLEK))))
    with pytest.raises(SnpChipIdMaskedError):
        vcek_url(parse_report(amd.report(amd.vek(), chip_id=bytes(64))))


def test_chains_and_lists_have_a_branch_each() -> None:
    assert chain_url(Product.MILAN) == "https://kdsintf.amd.com/vcek/v1/Milan/cert_chain"
    assert chain_url(Product.TURIN, VekKind.VLEK) == "https://kdsintf.amd.com/vlek/v1/Turin/cert_chain"
    assert crl_url(Product.GENOA, VekKind.VLEK) == "https://kdsintf.amd.com/vlek/v1/Genoa/crl"


def test_good_replies_are_passed_on_unchanged(amd: SimulatedAmd, now: datetime) -> None:
    vek = amd.vek().der
    chain = amd.chain_pem(("ASK", "ARK"))
    crl = amd.crl(this_update=now, next_update=now + timedelta(days=30))
    assert parse_vcek_reply(200, vek) == vek
    assert parse_chain_reply(200, chain) == chain
    assert parse_crl_reply(200, crl) == crl


@pytest.mark.parametrize("parse", [parse_vcek_reply, parse_chain_reply, parse_crl_reply])
def test_each_way_to_fail_has_its_own_error(parse: Any) -> None:
    with pytest.raises(SnpKdsUnknownChipError):
        parse(404, b"")
    for status in (429, 500, 503, 302):
        with pytest.raises(SnpKdsUnavailableError) as caught:
            parse(status, b"")
        assert isinstance(caught.value, UndecidedError)
    for content in (b"", b"<html>busy</html>", b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----"):
        with pytest.raises(SnpKdsReplyMalformedError):
            parse(200, content)


def test_a_chain_reply_has_two_certificates(amd: SimulatedAmd) -> None:
    for roles in (("ASK",), ("ASK", "ARK", "ASVK")):
        with pytest.raises(SnpKdsReplyMalformedError):
            parse_chain_reply(200, amd.chain_pem(roles))


def test_the_url_of_a_real_report(real: Any) -> None:
    report = parse_report(real.read("coco_milan_v2.report"))
    url = vcek_url(report, Product.MILAN)
    assert url.endswith("?blSPL=03&teeSPL=00&snpSPL=08&ucodeSPL=115")
    assert "/Milan/c38427a30d4c7af9" in url
