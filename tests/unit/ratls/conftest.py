"""Identities of SIMULATED TEEs, made in this process, and the rules to judge them by."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from casemate.attestation.evidence import Evidence
from casemate.attestation.platforms.intel.collateral import parse_collateral
from casemate.attestation.platforms.simulator.pki import PlatformIdentity, SimulatedPki
from casemate.attestation.platforms.simulator.quote import EnclaveReport, QuotingEnclave, TdReport
from casemate.attestation.platforms.snp.simulator import SimulatedAmd
from casemate.attestation.platforms.snp.tcb import Product
from casemate.attestation.platforms.snp.verifier import SnpVerifier
from casemate.attestation.policy import AppraisalPolicy
from casemate.attestation.ratls.identity import Identity, create_identity
from casemate.attestation.ratls.peer import PeerRules
from casemate.attestation.trust import TrustStore

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)


@dataclass
class MadeAttester:
    """An ``Attester`` of one kind whose evidence a test may bend; ``asked`` is every report data it was given."""

    tee: str
    make: Callable[[bytes], Evidence]
    asked: list[bytes] = field(default_factory=list)

    def collect(self, report_data: bytes) -> Evidence:
        self.asked.append(report_data)
        return self.make(report_data)


class World:
    """One maker of each kind, one trust store for all of them."""

    def __init__(self) -> None:
        self.pki = SimulatedPki.create(NOW, PlatformIdentity(ppid=bytes(range(16)), piid=bytes(range(16, 32))))
        self.enclave = QuotingEnclave.create(self.pki)
        self.amd = SimulatedAmd(Product.MILAN, not_before=NOW - DAY, not_after=NOW + 900 * DAY)
        self.vek = self.amd.vek()
        snp = SnpVerifier({"Milan": self.amd.chain_pem()}, simulated_ark_pins={"Milan": self.amd.ark_pin})
        documents = [parse_collateral(json.dumps(self.pki.collateral(tee, NOW))) for tee in ("tdx", "sgx")]
        self.trust = TrustStore(simulator_root=self.pki.root.der, collateral=documents, verifiers={"snp": snp})

    def attester(self, tee: str = "tdx", **fields: Any) -> MadeAttester:
        def tdx(report_data: bytes) -> Evidence:
            report = TdReport(report_data=report_data, **({"mrtd": bytes([1] * 48)} | fields))
            return _quote("tdx", self.enclave.tdx_quote(report))

        def sgx(report_data: bytes) -> Evidence:
            return _quote("sgx", self.enclave.sgx_quote(EnclaveReport(report_data=report_data, **fields)))

        def snp(report_data: bytes) -> Evidence:
            return self.amd.evidence(self.vek, report_data, **fields)

        return MadeAttester(tee, {"tdx": tdx, "sgx": sgx, "snp": snp}[tee])

    def identity(self, tee: str = "tdx", *, nonce: bytes | None = None, **fields: Any) -> Identity:
        return create_identity(self.attester(tee, **fields), nonce=nonce, now=NOW)

    def rules(self, *, nonce: bytes | None = None, **clauses: Any) -> PeerRules:
        document = {"version": 1, "name": "peers", "allow_simulated": True, "platforms": ["tdx", "sgx", "snp"]}
        policy = AppraisalPolicy.from_document(document | clauses)
        return PeerRules(self.trust, policy, nonce)


def _quote(tee: str, raw: bytes) -> Evidence:
    return Evidence(tee, {"quote": base64.b64encode(raw).decode()})


@pytest.fixture(scope="session")
def world() -> World:
    return World()


@pytest.fixture(scope="session")
def now() -> datetime:
    return NOW


def with_certificate(identity: Identity, certificate: bytes) -> Identity:
    """The same key with another certificate."""
    return replace(identity, certificate=certificate)
