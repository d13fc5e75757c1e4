"""Simulated AMD authorities (made once, they are slow), and the real evidence where it is at hand."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from casemate.attestation.platforms.snp.simulator import SimulatedAmd
from casemate.attestation.platforms.snp.tcb import Product
from casemate.attestation.platforms.snp.verifier import SnpVerifier

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def _vectors() -> Path:
    """Real evidence lies beside the repository, not in it: `CASEMATE_VECTORS`, or `shared/vectors` next to it."""
    beside = Path(__file__).resolve().parents[4] / "shared" / "vectors"
    return Path(os.environ.get("CASEMATE_VECTORS", beside)) / "snp"


@dataclass(frozen=True)
class RealEvidence:
    folder: Path

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def chain(self, product: str) -> bytes:
        return self.read(f"{product.lower()}_ask_ark_asvk.pem")

    def verifier(self) -> SnpVerifier:
        return SnpVerifier({product: self.chain(product) for product in ("Milan", "Genoa", "Turin")})


@pytest.fixture(scope="session")
def real() -> RealEvidence:
    folder = _vectors()
    if not folder.is_dir():
        pytest.skip(f"no real evidence at {folder}; set CASEMATE_VECTORS")
    return RealEvidence(folder)


@pytest.fixture(scope="session")
def amd() -> SimulatedAmd:
    return _authority(Product.MILAN)


@pytest.fixture(scope="session")
def turin() -> SimulatedAmd:
    return _authority(Product.TURIN)


@pytest.fixture(scope="session")
def other_amd() -> SimulatedAmd:
    """Another authority for the same product, under the same names."""
    return _authority(Product.MILAN)


def _authority(product: Product) -> SimulatedAmd:
    return SimulatedAmd(product, not_before=NOW.replace(year=2024), not_after=NOW.replace(year=2044))


@pytest.fixture
def verifier(amd: SimulatedAmd) -> SnpVerifier:
    return trusting(amd)


def trusting(amd: SimulatedAmd, **settings: object) -> SnpVerifier:
    """A verifier that knows nothing but this authority; `settings` as the verifier's."""
    chains = settings.pop("chains", {amd.product: amd.chain_pem()})
    return SnpVerifier(chains, simulated_ark_pins={amd.product: amd.ark_pin}, **settings)  # type: ignore[arg-type]


@pytest.fixture
def trust() -> Callable[..., SnpVerifier]:
    return trusting


@pytest.fixture(scope="session")
def now() -> datetime:
    return NOW
