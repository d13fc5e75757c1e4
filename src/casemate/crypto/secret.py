"""Key bytes with a type that never prints, pickles or compares in variable time."""

from __future__ import annotations

import hmac
import os
from typing import NoReturn, final

from casemate.crypto.errors import InvalidKeyError

__all__ = ["Secret"]

KEY_SIZE = 32  # bytes; AES-256


@final
class Secret:
    """Secret bytes. ``str``, ``repr`` and ``format`` show the size alone; ``reveal`` is the one way to the bytes."""

    __slots__ = ("_raw",)

    def __init__(self, raw: bytes) -> None:
        self._raw = bytes(raw)

    @classmethod
    def random(cls, size: int = KEY_SIZE) -> Secret:
        """Fresh key bytes from the operating system."""
        return cls(os.urandom(size))

    def reveal(self) -> bytes:
        return self._raw

    def require_size(self, size: int) -> Secret:
        """This secret, or ``InvalidKeyError`` when it has another size in bytes."""
        if len(self._raw) != size:
            raise InvalidKeyError(f"key: got {len(self._raw)} bytes, need {size}")
        return self

    def __len__(self) -> int:
        return len(self._raw)

    def __repr__(self) -> str:
        return f"<{len(self._raw)} bytes>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._raw, other._raw)

    __hash__ = None  # type: ignore[assignment]  # a secret in a set or as a dict key invites comparison by hash

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled")
