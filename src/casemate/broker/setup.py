"""Set a broker up: root key, authority, signing keys, database, default policy. Doing it again changes nothing."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path

from casemate.broker import audit
from casemate.broker.auditing import AuditLog
from casemate.broker.errors import RootKeyMissingError
from casemate.broker.job_ca import create_authority
from casemate.broker.keys import unwrap_key_pair, wrap_key_pair
from casemate.broker.rootkey import FileRootKeyStore
from casemate.broker.state import CA_CONTEXT, StateDirectory, read_passphrase
from casemate.broker.storage.migrate import upgrade
from casemate.broker.storage.sql import SqlRepository, open_engine
from casemate.crypto.jose import Jwk, KeyPair, public_jwk, thumbprint
from casemate.crypto.secret import Secret
from casemate.files import ensure_private_directory, write_whole

__all__ = ["initialise"]

_CA_LIFETIME = timedelta(days=3650)
_DEFAULT_POLICY = """\
# The policy behind the status in attestation tokens, and behind membership of a job. It opens no data: for that, each
# data owner's grant names a policy of its own. Simulated evidence is only ever verified on a broker that was given the
# simulator's trust anchor.
version: 1
name: broker-default
allow_simulated: true
tcb:
  statuses: [UpToDate]
"""


def initialise(
    state: Path | StateDirectory,
    admin_jwk: Jwk | None = None,
    *,
    passphrase: Secret | None = None,
    database_url: str | None = None,
    now: datetime | None = None,
) -> StateDirectory:
    """Create what is missing in ``state``; register ``admin_jwk`` as an administrator if it is not one yet.

    Without ``passphrase`` one is generated into ``root.passphrase`` (0600). Every step is one atomic file or one
    transaction, in an order that a crash at any moment lets a second call finish. Raises ``RootKeyMissingError`` when
    data is there whose root key is not: a new one would only hide the loss."""
    where = state if isinstance(state, StateDirectory) else StateDirectory(state)
    now = now or datetime.now(UTC)
    ensure_private_directory(where.root)
    root_keys = _root_key(where, passphrase)
    if not where.ca_key.exists() or not where.ca.exists():
        authority = create_authority("Casemate broker CA", "broker", now=now, lifetime=_CA_LIFETIME)
        write_whole(where.ca, authority.certificate_pem.encode(), mode=0o644)
        write_whole(where.ca_key, root_keys.wrap(authority.private_key, context=CA_CONTEXT))
    for path, purpose in ((where.token_key, "token"), (where.audit_key, "audit")):
        if not path.exists():
            write_whole(path, wrap_key_pair(root_keys, KeyPair.generate(), purpose))
    ensure_private_directory(where.default_policy.parent)
    if not where.default_policy.exists():
        write_whole(where.default_policy, _DEFAULT_POLICY.encode())
    ensure_private_directory(where.trust)
    _database(where, root_keys, admin_jwk, database_url, now)
    return where


def _root_key(where: StateDirectory, passphrase: Secret | None) -> FileRootKeyStore:
    if where.root_key.exists():
        return where.open_root_key(passphrase)
    orphans = [path.name for path in (where.database, where.ca_key, where.token_key) if path.exists()]
    if orphans:
        raise RootKeyMissingError(f"{where.root}: has {', '.join(orphans)} but no {where.root_key.name}")
    if passphrase is None:
        if not where.passphrase.exists():
            write_whole(where.passphrase, secrets.token_urlsafe(32).encode() + b"\n")
        passphrase = read_passphrase(where.passphrase)
    return FileRootKeyStore.create(where.root_key, passphrase)


def _database(
    where: StateDirectory, root_keys: FileRootKeyStore, admin_jwk: Jwk | None, url: str | None, now: datetime
) -> None:
    if url is None and not where.database.exists():
        where.database.touch(mode=0o600)
    repository = SqlRepository(open_engine(url or where.database_url))
    try:
        upgrade(repository.engine)
        log = AuditLog(repository, unwrap_key_pair(root_keys, where.audit_key.read_bytes(), "audit"), lambda: now)
        with repository.writing() as writer:
            if writer.audit_size() == 0:
                log.append(writer, audit.Entry("broker.setup", "accepted"), now)
            if admin_jwk is not None:
                key = public_jwk(admin_jwk)
                if writer.add_admin(thumbprint(key), key, now):
                    log.append(
                        writer, audit.Entry("admin.create", "accepted", subject={"thumbprint": thumbprint(key)}), now
                    )
    finally:
        repository.close()
