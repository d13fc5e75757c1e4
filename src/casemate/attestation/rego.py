"""Appraisal policies in Rego, beside a declarative one: the same ``appraise``, the same clauses. No I/O, no clock here.

A Rego policy can only narrow: the clauses and guards of ``base`` (strict unless another is given) hold as well. Two
forms are read. *Ours*: ``package casemate.policy`` with a rule ``allow``; only ``true`` is true, not ``"true"``, not 1,
not undefined. *Trustee's* (confidential-containers): ``package policy`` with ``trust_claims``, an AR4SI vector, of
which ``executables`` and ``hardware`` have to be affirming (2 to 31) and every other affirming or no assertion (0).
Both may call ``query_reference_value(id)``. An engine evaluates, see ``rego_worker``; its failures refuse.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from casemate.attestation.claims import Claims
from casemate.attestation.clauses import Clause, clause, fold
from casemate.attestation.errors import AppraisalRefusedError, MalformedPolicyError
from casemate.attestation.policy import MAX_POLICY_SIZE, Appraisal, AppraisalPolicy, Outcome, default_policy
from casemate.attestation.rego_input import casemate_input, trustee_input
from casemate.crypto.canonical import canonical_json
from casemate.errors import CasemateError

__all__ = [
    "RegoEngine",
    "RegoFailedError",
    "RegoForm",
    "RegoPolicy",
    "RegoRefusedError",
    "RegoTimeoutError",
    "RegoTrustClaimError",
]

_PACKAGE = re.compile(r"^\s*package\s+([A-Za-z_][\w.]*)\s*(?:#.*)?$", re.MULTILINE)
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_NEEDED = ("executables", "hardware")
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
    fix = "Correct the policy as the message says; it needs the extra `casemate[rego]`."


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


class RegoEngine(Protocol):
    """Evaluates Rego with a deadline, without network or disk."""

    def check(self, policy: str) -> None:
        """Raise ``MalformedPolicyError`` for what is not Rego."""
        ...

    def evaluate(
        self, policy: str, rule: str, *, document: Mapping[str, Any], reference_values: Mapping[str, Any]
    ) -> Any:
        """The value of ``rule``, ``None`` when undefined; raises ``RegoFailedError`` or ``RegoTimeoutError``."""
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

    @classmethod
    def parse(
        cls,
        name: str,
        text: str,
        engine: RegoEngine,
        *,
        base: AppraisalPolicy | None = None,
        reference_values: Mapping[str, Any] | None = None,
    ) -> RegoPolicy:
        """Read a policy; raises ``MalformedPolicyError``. ``reference_values``: id -> value or list of values."""
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
        engine.check(text)
        return cls(name, text, RegoForm(found[1]), engine, base or default_policy(), dict(reference_values or {}))

    @property
    def digest(self) -> str:
        """SHA-256 over everything that decides: text, reference values and base policy; hex."""
        bound = {"base": self.base.document, "reference_values": dict(self.reference_values), "rego": self.text}
        return hashlib.sha256(canonical_json(bound)).hexdigest()

    def appraise(self, claims: Claims, *, now: datetime) -> Appraisal:
        """Judge ``claims``: accepted only when every clause of the base policy and the Rego policy hold.

        The Rego policy is not asked about claims that the base policy refuses."""
        clauses = self.base.appraise(claims, now=now).clauses
        if fold(clauses) is True:
            clauses = (*clauses, *self._rego_clauses(claims))
        folded = fold(clauses)
        outcome = Outcome.ACCEPTED if folded else Outcome.UNDECIDED if folded is None else Outcome.REFUSED
        return Appraisal(outcome, clauses, self.name, self.digest)

    def _rego_clauses(self, claims: Claims) -> tuple[Clause, ...]:
        try:
            document = casemate_input(claims) if self.form is RegoForm.CASEMATE else trustee_input(claims)
            value = self.engine.evaluate(
                self.text, self.form.rule, document=document, reference_values=self.reference_values
            )
        except CasemateError as exc:
            reason = type(exc) if isinstance(exc, AppraisalRefusedError) else RegoFailedError
            return (clause("rego", reason, expected="an answer in time", got=exc.message, holds=False),)
        if self.form is RegoForm.CASEMATE:
            got = "undefined" if value is None else repr(value)[:200]
            return (clause("rego.allow", RegoRefusedError, expected="true", got=got, holds=value is True),)
        return _trust_claims(value)


def _trust_claims(value: Any) -> tuple[Clause, ...]:
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        got = "undefined" if value is None else type(value).__name__
        expected = "an object of trust claims"
        return (clause("rego.trust_claims", RegoFailedError, expected=expected, got=got, holds=False),)
    out = []
    for name in sorted({*value, *_NEEDED}):
        found, needed = value.get(name), name in _NEEDED
        whole = isinstance(found, int) and not isinstance(found, bool)
        holds = whole and (found in _AFFIRMING or (found == 0 and not needed))
        expected = "2 to 31 (affirming)" if needed else "2 to 31 (affirming), or 0 (no assertion)"
        out.append(clause(f"rego.{name}", RegoTrustClaimError, expected=expected, got=repr(found)[:60], holds=holds))
    return tuple(out)
