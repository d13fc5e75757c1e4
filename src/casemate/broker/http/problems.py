"""Errors as RFC 9457 problem details: a stable code, a readable sentence, and the refusal's id. Never an input."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from casemate.broker.errors import RequestMalformedError, RequestTooLargeError, ResourceUnknownError
from casemate.errors import CasemateError, FailedError

__all__ = ["PROBLEM_TYPE", "TOO_LARGE", "install", "problem"]

TOO_LARGE = "the request's body is larger than this broker reads"
PROBLEM_TYPE = "application/problem+json"
_log = logging.getLogger("casemate.broker")


def problem(error: CasemateError, status: int | None = None) -> JSONResponse:
    """The response for a typed error."""
    status = error.http_status if status is None else status
    body: dict[str, Any] = {
        "type": f"urn:casemate:error:{error.code}",
        "title": " ".join((type(error).__doc__ or error.code).split()),
        "status": status,
        "code": error.code,
        "detail": error.message,
        "refusal_id": error.refusal_id,
    }
    headers = {"Cache-Control": "no-store"}
    if status == 401:
        headers["WWW-Authenticate"] = 'DPoP algs="ES256"'
    return JSONResponse(body, status_code=status, media_type=PROBLEM_TYPE, headers=headers)


def install(app: FastAPI) -> None:
    """Make every error of ``app`` a problem document."""

    @app.exception_handler(CasemateError)
    def _ours(request: Request, exc: CasemateError) -> JSONResponse:
        request.scope["casemate.code"], request.scope["casemate.refusal"] = exc.code, exc.refusal_id
        if isinstance(exc, FailedError):
            _log.error("%s %s: %s: %s", request.method, request.url.path, exc.code, exc.message)
        return problem(exc)

    @app.exception_handler(RequestValidationError)
    def _invalid(request: Request, exc: RequestValidationError) -> JSONResponse:
        request.scope["casemate.code"] = RequestMalformedError.code
        first = exc.errors()[0]  # its input is left out: it may be secret, or huge
        where = ".".join(str(part)[:64] for part in first["loc"][:8])
        return problem(RequestMalformedError(f"{where}: {first['msg'][:200]}"))

    @app.exception_handler(HTTPException)
    def _http(request: Request, exc: HTTPException) -> JSONResponse:
        error: CasemateError = RequestMalformedError(str(exc.detail))
        if exc.status_code == 404:
            error = ResourceUnknownError("no such path")
        elif exc.status_code == 413:
            error = RequestTooLargeError(TOO_LARGE)
        request.scope["casemate.code"] = error.code
        return problem(error, exc.status_code)

    @app.exception_handler(RecursionError)
    def _deep(request: Request, exc: RecursionError) -> JSONResponse:
        return problem(RequestMalformedError("the request is nested too deeply"))

    @app.exception_handler(Exception)
    def _defect(request: Request, exc: Exception) -> JSONResponse:
        _log.error("%s %s: internal error", request.method, request.url.path, exc_info=exc)
        return problem(FailedError("internal error; the broker's log has the details"))
