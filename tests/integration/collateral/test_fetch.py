"""Asking a service: what is good is kept and verifies a quote offline; everything else leaves the cache as it was."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from tests.support.cli import Cli
from tests.support.pccs_double import PccsDouble, Reply, kds_routes, pccs_routes, running

from casemate.attestation.collateral.errors import (
    CollateralBusyError,
    CollateralNotServedError,
    CollateralReplyMalformedError,
    CollateralReplyOversizedError,
    CollateralUnreachableError,
    CollateralUrlError,
)
from casemate.attestation.collateral.fetch import Limits, fetch_all, trust_of
from casemate.attestation.collateral.sources import IntelTarget, Wanted, intel_collateral, intel_wanted
from casemate.attestation.platforms.simulator.pki import CollateralEdits, SimulatedPki
from casemate.attestation.platforms.snp.simulator import SimulatedAmd
from casemate.errors import CasemateError

Serve = Callable[..., Any]
TARGET = IntelTarget("tdx", "53494d000000", "platform")


def _fetch(double: PccsDouble, *, limits: Limits | None = None, ca: Path | None = None) -> dict[str, Any]:
    said: list[str] = []
    wanted = intel_wanted(TARGET, double.url)
    return fetch_all(wanted, trust=trust_of(ca or double.ca), limits=limits or Limits(5, 5), say=said.append)


def test_what_is_fetched_is_what_was_signed(serve: Serve, pki: SimulatedPki, now: datetime) -> None:
    with serve() as double:
        found = intel_collateral(TARGET, _fetch(double))
    assert found.fmspc == TARGET.fmspc
    assert [path.split("?")[0].rpartition("/")[2] for path in double.asked] == [
        "tcb",
        "identity",
        "pckcrl",
        "rootcacrl",
    ]
    assert "fmspc=53494D000000" in double.asked[0]


# -- a service in trouble ----------------------------------------------------------------------------------------------
def test_a_busy_service_is_waited_for(serve: Serve, pki: SimulatedPki, now: datetime) -> None:
    good = pccs_routes(pki.collateral("tdx", now), "tdx")["/tdx/certification/v4/tcb"]
    assert isinstance(good, Reply)
    slept: list[float] = []
    later = format_datetime(datetime.now(now.tzinfo) + timedelta(seconds=3), usegmt=True)
    busy = [Reply(b"", 429, {"Retry-After": "2"}), Reply(b"", 503, {"Retry-After": later}), good]
    with serve(tcb=busy) as double:
        intel_collateral(TARGET, {**_fetch(double, limits=Limits(5, 10, slept.append))})
    assert slept[0] == 2.0
    assert 1.0 <= slept[1] <= 3.0


@pytest.mark.parametrize("value", ["3600", "Fri, 31 Dec 2199 23:59:59 GMT", "99999999999999999999", "soon", ""])
def test_a_service_that_stays_busy_is_undecided(value: str, serve: Serve) -> None:
    slept: list[float] = []
    with serve(tcb=Reply(b"", 429, {"Retry-After": value})) as double, pytest.raises(CollateralBusyError):
        _fetch(double, limits=Limits(5, 10, slept.append))
    assert sum(slept) <= 10


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply(b"no such FMSPC", 404), CollateralNotServedError),
        (Reply(b"oops", 500), CollateralUnreachableError),
        (Reply(b"", 503), CollateralUnreachableError),
        (Reply(b"", 401), CollateralUnreachableError),
        (Reply(b"", 302, {"Location": "https://elsewhere.example/"}), CollateralUnreachableError),
        (Reply(b""), CollateralReplyMalformedError),
        (Reply(b'{"tcbInfo":', announced=5000), CollateralReplyMalformedError),
        (Reply(b"{}" * 10, headers={"Content-Encoding": "gzip"}), CollateralReplyMalformedError),
        (Reply(b"x", announced=10**9), CollateralReplyOversizedError),
        (Reply(b"x", announced=3 * 1024 * 1024), CollateralReplyOversizedError),
        (Reply(b"", endless=True), CollateralReplyOversizedError),
    ],
)
def test_a_reply_that_is_none_is_named(reply: Reply, error: type[CasemateError], serve: Serve) -> None:
    with serve(tcb=reply) as double, pytest.raises(error, match="tcb info"):
        _fetch(double, limits=Limits(10, 0))


def test_a_slow_service_is_given_up(serve: Serve) -> None:
    trickle = Reply(b" " * 1000, pause=0.05)
    started = time.monotonic()
    with serve(tcb=trickle) as double, pytest.raises(CollateralUnreachableError, match="no whole answer within 1 s"):
        _fetch(double, limits=Limits(1.0, 0))
    assert time.monotonic() - started < 5


def test_only_the_named_authority_is_trusted(serve: Serve, tmp_path: Path) -> None:
    with running({}, tmp_path / "other") as other, serve() as double:
        with pytest.raises(CollateralUnreachableError, match="certificate"):
            _fetch(double, ca=other.ca)
        with pytest.raises(CollateralUnreachableError, match="certificate"):
            fetch_all(intel_wanted(TARGET, double.url), trust=trust_of(None), limits=Limits(5, 0), say=print)
    assert not double.asked
    with pytest.raises(CollateralUrlError):
        trust_of(tmp_path / "absent.pem")


def test_a_service_that_is_not_there_is_undecided(serve: Serve) -> None:
    with serve() as double:
        pass
    with pytest.raises(CollateralUnreachableError):
        _fetch(double, limits=Limits(2, 0))
    wanted = [Wanted("tcb info", "https://name.invalid/tcb", 10)]
    with pytest.raises(CollateralUnreachableError):
        fetch_all(wanted, trust=trust_of(None), limits=Limits(5, 0), say=print)


# -- the command -------------------------------------------------------------------------------------------------------
def _fetched(cli: Cli, double: PccsDouble, *more: str) -> list[str]:
    common = ["--url", double.url, "--ca", str(double.ca), "--trust-anchor", "root.der"]
    return ["collateral", "fetch", *common, *(more or ("--evidence", "quote.bin"))]


def test_fetch_then_verify_offline(cli: Cli, serve: Serve) -> None:
    with serve() as double:
        done = cli.ok(*_fetched(cli, double))
    assert "SIMULATED" in done.err
    kept = cli.home / "collateral"
    policy = cli.write("p.yaml", "version: 1\nname: p\nallow_simulated: true\nplatforms: [tdx]\n")
    judged = ["attest", "verify", "quote.bin", "--trust-anchor", "root.der", "--policy", str(policy)]
    assert cli.run(*judged).status == 3
    assert cli.json(*judged, "--collateral", str(kept))["outcome"] == "accepted"
    pieces = cli.json("collateral", "show")["pieces"]
    assert {piece["state"] for piece in pieces} == {"current"}
    assert {piece["piece"] for piece in pieces} >= {"TCB info", "QE identity", "root CA CRL", "PCK CRL"}
    cli.ok("collateral", "check", "--evidence", "quote.bin")


def test_nothing_is_kept_that_intel_did_not_sign(cli: Cli, serve: Serve) -> None:
    with serve() as double:
        arguments = [a for a in _fetched(cli, double) if a not in ("--trust-anchor", "root.der")]
        cli.run(*arguments).refused(1, "collateral-untrusted-root")
    assert not (cli.home / "collateral").exists()


def test_an_expired_reply_is_undecided_and_does_not_replace(cli: Cli, serve: Serve, now: datetime) -> None:
    with serve() as double:
        cli.ok(*_fetched(cli, double))
    before = {path.name: path.read_bytes() for path in (cli.home / "collateral").iterdir()}
    with serve(CollateralEdits(issued=now - timedelta(days=60))) as double:
        cli.run(*_fetched(cli, double)).refused(3, "tcb-info-expired")
    with serve(CollateralEdits(issued=now - timedelta(days=5))) as double:
        assert cli.json(*_fetched(cli, double))["sets"][0]["action"] == "kept"
    assert {path.name: path.read_bytes() for path in (cli.home / "collateral").iterdir()} == before


def test_an_unknown_family_and_wrong_usage_are_told_apart(cli: Cli, serve: Serve) -> None:
    with serve(tcb=Reply(b"", 404)) as double:
        cli.run(*_fetched(cli, double, "--fmspc", "00A06D080000")).refused(3, "collateral-not-served")
        cli.run(*_fetched(cli, double, "--fmspc", "xyz")).refused(2, "collateral-target-missing")
    cli.run("collateral", "fetch").refused(2, "collateral-target-missing")
    cli.run("collateral", "fetch", "--fmspc", "00A06D080000", "--url", "http://p").refused(2, "collateral-url-invalid")


def test_check_names_each_piece_that_is_missing_or_expired(cli: Cli, serve: Serve, now: datetime) -> None:
    cli.run("collateral", "check").refused(3, "collateral-missing")
    done = cli.run("collateral", "check", "--evidence", "quote.bin")
    assert done.status == 3
    assert all(name in done.err for name in ("TCB info", "QE identity", "root CA CRL", "PCK CRL"))
    with serve() as double:
        cli.ok(*_fetched(cli, double))
    later = (now + timedelta(days=30)).isoformat()
    value = cli.run("collateral", "check", "--at", later, "--format", "json")
    assert value.status == 3
    assert len(value.value["bad"]) == 4
    assert "collateral-expired" in value.err
    assert cli.run("collateral", "check", "--hours", str(24 * 60)).status == 3


def test_import_carries_collateral_to_a_machine_without_network(cli: Cli, serve: Serve, tmp_path: Path) -> None:
    import tarfile

    with serve() as double:
        cli.ok(*_fetched(cli, double))
    with tarfile.open(tmp_path / "bundle.tar.gz", "w:gz") as archive:
        archive.add(cli.home / "collateral", "collateral")
    other = Cli(tmp_path / "elsewhere", tmp_path)
    other.run("collateral", "import", "bundle.tar.gz").refused(1, "collateral-untrusted-root")
    assert (
        other.json("collateral", "import", "bundle.tar.gz", "--trust-anchor", "root.der")["sets"][0]["action"]
        == "added"
    )
    other.ok("collateral", "check", "--evidence", "quote.bin")
    other.run("collateral", "import", "absent.tar").refused(2, "file-missing")


def test_a_damaged_cache_is_undecided(cli: Cli, serve: Serve) -> None:
    with serve() as double:
        cli.ok(*_fetched(cli, double))
    (path,) = (cli.home / "collateral").iterdir()
    document = json.loads(path.read_text())
    document["tcb_info"] = document["tcb_info"].replace("UpToDate", "Revoked", 1)
    path.write_text(json.dumps(document))
    cli.run("collateral", "check").refused(3, "tcb-info-signature-invalid")


def test_amds_pieces_are_fetched_for_a_report(cli: Cli, amd: SimulatedAmd, now: datetime, tmp_path: Path) -> None:
    vek = amd.vek()
    (tmp_path / "report.bin").write_bytes(amd.report(vek))
    (tmp_path / "ark.der").write_bytes(amd.certificates["ARK"])
    crl = amd.crl(this_update=now - timedelta(days=1), next_update=now + timedelta(days=30))
    with running(kds_routes(amd, vek, crl), tmp_path / "kds") as double:
        fetch = ["collateral", "fetch", "--evidence", "report.bin", "--url", double.url, "--ca", str(double.ca)]
        cli.run(*fetch).refused(1, "snp-ark-untrusted")
        cli.ok(*fetch, "--trust-anchor", "ark.der")
    assert len(list((cli.home / "collateral").iterdir())) == 3
    cli.ok("collateral", "check", "--evidence", "report.bin")
    other = amd.vek()
    (tmp_path / "other.bin").write_bytes(amd.report(other))
    done = cli.run("collateral", "check", "--evidence", "other.bin").refused(3, "collateral-missing")
    assert "VCEK of the report's chip" in done.err


def test_a_busy_kds_is_undecided(cli: Cli, amd: SimulatedAmd, now: datetime, tmp_path: Path) -> None:
    busy = Reply(b"", 429, {"Retry-After": "600"})
    with running({"/vcek/v1/Milan/cert_chain": busy}, tmp_path / "kds") as double:
        done = cli.run("collateral", "fetch", "--product", "Milan", "--url", double.url, "--ca", str(double.ca))
    assert "600 s" in done.refused(3, "collateral-service-busy").err
