"""A software TPM as a real process: its state survives a reset, its PCRs do not."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

__all__ = ["SoftwareTpm", "require_swtpm"]


def require_swtpm(*tools: str) -> None:
    """Skip a module's tests where the tools or the Python binding are missing; says which."""
    pytest.importorskip("tpm2_pytss", reason="tpm2-pytss is not installed (extra tpm)")
    for tool in ("swtpm", *tools):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed", allow_module_level=True)


class SoftwareTpm:
    """One TPM; ``start`` is power on, ``reset`` power off and on. Use as a context manager."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def tcti(self) -> str:
        return f"swtpm:host=127.0.0.1,port={self._port}"

    def start(self) -> None:
        for _ in range(5):  # somebody may take the ports in between
            self._port = _two_free_ports()
            self._process = subprocess.Popen(
                (
                    f"swtpm socket --tpm2 --tpmstate dir={self.directory} --flags not-need-init,startup-clear "
                    f"--ctrl type=tcp,port={self._port + 1} --server type=tcp,port={self._port}"
                ).split(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            if _listens(self._port, self._process):
                return
            self.stop()
        raise RuntimeError("swtpm does not listen")

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(timeout=10)
            self._process = None

    def reset(self) -> None:
        self.stop()
        self.start()

    def __enter__(self) -> SoftwareTpm:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


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


def _listens(port: int, process: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        if f"0100007F:{port:04X} 00000000:0000 0A" in Path("/proc/net/tcp").read_text():
            return True
        time.sleep(0.01)
    return False
