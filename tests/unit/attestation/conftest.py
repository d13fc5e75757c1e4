"""Shared by the tests of the verifier: real evidence where it is at hand, and a simulated maker."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from casemate.attestation.claims import Claims, TcbClaims
from casemate.attestation.evidence import Evidence
from casemate.attestation.platforms.intel.collateral import Collateral, parse_collateral
from casemate.attestation.platforms.simulator.pki import CollateralEdits, PlatformIdentity, SimulatedPki
from casemate.attestation.platforms.simulator.quote import QuotingEnclave

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="session")
def vectors() -> Path:
    """Real evidence lies beside the repository, not in it: `CASEMATE_VECTORS`, or `shared/vectors` next to it."""
    beside = Path(__file__).resolve().parents[3].parent / "shared" / "vectors"
    folder = Path(os.environ.get("CASEMATE_VECTORS", beside))
    if not folder.is_dir():
        pytest.skip(f"no real evidence at {folder}; set CASEMATE_VECTORS")
    return folder


@pytest.fixture(scope="session")
def now() -> datetime:
    return NOW


@pytest.fixture(scope="session")
def pki() -> SimulatedPki:
    return SimulatedPki.create(NOW, PlatformIdentity(ppid=bytes(range(16)), piid=bytes(range(16, 32))))


@pytest.fixture(scope="session")
def enclave(pki: SimulatedPki) -> QuotingEnclave:
    return QuotingEnclave.create(pki)


@pytest.fixture(scope="session")
def make_collateral(pki: SimulatedPki) -> Callable[..., Collateral]:
    def make(tee: str = "tdx", edits: CollateralEdits | None = None, **members: str) -> Collateral:
        return parse_collateral(json.dumps(pki.collateral(tee, NOW, edits) | members))

    return make


@pytest.fixture(scope="session")
def evidence() -> Callable[..., Evidence]:
    def make(quote: bytes, tee: str = "tdx") -> Evidence:
        return Evidence(tee, {"quote": base64.b64encode(quote).decode()})

    return make


@pytest.fixture
def claims() -> Callable[..., Claims]:
    """Claims of a real, up-to-date TD; keyword arguments replace them, ``tcb`` by a dict of its members."""

    def make(*, tcb: dict[str, Any] | None = None, **changes: Any) -> Claims:
        good = Claims(
            platform="tdx",
            simulated=False,
            debug=False,
            measurement="aa" * 48,
            signer="00" * 48,
            product_id=3,
            svn=5,
            rtmr=("11" * 48, "22" * 48, "33" * 48, "00" * 48),
            workload="ab" * 48,
            report_data="cd" * 64,
            tcb=replace(TcbClaims("UpToDate", "2026-01-01", ("INTEL-SA-00001",), 20, {"sgx01": 5}), **(tcb or {})),
            platform_id="ef" * 16,
            vmpl=0,
            collateral_expires=datetime(2026, 3, 31, tzinfo=UTC),
            extra={"collateral_issued": "2026-02-27T00:00:00+00:00", "unsafe_attributes": [], "smt_enabled": True},
        )
        return replace(good, **changes)

    return make
