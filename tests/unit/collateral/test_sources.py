"""What is asked of a service, and how its replies are read."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.pccs_double import pccs_routes

from casemate.attestation.collateral.errors import (
    CollateralReplyMalformedError,
    CollateralTargetError,
    CollateralUrlError,
)
from casemate.attestation.collateral.sources import (
    Fetched,
    IntelTarget,
    SnpTarget,
    amd_wanted,
    base_url,
    intel_collateral,
    intel_target,
    intel_wanted,
)
from casemate.attestation.platforms.simulator.pki import SimulatedPki
from casemate.attestation.platforms.simulator.quote import EnclaveReport, QuotingEnclave, TdReport
from casemate.attestation.platforms.snp.report import parse_report
from casemate.attestation.platforms.snp.simulator import SimulatedAmd
from casemate.attestation.platforms.snp.tcb import Product

TARGET = IntelTarget("tdx", "53494d000000", "platform")
PATHS = {
    "tcb info": "/tdx/certification/v4/tcb",
    "QE identity": "/tdx/certification/v4/qe/identity",
    "PCK CRL": "/sgx/certification/v4/pckcrl",
    "root CA CRL": "/sgx/certification/v4/rootcacrl",
}


def _replies(document: dict[str, Any], **forms: str) -> dict[str, Fetched]:
    routes: Any = pccs_routes(document, "tdx", **forms)
    return {
        piece: Fetched(200, {n.lower(): v for n, v in routes[path].headers.items()}, routes[path].body)
        for piece, path in PATHS.items()
    }


@pytest.mark.parametrize(
    ("given", "base"),
    [
        ("https://pccs.example:8081", "https://pccs.example:8081"),
        ("https://pccs.example:8081/", "https://pccs.example:8081"),
        ("https://pccs.example/sgx/certification/v4/", "https://pccs.example"),
        ("https://pccs.example/behind/tdx/certification/v4", "https://pccs.example/behind"),
    ],
)
def test_a_base_url_may_carry_the_apis_path(given: str, base: str) -> None:
    assert base_url(given) == base


@pytest.mark.parametrize(
    "url",
    ["http://pccs.example", "pccs.example", "https://", "https://u:p@host", "https://h:99999", "https://h/?a", ""],
)
def test_only_plain_https_urls_are_taken(url: str) -> None:
    with pytest.raises(CollateralUrlError):
        base_url(url)


def test_intel_is_asked_for_four_pieces() -> None:
    urls = [one.url for one in intel_wanted(TARGET, "https://p")]
    assert urls == [
        "https://p/tdx/certification/v4/tcb?fmspc=53494D000000",
        "https://p/tdx/certification/v4/qe/identity",
        "https://p/sgx/certification/v4/pckcrl?ca=platform&encoding=der",
        "https://p/sgx/certification/v4/rootcacrl",
    ]
    assert "update=early" in intel_wanted(TARGET, "https://p", early=True)[0].url
    assert intel_wanted(TARGET)[3].url == "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"


@pytest.mark.parametrize("fmspc", ["", "00", "zz" * 6, "00" * 7, "00 00 00 00"])
def test_an_fmspc_is_six_bytes(fmspc: str) -> None:
    with pytest.raises(CollateralTargetError):
        IntelTarget("tdx", fmspc, "platform")


def test_a_quote_names_its_family(pki: SimulatedPki) -> None:
    enclave = QuotingEnclave.create(pki)
    assert intel_target(enclave.tdx_quote(TdReport())) == TARGET
    assert intel_target(enclave.sgx_quote(EnclaveReport())) == IntelTarget("sgx", "53494d000000", "platform")


@pytest.mark.parametrize("form", ["der", "hex"])
def test_the_replies_make_the_set(form: str, document: Callable[..., dict[str, Any]]) -> None:
    whole = document()
    assert intel_collateral(TARGET, _replies(whole, crl_form=form)).document == whole


def test_lists_come_as_pem_and_base64_too(document: Callable[..., dict[str, Any]]) -> None:
    whole = document()
    der = bytes.fromhex(whole["pck_crl"])
    pem = b"-----BEGIN X509 CRL-----\n" + base64.encodebytes(der) + b"-----END X509 CRL-----\n"
    for form in (pem, base64.b64encode(der)):
        replies = _replies(whole)
        replies["PCK CRL"] = Fetched(200, replies["PCK CRL"].headers, form)
        assert intel_collateral(TARGET, replies).document == whole


@pytest.mark.parametrize("piece", list(PATHS))
@pytest.mark.parametrize(
    "content", [b"", b"<html>sign in</html>", b"{}", b'{"tcbInfo":{}}', b"\xff" * 100, b"[" * 9999]
)
def test_garbage_is_refused(piece: str, content: bytes, document: Callable[..., dict[str, Any]]) -> None:
    replies = _replies(document())
    replies[piece] = Fetched(200, replies[piece].headers, content)
    with pytest.raises(CollateralReplyMalformedError):
        intel_collateral(TARGET, replies)


@pytest.mark.parametrize("piece", list(PATHS)[:3])
@pytest.mark.parametrize("header", [None, "", "%00", "-----BEGIN%20CERTIFICATE-----"])
def test_a_missing_or_empty_issuer_chain_is_refused(
    piece: str, header: str | None, document: Callable[..., dict[str, Any]]
) -> None:
    replies = _replies(document())
    headers = {} if header is None else dict.fromkeys(replies[piece].headers, header)
    replies[piece] = Fetched(200, headers, replies[piece].content)
    with pytest.raises(CollateralReplyMalformedError):
        intel_collateral(TARGET, replies)


@pytest.mark.parametrize(
    "target",
    [
        IntelTarget("sgx", "53494d000000", "platform"),
        IntelTarget("tdx", "53494d000001", "platform"),
        IntelTarget("tdx", "53494d000000", "processor"),
    ],
)
def test_another_family_than_asked_for_is_refused(target: IntelTarget, document: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(CollateralReplyMalformedError, match="asked for"):
        intel_collateral(target, _replies(document()))


def test_amd_is_asked_by_product_and_report(amd: SimulatedAmd) -> None:
    assert [one.piece for one in amd_wanted(SnpTarget(Product.MILAN), "https://k")] == ["chain", "revocation list"]
    report = parse_report(amd.report(amd.vek()))
    wanted = amd_wanted(SnpTarget(Product.MILAN, report), "https://k")
    assert [one.piece for one in wanted] == ["chain", "revocation list", "VCEK"]
    assert wanted[2].url.startswith("https://k/vcek/v1/Milan/")
