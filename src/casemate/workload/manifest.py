"""The workload manifest: everything that decides what a program is and may touch, and the one digest over it.

No disk, no clock. The digest is SHA-384 over the RFC 8785 JSON; platforms carry it as confidential-containers
*init-data* (TDX MRCONFIGID, SNP HOST_DATA), grants name it. Parsing is strict: an unknown member is an error, since
a member that one side ignores is a member that nobody agreed to.
"""

from __future__ import annotations

import binascii
import hashlib
import json
import re
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlsplit

from casemate.crypto.canonical import canonical_json
from casemate.data.zones import PlaintextOutput, ZoneMap, normalise
from casemate.errors import CasemateError, UsageError
from casemate.model import Access, ColumnKeys, DatasetName, Zone
from casemate.workload.errors import ManifestMalformedError

__all__ = [
    "ARGUMENTS",
    "BUNDLE",
    "MAX_MANIFEST_SIZE",
    "PROGRAM",
    "BrokerEntry",
    "FileEntry",
    "Runtime",
    "WorkloadManifest",
    "ZoneEntry",
    "certificate_sha256",
]

VERSION = 1
MAX_MANIFEST_SIZE = 1024 * 1024  # bytes
PROGRAM = "{program}"  # in a command: the path of the verified copy of the program
ARGUMENTS = "{args}"  # a command element of its own: all arguments
BUNDLE = "{bundle}"  # in a command or setting: the directory of verified copies

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_HEX64 = re.compile(r"[0-9a-f]{64}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_RESERVED = ("CASEMATE_", "_SPARK_", "LD_")  # ours, Spark's internal ones, the loader's
_MAX_ITEMS = 10_000
_MAX_TEXT = 32_768  # characters of one argument, variable or setting
_T = TypeVar("_T")
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----\n([A-Za-z0-9+/=\n]+)-----END CERTIFICATE-----\n?")


@dataclass(frozen=True)
class FileEntry:
    """A file that travels with the manifest: its POSIX path in the bundle and its SHA-256 (hex)."""

    path: str
    sha256: str

    def to_json(self) -> dict[str, Any]:
        return {"path": self.path, "sha256": self.sha256}


@dataclass(frozen=True)
class Runtime:
    """What the program runs on: Python ``major.minor``, Casemate's version, digest of the installed packages."""

    python: str
    casemate: str
    lock_sha256: str

    def to_json(self) -> dict[str, Any]:
        return {"python": self.python, "casemate": self.casemate, "lock_sha256": self.lock_sha256}


@dataclass(frozen=True)
class BrokerEntry:
    """Where a broker answers (``https://host:port``) and the one CA certificate that vouches for it."""

    url: str
    ca_pem: str
    ca_sha256: str  # of the certificate's DER form

    def to_json(self) -> dict[str, Any]:
        return {"url": self.url, "ca_pem": self.ca_pem, "ca_sha256": self.ca_sha256}


@dataclass(frozen=True)
class ZoneEntry:
    """A zone and the broker that holds its dataset's key."""

    zone: Zone
    broker: str

    def to_json(self) -> dict[str, Any]:
        return {**self.zone.to_json(), "broker": self.broker}


@dataclass(frozen=True)
class WorkloadManifest:
    """One workload. Build it with ``casemate.workload.build``, read it with ``parse``."""

    engine: str
    name: str
    program: FileEntry
    command: tuple[str, ...]
    arguments: tuple[str, ...]
    working_directory: str
    runtime: Runtime
    brokers: Mapping[str, BrokerEntry]
    coordinator: str
    zones: tuple[ZoneEntry, ...] = ()
    files: tuple[FileEntry, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    engine_settings: Mapping[str, Any] = field(default_factory=dict)
    plaintext_output: PlaintextOutput = "deny"
    strict: bool = True

    def to_json(self) -> dict[str, Any]:
        """The JSON object the digest is over."""
        return {
            "version": VERSION,
            "engine": self.engine,
            "name": self.name,
            "program": self.program.to_json(),
            "files": [entry.to_json() for entry in self.files],
            "command": list(self.command),
            "arguments": list(self.arguments),
            "working_directory": self.working_directory,
            "environment": dict(self.environment),
            "runtime": self.runtime.to_json(),
            "engine_settings": dict(self.engine_settings),
            "plaintext_output": self.plaintext_output,
            "strict": self.strict,
            "zones": [entry.to_json() for entry in self.zones],
            "brokers": {name: entry.to_json() for name, entry in self.brokers.items()},
            "coordinator": self.coordinator,
        }

    def canonical(self) -> bytes:
        """RFC 8785 JSON: what is digested, and what a broker is sent."""
        return canonical_json(self.to_json())

    def digest(self) -> str:
        """The workload digest: SHA-384 of ``canonical()``, 96 hex digits."""
        return hashlib.sha384(self.canonical()).hexdigest()

    def plain_zones(self) -> tuple[Zone, ...]:
        return tuple(entry.zone for entry in self.zones)

    def datasets_of(self, broker: str, *, columns: bool = True) -> dict[DatasetName, Access]:
        """The datasets whose keys ``broker`` holds, each with the access all its zones need together.

        Without ``columns``, only those that the job cannot do without: a column's key is asked for when it is used."""
        found: dict[DatasetName, Access] = {}
        for entry in self.zones:
            if entry.broker == broker:
                access = entry.zone.access
                for name in entry.zone.datasets if columns else (entry.zone.dataset,):
                    found[name] = found.get(name, access) | access
        return found

    @classmethod
    def parse(cls, text: bytes | str) -> WorkloadManifest:
        """Read a manifest from JSON text of any layout; raises ``ManifestMalformedError`` naming the member."""
        if len(text) > MAX_MANIFEST_SIZE:
            raise ManifestMalformedError(f"manifest: got {len(text)} bytes, need at most {MAX_MANIFEST_SIZE}")
        try:
            value = json.loads(text, object_pairs_hook=_unique)
        except (ValueError, RecursionError) as exc:
            raise ManifestMalformedError(f"manifest: not JSON: {exc}") from exc
        return cls.from_json(value)

    @classmethod
    def from_json(cls, value: Any) -> WorkloadManifest:
        """As ``parse``, from a decoded JSON value."""
        try:
            return _manifest(value)
        except ManifestMalformedError:
            raise
        except (CasemateError, RecursionError, UnicodeError) as exc:
            raise ManifestMalformedError(f"manifest: {exc}") from exc


def certificate_sha256(pem: str) -> str:
    """SHA-256 (hex) of the DER form of the one certificate in ``pem``; raises ``ManifestMalformedError``."""
    match = _PEM.fullmatch(pem)
    try:
        if match is None:
            raise ValueError
        return hashlib.sha256(b64decode(match[1].replace("\n", ""), validate=True)).hexdigest()
    except (ValueError, binascii.Error):
        raise ManifestMalformedError("ca_pem: need one PEM certificate") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member stands twice")
    return members


def _bad(where: str, want: str, got: Any) -> ManifestMalformedError:
    shown = repr(got)
    return ManifestMalformedError(f"{where}: need {want}, got {shown[:60]}{'…' if len(shown) > 60 else ''}")


def _object(value: Any, where: str, names: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _bad(where, "an object", value)
    unknown, missing = set(value) - set(names), set(names) - set(value)
    if unknown:
        raise ManifestMalformedError(f"{where}: unknown member {sorted(map(str, unknown))[0]!r}")
    if missing:
        raise ManifestMalformedError(f"{where}: member {min(missing)!r} is missing")
    return value


def _text(value: Any, where: str, pattern: re.Pattern[str] | None = None, want: str = "a text") -> str:
    if not isinstance(value, str) or "\0" in value or len(value) > _MAX_TEXT:
        raise _bad(where, f"{want} without NUL, at most {_MAX_TEXT} characters", value)
    if pattern is not None and not pattern.fullmatch(value):
        raise _bad(where, want, value)
    return value


def _list(value: Any, where: str, read: Callable[[Any, str], _T]) -> tuple[_T, ...]:
    if not isinstance(value, list) or len(value) > _MAX_ITEMS:
        raise _bad(where, f"a list of at most {_MAX_ITEMS}", value)
    return tuple(read(item, f"{where}[{index}]") for index, item in enumerate(value))


def _members(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict) or len(value) > _MAX_ITEMS:
        raise _bad(where, f"an object of at most {_MAX_ITEMS} members", value)
    return value


def _bundle_path(value: Any, where: str) -> str:
    path = _text(value, where)
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\\" in path or any(ord(c) < 32 for c in path):
        raise _bad(where, "a relative POSIX path without '.', '..' or empty parts", value)
    return path


def _file(value: Any, where: str) -> FileEntry:
    members = _object(value, where, ("path", "sha256"))
    return FileEntry(
        _bundle_path(members["path"], f"{where}.path"),
        _text(members["sha256"], f"{where}.sha256", _HEX64, "64 lower-case hex digits"),
    )


def _runtime(value: Any) -> Runtime:
    members = _object(value, "runtime", ("python", "casemate", "lock_sha256"))
    lock = _text(members["lock_sha256"], "runtime.lock_sha256", _HEX64, "64 lower-case hex digits")
    return Runtime(_text(members["python"], "runtime.python"), _text(members["casemate"], "runtime.casemate"), lock)


def _broker(value: Any, where: str) -> BrokerEntry:
    members = _object(value, where, ("url", "ca_pem", "ca_sha256"))
    url = _text(members["url"], f"{where}.url")
    try:
        parts = urlsplit(url)
        usable = parts.scheme == "https" and parts.hostname and not (parts.query or parts.fragment or parts.username)
        _ = parts.port
    except ValueError:
        usable = False
    if not usable or url.endswith("/"):
        raise _bad(f"{where}.url", "https://host[:port][/path] without a trailing slash", url)
    pem = _text(members["ca_pem"], f"{where}.ca_pem")
    expected, got = members["ca_sha256"], certificate_sha256(pem)
    if expected != got:
        raise ManifestMalformedError(f"{where}.ca_sha256: expected {expected!r}, the certificate has {got}")
    return BrokerEntry(url, pem, got)


def _zone(value: Any, where: str) -> ZoneEntry:
    names: tuple[str, ...] = ("prefix", "dataset", "access", "broker")
    if isinstance(value, dict) and "parquet" in value:
        names += ("parquet",)
    members = _object(value, where, names)
    prefix = _text(members["prefix"], f"{where}.prefix")
    if normalise(prefix) != prefix:
        raise _bad(f"{where}.prefix", f"the normalised URI {normalise(prefix)!r}", prefix)
    access = _text(members["access"], f"{where}.access")
    if access not in {str(known) for known in Access}:
        raise _bad(f"{where}.access", "read, write or read-write", access)
    dataset = DatasetName.parse(_text(members["dataset"], f"{where}.dataset"))
    try:
        columns = ColumnKeys.from_json(members["parquet"]) if "parquet" in members else None
    except UsageError as exc:
        raise ManifestMalformedError(f"{where}.parquet: {exc}") from exc
    return ZoneEntry(Zone(prefix, dataset, Access(access), columns), _text(members["broker"], f"{where}.broker"))


def _environment(value: Any) -> dict[str, str]:
    found = {}
    for name, content in _members(value, "environment").items():
        if not _VARIABLE.fullmatch(name) or name.startswith(_RESERVED):
            raise _bad("environment", "names of letters, digits and '_' that Casemate does not keep for itself", name)
        found[name] = _text(content, f"environment.{name}")
    return found


def _manifest(value: Any) -> WorkloadManifest:
    names = (
        "version, engine, name, program, files, command, arguments, working_directory, environment, runtime, "
        "engine_settings, plaintext_output, strict, zones, brokers, coordinator"
    )
    members = _object(value, "manifest", tuple(names.split(", ")))
    if type(members["version"]) is not int or members["version"] != VERSION:
        raise _bad("version", str(VERSION), members["version"])
    if members["plaintext_output"] not in ("deny", "allow"):
        raise _bad("plaintext_output", "deny or allow", members["plaintext_output"])
    if not isinstance(members["strict"], bool):
        raise _bad("strict", "true or false", members["strict"])
    manifest = WorkloadManifest(
        engine=_text(members["engine"], "engine", _NAME, "an engine's name"),
        name=_text(members["name"], "name"),
        program=_file(members["program"], "program"),
        files=_list(members["files"], "files", _file),
        command=_list(members["command"], "command", _text),
        arguments=_list(members["arguments"], "arguments", _text),
        working_directory=_text(members["working_directory"], "working_directory"),
        environment=_environment(members["environment"]),
        runtime=_runtime(members["runtime"]),
        engine_settings=_members(members["engine_settings"], "engine_settings"),
        plaintext_output=members["plaintext_output"],
        strict=members["strict"],
        zones=_list(members["zones"], "zones", _zone),
        brokers={
            _text(name, "brokers", _NAME, "a broker's name"): _broker(entry, f"brokers.{name}")
            for name, entry in _members(members["brokers"], "brokers").items()
        },
        coordinator=_text(members["coordinator"], "coordinator"),
    )
    _check_whole(manifest)
    return manifest


def _check_whole(manifest: WorkloadManifest) -> None:
    """What no member shows alone: names that must be defined, paths that must differ."""
    if not manifest.command or not manifest.command[0]:
        raise _bad("command", "at least the program to start", list(manifest.command))
    if not manifest.working_directory.startswith("/"):
        raise _bad("working_directory", "an absolute path", manifest.working_directory)
    if manifest.coordinator not in manifest.brokers:
        raise _bad("coordinator", f"one of the brokers {sorted(manifest.brokers)}", manifest.coordinator)
    owner: dict[DatasetName, str] = {}
    for entry in manifest.zones:
        if entry.broker not in manifest.brokers:
            raise _bad(f"zone {entry.zone.prefix}", f"one of the brokers {sorted(manifest.brokers)}", entry.broker)
        for name in entry.zone.datasets:
            if owner.setdefault(name, entry.broker) != entry.broker:
                raise ManifestMalformedError(f"dataset {name}: its zones name two brokers")
    paths = [manifest.program.path, *(entry.path for entry in manifest.files)]
    if len(set(paths)) != len(paths):
        raise ManifestMalformedError("files: a path stands twice")
    for path in paths:
        if any(other.startswith(f"{path}/") for other in paths):
            raise ManifestMalformedError(f"files: {path} is a file and a directory")
    canonical_json(manifest.engine_settings)
    try:
        ZoneMap(manifest.plain_zones(), manifest.plaintext_output, working_directory="/", realpath=lambda path: path)
    except UsageError as exc:
        raise ManifestMalformedError(f"zones: {exc}") from exc
