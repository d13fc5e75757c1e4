"""Where data code gets dataset keys from: the agent inside a TEE, the owner's own key store outside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from casemate.crypto.secret import Secret
from casemate.model import DatasetName

__all__ = ["DatasetKey", "KeyProvider"]


@dataclass(frozen=True)
class DatasetKey:
    """One version of a dataset key (KEK, 32 bytes). It wraps file keys and never encrypts data itself."""

    dataset: DatasetName
    version: int  # from 1
    secret: Secret


class KeyProvider(Protocol):
    """Hands out dataset keys. Both methods raise ``KeyDeniedError``, or an ``UndecidedError`` when out of reach."""

    def current_key(self, dataset: DatasetName) -> DatasetKey:
        """The newest version, for writing."""
        ...

    def key(self, dataset: DatasetName, version: int) -> DatasetKey:
        """That version, for reading."""
        ...
