"""One SIMULATED TEE: its directory, its quote socket, its guard, and the quotes that say what was launched."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from casemate.attestation.platforms.simulator.errors import SimulatorProtocolError
from casemate.attestation.platforms.simulator.guard import Program, start_guard
from casemate.attestation.platforms.simulator.launch import LaunchRequest
from casemate.attestation.platforms.simulator.quote import QuotingEnclave, TdReport
from casemate.attestation.platforms.simulator.wire import socket_address
from casemate.errors import CasemateError

__all__ = ["Tee"]

REPORT_DATA_SIZE = 64


@dataclass(eq=False)
class Tee:
    """A launched program. ``measurement`` and ``workload`` were fixed before its first instruction ran."""

    id: str
    measurement: bytes
    workload: bytes
    job: str
    role: str
    guard: int
    pid: int | None  # of the program, once the guard has said it
    directory: Path
    socket_path: Path
    listener: socket.socket
    report: int  # read end: the guard says here how the start went
    failure: CasemateError | None = None  # why the program could not start

    @classmethod
    def launch(cls, request: LaunchRequest, measurement: bytes, stdio: tuple[int, int, int], base: Path) -> Tee:
        """Start the program in its own directory below ``base``; both socket and directory end with the TEE."""
        tee_id = secrets.token_hex(8)
        directory, socket_path = base / tee_id, base / f"{tee_id}.sock"
        directory.mkdir(mode=0o700)
        manifest = directory / "manifest.json"
        manifest.touch(mode=0o600)
        manifest.write_bytes(request.manifest)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        with socket_address(socket_path) as address:
            listener.bind(address)
        listener.listen(64)
        reader, writer = os.pipe()
        environment = request.full_environment(
            {
                "CASEMATE_TEE_SOCKET": str(socket_path),
                "CASEMATE_TEE_DIR": str(directory),
                "CASEMATE_MANIFEST": str(manifest),
                "CASEMATE_JOB": request.job,
                "CASEMATE_ROLE": str(request.role),
            }
        )
        program = Program(request.command, environment, request.cwd, stdio, (socket_path, directory))
        guard = start_guard(program, writer)
        os.close(writer)
        workload = hashlib.sha384(request.manifest).digest()
        job, role = request.job, str(request.role)
        return cls(tee_id, measurement, workload, job, role, guard, None, directory, socket_path, listener, reader)

    def answer(self, message: dict[str, Any], enclave: QuotingEnclave) -> dict[str, Any]:
        """The reply to a ``quote`` or ``info`` request from inside this TEE."""
        if message.get("op") == "info":
            return {
                "tee": self.id,
                "workload": self.workload.hex(),
                "measurement": self.measurement.hex(),
                "simulated": True,
            }
        if message.get("op") == "quote":
            report = TdReport(
                mrtd=self.measurement, mr_config_id=self.workload, report_data=_report_data(message.get("report_data"))
            )
            quote = enclave.tdx_quote(report)
            return {"tee": "tdx", "quote": base64.b64encode(quote).decode(), "simulated": True}
        raise SimulatorProtocolError(f"expected op quote, info or report, got {message.get('op')!r}")

    def started_event(self) -> dict[str, Any]:
        return {
            "event": "started",
            "tee": self.id,
            "pid": self.pid,
            "measurement": self.measurement.hex(),
            "workload": self.workload.hex(),
            "simulated": True,
        }


def _report_data(text: object) -> bytes:
    try:
        data = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except (binascii.Error, ValueError):
        data = b""
    if len(data) != REPORT_DATA_SIZE:
        raise SimulatorProtocolError(f"report_data: need {REPORT_DATA_SIZE} bytes in base64")
    return data
