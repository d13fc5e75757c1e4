"""The broker's TLS: version 1.3, a certificate of its own authority made at every start, its key never on disk."""

from __future__ import annotations

import os
import secrets
import ssl
from collections.abc import Iterable
from datetime import datetime, timedelta

from casemate.broker.job_ca import Authority, issue
from casemate.crypto.jose import KeyPair

__all__ = ["LOCAL_NAMES", "server_context"]

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
_LIFETIME = timedelta(days=90)


def server_context(authority: Authority, names: Iterable[str], *, now: datetime) -> ssl.SSLContext:
    """A server context with a fresh key and certificate for ``names`` (DNS names, IP addresses) and this machine."""
    key = KeyPair.generate()
    wanted = [*LOCAL_NAMES, *(name.split(":")[0] if name.count(":") == 1 else name for name in names)]
    certificate = issue(
        authority, key.public, common_name="Casemate broker", unit="broker", names=wanted, now=now, lifetime=_LIFETIME
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    password = secrets.token_urlsafe(32)
    memory = os.memfd_create("casemate-tls", os.MFD_CLOEXEC)  # OpenSSL wants a file; this one is memory
    try:
        chain = certificate.encode() + authority.certificate_pem.encode() + key.to_pem(password.encode())
        os.write(memory, chain)
        context.load_cert_chain(f"/proc/self/fd/{memory}", password=password)
    finally:
        os.close(memory)
    return context
