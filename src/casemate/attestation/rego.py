"""Appraisal policies in Rego, beside a declarative one: the same ``appraise``, the same clauses. No I/O, no clock here.

A Rego policy can only narrow: the clauses and guards of ``base`` (strict unless another is given) hold as well. Two
forms are read. *Ours*: ``package casemate.policy`` with a rule ``allow``; only ``true`` is true, not ``"true"``, not 1,
not undefined. *Trustee's* (confidential-containers): ``package policy`` with ``trust_claims``, an AR4SI vector, of
which ``executables`` and ``hardware`` have to be affirming (2 to 31) and every other affirming or no assertion (0); its
``extensions`` go into tokens of accepted evidence, if their names begin with ``ear.trustee.``.
Both may call ``query_reference_value(id)`` or read ``data.reference``. An engine evaluates, see ``rego_worker``; its
failures refuse. How such a policy is stored and named by a grant: ``policies``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from casemate.attestation.ar4si import tier_of
from casemate.attestation.claims import Claims
from casemate.attestation.clauses import Clause, clause, fold
from casemate.attestation.errors import AppraisalRefusedError, MalformedPolicyError
from casemate.attestation.policy import MAX_POLICY_SIZE, Appraisal, AppraisalPolicy, Outcome, default_policy
from casemate.attestation.rego_input import casemate_input, trustee_inputs
from casemate.crypto.canonical import canonical_json
from casemate.errors import CasemateError

__all__ = [
    "Evaluation",
    "RegoEngine",
    "RegoFailedError",
    "RegoForm",
    "RegoPolicy",
    "RegoRefusedError",
    "RegoTimeoutError",
    "RegoTrustClaimError",
    "RegoUnavailableError",
]

_PACKAGE = re.compile(r"^\s*package\s+([A-Za-z_][\w.]*)\s*(?:#.*)?$", re.MULTILINE)
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_NEEDED = ("executables", "hardware")
_EXTENSIONS = re.compile(r"^\s*(default\s+)?extensions\b", re.MULTILINE)
_EXTENSION_NAME = re.compile(r"ear\.trustee\.[a-z0-9._-]{1,64}")  # never a member that this verifier writes
_MAX_EXTENSIONS_SIZE = 16 * 1024  # bytes
_AFFIRMING = range(2, 32)  # draft-ietf-rats-ar4si 2.3.2


class RegoRefusedError(AppraisalRefusedError):
    """A Rego policy did not answer ``true``."""

    code = "rego-refused"
    fix = "Evaluate the policy's rule `allow` on the claims shown beside it; undefined is a refusal too."


class RegoTrustClaimError(AppraisalRefusedError):
    """A Rego policy gave a trust claim that is not affirming."""

    code = "rego-trust-claim"
    fix = "Look the value up in AR4SI; most often a reference value is missing, or of another release."


class RegoFailedError(AppraisalRefusedError):
    """A Rego policy could not be evaluated, or its answer is not of the form it must have."""

    code = "rego-failed"
    fix = "Correct the policy as the message says; `casemate policy check` reads it without evidence."


class RegoUnavailableError(AppraisalRefusedError):
    """A policy is in Rego, and the engine that evaluates it is not installed where it has to be evaluated."""

    code = "rego-unavailable"
    http_status = 501
    fix = "Install the extra there (`pip install 'casemate[rego]'`), or use a declarative policy."


class RegoTimeoutError(AppraisalRefusedError):
    """A Rego policy was not evaluated within its deadline."""

    code = "rego-timeout"
    fix = "Simplify the policy: loops over all pairs of a large list are the usual cause."


class RegoForm(StrEnum):
    """What a policy's package says it is."""

    CASEMATE = "casemate.policy"
    TRUSTEE = "policy"

    @property
    def rule(self) -> str:
        return "data.casemate.policy.allow" if self is RegoForm.CASEMATE else "data.policy.trust_claims"


@dataclass(frozen=True)
class Evaluation:
    """The value of a rule, ``None`` when undefined; ``unknown``: the reference values it asked for in vain."""

    value: Any
    unknown: tuple[str, ...] = ()


class RegoEngine(Protocol):
    """Evaluates Rego with a deadline, without network or disk."""

    def check(self, policy: str) -> None:
        """Raise ``MalformedPolicyError`` for what is not Rego."""
        ...

    def evaluate(
        self, policy: str, rule: str, *, document: Mapping[str, Any], reference_values: Mapping[str, Any]
    ) -> Evaluation:
        """Evaluate ``rule``; raises ``RegoFailedError``, ``RegoTimeoutError`` or ``RegoUnavailableError``."""
        ...


@dataclass(frozen=True)
class RegoPolicy:
    """A policy of either form. Make one with ``parse``; judge claims with ``appraise``."""

    name: str
    text: str
    form: RegoForm
    engine: RegoEngine
    base: AppraisalPolicy
    reference_values: Mapping[str, Any] = field(default_factory=dict)
    events: Sequence[Mapping[str, Any]] = ()
    init_data: Mapping[str, Any] | None = None

    @classmethod
    def parse(
        cls,
        name: str,
        text: str,
        engine: RegoEngine,
        *,
        base: AppraisalPolicy | None = None,
        reference_values: Mapping[str, Any] | None = None,
        known_good: bool = False,
    ) -> RegoPolicy:
        """Read a policy; raises ``MalformedPolicyError``. ``reference_values``: id -> value or list of values.

        ``known_good``: it was read before, so the engine is not asked until claims are appraised."""
        if not _NAME.fullmatch(name):
            raise MalformedPolicyError(
                f"Rego policy name {name[:64]!r}: need lower-case letters, digits, '.', '_', '-'"
            )
        if len(text) > MAX_POLICY_SIZE:
            raise MalformedPolicyError(f"Rego policy: got {len(text)} characters, need at most {MAX_POLICY_SIZE}")
        found = _PACKAGE.search(text)
        if found is None or found[1] not in list(RegoForm):
            got = "none" if found is None else found[1]
            raise MalformedPolicyError(f"Rego policy: package expected {' or '.join(RegoForm)}, got {got}")
        if not known_good:
            engine.check(text)
        return cls(name, text, RegoForm(found[1]), engine, base or default_policy(), dict(reference_values or {}))

    @property
    def digest(self) -> str:
        """SHA-256 over everything that decides: text, reference values and base policy; hex."""
        bound = {"base": self.base.document, "reference_values": dict(self.reference_values), "rego": self.text}
        return hashlib.sha256(canonical_json(bound)).hexdigest()

    @property
    def allow_simulated(self) -> bool:
        """Whether simulated evidence can be accepted: what ``base`` says."""
        return self.base.allow_simulated

    def beside(
        self, *, events: Sequence[Mapping[str, Any]] = (), init_data: Mapping[str, Any] | None = None
    ) -> RegoPolicy:
        """The same policy with what came beside the evidence and was checked against it, for its rules to read."""
        return replace(self, events=tuple(events), init_data=init_data)

    def appraise(self, claims: Claims, *, now: datetime) -> Appraisal:
        """Judge ``claims``: accepted only when every clause of the base policy and the Rego policy hold.

        The Rego policy is not asked about claims that the base policy refuses."""
        clauses = self.base.appraise(claims, now=now).clauses
        vector: Mapping[str, int] | None = None
        extensions: Mapping[str, Any] = {}
        if fold(clauses) is True:
            more, vector, extensions = self._ask(claims)
            clauses = (*clauses, *more)
        folded = fold(clauses)
        outcome = Outcome.ACCEPTED if folded else Outcome.UNDECIDED if folded is None else Outcome.REFUSED
        said = extensions if outcome is Outcome.ACCEPTED else {}  # of what was refused, nothing looks validated
        return Appraisal(outcome, clauses, self.name, self.digest, vector, said)

    def _ask(self, claims: Claims) -> tuple[tuple[Clause, ...], Mapping[str, int] | None, Mapping[str, Any]]:
        extensions: Mapping[str, Any] = {}
        try:
            if self.form is RegoForm.CASEMATE:
                return (_allow(self._evaluate(casemate_input(claims, init_data=self.init_data))),), None, {}
            documents = trustee_inputs(claims, events=self.events, init_data=self.init_data)
            found = [self._evaluate(document) for document in documents]
            if _EXTENSIONS.search(self.text):  # of the machine itself, whose document is the first
                extensions = _extensions(self._evaluate(documents[0], "data.policy.extensions").value)
        except CasemateError as exc:
            reason = type(exc) if isinstance(exc, AppraisalRefusedError) else RegoFailedError
            return (clause("rego", reason, expected="an answer in time", got=exc.message, holds=False),), None, {}
        prefixes = [""] if len(found) == 1 else [f"device{n}." for n in range(len(found))]
        out = [c for prefix, one in zip(prefixes, found, strict=True) for c in _trust_claims(one, prefix)]
        return tuple(out), _worst([one.value for one in found]), extensions

    def _evaluate(self, document: Mapping[str, Any], rule: str | None = None) -> Evaluation:
        return self.engine.evaluate(
            self.text, rule or self.form.rule, document=document, reference_values=self.reference_values
        )


def _in_vain(evaluation: Evaluation) -> str:
    names = ", ".join(evaluation.unknown[:8]) + (" …" if len(evaluation.unknown) > 8 else "")
    return f"; no reference value {names}" if names else ""


def _allow(evaluation: Evaluation) -> Clause:
    value = evaluation.value
    got = "undefined" if value is None else repr(value)[:200]
    holds = value is True
    got += "" if holds else _in_vain(evaluation)
    return clause("rego.allow", RegoRefusedError, expected="true", got=got, holds=holds)


def _trust_claims(evaluation: Evaluation, prefix: str) -> tuple[Clause, ...]:
    value = evaluation.value
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        got = "undefined" if value is None else type(value).__name__
        expected = "an object of trust claims"
        name = f"rego.{prefix}trust_claims"
        return (clause(name, RegoFailedError, expected=expected, got=got, holds=False),)
    out = []
    for name in sorted({*value, *_NEEDED}):
        found, needed = value.get(name), name in _NEEDED
        holds = _is_whole(found) and (found in _AFFIRMING or (found == 0 and not needed))
        expected = "2 to 31 (affirming)" if needed else "2 to 31 (affirming), or 0 (no assertion)"
        got = "undefined" if found is None else f"{found!r}"[:60] + _tier_named(found)
        got += "" if holds else _in_vain(evaluation)
        out.append(clause(f"rego.{prefix}{name}", RegoTrustClaimError, expected=expected, got=got, holds=holds))
    return tuple(out)


def _extensions(value: Any) -> dict[str, Any]:
    """What a policy adds to the token: a list of ``{"name", "key", "value"}``; raises ``RegoFailedError``."""
    if value is None:
        return {}
    if not isinstance(value, list) or not all(isinstance(one, dict) and "value" in one for one in value):
        raise RegoFailedError("Rego policy: extensions: need a list of objects with name and value")
    names = [one.get("name") for one in value]
    for name in names:
        if not isinstance(name, str) or not _EXTENSION_NAME.fullmatch(name):
            raise RegoFailedError(f"Rego policy: extensions: name {str(name)[:64]!r}, need ear.trustee.…")
    if len(set(names)) < len(names) or len(json.dumps(value)) > _MAX_EXTENSIONS_SIZE:
        raise RegoFailedError(f"Rego policy: extensions: need each name once, and {_MAX_EXTENSIONS_SIZE} bytes at most")
    return {str(one["name"]): one["value"] for one in value}


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _tier_named(value: Any) -> str:
    return f" ({tier_of(value)})" if _is_whole(value) and -128 <= value <= 127 else ""


def _worst(vectors: Sequence[Any]) -> dict[str, int] | None:
    """Of several devices' vectors, the worst value of each claim; ``None`` when one is no vector."""
    ranks = ("affirming", "none", "warning", "contraindicated")
    out: dict[str, int] = {}
    for vector in vectors:
        if not isinstance(vector, dict) or not all(_is_whole(v) and -128 <= v <= 127 for v in vector.values()):
            return None
        for name, value in vector.items():
            out[name] = max((out.get(name, value), value), key=lambda one: ranks.index(tier_of(one)))
    return out
