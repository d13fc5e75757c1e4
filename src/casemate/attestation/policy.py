"""Appraisal policies (RFC 9334 section 8.5): declarative, typed, bounded; every clause explains itself.

A policy is a YAML document. Its clauses can only narrow what is accepted; four built-in guards always apply, and a
policy relaxes one by naming it: not simulated, no debug, no unsafe attributes, TCB status UpToDate. Claims whose
collateral has expired are never accepted. No network, disk or clock.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from casemate.attestation import refusals
from casemate.attestation.claims import Claims
from casemate.attestation.clauses import Clause, Conditions, Word, clause, clauses_of, fold, status_clause
from casemate.attestation.errors import AppraisalRefusedError, CollateralExpiredError, MalformedPolicyError
from casemate.crypto.canonical import canonical_json
from casemate.errors import CasemateError, UsageError, error_class

__all__ = ["Appraisal", "AppraisalPolicy", "Clause", "Outcome", "default_policy", "policy_schema", "read_document"]

MAX_POLICY_SIZE = 256 * 1024  # characters
MAX_DEPTH = 12  # levels of nesting
_GUARDS = {"version", "name", "description", "allow_simulated", "insecure_allow_debug", "allow_attributes"}


class Outcome(StrEnum):
    """The three outcomes of an appraisal."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Appraisal:
    """What a policy says about claims: the outcome, and one explanation per clause.

    ``trust_vector``: AR4SI claims, where the policy itself gives them; ``extensions``: further members of the token."""

    outcome: Outcome
    clauses: tuple[Clause, ...]
    policy_name: str
    policy_digest: str
    trust_vector: Mapping[str, int] | None = None
    extensions: Mapping[str, Any] = field(default_factory=dict)

    @property
    def failed(self) -> tuple[Clause, ...]:
        """The clauses that do not hold; when the outcome is refused, those that refuse come first."""
        return tuple(sorted((c for c in self.clauses if not c.holds), key=lambda c: c.undecided))

    @property
    def codes(self) -> tuple[str, ...]:
        """The reasons, the first the main one; empty when accepted."""
        return tuple(dict.fromkeys(c.code for c in self.failed))

    @property
    def code(self) -> str | None:
        return self.codes[0] if self.codes else None

    def require(self) -> None:
        """Do nothing when accepted, else raise the error of the first reason."""
        if self.outcome is Outcome.ACCEPTED:
            return
        first = self.failed[0]
        cls: type[CasemateError] = error_class(first.code)
        if not issubclass(cls, AppraisalRefusedError | CollateralExpiredError):
            cls = AppraisalRefusedError
        more = f" (and {len(self.failed) - 1} more)" if len(self.failed) > 1 else ""
        raise cls(f"{first.clause} expected {first.expected}, got {first.got}{more}")

    def to_json(self) -> dict[str, Any]:
        return {
            "outcome": str(self.outcome),
            "code": self.code,
            "codes": list(self.codes),
            "policy": {"name": self.policy_name, "digest": self.policy_digest},
            "clauses": [c.to_json() for c in self.clauses],
            **({} if self.trust_vector is None else {"trust_vector": dict(self.trust_vector)}),
        }


class AppraisalPolicy(Conditions):
    """A policy as its author wrote it. Make one with ``from_yaml``; judge claims with ``appraise``."""

    model_config = ConfigDict(title="Casemate appraisal policy")

    version: Literal[1]
    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
    description: Annotated[str, StringConstraints(max_length=2000)] = ""
    allow_simulated: bool = False
    insecure_allow_debug: bool = False
    allow_attributes: Annotated[list[Word], Field(max_length=64)] = Field(default_factory=list)

    @classmethod
    def from_yaml(cls, text: str) -> AppraisalPolicy:
        """Read a policy; raises ``MalformedPolicyError``: an unknown key, a wrong type, or it demands nothing."""
        return cls.from_document(read_document(text))

    @classmethod
    def from_document(cls, document: object) -> AppraisalPolicy:
        """The same from a parsed document, as stored in JSON."""
        if not isinstance(document, dict) or not document:
            raise MalformedPolicyError("policy: empty; an empty policy accepts nothing")
        _check_depth(document)
        try:
            policy = cls.model_validate(document)
            policy.digest  # noqa: B018  (a number too large for canonical JSON shows here)
        except ValidationError as exc:
            first = exc.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "policy"
            raise MalformedPolicyError(f"policy: {where}: {first['msg']}{_hint(first)}") from exc
        except UsageError as exc:
            raise MalformedPolicyError(f"policy: {exc.message}") from exc
        if not _demands(policy):
            raise MalformedPolicyError(
                f"policy {policy.name}: demands nothing; name at least one clause (platforms, measurements, tcb, ...)"
            )
        return policy

    @property
    def document(self) -> dict[str, Any]:
        """What the author wrote, as plain JSON."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the RFC 8785 JSON of ``document``, hex: what a grant names."""
        return hashlib.sha256(canonical_json(self.document)).hexdigest()

    def appraise(self, claims: Claims, *, now: datetime) -> Appraisal:
        """Judge ``claims`` at ``now``. Accepted only when every clause and every guard holds."""
        clauses = (*self._guards(claims, now), *clauses_of(self, claims, now=now))
        folded = fold(clauses)
        outcome = Outcome.ACCEPTED if folded else Outcome.UNDECIDED if folded is None else Outcome.REFUSED
        return Appraisal(outcome, clauses, self.name, self.digest)

    def _guards(self, claims: Claims, now: datetime) -> Iterator[Clause]:
        yield clause(
            "allow_simulated",
            refusals.SimulatedEvidenceError,
            expected="real or SIMULATED" if self.allow_simulated else "a real platform",
            got="SIMULATED" if claims.simulated else "a real platform",
            holds=self.allow_simulated or not claims.simulated,
        )
        yield clause(
            "insecure_allow_debug",
            refusals.DebugEnabledError,
            expected="debug or not" if self.insecure_allow_debug else "no debug",
            got="debug" if claims.debug else "no debug",
            holds=self.insecure_allow_debug or not claims.debug,
        )
        yield from self._attribute_guards(claims)
        if self.tcb is None or self.tcb.statuses is None:
            yield status_clause(["UpToDate"], claims)
        expires = claims.collateral_expires
        yield clause(
            "collateral",
            refusals.ClaimsCollateralExpiredError,
            expected=f"not expired at {now.isoformat()}",
            got="has no expiry" if expires is None else f"good until {expires.isoformat()}",
            holds=expires is None or now <= expires,
        )

    def _attribute_guards(self, claims: Claims) -> Iterator[Clause]:
        said = claims.extra.get("unsafe_attributes") or ()
        set_ones = [str(name) for name in (said if isinstance(said, list | tuple) else (said,))]
        for name in set_ones:
            yield clause(
                f"allow_attributes.{name}",
                refusals.ATTRIBUTE_REASONS.get(name, refusals.AttributeNotAcceptedError),
                expected="allowed or not" if name in self.allow_attributes else "not set",
                got="set",
                holds=name in self.allow_attributes,
            )
        if not set_ones:
            reason = refusals.AttributeNotAcceptedError
            yield clause("allow_attributes", reason, expected="no unsafe attribute", got="none", holds=True)


def read_document(text: str) -> object:
    """A policy's YAML as plain values; raises ``MalformedPolicyError``."""
    if len(text) > MAX_POLICY_SIZE:
        raise MalformedPolicyError(f"policy: got {len(text)} characters, need at most {MAX_POLICY_SIZE}")
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  (a SafeLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as exc:
        raise MalformedPolicyError(f"policy: not YAML of the kind it needs: {' '.join(str(exc).split())}") from exc


def default_policy() -> AppraisalPolicy:
    """The strict built-in policy: real platform, no debug, TCB status UpToDate, nothing expired."""
    return AppraisalPolicy.model_validate({"version": 1, "name": "strict-default", "tcb": {"statuses": ["UpToDate"]}})


def policy_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a policy document."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **AppraisalPolicy.model_json_schema()}


def _demands(conditions: Conditions) -> bool:
    """Whether any clause is stated at all; relaxing a guard is not a demand.

    A block without one would always hold, and with it every ``any`` around it: ``MalformedPolicyError``."""
    stated = 0
    for name in conditions.model_fields_set - _GUARDS:
        value = getattr(conditions, name)
        if name in ("all_", "any_", "not_") and value is not None:
            blocks = [value] if isinstance(value, Conditions) else value
            if not all(_demands(block) for block in blocks):
                raise MalformedPolicyError(f"policy: a block under `{name[:-1]}` demands nothing")
            stated += 1
        elif isinstance(value, BaseModel):
            stated += any(getattr(value, part) is not None for part in value.model_fields_set)
        else:
            stated += value is not None
    return stated > 0


def _check_depth(value: object, depth: int = 0) -> None:
    if depth > MAX_DEPTH:
        raise MalformedPolicyError(f"policy: nested deeper than {MAX_DEPTH} levels")
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for child in children:
        _check_depth(child, depth + 1)


def _hint(error: Mapping[str, Any]) -> str:
    return "; quote it to make it text" if error["type"] == "string_type" else ""


class _Loader(yaml.SafeLoader):
    """YAML without surprises: no aliases, no duplicate keys, no dates, and only true and false are booleans."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        counts = Counter(str(key.value) for key, _ in node.value)
        if counts and counts.most_common(1)[0][1] > 1:
            raise yaml.YAMLError(f"key {counts.most_common(1)[0][0]!r} is given twice")
        return {str(key): value for key, value in super().construct_mapping(node, deep=True).items()}


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":merge", ":bool"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), list("tf"))
