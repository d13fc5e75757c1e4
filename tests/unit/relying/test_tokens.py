"""What a relying party accepts: keys, content, demands and proofs, each refused for its own reason."""

from __future__ import annotations

import http.server
import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from casemate.attestation import token as tokens
from casemate.attestation.claims import Claims, TcbClaims
from casemate.attestation.policy import AppraisalPolicy
from casemate.attestation.relying.client import AttestedAuth, BrokerTokens
from casemate.attestation.relying.demands import Demands
from casemate.attestation.relying.errors import (
    KeySetUnreachableError,
    TokenPolicyMismatchError,
    TokenProofInvalidError,
    TokenProofMissingError,
    TokenProofReplayedError,
    TokenSimulatedError,
    TokenStatusNotAcceptedError,
    TokenWorkloadMismatchError,
)
from casemate.attestation.relying.keys import JwksCache
from casemate.attestation.relying.verifier import TokenVerifier
from casemate.attestation.token_errors import (
    TokenAudienceMismatchError,
    TokenExpiredError,
    TokenInvalidError,
    TokenIssuerMismatchError,
    TokenKeyUnknownError,
    TokenSignatureError,
)
from casemate.crypto.jose import KeyPair
from casemate.crypto.proof import make_proof
from casemate.errors import CasemateError, UsageError

NOW = datetime(2026, 6, 1, tzinfo=UTC)
BROKER, SERVICE = "https://broker.example", "https://service.example"
URL = f"{SERVICE}/report"
POLICY = AppraisalPolicy.from_document(
    {"version": 1, "name": "trial", "allow_simulated": True, "tcb": {"statuses": ["UpToDate", "OutOfDate"]}}
)
CLAIMS = Claims("tdx", simulated=False, debug=False, tcb=TcbClaims("UpToDate"))


@dataclass
class Keys:
    """A key source in memory; ``next`` is what a refresh finds."""

    now: Mapping[str, Any]
    next: Mapping[str, Any] | None = None
    refreshes: int = 0

    def keys(self) -> Mapping[str, Any]:
        return self.now

    def refreshed(self) -> Mapping[str, Any]:
        self.refreshes += 1
        self.now = self.next or self.now
        return self.now


@dataclass
class Party:
    """A broker that issues, a holder that proves, a service that verifies."""

    signer: KeyPair = field(default_factory=KeyPair.generate)
    holder: KeyPair = field(default_factory=KeyPair.generate)
    time: datetime = NOW

    def token(self, claims: Claims = CLAIMS, **changes: Any) -> str:
        given: dict[str, Any] = {"issuer": BROKER, "audience": BROKER, "workload": "ab" * 48, "now": NOW, **changes}
        appraisal = POLICY.appraise(claims, now=NOW)
        key = self.holder.public
        return tokens.issue(
            self.signer, token_id="t", claims=claims, appraisal=appraisal, tee_pubkey=key, nonce="n", **given
        )

    def proof(self, signed: str, **changes: Any) -> str:
        given: dict[str, Any] = {"method": "GET", "url": URL, "now": NOW, "token": signed, **changes}
        return make_proof(given.pop("key", self.holder), **given)

    def verifier(self, keys: Keys | None = None, **demands: Any) -> TokenVerifier:
        source = keys or Keys(tokens.jwks(self.signer.public))
        return TokenVerifier(source, issuer=BROKER, demands=Demands(**demands), clock=lambda: self.time)


@pytest.fixture(scope="module")
def party() -> Party:
    return Party()


def test_a_token_with_a_proof_says_who_called(party: Party) -> None:
    token = party.token()
    result = party.verifier().verify(token, method="GET", url=URL, proof=party.proof(token))
    assert (result.status, result.workload, result.key_thumbprint) == ("affirming", "ab" * 48, party.holder.thumbprint)


def test_a_token_alone_is_not_enough_unless_it_is_said_to_be(party: Party) -> None:
    token = party.token()
    with pytest.raises(TokenProofMissingError):
        party.verifier().verify(token, method="GET", url=URL)
    assert party.verifier(insecure_allow_bearer=True).verify(token, method="GET", url=URL).id == "t"


def test_a_proof_that_comes_along_is_checked_even_where_none_is_needed(party: Party) -> None:
    token = party.token()
    with pytest.raises(TokenProofInvalidError):
        party.verifier(insecure_allow_bearer=True).verify(token, method="POST", url=URL, proof=party.proof(token))


WRONG_PROOFS: dict[str, dict[str, Any]] = {
    "another service": {"url": "https://other.example/report"},
    "another path": {"url": f"{SERVICE}/other"},
    "another method": {"method": "POST"},
    "another token": {"token": "another"},
    "no token": {"token": None},
    "another key": {"key": KeyPair.generate()},
    "an old one": {"now": NOW - timedelta(minutes=5)},
    "a future one": {"now": NOW + timedelta(minutes=5)},
}


@pytest.mark.parametrize("name", WRONG_PROOFS)
def test_each_wrong_proof_is_refused(party: Party, name: str) -> None:
    token = party.token()
    with pytest.raises(TokenProofInvalidError):
        party.verifier().verify(token, method="GET", url=URL, proof=party.proof(token, **WRONG_PROOFS[name]))


def test_junk_is_no_proof(party: Party) -> None:
    with pytest.raises(TokenProofInvalidError):
        party.verifier().verify(party.token(), method="GET", url=URL, proof="junk")


def test_a_proof_is_good_once(party: Party) -> None:
    token, verifier = party.token(), party.verifier()
    proof = party.proof(token)
    verifier.verify(token, method="GET", url=URL, proof=proof)
    with pytest.raises(TokenProofReplayedError):
        verifier.verify(token, method="GET", url=URL, proof=proof)
    verifier.verify(token, method="GET", url=URL, proof=party.proof(token))


def test_proofs_are_forgotten_when_they_have_expired_anyway() -> None:
    party = Party()
    token, verifier = party.token(lifetime=timedelta(hours=1)), party.verifier()
    verifier.verify(token, method="GET", url=URL, proof=party.proof(token))
    party.time = NOW + timedelta(minutes=10)
    verifier.verify(token, method="GET", url=URL, proof=party.proof(token, now=party.time))
    assert len(verifier._proofs) == 1


REFUSED: dict[str, tuple[dict[str, Any], type[CasemateError]]] = {
    "expired": ({"now": NOW - timedelta(minutes=6)}, TokenExpiredError),
    "another issuer": ({"issuer": "https://other.example"}, TokenIssuerMismatchError),
    "another audience": ({"audience": "https://other.example"}, TokenAudienceMismatchError),
}


@pytest.mark.parametrize("name", REFUSED)
def test_tokens_for_others_are_refused(party: Party, name: str) -> None:
    changes, error = REFUSED[name]
    token = party.token(**changes)
    with pytest.raises(error):
        party.verifier().verify(token, method="GET", url=URL, proof=party.proof(token))


def test_a_changed_token_is_refused(party: Party) -> None:
    token = party.token()
    head, payload, signature = token.split(".")
    spoiled = f"{head}.{payload}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}"
    with pytest.raises(TokenSignatureError):
        party.verifier().verify(spoiled, method="GET", url=URL, proof=party.proof(spoiled))
    with pytest.raises(TokenInvalidError):
        party.verifier().verify("junk", method="GET", url=URL, proof=party.proof("junk"))


def test_simulated_tokens_are_refused_unless_allowed(party: Party) -> None:
    token = party.token(replace(CLAIMS, simulated=True))
    with pytest.raises(TokenSimulatedError):
        party.verifier(statuses=frozenset({"affirming", "warning"})).verify(
            token, method="GET", url=URL, proof=party.proof(token)
        )
    allowed = party.verifier(allow_simulated=True)
    assert allowed.verify(token, method="GET", url=URL, proof=party.proof(token)).status == "warning"


def test_allowing_simulated_tokens_does_not_relax_real_ones(party: Party) -> None:
    token = party.token(replace(CLAIMS, tcb=TcbClaims("OutOfDate")))
    for demands in ({}, {"allow_simulated": True}):
        with pytest.raises(TokenStatusNotAcceptedError):
            party.verifier(**demands).verify(token, method="GET", url=URL, proof=party.proof(token))
    relaxed = party.verifier(statuses=frozenset({"warning"}))
    assert relaxed.verify(token, method="GET", url=URL, proof=party.proof(token)).status == "warning"


def test_a_token_of_a_refused_appraisal_is_refused(party: Party) -> None:
    token = party.token(replace(CLAIMS, debug=True))
    with pytest.raises(TokenStatusNotAcceptedError):
        party.verifier().verify(token, method="GET", url=URL, proof=party.proof(token))


def test_workload_and_policy_are_demanded_by_digest(party: Party) -> None:
    token = party.token()
    good = party.verifier(workloads=frozenset({"ab" * 48}), policies=frozenset({POLICY.digest}))
    good.verify(token, method="GET", url=URL, proof=party.proof(token))
    for demands, error in (
        ({"workloads": frozenset({"cd" * 48})}, TokenWorkloadMismatchError),
        ({"policies": frozenset({"cd" * 32})}, TokenPolicyMismatchError),
    ):
        with pytest.raises(error):
            party.verifier(**demands).verify(token, method="GET", url=URL, proof=party.proof(token))
    unnamed = party.token(workload=None)
    with pytest.raises(TokenWorkloadMismatchError):
        party.verifier(workloads=frozenset({"ab" * 48})).verify(
            unnamed, method="GET", url=URL, proof=party.proof(unnamed)
        )


def test_a_rotated_key_is_found_by_asking_again(party: Party) -> None:
    old = KeyPair.generate()
    keys = Keys(tokens.jwks(old.public), tokens.jwks(old.public, party.signer.public))
    token = party.token()
    party.verifier(keys).verify(token, method="GET", url=URL, proof=party.proof(token))
    assert keys.refreshes == 1
    stranger = Party()
    with pytest.raises(TokenKeyUnknownError):
        party.verifier(keys).verify(stranger.token(), method="GET", url=URL)


# -- the key set over HTTPS --------------------------------------------------------------------------------------------
@dataclass
class Site:
    """An HTTPS server on this machine whose answer a test sets."""

    url: str = ""
    ca: Path = Path()
    body: bytes = b""
    status: int = 200
    asked: int = 0


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with https_site(tmp_path) as found:
        yield found


@contextmanager
def https_site(directory: Path) -> Iterator[Site]:
    import ipaddress

    site, key, begin = Site(), ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC) - timedelta(hours=1)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test broker")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(begin).not_valid_after(begin + timedelta(days=1))
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = builder.add_extension(names, False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    site.ca = directory / "site.pem"
    site.ca.write_bytes(builder.sign(key, SHA256()).public_bytes(Encoding.PEM))
    private = directory / "site.key"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.asked += 1
            self.send_response(site.status)
            self.end_headers()
            self.wfile.write(site.body)

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as web:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(site.ca, private)
        web.socket = context.wrap_socket(web.socket, server_side=True)
        site.url = f"https://127.0.0.1:{web.server_port}"
        thread = threading.Thread(target=lambda: web.serve_forever(0.05), daemon=True)
        thread.start()
        yield site
        web.shutdown()
        thread.join(10)


def key_set(*keys: KeyPair) -> bytes:
    return json.dumps(tokens.jwks(*(key.public for key in keys))).encode()


def test_keys_are_fetched_once_and_again_when_old(site: Site) -> None:
    site.body, now = key_set(KeyPair.generate()), [0.0]
    cache = JwksCache(site.url, site.ca, monotonic=lambda: now[0])
    first = cache.keys()
    assert (cache.keys(), site.asked) == (first, 1)
    site.body, now[0] = key_set(KeyPair.generate()), 301.0
    assert cache.keys() != first
    assert site.asked == 2


def test_unknown_keys_do_not_make_a_fetch_each(site: Site) -> None:
    site.body, now = key_set(KeyPair.generate()), [0.0]
    cache = JwksCache(site.url, site.ca, monotonic=lambda: now[0])
    for _ in range(20):
        cache.refreshed()
    assert site.asked == 1
    now[0] = 6.0
    cache.refreshed()
    assert site.asked == 2


def test_a_broker_out_of_reach_is_bridged_for_an_hour(site: Site) -> None:
    site.body, now = key_set(KeyPair.generate()), [0.0]
    cache = JwksCache(site.url, site.ca, monotonic=lambda: now[0])
    good = cache.keys()
    site.status, now[0] = 503, 301.0
    assert cache.keys() == good
    asked = site.asked
    assert cache.keys() == good
    assert site.asked == asked  # not again within seconds
    now[0] = 3601.0
    with pytest.raises(KeySetUnreachableError):
        cache.keys()


@pytest.mark.parametrize(
    "body", [b"", b"junk", b"[]", b"{}", b'{"keys": {}}', b"[" * 100_000, b'{"keys": "' + b"x" * 300_000 + b'"}']
)
def test_what_is_no_key_set_is_undecided(site: Site, body: bytes) -> None:
    site.body = body
    with pytest.raises(KeySetUnreachableError):
        JwksCache(site.url, site.ca).keys()


def test_only_the_brokers_own_authority_vouches_for_its_keys(site: Site, tmp_path: Path) -> None:
    site.body = key_set(KeyPair.generate())
    with pytest.raises(KeySetUnreachableError):
        JwksCache(site.url).keys()
    assert JwksCache(site.url, site.ca.read_text()).keys()
    for bad in (tmp_path / "missing.pem", "-----BEGIN CERTIFICATE-----\njunk"):
        with pytest.raises(UsageError):
            JwksCache(site.url, bad)
    with pytest.raises(UsageError):
        JwksCache("http://broker.example")


# -- the client --------------------------------------------------------------------------------------------------------
@dataclass
class Source:
    key: KeyPair
    tokens: list[str]
    asked: list[bool] = field(default_factory=list)

    def token(self, *, fresh: bool = False) -> str:
        self.asked.append(fresh)
        return self.tokens[min(len(self.asked), len(self.tokens)) - 1]


def test_the_client_proves_each_request_and_renews_a_refused_token_once() -> None:
    source, seen = Source(KeyPair.generate(), ["old", "new"]), []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append((request.headers["authorization"], request.headers["dpop"]))
        return httpx.Response(401)

    with httpx.Client(auth=AttestedAuth(source), transport=httpx.MockTransport(answer)) as client:
        assert client.get(URL + "?page=2").status_code == 401
    assert [authorization for authorization, _ in seen] == ["DPoP old", "DPoP new"]
    assert len({proof for _, proof in seen}) == 2
    assert source.asked == [False, True]


def test_the_client_sends_no_token_in_the_clear() -> None:
    source = Source(KeyPair.generate(), ["token"])
    transport = httpx.MockTransport(lambda request: httpx.Response(200))
    with httpx.Client(auth=AttestedAuth(source), transport=transport) as client:
        with pytest.raises(UsageError):
            client.get("http://service.example/report")
        assert client.get("http://127.0.0.1/report").status_code == 200
    with pytest.raises(UsageError):
        BrokerTokens("http://broker.example", attester=object())  # type: ignore[arg-type]
