"""``python -m casemate.broker.serve --state DIR``: run a broker in the foreground until SIGTERM or SIGINT.

Prints one line on stdout when it answers; the access log goes to stderr. Exit status 0 after a signal, else 1 with one
line saying why.
"""

from __future__ import annotations

import argparse
import errno
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

import uvicorn

from casemate.broker.app import create_app
from casemate.broker.errors import ListenFailedError
from casemate.broker.setup import initialise
from casemate.broker.state import StateDirectory, open_broker, read_passphrase
from casemate.broker.storage.postgres import require_no_password
from casemate.broker.tls import server_context
from casemate.crypto.jwk import jwk_from_pem
from casemate.errors import CasemateError, FailedError

__all__ = ["main", "serve"]

DEFAULT_PORT = 7443
_GRACE = 5  # seconds for requests under way when asked to stop


class _Server(uvicorn.Server):
    """Says when it is ready."""

    ready_line = ""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            print(self.ready_line, flush=True)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; raises ``ListenFailedError`` when the address is taken or not ours."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        # The protocol is named because asyncio sets TCP_NODELAY only then; answers wait 40 ms without.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except OSError as exc:
        raise ListenFailedError(f"cannot listen on {host}: {exc.strerror}") from exc
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(512)
    except OSError as exc:
        listener.close()
        reason = "the port is taken" if exc.errno == errno.EADDRINUSE else exc.strerror
        raise ListenFailedError(f"cannot listen on {host} port {port}: {reason}") from exc
    return listener


def serve(
    state: StateDirectory,
    *,
    host: str,
    port: int,
    names: Sequence[str] = (),
    passphrase_file: Path | None = None,
    database_url: str | None = None,
    trust: Path | None = None,
    collateral: Sequence[Path] = (),
    issuer: str | None = None,
    audiences: Sequence[str] = (),
) -> None:
    """Run until a signal asks to stop. ``port`` 0 takes a free one. Raises a typed error when it cannot start."""
    passphrase = None if passphrase_file is None else read_passphrase(passphrase_file)
    with state.locked(), listen(host, port) as listener:
        actual = int(listener.getsockname()[1])
        broker = open_broker(
            state,
            port=actual,
            names=names,
            passphrase=passphrase,
            database_url=database_url,
            trust=trust,
            collateral=collateral,
            issuer=issuer,
            audiences=audiences,
        )
        context = server_context(state.authority(broker.context.root_keys), names, now=datetime.now(UTC))
        config = uvicorn.Config(
            create_app(broker),
            ssl_context_factory=lambda _config, _default: context,
            loop="uvloop",
            http="httptools",
            ws="none",
            proxy_headers=False,  # whose request it is, proofs say
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=_GRACE,
            timeout_keep_alive=30,
        )
        server = _Server(config)
        shown = f"[{host}]" if ":" in host else host
        server.ready_line = f"casemate broker ready: https://{shown}:{actual}"
        server.run(sockets=[listener])


def _stop(_signal: int, _frame: FrameType | None) -> None:
    """Before the server has its own handlers, and again after it stopped gracefully: end with status 0."""
    sys.exit(0)


def _logging() -> None:
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for noisy in ("uvicorn", "uvicorn.error", "alembic", "httpx"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _set_up(arguments: argparse.Namespace) -> None:
    passphrase = None if arguments.passphrase_file is None else read_passphrase(arguments.passphrase_file)
    administrator = jwk_from_pem(arguments.administrator.read_bytes())
    initialise(arguments.state, administrator, passphrase=passphrase, database_url=arguments.database_url)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m casemate.broker.serve", description="Run a Casemate broker.")
    parser.add_argument("--state", type=Path, required=True, help="state directory, set up before")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="port to listen on (default: %(default)s)")
    parser.add_argument("--name", action="append", default=[], help="further name (or name:port) of this broker")
    parser.add_argument("--passphrase-file", type=Path, help="file with the root key's passphrase")
    parser.add_argument(
        "--database-url",
        help="postgresql://HOST/NAME, its password in PGPASSFILE (default: SQLite in the state directory)",
    )
    parser.add_argument(
        "--administrator", type=Path, help="set up what is missing, with this public key (PEM) as an administrator"
    )
    parser.add_argument("--trust", type=Path, help="trust anchors (default: `trust` in the state directory)")
    parser.add_argument(
        "--collateral",
        type=Path,
        action="append",
        default=[],
        help="directory that `casemate collateral` keeps, besides `collateral` among the trust anchors",
    )
    parser.add_argument("--issuer", help="what tokens name as their issuer (default: https:// and the first name)")
    parser.add_argument("--audience", action="append", default=[], help="relying party that tokens are for, too")
    arguments = parser.parse_args(argv)
    os.umask(0o077)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    _logging()
    try:
        if arguments.database_url is not None:
            require_no_password(arguments.database_url)
        if arguments.administrator is not None:
            _set_up(arguments)
        serve(
            StateDirectory(arguments.state),
            host=arguments.host,
            port=arguments.port,
            names=arguments.name,
            passphrase_file=arguments.passphrase_file,
            database_url=arguments.database_url,
            trust=arguments.trust,
            collateral=arguments.collateral,
            issuer=arguments.issuer,
            audiences=arguments.audience,
        )
    except CasemateError as exc:
        print(f"failed: {exc.code}: {exc.message}", file=sys.stderr)
        print(f"hint: {exc.fix}", file=sys.stderr)
        return 1
    except OSError as exc:
        error = FailedError(f"{exc.filename or arguments.state}: {exc.strerror or exc}")
        print(f"failed: {error.code}: {error.message}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
