"""Spoil a value: bytes and text by their places, JSON by its structure. Every mutation differs from the original."""

from __future__ import annotations

import copy
import random
from typing import Any

__all__ = ["mutate"]

_LENGTHS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x3FFFFFFF, 0x7FFFFFFF, 0xFFFFFFFF)  # 0x3FFFFFFF: one gigabyte
_SCALARS: tuple[Any, ...] = (
    None, True, False, 0, -1, 2**31, 2**63, 2**70, 1e308, "", "0", "\0", "é", "A" * 5000, [], {}, [[]], {"": None},
)  # fmt: skip


def mutate(source: random.Random, value: Any) -> Any:
    """Another value than ``value``, of the same type; ``bytes``, ``str`` or what JSON holds."""
    while True:
        changed = _once(source, value)
        if changed != value:
            return changed


def _once(source: random.Random, value: Any) -> Any:
    if isinstance(value, bytes):
        return _bytes(source, value)
    if isinstance(value, str):
        return _bytes(source, value.encode()).decode("utf-8", "replace")
    return _json(source, value)


def _bytes(source: random.Random, original: bytes) -> bytes:
    data = bytearray(original)
    for _ in range(source.choice((1, 1, 1, 2, 4))):
        at = source.randrange(len(data) + 1)
        size = source.choice((1, 2, 4, 8, 32, 200))
        match source.randrange(7):
            case 0 if at < len(data):
                data[at] ^= 1 << source.randrange(8)
            case 1:
                del data[at : at + size]
            case 2:
                data[at:at] = source.randbytes(size)
            case 3:
                data[at:at] = data[at : at + size]
            case 4:
                width = source.choice((1, 2, 4))
                number = source.choice(_LENGTHS) & ((1 << 8 * width) - 1)
                data[at : at + width] = number.to_bytes(width, source.choice(("little", "big")))
            case 5:
                data[at : at + size] = source.randbytes(size)
            case _:
                del data[at:]
    return bytes(data)


def _json(source: random.Random, value: Any) -> Any:
    """A copy in which one place, found by walking down at random, was changed."""
    root = [copy.deepcopy(value)]
    parent: Any = root
    key: Any = 0
    while isinstance(parent[key], dict | list) and parent[key] and source.random() < 0.85:
        parent = parent[key]
        key = source.choice(list(parent)) if isinstance(parent, dict) else source.randrange(len(parent))
    found = parent[key]
    choice = source.randrange(6)
    if choice == 0 and parent is not root:
        del parent[key]
    elif choice == 1 and isinstance(parent, dict):
        parent[source.choice(("x", "", key + "_", "type"))] = source.choice(_SCALARS)
    elif choice == 2:
        parent[key] = [found] * source.choice((2, 300))
    elif choice < 5 and isinstance(found, str | bytes) and found:
        parent[key] = _once(source, found)
    else:
        parent[key] = copy.deepcopy(source.choice(_SCALARS))
    return root[0]
