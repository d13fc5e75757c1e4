"""SGX quotes from inside Gramine: ``/dev/attestation`` (pseudo files of the libOS, private to this process)."""

from __future__ import annotations

import base64
from pathlib import Path

from casemate.attestation.errors import NoTeeError
from casemate.attestation.evidence import REPORT_DATA_SIZE, Evidence
from casemate.attestation.platforms.linux.errors import TsmFailedError
from casemate.attestation.platforms.linux.files import FileOps, OsFiles
from casemate.errors import UsageError

__all__ = ["GRAMINE_ATTESTATION", "GramineAttester"]

GRAMINE_ATTESTATION = Path("/dev/attestation")


class GramineAttester:
    """An ``Attester`` in an SGX enclave run by Gramine with ``sgx.remote_attestation = "dcap"``."""

    def __init__(self, *, base: Path = GRAMINE_ATTESTATION, files: FileOps | None = None) -> None:
        self._base = base
        self._files = files or OsFiles()

    @property
    def tee(self) -> str:
        return "sgx"

    def check(self) -> None:
        """Raises ``NoTeeError`` unless DCAP quotes can be had."""
        path = self._base / "attestation_type"
        if not self._files.exists(path):
            raise NoTeeError(f"{path}: not there; this is no process in Gramine-SGX")
        try:
            kind = self._files.read(path).decode(errors="replace").strip()
        except OSError as exc:
            raise TsmFailedError(f"{path}: {exc.strerror or exc}") from exc
        if kind != "dcap":
            raise NoTeeError(f'{path}: says {kind[:20]!r}; set sgx.remote_attestation = "dcap" in the Gramine manifest')

    def collect(self, report_data: bytes) -> Evidence:
        if len(report_data) != REPORT_DATA_SIZE:
            raise UsageError(f"report data: got {len(report_data)} bytes, need {REPORT_DATA_SIZE}")
        self.check()
        try:
            self._files.write(self._base / "user_report_data", report_data)
            quote = self._files.read(self._base / "quote")
        except OSError as exc:
            raise TsmFailedError(f"{exc.filename or self._base}: {exc.strerror or exc}") from exc
        return Evidence("sgx", {"quote": base64.b64encode(quote).decode()})
