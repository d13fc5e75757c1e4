"""A key broker written from the protocol's description alone: confidential-containers KBS 0.4.0, as it is on the wire.

It shares no code with Casemate: own TLS authority, own report-data computation, own JWE. It checks what a strict broker
would check, and says no as Trustee does (problem objects without codes) unless a test sets a code. What it holds:
``resources`` (path -> plaintext bytes). Beside the protocol, it answers Casemate's additions (job certificate, recorded
generations) when ``additions`` is on.

Evidence here is ``{"quote": base64(report data)}``: a verifier that checks binding and nothing else.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import ipaddress
import json
import os
import secrets
import ssl
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.keywrap import aes_key_wrap
from cryptography.x509.oid import NameOID

__all__ = ["Authority", "KbsDouble", "b64url", "unb64url"]

PROBLEM = "https://github.com/confidential-containers/kbs/errors/"


def b64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def unb64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def canonical(value: Any) -> bytes:
    """RFC 8785 for what occurs here: objects with ASCII names, texts, whole numbers."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


class Authority:
    """A certificate authority of a test's own."""

    def __init__(self, name: str = "test authority") -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self._sign(self.name, self.key.public_key(), ca=True)
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, ca: bool) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            .sign(self.key, hashes.SHA256())
        )

    def issue(self, name: str, key: ec.EllipticCurvePublicKey) -> str:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        return self._sign(subject, key, ca=False).public_bytes(serialization.Encoding.PEM).decode()

    def server_context(self, directory: Path) -> ssl.SSLContext:
        key = ec.generate_private_key(ec.SECP256R1())
        pem = directory / f"server-{secrets.token_hex(4)}.pem"
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        pem.write_bytes(private + self.issue("server", key.public_key()).encode())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        return context


def public_key(jwk: dict[str, Any]) -> ec.EllipticCurvePublicKey:
    x, y = (int.from_bytes(unb64url(jwk[name]), "big") for name in ("x", "y"))
    return ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()


def seal(jwk: dict[str, Any], plaintext: bytes) -> dict[str, str]:
    """Flattened JWE, ECDH-ES+A256KW and A256GCM (RFC 7516, RFC 7518 4.6), ephemeral key in the protected header."""
    ephemeral = ec.generate_private_key(ec.SECP256R1())
    numbers = ephemeral.public_key().public_numbers()
    epk = {"kty": "EC", "crv": "P-256", "x": b64url(numbers.x.to_bytes(32)), "y": b64url(numbers.y.to_bytes(32))}
    algorithm = b"ECDH-ES+A256KW"
    info = len(algorithm).to_bytes(4) + algorithm + bytes(8) + (256).to_bytes(4)
    shared = ephemeral.exchange(ec.ECDH(), public_key(jwk))
    wrapping = ConcatKDFHash(hashes.SHA256(), 32, info).derive(shared)
    content, iv = os.urandom(32), os.urandom(12)
    protected = b64url(canonical({"alg": "ECDH-ES+A256KW", "enc": "A256GCM", "epk": epk}))
    sealed = AESGCM(content).encrypt(iv, plaintext, protected.encode())
    return {
        "protected": protected,
        "encrypted_key": b64url(aes_key_wrap(wrapping, content)),
        "iv": b64url(iv),
        "ciphertext": b64url(sealed[:-16]),
        "tag": b64url(sealed[-16:]),
    }


@dataclass
class Session:
    nonce: str
    tee: str
    extra: Any
    jwk: dict[str, Any] | None = None
    token: str | None = None
    expires: float = 0.0
    init_data: Any = None


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class KbsDouble:
    """Start with ``with KbsDouble(tmp_path) as kbs``; what a test may change is public."""

    directory: Path
    resources: dict[str, bytes] = field(default_factory=dict)
    token_seconds: float = 300.0
    additions: bool = True
    denials: dict[str, tuple[int, dict[str, Any]]] = field(default_factory=dict)  # path prefix -> status, problem
    generations: dict[tuple[str, str], tuple[int, str]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    authority: Authority = field(default_factory=Authority)
    job_authority: Authority = field(default_factory=lambda: Authority("job"))
    sessions: dict[str, Session] = field(default_factory=dict)
    proofs: set[str] = field(default_factory=set)

    def __enter__(self) -> KbsDouble:
        double = self

        class Handler(_Handler):
            kbs = double

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.socket = self.authority.server_context(self.directory).wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._server.server_address[1]}"

    @property
    def attestations(self) -> int:
        return sum(r.path == "/kbs/v0/attest" for r in self.requests)

    def hold_key(self, dataset: str, version: int, key: bytes, *, current: bool = True) -> None:
        """A dataset key as an ``oct`` JWK, under its version and as the current one."""
        jwk = {"kty": "oct", "alg": "A256GCM", "k": b64url(key), "kid": f"{dataset}/{version}"}
        self.resources[f"{dataset}/{version}"] = json.dumps(jwk).encode()
        if current:
            self.resources[f"{dataset}/current"] = self.resources[f"{dataset}/{version}"]

    def deny(self, prefix: str, status: int, **problem: Any) -> None:
        """Answer every path that starts with ``prefix`` with this problem from now on."""
        self.denials[prefix] = (status, problem)

    def forget_sessions(self) -> None:
        """As after a restart."""
        self.sessions.clear()


class _Problem(Exception):
    def __init__(self, status: int, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.body = status, {"type": PROBLEM + kind, "detail": detail}


class _Handler(BaseHTTPRequestHandler):
    kbs: KbsDouble
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._handle()

    do_POST = do_PUT = do_GET

    def _handle(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = json.loads(raw) if raw else None
        url = urlsplit(self.path)
        kbs = self.kbs
        kbs.requests.append(Request(self.command, self.path, dict(self.headers), body))
        try:
            for prefix, (status, problem) in kbs.denials.items():
                if url.path.startswith(prefix):
                    return self._reply(status, problem, kind="application/problem+json")
            if url.path == "/kbs/v0/auth":
                return self._auth(body)
            if url.path == "/kbs/v0/attest":
                return self._attest(body)
            if url.path.startswith("/kbs/v0/resource/"):
                return self._resource(url.path.removeprefix("/kbs/v0/resource/"))
            if kbs.additions and url.path.startswith("/v1/"):
                return self._addition(url.path, parse_qs(url.query), body)
            raise _Problem(404, "PluginNotFound", "no such path")
        except _Problem as problem:
            self._reply(problem.status, problem.body, kind="application/problem+json")

    def _reply(self, status: int, value: Any, *, cookie: str | None = None, kind: str = "application/json") -> None:
        raw = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(raw)))
        if cookie:
            self.send_header("Set-Cookie", f"kbs-session-id={cookie}; Path=/; HttpOnly; Secure")
        self.end_headers()
        self.wfile.write(raw)

    def _auth(self, body: Any) -> None:
        if body.get("version") != "0.4.0":
            raise _Problem(401, "ProtocolVersion", f"version {body.get('version')} is not =0.4.0")
        name = secrets.token_hex(16)
        nonce = base64.b64encode(os.urandom(32)).decode()
        self.kbs.sessions[name] = Session(nonce, body["tee"], body["extra-params"])
        self._reply(200, {"nonce": nonce, "extra-params": ""}, cookie=name)

    def _session(self) -> Session:
        cookies = dict(
            part.strip().split("=", 1) for part in (self.headers.get("Cookie") or "").split(";") if "=" in part
        )
        session = self.kbs.sessions.get(cookies.get("kbs-session-id", ""))
        if session is None:
            raise _Problem(401, "InvalidRequest", "no session cookie")
        return session

    def _attest(self, body: Any) -> None:
        session = self._session()
        runtime, evidence = body["runtime-data"], body["tee-evidence"]
        if session.token is not None or runtime["nonce"] != session.nonce:
            raise _Problem(401, "AttestationFailed", "the nonce was used, or is another session's")
        jwk = runtime["tee-pubkey"]
        if jwk.get("alg") != "ECDH-ES+A256KW" or jwk.get("crv") != "P-256" or "d" in jwk:
            raise _Problem(401, "AttestationFailed", "tee-pubkey: need a public P-256 key with its algorithm")
        bound = {
            "additional-evidence": evidence["additional_evidence"],
            "nonce": runtime["nonce"],
            "tee-pubkey": jwk,
        }
        expected = hashlib.sha384(canonical(bound)).digest().ljust(64, b"\0")
        if base64.b64decode(evidence["primary_evidence"]["quote"]) != expected:
            raise _Problem(401, "AttestationFailed", "report data is not bound to nonce and key")
        session.jwk, session.init_data = jwk, body.get("init-data")
        session.expires = time.time() + self.kbs.token_seconds
        claims = {"iat": int(time.time()), "exp": int(session.expires + 0.999), "nonce": secrets.token_hex(4)}
        session.token = f"{b64url(b'{}')}.{b64url(canonical(claims))}.{b64url(os.urandom(64))}"
        self._reply(200, {"token": session.token})

    def _attested(self) -> Session:
        scheme, _, token = (self.headers.get("Authorization") or "").partition(" ")
        found = [s for s in self.kbs.sessions.values() if s.token and secrets.compare_digest(s.token, token)]
        session = found[0] if scheme in ("Bearer", "DPoP") and found else self._session()
        if session.token is None or session.expires < time.time():
            raise _Problem(401, "TokenNotFound", "not attested, or the token has expired")
        return session

    def _resource(self, path: str) -> None:
        session = self._attested()
        if len(path.split("/")) != 3:
            raise _Problem(401, "InvalidRequest", "need repository/type/tag")
        if path not in self.kbs.resources:
            raise _Problem(404, "ResourceNotFound", f"no resource {path}")
        assert session.jwk is not None
        self._reply(200, seal(session.jwk, self.kbs.resources[path]))

    # --- Casemate's additions ---

    def _addition(self, path: str, query: dict[str, list[str]], body: Any) -> None:
        session = self._attested()
        self._proof(session, path)
        assert session.jwk is not None
        parts = path.split("/")[2:]
        if parts[0] == "jobs":
            issued = self.kbs.job_authority.issue(session.extra["casemate"]["role"], public_key(session.jwk))
            return self._reply(200, {"certificate": issued, "ca": self.kbs.job_authority.pem})
        where = ("/".join(parts[1:3]), query["location"][0])
        number, digest = self.kbs.generations.get(where, (0, None))
        if self.command == "GET":
            return self._reply(200, {"generation": number, "digest": digest})
        if body["generation"] != number + 1:
            problem = {"type": "about:blank", "code": "generation-conflict", "detail": f"{number} is recorded"}
            return self._reply(409, problem, kind="application/problem+json")
        self.kbs.generations[where] = (body["generation"], body["digest"])
        return self._reply(200, {"generation": body["generation"]})

    def _proof(self, session: Session, path: str) -> None:
        """RFC 9449 4.3, for the key that the evidence bound."""
        header, payload, signature = (self.headers.get("DPoP") or "..").split(".")
        head, claims = json.loads(unb64url(header)), json.loads(unb64url(payload))
        assert session.jwk is not None
        assert session.token is not None
        raw = unb64url(signature)
        der = utils.encode_dss_signature(int.from_bytes(raw[:32]), int.from_bytes(raw[32:]))
        same_key = (head["jwk"]["x"], head["jwk"]["y"]) == (session.jwk["x"], session.jwk["y"])
        public_key(session.jwk).verify(der, f"{header}.{payload}".encode(), ec.ECDSA(hashes.SHA256()))
        expected = {
            "htm": self.command,
            "htu": f"{self.kbs.url}{path}",
            "ath": b64url(hashlib.sha256(session.token.encode()).digest()),
        }
        fresh = abs(claims["iat"] - time.time()) < 60 and claims["jti"] not in self.kbs.proofs
        if not same_key or not fresh or any(claims.get(name) != want for name, want in expected.items()):
            raise _Problem(401, "InvalidRequest", "request proof does not hold")
        self.kbs.proofs.add(claims["jti"])
