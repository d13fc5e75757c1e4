"""An executor that nobody attested: what an attacker on the cluster would start beside the real ones.

It reads the driver's address and the application's id where everybody on the machine can, from the arguments of a
running executor, brings a key and certificate of its own, trusts every server, and asks the driver for work.
"""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, pkcs12
from cryptography.x509.oid import NameOID

from casemate.demo.sandbox import die_with_parent
from casemate.errors import FailedError

__all__ = ["RogueOutcome", "Target", "find_target", "run_rogue_executor"]

_BACKEND = "org.apache.spark.executor.CoarseGrainedExecutorBackend"
_REGISTERED = "Successfully registered with driver"
_REFUSAL = re.compile(r"\S*SSL\w*Exception: [^\n]*(certificate|alert)[^\n]*", re.IGNORECASE)


@dataclass(frozen=True)
class Target:
    """What the arguments of a running executor give away."""

    driver_url: str
    app_id: str


@dataclass(frozen=True)
class RogueOutcome:
    """Whether the driver took the executor in, and the line of its log that says so."""

    registered: bool
    line: str


def find_target(ancestor: int) -> Target | None:
    """The driver of some running executor among the descendants of a process: one cluster of possibly many."""
    with suppress(psutil.Error):
        for process in psutil.Process(ancestor).children(recursive=True):
            with suppress(psutil.Error, ValueError, IndexError):
                argv = process.cmdline()
                if _BACKEND in argv:
                    return Target(argv[argv.index("--driver-url") + 1], argv[argv.index("--app-id") + 1])
    return None


def _self_signed_store(path: Path, password: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "executor")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(
        pkcs12.serialize_key_and_certificates(
            b"rogue", key, certificate, None, BestAvailableEncryption(password.encode())
        )
    )


def _tls_options(directory: Path) -> list[str]:
    store, password = directory / "rogue.p12", "rogue-password"
    _self_signed_store(store, password)
    settings = {
        "enabled": "true",
        "keyStore": str(store),
        "keyStoreType": "PKCS12",
        "keyStorePassword": password,
        "keyPassword": password,
        "protocol": "TLSv1.3",
    }
    return [f"-Dspark.ssl.rpc.{name}={value}" for name, value in settings.items()]


def run_rogue_executor(target: Target, directory: Path, *, tls: bool = True, seconds: float = 120) -> RogueOutcome:
    """Start the rogue, wait until it is taken in or turned away, and end it. Its log stays in ``directory``."""
    spec = importlib.util.find_spec("pyspark")
    if spec is None or spec.origin is None:
        raise FailedError("pyspark is not installed: pip install 'casemate[spark]'")
    directory.mkdir(parents=True, exist_ok=True)
    java = str(Path(os.environ["JAVA_HOME"], "bin/java")) if "JAVA_HOME" in os.environ else "java"
    command: Sequence[str] = [
        *(java, "-cp", f"{Path(spec.origin).parent}/jars/*", *(_tls_options(directory) if tls else [])),
        "--add-exports=java.base/sun.nio.ch=ALL-UNNAMED",
        "--add-opens=java.base/java.nio=ALL-UNNAMED",
        *(_BACKEND, "--driver-url", target.driver_url, "--executor-id", "99", "--hostname", "127.0.0.1"),
        *("--cores", "1", "--app-id", target.app_id, "--resourceProfileId", "0"),
    ]
    log = directory / "rogue.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=directory,
            preexec_fn=die_with_parent(signal.SIGKILL),
        )
    try:
        _wait_for(process, log, seconds)
    finally:
        process.kill()
        process.wait()
    text = log.read_text(errors="replace")
    if _REGISTERED in text:
        return RogueOutcome(True, _REGISTERED)
    refusal = _REFUSAL.search(text)
    if refusal is None:
        raise FailedError(f"the rogue executor was neither taken in nor turned away within {seconds} s (log: {log})")
    return RogueOutcome(False, refusal.group(0).strip()[:200])


def _wait_for(process: subprocess.Popen[bytes], log: Path, seconds: float) -> None:
    """Until the log says that the executor was taken in or turned away: neither always ends the process."""
    for _ in range(int(seconds * 5)):
        text = log.read_text(errors="replace")
        if _REGISTERED in text or _REFUSAL.search(text):
            return
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.2)
            return
