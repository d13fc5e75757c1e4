"""A cursor over untrusted bytes: every read is checked against what is left before anything is copied."""

from __future__ import annotations

from typing import Literal

from casemate.errors import CasemateError

__all__ = ["Reader"]


class Reader:
    """Reads integers and fields from ``data``; what does not fit raises ``truncated``, naming the field.

    A length field that promises more than there is costs nothing: it is compared, never allocated."""

    __slots__ = ("_data", "_order", "_truncated", "name", "offset")

    def __init__(
        self, data: bytes, *, name: str, truncated: type[CasemateError], order: Literal["big", "little"]
    ) -> None:
        self._data = data
        self._order: Literal["big", "little"] = order
        self._truncated = truncated
        self.name = name
        self.offset = 0

    @property
    def left(self) -> int:
        """Bytes not yet read."""
        return len(self._data) - self.offset

    def take(self, size: int, what: str) -> bytes:
        """The next ``size`` bytes."""
        end = self.offset + size
        if end > len(self._data):
            raise self._truncated(f"{self.name}: {what} needs {size} bytes at {self.offset}, got {self.left}")
        field = self._data[self.offset : end]
        self.offset = end
        return field

    def rest(self) -> bytes:
        """All bytes not yet read, without reading them."""
        return self._data[self.offset :]

    def u8(self, what: str) -> int:
        return self.take(1, what)[0]

    def u16(self, what: str) -> int:
        return int.from_bytes(self.take(2, what), self._order)

    def u32(self, what: str) -> int:
        return int.from_bytes(self.take(4, what), self._order)

    def u64(self, what: str) -> int:
        return int.from_bytes(self.take(8, what), self._order)
