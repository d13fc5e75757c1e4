"""RA-TLS in both directions, bound to the connection itself (needs the extra ``ratls``: pyOpenSSL).

The handshake judges the other side's certificate. ``bind`` then has both TEEs make evidence over the connection's
exporter value and the other's nonce: whoever relays between two connections, even with a stolen certificate key, has
two exporter values and no TEE that answers for his. Only then may data flow: ``connect`` and ``accept`` do all of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from casemate.attestation.evidence import Evidence
from casemate.attestation.ratls.errors import (
    RatlsEvidenceMissingError,
    RatlsExtraMissingError,
    RatlsHandshakeError,
    RatlsProtocolError,
)
from casemate.attestation.ratls.identity import Identity
from casemate.attestation.ratls.peer import (
    EXPORTER_LABEL,
    EXPORTER_SIZE,
    Peer,
    PeerRules,
    Side,
    channel_report_data,
)
from casemate.errors import CasemateError

try:
    from OpenSSL import SSL
    from OpenSSL.crypto import X509
except ImportError as exc:  # pragma: no cover
    raise RatlsExtraMissingError("RA-TLS in both directions needs pyOpenSSL") from exc

__all__ = ["RatlsConnection", "accept", "connect"]

_MAX_MESSAGE = 256 * 1024  # bytes
_NONCE_SIZE = 32
_CHUNK = 16 * 1024
Clock = Callable[[], datetime]


def _now() -> datetime:
    return datetime.now(UTC)


class RatlsConnection:
    """One connection over a connected socket, which it owns. Not for two threads at once. A context manager.

    ``rules`` None: the other side need not be attested. ``identity`` None: this side is not. Every method raises a
    typed error, after which the connection is closed."""

    def __init__(
        self,
        sock: socket.socket,
        side: Side,
        *,
        identity: Identity | None = None,
        rules: PeerRules | None = None,
        timeout: float = 20.0,
        clock: Clock = _now,
    ) -> None:
        self.side = side
        self.peer: Peer | None = None
        self._identity, self._rules, self._clock = identity, rules, clock
        self._sock = sock
        self._judged: dict[bytes, Peer] = {}
        _set_timeout(sock, timeout)
        self._tls = SSL.Connection(self._context(), sock)
        if side is Side.CLIENT:
            self._tls.set_connect_state()
        else:
            self._tls.set_accept_state()

    def handshake(self) -> None:
        """Agree on keys, and judge the other side's certificate on the way."""
        with self._closing():
            self._tls.do_handshake()
            if self._rules is not None:
                certificate = self._tls.get_peer_certificate(as_cryptography=True)
                der = b"" if certificate is None else _der(certificate)
                if der not in self._judged:
                    raise RatlsEvidenceMissingError(f"connection: the {self.side.other} showed no certificate")
                self.peer = self._judged[der]

    def bind(self) -> None:
        """Prove, and have proved, that both TEEs hold this very connection; both sides have to call it."""
        with self._closing():
            nonce = os.urandom(_NONCE_SIZE)
            exported = self.export()
            self._send({"nonce": nonce.hex()})
            given = _nonce(self._receive())
            if self.side is Side.CLIENT:  # one after the other, so that neither waits for a full buffer
                self._send(self._answer(exported, given))
                self._judge(self._receive(), exported, nonce)
            else:
                answer = self._receive()
                self._judge(answer, exported, nonce)
                self._send(self._answer(exported, given))

    def export(self) -> bytes:
        """Keying material of this connection (RFC 5705, RFC 8446 7.5), equal on both sides and nowhere else."""
        return bytes(self._tls.export_keying_material(EXPORTER_LABEL, EXPORTER_SIZE, b""))

    def sendall(self, data: bytes) -> None:
        with self._closing():
            self._tls.sendall(data)

    def recv(self, size: int) -> bytes:
        """At most ``size`` bytes; empty when the other side has ended the connection in good order."""
        with self._closing():
            try:
                return bytes(self._tls.recv(size))
            except SSL.ZeroReturnError:
                return b""

    def close(self) -> None:
        with contextlib.suppress(SSL.Error, OSError):
            self._tls.shutdown()
        self._sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- inside --------------------------------------------------------------------------------------------------------
    def _context(self) -> SSL.Context:
        """A context of this connection's own: what its callback raises must not surface in another."""
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_min_proto_version(SSL.TLS1_3_VERSION)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)  # a resumed session would come without a certificate
        context.set_options(SSL.OP_NO_TICKET)
        if self._identity is not None:
            certificate = x509.load_der_x509_certificate(self._identity.certificate)
            context.use_certificate(certificate)
            context.use_privatekey(self._identity.key)
        if self._rules is None:
            context.set_verify(SSL.VERIFY_NONE, lambda *_: True)
        else:
            context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, self._verify)
        return context

    def _verify(self, _tls: SSL.Connection, certificate: X509, _error: int, depth: int, _ok: int) -> bool:
        """OpenSSL asks about each certificate, more than once; what this raises comes out of the handshake."""
        if depth != 0 or self._rules is None:
            return False
        der = _der(certificate.to_cryptography())
        if der not in self._judged:
            self._judged[der] = self._rules.appraise(der, now=self._clock())
        return True

    def _answer(self, exported: bytes, nonce: bytes) -> dict[str, Any]:
        if self._identity is None:
            return {"tee": None}
        report_data = channel_report_data(exported, nonce, sender=self.side, spki=self._identity.spki)
        evidence = self._identity.attester.collect(report_data)
        return {"tee": evidence.tee, "evidence": dict(evidence.body)}

    def _judge(self, answer: dict[str, Any], exported: bytes, nonce: bytes) -> None:
        if self._rules is None:
            return
        if self.peer is None:
            raise RatlsProtocolError("connection: bound before the handshake")
        tee, body = answer.get("tee"), answer.get("evidence")
        if not isinstance(tee, str) or not isinstance(body, dict):
            raise RatlsEvidenceMissingError(f"connection: the {self.side.other} made no evidence for it")
        expected = channel_report_data(exported, nonce, sender=self.side.other, spki=self.peer.spki)
        self._rules.appraise_channel(self.peer, Evidence(tee, body), expected, now=self._clock())

    def _send(self, message: dict[str, Any]) -> None:
        raw = json.dumps(message, separators=(",", ":")).encode()
        self._tls.sendall(struct.pack(">I", len(raw)) + raw)

    def _receive(self) -> dict[str, Any]:
        (size,) = struct.unpack(">I", self._exactly(4))
        if size > _MAX_MESSAGE:
            raise RatlsProtocolError(f"connection: a message of {size} bytes, at most {_MAX_MESSAGE}")
        try:
            message = json.loads(self._exactly(size))
        except (ValueError, RecursionError) as exc:
            raise RatlsProtocolError("connection: a message that is not JSON") from exc
        if not isinstance(message, dict):
            raise RatlsProtocolError("connection: a message that is no JSON object")
        return message

    def _exactly(self, size: int) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            parts += self._tls.recv(min(_CHUNK, size - len(parts)))
        return bytes(parts)

    @contextlib.contextmanager
    def _closing(self) -> Iterator[None]:
        try:
            yield
        except CasemateError:
            self._sock.close()
            raise
        except (SSL.WantReadError, SSL.WantWriteError) as exc:
            self._sock.close()
            raise RatlsHandshakeError(f"connection: the {self.side.other} did not answer in time") from exc
        except (SSL.Error, OSError) as exc:
            self._sock.close()
            raise RatlsHandshakeError(f"connection: ended by the {self.side.other} ({_reason(exc)})") from exc


def connect(
    address: tuple[str, int],
    rules: PeerRules,
    *,
    identity: Identity | None = None,
    timeout: float = 20.0,
    clock: Clock = _now,
) -> RatlsConnection:
    """A connection to a server that ``rules`` accept and that proved to hold it; not a byte of data was sent before."""
    try:
        sock = socket.create_connection(address, timeout)
    except OSError as exc:
        raise RatlsHandshakeError(f"{address[0]} port {address[1]}: {exc.strerror or exc}") from exc
    return _ready(RatlsConnection(sock, Side.CLIENT, identity=identity, rules=rules, timeout=timeout, clock=clock))


def accept(
    sock: socket.socket,
    identity: Identity,
    *,
    rules: PeerRules | None = None,
    timeout: float = 20.0,
    clock: Clock = _now,
) -> RatlsConnection:
    """The server's side of ``connect``, over an accepted socket; with ``rules`` the client has to be attested too."""
    return _ready(RatlsConnection(sock, Side.SERVER, identity=identity, rules=rules, timeout=timeout, clock=clock))


def _ready(connection: RatlsConnection) -> RatlsConnection:
    connection.handshake()
    connection.bind()
    return connection


def _nonce(message: dict[str, Any]) -> bytes:
    try:
        nonce = bytes.fromhex(message["nonce"])
    except (KeyError, TypeError, ValueError) as exc:
        raise RatlsProtocolError("connection: a message without a nonce") from exc
    if len(nonce) != _NONCE_SIZE:
        raise RatlsProtocolError(f"connection: a nonce of {len(nonce)} bytes, need {_NONCE_SIZE}")
    return nonce


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def _reason(exc: Exception) -> str:
    found = exc.args[0] if exc.args else None
    if isinstance(found, list) and found:
        return "; ".join(str(entry[-1]) for entry in found)
    return str(exc) or type(exc).__name__


def _set_timeout(sock: socket.socket, seconds: float) -> None:
    """In the kernel, not in Python, whose timeouts make the socket non-blocking under OpenSSL."""
    sock.settimeout(None)
    value = struct.pack("ll", int(seconds), int(seconds % 1 * 1_000_000))
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        sock.setsockopt(socket.SOL_SOCKET, option, value)
