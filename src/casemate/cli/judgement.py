"""A judgement on paper: the outcome, the claims that everybody asks for, every clause; wrapped to the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from casemate.attestation.appraise import Judgement
from casemate.attestation.claims import Claims
from casemate.attestation.clauses import Clause
from casemate.cli.output import one_line

__all__ = ["clause_lines", "page"]

_MAX = 400  # characters of one value
_UNVERIFIED = "UNVERIFIED: they only explain"


def page(judgement: Judgement, *, width: int | None = None) -> str:
    """The text of a judgement in lines of at most ``width`` characters (any number for ``None``)."""
    lines = [str(judgement.outcome) + (f": {judgement.code}" if judgement.code else "")]
    claims = judgement.claims
    if claims is not None:
        lines += ["", "claims" if judgement.verified else f"claims, {_UNVERIFIED}"]
        lines += _columns(_claims(claims, judgement.verified), width)
    lines += ["", "evidence", *clause_lines(judgement.own, width)]
    for name, clauses in _by_policy(judgement):
        told = f"policy {name}" if judgement.verified else f"policy {name}, on claims that are {_UNVERIFIED}"
        lines += ["", told, *clause_lines(clauses, width, decides=judgement.verified)]
    return "\n".join(lines)


def _by_policy(judgement: Judgement) -> Iterator[tuple[str, Sequence[Clause]]]:
    if len(judgement.policies) < 2:
        if judgement.rules:
            yield (judgement.policies or ("",))[0], judgement.rules
        return
    for name in dict.fromkeys(judgement.policies):
        yield name, [c for c in judgement.rules if c.policy == name]


def clause_lines(clauses: Sequence[Clause], width: int | None = None, *, decides: bool = True) -> list[str]:
    """A clause that holds in one line; one that does not with what was expected, what was got, and how to mend it.

    Clauses that do not decide, because nobody vouches for the claims, have their marks in parentheses and no fix."""
    flat = list(_flat(clauses, 0))
    column = min(max((len(c.clause) + 2 * depth for c, depth in flat), default=0), 32)
    out: list[str] = []
    for c, depth in flat:
        name = "  " * depth + c.clause
        mark = _mark(c) if decides else f"({_mark(c).lower()})"
        head = f"  {mark:<{4 if decides else 6}}{name:<{column}}  "
        if len(name) > column:
            out.append(head.rstrip())
            head = " " * (column + 8)
        if c.holds:
            out += _wrapped(head, one_line(c.got, _MAX), width)
            continue
        rest = " " * len(head)
        out += _wrapped(f"{head}expected  ", one_line(c.expected, _MAX), width)
        out += _wrapped(f"{rest}got       ", one_line(c.got, _MAX), width)
        if c.fix and decides and not c.parts:
            out += _wrapped(f"{rest}fix       ", one_line(c.fix, _MAX), width)
    return out


def _flat(clauses: Sequence[Clause], depth: int) -> Iterator[tuple[Clause, int]]:
    for c in clauses:
        yield c, depth
        yield from _flat(c.parts, depth + 1)


def _mark(c: Clause) -> str:
    return "ok" if c.holds else "??" if c.undecided else "NO"


def _claims(claims: Claims, verified: bool) -> list[tuple[str, str]]:
    tcb = claims.tcb
    rows: list[tuple[str, object]] = [
        ("verified", "yes" if verified else "NO"),
        ("platform", claims.platform + (" (SIMULATED)" if claims.simulated else "") + _kind(claims)),
        ("debug", "yes" if claims.debug else "no"),
        ("measurement", claims.measurement),
        ("signer", claims.signer),
        ("product id", claims.product_id),
        ("svn", claims.svn),
        *((f"rtmr{i}", value) for i, value in enumerate(claims.rtmr)),
        ("workload", claims.workload),
        ("report data", claims.report_data),
        ("tcb status", tcb.status),
        ("tcb date", tcb.date),
        ("advisories", ", ".join(tcb.advisories)),
        ("tcb", _levels(tcb.reported if claims.platform == "snp" else None)),
        ("platform id", claims.platform_id),
        ("vmpl", claims.vmpl),
        ("collateral until", claims.collateral_expires and claims.collateral_expires.isoformat()),
    ]
    return [(name, one_line(value, _MAX)) for name, value in rows if value not in (None, "")]


def _kind(claims: Claims) -> str:
    """What makes one platform's evidence differ from another's of the same name."""
    extra = claims.extra
    parts = [str(extra[name]) for name in ("product", "signing_key") if extra.get(name)]
    if "quote_version" in extra:
        parts.append(f"quote version {extra['quote_version']}")
    if "vtpm" in extra:
        parts.append("with an Azure vTPM")
    if extra.get("devices"):
        parts += sorted({str(device.get("architecture")) for device in extra["devices"]})
    return f" ({', '.join(parts)})" if parts else ""


def _levels(levels: object) -> str:
    return ", ".join(f"{name} {value}" for name, value in levels.items()) if isinstance(levels, dict) else ""


def _columns(rows: Sequence[tuple[str, str]], width: int | None) -> list[str]:
    column = max((len(name) for name, _ in rows), default=0)
    return [line for name, value in rows for line in _wrapped(f"  {name:<{column}}  ", value, width)]


def _wrapped(head: str, text: str, width: int | None) -> list[str]:
    """``text`` after ``head``, over as many lines as ``width`` asks for; long digests are broken into equal parts."""
    room = None if width is None else max(16, width - len(head))
    if room is None or len(text) <= room:
        return [f"{head}{text}".rstrip()]
    lines, line = [], ""
    for word in text.split(" "):
        for piece in _pieces(word, room):
            if line and len(line) + 1 + len(piece) > room:
                lines.append(line)
                line = piece
            else:
                line = f"{line} {piece}" if line else piece
    lines.append(line)
    return [(head if i == 0 else " " * len(head)) + one for i, one in enumerate(lines)]


def _pieces(word: str, room: int) -> list[str]:
    if len(word) <= room:
        return [word]
    count = -(-len(word) // room)
    size = -(-len(word) // count)
    size = min(room, size + (-size) % 8)  # digests are read in groups
    return [word[i : i + size] for i in range(0, len(word), size)]
