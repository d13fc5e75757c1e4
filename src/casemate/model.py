"""Nouns that every package shares: dataset names, access modes, zones, roles."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from casemate.errors import UsageError

__all__ = ["Access", "ColumnKeys", "DatasetName", "Role", "Zone"]

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


_ALGORITHMS = ("AES_GCM_V1", "AES_GCM_CTR_V1")  # Parquet's names
_MAX_COLUMNS = 1000
_UNFIT = re.compile(r"[,:;\0]")  # Parquet's libraries list columns with these between them


@dataclass(frozen=True)
class ColumnKeys:
    """Columns of Parquet files that have a dataset key of their own (Parquet Modular Encryption).

    ``columns`` are (dataset, paths): a path with dots names a column or, with all that is in it, a group; case does not
    matter. Build with ``of``. ``plaintext_footer``: footers are signed instead of encrypted. ``algorithm`` is
    ``AES_GCM_V1`` or ``AES_GCM_CTR_V1``, which does not authenticate values, only what describes them."""

    columns: tuple[tuple[DatasetName, tuple[str, ...]], ...]
    plaintext_footer: bool = False
    algorithm: str = _ALGORITHMS[0]

    @classmethod
    def of(
        cls,
        columns: Mapping[str, Sequence[str]],
        *,
        plaintext_footer: bool = False,
        algorithm: str = _ALGORITHMS[0],
    ) -> ColumnKeys:
        """From ``{"owner/dataset": ["column", "group.column"]}``; raises ``UsageError``."""
        if algorithm not in _ALGORITHMS:
            raise UsageError(f"Parquet algorithm {algorithm!r}: need {' or '.join(_ALGORITHMS)}")
        found = tuple((DatasetName.parse(name), tuple(sorted(columns[name]))) for name in sorted(columns))
        paths = [path for _, own in found for path in own]
        for path in paths:
            if not path or path != path.strip() or _UNFIT.search(path) or "" in path.split("."):
                raise UsageError(f"column {path!r}: need a name without ',', ':', ';' and without blanks around it")
        if not 1 <= len(paths) <= _MAX_COLUMNS or not all(own for _, own in found):
            raise UsageError(f"column keys: need 1 to {_MAX_COLUMNS} columns, and one for each dataset")
        if len({path.lower() for path in paths}) != len(paths):
            raise UsageError("column keys: a column is named twice")
        return cls(found, plaintext_footer, algorithm)

    @classmethod
    def from_json(cls, value: Any) -> ColumnKeys:
        """Undo ``to_json``; raises ``UsageError`` for anything else."""
        columns = value.get("columns") if isinstance(value, dict) else None
        if not isinstance(columns, dict) or set(value) != {"columns", "plaintext_footer", "algorithm"}:
            raise UsageError("column keys: need columns, plaintext_footer and algorithm, and nothing else")
        if not all(isinstance(own, list) and all(isinstance(path, str) for path in own) for own in columns.values()):
            raise UsageError("column keys: columns: need a list of texts for each dataset")
        if not isinstance(value["plaintext_footer"], bool):
            raise UsageError("column keys: plaintext_footer: need true or false")
        return cls.of(columns, plaintext_footer=value["plaintext_footer"], algorithm=value["algorithm"])

    def to_json(self) -> dict[str, Any]:
        return {
            "columns": {str(name): list(own) for name, own in self.columns},
            "plaintext_footer": self.plaintext_footer,
            "algorithm": self.algorithm,
        }

    @property
    def datasets(self) -> tuple[DatasetName, ...]:
        return tuple(name for name, _ in self.columns)

    def columns_of(self, dataset: DatasetName) -> tuple[str, ...]:
        """The columns named for ``dataset``; empty for none."""
        return next((own for name, own in self.columns if name == dataset), ())


@dataclass(frozen=True)
class Zone:
    """A URI prefix below which every byte of every file is encrypted under one dataset's key.

    ``prefix`` is absolute and normalised: scheme, authority, path, no trailing slash (``file:///data/vault``).
    ``parquet`` gives single columns of the Parquet files in it a further key, of another dataset.
    """

    prefix: str
    dataset: DatasetName
    access: Access
    parquet: ColumnKeys | None = None

    @property
    def datasets(self) -> tuple[DatasetName, ...]:
        """The zone's own dataset, then those of single columns."""
        return (self.dataset, *(self.parquet.datasets if self.parquet else ()))

    def to_json(self) -> dict[str, Any]:
        """As manifests and the agent say it; ``parquet`` only where there is one."""
        value = {"prefix": self.prefix, "dataset": str(self.dataset), "access": str(self.access)}
        return value | ({"parquet": self.parquet.to_json()} if self.parquet else {})
