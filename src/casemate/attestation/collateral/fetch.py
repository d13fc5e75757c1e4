"""The edge that asks collateral services: https only, bounded in time and size, no redirects, no proxies of chance.

Nothing that comes back is trusted: whoever keeps it verifies it under pinned roots first."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx

from casemate.attestation.collateral.errors import (
    CollateralBusyError,
    CollateralNotServedError,
    CollateralReplyMalformedError,
    CollateralReplyOversizedError,
    CollateralUnreachableError,
    CollateralUrlError,
)
from casemate.attestation.collateral.sources import Fetched, Wanted

__all__ = ["Limits", "fetch_all", "trust_of"]

_BUSY = (429, 503)
_ATTEMPTS = 3


@dataclass(frozen=True)
class Limits:
    """Seconds: one request from its start to its last byte; all waiting for a busy service together."""

    request_seconds: float = 20.0
    patience_seconds: float = 30.0
    sleep: Callable[[float], None] = field(default=time.sleep)


def trust_of(ca: Path | None) -> ssl.SSLContext:
    """Whom to trust for TLS: the system's authorities, or the certificates in ``ca`` alone.

    Raises ``CollateralUrlError``."""
    try:
        return ssl.create_default_context(cafile=None if ca is None else str(ca))
    except (OSError, ssl.SSLError) as exc:
        raise CollateralUrlError(f"--ca {ca}: no PEM certificates that can be used ({exc})") from exc


def fetch_all(
    wanted: Sequence[Wanted], *, trust: ssl.SSLContext, limits: Limits | None = None, say: Callable[[str], None]
) -> dict[str, Fetched]:
    """All replies, by piece, each with status 200; raises the error of the first that is not to be had.

    A busy service (429, 503) is waited for as long as it asks, within ``patience_seconds``."""
    limits = limits or Limits()
    patience = limits.patience_seconds
    replies: dict[str, Fetched] = {}
    for one in wanted:
        for attempt in range(1, _ATTEMPTS + 1):
            reply = _fetch(one, trust, limits)
            if reply.status not in _BUSY:
                break
            wait = _retry_after(reply)
            if reply.status == 503 and wait is None:
                break
            wait = max(1.0, 2.0**attempt if wait is None else wait)
            if wait > patience or attempt == _ATTEMPTS:
                raise CollateralBusyError(
                    f"{one.piece}: {one.url} answered {reply.status}; it wants to be asked again in {wait:.0f} s"
                )
            say(f"{one.piece}: the service is busy; waiting {wait:.0f} s")
            limits.sleep(wait)
            patience -= wait
        replies[one.piece] = _checked(one, reply)
    return replies


def _checked(one: Wanted, reply: Fetched) -> Fetched:
    if reply.status == 404:
        raise CollateralNotServedError(f"{one.piece}: {one.url} answered 404")
    if reply.status != 200:
        raise CollateralUnreachableError(f"{one.piece}: {one.url} answered {reply.status}")
    if not reply.content:
        raise CollateralReplyMalformedError(f"{one.piece}: {one.url} answered with nothing")
    return reply


def _fetch(one: Wanted, trust: ssl.SSLContext, limits: Limits) -> Fetched:
    """One request. The deadline holds for the whole of it, so that a trickle of bytes does not go on for ever."""
    try:
        return asyncio.run(asyncio.wait_for(_get(one, trust, limits.request_seconds), limits.request_seconds))
    except (TimeoutError, httpx.TimeoutException) as exc:
        raise CollateralUnreachableError(
            f"{one.piece}: {one.url}: no whole answer within {limits.request_seconds:.0f} s"
        ) from exc
    except (httpx.RemoteProtocolError, httpx.DecodingError) as exc:
        raise CollateralReplyMalformedError(
            f"{one.piece}: {one.url}: the answer breaks off or is garbled ({exc})"
        ) from exc
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as exc:
        raise CollateralUnreachableError(f"{one.piece}: {one.url}: {str(exc) or type(exc).__name__}") from exc


async def _get(one: Wanted, trust: ssl.SSLContext, seconds: float) -> Fetched:
    # Identity encoding: a compressed reply could be small on the wire and fill the memory.
    headers = {"Accept-Encoding": "identity", "User-Agent": "casemate"}
    async with (
        httpx.AsyncClient(verify=trust, timeout=seconds, trust_env=False, follow_redirects=False) as client,
        client.stream("GET", one.url, headers=headers) as response,
    ):
        if int(response.headers.get("content-length", "0") or "0") > one.limit:
            raise _oversized(one)
        if response.headers.get("content-encoding", "identity") != "identity":
            raise CollateralReplyMalformedError(
                f"{one.piece}: {one.url}: the reply is compressed, which was not asked for"
            )
        content = bytearray()
        async for chunk in response.aiter_raw():
            content += chunk
            if len(content) > one.limit:
                raise _oversized(one)
        return Fetched(
            response.status_code, {name.lower(): value for name, value in response.headers.items()}, bytes(content)
        )


def _oversized(one: Wanted) -> CollateralReplyOversizedError:
    return CollateralReplyOversizedError(f"{one.piece}: {one.url}: more than {one.limit} bytes")


def _retry_after(reply: Fetched) -> float | None:
    """Seconds, out of a number or an HTTP date (RFC 9110 section 10.2.3)."""
    text = reply.headers.get("retry-after", "").strip()
    if text.isdigit() and len(text) < 10:
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
