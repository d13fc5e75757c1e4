"""`casemate trust`: anchors are added when they can serve, shown as they are, and never taken for a simulator's."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from casemate.attestation.platforms.tpm.simulator import AkAuthority, SimulatedTpm
from casemate.cli.main import invoke


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = invoke([str(argument) for argument in arguments])
    return status, *capsys.readouterr()


def test_anchors_are_added_shown_and_verified_with(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    authority, tpm = AkAuthority(datetime.now(UTC)), SimulatedTpm()
    files = {
        "tpm-key": tpm.spki,
        "tpm-root": authority.root.public_bytes(Encoding.PEM),
        "tpm-certificate": authority.intermediate.public_bytes(Encoding.DER),
        "tpm-crl": authority.crl(),
    }
    for what, content in files.items():
        (tmp_path / what).write_bytes(content)
        assert run(capsys, "trust", "add", tmp_path / what, "--as", what)[0] == 0
    status, out, err = run(capsys, "trust", "show", "--format", "json")
    shown = json.loads(out)
    assert (status, shown["verifies"], shown["damaged"]) == (0, ["tpm"], [])
    assert [anchor["name"] for anchor in shown["anchors"]].count("attestation key") == 1
    assert len(shown["anchors"]) == 4
    assert "SIMULATED" not in err
    (home / "broker" / "trust" / "tpm" / "keys" / "half.pem").write_bytes(b"-----BEGIN PUBLIC KEY-----")
    status, _, err = run(capsys, "trust", "show")
    assert status == 3
    assert "undecided: trust-anchor-invalid: " in err


def test_what_cannot_serve_changes_nothing(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = AkAuthority(datetime.now(UTC)).root.public_bytes(Encoding.PEM)
    file = tmp_path / "file.pem"
    file.write_bytes(root)
    for what in ("tpm-key", "tpm-crl", "gpu-root", "intel-root"):
        status, _, err = run(capsys, "trust", "add", file, "--as", what)
        assert (status, err.split(": ")[1]) == (2, "trust-anchor-invalid"), err
    assert run(capsys, "trust", "add", file, "--as", "tpm-root", "--simulated")[0] == 0
    status, _, err = run(capsys, "trust", "add", file, "--as", "tpm-root")
    assert status == 2
    assert "share none" in err
    kept = [path for path in (home / "broker" / "trust").rglob("*") if path.is_file()]
    assert [path.parent.parent.name for path in kept] == ["tpm-simulated"]
