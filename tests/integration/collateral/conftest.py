"""A simulated maker, a service that serves its collateral, and the command as a user runs it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import pytest
from tests.support.cli import Cli
from tests.support.pccs_double import PccsDouble, Reply, pccs_routes, running

from casemate.attestation.platforms.simulator.pki import CollateralEdits, PlatformIdentity, SimulatedPki
from casemate.attestation.platforms.simulator.quote import QuotingEnclave, TdReport
from casemate.attestation.platforms.snp.simulator import SimulatedAmd
from casemate.attestation.platforms.snp.tcb import Product

NOW = datetime.now(UTC).replace(microsecond=0)


class Serve(Protocol):
    def __call__(self, edits: CollateralEdits | None = None, **replies: Any) -> AbstractContextManager[PccsDouble]: ...


@pytest.fixture(scope="session")
def now() -> datetime:
    return NOW


@pytest.fixture(scope="session")
def pki() -> SimulatedPki:
    return SimulatedPki.create(NOW, PlatformIdentity(ppid=bytes(range(16)), piid=bytes(range(16, 32))))


@pytest.fixture(scope="session")
def amd() -> SimulatedAmd:
    return SimulatedAmd(Product.MILAN, not_before=NOW - timedelta(days=400), not_after=NOW + timedelta(days=4000))


@pytest.fixture
def serve(pki: SimulatedPki, tmp_path: Path) -> Serve:
    """A PCCS with the maker's collateral; ``tcb``, ``identity``, ``pckcrl``, ``rootcacrl`` replace its replies."""
    paths = {
        "tcb": "/tdx/certification/v4/tcb",
        "identity": "/tdx/certification/v4/qe/identity",
        "pckcrl": "/sgx/certification/v4/pckcrl",
        "rootcacrl": "/sgx/certification/v4/rootcacrl",
    }

    @contextmanager
    def make(edits: CollateralEdits | None = None, **replies: Reply | list[Reply]) -> Iterator[PccsDouble]:
        routes = pccs_routes(pki.collateral("tdx", NOW, edits), "tdx")
        routes |= {paths[name]: reply for name, reply in replies.items()}
        with running(routes, tmp_path / "service") as double:
            yield double

    return make


@pytest.fixture
def cli(tmp_path: Path, pki: SimulatedPki) -> Cli:
    """The command beside a quote of the maker's platform (``quote.bin``) and the maker's root (``root.der``)."""
    (tmp_path / "root.der").write_bytes(pki.root.der)
    (tmp_path / "quote.bin").write_bytes(QuotingEnclave.create(pki).tdx_quote(TdReport(mrtd=bytes([7] * 48))))
    return Cli(tmp_path / "home", tmp_path)
