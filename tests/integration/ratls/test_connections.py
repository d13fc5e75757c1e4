"""RA-TLS on real sockets: the standard library's client, both directions, and a relay that is found out."""

from __future__ import annotations

import http.client
import http.server
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from OpenSSL import SSL
from tests.integration.ratls.conftest import Recorder, World, echo

from casemate.attestation.errors import EvidenceSignatureError
from casemate.attestation.policy import default_policy
from casemate.attestation.ratls.certificate import build_certificate, parse_certificate
from casemate.attestation.ratls.connection import RatlsConnection, accept, connect
from casemate.attestation.ratls.contexts import client_context, peer_of, server_context
from casemate.attestation.ratls.errors import (
    RatlsCertificateExpiredError,
    RatlsChannelMismatchError,
    RatlsEvidenceMissingError,
    RatlsHandshakeError,
    RatlsKeyMismatchError,
    RatlsPeerChangedError,
    RatlsProtocolError,
)
from casemate.attestation.ratls.extension import decode_dice, encode_dice
from casemate.attestation.ratls.identity import Identity, create_identity
from casemate.attestation.ratls.peer import PeerRules, Side
from casemate.attestation.refusals import PlatformIdNotAllowedError, SimulatedEvidenceError
from casemate.errors import CasemateError, UsageError

Start = Callable[[Callable[[socket.socket, Recorder], None]], Recorder]
SECRET = b"POST /patients HTTP/1.1\r\n\r\nsecret"


def plain_server(identity: Identity) -> Callable[[socket.socket, Recorder], None]:
    """A server of the standard library that records every byte of data it gets."""
    context = server_context(identity)

    def handle(sock: socket.socket, recorder: Recorder) -> None:
        sock.settimeout(10)
        with context.wrap_socket(sock, server_side=True) as tls:
            recorder.received.append(tls.recv(1000))

    return handle


def bad_identities(world: World, now: datetime) -> dict[str, tuple[Identity, type[CasemateError]]]:
    good, other = world.identity(), world.identity()
    hour = timedelta(hours=1)

    def carrying(value: bytes, **changes: Any) -> Identity:
        dates = {"not_before": now - hour, "not_after": now + hour, **changes}
        return replace(good, certificate=build_certificate(good.key, value, **dates))

    spoiled = bytearray(encode_dice(*_carried(good)))
    spoiled[200] ^= 1
    return {
        "wrong key hash": (carrying(encode_dice(*_carried(other))), RatlsKeyMismatchError),
        "tampered evidence": (carrying(bytes(spoiled)), EvidenceSignatureError),
        "expired": (
            create_identity(good.attester, now=now - 3 * hour, lifetime=hour),
            RatlsCertificateExpiredError,
        ),
        "no evidence": (carrying(b"\x05\0", oid="1.3.6.1.4.1.99999.1"), RatlsEvidenceMissingError),
    }


def _carried(identity: Identity) -> tuple[Any, Any]:
    carried = parse_certificate(identity.certificate).carried
    return carried.evidence, carried.claims


# -- the standard library ----------------------------------------------------------------------------------------------
def test_a_client_of_the_standard_library_talks_to_an_attested_server(world: World, server: Start) -> None:
    identity = world.identity()
    recorder = server(plain_server(identity))
    with socket.create_connection(recorder.address, 10) as sock, client_context(world.rules()).wrap_socket(sock) as tls:
        assert peer_of(tls).spki == identity.spki
        assert tls.version() == "TLSv1.3"
        tls.sendall(SECRET)
        recorder.wait()
    assert recorder.received == [SECRET]


@pytest.mark.parametrize("flaw", ["wrong key hash", "tampered evidence", "expired", "no evidence"])
def test_no_byte_is_sent_to_a_server_that_is_refused(world: World, now: datetime, server: Start, flaw: str) -> None:
    identity, error = bad_identities(world, now)[flaw]
    recorder = server(plain_server(identity))
    context = client_context(world.rules())
    with socket.create_connection(recorder.address, 10) as sock, pytest.raises(error):
        context.wrap_socket(sock).sendall(SECRET)
    recorder.wait()
    assert recorder.received in ([], [b""])


@pytest.mark.parametrize("flaw", ["wrong key hash", "no evidence"])
def test_http_clients_send_no_request_to_a_server_that_is_refused(
    world: World, now: datetime, server: Start, flaw: str
) -> None:
    identity, error = bad_identities(world, now)[flaw]
    recorder = server(plain_server(identity))
    context = client_context(world.rules())
    url = "https://{}:{}/patients".format(*recorder.address)
    with pytest.raises(error), httpx.Client(verify=context, trust_env=False) as client:
        client.post(url, content=SECRET)
    recorder.wait()
    connection = http.client.HTTPSConnection(*recorder.address, context=context, timeout=10)
    with pytest.raises(error):
        connection.request("POST", "/patients", SECRET)
    connection.close()
    recorder.wait()
    assert set(recorder.received) <= {b""}


def test_the_policy_refuses_before_a_byte_is_sent(world: World, server: Start) -> None:
    recorder = server(plain_server(world.identity()))
    for rules, error in (
        (PeerRules(world.trust, default_policy()), SimulatedEvidenceError),
        (world.rules(platform_ids=["ab" * 16]), PlatformIdNotAllowedError),
    ):
        with socket.create_connection(recorder.address, 10) as sock, pytest.raises(error):
            client_context(rules).wrap_socket(sock).sendall(SECRET)
        recorder.wait()
    assert set(recorder.received) <= {b""}


def test_httpx_talks_to_an_attested_http_server(world: World) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"attested")

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as web:
        web.socket = server_context(world.identity()).wrap_socket(web.socket, server_side=True)
        thread = threading.Thread(target=web.serve_forever, daemon=True)
        thread.start()
        try:
            with httpx.Client(verify=client_context(world.rules()), trust_env=False) as client:
                assert client.get(f"https://127.0.0.1:{web.server_port}/").text == "attested"
        finally:
            web.shutdown()
            thread.join(10)


def test_ways_around_the_judgement_are_closed(world: World) -> None:
    context = client_context(world.rules())
    with socket.socket() as sock:
        for options in ({"do_handshake_on_connect": False}, {"server_side": True}):
            with pytest.raises(UsageError):
                context.wrap_socket(sock, **options)
    with pytest.raises(UsageError):
        context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO())
    with pytest.raises(RatlsEvidenceMissingError):
        peer_of(object())  # type: ignore[arg-type]


def test_the_key_is_on_no_disk(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    named: list[str] = []
    loaded = ssl.SSLContext.load_cert_chain

    def watch(self: ssl.SSLContext, path: str) -> None:
        named.append(path)
        loaded(self, path)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", watch)
    server_context(world.identity())
    assert len(named) == 1
    assert named[0].startswith("/proc/self/fd/")


# -- both directions, bound to the connection --------------------------------------------------------------------------
def test_two_tees_prove_themselves_to_each_other(world: World, server: Start) -> None:
    here, there = world.identity("sgx"), world.identity("tdx")
    seen: list[Any] = []

    def handle(sock: socket.socket, recorder: Recorder) -> None:
        connection = accept(sock, there, rules=world.rules(platforms=["sgx"]))
        seen.append((connection.peer, connection.export()))
        echo(connection, recorder)

    recorder = server(handle)
    with connect(recorder.address, world.rules(platforms=["tdx"]), identity=here) as connection:
        connection.sendall(b"hello")
        assert connection.recv(100) == b"HELLO"
        recorder.wait()
        assert connection.peer is not None
        assert connection.peer.spki == there.spki
        (peer, exported) = seen[0]
        assert peer.spki == here.spki
        assert exported == connection.export()
    assert len(here.attester.asked) == len(there.attester.asked) == 2  # type: ignore[attr-defined]
    assert recorder.errors == []


def test_a_client_without_a_tee_may_ask_for_one_direction_only(world: World, server: Start) -> None:
    recorder = server(lambda sock, recorder: echo(accept(sock, world.identity()), recorder))
    with connect(recorder.address, world.rules()) as connection:
        connection.sendall(b"hello")
        assert connection.recv(100) == b"HELLO"
    recorder.wait()
    assert recorder.errors == []


def test_a_client_without_evidence_gets_nothing_from_a_server_that_asks_for_it(
    world: World, now: datetime, server: Start
) -> None:
    recorder = server(lambda sock, recorder: echo(accept(sock, world.identity(), rules=world.rules()), recorder))
    for identity in (None, bad_identities(world, now)["no evidence"][0], bad_identities(world, now)["expired"][0]):
        with pytest.raises(RatlsHandshakeError), connect(recorder.address, world.rules(), identity=identity) as client:
            client.sendall(SECRET)
        recorder.wait()
    assert recorder.received == []
    assert [type(error) for error in recorder.errors] == [
        RatlsHandshakeError,
        RatlsEvidenceMissingError,
        RatlsCertificateExpiredError,
    ]


@pytest.mark.parametrize("flaw", ["wrong key hash", "tampered evidence", "expired", "no evidence"])
def test_a_bound_connection_is_not_made_to_a_server_that_is_refused(
    world: World, now: datetime, server: Start, flaw: str
) -> None:
    identity, error = bad_identities(world, now)[flaw]
    recorder = server(lambda sock, recorder: echo(accept(sock, identity), recorder))
    with pytest.raises(error):
        connect(recorder.address, world.rules())
    recorder.wait()
    assert recorder.received == []


# -- relay -------------------------------------------------------------------------------------------------------------
def test_a_relay_with_a_stolen_key_is_found_out(world: World, server: Start) -> None:
    """The relay has the server's key and certificate: the certificate alone is accepted, the connection is not."""
    honest = world.identity()
    real = server(lambda sock, recorder: echo(accept(sock, honest), recorder))

    def relay(sock: socket.socket, recorder: Recorder) -> None:
        inner = RatlsConnection(sock, Side.SERVER, identity=honest)
        inner.handshake()
        outer_socket = socket.create_connection(real.address, 10)
        outer = RatlsConnection(outer_socket, Side.CLIENT, rules=world.rules())
        outer.handshake()
        with inner, outer:
            outer._send(inner._receive())  # the client's nonce goes on to the server ...
            inner._send(outer._receive())  # ... and the server's to the client
            outer._send(inner._receive())
            inner._send(outer._receive())  # genuine evidence, over the client's nonce, for the other connection
            recorder.received.append(inner.recv(1000))

    recorder = server(relay)
    with pytest.raises(RatlsChannelMismatchError), connect(recorder.address, world.rules()) as client:
        client.sendall(SECRET)
    recorder.wait()
    assert not any(recorder.received)


def test_without_binding_the_same_relay_would_not_be_noticed(world: World, server: Start) -> None:
    """Why the binding is there: with a stolen key, certificate evidence passes anywhere."""
    recorder = server(plain_server(world.identity()))
    with socket.create_connection(recorder.address, 10) as sock, client_context(world.rules()).wrap_socket(sock) as tls:
        tls.sendall(SECRET)
        recorder.wait()
    assert recorder.received == [SECRET]


def test_a_relay_with_a_tee_of_its_own_cannot_answer_for_another(world: World, server: Start) -> None:
    """It holds the stolen key and runs another accepted TEE, which makes evidence for its connections."""
    honest = world.identity()
    own = replace(honest, attester=world.attester(mrtd=bytes([9] * 48)))
    recorder = server(lambda sock, recorder: echo(accept(sock, own), recorder))
    with pytest.raises(RatlsPeerChangedError):
        connect(recorder.address, world.rules())
    recorder.wait()
    assert recorder.received == []


def test_evidence_of_an_earlier_connection_is_refused(world: World, server: Start) -> None:
    honest = world.identity()
    kept = honest.attester.collect(bytes(64))

    class Replayed:
        tee = "tdx"

        def collect(self, report_data: bytes) -> Any:
            return kept

    recorder = server(lambda sock, recorder: echo(accept(sock, replace(honest, attester=Replayed())), recorder))
    with pytest.raises(RatlsChannelMismatchError):
        connect(recorder.address, world.rules())
    recorder.wait()


def test_a_client_does_not_accept_its_own_evidence_back(world: World, server: Start) -> None:
    """A reflector holds the same key: one identity on both sides, and the sender's side is bound."""
    shared = world.identity()

    def reflect(sock: socket.socket, recorder: Recorder) -> None:
        inner = RatlsConnection(sock, Side.SERVER, identity=shared)
        inner.handshake()
        inner._send(inner._receive())
        inner._send(inner._receive())

    recorder = server(reflect)
    with pytest.raises(RatlsChannelMismatchError):
        connect(recorder.address, world.rules(), identity=shared)
    recorder.wait()


# -- protocol faults ---------------------------------------------------------------------------------------------------
@contextmanager
def misbehaving(world: World, server: Start, speak: Callable[[RatlsConnection], object]) -> Iterator[Recorder]:
    def handle(sock: socket.socket, recorder: Recorder) -> None:
        with RatlsConnection(sock, Side.SERVER, identity=world.identity()) as connection:
            connection.handshake()
            with suppress(RatlsHandshakeError):
                speak(connection)
                while connection.recv(1000):  # closing with unread bytes would reset the connection
                    pass

    yield server(handle)


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"\xff\xff\xff\xff", RatlsProtocolError),
        (b"\x00\x00\x00\x04nope", RatlsProtocolError),
        (b"\x00\x00\x00\x02[]", RatlsProtocolError),
        (b"\x00\x00\x00\x02{}", RatlsProtocolError),
        (b'\x00\x00\x00\x0e{"nonce":"00"}', RatlsProtocolError),
        (b"\x00", RatlsHandshakeError),
    ],
)
def test_a_malformed_message_ends_the_connection(
    world: World, server: Start, raw: bytes, error: type[CasemateError]
) -> None:
    with misbehaving(world, server, lambda connection: connection.sendall(raw)) as recorder, pytest.raises(error):
        connect(recorder.address, world.rules(), timeout=1)


def test_a_server_that_says_nothing_is_not_waited_for_forever(world: World, server: Start) -> None:
    done = threading.Event()
    with misbehaving(world, server, lambda _: done.wait(10)) as recorder:
        with pytest.raises(RatlsHandshakeError, match="in time"):
            connect(recorder.address, world.rules(), timeout=0.5)
        done.set()


def test_a_server_that_makes_no_evidence_is_refused(world: World, server: Start) -> None:
    def speak(connection: RatlsConnection) -> None:
        connection._send({"nonce": "00" * 32})
        connection._send({"tee": None})

    with misbehaving(world, server, speak) as recorder, pytest.raises(RatlsEvidenceMissingError):
        connect(recorder.address, world.rules())


def test_older_protocol_versions_are_refused(world: World, server: Start) -> None:
    recorder = server(lambda sock, recorder: echo(accept(sock, world.identity()), recorder))
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    with socket.create_connection(recorder.address, 10) as sock:
        tls = SSL.Connection(context, sock)
        tls.set_connect_state()
        sock.settimeout(None)
        with pytest.raises(SSL.Error):
            tls.do_handshake()
    recorder.wait()
    assert isinstance(recorder.errors[0], RatlsHandshakeError)


def test_nobody_listening_is_undecided(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()[:2]
    with pytest.raises(RatlsHandshakeError):
        connect(address, world.rules())


def test_a_dice_extension_survives_a_round_trip(world: World) -> None:
    evidence, claims = _carried(world.identity())
    assert decode_dice(encode_dice(evidence, claims)).evidence == evidence
