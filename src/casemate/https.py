"""HTTPS to one server: pinned to a CA certificate, kept open, bounded. What goes wrong is raised as it comes.

``http.client`` and not an HTTP library: every process inside a TEE and most commands load this when they start.
"""

from __future__ import annotations

import contextlib
import http.client
import select
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

__all__ = ["MAX_ANSWER", "HttpsConnection", "Reply"]

MAX_ANSWER: Final = 32 * 1024 * 1024  # bytes
_IDLE: Final = 3.0  # seconds; servers close idle connections after five or more
_GONE = (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError)


@dataclass(frozen=True)
class Reply:
    """An answer of any status; ``body`` is cut one byte after ``MAX_ANSWER``."""

    status: int
    headers: Mapping[str, str]
    cookies: tuple[str, ...]  # name=value
    body: bytes


class HttpsConnection:
    """A kept-open connection, used by one thread at a time. Proxies and environment settings are not looked at.

    Raises ``ssl.SSLError`` when ``ca_pem`` cannot be used."""

    def __init__(self, url: str, ca_pem: str, *, timeout: float) -> None:
        parts = urlsplit(url)
        self._host, self._port, self._base = parts.hostname or "", parts.port or 443, parts.path.rstrip("/")
        self._timeout = timeout
        self._context = ssl.create_default_context(cadata=ca_pem)
        self._lock = threading.Lock()
        self._connection: http.client.HTTPSConnection | None = None
        self._used = 0.0

    def exchange(
        self,
        method: str,
        path: str,
        payload: bytes | None,
        headers: Callable[[], Mapping[str, str]],
        *,
        again: bool,
    ) -> Reply:
        """One request and its answer; ``headers`` are made anew for each attempt.

        ``again``: send once more when a kept connection turns out closed, though the server may have read the request.
        Raises ``OSError`` (``ssl.SSLCertVerificationError`` for another server) or ``http.client.HTTPException``."""
        with self._lock:
            try:
                reply = self._exchange(method, path, payload, headers, again)
            except BaseException:
                self._close()
                raise
            self._used = time.monotonic()
            return reply

    def close(self) -> None:
        with self._lock:
            self._close()

    def _exchange(
        self,
        method: str,
        path: str,
        payload: bytes | None,
        headers: Callable[[], Mapping[str, str]],
        again: bool,
    ) -> Reply:
        if time.monotonic() - self._used > _IDLE or self._closed_by_the_server():
            self._close()
        kept = self._connection is not None
        try:
            return self._send(method, path, payload, headers())
        except _GONE:
            self._close()
            if not (kept and again):
                raise
        return self._send(method, path, payload, headers())

    def _closed_by_the_server(self) -> bool:
        """Nothing is due on an idle connection: what is there to read is its end."""
        if self._connection is None or self._connection.sock is None:
            return False
        poll = select.poll()
        poll.register(self._connection.sock, select.POLLIN)
        return bool(poll.poll(0))

    def _send(self, method: str, path: str, payload: bytes | None, headers: Mapping[str, str]) -> Reply:
        if self._connection is None:
            self._connection = http.client.HTTPSConnection(
                self._host, self._port, timeout=self._timeout, context=self._context
            )
        fields = {"Accept": "application/json", **headers}
        if payload is not None:
            fields["Content-Type"] = "application/json"
        self._connection.request(method, f"{self._base}{path}", body=payload, headers=fields)
        response = self._connection.getresponse()
        cookies = tuple(cookie.split(";")[0] for cookie in response.headers.get_all("Set-Cookie") or ())
        body = response.read(MAX_ANSWER + 1)
        if len(body) > MAX_ANSWER:
            self._close()  # the rest is still to come
        return Reply(response.status, dict(response.headers), cookies, body)

    def _close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.close()
            self._connection = None
