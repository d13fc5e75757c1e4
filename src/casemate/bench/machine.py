"""What a figure was measured on: said with every result, since no figure means anything without it."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import psutil

import casemate

__all__ = ["describe"]


def describe() -> dict[str, Any]:
    """Processor, cores, memory in GiB, kernel, versions, and how busy the machine was (load over the last minute)."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "casemate": casemate.__version__,
        "load_at_start": round(os.getloadavg()[0], 2),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
