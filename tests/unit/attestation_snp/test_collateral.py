"""A heap of files becomes chains, endorsement keys and revocation lists, whatever their order and encoding."""

from __future__ import annotations

import base64
from datetime import datetime, timedelta
from typing import Any

import pytest

from casemate.attestation.platforms.snp.collateral import sort_collateral
from casemate.attestation.platforms.snp.endorsement import VekKind
from casemate.attestation.platforms.snp.errors import SnpCertificateMalformedError, SnpProductUnknownError
from casemate.attestation.platforms.snp.simulator import SimulatedAmd
from casemate.attestation.platforms.snp.verifier import SnpVerifier


def test_mixed_files_build_a_verifier(amd: SimulatedAmd, turin: SimulatedAmd, now: datetime) -> None:
    vcek, vlek, other = amd.vek(), amd.vek(VekKind.VLEK), turin.vek()
    crl = amd.crl(this_update=now, next_update=now + timedelta(days=1))
    pem_crl = b"-----BEGIN X509 CRL-----\n" + base64.encodebytes(crl) + b"-----END X509 CRL-----\n"
    heap = [vcek.der, crl, amd.chain_pem(), vlek.der, turin.certificates["ARK"], other.der]
    heap += [turin.chain_pem(("ASK", "ARK")), pem_crl, vcek.der]
    found = sort_collateral(heap)
    assert set(found.chains) == {"Milan", "Turin"}
    assert found.crls == {"Milan": [crl, pem_crl]}
    assert found.veks == [vcek.der, vlek.der, other.der]
    pins = {"Milan": amd.ark_pin, "Turin": turin.ark_pin}
    verifier = SnpVerifier(found.chains, crls=found.crls, veks=found.veks, simulated_ark_pins=pins)
    for authority, vek in ((amd, vcek), (amd, vlek), (turin, other)):
        claims = verifier.verify_report(authority.report(vek), now=now)
        assert claims.extra["signing_key"] == vek.kind


def test_real_files_are_sorted(real: Any) -> None:
    found = sort_collateral([real.read("coco_milan_v2.vcek.der"), real.chain("Turin"), real.chain("Milan")])
    assert (set(found.chains), found.crls, len(found.veks)) == ({"Milan", "Turin"}, {}, 1)


@pytest.mark.parametrize("blob", [b"\0", b"{}", b"-----BEGIN RSA PRIVATE KEY-----\n", b"\x30\x00", b"<html>"])
def test_what_is_neither_certificate_nor_list_is_refused(blob: bytes) -> None:
    with pytest.raises(SnpCertificateMalformedError):
        sort_collateral([blob])


def test_certificates_of_other_makers_are_refused(amd: SimulatedAmd) -> None:
    with pytest.raises(SnpProductUnknownError):
        sort_collateral([amd.issuer("ASK", subject="Intel SGX Root CA")])
