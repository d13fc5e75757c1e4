"""A simulated TPM, a simulated authority for its key, and the real evidence where it is at hand."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from casemate.attestation.evidence import Evidence
from casemate.attestation.platforms.tpm.simulator import AkAuthority, SimulatedTpm

NOW = datetime(2026, 6, 1, tzinfo=UTC)
NONCE = hashlib.sha384(b"challenge").digest() + bytes(16)
PCRS = {n: hashlib.sha256(bytes([n])).digest() for n in (0, 1, 2, 3, 4, 5, 6, 7, 8)}


@dataclass(frozen=True)
class RealEvidence:
    """Real evidence lies beside the repository, not in it: ``CASEMATE_VECTORS``, or ``shared/vectors`` next to it."""

    folder: Path

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def body(self, name: str) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.read(f"tpm/{name}"))
        return body

    def evidence(self, name: str, tee: str = "tpm") -> Evidence:
        return Evidence(tee, self.body(name))


@pytest.fixture(scope="session")
def real() -> RealEvidence:
    beside = Path(__file__).resolve().parents[4] / "shared" / "vectors"
    folder = Path(os.environ.get("CASEMATE_VECTORS", beside))
    if not (folder / "tpm").is_dir():
        pytest.skip(f"no real evidence at {folder}; set CASEMATE_VECTORS")
    return RealEvidence(folder)


@pytest.fixture(scope="session")
def tpm() -> SimulatedTpm:
    return SimulatedTpm("ecdsa")


@pytest.fixture(scope="session")
def rsa_tpm() -> SimulatedTpm:
    return SimulatedTpm("rsassa")


@pytest.fixture(scope="session")
def authority() -> AkAuthority:
    return AkAuthority(NOW)
