"""Measure what a SIMULATED TEE starts: the bytes, not what they say about themselves."""

from __future__ import annotations

import hashlib
import os
import platform
import site
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import casemate
from casemate.attestation.platforms.simulator.errors import LaunchRequestError
from casemate.crypto.canonical import canonical_json

__all__ = ["RUNTIME_COMMAND", "Measurer"]

RUNTIME_COMMAND = (sys.executable, "-I", "-m", "casemate", "run")
"""How the runtime starts. ``-I``: neither the working directory nor PYTHON* variables can put other code in front."""


class Measurer:
    """Computes SHA-384 measurements; remembers file digests by device, inode, size and times to be fast."""

    def __init__(self) -> None:
        self._digests: dict[str, tuple[tuple[int, ...], str]] = {}

    def runtime(self) -> bytes:
        """Over the runtime: all files of the installed package, the Python version, the installed distributions."""
        root = Path(casemate.__file__).parent
        return self._over(
            {
                "python": platform.python_version(),
                "implementation": sys.implementation.cache_tag,
                "files": {str(path.relative_to(root)): self._digest(path) for path in _files(root)},
                "distributions": sorted(_distributions()),
            }
        )

    def image(self, command: Sequence[str]) -> bytes:
        """Over another program: its bytes and those of arguments that are files; raises ``LaunchRequestError``."""
        files = {}
        for index, argument in enumerate(command):
            path = Path(argument)
            if index == 0 and not (path.is_absolute() and path.is_file()):
                raise LaunchRequestError(f"image: {argument}: need the absolute path of a program")
            if path.is_absolute() and path.is_file():
                files[argument] = self._digest(path)
        return self._over({"command": list(command), "files": files})

    def _over(self, content: dict[str, Any]) -> bytes:
        return hashlib.sha384(b"casemate:simulated-measurement:v1\0" + canonical_json(content)).digest()

    def _digest(self, path: Path) -> str:
        try:
            with path.open("rb") as file:
                stat = os.fstat(file.fileno())
                state = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
                known = self._digests.get(str(path))
                if known is not None and known[0] == state:
                    return known[1]
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as exc:
            raise LaunchRequestError(f"cannot measure {path}: {exc.strerror or exc}") from exc
        self._digests[str(path)] = (state, digest)
        return digest


def _files(root: Path) -> Iterator[Path]:
    with os.scandir(root) as entries:
        for entry in sorted(entries, key=lambda e: e.name):
            if entry.is_dir() and entry.name != "__pycache__":
                yield from _files(Path(entry.path))
            elif entry.is_file() and not entry.name.endswith(".pyc"):
                yield Path(entry.path)


def _distributions() -> set[str]:
    """``name==version`` of everything installed, by the names of the metadata directories."""
    found = set()
    for directory in filter(os.path.isdir, site.getsitepackages()):  # what ``-I`` leaves on the module path
        for name in os.listdir(directory):  # noqa: PTH208  (names alone; much faster than paths)
            if name.endswith(".dist-info"):
                found.add(name.removesuffix(".dist-info").replace("-", "==", 1))
    return found
