"""The makers of the unit tests, and servers on real sockets that record what they received."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from tests.unit.ratls.conftest import World, now, world

from casemate.attestation.ratls.connection import RatlsConnection
from casemate.errors import CasemateError

__all__ = ["Recorder", "World", "now", "server", "world"]


@dataclass
class Recorder:
    """A listening server that handles connections one after the other, and what came of it."""

    address: tuple[str, int]
    received: list[bytes] = field(default_factory=list)
    errors: list[CasemateError | OSError] = field(default_factory=list)
    handled: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def wait(self) -> None:
        assert self.handled.acquire(timeout=20)


Handler = Callable[[socket.socket, Recorder], None]


@pytest.fixture
def server() -> Iterator[Callable[[Handler], Recorder]]:
    """Start a server: ``handle`` gets each accepted socket."""
    with contextlib.ExitStack() as stack:

        def start(handle: Handler) -> Recorder:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            recorder = Recorder(listener.getsockname()[:2])

            def serve() -> None:
                while True:
                    try:
                        sock, _ = listener.accept()
                    except OSError:
                        return
                    try:
                        handle(sock, recorder)
                    except (CasemateError, OSError) as exc:
                        recorder.errors.append(exc)
                    finally:
                        sock.close()
                        recorder.handled.release()

            thread = threading.Thread(target=serve, daemon=True)
            thread.start()

            def stop() -> None:
                with contextlib.suppress(OSError):
                    listener.shutdown(socket.SHUT_RDWR)
                thread.join(10)

            stack.callback(stop)
            return recorder

        yield start


def echo(connection: RatlsConnection, recorder: Recorder) -> None:
    """Answer one message and record it."""
    with connection:
        data = connection.recv(1000)
        recorder.received.append(data)
        connection.sendall(data.upper())
