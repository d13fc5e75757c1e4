"""Who signed a request: an owner or an administrator by their identity key. No I/O."""

from __future__ import annotations

from dataclasses import dataclass

from casemate.broker.errors import NotAuthorisedError

__all__ = ["Principal"]


@dataclass(frozen=True)
class Principal:
    """The holder of a registered key: an owner, an administrator, or both."""

    thumbprint: str
    owner: str | None = None
    admin: bool = False

    def __str__(self) -> str:
        names = [*(["admin"] if self.admin else []), *([self.owner] if self.owner else [])]
        return "+".join(names)

    def require_owner(self, name: str) -> None:
        """Raise ``NotAuthorisedError`` unless this is that owner."""
        if self.owner != name:
            raise NotAuthorisedError(f"this is for the owner {name}; the request was signed by {self}")

    def require_admin(self) -> None:
        """Raise ``NotAuthorisedError`` unless this is an administrator."""
        if not self.admin:
            raise NotAuthorisedError(f"this is for administrators; the request was signed by {self}")

    def may_see(self, owners: tuple[str, ...] | list[str]) -> bool:
        """Whether an entry that concerns these owners is for this principal's eyes."""
        return self.admin or self.owner in owners
