"""What a timer runs: all that is kept is renewed before it expires, and a failure costs nothing that was there."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.support.pccs_double import Reply

from casemate.attestation.collateral.cache import CollateralCache
from casemate.attestation.platforms.intel.collateral import parse_collateral
from casemate.attestation.platforms.simulator.pki import SimulatedPki
from casemate.cli.main import invoke

Serve = Callable[..., Any]


@pytest.fixture
def kept(tmp_path: Path, pki: SimulatedPki, now: datetime) -> Path:
    """A cache with one set that ends within the next days."""
    (tmp_path / "root.der").write_bytes(pki.root.der)
    directory = tmp_path / "cache"
    old = parse_collateral(json.dumps(pki.collateral("tdx", now - timedelta(days=20))))
    CollateralCache(directory).store([old], [], now=now)
    return directory


def refresh(kept: Path, double: Any, *more: str) -> int:
    anchor = ["--trust-anchor", str(kept.parent / "root.der"), "--patience", "0"]
    service = ["--url", double.url, "--ca", str(double.ca)]
    return invoke(["collateral", "refresh", "--dir", str(kept), *anchor, *service, *more, "--format", "json"])


def ends(kept: Path) -> datetime:
    (one,) = CollateralCache(kept).load().intel
    return one.expires


def test_what_ends_soon_is_renewed_and_then_left_alone(
    serve: Serve, kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = ends(kept)
    with serve() as double:
        assert refresh(kept, double, "--hours", "480") == 0
        assert json.loads(capsys.readouterr().out)["sets"][0]["action"] == "renewed"
        assert ends(kept) > before + timedelta(days=15)
        asked = len(double.asked)
        assert refresh(kept, double, "--hours", "480") == 0
        assert json.loads(capsys.readouterr().out)["sets"][0]["action"] == "current"
        assert len(double.asked) == asked


def test_a_service_in_trouble_leaves_what_was_there(
    serve: Serve, kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = ends(kept)
    with serve(tcb=Reply(b"", 503)) as double:
        assert refresh(kept, double) == 3
    shown = capsys.readouterr()
    assert json.loads(shown.out)["sets"][0]["action"] == "failed"
    assert "undecided: collateral-" in shown.err
    assert ends(kept) == before


def test_another_roots_sets_are_not_asked_for(serve: Serve, kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without the anchor only the makers' own sets are renewed: nobody asks Intel for a simulator's platform."""
    assert invoke(["collateral", "refresh", "--dir", str(kept), "--format", "json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["sets"] == []
    assert "nothing to renew" in shown.err
    assert ends(kept) > datetime.now(UTC)
