"""A real swtpm process: quoted by our attester, verified by our verifier, its keys tied together by a credential."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.support.swtpm import SoftwareTpm, require_swtpm

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
    TpmWorkloadRegisterUsedError,
)
from casemate.attestation.platforms.tpm.simulator import SimulatedTpm
from casemate.attestation.platforms.tpm.trust import TpmTrust
from casemate.attestation.platforms.tpm.verifier import TpmVerifier
from casemate.cli.main import invoke
from casemate.crypto.secret import Secret

require_swtpm()

NOW = datetime(2026, 6, 1, tzinfo=UTC)
WORKLOAD = hashlib.sha384(b"workload").digest()


@pytest.fixture
def tcti(tmp_path: Path) -> Iterator[str]:
    with SoftwareTpm(tmp_path) as tpm:
        yield tpm.tcti


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


def test_the_attestation_key_is_the_same_after_a_reset_and_of_this_tpm_alone(tmp_path: Path) -> None:
    found = []
    with SoftwareTpm(tmp_path / "one") as tpm, SoftwareTpm(tmp_path / "two") as other:
        for name in (tpm, other):
            with TpmAttester(name.tcti) as attester:
                found.append(attester.ak_spki)
        tpm.stop(signal.SIGKILL)  # no orderly shutdown, and more of them than dictionary attack protection forgives
        for _ in range(5):
            tpm.start()
            with TpmAttester(tpm.tcti) as attester:
                attester.collect(bytes(64))
                found.append(attester.ak_spki)
            tpm.stop(signal.SIGKILL)
    assert len({found[0], *found[2:]}) == 1
    assert found[0] != found[1]


def test_members_of_one_job_extend_pcr_8_once(tcti: str) -> None:
    with TpmAttester(tcti) as attester:
        attester.bind_workload(WORKLOAD)
        attester.bind_workload(WORKLOAD)
        claims = verifier(attester).verify(attester.collect(bytes(64)), now=NOW)
        assert claims.workload == WORKLOAD[:32].hex()
        with pytest.raises(TpmWorkloadRegisterUsedError):
            attester.bind_workload(hashlib.sha384(b"the next").digest())


def test_nobody_else_binds_a_workload_meanwhile_and_no_lock_file_stays(
    tcti: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("casemate.attestation.platforms.tpm.attester._LOCK_SECONDS", 0.1)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    program = (
        "import sys; from casemate.attestation.platforms.tpm.attester import _exclusive\n"
        f"with _exclusive({tcti!r}): print('held', flush=True); sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", program], **pipes) as holder, TpmAttester(tcti) as tpm:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(TpmUnavailableError, match="another process"):
            tpm.bind_workload(WORKLOAD)
        holder.kill()
        holder.wait()
        tpm.bind_workload(WORKLOAD)
    assert not list((tmp_path / "temporary").iterdir())


def test_threads_share_one_connection(tcti: str) -> None:
    with TpmAttester(tcti) as attester, ThreadPoolExecutor(8) as pool:
        asked = [os.urandom(64) for _ in range(40)]
        for report_data, evidence in zip(asked, pool.map(attester.collect, asked), strict=True):
            verifier(attester).verify(evidence, now=NOW, challenge=report_data)
    with pytest.raises(TpmUnavailableError, match="closed"):
        attester.collect(bytes(64))


def test_evidence_that_the_command_collects_is_accepted_by_the_command_that_judges(
    tcti: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Also after more processes than the TPM has places for keys: none leaves one behind."""
    evidence, key, policy = tmp_path / "evidence.json", tmp_path / "ak.der", tmp_path / "policy.yaml"
    environment = {**os.environ, "CASEMATE_TPM": tcti}
    command = [sys.executable, "-m", "casemate", "attest", "collect", "--report-data", "00aabb", "--out", str(evidence)]
    for _ in range(4):
        subprocess.run(command, env=environment, check=True, timeout=60, stderr=subprocess.DEVNULL)
    with TpmAttester(tcti) as attester:
        key.write_bytes(attester.ak_spki)
        ak_id = hashlib.sha256(attester.ak_spki).hexdigest()
    policy.write_text(f'version: 1\nname: mine\nplatforms: [tpm]\nplatform_ids: ["{ak_id}"]\n')
    judge = ["attest", "verify", str(evidence), "--challenge", "00aabb", "--policy", str(policy)]
    assert invoke([*judge, "--certs", str(key)]) == 0
    policy.write_text(f'version: 1\nname: mine\nplatform_ids: ["{"00" * 32}"]\n')
    assert invoke(judge) == 1
    assert "refused: tpm-ak-untrusted: " in capfd.readouterr().err


def test_no_tpm_is_said_so() -> None:
    with pytest.raises(TpmUnavailableError):
        TpmAttester("swtpm:host=127.0.0.1,port=1")
