"""A launch request: what may be asked for, and the environment and measurement that come of it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from casemate.attestation.platforms.simulator.errors import LaunchRequestError
from casemate.attestation.platforms.simulator.measure import RUNTIME_COMMAND, Measurer
from casemate.crypto.canonical import canonical_json
from casemate.errors import UsageError
from casemate.model import Role

__all__ = ["LaunchRequest", "parse_launch"]

_MEMBERS = {"op", "manifest", "job", "role", "environment", "cwd", "image"}
_JOB = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
# What would make the measured program run code that was not measured, and what the host itself sets.
_FORBIDDEN = re.compile(
    r"PYTHON.*|LD_.*|GCONV_PATH|BASH_ENV|ENV|JAVA_TOOL_OPTIONS|_?JDK_JAVA_OPTIONS|_JAVA_OPTIONS|GLIBC_TUNABLES|OPENSSL_.*"
    r"|CASEMATE_(TEE_.*|JOB|ROLE|MANIFEST)"
)
_INHERITED = re.compile(r"PATH|HOME|USER|LOGNAME|LANG|LC_[A-Z]+|TZ|TERM|TMPDIR|JAVA_HOME")


@dataclass(frozen=True)
class LaunchRequest:
    """A checked request. ``manifest`` is its RFC 8785 text."""

    manifest: bytes
    job: str
    role: Role
    environment: Mapping[str, str]
    cwd: Path
    command: tuple[str, ...]
    is_runtime: bool

    def measure(self, measurer: Measurer) -> bytes:
        """The SHA-384 measurement of what will be started."""
        return measurer.runtime() if self.is_runtime else measurer.image(self.command)

    def full_environment(self, own: Mapping[str, str]) -> dict[str, str]:
        """The whole environment of the TEE's first process; ``own`` is what the machine sets."""
        inherited = {name: value for name, value in os.environ.items() if _INHERITED.fullmatch(name)}
        return {**inherited, **self.environment, **own}


def parse_launch(message: Mapping[str, Any]) -> LaunchRequest:
    """Check a ``launch`` message; raises ``LaunchRequestError`` naming the member."""
    unknown = set(message) - _MEMBERS
    if unknown:
        raise LaunchRequestError(f"launch: unknown members {', '.join(sorted(unknown))}")
    job, role, cwd = (_text(message, name) for name in ("job", "role", "cwd"))
    if not _JOB.fullmatch(job):
        raise LaunchRequestError(f"launch: job {job!r}: need letters, digits, '.', '_', '-', at most 128")
    if role not in list(Role):
        raise LaunchRequestError(f"launch: role: expected one of {', '.join(Role)}, got {role!r}")
    if not Path(cwd).is_absolute() or not Path(cwd).is_dir():
        raise LaunchRequestError(f"launch: cwd {cwd!r}: need the absolute path of a directory")
    image = message.get("image")
    if image is not None and not (isinstance(image, list) and image and all(isinstance(a, str) for a in image)):
        raise LaunchRequestError("launch: image: need a list of texts, the program first")
    if any("\0" in part for part in image or ()):
        raise LaunchRequestError("launch: image: an argument has a NUL byte")
    return LaunchRequest(
        manifest=_manifest(message.get("manifest")),
        job=job,
        role=Role(role),
        environment=_environment(message.get("environment", {})),
        cwd=Path(cwd),
        command=tuple(image or RUNTIME_COMMAND),
        is_runtime=image is None,
    )


def _text(message: Mapping[str, Any], name: str) -> str:
    value = message.get(name)
    if not isinstance(value, str) or "\0" in value:
        raise LaunchRequestError(f"launch: {name}: need text, got {type(value).__name__}")
    return value


def _manifest(value: object) -> bytes:
    if not isinstance(value, dict):
        raise LaunchRequestError("launch: manifest: need a JSON object")
    try:
        return canonical_json(value)
    except UsageError as exc:
        raise LaunchRequestError(f"launch: manifest: {exc.message}") from exc


def _environment(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise LaunchRequestError("launch: environment: need a JSON object of texts")
    for name, text in value.items():
        if not _NAME.fullmatch(name) or not isinstance(text, str) or "\0" in text:
            raise LaunchRequestError(f"launch: environment: {name!r} is not a name with a text")
        if _FORBIDDEN.fullmatch(name):
            raise LaunchRequestError(f"launch: environment: {name} could change the measured program unmeasured")
    return dict(value)
