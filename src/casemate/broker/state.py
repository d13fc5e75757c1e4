"""The broker's state directory: what lies where, and how a broker is opened from it.

root.key.json root.passphrase    the root key, encrypted; its passphrase (only when none was chosen)
ca.pem ca.key.wrapped            the TLS authority; its key wrapped under the root key
token.key.wrapped audit.key.wrapped
broker.db                        SQLite, unless another database URL is configured
policies/default.yaml            the policy behind the status in tokens
trust/                           trust anchors and collateral
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from casemate.attestation.policies import parse_policy
from casemate.attestation.rego_worker import shared_worker
from casemate.broker.auditing import AuditLog
from casemate.broker.context import BrokerConfig, BrokerContext
from casemate.broker.errors import RootKeyMissingError, StateInUseError
from casemate.broker.job_ca import Authority
from casemate.broker.keys import unwrap_key_pair
from casemate.broker.rootkey import FileRootKeyStore, RootKeyStore
from casemate.broker.service import Broker
from casemate.broker.storage.migrate import upgrade
from casemate.broker.storage.sql import SqlRepository, open_engine
from casemate.broker.trust import DirectoryTrust
from casemate.crypto.secret import Secret
from casemate.errors import FailedError, UsageError

__all__ = ["CA_CONTEXT", "StateDirectory", "host_names", "open_broker", "read_passphrase"]

CA_CONTEXT = b"casemate:tls-ca:v1"
_PARTY = re.compile(r"[a-z][a-z0-9+.-]*:[!-~]{1,500}")
_LOCAL_NAMES = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class StateDirectory:
    """The paths of one broker's state."""

    root: Path

    @property
    def root_key(self) -> Path:
        return self.root / "root.key.json"

    @property
    def passphrase(self) -> Path:
        return self.root / "root.passphrase"

    @property
    def ca(self) -> Path:
        return self.root / "ca.pem"

    @property
    def ca_key(self) -> Path:
        return self.root / "ca.key.wrapped"

    @property
    def token_key(self) -> Path:
        return self.root / "token.key.wrapped"

    @property
    def audit_key(self) -> Path:
        return self.root / "audit.key.wrapped"

    @property
    def database(self) -> Path:
        return self.root / "broker.db"

    @property
    def database_url(self) -> str:
        return f"sqlite:///{self.database}"

    @property
    def default_policy(self) -> Path:
        return self.root / "policies" / "default.yaml"

    @property
    def trust(self) -> Path:
        return self.root / "trust"

    def open_root_key(self, passphrase: Secret | None = None) -> FileRootKeyStore:
        """The root key store; raises ``RootKeyLockedError`` or ``RootKeyMissingError``."""
        return FileRootKeyStore.open(self.root_key, passphrase or read_passphrase(self.passphrase))

    def authority(self, root_keys: RootKeyStore) -> Authority:
        """The TLS authority, with its private key."""
        return Authority(self.ca.read_text(), root_keys.unwrap(self.ca_key.read_bytes(), context=CA_CONTEXT))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the directory for one broker; raises ``StateInUseError``. The lock ends with the process."""
        handle = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                raise StateInUseError(f"{self.root}: another broker runs on this state") from exc
            yield
        finally:
            os.close(handle)


def read_passphrase(path: Path) -> Secret:
    """The passphrase in a file, without its line end; raises ``RootKeyMissingError``."""
    try:
        return Secret(path.read_bytes().rstrip(b"\r\n"))
    except OSError as exc:
        raise RootKeyMissingError(f"{path}: cannot read the passphrase: {exc.strerror}") from exc


def _party(name: str) -> str:
    """An issuer or audience of tokens: compared byte by byte, so nothing that two people would write in two ways."""
    if not _PARTY.fullmatch(name) or name.endswith("/"):
        raise UsageError(f"issuer or audience {name[:80]!r}: need a URI such as https://service.example, no slash last")
    return name


def host_names(names: Iterable[str], port: int) -> frozenset[str]:
    """The values of a Host header that mean this broker; a name may bring a port of its own (behind a proxy)."""
    hosts = set()
    for name in (*_LOCAL_NAMES, *names):
        bare = name.lower()
        has_port = bare.startswith("[") or (":" in bare and bare.count(":") == 1)
        shown = f"[{bare}]" if bare.count(":") > 1 and not bare.startswith("[") else bare
        hosts.add(shown if has_port else f"{shown}:{port}")
        if port == 443 and not has_port:
            hosts.add(shown)
    return frozenset(hosts)


def open_broker(
    state: StateDirectory,
    *,
    port: int,
    names: Iterable[str] = (),
    passphrase: Secret | None = None,
    database_url: str | None = None,
    trust: Path | None = None,
    collateral: Sequence[Path] = (),
    issuer: str | None = None,
    audiences: Sequence[str] = (),
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Broker:
    """Open everything, bring the schema up to date, and verify the audit log. Raises a typed error for what is wrong.

    ``trust`` is the directory of anchors (default: in the state), ``collateral`` further directories of collateral.
    ``issuer`` (default: its first name) and ``audiences`` are what its tokens say about themselves.

    ``AuditInconsistentError``: the broker does not start on a log that was tampered with."""
    names = list(names)
    try:
        root_keys = state.open_root_key(passphrase)
        token_key = unwrap_key_pair(root_keys, state.token_key.read_bytes(), "token")
        audit_key = unwrap_key_pair(root_keys, state.audit_key.read_bytes(), "audit")
        policy = parse_policy(state.default_policy.read_text(encoding="utf-8"), shared_worker())
        certificate = x509.load_pem_x509_certificate(state.ca.read_bytes())
    except OSError as exc:
        raise FailedError(f"{exc.filename}: {exc.strerror}; was the broker set up here?") from exc
    engine = open_engine(database_url or state.database_url)
    upgrade(engine)
    repository = SqlRepository(engine)
    audit = AuditLog(repository, audit_key, clock)
    audit.check()
    first = names[0] if names else "127.0.0.1"
    own = f"https://{first}" if ":" in first else f"https://{first}:{port}"
    config = BrokerConfig(
        issuer=own if issuer is None else _party(issuer),
        hosts=host_names(names, port),
        broker_id=hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest(),
        audiences=tuple(dict.fromkeys(map(_party, audiences))),
    )
    anchors = DirectoryTrust(trust or state.trust, collateral)
    return Broker(BrokerContext(config, repository, root_keys, token_key, audit, anchors, policy, clock))
