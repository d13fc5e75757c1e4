"""A real S3 server (SeaweedFS) for tests: it checks signatures, and keeps everything below one directory."""

from __future__ import annotations

import ctypes
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

ACCESS, SECRET = "casemate-access", "casemate-secret-5f1c"
_START_SECONDS = 60


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _end_with_us() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: tests that are killed leave no server


class S3Server:
    """``endpoint`` answers while the block lasts; ``environment`` is what clients of it need."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.endpoint = ""
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        data = self.directory / "data"
        data.mkdir(parents=True)
        identity = {
            "name": "tests",
            "credentials": [{"accessKey": ACCESS, "secretKey": SECRET}],
            "actions": ["Admin", "Read", "List", "Tagging", "Write"],
        }
        config = self.directory / "s3.json"
        config.write_text(json.dumps({"identities": [identity]}))
        ports = _free_ports(8)
        names = ("master", "master.grpc", "volume", "volume.grpc", "filer", "filer.grpc", "s3", "s3.grpc")
        options = [
            f"-{name.replace('.grpc', '.port.grpc') if name.endswith('.grpc') else name + '.port'}={port}"
            for name, port in zip(names, ports, strict=True)
        ]
        weed = shutil.which("weed", path=str(Path(sys.executable).parent)) or "weed"
        with (self.directory / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(weed, "server", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3"),
                    *(f"-s3.config={config}", "-master.volumeSizeLimitMB=64", "-volume.max=50", *options),
                    *("-s3.port.iceberg=0", "-s3.port.lance=0"),  # else at fixed ports, one server to a machine
                    *("-s3.port.iceberg=0", "-s3.port.lance=0"),  # fixed ports, which two servers would fight for
                ],
                stdout=log,
                stderr=log,
                cwd=self.directory,
                preexec_fn=_end_with_us,
            )
        self.endpoint = f"http://127.0.0.1:{ports[6]}"
        self._wait()
        return self

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": ACCESS,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def __exit__(self, *exc: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _wait(self) -> None:
        import s3fs

        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                client = s3fs.S3FileSystem(
                    key=ACCESS, secret=SECRET, endpoint_url=self.endpoint, skip_instance_cache=True
                )
                client.mkdir("bucket")
                client.pipe_file("bucket/probe", b"x")
                client.rm_file("bucket/probe")
            except Exception as exc:  # not up yet, in one of many ways
                assert self._process is not None
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise RuntimeError((self.directory / "log").read_text()[-3000:]) from exc
                time.sleep(0.2)
            else:
                return
