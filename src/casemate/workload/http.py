"""HTTPS to one broker: pinned to the CA certificate in the manifest, with typed failures."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from casemate.errors import CasemateError
from casemate.https import MAX_ANSWER, HttpsConnection
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
        self.url = entry.url
        try:
            self._connection = HttpsConnection(entry.url, entry.ca_pem, timeout=timeout)
        except ssl.SSLError as exc:
            raise WrongBrokerError(f"{entry.url}: the CA certificate in the manifest cannot be used") from exc

    def request(self, method: str, path: str, *, body: Any = None, headers: Headers | None = None) -> Answer:
        """One exchange. Raises the broker's own refusal, ``KeyBrokerUnreachableError``, or ``WrongBrokerError``."""
        payload = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        try:
            reply = self._connection.exchange(
                method, path, payload, lambda: headers(f"{self.url}{path}") if headers else {}, again=True
            )
        except ssl.SSLCertVerificationError as exc:
            raise WrongBrokerError(f"{self.url}: {exc.verify_message or exc}") from exc
        except (OSError, http.client.HTTPException) as exc:
            reason = getattr(exc, "strerror", None) or str(exc) or type(exc).__name__
            raise KeyBrokerUnreachableError(f"{self.url}: {reason}") from exc
        if len(reply.body) > MAX_ANSWER:
            raise KeyBrokerAnswerError(f"{self.url}: answer of more than {MAX_ANSWER} bytes")
        if not 200 <= reply.status < 300:
            raise _refusal(self.url, reply.status, reply.body)
        return Answer(self._json(reply.body), reply.cookies)

    def close(self) -> None:
        self._connection.close()

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
