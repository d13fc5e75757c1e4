"""Policies of either language by one door: read a document, know its digest, appraise. No network, disk or clock.

A document is YAML. With a member ``rego`` it carries a Rego policy and everything it is decided with; else it is a
declarative policy. So either can be stored, named by its digest in a grant, and appraised alike::

    version: 1
    name: coco-release
    rego: |
      package policy
      ...
    reference_values: {mr_td: [...]}
    base: {allow_simulated: false, tcb: {statuses: [UpToDate]}}   # optional; strict when left out
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import PurePath
from typing import Any, Protocol

import yaml

from casemate.attestation.claims import Claims
from casemate.attestation.errors import MalformedPolicyError
from casemate.attestation.policy import Appraisal, AppraisalPolicy, read_document
from casemate.attestation.rego import RegoEngine, RegoPolicy
from casemate.crypto.canonical import canonical_json
from casemate.errors import UsageError

__all__ = ["Policy", "document_of", "parse_policy", "parse_reference_values", "policy_name", "rego_policy"]

_MEMBERS = frozenset({"version", "name", "description", "rego", "reference_values", "base"})
_MAX_REFERENCE_VALUES = 4096
_MAX_REFERENCE_SIZE = 1024 * 1024  # characters


class Policy(Protocol):
    """An appraisal policy in either language."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str:
        """SHA-256 over everything that decides, hex: what a grant names."""
        ...

    @property
    def allow_simulated(self) -> bool:
        """Whether simulated evidence can be accepted at all."""
        ...

    def appraise(self, claims: Claims, *, now: datetime) -> Appraisal:
        """Judge ``claims`` at ``now``."""
        ...


def parse_policy(text: str, engine: RegoEngine, *, known_good: bool = False) -> AppraisalPolicy | RegoPolicy:
    """Read a document; raises ``MalformedPolicyError``, and for Rego what ``RegoPolicy.parse`` raises.

    ``known_good``: it was read before; the Rego engine is not asked until claims are appraised."""
    document = read_document(text)
    if not isinstance(document, dict) or "rego" not in document:
        return AppraisalPolicy.from_document(document)
    unknown = sorted(map(str, document.keys() - _MEMBERS))
    if unknown:
        raise MalformedPolicyError(f"policy: {unknown[0]}: not a member of a Rego policy document")
    name, rego, values = document.get("name"), document["rego"], document.get("reference_values")
    if document.get("version") != 1 or not isinstance(name, str) or not isinstance(rego, str):
        raise MalformedPolicyError("policy: a Rego policy document needs version: 1, a name, and its text under rego")
    return rego_policy(name, rego, engine, base=document.get("base"), reference_values=values, known_good=known_good)


def rego_policy(
    name: str,
    text: str,
    engine: RegoEngine,
    *,
    base: object = None,
    reference_values: object = None,
    known_good: bool = False,
) -> RegoPolicy:
    """A Rego policy from its parts; ``base`` is a declarative policy, as a document or read, strict when ``None``."""
    if base is not None and not isinstance(base, AppraisalPolicy):
        if not isinstance(base, Mapping):
            raise MalformedPolicyError("policy: base: need a declarative policy")
        base = AppraisalPolicy.from_document({"version": 1, "name": f"{name[:58]}-base", **base})
    values = _checked_values({} if reference_values is None else reference_values)
    return RegoPolicy.parse(name, text, engine, base=base, reference_values=values, known_good=known_good)


def document_of(policy: AppraisalPolicy | RegoPolicy) -> str:
    """The document that ``parse_policy`` reads back to a policy of the same digest."""
    if isinstance(policy, AppraisalPolicy):
        return yaml.safe_dump(policy.document, sort_keys=False, allow_unicode=True, width=10_000)
    whole = {"version": 1, "name": policy.name, "base": policy.base.document, "rego": policy.text}
    return json.dumps({**whole, "reference_values": dict(policy.reference_values)}, indent=1)


def parse_reference_values(text: str) -> dict[str, Any]:
    """Reference values from JSON: an object of name -> value or list of values; raises ``MalformedPolicyError``.

    A list of ``{"name", "value"}`` objects is read alike."""
    if len(text) > _MAX_REFERENCE_SIZE:
        raise MalformedPolicyError(f"reference values: {len(text)} characters, at most {_MAX_REFERENCE_SIZE}")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise MalformedPolicyError(f"reference values: not JSON: {exc}") from exc
    if isinstance(found, list):
        if not all(isinstance(one, dict) and set(one) == {"name", "value"} for one in found):
            raise MalformedPolicyError("reference values: need a JSON object, or a list of objects of name and value")
        found = {one["name"]: one["value"] for one in found}
    return _checked_values(found)


def policy_name(path: PurePath) -> str:
    """A policy's name from its file's."""
    name = re.sub(r"[^a-z0-9._-]+", "-", path.stem.lower().removesuffix(".rego")).strip("._-")[:63]
    return name or "policy"


def _checked_values(values: object) -> dict[str, Any]:
    if not isinstance(values, Mapping) or len(values) > _MAX_REFERENCE_VALUES:
        raise MalformedPolicyError(f"reference values: need an object of at most {_MAX_REFERENCE_VALUES} names")
    out = {str(name): value for name, value in values.items()}
    try:
        canonical_json(out)
    except UsageError as exc:
        raise MalformedPolicyError(f"reference values: {exc.message}") from exc
    return out
