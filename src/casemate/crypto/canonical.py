"""RFC 8785 canonical JSON and digests over it: the same bytes whoever serialises."""

from __future__ import annotations

import hashlib
from typing import Any

import rfc8785

from casemate.errors import UsageError

__all__ = ["canonical_json", "sha256_hex", "sha384_hex"]


def canonical_json(value: Any) -> bytes:
    """``value`` as RFC 8785 JSON; raises ``UsageError`` for what that form cannot hold (NaN, integers over 2**53)."""
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeError, RecursionError) as exc:
        raise UsageError(f"not expressible as RFC 8785 JSON: {exc}") from exc


def sha384_hex(value: Any) -> str:
    """SHA-384 over the canonical JSON of ``value``, 96 hex digits."""
    return hashlib.sha384(canonical_json(value)).hexdigest()


def sha256_hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
