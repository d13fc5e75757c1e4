"""Fetch and keep a broker's key set (JWKS): pinned CA, bounded, renewed when old or when a key is unknown."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx

from casemate.attestation.relying.errors import KeySetUnreachableError
from casemate.errors import UsageError

__all__ = ["JwksCache", "authority_context"]

JWKS_PATH = "/.well-known/jwks.json"
_MAX_BYTES = 256 * 1024
_FRESH_SECONDS = 300.0  # after that the set is fetched again before it is used
_STALE_SECONDS = 3600.0  # how long an old set will do when the broker is out of reach
_PAUSE_SECONDS = 5.0  # between two fetches on behalf of unknown keys: tokens are made by whoever sends them


class JwksCache:
    """A ``KeySource`` over HTTPS. Safe to use from threads.

    A withdrawn key is forgotten after five minutes at most, or after an hour when the broker cannot be reached."""

    def __init__(
        self,
        broker_url: str,
        ca: str | Path | None = None,
        *,
        timeout: float = 5.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = broker_url.rstrip("/") + JWKS_PATH
        if not self._url.startswith("https://"):
            raise UsageError(f"broker URL {broker_url!r}: need https://")
        self._context = authority_context(ca)
        self._timeout, self._monotonic = timeout, monotonic
        self._lock = threading.Lock()
        self._keys: Mapping[str, Any] | None = None
        self._fetched = self._tried = -_STALE_SECONDS

    def keys(self) -> Mapping[str, Any]:
        with self._lock:
            return self._current(_FRESH_SECONDS)

    def refreshed(self) -> Mapping[str, Any]:
        with self._lock:
            return self._current(_PAUSE_SECONDS)

    def _current(self, fresh_seconds: float) -> Mapping[str, Any]:
        now = self._monotonic()
        if self._keys is not None and now - self._fetched < fresh_seconds:
            return self._keys
        if self._keys is not None and now - self._tried < _PAUSE_SECONDS and now - self._fetched < _STALE_SECONDS:
            return self._keys  # the last try failed a moment ago
        self._tried = now
        try:
            self._keys = self._fetch()
            self._fetched = now
        except KeySetUnreachableError:
            if self._keys is None or now - self._fetched >= _STALE_SECONDS:
                raise
        return self._keys

    def _fetch(self) -> Mapping[str, Any]:
        try:
            with (
                httpx.Client(verify=self._context, timeout=self._timeout, trust_env=False) as client,
                client.stream("GET", self._url) as response,
            ):
                raw = bytearray()
                for chunk in response.iter_bytes():
                    raw += chunk
                    if len(raw) > _MAX_BYTES:
                        raise KeySetUnreachableError(f"{self._url}: more than {_MAX_BYTES} bytes")
                if response.status_code != httpx.codes.OK:
                    raise KeySetUnreachableError(f"{self._url}: HTTP status {response.status_code}")
                value = json.loads(raw)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, RecursionError) as exc:
            raise KeySetUnreachableError(f"{self._url}: {str(exc) or type(exc).__name__}") from exc
        if not isinstance(value, dict) or not isinstance(value.get("keys"), list):
            raise KeySetUnreachableError(f"{self._url}: the answer is not a key set")
        return value


def authority_context(ca: str | Path | None) -> ssl.SSLContext:
    """A TLS context that trusts one CA: PEM text or a file of it; ``None`` is whom the machine trusts."""
    try:
        if ca is None:
            return ssl.create_default_context()
        text = ca if isinstance(ca, str) and "-----BEGIN" in ca else Path(ca).read_text(encoding="ascii")
        return ssl.create_default_context(cadata=text)
    except (OSError, ValueError, ssl.SSLError) as exc:
        raise UsageError(f"CA certificate: not usable ({exc})") from exc
