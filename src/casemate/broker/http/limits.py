"""Around every request: a limit on its body, and one line in the access log, without query, headers or bodies."""

from __future__ import annotations

import logging
import time

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from casemate.broker.errors import RequestTooLargeError
from casemate.broker.http.problems import TOO_LARGE, problem

__all__ = ["MAX_BODY_SIZE", "Envelope"]

MAX_BODY_SIZE = 4 * 1024 * 1024  # bytes; evidence is some kilobytes, a manifest at most one megabyte
_log = logging.getLogger("casemate.broker.access")


class Envelope:
    """ASGI middleware; outermost, so that nothing reads more than the limit."""

    def __init__(self, app: ASGIApp, limit: int = MAX_BODY_SIZE) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status, received = time.perf_counter(), 500, 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit:
                raise HTTPException(413)  # the one exception that body parsing lets through
            return message

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message.setdefault("headers", []).append((b"x-content-type-options", b"nosniff"))
            await send(message)

        try:
            if self._declared(scope) > self._limit:
                scope["casemate.code"] = RequestTooLargeError.code
                await problem(RequestTooLargeError(TOO_LARGE))(scope, receive, watched)
            else:
                await self._app(scope, limited, watched)
        finally:
            code, refusal = scope.get("casemate.code"), scope.get("casemate.refusal")
            reason = "".join(f" {part}" for part in (code, refusal) if part)
            elapsed = (time.perf_counter() - began) * 1000
            path = scope["path"][:200].encode("ascii", "backslashreplace").decode().replace("\n", "?")
            _log.info("%s %s %d %.1f ms%s", scope["method"], path, status, elapsed, reason)

    @staticmethod
    def _declared(scope: Scope) -> int:
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit():
                return int(value[:20])
        return 0
