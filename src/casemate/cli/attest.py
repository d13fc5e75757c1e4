"""``casemate attest``: judge stored evidence, and collect evidence on this machine."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from casemate.attestation.appraise import Judgement, Platform, appraise_stored
from casemate.attestation.collateral.cache import CollateralCache
from casemate.attestation.detect import find_attester
from casemate.attestation.evidence import REPORT_DATA_SIZE
from casemate.attestation.platforms.simulator.client import SimulatorAttester
from casemate.attestation.policy import AppraisalPolicy, Outcome
from casemate.attestation.rego import RegoPolicy
from casemate.attestation.stored import MAX_STORED_BYTES
from casemate.attestation.stored_errors import ChallengeFormError
from casemate.cli.app import FormatOption, epilog, subcommand
from casemate.cli.errors import FileMissingError
from casemate.cli.judgement import page
from casemate.cli.output import Format, Output, one_line, red, terminal_width
from casemate.cli.policy import read_policy, read_reference_values
from casemate.errors import UsageError

__all__ = ["app"]

app = subcommand("Judge stored evidence, or collect evidence on this machine.")

_STATUS = {Outcome.ACCEPTED: 0, Outcome.REFUSED: 1, Outcome.UNDECIDED: 3}


@app.callback()
def _group() -> None:
    """Judge stored evidence, or collect evidence on this machine."""


@app.command(
    epilog=epilog(
        "casemate attest verify quote.bin --collateral collateral.json",
        "casemate attest verify quote.bin --collateral ~/.casemate/collateral",
        "casemate attest verify report.bin --certs vcek.der --certs milan.pem --policy prod.yaml",
        "casemate attest verify quote.bin --collateral c.json --policy gate.rego --reference-values release.json",
        "casemate attest verify evidence.json --challenge 00aabb --event-log eventlog.bin --format json",
        exits={0: "accepted", 1: "refused", 3: "undecided: an endorsement is missing or has expired"},
    )
)
def verify(
    evidence: Annotated[
        Path, typer.Argument(help="A quote, report or evidence JSON; `-` is stdin.", show_default=False)
    ],
    platform: Annotated[Platform, typer.Option("--platform", help="What the evidence must be of.")] = Platform.AUTO,
    collateral: Annotated[
        list[Path] | None,
        typer.Option(
            "--collateral",
            metavar="JSON",
            help="Intel's collateral, or a directory that `casemate collateral` keeps. Repeatable, for pieces.",
        ),
    ] = None,
    certs: Annotated[
        list[Path] | None,
        typer.Option("--certs", metavar="FILE", help="Certificates, CRLs, TPM keys; DER or PEM. Repeatable."),
    ] = None,
    event_log: Annotated[
        Path | None, typer.Option("--event-log", metavar="FILE", help="A TCG2 or CCEL log to replay.")
    ] = None,
    challenge: Annotated[
        str | None, typer.Option("--challenge", metavar="HEX", help="What the report data or nonce must be.")
    ] = None,
    trust_anchor: Annotated[
        Path | None,
        typer.Option("--trust-anchor", metavar="FILE", help="The only root to trust; simulated unless a maker's."),
    ] = None,
    policy: Annotated[
        list[Path] | None,
        typer.Option(
            "--policy",
            metavar="YAML",
            help="Instead of the strict built-in policy; `.rego` is Rego, on top of it. Repeatable: all have to hold.",
        ),
    ] = None,
    reference_values: Annotated[
        list[Path] | None,
        typer.Option(
            "--reference-values", metavar="JSON", help="Name to value or list, for Rego policies. Repeatable."
        ),
    ] = None,
    at: Annotated[
        str | None, typer.Option("--at", metavar="ISO-8601", help="The time to judge at; UTC without an offset.")
    ] = None,
    format: FormatOption = Format.TEXT,
) -> None:
    """Judge stored evidence: signatures, endorsements, challenge, event log, policy. No network is used.

    Without --policy a strict one applies: a real platform, valid cryptography, no debug, TCB status UpToDate, nothing
    expired. Claims are shown also when the answer is no; `verified` tells whether they can be relied on."""
    output = Output(format)
    judgement = appraise_stored(
        _read(evidence),
        now=_moment(at),
        platform=platform,
        collateral=[text for path in collateral or () for text in _documents(path)],
        certificates=[*(_read(path) for path in certs or ()), *_endorsements(collateral or ())],
        event_log=None if event_log is None else _read(event_log),
        challenge=None if challenge is None else _hex(challenge, "challenge"),
        trust_anchor=None if trust_anchor is None else _read(trust_anchor),
        policy=_policies(policy or (), reference_values or ()),
    )
    output.data(judgement.to_json(), lambda: page(judgement, width=terminal_width()))
    if judgement.claims is not None and judgement.claims.simulated:
        output.simulated("evidence: it protects nothing")
    if judgement.outcome is not Outcome.ACCEPTED:
        _explain(judgement)
    raise typer.Exit(_STATUS[judgement.outcome])


@app.command(
    epilog=epilog(
        "casemate attest collect --report-data 00aabb --out evidence.json",
        "casemate attest verify evidence.json --challenge 00aabb --collateral collateral.json",
        exits={3: "undecided: there is no TEE here, or it is busy"},
    )
)
def collect(
    report_data: Annotated[
        str, typer.Option("--report-data", metavar="HEX", help="At most 64 bytes; zeros fill the rest.")
    ] = "",
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Where to, instead of stdout.")] = None,
    format: FormatOption = Format.JSON,
) -> None:
    """Collect evidence in the TEE this command runs in, as JSON that `casemate attest verify` reads.

    The kind of TEE is found by itself: Gramine-SGX, a TDX or SEV-SNP guest, the simulated machine."""
    data = _hex(report_data, "report data")
    if len(data) > REPORT_DATA_SIZE:
        raise ChallengeFormError(f"report data: {len(data)} bytes, at most {REPORT_DATA_SIZE}")
    attester = find_attester()
    found = attester.collect(data.ljust(REPORT_DATA_SIZE, b"\0"))
    output = Output(format)
    if isinstance(attester, SimulatorAttester):
        output.simulated("evidence: it protects nothing")
    text = json.dumps({"tee": found.tee, "evidence": dict(found.body)}, indent=2)
    if out is None:
        print(text, flush=True)
        return
    out.write_text(text + "\n", encoding="utf-8")
    output.say(f"wrote {found.tee} evidence to {out}")


# -- reading -----------------------------------------------------------------------------------------------------------
def _read(path: Path) -> bytes:
    """A file, or stdin for ``-``; what is too large is cut one byte past the limit, where it is refused."""
    if str(path) == "-":
        return sys.stdin.buffer.read(MAX_STORED_BYTES + 1)
    try:
        with path.open("rb") as file:
            return file.read(MAX_STORED_BYTES + 1)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise FileMissingError(f"{path}: not found, or not a file") from None


def _documents(path: Path) -> list[str]:
    """One collateral document, or all of a directory's."""
    if path.is_dir():
        return CollateralCache(path).documents()
    return [_read(path).decode("utf-8", "replace")]


def _endorsements(paths: Iterable[Path]) -> list[bytes]:
    """AMD's certificates and revocation lists in those of ``paths`` that are directories."""
    return [blob for path in paths if path.is_dir() for blob in CollateralCache(path).endorsements()]


def _policies(paths: Sequence[Path], values: Sequence[Path]) -> list[AppraisalPolicy | RegoPolicy]:
    """The policies of ``paths``. A Rego file has the first declarative one as its base, else the strict one."""
    references = read_reference_values(values)
    declarative = [read_policy(path, reference_values=references)[0] for path in paths if path.suffix != ".rego"]
    rego = [path for path in paths if path.suffix == ".rego"]
    base = next((one for one in declarative if isinstance(one, AppraisalPolicy)), None)
    found = [read_policy(path, base=base, reference_values=references)[0] for path in rego]
    if references and not any(isinstance(one, RegoPolicy) for one in (*declarative, *found)):
        raise UsageError("--reference-values: only policies in Rego ask for them")
    return [*(one for one in declarative if not (rego and one is base)), *found]


def _hex(text: str, what: str) -> bytes:
    try:
        return bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        raise ChallengeFormError(f"{what}: not hexadecimal") from None


def _moment(text: str | None) -> datetime:
    if text is None:
        return datetime.now(UTC)
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise UsageError(f"--at: expected a time as 2025-06-20T12:00:00Z, got {text[:40]!r}") from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _explain(judgement: Judgement) -> None:
    """The one line and the hint that every refusal gives."""
    reason = judgement.reason
    heading = red(f"{judgement.outcome}:", sys.stderr)
    if reason is None:
        print(f"{heading} {judgement.code}", file=sys.stderr, flush=True)
        return
    said = (
        reason.got if reason.clause == "evidence" else f"{reason.clause} expected {reason.expected}, got {reason.got}"
    )
    print(f"{heading} {reason.code}: {one_line(said)}\nhint: {one_line(reason.fix)}", file=sys.stderr, flush=True)
