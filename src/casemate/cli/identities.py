"""Owners' and the administrator's private keys on this machine: one PKCS#8 file each, mode 0600."""

from __future__ import annotations

import os
import re
from pathlib import Path

from casemate.cli.errors import IdentityMissingError
from casemate.crypto.jose import KeyPair
from casemate.errors import UsageError
from casemate.settings import Settings

__all__ = ["ADMIN", "admin", "create", "exists", "load", "local_owners", "path", "remove"]

ADMIN = "admin"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


def path(settings: Settings, name: str) -> Path:
    """Where the private key of ``name`` lies."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"identity name {name!r}: need lower-case letters, digits, '.', '_', '-'")
    return settings.identities_dir / f"{name}.pem"


def exists(settings: Settings, name: str) -> bool:
    return path(settings, name).is_file()


def load(settings: Settings, name: str) -> KeyPair:
    """The key pair of ``name``; raises ``IdentityMissingError`` when this machine does not have it."""
    file = path(settings, name)
    try:
        return KeyPair.from_pem(file.read_bytes())
    except FileNotFoundError:
        raise IdentityMissingError(f"the identity {name!r} is not on this machine ({file})") from None


def create(settings: Settings, name: str) -> KeyPair:
    """A fresh key pair under ``name``, safe on disk when this returns. An existing file is never replaced."""
    settings.prepare()
    file = path(settings, name)
    key = KeyPair.generate()
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(key.to_pem())
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException:
        file.unlink(missing_ok=True)
        raise
    return key


def remove(settings: Settings, name: str) -> None:
    """Forget an identity that was made just now and is of no use."""
    path(settings, name).unlink(missing_ok=True)


def admin(settings: Settings) -> KeyPair:
    """The administrator of the embedded broker; made on first use."""
    return load(settings, ADMIN) if exists(settings, ADMIN) else create(settings, ADMIN)


def local_owners(settings: Settings) -> list[str]:
    """Names of the owners whose keys this machine has."""
    if not settings.identities_dir.is_dir():
        return []
    return sorted(file.stem for file in settings.identities_dir.glob("*.pem") if file.stem != ADMIN)
