"""Certificates of device makers that break the rules of X.509: refused by errors of ours, or read without a murmur."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from casemate.attestation.evidence import Evidence
from casemate.attestation.platforms.certificates import Flaw, PathError, load_certificates
from casemate.attestation.platforms.gpu.errors import GpuCertificateError
from casemate.attestation.platforms.gpu.simulator import SimulatedGpu
from casemate.attestation.platforms.gpu.verifier import GpuVerifier
from casemate.attestation.platforms.tpm.errors import TpmAkCertificateError, TpmAkCertificateExpiredError
from casemate.attestation.platforms.tpm.simulator import AkAuthority, SimulatedTpm
from casemate.attestation.platforms.tpm.trust import TpmTrust
from casemate.attestation.platforms.tpm.verifier import TpmVerifier

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def with_negative_serial(der: bytes) -> bytes:
    """The top bit of the serial number set: the INTEGER that follows the version."""
    at = der.index(b"\xa0\x03\x02\x01\x02\x02") + 7
    return der[:at] + bytes([der[at] | 0x80]) + der[at + 1 :]


@pytest.fixture
def negative() -> bytes:
    authority, tpm = AkAuthority(NOW), SimulatedTpm()
    return with_negative_serial(authority.certify(tpm.public_key).public_bytes(Encoding.DER))


def test_a_negative_serial_number_makes_a_certificate_malformed(negative: bytes) -> None:
    with pytest.raises(PathError) as caught:
        load_certificates(negative, "certificate")
    assert caught.value.flaw is Flaw.MALFORMED


def test_an_attestation_key_certificate_with_a_negative_serial_number_is_refused() -> None:
    authority, tpm = AkAuthority(NOW), SimulatedTpm()
    der = with_negative_serial(authority.certify(tpm.public_key).public_bytes(Encoding.DER))
    body = tpm.evidence({0: bytes(32)}, b"n") | {"ak_cert_der": base64.b64encode(der).decode()}
    roots = [authority.root.public_bytes(Encoding.DER)]
    trust = TpmTrust(roots=roots, crls=[authority.crl()], simulated=True)
    with pytest.raises(TpmAkCertificateError):
        TpmVerifier(TpmTrust(), simulator_trust=trust).verify(Evidence("tpm", body), now=NOW)


def test_a_gpu_chain_with_a_negative_serial_number_is_refused() -> None:
    gpu = SimulatedGpu(NOW)
    pin = hashlib.sha256(gpu.root.public_bytes(Encoding.DER)).hexdigest()
    verifier = GpuVerifier(pins=(), simulated_pins=[pin])
    verifier.verify(Evidence("nvidia", gpu.evidence(bytes(32))), now=NOW)
    negative = with_negative_serial(gpu.leaf.public_bytes(Encoding.DER))
    pem = f"-----BEGIN CERTIFICATE-----\n{base64.b64encode(negative).decode()}\n-----END CERTIFICATE-----\n".encode()
    body = gpu.evidence(bytes(32), chain=pem + gpu.chain(gpu.ca, gpu.root))
    with pytest.raises(GpuCertificateError):
        verifier.verify(Evidence("nvidia", body), now=NOW)


def test_real_names_and_serial_numbers_are_read_without_warnings(vectors: Path) -> None:
    """Google's names are too long for X.520, AMD's serial numbers are 0; a user has no use for being told."""
    tpm, snp = vectors / "tpm", vectors / "snp"
    lines = [
        f"read({str(path)!r})"
        for path in (*sorted(tpm.glob("*.c*r*t")), *sorted(tpm.glob("*.cer")), *sorted(snp.glob("*cek.der")))
    ]
    source = (
        "import casemate.attestation, pathlib\nfrom cryptography import x509\n"
        "def read(path):\n    raw = pathlib.Path(path).read_bytes()\n"
        "    c = x509.load_pem_x509_certificate(raw) if raw[:1] == b'-' else x509.load_der_x509_certificate(raw)\n"
        "    print(c.subject, c.issuer, c.serial_number)\n" + "\n".join(lines)
    )
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", source], capture_output=True, text=True, env=os.environ, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("<Name") >= 2 * len(lines) > 0


def test_the_command_prints_no_warnings_about_googles_evidence(vectors: Path, tmp_path: Path) -> None:
    tpm = vectors / "tpm"
    chain = [f"--certs={tpm / name}" for name in ("tpm_ek_intermediate_2.crt", "tpm_ek_root_1.cer")]
    command = ["attest", "verify", str(tpm / "gce_cos85_no_nonce.json"), "--platform", "gce", *chain]
    done = subprocess.run(
        [sys.executable, "-W", "always", "-m", "casemate", *command],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "CASEMATE_HOME": str(tmp_path)},
    )
    assert done.stdout
    assert "length must be" not in done.stderr + done.stdout


def test_a_certificate_is_valid_to_its_last_second_and_no_longer() -> None:
    authority, tpm = AkAuthority(NOW), SimulatedTpm()
    end = NOW + timedelta(days=1)
    certificate = authority.certify(tpm.public_key, not_after=end).public_bytes(Encoding.DER)
    body = tpm.evidence({0: bytes(32)}, b"n") | {"ak_cert_der": base64.b64encode(certificate).decode()}
    trust = TpmTrust(
        roots=[authority.root.public_bytes(Encoding.DER)],
        intermediates=[authority.intermediate.public_bytes(Encoding.DER)],
        simulated=True,
    )
    verifier = TpmVerifier(TpmTrust(), simulator_trust=trust)
    assert verifier.verify(Evidence("tpm", body), now=end).collateral_expires == end
    with pytest.raises(TpmAkCertificateExpiredError):
        verifier.verify(Evidence("tpm", body), now=end + timedelta(seconds=1))
