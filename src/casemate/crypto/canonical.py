"""RFC 8785 canonical JSON and digests over it: the same bytes whoever serialises."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

import rfc8785

from casemate.errors import UsageError

__all__ = ["canonical_json", "sha256_hex", "sha384_hex"]

_LARGEST: Final = 2**53 - 1
_LEAVES: Final = frozenset({str, bool, type(None)})
_encode: Final = json.JSONEncoder(
    ensure_ascii=False, check_circular=False, sort_keys=True, separators=(",", ":")
).encode


def canonical_json(value: Any) -> bytes:
    """``value`` as RFC 8785 JSON; raises ``UsageError`` for what that form cannot hold (NaN, integers over 2**53)."""
    try:
        # The standard library's encoder, in C, writes the very same for all but numbers with a fraction and the order
        # of keys that are not ASCII.
        return _encode(value).encode() if _is_plain(value) else rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeError, RecursionError) as exc:
        raise UsageError(f"not expressible as RFC 8785 JSON: {exc}") from exc


def _is_plain(value: Any) -> bool:
    """Whether there is nothing in ``value`` but text, booleans, null, safe integers, lists, and objects in ASCII."""
    kind = type(value)
    if kind is dict:
        for key, item in value.items():
            if type(key) is not str or not key.isascii():
                return False
            if type(item) not in _LEAVES and not _is_plain(item):
                return False
        return True
    if kind is list or kind is tuple:
        return all(map(_is_plain, value))
    return isinstance(value, str) or kind in _LEAVES or (kind is int and -_LARGEST <= value <= _LARGEST)


def sha384_hex(value: Any) -> str:
    """SHA-384 over the canonical JSON of ``value``, 96 hex digits."""
    return hashlib.sha384(canonical_json(value)).hexdigest()


def sha256_hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
