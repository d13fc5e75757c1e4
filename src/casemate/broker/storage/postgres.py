"""PostgreSQL as the broker's database (needs the extra ``postgres``), also for several brokers that share one.

Writing transactions follow one another, over all brokers: each takes an advisory lock before anything else, which ends
with it, however it ends. It then reads at READ COMMITTED, so all that was committed before it. Reading transactions see
one moment (REPEATABLE READ, READ ONLY) and wait for nobody.
"""

from __future__ import annotations

import importlib.util
import ipaddress
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from casemate.broker.errors import StorageDriverError

__all__ = ["open_postgres", "require_no_password"]

_LOCK = 0x43534D54  # "CSMT": the advisory lock of writers, one per database
_SETTINGS = {
    "lock_timeout": "10s",  # as long as SQLite's
    "statement_timeout": "30s",
    "idle_in_transaction_session_timeout": "30s",  # a broker that froze does not keep the others from writing
    "client_encoding": "UTF8",
}


def open_postgres(url: URL) -> Engine:
    """An engine for ``postgresql://…`` by psycopg 3.

    Over a network the server's certificate has to be verified: ``sslmode`` is ``verify-full`` unless the server is on
    this machine. Raises ``StorageDriverError`` for another mode, another driver, or when psycopg is not installed."""
    if url.drivername not in ("postgresql", "postgresql+psycopg"):
        raise StorageDriverError(f"database URL: driver {url.drivername}, need sqlite or postgresql")
    if importlib.util.find_spec("psycopg") is None:
        raise StorageDriverError("PostgreSQL: psycopg is not installed; need `pip install 'casemate[postgres]'`")
    if not _is_local(url):
        mode = url.query.get("sslmode", "verify-full")
        if mode != "verify-full":
            raise StorageDriverError(f"database URL: sslmode {mode}, need verify-full for a server elsewhere")
        url = url.update_query_dict({"sslmode": "verify-full"})
    engine = create_engine(
        url.set(drivername="postgresql+psycopg"),
        isolation_level="READ COMMITTED",
        pool_size=16,
        max_overflow=32,
        pool_pre_ping=True,
        connect_args={"connect_timeout": 10, "application_name": "casemate-broker"},
    )

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: Any) -> None:
        with connection.cursor() as cursor:
            for name, value in _SETTINGS.items():
                cursor.execute("SELECT set_config(%s, %s, false)", (name, value))
            # A commit that was answered is on disk, whatever the role's default says.
            setting = "'synchronous_commit'"
            cursor.execute(f"SELECT set_config({setting}, 'on', false) WHERE current_setting({setting}) = 'off'")
        connection.commit()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("casemate_writes", False)
        lock = f"SELECT pg_advisory_xact_lock({_LOCK})"
        begun = lock if writes else "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
        connection.exec_driver_sql(begun)

    return engine


def require_no_password(text: str) -> None:
    """Raise ``StorageDriverError`` for a URL with a password, which every process of the machine could read."""
    try:
        url = make_url(text)
    except ArgumentError:
        return  # opening it tells
    if url.password is not None or "password" in url.query:
        raise StorageDriverError("database URL: has a password, which the process list shows; need PGPASSFILE")


def _is_local(url: URL) -> bool:
    hosts = url.query.get("host", url.host)
    if hosts is None or isinstance(hosts, tuple):
        return hosts is None  # none: the socket of this machine
    address = url.query.get("hostaddr", hosts)
    if hosts.startswith("/") or hosts == "localhost":
        return "hostaddr" not in url.query
    try:
        return ipaddress.ip_address(str(address)).is_loopback
    except ValueError:
        return False
