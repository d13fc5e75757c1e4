"""Who sends a request: dependencies that turn headers and cookies into a principal or an attested member."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from casemate.broker.errors import HostUnknownError, NotAttestedError, ProofMissingError
from casemate.broker.identity import Principal
from casemate.broker.service import Broker
from casemate.broker.sessions import Member

__all__ = [
    "COOKIE",
    "CurrentAsker",
    "CurrentBroker",
    "CurrentMember",
    "CurrentPrincipal",
    "broker_of",
    "resource_member",
]

COOKIE = "kbs-session-id"


async def _current(request: Request) -> Broker:  # no thread of its own for this
    return broker_of(request)


def broker_of(request: Request) -> Broker:
    broker: Broker = request.app.state.broker
    return broker


def _url(request: Request, broker: Broker) -> str:
    """The URL a proof has to name. The host has to be ours, or a proof made for another broker could be replayed."""
    host = request.headers.get("host", "").lower()
    if host not in broker.context.config.hosts:
        raise HostUnknownError(f"host {host[:128]!r}: this broker answers for {', '.join(broker.context.config.hosts)}")
    path = request.scope.get("raw_path") or request.url.path.encode()
    return f"https://{host}{path.decode('ascii', 'replace')}"


def _proof(request: Request) -> str:
    proofs = request.headers.getlist("dpop")
    if len(proofs) != 1:
        raise ProofMissingError(f"need one DPoP header, got {len(proofs)}")
    return proofs[0]


def _credentials(request: Request, scheme: str) -> str | None:
    kind, _, value = request.headers.get("authorization", "").partition(" ")
    return value.strip() if kind.lower() == scheme and value.strip() else None


def _principal(request: Request) -> Principal:
    broker = broker_of(request)
    url = _url(request, broker)
    return broker.principal(_proof(request), method=request.method, url=url)


def _member(request: Request) -> Member:
    broker = broker_of(request)
    url, token = _url(request, broker), _credentials(request, "dpop")
    if token is None:
        raise NotAttestedError("need an attestation token: Authorization: DPoP <token>")
    return broker.member(token, _proof(request), method=request.method, url=url)


def _asker(request: Request) -> Member | Principal:
    return _principal(request) if _credentials(request, "dpop") is None else _member(request)


def resource_member(request: Request) -> Member:
    """As the KBS protocol has it: the token as a bearer, or the session's cookie. Answers are sealed to its key."""
    broker = broker_of(request)
    token = _credentials(request, "bearer")
    cookie = request.cookies.get(COOKIE)
    if token is None and cookie is None:  # not worth an entry in the log: nobody claimed anything
        raise NotAttestedError("need a session cookie or a bearer token")
    with broker.audit.recording("authenticate", method=request.method, url=request.url.path):
        return broker.sessions.by_cookie(cookie or "") if token is None else broker.sessions.by_token(token)


CurrentBroker = Annotated[Broker, Depends(_current)]
CurrentPrincipal = Annotated[Principal, Depends(_principal)]
CurrentMember = Annotated[Member, Depends(_member)]
CurrentAsker = Annotated[Member | Principal, Depends(_asker)]
