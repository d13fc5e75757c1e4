"""A simulated maker of each kind, and what it says of its platforms."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from casemate.attestation.platforms.intel.collateral import Collateral, parse_collateral
from casemate.attestation.platforms.simulator.pki import CollateralEdits, PlatformIdentity, SimulatedPki
from casemate.attestation.platforms.snp.simulator import SimulatedAmd
from casemate.attestation.platforms.snp.tcb import Product

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="session")
def now() -> datetime:
    return NOW


@pytest.fixture(scope="session")
def pki() -> SimulatedPki:
    return SimulatedPki.create(NOW, PlatformIdentity(ppid=bytes(range(16)), piid=bytes(range(16, 32))))


@pytest.fixture(scope="session")
def document(pki: SimulatedPki) -> Callable[..., dict[str, Any]]:
    """One collateral document of the maker; keyword arguments replace its members."""

    def make(tee: str = "tdx", edits: CollateralEdits | None = None, **members: str) -> dict[str, Any]:
        return pki.collateral(tee, NOW, edits) | members

    return make


@pytest.fixture(scope="session")
def parsed(document: Callable[..., dict[str, Any]]) -> Callable[..., Collateral]:
    def make(tee: str = "tdx", edits: CollateralEdits | None = None, **members: str) -> Collateral:
        return parse_collateral(json.dumps(document(tee, edits, **members)))

    return make


@pytest.fixture(scope="session")
def amd() -> SimulatedAmd:
    return SimulatedAmd(Product.MILAN, not_before=NOW - timedelta(days=400), not_after=NOW + timedelta(days=4000))


@pytest.fixture(scope="session")
def vectors() -> Path:
    """Real evidence lies beside the repository, not in it: `CASEMATE_VECTORS`, or `shared/vectors` next to it."""
    beside = Path(__file__).resolve().parents[4] / "shared" / "vectors"
    folder = Path(os.environ.get("CASEMATE_VECTORS", beside))
    if not folder.is_dir():
        pytest.skip(f"no real evidence at {folder}; set CASEMATE_VECTORS")
    return folder
