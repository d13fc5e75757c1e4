"""A tree of files that keeps the kernel's rules: what configfs-tsm, /dev/attestation and the TDX registers refuse."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

BASE = Path("/sys/kernel/config/tsm/report")
GRAMINE = Path("/dev/attestation")
REGISTERS = Path("/sys/class/misc/tdx_guest/measurements")


def refuse(code: int, path: Path) -> OSError:
    return OSError(code, os.strerror(code), str(path))


@dataclass
class Request:
    """One directory below report/: drivers/virt/coco's tsm_report_state."""

    inblob: bytes = b""
    privlevel: int = 0
    write_generation: int = 0
    read_generation: int = 0
    outblob: bytes = b""


@dataclass
class FakeKernel:
    """``FileOps`` over configfs-tsm. ``quote`` makes the blob; hooks play the other processes and the slow host."""

    provider: str | None = "tdx_guest"
    quote: Callable[[bytes, int], bytes] = lambda data, level: b"quote over " + data
    auxblob: bytes = b""
    floor: int = 0
    max_outblob: int = 32 * 1024
    busy: int = 0  # how many reads of outblob still fail with EBUSY
    intruder: int = 0  # how many requests still get a second write from somebody else
    others: dict[Path, bytes] = field(default_factory=dict)
    requests: dict[Path, Request] = field(default_factory=dict)
    made: int = 0

    def exists(self, path: Path) -> bool:
        if path == BASE or path in self.others or path in self.requests:
            return True
        return path.parent in self.requests and path.name in self._attributes()

    def mkdir(self, path: Path) -> None:
        if path.parent != BASE:
            raise refuse(errno.EPERM, path)
        if self.provider is None:
            raise refuse(errno.ENXIO, path)
        if path in self.requests:
            raise refuse(errno.EEXIST, path)
        self.requests[path] = Request()
        self.made += 1

    def rmdir(self, path: Path) -> None:
        if path not in self.requests:
            raise refuse(errno.ENOENT, path)
        del self.requests[path]

    def read(self, path: Path) -> bytes:
        if path in self.others:
            return self.others[path]
        request = self._request(path)
        if path.name == "provider":
            return f"{self.provider}\n".encode()
        if path.name == "generation":
            return f"{request.write_generation}\n".encode()
        if path.name == "privlevel_floor":
            return f"{self.floor}\n".encode()
        if path.name in ("inblob", "privlevel"):
            raise refuse(errno.EACCES, path)
        self._generate(request, path)
        if path.name == "auxblob":
            return self.auxblob
        if len(request.outblob) > self.max_outblob:
            raise refuse(errno.EFBIG, path)
        return request.outblob

    def write(self, path: Path, data: bytes) -> None:
        request = self._request(path)
        if path.name == "inblob":
            if len(data) > 64:
                raise refuse(errno.EFBIG, path)  # more than the attribute's cb_max_size
            self._advance(request, path)
            request.inblob = data
        elif path.name == "privlevel":
            if not data.strip().isdigit() or not self.floor <= int(data) <= 3:
                raise refuse(errno.EINVAL, path)
            self._advance(request, path)
            request.privlevel = int(data)
        else:
            raise refuse(errno.EACCES, path)

    def _attributes(self) -> set[str]:
        names = {"inblob", "outblob", "auxblob", "provider", "generation"}
        return names | ({"privlevel", "privlevel_floor"} if self.provider == "sev_guest" else set())

    def _request(self, path: Path) -> Request:
        if path.parent not in self.requests or path.name not in self._attributes():
            raise refuse(errno.ENOENT, path)
        return self.requests[path.parent]

    def _advance(self, request: Request, path: Path) -> None:
        if request.write_generation == (request.read_generation - 1) % 2**32:
            raise refuse(errno.EBUSY, path)
        request.write_generation = (request.write_generation + 1) % 2**32

    def _generate(self, request: Request, path: Path) -> None:
        if self.intruder and path.name == "outblob":
            self.intruder -= 1
            self._advance(request, path)
            request.inblob = b"somebody else's".ljust(64, b"\0")
        if not request.inblob:
            raise refuse(errno.EINVAL, path)
        if request.outblob and request.read_generation == request.write_generation:
            return
        if self.busy:
            self.busy -= 1
            raise refuse(errno.EBUSY, path)
        if len(request.inblob) != 64:
            raise refuse(errno.EINVAL, path)
        request.outblob = self.quote(request.inblob, request.privlevel)
        request.read_generation = request.write_generation


@dataclass
class FakeRegisters:
    """``FileOps`` over the TDX registers: read 48 bytes; a write extends RTMR2 and RTMR3, and nothing else."""

    values: dict[str, bytes] = field(
        default_factory=lambda: {
            **{name: bytes(48) for name in ("mrconfigid", "mrowner", "mrownerconfig", "mrtd:sha384")},
            **{f"rtmr{n}:sha384": bytes(48) for n in range(4)},
        }
    )

    def exists(self, path: Path) -> bool:
        return path.parent == REGISTERS and path.name in self.values

    def mkdir(self, path: Path) -> None:
        raise refuse(errno.EPERM, path)

    def rmdir(self, path: Path) -> None:
        raise refuse(errno.EPERM, path)

    def read(self, path: Path) -> bytes:
        if not self.exists(path):
            raise refuse(errno.ENOENT, path)
        return self.values[path.name]

    def write(self, path: Path, data: bytes) -> None:
        if path.name not in ("rtmr2:sha384", "rtmr3:sha384"):
            raise refuse(errno.EACCES, path)
        if len(data) != 48:
            raise refuse(errno.EINVAL, path)
        self.values[path.name] = hashlib.sha384(self.values[path.name] + data).digest()


@dataclass
class FakeGramine:
    """``FileOps`` over /dev/attestation: a quote needs report data, written whole."""

    kind: bytes = b"dcap"
    report_data: bytes = bytes(64)

    def exists(self, path: Path) -> bool:
        return path.parent == GRAMINE and path.name in ("attestation_type", "user_report_data", "quote")

    def mkdir(self, path: Path) -> None:
        raise refuse(errno.EACCES, path)

    def rmdir(self, path: Path) -> None:
        raise refuse(errno.EACCES, path)

    def read(self, path: Path) -> bytes:
        if not self.exists(path):
            raise refuse(errno.ENOENT, path)
        if path.name == "quote":
            if self.kind != b"dcap":
                raise refuse(errno.EACCES, path)
            return b"sgx quote over " + self.report_data
        return self.kind if path.name == "attestation_type" else self.report_data

    def write(self, path: Path, data: bytes) -> None:
        if path.name != "user_report_data":
            raise refuse(errno.EACCES, path)
        if len(data) > 64:
            raise refuse(errno.EINVAL, path)
        self.report_data = data.ljust(64, b"\0")
