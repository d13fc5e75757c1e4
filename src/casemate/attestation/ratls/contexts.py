"""RA-TLS with the standard library: contexts that drop into ``http.client``, ``httpx``, ``urllib`` and servers.

The client's judges the server's evidence as part of connecting: nobody gets a connection to write to before. The
standard library has no exporter, so that a relay with a stolen key is not noticed here: see ``connection`` for that.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from casemate.attestation.ratls.errors import RatlsEvidenceMissingError
from casemate.attestation.ratls.identity import Identity
from casemate.attestation.ratls.peer import Peer, PeerRules
from casemate.errors import UsageError

__all__ = ["RatlsClientContext", "RatlsSocket", "client_context", "peer_of", "server_context"]

Clock = Callable[[], datetime]


def _now() -> datetime:
    return datetime.now(UTC)


class RatlsSocket(ssl.SSLSocket):
    """A socket whose handshake includes the judgement of the peer; a refused one is closed before the error."""

    peer: Peer | None = None

    def do_handshake(self, block: bool = False) -> None:
        super().do_handshake(block)
        context = self.context
        try:
            if not isinstance(context, RatlsClientContext):
                raise RatlsEvidenceMissingError("connection: its context has no rules for the peer")
            self.peer = context.judge(self.getpeercert(True))
        except BaseException:
            self.peer = None
            with contextlib.suppress(OSError):
                self.shutdown(socket.SHUT_RDWR)
            self.close()
            raise


class RatlsClientContext(ssl.SSLContext):
    """A client context that trusts evidence instead of authorities. Make one with ``client_context``."""

    sslsocket_class = RatlsSocket
    rules: PeerRules
    clock: Clock

    def judge(self, der: bytes | None) -> Peer:
        """The peer behind the handshake's certificate; raises when it is not accepted."""
        if der is None:
            raise RatlsEvidenceMissingError("connection: the server sent no certificate")
        return self.rules.appraise(der, now=self.clock())

    def wrap_socket(self, sock: socket.socket, *args: Any, **options: Any) -> ssl.SSLSocket:
        if args or options.get("server_side") or options.get("do_handshake_on_connect", True) is not True:
            raise UsageError("RA-TLS: a client's connection, judged as part of connecting")
        options.pop("session", None)  # a resumed session would come without a certificate
        return super().wrap_socket(sock, **options)

    def wrap_bio(self, *_args: Any, **_options: Any) -> ssl.SSLObject:
        raise UsageError("RA-TLS: asyncio would write before the peer is judged; use a blocking client in a thread")


def client_context(rules: PeerRules, *, identity: Identity | None = None, clock: Clock = _now) -> RatlsClientContext:
    """A context for connections to servers that ``rules`` accept; ``identity`` is shown to servers that ask for one.

    ``httpx.Client(verify=client_context(rules))`` is a client that talks to attested servers only."""
    context = RatlsClientContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the evidence decides, in do_handshake
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.rules, context.clock = rules, clock
    if identity is not None:
        identity.load_into(context)
    return context


def server_context(identity: Identity) -> ssl.SSLContext:
    """A context for any server (``http.server``, uvicorn): it shows ``identity`` and asks its clients for nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    identity.load_into(context)
    return context


def peer_of(sock: ssl.SSLSocket) -> Peer:
    """Who is at the other end; raises ``RatlsEvidenceMissingError`` for a connection that is not RA-TLS."""
    peer = getattr(sock, "peer", None)
    if not isinstance(peer, Peer):
        raise RatlsEvidenceMissingError("connection: its peer was not judged")
    return peer
