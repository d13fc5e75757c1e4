"""``casemate collateral refresh``: renew all that is kept, before it expires; what a timer runs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from casemate.attestation.collateral import amd, intel
from casemate.attestation.collateral.amd import AmdSet
from casemate.attestation.collateral.cache import CollateralCache, Kept
from casemate.attestation.collateral.fetch import Limits, fetch_all, trust_of
from casemate.attestation.collateral.importing import TrustedRoot, import_files
from casemate.attestation.collateral.sources import (
    PCS_URL,
    IntelTarget,
    SnpTarget,
    amd_wanted,
    base_url,
    intel_collateral,
    intel_wanted,
    read_amd,
)
from casemate.attestation.platforms.intel.collateral import Collateral
from casemate.attestation.platforms.snp.kds import KDS_URL
from casemate.attestation.trust import is_intel_root
from casemate.cli.app import FormatOption, epilog
from casemate.cli.failure import print_outcome
from casemate.cli.output import Format, Output, table
from casemate.errors import CasemateError, UndecidedError
from casemate.settings import Settings

__all__ = ["EPILOG", "refresh"]

EPILOG = epilog(
    "casemate collateral refresh",
    "casemate collateral refresh --hours 72 --url https://pccs.example:8081 --ca pccs.pem",
    exits={1: "refused: a reply was not signed by the maker", 3: "undecided: a set could not be renewed"},
)


def refresh(
    hours: Annotated[
        int, typer.Option("--hours", min=0, help="Renew what expires within so many hours [default: 20 days].")
    ] = 480,
    url: Annotated[
        str, typer.Option("--url", metavar="URL", help="A PCS or PCCS, for Intel's sets.", show_default=True)
    ] = PCS_URL,
    kds_url: Annotated[
        str, typer.Option("--kds-url", metavar="URL", help="A KDS, for AMD's sets.", show_default=True)
    ] = KDS_URL,
    ca: Annotated[
        Path | None, typer.Option("--ca", metavar="FILE", help="The only authority to trust for the services' TLS.")
    ] = None,
    trust_anchor: Annotated[
        Path | None, typer.Option("--trust-anchor", metavar="FILE", help="Renew the sets below this root instead.")
    ] = None,
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, max=600, help="Seconds for each request.")] = 20.0,
    patience: Annotated[
        float, typer.Option("--patience", min=0, max=3600, help="Seconds to wait for a busy service.")
    ] = 30.0,
    dir: Annotated[
        Path | None,
        typer.Option("--dir", metavar="DIR", help="Where it is kept, instead of `collateral` in CASEMATE_HOME."),
    ] = None,
    format: FormatOption = Format.TEXT,
) -> None:
    """Renew every set that is kept and expires soon, each by itself: one that fails keeps no other from renewal.

    Meant for a timer: it needs no evidence, asks for nothing that is good for long, and a running broker that reads
    the directory takes up what is new. What could not be renewed stays as it was, and is named."""
    output, now = Output(format), datetime.now(UTC)
    cache = CollateralCache(Settings.load().home / "collateral" if dir is None else dir)
    root = TrustedRoot() if trust_anchor is None else TrustedRoot.of(trust_anchor.read_bytes())
    trust, limits = trust_of(ca), Limits(request_seconds=timeout, patience_seconds=patience)
    margin = timedelta(hours=hours)
    held = cache.load()

    def renew_intel(one: Collateral) -> list[Kept]:
        target = IntelTarget(one.tee, one.fmspc, one.ca)
        wanted = intel_wanted(target, base_url(url))
        new = intel_collateral(target, fetch_all(wanted, trust=trust, limits=limits, say=output.say))
        intel.verify_collateral(new, root.intel)
        intel.check_dates(new, now)
        return cache.store([new], [], now=now)

    def renew_amd(one: AmdSet) -> list[Kept]:
        wanted = amd_wanted(SnpTarget(one.product), base_url(kds_url))
        blobs = read_amd(fetch_all(wanted, trust=trust, limits=limits, say=output.say))
        files = [(f"reply {number}.der", blob) for number, blob in enumerate(blobs, start=1)]
        return cache.store([], import_files(files, now=now, root=root, kept_amd=held.amd).amd, now=now)

    due: list[tuple[str, datetime, Callable[[], list[Kept]]]] = [
        *(
            (intel.set_name(one), one.expires, partial(renew_intel, one))
            for one in held.intel
            if (is_intel_root(one.root) if trust_anchor is None else one.root == root.intel)
        ),
        *(
            (one.name, _expires(one), partial(renew_amd, one))
            for one in held.amd
            if one.chain.simulated is (trust_anchor is not None)
        ),
    ]
    rows, failures = [], []
    for name, expires, renew in due:
        if expires > now + margin:
            rows.append({"set": name, "action": "current", "good_until": expires.isoformat()})
            continue
        try:
            rows += [{"set": each.set, "action": each.action, "good_until": ""} for each in renew()]
        except CasemateError as exc:
            rows.append({"set": name, "action": "failed", "good_until": expires.isoformat()})
            failures.append(exc)
    output.data({"sets": rows}, lambda: table([tuple(row.values()) for row in rows], ("set", "action", "good until")))
    if not due:
        output.say(f"nothing to renew in {cache.directory}; `casemate collateral fetch` adds to it")
    for error in failures:
        label = "undecided" if isinstance(error, UndecidedError) else "refused"
        print_outcome(label, error.code, error.message, error.fix, None)
    refused = any(not isinstance(error, UndecidedError) for error in failures)
    raise typer.Exit(1 if refused else 3 if failures else 0)


def _expires(one: AmdSet) -> datetime:
    """When the first of its revocation lists ends; without one, now."""
    ends = [p.expires for p in amd.pieces_of(one) if p.piece == "revocation list" and p.expires is not None]
    return min(ends, default=datetime.min.replace(tzinfo=UTC))
