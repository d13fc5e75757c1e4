"""Nouns that every package shares: dataset names, access modes, zones, roles."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from casemate.errors import UsageError

__all__ = ["Access", "DatasetName", "Role", "Zone"]

_OWNER = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,126}")


class Access(StrEnum):
    """What a workload may do in a zone or with a dataset."""

    READ = "read"
    WRITE = "write"
    READ_WRITE = "read-write"

    @property
    def can_read(self) -> bool:
        return self is not Access.WRITE

    @property
    def can_write(self) -> bool:
        return self is not Access.READ

    def covers(self, other: Access) -> bool:
        """Whether this access includes all of ``other``."""
        return (self.can_read or not other.can_read) and (self.can_write or not other.can_write)

    def __or__(self, other: Access) -> Access:
        return self if self is other else Access.READ_WRITE


class Role(StrEnum):
    """The part a process plays in a job. Only ``driver``, ``executor`` and ``task`` open datasets."""

    DRIVER = "driver"
    EXECUTOR = "executor"
    MASTER = "master"
    WORKER = "worker"
    TASK = "task"  # the single process of an engine that has no parts

    @property
    def opens_datasets(self) -> bool:
        return self in (Role.DRIVER, Role.EXECUTOR, Role.TASK)


@dataclass(frozen=True, order=True)
class DatasetName:
    """``owner/name``, lower case; at most 63 + 127 ASCII characters so that a file header always fits its preamble."""

    owner: str
    name: str

    def __post_init__(self) -> None:
        if not (_OWNER.fullmatch(self.owner) and _NAME.fullmatch(self.name)):
            raise UsageError(
                f"dataset name {self.owner + '/' + self.name!r}: "
                "need owner/name of lower-case letters, digits, '.', '_', '-'"
            )

    @classmethod
    def parse(cls, text: str) -> DatasetName:
        """Read ``owner/name``; raises ``UsageError`` when it is not of that form."""
        owner, slash, name = text.partition("/")
        if not slash:
            raise UsageError(f"dataset name {text!r}: need owner/name, for example hospital/patients")
        return cls(owner, name)

    def __str__(self) -> str:
        return f"{self.owner}/{self.name}"


@dataclass(frozen=True)
class Zone:
    """A URI prefix below which every byte of every file is encrypted under one dataset's key.

    ``prefix`` is absolute and normalised: scheme, authority, path, no trailing slash (``file:///data/vault``).
    """

    prefix: str
    dataset: DatasetName
    access: Access
