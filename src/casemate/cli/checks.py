"""What `casemate doctor` checks about this machine. Each check gives a state, what was found, and how to mend it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import ssl
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from pathlib import Path

import casemate
from casemate.errors import CasemateError
from casemate.settings import Settings

__all__ = ["CHECKS", "Finding", "State", "java_command", "java_version", "run_checks"]

MIN_JAVA = 17
_MAX_CLOCK_SECONDS = 30
_MIN_FREE = 512 * 1024 * 1024  # bytes


class State(StrEnum):
    """How a check went. ``warn``: works, but not for everything."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    name: str
    state: State
    found: str
    fix: str = ""


def java_command() -> str | None:
    """The ``java`` that Spark would start: that of JAVA_HOME, else the first one on PATH."""
    home = os.environ.get("JAVA_HOME")
    if home:
        candidate = Path(home) / "bin" / "java"
        return str(candidate) if os.access(candidate, os.X_OK) else None
    return shutil.which("java")


def java_version(command: str) -> int | None:
    """The feature release of a Java; None when it does not say."""
    try:
        done = subprocess.run([command, "-version"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r'version "(?:1\.)?(\d+)', done.stderr + done.stdout)
    return int(match[1]) if match else None


def _python(settings: Settings) -> Finding:
    shown = f"Python {sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
    return Finding("python", State.OK, f"{shown}, Casemate {casemate.__version__}")


def _java(settings: Settings) -> Finding:
    fix = "install a Java 17 runtime (Debian: apt-get install openjdk-17-jre-headless) or set JAVA_HOME"
    command = java_command()
    if command is None:
        return Finding("java", State.WARN, "none found; Spark jobs need it, nothing else does", fix)
    version = java_version(command)
    if version is None or version < MIN_JAVA:
        return Finding("java", State.FAIL, f"{command} is version {version or 'unknown'}, need {MIN_JAVA}", fix)
    return Finding("java", State.OK, f"{command}, version {version}")


def _spark(settings: Settings) -> Finding:
    if importlib.util.find_spec("pyspark") is None:
        return Finding("pyspark", State.WARN, "not installed; Spark jobs need it", "pip install 'casemate[spark]'")
    version = importlib.metadata.version("pyspark")
    if not version.startswith("4."):
        return Finding("pyspark", State.FAIL, f"version {version}, need 4.3", "pip install 'casemate[spark]'")
    if os.environ.get("SPARK_HOME"):
        fix = "unset SPARK_HOME, so that the Spark of this environment is used"
        return Finding("pyspark", State.WARN, f"version {version}, but SPARK_HOME is set", fix)
    return Finding("pyspark", State.OK, f"version {version}")


def _jar(settings: Settings) -> Finding:
    jars = sorted((Path(casemate.__file__).parent / "jars").glob("*.jar"))
    if jars:
        return Finding("jar", State.OK, ", ".join(jar.name for jar in jars))
    return Finding("jar", State.WARN, "the Java part is not built; Spark jobs need it", "install the wheel, or `make`")


def _home(settings: Settings) -> Finding:
    if not settings.home.exists():
        return Finding("state", State.WARN, f"{settings.home} does not exist yet", "casemate up")
    if not os.access(settings.home, os.W_OK):
        return Finding(
            "state", State.FAIL, f"{settings.home} is not writable", "set CASEMATE_HOME, or change its owner"
        )
    free = shutil.disk_usage(settings.home).free
    if free < _MIN_FREE:
        return Finding("state", State.WARN, f"{settings.home}: {free // 2**20} MiB free", "make room")
    return Finding("state", State.OK, f"{settings.home}, {free // 2**20} MiB free")


def _private_files(settings: Settings) -> Iterator[Path]:
    yield settings.home
    yield from settings.identities_dir.glob("*.pem")
    yield from (settings.broker_dir / name for name in ("root.key.json", "root.passphrase", "broker.db"))
    yield from settings.broker_dir.glob("*.key.wrapped")


def _permissions(settings: Settings) -> Finding:
    loose = [p for p in _private_files(settings) if p.exists() and stat.S_IMODE(p.stat().st_mode) & 0o077]
    if loose:
        return Finding("permissions", State.FAIL, f"others can read {loose[0]}", f"chmod go= {loose[0]}")
    return Finding("permissions", State.OK, "private files are private")


def _private_memory(settings: Settings) -> Finding:
    shm = Path("/dev/shm")  # noqa: S108  (looked at, not written)
    fix = "mount a tmpfs on /dev/shm (in a container: --shm-size=1g)"
    if not (shm.is_dir() and os.access(shm, os.W_OK)):
        return Finding("tmpfs", State.WARN, "no /dev/shm; TEE-private files go to disk", fix)
    free = shutil.disk_usage(shm).free
    if free < _MIN_FREE:
        return Finding("tmpfs", State.WARN, f"{shm}: {free // 2**20} MiB free", fix)
    return Finding("tmpfs", State.OK, f"{shm}, {free // 2**20} MiB free")


def _broker(settings: Settings) -> Finding:
    if not settings.broker_ca.exists():
        return Finding("broker", State.WARN, "none is set up", "casemate up")
    try:
        context = ssl.create_default_context(cafile=str(settings.broker_ca))
        address = f"{settings.broker_url}/v1/health"
        with urllib.request.urlopen(address, timeout=5, context=context) as answer:  # noqa: S310  (https, checked)
            date = answer.headers.get("Date")
    except (OSError, urllib.error.URLError, ValueError) as exc:
        reason = getattr(exc, "reason", exc)
        return Finding("broker", State.FAIL, f"{settings.broker_url} does not answer: {reason}", "casemate up")
    if date is not None:
        off = abs((datetime.now(UTC) - parsedate_to_datetime(date)).total_seconds())
        if off > _MAX_CLOCK_SECONDS:
            return Finding("broker", State.FAIL, f"its clock and ours are {off:.0f} s apart", "set both clocks (NTP)")
    return Finding("broker", State.OK, settings.broker_url)


def _tee_host(settings: Settings) -> Finding:
    from casemate.attestation.platforms.simulator.client import LauncherClient

    if not settings.tee_socket.exists():
        return Finding("tee host", State.WARN, "the SIMULATED TEE host does not run", "casemate up")
    try:
        LauncherClient(settings.tee_socket).ping()
    except (CasemateError, OSError) as exc:
        return Finding("tee host", State.FAIL, str(exc), "casemate down && casemate up")
    return Finding("tee host", State.OK, "SIMULATED: it protects nothing from this machine's administrator")


def _clock(settings: Settings) -> Finding:
    now = datetime.now(UTC)
    built = datetime.fromtimestamp(Path(casemate.__file__).stat().st_mtime, UTC)
    if (built - now).total_seconds() > 86400:
        return Finding("clock", State.FAIL, f"{now:%Y-%m-%d %H:%M} UTC lies before the installation", "set the clock")
    return Finding("clock", State.OK, f"{now:%Y-%m-%d %H:%M} UTC")


CHECKS: tuple[Callable[[Settings], Finding], ...] = (
    _python,
    _java,
    _spark,
    _jar,
    _home,
    _permissions,
    _private_memory,
    _clock,
    _broker,
    _tee_host,
)


def run_checks(settings: Settings) -> Iterator[Finding]:
    """Every finding, in an order in which mending makes sense."""
    for check in CHECKS:
        yield check(settings)
