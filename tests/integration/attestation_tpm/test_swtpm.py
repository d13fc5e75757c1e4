"""A real swtpm process: quoted by our attester, verified by our verifier, its keys tied together by a credential."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from casemate.attestation.evidence import Evidence
from casemate.attestation.platforms.tpm.attester import TpmAttester
from casemate.attestation.platforms.tpm.credential import make_credential
from casemate.attestation.platforms.tpm.errors import (
    TpmCredentialError,
    TpmKeyAttributesError,
    TpmNonceMismatchError,
    TpmPcrDigestMismatchError,
    TpmUnavailableError,
    TpmWorkloadMismatchError,
)
from casemate.attestation.platforms.tpm.simulator import SimulatedTpm
from casemate.attestation.platforms.tpm.trust import TpmTrust
from casemate.attestation.platforms.tpm.verifier import TpmVerifier
from casemate.crypto.secret import Secret

pytest.importorskip("tpm2_pytss", reason="tpm2-pytss is not installed (extra tpm)")
if shutil.which("swtpm") is None:
    pytest.skip("swtpm is not installed", allow_module_level=True)

NOW = datetime(2026, 6, 1, tzinfo=UTC)
WORKLOAD = hashlib.sha384(b"workload").digest()


def _two_free_ports() -> int:
    """swtpm's TCTI wants the control port right after the data port."""
    for _ in range(50):
        with socket.socket() as data, socket.socket() as control:
            data.bind(("127.0.0.1", 0))
            port: int = data.getsockname()[1]
            try:
                control.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port
    raise RuntimeError("no two neighbouring ports are free")


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        listening = Path("/proc/net/tcp").read_text()
        if f"0100007F:{port:04X} 00000000:0000 0A" in listening:
            return
        time.sleep(0.02)
    raise RuntimeError(f"swtpm does not listen; it ended with {process.poll()}")


@pytest.fixture
def tcti(tmp_path: Path) -> Iterator[str]:
    port = _two_free_ports()
    process = subprocess.Popen(
        (
            f"swtpm socket --tpm2 --tpmstate dir={tmp_path} --flags not-need-init,startup-clear "
            f"--ctrl type=tcp,port={port + 1} --server type=tcp,port={port}"
        ).split(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(port, process)
        yield f"swtpm:host=127.0.0.1,port={port}"
    finally:
        process.terminate()
        process.wait(timeout=10)


def verifier(attester: TpmAttester) -> TpmVerifier:
    return TpmVerifier(TpmTrust(), simulator_trust=TpmTrust(keys=[attester.ak_spki], simulated=True))


def test_a_real_tpm_quotes_what_our_verifier_accepts(tcti: str) -> None:
    report_data = os.urandom(48) + bytes(16)
    with TpmAttester(tcti) as attester:
        attester.extend_workload(WORKLOAD)
        claims = verifier(attester).verify(attester.collect(report_data), now=NOW, challenge=report_data)
        assert claims.simulated
        assert claims.report_data == report_data.hex()
        assert claims.workload == WORKLOAD[:32].hex()
        assert claims.workload_binding == "launch"
        assert claims.extra["ak_restricted"] is True
        assert claims.extra["software_tpm"] is True
        assert len(claims.extra["pcrs"]["sha256"]) == 24


def test_a_second_workload_in_the_same_boot_is_refused(tcti: str) -> None:
    with TpmAttester(tcti) as attester:
        attester.extend_workload(hashlib.sha384(b"the first").digest())
        attester.extend_workload(WORKLOAD)
        with pytest.raises(TpmWorkloadMismatchError):
            verifier(attester).verify(attester.collect(bytes(64)), now=NOW)


def test_another_challenge_or_another_pcr_is_refused(tcti: str) -> None:
    with TpmAttester(tcti) as attester:
        evidence = attester.collect(b"\1" * 64)
        with pytest.raises(TpmNonceMismatchError):
            verifier(attester).verify(evidence, now=NOW, challenge=b"\2" * 64)
        quote = dict(evidence.body["tpm_quote"])
        quote["pcrs"] = ["11" * 32, *quote["pcrs"][1:]]
        with pytest.raises(TpmPcrDigestMismatchError):
            verifier(attester).verify(Evidence("tpm", {**evidence.body, "tpm_quote": quote}), now=NOW)


def test_a_credential_opens_only_beside_its_attestation_key(tcti: str) -> None:
    secret = os.urandom(32)
    with TpmAttester(tcti) as attester:
        sealed = make_credential(attester.ek_public, attester.ak_tpmt, Secret(secret))
        assert attester.activate_credential(*sealed) == secret
        for_another_key = make_credential(attester.ek_public, SimulatedTpm("ecdsa").tpmt_public(), Secret(secret))
        with pytest.raises(TpmCredentialError):
            attester.activate_credential(*for_another_key)
        assert attester.activate_credential(*sealed) == secret  # a refusal leaves nothing behind in the TPM
        with pytest.raises(TpmKeyAttributesError):
            make_credential(attester.ek_public, attester.ek_public, Secret(secret))


def test_no_tpm_is_said_so() -> None:
    with pytest.raises(TpmUnavailableError):
        TpmAttester("swtpm:host=127.0.0.1,port=1")
