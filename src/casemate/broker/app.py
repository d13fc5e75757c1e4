"""The broker as an ASGI application. Handlers run in the thread pool: verification is computation, storage is disk."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from casemate import __version__
from casemate.broker.http import admin, kbs, problems
from casemate.broker.http.limits import Envelope
from casemate.broker.service import Broker

__all__ = ["create_app"]

_DESCRIPTION = """Releases dataset keys to attested workloads under their owners' grants.

Attestation speaks the confidential-containers KBS protocol 0.4.0. Requests under /v1/ carry a proof of possession
(DPoP, RFC 9449) of an owner's or administrator's key, or `Authorization: DPoP <attestation token>` with a proof of the
attested key. Errors are RFC 9457 problem documents with a stable `code`."""


def create_app(broker: Broker) -> FastAPI:
    """The application over ``broker``, which it closes when it ends."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        broker.close()

    app = FastAPI(
        title="Casemate key broker",
        version=__version__,
        description=_DESCRIPTION,
        openapi_url="/v1/openapi.json",
        docs_url=None,  # they would load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.broker = broker
    app.include_router(admin.public_router)
    app.include_router(admin.router)
    app.include_router(kbs.router)
    problems.install(app)
    app.add_middleware(Envelope)
    return app
