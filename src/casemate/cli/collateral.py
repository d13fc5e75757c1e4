"""``casemate collateral``: fetch, import, show and check what the makers say about their platforms."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from casemate.attestation.collateral import intel
from casemate.attestation.collateral.bundle import read_bundle
from casemate.attestation.collateral.cache import Cached, CollateralCache, Kept
from casemate.attestation.collateral.errors import CollateralTargetError
from casemate.attestation.collateral.fetch import Limits, fetch_all, trust_of
from casemate.attestation.collateral.importing import TrustedRoot, import_files
from casemate.attestation.collateral.pieces import CachedPiece, State, worst_first
from casemate.attestation.collateral.sources import (
    PCS_URL,
    IntelTarget,
    SnpTarget,
    amd_wanted,
    base_url,
    intel_collateral,
    intel_target,
    intel_wanted,
    read_amd,
)
from casemate.attestation.errors import CollateralExpiredError, CollateralMissingError
from casemate.attestation.platforms.snp.body import parse_body
from casemate.attestation.platforms.snp.endorsement import VekKind, parse_vek
from casemate.attestation.platforms.snp.kds import KDS_URL
from casemate.attestation.platforms.snp.report import parse_report
from casemate.attestation.platforms.snp.tcb import Product, parse_tcb
from casemate.attestation.stored import MAX_STORED_BYTES, Kind, recognise
from casemate.cli.app import FormatOption, epilog, subcommand
from casemate.cli.collateral_refresh import EPILOG, refresh
from casemate.cli.errors import FileMissingError
from casemate.cli.failure import print_outcome
from casemate.cli.output import Format, Output, table
from casemate.errors import UsageError
from casemate.settings import Settings

__all__ = ["app"]

app = subcommand("Fetch, import, show and check collateral: what makers say about their platforms.")


class Tee(StrEnum):
    """Which of Intel's kinds of collateral."""

    SGX = "sgx"
    TDX = "tdx"


class PckCa(StrEnum):
    """Which of Intel's authorities certified the platform: multi-package servers have ``platform``."""

    PROCESSOR = "processor"
    PLATFORM = "platform"


DirectoryOption = Annotated[
    Path | None,
    typer.Option("--dir", metavar="DIR", help="Where collateral is kept, instead of `collateral` in CASEMATE_HOME."),
]
AtOption = Annotated[
    str | None, typer.Option("--at", metavar="ISO-8601", help="The time to judge at; UTC without an offset.")
]
AnchorOption = Annotated[
    Path | None,
    typer.Option("--trust-anchor", metavar="FILE", help="A root to verify under instead of the maker's pinned one."),
]
EvidenceOption = Annotated[
    Path | None, typer.Option("--evidence", metavar="FILE", help="A quote or report: its platform is meant.")
]
FmspcOption = Annotated[str | None, typer.Option("--fmspc", metavar="HEX", help="A family of Intel platforms.")]
TeeOption = Annotated[Tee, typer.Option("--tee", help="With --fmspc.")]
PckCaOption = Annotated[PckCa, typer.Option("--pck-ca", help="With --fmspc.")]
ProductOption = Annotated[Product | None, typer.Option("--product", help="An AMD product.")]


@app.callback()
def _group() -> None:
    """Fetch, import, show and check collateral: what makers say about their platforms."""


@app.command(
    epilog=epilog(
        "casemate collateral fetch --evidence quote.bin",
        "casemate collateral fetch --evidence quote.bin --url https://pccs.example:8081 --ca pccs.pem",
        "casemate collateral fetch --fmspc 00806F050000 --tee tdx --pck-ca platform",
        "casemate collateral fetch --product Genoa",
        exits={1: "refused: not signed by the maker, malformed", 3: "undecided: out of reach, busy, expired, unknown"},
    )
)
def fetch(
    url: Annotated[
        str | None,
        typer.Option(
            "--url", metavar="URL", help=f"A PCS, PCCS or KDS. Without it {PCS_URL} (Intel), {KDS_URL} (AMD)."
        ),
    ] = None,
    ca: Annotated[
        Path | None, typer.Option("--ca", metavar="FILE", help="The only authority to trust for the service's TLS.")
    ] = None,
    evidence: EvidenceOption = None,
    fmspc: FmspcOption = None,
    tee: TeeOption = Tee.TDX,
    pck_ca: PckCaOption = PckCa.PLATFORM,
    product: ProductOption = None,
    early: Annotated[bool, typer.Option("--early", help="Intel's TCB info that is not enforced yet.")] = False,
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, max=600, help="Seconds for each request.")] = 20.0,
    patience: Annotated[
        float, typer.Option("--patience", min=0, max=3600, help="Seconds to wait for a busy service.")
    ] = 30.0,
    trust_anchor: AnchorOption = None,
    at: AtOption = None,
    dir: DirectoryOption = None,
    format: FormatOption = Format.TEXT,
) -> None:
    """Fetch collateral over https, verify it under the maker's pinned root and keep it until it expires.

    Intel's TCB info, QE identity and both revocation lists; AMD's chain, revocation list and, for a report, the chip's
    endorsement key. One piece that is missing, expired or not signed, and nothing is kept."""
    output, now = Output(format), _moment(at)
    target = _target(evidence, fmspc, tee, pck_ca, product)
    cache, root, trust = _cache(dir), _root(trust_anchor), trust_of(ca)
    limits = Limits(request_seconds=timeout, patience_seconds=patience)
    if isinstance(target, IntelTarget):
        base = base_url(url or PCS_URL)
        output.say(f"asking {base} for {target.tee} {target.fmspc} ({target.ca} CA)")
        wanted = intel_wanted(target, base, early=early)
        one = intel_collateral(target, fetch_all(wanted, trust=trust, limits=limits, say=output.say))
        intel.verify_collateral(one, root.intel)
        intel.check_dates(one, now)
        kept = cache.store([one], [], now=now)
    else:
        base = base_url(url or KDS_URL)
        output.say(f"asking {base} for {target.product} ({target.kind} branch)")
        blobs = read_amd(fetch_all(amd_wanted(target, base), trust=trust, limits=limits, say=output.say))
        found = import_files(_numbered(blobs), now=now, root=root, kept_amd=cache.load().amd)
        kept = cache.store([], found.amd, now=now)
    _report(output, kept, cache.load(), now)


@app.command(
    "import",
    epilog=epilog(
        "casemate collateral import collateral.json",
        "casemate collateral import bundle.tar.gz",
        "casemate collateral import ~/.casemate/collateral --dir ~/.casemate/broker/trust/collateral",
        exits={1: "refused: not signed by the maker, malformed", 3: "undecided: a piece is missing or has expired"},
    ),
)
def import_(
    bundle: Annotated[
        list[Path],
        typer.Argument(metavar="BUNDLE...", help="A directory, tar, zip, JSON, PEM, DER or CRL.", show_default=False),
    ],
    trust_anchor: AnchorOption = None,
    at: AtOption = None,
    dir: DirectoryOption = None,
    format: FormatOption = Format.TEXT,
) -> None:
    """Take in collateral from files, for machines without a network. No network is used.

    Whole sets and loose pieces are read: collateral JSON, replies of a PCS, certificates, revocation lists. Everything
    is verified under the makers' pinned roots first; one piece that does not verify, and nothing is kept."""
    output, now, cache = Output(format), _moment(at), _cache(dir)
    files = []
    for path in bundle:
        try:
            files += [(file.name, file.content) for file in read_bundle(path)]
        except FileNotFoundError:
            raise FileMissingError(f"{path}: not found") from None
    held = cache.load()
    found = import_files(files, now=now, root=_root(trust_anchor), kept_intel=held.intel, kept_amd=held.amd)
    for name in found.ignored:
        output.say(f"ignored {name}: no collateral")
    _report(output, cache.store(found.intel, found.amd, now=now), cache.load(), now)


@app.command(epilog=epilog("casemate collateral show", "casemate collateral show --format json"))
def show(at: AtOption = None, dir: DirectoryOption = None, format: FormatOption = Format.TEXT) -> None:
    """Show every piece that is kept: of whom it speaks, when it was issued, when its next update is due, its state."""
    output, now, cache = Output(format), _moment(at), _cache(dir)
    held = cache.load()
    pieces = held.pieces()
    value = {"directory": str(cache.directory), "pieces": [piece.to_json(now) for piece in pieces]}
    output.data(value, lambda: _table(pieces, now) if pieces else "")
    if not pieces:
        output.say(f"nothing is kept in {cache.directory}; `casemate collateral fetch` or `import` adds to it")
    _mark(output, held)


@app.command(
    epilog=epilog(
        "casemate collateral check",
        "casemate collateral check --evidence quote.bin --hours 48",
        exits={0: "all of it is current", 3: "undecided: each piece that is expired or missing is named"},
    )
)
def check(
    evidence: EvidenceOption = None,
    fmspc: FmspcOption = None,
    tee: TeeOption = Tee.TDX,
    pck_ca: PckCaOption = PckCa.PLATFORM,
    product: ProductOption = None,
    hours: Annotated[int, typer.Option("--hours", min=0, help="How much longer every piece has to be good.")] = 0,
    at: AtOption = None,
    dir: DirectoryOption = None,
    format: FormatOption = Format.TEXT,
) -> None:
    """Check that what is kept is whole, signed and current; with evidence or a platform, that its collateral is there.

    Exits with 3 and names each piece that is expired, missing or damaged."""
    output, now, cache, margin = Output(format), _moment(at), _cache(dir), timedelta(hours=hours)
    held = cache.load()
    pieces = held.pieces()
    if evidence is not None or fmspc is not None or product is not None:
        pieces = _needed(_target(evidence, fmspc, tee, pck_ca, product), held)
    elif not pieces:
        pieces = [CachedPiece("collateral", f"anything in {cache.directory}", "")]
    bad = worst_first(pieces, now, margin=margin)
    value = {
        "outcome": "undecided" if bad else "accepted",
        "directory": str(cache.directory),
        "pieces": [piece.to_json(now, margin=margin) for piece in pieces],
        "bad": [piece.explain(now, margin=margin) for piece in bad],
    }
    output.data(value, lambda: _table(pieces, now, margin))
    _mark(output, held)
    for piece in bad:
        lapsed = piece.state(now, margin=margin) in (State.EXPIRED, State.EXPIRING)
        error = CollateralExpiredError if lapsed else CollateralMissingError
        print_outcome("undecided", piece.code or error.code, piece.explain(now, margin=margin), error.fix, None)
    raise typer.Exit(3 if bad else 0)


app.command(epilog=EPILOG)(refresh)


# -- what is wanted ----------------------------------------------------------------------------------------------------
def _target(
    evidence: Path | None, fmspc: str | None, tee: Tee, pck_ca: PckCa, product: Product | None
) -> IntelTarget | SnpTarget:
    if (evidence is not None and fmspc is not None) or (fmspc is not None and product is not None):
        raise CollateralTargetError("need one of --evidence, --fmspc and --product; a product may go with a report")
    if fmspc is not None:
        return IntelTarget(str(tee), fmspc.lower(), str(pck_ca))
    if evidence is None:
        if product is None:
            raise CollateralTargetError("need --evidence, --fmspc or --product")
        return SnpTarget(product)
    stored = recognise(_read(evidence))
    if stored.kind in (Kind.SGX, Kind.TDX):
        return intel_target(stored.raw)
    if stored.kind is not Kind.SNP or stored.evidence is None:
        raise CollateralTargetError(f"{evidence}: is of kind {stored.kind}; need an SGX or TDX quote, or an SNP report")
    report = parse_report(parse_body(stored.evidence.body).report)
    chosen = report.product or product
    if chosen is None:
        raise CollateralTargetError(f"{evidence}: a version 2 report does not name its product; add --product")
    return SnpTarget(chosen, report)


def _needed(target: IntelTarget | SnpTarget, held: Cached) -> list[CachedPiece]:
    """The pieces that a verifier needs for ``target``: those that are kept, and those that are not."""
    if isinstance(target, IntelTarget):
        name = f"{target.tee} {target.fmspc} {target.ca}"
        found = [one for one in held.intel if intel.set_name(one) == name]
        names = ("TCB info", "QE identity", "root CA CRL", "PCK CRL")
        if not found:
            return [CachedPiece(name, piece, "") for piece in names]
        return Cached(tuple(found)).pieces()
    products = [one for one in held.amd if one.product is target.product]
    if not products:
        return [CachedPiece(f"snp {target.product}", piece, "") for piece in ("certificate", "revocation list")]
    pieces = Cached((), tuple(products)).pieces()
    veks = [der for one in products for der in one.veks]
    if target.report is not None and target.kind is VekKind.VCEK and not any(_fits(der, target) for der in veks):
        pieces.append(CachedPiece(f"snp {target.product}", "endorsement key", "VCEK of the report's chip and TCB"))
    return pieces


def _fits(der: bytes, target: SnpTarget) -> bool:
    vek, report = parse_vek(der), target.report
    if report is None or vek.kind is not VekKind.VCEK or vek.hwid is None:
        return False
    levels = parse_tcb(report.reported_tcb, target.product)
    return report.chip_id.startswith(vek.hwid) and dict(vek.spl) == levels


# -- files and time ----------------------------------------------------------------------------------------------------
def _cache(directory: Path | None) -> CollateralCache:
    return CollateralCache(Settings.load().home / "collateral" if directory is None else directory)


def _root(path: Path | None) -> TrustedRoot:
    return TrustedRoot() if path is None else TrustedRoot.of(_read(path))


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_STORED_BYTES + 1)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise FileMissingError(f"{path}: not found, or not a file") from None


def _numbered(blobs: Sequence[bytes]) -> list[tuple[str, bytes]]:
    return [(f"reply {i}.der", blob) for i, blob in enumerate(blobs, start=1)]


def _moment(text: str | None) -> datetime:
    if text is None:
        return datetime.now(UTC)
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise UsageError(f"--at: expected a time as 2025-06-20T12:00:00Z, got {text[:40]!r}") from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


# -- showing -----------------------------------------------------------------------------------------------------------
def _report(output: Output, kept: list[Kept], held: Cached, now: datetime) -> None:
    ends = {piece.set.removesuffix(" SIMULATED"): piece for piece in sorted(held.pieces(), key=_end, reverse=True)}
    rows = []
    for one in kept:
        first = ends.get(one.set)
        until = first.expires.isoformat() if first is not None and first.expires is not None else "?"
        rows.append({"set": one.set, "action": one.action, "detail": one.detail, "good_until": until})
    output.data(
        {"sets": rows}, lambda: table([tuple(row.values()) for row in rows], ("set", "action", "", "good until"))
    )
    _mark(output, held)


def _end(piece: CachedPiece) -> datetime:
    return piece.expires or datetime.max.replace(tzinfo=UTC)


def _table(pieces: list[CachedPiece], now: datetime, margin: timedelta = timedelta(0)) -> str:
    rows = [
        (
            piece.set,
            piece.piece,
            piece.subject,
            _day(piece.issued),
            _day(piece.expires),
            str(piece.state(now, margin=margin)),
        )
        for piece in pieces
    ]
    return table(rows, ("set", "piece", "subject", "issued", "next update", "state"))


def _day(moment: datetime | None) -> str:
    return "-" if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%d %H:%MZ")


def _mark(output: Output, held: Cached) -> None:
    if held.simulated:
        output.simulated("collateral is among it: it vouches for no real platform")
