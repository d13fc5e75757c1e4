"""The other side: earn a token inside a TEE, and send it with a proof (``httpx.Auth``)."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Generator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import httpx

from casemate.attestation.binding import report_data
from casemate.attestation.detect import find_attester
from casemate.attestation.evidence import Attester
from casemate.attestation.relying.errors import TokenBrokerAnswerError
from casemate.attestation.relying.keys import authority_context
from casemate.crypto.jose import KeyPair
from casemate.crypto.proof import make_proof
from casemate.errors import UsageError, error_class

__all__ = ["AttestedAuth", "BrokerTokens", "TokenSource"]

_PROTOCOL_VERSION = "0.4.0"
_MARGIN = timedelta(seconds=30)  # a token that ends so soon is renewed before it is used
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class TokenSource(Protocol):
    """An attested key and the token that names it."""

    @property
    def key(self) -> KeyPair: ...

    def token(self, *, fresh: bool = False) -> str:
        """A valid token; ``fresh``: a new one, since the last was turned away."""
        ...


class BrokerTokens:
    """Attests to a broker (KBS protocol 0.4.0) whenever a token is needed and none is left. Safe to use from threads.

    ``init_data`` is the text of the workload manifest that the TEE was launched with, where there is one."""

    def __init__(
        self,
        broker_url: str,
        ca: str | Path | None = None,
        *,
        attester: Attester | None = None,
        init_data: str | None = None,
        timeout: float = 20.0,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._url = broker_url.rstrip("/")
        if not self._url.startswith("https://"):
            raise UsageError(f"broker URL {broker_url!r}: need https://")
        self._context = authority_context(ca)
        self._attester = attester or find_attester()
        self._init_data, self._timeout, self._clock = init_data, timeout, clock
        self._key = KeyPair.generate()
        self._lock = threading.Lock()
        self._token, self._ends = "", datetime.fromtimestamp(0, UTC)

    @property
    def key(self) -> KeyPair:
        return self._key

    def token(self, *, fresh: bool = False) -> str:
        """Raises the broker's own refusal, ``TokenBrokerAnswerError``, or what the attester raises."""
        with self._lock:
            if fresh or self._clock() >= self._ends - _MARGIN:
                self._token = self._attest()
                self._ends = _expiry(self._token)
            return self._token

    def _attest(self) -> str:
        public = {**self._key.public, "alg": "ECDH-ES+A256KW"}
        with httpx.Client(verify=self._context, timeout=self._timeout, trust_env=False) as client:
            auth = {"version": _PROTOCOL_VERSION, "tee": self._attester.tee, "extra-params": {}}
            nonce = _member(self._post(client, "/kbs/v0/auth", auth), "nonce")
            evidence = self._attester.collect(report_data(nonce, public))
            body: dict[str, Any] = {
                "runtime-data": {"nonce": nonce, "tee-pubkey": public},
                "tee-evidence": {"primary_evidence": dict(evidence.body), "additional_evidence": ""},
            }
            if self._init_data is not None:
                body["init-data"] = {"format": "json", "body": self._init_data}
            return _member(self._post(client, "/kbs/v0/attest", body), "token")

    def _post(self, client: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
        try:
            response = client.post(self._url + path, json=body)
            value = response.json()
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, RecursionError) as exc:
            raise TokenBrokerAnswerError(f"{self._url}: {str(exc) or type(exc).__name__}") from exc
        if not isinstance(value, dict):
            raise TokenBrokerAnswerError(f"{self._url}: need a JSON object, got {type(value).__name__}")
        if response.is_success:
            return value
        code, detail = str(value.get("code") or "refused"), str(value.get("detail") or value.get("title") or "")[:2000]
        error = error_class(code, response.status_code)(detail or f"{self._url}: HTTP status {response.status_code}")
        if error.code != code:  # the broker's own classes are not imported here: keep the code beside its branch
            setattr(error, "code", code)  # noqa: B010
        raise error


class AttestedAuth(httpx.Auth):
    """``httpx.get(url, auth=AttestedAuth.from_broker(...))``: a token, and a fresh proof for each request.

    A 401 is answered once with a new token. Plain HTTP is refused but to this machine itself."""

    def __init__(self, source: TokenSource, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._source, self._clock = source, clock

    @classmethod
    def from_broker(cls, broker_url: str, ca: str | Path | None = None, **options: Any) -> AttestedAuth:
        """Earn tokens from the broker at ``broker_url``; ``options`` are those of ``BrokerTokens``."""
        return cls(BrokerTokens(broker_url, ca, **options))

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        if request.url.scheme != "https" and request.url.host not in _LOOPBACK:
            raise UsageError(f"{request.url.scheme}://{request.url.host}: an attestation token needs https://")
        response = yield self._signed(request, self._source.token())
        if response.status_code == httpx.codes.UNAUTHORIZED:
            yield self._signed(request, self._source.token(fresh=True))

    def _signed(self, request: httpx.Request, token: str) -> httpx.Request:
        proof = make_proof(
            self._source.key, method=request.method, url=str(request.url), now=self._clock(), token=token
        )
        request.headers["Authorization"] = f"DPoP {token}"
        request.headers["DPoP"] = proof
        return request


def _member(value: dict[str, Any], name: str) -> str:
    found = value.get(name)
    if not isinstance(found, str):
        raise TokenBrokerAnswerError(f"broker's answer: {name}: need text, got {type(found).__name__}")
    return found


def _expiry(token: str) -> datetime:
    """When a token says it ends; unverified, as it only sets our own timer."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return datetime.fromtimestamp(claims["exp"], UTC)
    except (IndexError, KeyError, TypeError, ValueError, OverflowError) as exc:
        raise TokenBrokerAnswerError("broker's answer: its token does not say when it ends") from exc
