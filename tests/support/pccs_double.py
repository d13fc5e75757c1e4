"""A service with the wire interface of a PCS, PCCS or KDS, over TLS, that misbehaves on demand."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import json
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from casemate.attestation.platforms.snp.simulator import SimulatedAmd, SimulatedVek

__all__ = ["PccsDouble", "Reply", "as_json", "kds_routes", "pccs_routes", "running"]


@dataclass(frozen=True)
class Reply:
    """One answer. ``announced`` is the Content-Length when it shall lie; ``pause`` seconds lie between pieces."""

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    announced: int | None = None
    pause: float = 0.0
    endless: bool = False


@dataclass
class PccsDouble:
    """Answers by path (the query is not looked at unless the key has one); a list is used up from the front."""

    routes: dict[str, Reply | list[Reply]]
    url: str = ""
    ca: Path = Path()
    asked: list[str] = field(default_factory=list)

    def answer(self, target: str) -> Reply:
        self.asked.append(target)
        found = self.routes.get(target, self.routes.get(urlsplit(target).path, Reply(b"not found", 404)))
        if isinstance(found, list):
            return found.pop(0) if len(found) > 1 else found[0]
        return found


def pccs_routes(document: Mapping[str, Any], tee: str, *, crl_form: str = "der") -> dict[str, Reply | list[Reply]]:
    """What a PCCS serves of one collateral document; ``crl_form`` is der or hex: services differ."""
    sgx, own = "/sgx/certification/v4", f"/{tee}/certification/v4"

    def signed(member: str, name: str, header: str) -> Reply:
        text = f'{{"{name}":{document[member]},"signature":"{document[f"{member}_signature"]}"}}'
        return Reply(text.encode(), headers={header: quote(document[f"{member}_issuer_chain"])})

    def crl(member: str) -> bytes:
        return document[member].encode() if crl_form == "hex" else bytes.fromhex(document[member])

    return {
        f"{own}/tcb": signed("tcb_info", "tcbInfo", "TCB-Info-Issuer-Chain"),
        f"{own}/qe/identity": signed("qe_identity", "enclaveIdentity", "SGX-Enclave-Identity-Issuer-Chain"),
        f"{sgx}/pckcrl": Reply(
            crl("pck_crl"), headers={"SGX-PCK-CRL-Issuer-Chain": quote(document["pck_crl_issuer_chain"])}
        ),
        f"{sgx}/rootcacrl": Reply(document["root_ca_crl"].encode()),
    }


def kds_routes(
    amd: SimulatedAmd, vek: SimulatedVek | None, crl: bytes, *, branch: str = "vcek"
) -> dict[str, Reply | list[Reply]]:
    """What a KDS serves of one product."""
    base = f"/{branch}/v1/{amd.product}"
    roles = ("ASK", "ARK") if branch == "vcek" else ("ASVK", "ARK")
    routes: dict[str, Reply | list[Reply]] = {
        f"{base}/cert_chain": Reply(amd.chain_pem(roles)),
        f"{base}/crl": Reply(crl),
    }
    if vek is not None:
        routes[f"{base}/{vek.hwid.hex()}"] = Reply(vek.der)
    return routes


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        double: PccsDouble = self.server.double  # type: ignore[attr-defined]
        reply = double.answer(self.path)
        with contextlib.suppress(OSError):
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            if reply.endless:
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                while True:
                    self.wfile.write(b"10000\r\n" + b"A" * 0x10000 + b"\r\n")
            size = len(reply.body) if reply.announced is None else reply.announced
            self.send_header("Content-Length", str(size))
            self.end_headers()
            if reply.pause:
                for byte in reply.body:
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
                    time.sleep(reply.pause)
            else:
                self.wfile.write(reply.body)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: tests read what was asked from the double."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is what several tests are about."""


@contextlib.contextmanager
def running(routes: Mapping[str, Reply | list[Reply]], folder: Path) -> Iterator[PccsDouble]:
    """The service on a port of this machine, with a certificate of its own authority in ``folder``."""
    certificate = _certificate(folder)
    double = PccsDouble(dict(routes), ca=certificate)
    server = _Server(("127.0.0.1", 0), _Handler)
    server.double = double  # type: ignore[attr-defined]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, folder / "double.key")
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    double.url = f"https://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield double
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)


def _certificate(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "collateral double")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    path = folder / "double.pem"
    path.write_bytes(certificate.public_bytes(Encoding.PEM))
    (folder / "double.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path


def as_json(document: Mapping[str, Any]) -> bytes:
    """A collateral document as a file holds it."""
    return json.dumps(document).encode()
