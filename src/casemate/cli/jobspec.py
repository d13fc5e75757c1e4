"""What `submit` and `workload show` share: options on the command line to a workload manifest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from casemate.cli.errors import FileMissingError, NotRunningError
from casemate.errors import UsageError
from casemate.model import Access, ColumnKeys, DatasetName
from casemate.settings import Settings
from casemate.workload.build import broker_entry, build, zone_entry
from casemate.workload.manifest import ARGUMENTS, PROGRAM, WorkloadManifest, ZoneEntry

__all__ = ["Engine", "Job", "Launcher", "describe", "manifest_of", "parse_pairs", "zones_of"]


class Engine(StrEnum):
    """What the program is written for."""

    SPARK = "spark"
    PLAIN = "plain"


class Launcher(StrEnum):
    """What starts a Spark program."""

    SPARK_SUBMIT = "spark-submit"
    PYTHON = "python"


@dataclass(frozen=True)
class Job:
    """The options of one job as they were given."""

    program: Path
    arguments: tuple[str, ...]
    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    engine: Engine = Engine.SPARK
    launcher: Launcher = Launcher.SPARK_SUBMIT
    master: str = "local[*]"
    workers: int = 2
    conf: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    environment: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    mount: bool = False
    stage: bool = False
    page_cache: bool = False


def parse_pairs(items: Sequence[str], what: str, example: str) -> dict[str, str]:
    """``NAME=VALUE`` items; raises ``UsageError`` for another form, or for a name given twice."""
    pairs: dict[str, str] = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not (name and equals):
            raise UsageError(f"{what} {item!r}: need NAME=VALUE, for example {example}")
        if name in pairs:
            raise UsageError(f"{what} {name} is given twice")
        pairs[name] = value
    return pairs


def zones_of(read: Sequence[str], write: Sequence[str], columns: Sequence[str] = ()) -> list[ZoneEntry]:
    """The zones of ``DATASET=PATH`` items; one path for reading and writing becomes one zone.

    ``columns`` are ``DATASET=PATH:COLUMN,COLUMN``: keys of single columns of the Parquet files in the zone at PATH."""
    zones: dict[tuple[str, DatasetName], Access] = {}
    for access, items in ((Access.READ, read), (Access.WRITE, write)):
        for item in items:
            name, equals, path = item.partition("=")
            if not (equals and path):
                raise UsageError(
                    f"--{access} {item!r}: need DATASET=PATH, for example hospital/patients=vault/patients"
                )
            dataset = DatasetName.parse(name)
            if access is Access.READ and "://" not in path and not Path(path).exists():
                raise FileMissingError(f"--read {item}: {path} does not exist")
            prefix = zone_entry(dataset, path, access).zone.prefix
            zones[prefix, dataset] = zones.get((prefix, dataset), access) | access
    keys = _column_keys(columns)
    if unknown := set(keys) - {prefix for prefix, _ in zones}:
        raise UsageError(f"--columns: {min(unknown)} is not the path of a --read or --write")
    return [
        zone_entry(dataset, prefix, access, parquet=keys.get(prefix)) for (prefix, dataset), access in zones.items()
    ]


def _column_keys(items: Sequence[str]) -> dict[str, ColumnKeys]:
    found: dict[str, dict[str, list[str]]] = {}
    for item in items:
        name, _, place = item.partition("=")
        path, _, names = place.rpartition(":")
        if not (name and path and names):
            raise UsageError(
                f"--columns {item!r}: need DATASET=PATH:COLUMN,…, for example "
                "hospital/diagnosis=vault/patients:diagnosis"
            )
        prefix = zone_entry(DatasetName.parse(name), path, Access.READ).zone.prefix
        found.setdefault(prefix, {}).setdefault(name, []).extend(part.strip() for part in names.split(","))
    return {prefix: ColumnKeys.of(columns) for prefix, columns in found.items()}


def manifest_of(job: Job, settings: Settings) -> tuple[WorkloadManifest, dict[str, Path]]:
    """The manifest of ``job`` and where each of its files comes from."""
    if not job.program.is_file():
        raise FileMissingError(f"program {job.program}: {'not a file' if job.program.exists() else 'not found'}")
    try:
        authority = settings.broker_ca.read_text(encoding="ascii")
    except FileNotFoundError:
        raise NotRunningError(f"no broker is set up: {settings.broker_ca} does not exist") from None
    files: dict[str, Path] = {}
    for path in job.files:
        if not path.is_file():
            raise FileMissingError(f"--files {path}: not a file")
        if path.name in files or path.name == job.program.name:
            raise UsageError(f"--files {path}: another file is called {path.name} as well")
        files[path.name] = path
    return build(
        job.program,
        job.arguments,
        engine=job.engine.value,
        zones=zones_of(job.read, job.write, job.columns),
        brokers={"default": broker_entry(settings.broker_url, authority)},
        command=_command(job),
        files=files,
        environment=parse_pairs(job.environment, "--env", "TZ=UTC"),
        engine_settings=_engine_settings(job),
    )


def _command(job: Job) -> tuple[str, ...] | None:
    if job.engine is Engine.SPARK and job.launcher is Launcher.PYTHON:
        return ("python", PROGRAM, ARGUMENTS)
    if job.engine is Engine.PLAIN and job.program.suffix != ".py":
        return (PROGRAM, ARGUMENTS)  # a binary, or a script that names its interpreter
    return None  # the engine's own


def _engine_settings(job: Job) -> dict[str, Any]:
    if job.mount and job.stage:
        raise UsageError("--mount and --stage: give one of them")
    if job.page_cache and not job.mount:
        raise UsageError("--page-cache is for --mount")
    if job.engine is not Engine.SPARK:
        if job.conf:
            raise UsageError("--conf is for Spark; this job's engine is plain")
        if job.mount:
            return {"files": "mount", **({"page_cache": True} if job.page_cache else {})}
        return {"files": "stage"} if job.stage else {}
    if job.mount or job.stage:
        raise UsageError("--mount and --stage are for --engine plain; Spark reads and writes its zones itself")
    conf = parse_pairs(job.conf, "--conf", "spark.sql.shuffle.partitions=8")
    return {"master": job.master, "workers": job.workers, "conf": conf}


def describe(manifest: WorkloadManifest) -> str:
    """What a person reads before agreeing to a workload."""
    value = manifest.to_json()
    lines = [f"workload  {manifest.digest()}", f"engine    {value['engine']}"]
    lines += [f"program   {value['program']['path']}  sha256 {value['program']['sha256']}"]
    lines += [f"file      {entry['path']}  sha256 {entry['sha256']}" for entry in value["files"]]
    lines += [f"command   {' '.join(value['command'])}"]
    lines += [f"argument  {argument!r}" for argument in value["arguments"]]
    lines += [f"env       {name}={content!r}" for name, content in value["environment"].items()]
    for name, content in value["engine_settings"].items():
        items = content.items() if isinstance(content, dict) else [("", content)]
        lines += [f"setting   {name}{'.' if part else ''}{part} = {text}" for part, text in items]
    for z in value["zones"]:
        lines += [f"zone      {z['access']:<10} {z['dataset']}  {z['prefix']}"]
        for name, columns in z.get("parquet", {}).get("columns", {}).items():
            lines += [f"columns   {z['access']:<10} {name}  {', '.join(columns)}"]
    lines += [f"broker    {name}  {entry['url']}" for name, entry in value["brokers"].items()]
    runtime = value["runtime"]
    lines += [f"runtime   Python {runtime['python']}, Casemate {runtime['casemate']}"]
    lines += [f"packages  sha256 {runtime['lock_sha256']}"]
    lines += [f"plaintext outside zones: {value['plaintext_output']}; strict reads: {str(value['strict']).lower()}"]
    return "\n".join(lines)
