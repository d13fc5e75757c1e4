"""A certificate chain that no library reads is refused with an error of ours: unknown curves, unknown versions."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import datetime

import pytest

from casemate.attestation.platforms.intel.collateral import Collateral, SingleCollateral
from casemate.attestation.platforms.intel.quote import pem_certificates
from casemate.attestation.platforms.intel.verifier import TrustAnchor
from casemate.attestation.platforms.simulator.pki import SimulatedPki
from casemate.attestation.platforms.simulator.quote import QuotingEnclave, TdReport
from casemate.attestation.platforms.tdx.verifier import TdxVerifier
from casemate.errors import RefusedError

P256 = bytes.fromhex("06082a8648ce3d030107")
UNKNOWN = bytes.fromhex("06082a8648ce3d030147")  # 1.2.840.10045.3.1.71


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_key_of_an_unknown_curve_is_refused(
    pki: SimulatedPki,
    enclave: QuotingEnclave,
    make_collateral: Callable[..., Collateral],
    now: datetime,
    place: int,
) -> None:
    quote = enclave.tdx_quote(TdReport())
    good = pem_certificates(pki.pck_chain.encode())[place]
    bad = good.replace(P256, UNKNOWN)
    assert bad != good
    text, spoiled = (_body(der) for der in (good, bad))
    assert quote.count(text) == 1
    verifier = TdxVerifier([TrustAnchor("test", pki.root.der, SingleCollateral(make_collateral()), simulated=True)])
    with pytest.raises(RefusedError):
        verifier.verify_quote(quote.replace(text, spoiled), now=now)


def _body(der: bytes) -> bytes:
    encoded = base64.b64encode(der)
    return b"\n".join(encoded[at : at + 64] for at in range(0, len(encoded), 64))


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_certificate_of_an_unknown_version_is_refused(
    pki: SimulatedPki,
    enclave: QuotingEnclave,
    make_collateral: Callable[..., Collateral],
    now: datetime,
    place: int,
) -> None:
    quote = enclave.tdx_quote(TdReport())
    good = pem_certificates(pki.pck_chain.encode())[place]
    bad = good.replace(bytes.fromhex("a003020102"), bytes.fromhex("a003020142"), 1)
    assert bad != good
    verifier = TdxVerifier([TrustAnchor("test", pki.root.der, SingleCollateral(make_collateral()), simulated=True)])
    with pytest.raises(RefusedError):
        verifier.verify_quote(quote.replace(_body(good), _body(bad)), now=now)
