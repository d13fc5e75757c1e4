"""A maker of software TPMs: an authority of its own, and TPMs that leave the factory with its certificate."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.swtpm import SoftwareTpm

__all__ = ["TpmMaker"]


class TpmMaker:
    """``root`` and ``intermediate`` are PEM files, written when the first TPM is made."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._state = directory / "ca"
        self._state.mkdir(parents=True)
        options = directory / "localca.options"
        options.write_text("--platform-manufacturer test\n--platform-version 2.1\n--platform-model test\n")
        authority = directory / "localca.conf"
        authority.write_text(
            f"statedir = {self._state}\nsigningkey = {self._state}/signkey.pem\n"
            f"issuercert = {self._state}/issuercert.pem\ncertserial = {self._state}/certserial\n"
        )
        self._config = directory / "setup.conf"
        self._config.write_text(
            "create_certs_tool = swtpm_localca\n"
            f"create_certs_tool_config = {authority}\ncreate_certs_tool_options = {options}\n"
            "active_pcr_banks = sha256\n"
        )

    @property
    def root(self) -> Path:
        return self._state / "swtpm-localca-rootca-cert.pem"

    @property
    def intermediate(self) -> Path:
        return self._state / "issuercert.pem"

    def make(self, name: str) -> SoftwareTpm:
        """A TPM that is not powered on yet."""
        directory = self._directory / name
        directory.mkdir()
        command = ["swtpm_setup", "--tpm2", "--tpmstate", str(directory), "--create-ek-cert", "--overwrite"]
        subprocess.run([*command, "--config", str(self._config)], check=True, capture_output=True, timeout=60)
        return SoftwareTpm(directory)
