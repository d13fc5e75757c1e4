"""How fast the JVM's reader and writer are, beside the JVM's own AES-GCM and tink-java's stream, all in one process."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
from pathlib import Path

from casemate.engines.spark_cluster import COMPILE_EARLY
from casemate.engines.spark_home import find_spark
from casemate.errors import FailedError

__all__ = ["java_version", "jvm_speeds"]

_MAIN = "io.casemate.spark.IoBench"
_START_SECONDS = 120.0  # and warming up
_SECONDS_PER_GIB = 60.0  # of a slow and busy machine
_STEPS = 14  # that each repetition runs once


def jvm_speeds(directory: Path, size: int, repeats: int) -> dict[str, float]:
    """GiB of plaintext per second and core, medians of ``repeats`` trials over ``size`` bytes, in a JVM of its own.

    ``raw_jvm`` (decryption), ``raw_jvm_encrypt``: the cipher alone on whole segments. ``java_read``, ``java_write``,
    ``tink_java_read``, ``tink_java_write``, ``java_random_8k``, ``java_random_1m``: whole readers and writers over
    storage in the JVM's memory, copies to and from it included. The same with ``_file``: a file in ``directory``, and
    ``plain_java_read_file``, ``plain_java_write_file`` beside them. A core's second is a second of processor time,
    whatever Java thread used it, so that reading ahead counts for what it costs; by the clock each figure is there with
    ``_wall``. ``java_read_cold``, ``java_write_cold``: the first 16 MiB of the process, which
    has the Java options of Spark's.

    Leaves nothing in ``directory``. Raises ``EngineUnavailableError`` without PySpark or Java, ``FailedError`` when the
    JVM fails."""
    home = find_spark(dict(os.environ))
    memory = f"{512 + math.ceil(2.2 * size / (1 << 20))}m"
    command = [str(home.java / "bin" / "java"), f"-Xms{memory}", f"-Xmx{memory}", "-XX:+UseSerialGC", *COMPILE_EARLY]
    command += ["-cp", f"{home.jar}:{home.spark / 'jars'}/*", _MAIN, str(directory), str(size), str(repeats)]
    limit = _START_SECONDS + _SECONDS_PER_GIB * _STEPS * (repeats + 1) * size / (1 << 30)
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit)
    except subprocess.TimeoutExpired as exc:
        raise FailedError(f"bench of the JVM: not done after {limit:.0f} s") from exc
    if done.returncode:
        raise FailedError(f"bench of the JVM: {done.stderr.strip()[-500:]}")
    return {name: float(rate) for name, rate in json.loads(done.stdout).items()}


def java_version() -> str:
    """``17.0.15``, as the Java that is measured says in its ``release`` file, or ``unknown``.

    Raises ``EngineUnavailableError`` without Java."""
    try:
        text = (find_spark(dict(os.environ)).java / "release").read_text(encoding="utf-8")
    except OSError:
        text = ""
    found = re.search(r'^JAVA_VERSION="([^"]+)"', text, re.MULTILINE)
    return found[1] if found else "unknown"
