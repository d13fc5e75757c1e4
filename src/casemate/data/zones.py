"""Which zone a path lies in, however the path is written, and what a workload may do there.

A path is plain text, as Hadoop and fsspec take it: nothing is percent-decoded. ``.``, ``..``, doubled and trailing
slashes are resolved before anything is compared, and whoever does input or output uses the resolved path. Symbolic
links (``file://`` only): the zone's prefix may be reached through one, but below the prefix there are none, since a
link could lead a write out of the zone or put one file of a dataset in place of another.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from casemate.data.errors import OutsideZonesError, ZoneAccessError
from casemate.errors import UsageError
from casemate.model import Zone

__all__ = [
    "HIDDEN_DIRECTORY",
    "Located",
    "PlaintextOutput",
    "ZoneMap",
    "is_within",
    "local_path",
    "local_uri",
    "normalise",
]

HIDDEN_DIRECTORY = "_casemate"  # holds the manifests; programs do not see it

PlaintextOutput = Literal["deny", "allow"]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/]*)(.*)", re.DOTALL)
_FILE = "file://"


def normalise(uri: str, *, working_directory: str = "/") -> str:
    """``uri`` or local path as ``scheme://authority/path``: no ``.``, ``..``, empty part or trailing slash.

    A path without scheme is a local one, a relative one below ``working_directory``. Raises ``UsageError`` for text
    that cannot be a path: a NUL, an empty string, a local URI with a host."""
    if not uri or "\0" in uri or (not uri.isascii() and any("\ud800" <= c <= "\udfff" for c in uri)):
        raise UsageError(f"path {uri!r}: empty, not UTF-8, or holds a NUL")
    match = _SCHEME.fullmatch(uri)
    if match:
        scheme, authority, path = match[1].lower(), match[2].lower(), match[3]
    else:
        scheme, authority = "file", ""
        path = uri[5:] if uri[:6].lower() == "file:/" else os.path.join(working_directory, uri)  # noqa: PTH118 - text only
    if scheme == "local":
        scheme = "file"
    if (scheme == "file") == bool(authority) or authority in (".", ".."):
        raise UsageError(f"path {uri!r}: a local URI has no host (file:///path), any other needs one")
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    text = "/" + "/".join(parts)
    return f"{scheme}://{authority}{'' if text == '/' and authority else text}"


def is_within(uri: str, prefix: str) -> bool:
    """Whether normalised ``uri`` is ``prefix`` or lies below it."""
    return uri == prefix or uri.startswith(prefix if prefix.endswith("/") else prefix + "/")


def local_path(uri: str) -> str | None:
    """The path of a normalised ``file://`` URI; ``None`` for any other scheme."""
    return uri[len(_FILE) :] if uri.startswith(_FILE + "/") else None


def local_uri(path: str | os.PathLike[str]) -> str:
    """The one URI of a local path: absolute, links resolved. Zone prefixes and locations are made with this."""
    return normalise(os.path.realpath(path))


def _relative(uri: str, prefix: str) -> str:
    return uri[len(prefix) :].lstrip("/")


@dataclass(frozen=True)
class Located:
    """Where a path leads: its normalised URI (below the zone's own prefix when it is in a zone), and the zone."""

    uri: str
    zone: Zone | None

    @property
    def relative(self) -> str:
        """The path below the zone's prefix, without a leading slash."""
        return _relative(self.uri, self.zone.prefix) if self.zone else self.uri


class ZoneMap:
    """The zones of one workload. When zones nest, the longest prefix wins.

    ``plaintext_output="deny"`` refuses every write outside the zones, but for ``private_prefixes`` (TEE-private
    memory). Symbolic links are read through ``realpath``, the only thing here that looks at a disk."""

    def __init__(
        self,
        zones: Iterable[Zone],
        plaintext_output: PlaintextOutput = "deny",
        private_prefixes: Iterable[str] = (),
        *,
        working_directory: str | None = None,
        realpath: Callable[[str], str] = os.path.realpath,
    ) -> None:
        if plaintext_output not in ("deny", "allow"):
            raise UsageError(f"plaintext_output: need deny or allow, got {plaintext_output!r}")
        self.zones = tuple(sorted(zones, key=lambda zone: len(zone.prefix), reverse=True))
        self.plaintext_output = plaintext_output
        self._working_directory = working_directory
        self._realpath = realpath
        for zone in self.zones:
            if normalise(zone.prefix) != zone.prefix:
                raise UsageError(f"zone prefix {zone.prefix!r}: need {normalise(zone.prefix)!r}")
        # Read once: a link that is changed later makes paths differ from these, and they are refused.
        self._real = sorted(((self._real_uri(z.prefix), z) for z in self.zones), key=lambda p: len(p[0]), reverse=True)
        for i, (prefix, zone) in enumerate(self._real[:-1]):
            if self._real[i + 1][0] == prefix:
                raise UsageError(f"two zones are the same place: {zone.prefix} and {self._real[i + 1][1].prefix}")
        self._private = tuple(self._real_uri(normalise(prefix)) for prefix in private_prefixes)

    def _real_uri(self, uri: str) -> str:
        path = local_path(uri)
        return uri if path is None else normalise(self._realpath(path))

    def zone_of(self, uri: str) -> Zone | None:
        """The zone of a normalised URI by its text alone: for names below a directory that was already located."""
        return next((zone for zone in self.zones if is_within(uri, zone.prefix)), None)

    def locate(self, uri: str) -> Located:
        """Where ``uri`` leads; says nothing about access. Raises ``ZoneAccessError`` for a symbolic link in a zone."""
        lexical = normalise(uri, working_directory=self._working_directory or os.getcwd())  # noqa: PTH109
        real = self._real_uri(lexical)
        named = self.zone_of(lexical)
        real_prefix, zone = next(((p, z) for p, z in self._real if is_within(real, p)), ("", None))
        if named is not None and (
            zone is not named or _relative(real, real_prefix) != _relative(lexical, named.prefix)
        ):
            raise ZoneAccessError(f"{lexical}: a symbolic link below zone {named.prefix} leads to {real}")
        if zone is None:
            return Located(lexical, None)
        relative = _relative(real, real_prefix)
        if HIDDEN_DIRECTORY in relative.split("/"):
            raise ZoneAccessError(f"{lexical}: {HIDDEN_DIRECTORY}/ is not for programs")
        return Located(normalise(f"{zone.prefix}/{relative}"), zone)

    def read(self, uri: str) -> Located:
        """Where to read ``uri``; outside the zones everything may be read as it is. Raises ``ZoneAccessError``."""
        located = self.locate(uri)
        if located.zone is not None and not located.zone.access.can_read:
            raise ZoneAccessError(f"{located.uri}: zone {located.zone.prefix} is only for writing")
        return located

    def write(self, uri: str) -> Located:
        """Where to write, create, rename to, or delete ``uri``. Raises ``ZoneAccessError`` or ``OutsideZonesError``."""
        located = self.locate(uri)
        if located.zone is not None:
            if not located.zone.access.can_write:
                raise ZoneAccessError(f"{located.uri}: zone {located.zone.prefix} is only for reading")
        elif self.plaintext_output == "deny" and not self.is_private(located.uri):
            raise OutsideZonesError(f"{located.uri}: outside every zone, and plaintext output is denied")
        return located

    def write_tree(self, uri: str) -> Located:
        """As ``write``, for what touches a whole directory (delete, rename): no other zone may begin below it."""
        located = self.write(uri)
        for zone in self.zones:
            if zone is not located.zone and is_within(zone.prefix, located.uri):
                raise ZoneAccessError(f"{located.uri}: zone {zone.prefix} begins below it")
        return located

    def is_private(self, uri: str) -> bool:
        """Whether normalised ``uri`` really lies in TEE-private memory, where plaintext may be."""
        real = self._real_uri(uri)
        return any(is_within(real, prefix) for prefix in self._private)

    def resolve_read(self, uri: str) -> Zone | None:
        """The zone to decrypt with, ``None`` for plain reading; raises as ``read``."""
        return self.read(uri).zone

    def resolve_write(self, uri: str) -> Zone | None:
        """The zone to encrypt for, ``None`` for plain writing; raises as ``write``."""
        return self.write(uri).zone
