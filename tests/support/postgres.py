"""A PostgreSQL server of a test's own: in a temporary directory, as an unprivileged user, on a Unix socket alone."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

_USER = "casemate"


def binaries() -> Path | None:
    """Where the server's programs are; None when it is not installed."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    return installed[-1].parent if installed else None


@dataclass
class PostgresServer:
    """One server. ``kill`` is a power cut for its processes; ``start`` recovers what was committed."""

    directory: Path
    programs: Path
    account: str | None
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://{_USER}@/postgres?host={self.directory}"

    def run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self.programs / program, *arguments], user=self.account, cwd="/", capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr.decode()

    def create(self) -> None:
        options = ("--auth", "trust", "--username", _USER, "--encoding", "UTF8", "--no-locale", "--no-sync")
        self.run("initdb", "--pgdata", str(self.directory / "data"), *options)

    def start(self) -> None:
        # Without fsync: what a killed process wrote is kept by the kernel, and a power cut is not what is played here.
        settings = (f"unix_socket_directories={self.directory}", "listen_addresses=", "max_connections=60", "fsync=off")
        options = [part for setting in settings for part in ("-c", setting)]
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.programs / "postgres", "-D", self.directory / "data", *options],
                user=self.account,
                cwd="/",
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + 30
        ready = [self.programs / "pg_isready", "-q", "-h", self.directory, "-U", _USER]
        while subprocess.run(ready, check=False).returncode != 0:
            assert self.process.poll() is None, (self.directory / "log").read_text()
            assert time.monotonic() < end, (self.directory / "log").read_text()
            time.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL to the server and all its processes."""
        assert self.process is not None
        parent = psutil.Process(self.process.pid)
        for process in [parent, *parent.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait(timeout=20)
        (self.directory / "data" / "postmaster.pid").unlink(missing_ok=True)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(timeout=20)


@contextlib.contextmanager
def postgres_server(programs: Path) -> Iterator[PostgresServer]:
    """A running server, gone afterwards with all its files. It refuses to run as root, so root lends it an account."""
    account = None
    if os.geteuid() == 0:
        names = {entry.pw_name for entry in pwd.getpwall()}
        account = "postgres" if "postgres" in names else "nobody"
    directory = Path(tempfile.mkdtemp(prefix="casemate-pg-"))  # not pytest's: others may not enter that
    if account is not None:
        os.chown(directory, pwd.getpwnam(account).pw_uid, -1)
    server = PostgresServer(directory, programs, account)
    try:
        server.create()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(directory)
