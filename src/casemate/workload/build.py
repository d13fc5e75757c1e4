"""Make a workload manifest for a program on this machine: read its files, digest them, name its zones and brokers."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from casemate.data.zones import PlaintextOutput, local_uri, normalise
from casemate.errors import UsageError
from casemate.model import Access, ColumnKeys, DatasetName, Zone
from casemate.workload.bundle import read_file
from casemate.workload.manifest import (
    ARGUMENTS,
    PROGRAM,
    BrokerEntry,
    FileEntry,
    WorkloadManifest,
    ZoneEntry,
    certificate_sha256,
)
from casemate.workload.runtime import current_runtime

__all__ = ["broker_entry", "build", "zone_entry"]

_COMMANDS = {"spark": ("spark-submit", PROGRAM, ARGUMENTS)}
_DEFAULT_COMMAND = ("python", PROGRAM, ARGUMENTS)


def build(
    program: Path,
    arguments: Sequence[str] = (),
    *,
    engine: str,
    zones: Sequence[ZoneEntry] = (),
    brokers: Mapping[str, BrokerEntry],
    coordinator: str = "default",
    command: Sequence[str] | None = None,
    files: Mapping[str, Path] | None = None,
    environment: Mapping[str, str] | None = None,
    engine_settings: Mapping[str, Any] | None = None,
    working_directory: Path | None = None,
    plaintext_output: PlaintextOutput = "deny",
    strict: bool = True,
    name: str | None = None,
) -> tuple[WorkloadManifest, dict[str, Path]]:
    """The manifest, and where each file of the bundle comes from (for ``bundle.write_bundle``).

    ``files`` are further files by their path in the bundle (modules the program imports, jars); zone prefixes of
    local directories are made with ``zone_entry``. Raises ``ManifestMalformedError`` or ``BundleMissingError``."""
    sources = {program.name: program, **(files or {})}
    entries = {path: FileEntry(path, hashlib.sha256(read_file(source)).hexdigest()) for path, source in sources.items()}
    manifest = WorkloadManifest(
        engine=engine,
        name=name or program.name,
        program=entries.pop(program.name),
        files=tuple(entries[path] for path in sorted(entries)),
        command=tuple(command or _COMMANDS.get(engine, _DEFAULT_COMMAND)),
        arguments=tuple(arguments),
        working_directory=os.path.realpath(working_directory or Path.cwd()),
        environment=dict(environment or {}),
        runtime=current_runtime(),
        engine_settings=dict(engine_settings or {}),
        plaintext_output=plaintext_output,
        strict=strict,
        zones=tuple(zones),
        brokers=dict(brokers),
        coordinator=coordinator,
    )
    return WorkloadManifest.parse(manifest.canonical()), sources


def zone_entry(
    dataset: DatasetName, path: str, access: Access, *, broker: str = "default", parquet: ColumnKeys | None = None
) -> ZoneEntry:
    """A zone at a local path (links resolved) or a URI."""
    prefix = normalise(path) if "://" in path else local_uri(path)
    if prefix == "file:///":
        raise UsageError(f"zone {path!r}: the root directory cannot be a zone")
    return ZoneEntry(Zone(prefix, dataset, access, parquet), broker)


def broker_entry(url: str, ca_pem: str) -> BrokerEntry:
    """A broker by its address and CA certificate."""
    pem = ca_pem.strip() + "\n"
    return BrokerEntry(url.rstrip("/"), pem, certificate_sha256(pem))
