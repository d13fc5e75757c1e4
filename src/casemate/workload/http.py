"""HTTPS to one broker: pinned to the CA certificate in the manifest, bounded, with typed failures.

``http.client`` and not an HTTP library: this runs in the start-up path of every process inside a TEE.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from casemate.errors import CasemateError
from casemate.workload.errors import (
    KeyBrokerAnswerError,
    KeyBrokerRefusedError,
    KeyBrokerUnreachableError,
    WrongBrokerError,
    broker_error,
)
from casemate.workload.manifest import BrokerEntry

__all__ = ["Answer", "BrokerConnection", "Headers"]

Headers = Callable[[str], Mapping[str, str]]
"""Makes the headers for one request to a URL; called again for a retry, since request proofs are good once."""

_MAX_ANSWER: Final = 4 * 1024 * 1024  # bytes
_IDLE: Final = 3.0  # seconds; servers close idle connections after five or more


@dataclass(frozen=True)
class Answer:
    """A 2xx answer: its decoded JSON and its cookies as ``name=value``."""

    value: Any
    cookies: tuple[str, ...]

    def member(self, name: str, kind: type) -> Any:
        """A member of a JSON object answer; raises ``KeyBrokerAnswerError`` when it is not there or of another type."""
        found = self.value.get(name) if isinstance(self.value, dict) else None
        if not isinstance(found, kind):
            raise KeyBrokerAnswerError(f"broker's answer: {name}: need {kind.__name__}, got {type(found).__name__}")
        return found


class BrokerConnection:
    """A kept-open connection, used by one thread at a time."""

    def __init__(self, entry: BrokerEntry, *, timeout: float = 20.0) -> None:
        parts = urlsplit(entry.url)
        self.url = entry.url
        self._host, self._port, self._base = parts.hostname or "", parts.port or 443, parts.path
        self._timeout = timeout
        self._lock = threading.Lock()
        self._connection: http.client.HTTPSConnection | None = None
        self._used = 0.0
        try:
            self._context = ssl.create_default_context(cadata=entry.ca_pem)
        except ssl.SSLError as exc:
            raise WrongBrokerError(f"{entry.url}: the CA certificate in the manifest cannot be used") from exc

    def request(self, method: str, path: str, *, body: Any = None, headers: Headers | None = None) -> Answer:
        """One exchange. Raises the broker's own refusal, ``KeyBrokerUnreachableError``, or ``WrongBrokerError``."""
        payload = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        with self._lock:
            try:
                response, raw = self._exchange(method, path, payload, headers)
            except ssl.SSLCertVerificationError as exc:
                self._close()
                raise WrongBrokerError(f"{self.url}: {exc.verify_message or exc}") from exc
            except (OSError, http.client.HTTPException) as exc:
                self._close()
                reason = getattr(exc, "strerror", None) or str(exc) or type(exc).__name__
                raise KeyBrokerUnreachableError(f"{self.url}: {reason}") from exc
            except BaseException:
                self._close()
                raise
            self._used = time.monotonic()
        if len(raw) > _MAX_ANSWER:
            raise KeyBrokerAnswerError(f"{self.url}: answer of more than {_MAX_ANSWER} bytes")
        if not 200 <= response.status < 300:
            raise _refusal(self.url, response.status, raw)
        return Answer(self._json(raw), tuple(c.split(";")[0] for c in response.headers.get_all("Set-Cookie") or ()))

    def close(self) -> None:
        with self._lock:
            self._close()

    def _exchange(
        self, method: str, path: str, payload: bytes | None, headers: Headers | None
    ) -> tuple[http.client.HTTPResponse, bytes]:
        if time.monotonic() - self._used > _IDLE:
            self._close()
        kept = self._connection is not None
        try:
            return self._send(method, path, payload, headers)
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
            self._close()
            if not kept:
                raise
        return self._send(method, path, payload, headers)  # the kept connection had been closed by the other side

    def _send(
        self, method: str, path: str, payload: bytes | None, headers: Headers | None
    ) -> tuple[http.client.HTTPResponse, bytes]:
        if self._connection is None:
            self._connection = http.client.HTTPSConnection(
                self._host, self._port, timeout=self._timeout, context=self._context
            )
        fields = {"Accept": "application/json", **(headers(f"{self.url}{path}") if headers else {})}
        if payload is not None:
            fields["Content-Type"] = "application/json"
        self._connection.request(method, f"{self._base}{path}", body=payload, headers=fields)
        response = self._connection.getresponse()
        return response, response.read(_MAX_ANSWER + 1)

    def _close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.close()
            self._connection = None

    def _json(self, raw: bytes) -> Any:
        try:
            return json.loads(raw) if raw else {}
        except (ValueError, RecursionError) as exc:
            raise KeyBrokerAnswerError(f"{self.url}: the answer is not JSON") from exc


def _refusal(url: str, status: int, raw: bytes) -> CasemateError:
    """The error in an answer: RFC 9457 problem details with our ``code``, or whatever another KBS says."""
    try:
        problem = json.loads(raw)
    except (ValueError, RecursionError):
        problem = None
    problem = problem if isinstance(problem, dict) else {}
    detail = str(problem.get("detail") or problem.get("title") or f"HTTP status {status}")[:2000]
    code, refusal = problem.get("code"), problem.get("refusal_id")
    if isinstance(code, str) and code:
        return broker_error(code, status, detail, refusal if isinstance(refusal, str) else None)
    if status in (429, 502, 503, 504):
        return KeyBrokerUnreachableError(f"{url}: {detail}")
    if status in (401, 403, 404):
        return KeyBrokerRefusedError(f"{url}: {detail}")
    return KeyBrokerAnswerError(f"{url}: {detail}")
