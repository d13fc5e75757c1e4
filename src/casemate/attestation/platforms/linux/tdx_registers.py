"""TDX measurement registers as files (Linux 6.16 and later): read MRCONFIGID and the RTMRs, extend RTMR2 and RTMR3."""

from __future__ import annotations

from pathlib import Path

from casemate.attestation.errors import NoTeeError
from casemate.attestation.platforms.linux.errors import TsmFailedError
from casemate.attestation.platforms.linux.files import FileOps, OsFiles
from casemate.errors import UsageError

__all__ = ["TDX_MEASUREMENTS", "TdxRegisters"]

TDX_MEASUREMENTS = Path("/sys/class/misc/tdx_guest/measurements")
REGISTER_SIZE = 48
_FILES = {
    "mrconfigid": "mrconfigid",
    "mrowner": "mrowner",
    "mrownerconfig": "mrownerconfig",
    "mrtd": "mrtd:sha384",
    **{f"rtmr{n}": f"rtmr{n}:sha384" for n in range(4)},
}
_EXTENDABLE = (2, 3)  # the TDX module lets guests extend all four; 0 and 1 are the firmware's and the kernel's


class TdxRegisters:
    """This guest's registers. Extending cannot be undone; it lasts until the TD ends."""

    def __init__(self, *, base: Path = TDX_MEASUREMENTS, files: FileOps | None = None) -> None:
        self._base = base
        self._files = files or OsFiles()

    def read(self, register: str) -> bytes:
        """The 48 bytes of ``mrconfigid``, ``mrowner``, ``mrownerconfig``, ``mrtd`` or ``rtmr0`` ... ``rtmr3``."""
        path = self._path(register)
        try:
            value = self._files.read(path)
        except OSError as exc:
            raise TsmFailedError(f"{path}: {exc.strerror or exc}") from exc
        if len(value) != REGISTER_SIZE:
            raise TsmFailedError(f"{path}: got {len(value)} bytes, need {REGISTER_SIZE}")
        return value

    def extend(self, register: int, digest: bytes) -> None:
        """RTMR := SHA-384(RTMR || ``digest``), for RTMR2 and RTMR3; ``digest`` has 48 bytes."""
        if register not in _EXTENDABLE or len(digest) != REGISTER_SIZE:
            raise UsageError(f"RTMR{register}, {len(digest)} bytes: only {_EXTENDABLE} are extended, with 48 bytes")
        path = self._path(f"rtmr{register}")
        try:
            self._files.write(path, digest)
        except OSError as exc:
            raise TsmFailedError(f"{path}: {exc.strerror or exc}") from exc

    def _path(self, register: str) -> Path:
        if register not in _FILES:
            raise UsageError(f"TDX register {register!r}: known are {sorted(_FILES)}")
        path = self._base / _FILES[register]
        if not self._files.exists(path):
            raise NoTeeError(f"{path}: not there; need Linux 6.16 or later in a TDX guest")
        return path
