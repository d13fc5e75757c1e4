"""Quotes through Linux's configfs-tsm (6.7 and later): TDX and SEV-SNP guests alike.

One directory per request below ``/sys/kernel/config/tsm/report``: write ``inblob``, read ``outblob``. Anybody with the
rights can write there too, so ``generation`` is read after the report: it counts the writes, and any other number than
our own writes means that the report may answer somebody else's input. Then the request is made afresh.
Documentation/ABI/testing/configfs-tsm-report.
"""

from __future__ import annotations

import base64
import errno
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from casemate.attestation.errors import NoTeeError
from casemate.attestation.evidence import REPORT_DATA_SIZE, Evidence
from casemate.attestation.platforms.linux.errors import (
    TsmBusyError,
    TsmFailedError,
    TsmGenerationError,
    TsmTooLargeError,
)
from casemate.attestation.platforms.linux.files import FileOps, OsFiles
from casemate.attestation.platforms.linux.snp_certificates import endorsement_key, parse_certificate_table
from casemate.attestation.platforms.snp.body import build_body
from casemate.errors import CasemateError, UsageError

__all__ = ["CCEL_PATH", "TSM_REPORTS", "TsmAttester", "TsmReport", "request_report"]

TSM_REPORTS = Path("/sys/kernel/config/tsm/report")
CCEL_PATH = Path("/sys/firmware/acpi/tables/data/CCEL")
MAX_TRIES = 8
_FIRST_WAIT_SECONDS = 0.02
_TEES = {"tdx_guest": "tdx", "sev_guest": "snp"}
_TRANSIENT = frozenset({errno.EBUSY, errno.EINTR, errno.EAGAIN, errno.ETIMEDOUT})


@dataclass(frozen=True)
class TsmReport:
    """What the kernel gave: the report or quote, and beside it (SEV-SNP) the host's certificate table."""

    provider: str
    outblob: bytes
    auxblob: bytes


class _Moved(Exception):
    """The generation is not the number of our own writes."""


def request_report(
    report_data: bytes,
    *,
    base: Path = TSM_REPORTS,
    files: FileOps | None = None,
    privilege_level: int | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> TsmReport:
    """A report over ``report_data`` (64 bytes); ``privilege_level`` is the VMPL asked for, SEV-SNP only.

    Raises ``NoTeeError``, ``TsmBusyError``, ``TsmGenerationError``, ``TsmTooLargeError`` or ``TsmFailedError``."""
    if len(report_data) != REPORT_DATA_SIZE:
        raise UsageError(f"report data: got {len(report_data)} bytes, need {REPORT_DATA_SIZE}")
    ops = files or OsFiles()
    if not ops.exists(base):
        raise NoTeeError(
            f"{base}: not there; need Linux 6.7 or later, in a TDX or SEV-SNP guest, with configfs mounted"
        )
    wait = _FIRST_WAIT_SECONDS
    failure: CasemateError = TsmBusyError(f"{base}: busy")
    for attempt in range(MAX_TRIES):
        if attempt:
            sleep(wait)
            wait *= 2
        try:
            return _request_once(report_data, base, ops, privilege_level)
        except _Moved as exc:
            failure = TsmGenerationError(f"{base}: {exc}, at each of {MAX_TRIES} tries")
        except OSError as exc:
            if exc.errno not in _TRANSIENT:
                raise _typed(exc, base) from exc
            failure = TsmBusyError(f"{base}: {exc.strerror}, at each of {MAX_TRIES} tries")
    raise failure


def _request_once(report_data: bytes, base: Path, ops: FileOps, privilege_level: int | None) -> TsmReport:
    directory = base / f"casemate-{secrets.token_hex(8)}"
    ops.mkdir(directory)
    try:
        writes = 0
        provider = ops.read(directory / "provider").decode(errors="replace").strip()
        if privilege_level is not None:
            ops.write(directory / "privlevel", str(privilege_level).encode())
            writes += 1
        ops.write(directory / "inblob", report_data)
        writes += 1
        outblob = ops.read(directory / "outblob")
        auxblob = ops.read(directory / "auxblob") if ops.exists(directory / "auxblob") else b""
        generation = ops.read(directory / "generation").strip()
        if generation != str(writes).encode():
            raise _Moved(f"generation expected {writes}, got {generation.decode(errors='replace')[:20]}")
        return TsmReport(provider, outblob, auxblob)
    finally:
        with suppress(OSError):  # the request's own error is the one to tell; an empty directory harms nobody
            ops.rmdir(directory)


def _typed(exc: OSError, base: Path) -> CasemateError:
    if exc.errno == errno.ENXIO:
        return NoTeeError(f"{base}: the kernel has no provider of TEE reports (ENXIO)")
    if exc.errno == errno.EFBIG:
        return TsmTooLargeError(f"{base}: the report is larger than this kernel hands out (EFBIG)")
    return TsmFailedError(f"{exc.filename or base}: {exc.strerror or exc}")


class TsmAttester:
    """An ``Attester`` for TDX and SEV-SNP guests; which of them, the kernel says.

    TDX evidence carries the CCEL event log where the firmware left one, SNP evidence the host's certificates."""

    def __init__(
        self,
        *,
        base: Path = TSM_REPORTS,
        ccel: Path = CCEL_PATH,
        files: FileOps | None = None,
        privilege_level: int | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._base, self._ccel = base, ccel
        self._files = files or OsFiles()
        self._privilege_level = privilege_level
        self._sleep = sleep
        self._tee: str | None = None

    @property
    def tee(self) -> str:
        """``tdx`` or ``snp``; asks the kernel once. Raises ``NoTeeError``."""
        if self._tee is None:
            self._tee = _tee_of(self._provider())
        return self._tee

    def collect(self, report_data: bytes) -> Evidence:
        report = request_report(
            report_data,
            base=self._base,
            files=self._files,
            privilege_level=self._privilege_level,
            sleep=self._sleep,
        )
        self._tee = _tee_of(report.provider)
        if self._tee == "tdx":
            return Evidence("tdx", self._tdx_body(report))
        kind, vek = endorsement_key(parse_certificate_table(report.auxblob)) or ("VCEK", None)
        return Evidence("snp", build_body(report.outblob, vek, kind=kind))

    def _tdx_body(self, report: TsmReport) -> dict[str, Any]:
        body = {"quote": base64.b64encode(report.outblob).decode()}
        with suppress(OSError):  # no log is no failure: the quote stands on its own
            body["cc_eventlog"] = base64.b64encode(self._files.read(self._ccel)).decode()
        return body

    def _provider(self) -> str:
        if not self._files.exists(self._base):
            raise NoTeeError(f"{self._base}: not there; this is no TDX or SEV-SNP guest with Linux 6.7 or later")
        directory = self._base / f"casemate-{secrets.token_hex(8)}"
        try:
            self._files.mkdir(directory)
            try:
                return self._files.read(directory / "provider").decode(errors="replace").strip()
            finally:
                self._files.rmdir(directory)
        except OSError as exc:
            raise _typed(exc, self._base) from exc


def _tee_of(provider: str) -> str:
    tee = _TEES.get(provider)
    if tee is None:
        raise NoTeeError(f"provider {provider[:40]!r}: not read here, known are {sorted(_TEES)}")
    return tee
