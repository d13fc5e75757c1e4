"""``casemate policy``: check, explain and try appraisal policies; bring them to the broker; its floors."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from casemate.attestation.claims import Claims
from casemate.attestation.clauses import Clause
from casemate.attestation.policy import Appraisal, AppraisalPolicy, Outcome, default_policy, policy_schema
from casemate.attestation.rego import RegoPolicy
from casemate.cli.app import FormatOption, epilog, subcommand
from casemate.cli.judgement import clause_lines
from casemate.cli.output import Format, Output, one_line, table, terminal_width
from casemate.cli.owner import Owners
from casemate.cli.policy import read_policy, read_reference_values, read_text
from casemate.errors import UsageError
from casemate.settings import Settings

__all__ = ["app"]

app = subcommand("Check, explain and try appraisal policies; bring them to the broker; its floors.")
floor = subcommand("Policies that have to hold beside those of grants: the broker's, and those of single owners.")
app.add_typer(floor, name="floor")

_STATUS = {Outcome.ACCEPTED: 0, Outcome.REFUSED: 1, Outcome.UNDECIDED: 3}
_QUERIED = re.compile(r"""query_reference_value\(\s*"([^"]+)"|data\.reference\.(\w+)""")
PolicyArgument = Annotated[Path, typer.Argument(metavar="POLICY", help="YAML, or Rego (`.rego`).", show_default=False)]
ValuesOption = Annotated[
    list[Path] | None,
    typer.Option("--reference-values", metavar="JSON", help="Name to value or list, for Rego. Repeatable."),
]
OwnerOption = Annotated[
    str | None, typer.Option("--owner", metavar="NAME", help="The floor of this owner's datasets [default: of all].")
]
AsOption = Annotated[
    str | None, typer.Option("--as", metavar="NAME", help="The identity to act as [default: the administrator].")
]


class Expected(StrEnum):
    """What every result has to come out as."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNDECIDED = "undecided"


@app.callback()
def _group() -> None:
    """Check, explain and try appraisal policies; bring them to the broker; its floors."""


@app.command(epilog=epilog("casemate policy check prod.yaml", "casemate policy check gate.rego --format json"))
def check(policy: PolicyArgument, values: ValuesOption = None, format: FormatOption = Format.TEXT) -> None:
    """Read a policy and print its name, language and digest, which grants name; warn of what it relaxes.

    A policy that cannot be read is wrong usage (exit status 2), and the message names the member."""
    output = Output(format)
    found, _ = _read(policy, values)
    for warning in _relaxed(found):
        output.warn(warning)
    output.data(
        {"name": found.name, "language": _language(found), "digest": found.digest, "relaxes": _relaxed(found)},
        f"{found.name}  {_language(found)}  {found.digest}",
    )


@app.command(
    epilog=epilog("casemate policy explain", "casemate policy explain prod.yaml", "casemate policy explain gate.rego")
)
def explain(
    policy: Annotated[
        Path | None, typer.Argument(metavar="POLICY", help="YAML or Rego [default: the strict one].")
    ] = None,
    values: ValuesOption = None,
    format: FormatOption = Format.TEXT,
) -> None:
    """Say what a policy demands: every clause and guard with what it expects.

    Of a policy in Rego: its base, the rule that decides, and the reference values it asks for."""
    output = Output(format)
    found: AppraisalPolicy | RegoPolicy = default_policy() if policy is None else _read(policy, values)[0]
    base = found.base if isinstance(found, RegoPolicy) else found
    demands = [_demand(c) for c in _demanded(base)]
    asked = _asked(found)
    output.data(
        {
            "name": found.name,
            "language": _language(found),
            "digest": found.digest,
            "relaxes": _relaxed(found),
            "demands": demands,
            **({"rule": found.form.rule, "reference_values": asked} if isinstance(found, RegoPolicy) else {}),
        },
        lambda: "\n".join(_explained(found, demands, asked)),
    )


@app.command(
    "test",
    epilog=epilog(
        "casemate attest verify quote.bin --collateral c.json --format json > result.json",
        "casemate policy test prod.yaml result.json",
        "casemate policy test prod.yaml stored/*.json --expect refused",
        exits={0: "every result came out as expected", 1: "one did not", 3: "one is undecided"},
    ),
)
def try_(
    policy: PolicyArgument,
    results: Annotated[
        list[Path],
        typer.Argument(metavar="RESULT...", help="What `attest verify --format json` printed.", show_default=False),
    ],
    expect: Annotated[Expected, typer.Option("--expect", help="What each has to come out as.")] = Expected.ACCEPTED,
    at: Annotated[str | None, typer.Option("--at", metavar="ISO-8601", help="The time to judge at.")] = None,
    values: ValuesOption = None,
    format: FormatOption = Format.TEXT,
) -> None:
    """Try a policy on stored results: would evidence that was seen before be accepted under it?

    It judges claims alone. For evidence itself, signatures included, use `casemate attest verify --policy`."""
    output = Output(format)
    found, _ = _read(policy, values)
    now = _moment(at)
    rows = [(path, *_judged(found, path, now)) for path in results]
    output.data(
        [{"file": str(path), "verified": verified, **a.to_json()} for path, a, verified in rows],
        lambda: "\n".join(_tried(rows)),
    )
    for path, _, verified in rows:
        if not verified:
            output.warn(f"{path}: its claims were never verified")
    wrong = [a.outcome for _, a, _ in rows if str(a.outcome) != str(expect)]
    if not wrong:
        raise typer.Exit(0)
    raise typer.Exit(3 if set(wrong) == {Outcome.UNDECIDED} else 1)


@app.command(epilog=epilog("casemate policy schema > policy.schema.json"))
def schema(format: FormatOption = Format.TEXT) -> None:
    """Print the JSON Schema of declarative policies, for editors; JSON in either format."""
    found = policy_schema()
    Output(format).data(found, lambda: json.dumps(found, indent=2))


# -- at the broker -----------------------------------------------------------------------------------------------------
@app.command(epilog=epilog("casemate policy add prod.yaml", "casemate policy add gate.rego --reference-values r.json"))
def add(
    policy: PolicyArgument, values: ValuesOption = None, as_: AsOption = None, format: FormatOption = Format.TEXT
) -> None:
    """Bring a policy to the broker, which knows it by its digest from then on."""
    _, text = _read(policy, values)
    with Owners(Settings.load()) as owners:
        view = _as(owners, as_).add_policy(text)
    Output(format).data(view, f"{view['name']}  {view['digest']}")


@app.command("list", epilog=epilog("casemate policy list"))
def list_(as_: AsOption = None, format: FormatOption = Format.TEXT) -> None:
    """List the policies that the broker knows."""
    with Owners(Settings.load()) as owners:
        found = _as(owners, as_).policies()
    rows = [(one["name"], one["digest"], one["created"]) for one in found]
    Output(format).data(found, lambda: table(rows, ("policy", "digest", "since")))


@app.command(epilog=epilog("casemate policy show 9f2c… > prod.yaml"))
def show(
    digest: Annotated[str, typer.Argument(metavar="DIGEST", help="At least its first 8 digits.", show_default=False)],
    as_: AsOption = None,
    format: FormatOption = Format.TEXT,
) -> None:
    """Print a policy that the broker knows, as it came in."""
    with Owners(Settings.load()) as owners:
        client = _as(owners, as_)
        view = client.policy(_whole(digest, [str(one["digest"]) for one in client.policies()]))
    Output(format).data(view, str(view["yaml"]).rstrip("\n"))


@floor.command(
    "set", epilog=epilog("casemate policy floor set least.yaml", "casemate policy floor set eu.yaml --owner clinic")
)
def set_(
    policy: PolicyArgument, owner: OwnerOption = None, values: ValuesOption = None, format: FormatOption = Format.TEXT
) -> None:
    """Make a policy the floor of the broker, or of one owner, as its administrator.

    From then on it has to hold for every release beside the grant's own policy, under grants that exist as well."""
    output = Output(format)
    found, text = _read(policy, values)
    with Owners(Settings.load()) as owners:
        client = owners.admin()
        view = client.set_floor(str(client.add_policy(text)["digest"]), owner)
    for warning in _relaxed(found):
        output.say(f"note: {warning}; a grant's own policy still decides about that")
    output.data(view, f"{_scope(view)}: {view['name']}  {view['digest']}")


@floor.command("show", epilog=epilog("casemate policy floor show"))
def show_floor(as_: AsOption = None, format: FormatOption = Format.TEXT) -> None:
    """Show the floors: an owner sees the broker's and their own, an administrator all."""
    with Owners(Settings.load()) as owners:
        found = _as(owners, as_).floors()
    rows = [(_scope(one), one["name"], one["digest"], one["since"]) for one in found]
    Output(format).data(found, lambda: table(rows, ("floor of", "policy", "digest", "since")))


@floor.command("clear", epilog=epilog("casemate policy floor clear", "casemate policy floor clear --owner clinic"))
def clear(owner: OwnerOption = None, format: FormatOption = Format.TEXT) -> None:
    """Take the floor of the broker, or of one owner, away, as the broker's administrator."""
    with Owners(Settings.load()) as owners:
        owners.admin().clear_floor(owner)
    Output(format).say(f"no floor any more: {owner or 'the broker'}")


# -- reading and telling -----------------------------------------------------------------------------------------------
def _read(path: Path, values: list[Path] | None) -> tuple[AppraisalPolicy | RegoPolicy, str]:
    return read_policy(path, reference_values=read_reference_values(values or ()))


def _as(owners: Owners, name: str | None) -> Any:
    return owners.reader() if name is None else owners.client(name)


def _whole(prefix: str, digests: list[str]) -> str:
    begin = prefix.rstrip("….").lower()
    found = [digest for digest in digests if digest.startswith(begin)]
    if len(begin) < 8 or len(found) != 1:
        raise UsageError(f"digest {prefix[:70]}: {len(found)} policies begin so; need one, by at least 8 digits")
    return found[0]


def _scope(view: Mapping[str, Any]) -> str:
    return "the broker" if view["owner"] is None else str(view["owner"])


def _language(policy: AppraisalPolicy | RegoPolicy) -> str:
    return f"Rego, package {policy.form}" if isinstance(policy, RegoPolicy) else "declarative"


def _relaxed(policy: AppraisalPolicy | RegoPolicy) -> list[str]:
    base = policy.base if isinstance(policy, RegoPolicy) else policy
    statuses = [s for s in (base.tcb.statuses or () if base.tcb else ()) if s != "UpToDate"]
    told = [
        ("accepts SIMULATED evidence", base.allow_simulated),
        ("accepts debug mode", base.insecure_allow_debug),
        (f"accepts the attributes {', '.join(base.allow_attributes)}", bool(base.allow_attributes)),
        (f"accepts the TCB statuses {', '.join(statuses)}", bool(statuses)),
    ]
    return [text for text, holds in told if holds]


def _demanded(policy: AppraisalPolicy) -> tuple[Clause, ...]:
    """The policy's clauses, judged against claims that say nothing."""
    nothing = Claims(platform="tdx", simulated=False, debug=False)
    return policy.appraise(nothing, now=datetime.now(UTC)).clauses


def _demand(c: Clause) -> dict[str, Any]:
    expected = "not expired at the time of the appraisal" if c.clause == "collateral" else c.expected
    out: dict[str, Any] = {"clause": c.clause, "expected": expected, "fix": c.fix, "code": c.code}
    return {**out, "parts": [_demand(part) for part in c.parts]} if c.parts else out


def _asked(policy: AppraisalPolicy | RegoPolicy) -> dict[str, bool]:
    """The reference values that a Rego text names, and whether each is given."""
    if not isinstance(policy, RegoPolicy):
        return {}
    code = "\n".join(line for line in policy.text.splitlines() if not line.lstrip().startswith("#"))
    names = dict.fromkeys(a or b for a, b in _QUERIED.findall(code))
    return {name: name in policy.reference_values for name in names}


def _explained(
    policy: AppraisalPolicy | RegoPolicy, demands: list[dict[str, Any]], asked: Mapping[str, bool]
) -> list[str]:
    lines = [f"policy {policy.name} ({_language(policy)})", f"digest {policy.digest}", "", "accepts evidence only when"]
    lines += _demand_lines(demands, "  ")
    if isinstance(policy, RegoPolicy):
        trust = "executables and hardware 2 to 31, every other 2 to 31 or 0"
        wanted = "is true" if policy.form.rule.endswith("allow") else f"is affirming: {trust}"
        lines += [f"  and {policy.form.rule} {wanted}"]
        if asked:
            lines += ["", "asks for the reference values"]
            lines += [f"  {name}{'' if given else '  (not given)'}" for name, given in asked.items()]
    if relaxed := _relaxed(policy):
        lines += ["", "relaxes", *(f"  {text}" for text in relaxed)]
    return lines


def _demand_lines(demands: list[dict[str, Any]], indent: str) -> list[str]:
    width = max((len(one["clause"]) for one in demands), default=0)
    out = []
    for one in demands:
        out.append(f"{indent}{one['clause']:<{width}}  {one_line(one['expected'], 300)}")
        out += _demand_lines(one.get("parts") or [], indent + "  ")
    return out


def _judged(policy: AppraisalPolicy | RegoPolicy, path: Path, now: datetime) -> tuple[Appraisal, bool]:
    text = sys.stdin.read() if str(path) == "-" else read_text(path, "result")
    try:
        found = json.loads(text)
        said = dict(found.get("claims", found))
        verified = bool(said.pop("verified", False))
        claims = Claims.from_json(said)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise UsageError(f"{path}: not a result of `attest verify --format json` ({type(exc).__name__})") from exc
    return policy.appraise(claims, now=now), verified


def _tried(rows: list[tuple[Path, Appraisal, bool]]) -> list[str]:
    lines = []
    for path, appraisal, _ in rows:
        lines.append(f"{appraisal.outcome}  {path}" + (f"  {appraisal.code}" if appraisal.code else ""))
        lines += clause_lines(appraisal.failed, terminal_width())
    return lines


def _moment(text: str | None) -> datetime:
    try:
        moment = datetime.now(UTC) if text is None else datetime.fromisoformat(text.strip())
    except ValueError:
        raise UsageError(f"--at: expected a time as 2025-06-20T12:00:00Z, got {text!r}"[:120]) from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
