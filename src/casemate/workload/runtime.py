"""What this process runs on, as the workload manifest records it: Python, Casemate, every installed package."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import sys

import casemate
from casemate.workload.errors import RuntimeMismatchError
from casemate.workload.manifest import Runtime

__all__ = ["check_runtime", "current_runtime", "installed_packages"]


def installed_packages() -> list[str]:
    """``name==version`` of every installed distribution, sorted; names as PEP 503 normalises them.

    Read from the names of the metadata directories alone, which costs a millisecond where ``importlib.metadata``
    would open every one of them."""
    found = set()
    for directory in sys.path:
        if not directory.endswith(("site-packages", "dist-packages")):
            continue  # the working directory and the like: not installed, and not ours to trust
        with contextlib.suppress(OSError), os.scandir(directory) as entries:
            for entry in entries:
                if entry.name.endswith((".dist-info", ".egg-info")):
                    name, _, version = entry.name.rsplit(".", 1)[0].partition("-")
                    found.add(f"{re.sub(r'[-_.]+', '-', name).lower()}=={version}")
    return sorted(found)


def current_runtime() -> Runtime:
    """The runtime of this process."""
    lock = hashlib.sha256("\n".join(installed_packages()).encode()).hexdigest()
    return Runtime(f"{sys.version_info.major}.{sys.version_info.minor}", casemate.__version__, lock)


def check_runtime(expected: Runtime) -> None:
    """Raise ``RuntimeMismatchError`` unless this process runs on ``expected``."""
    got = current_runtime()
    for name, want in expected.to_json().items():
        have = got.to_json()[name]
        if have != want:
            raise RuntimeMismatchError(f"{name}: expected {want[:24]}, got {have[:24]}")
