"""Where the root key lives. A store wraps and unwraps; the root key itself never leaves it.

The file store is the embedded default: the root key lies on disk only encrypted under a passphrase (scrypt, then
AES-256-GCM). Other stores (OpenBao transit, PKCS#11, cloud KMS) fulfil the same protocol.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from pathlib import Path
from typing import Any, Protocol

from casemate.broker.errors import RootKeyLockedError, RootKeyMissingError
from casemate.crypto import envelope
from casemate.crypto.canonical import canonical_json
from casemate.crypto.errors import InvalidKeyError, UnwrapError
from casemate.crypto.passphrase import ScryptParameters, key_from_passphrase
from casemate.crypto.secret import Secret
from casemate.files import write_whole

__all__ = ["FileRootKeyStore", "RootKeyStore"]


class RootKeyStore(Protocol):
    """Wraps keys under the root key. A blob opens only with the context it was wrapped with."""

    def wrap(self, key: Secret, *, context: bytes) -> bytes:
        """``key`` encrypted under the root key for one purpose."""
        ...

    def unwrap(self, wrapped: bytes, *, context: bytes) -> Secret:
        """Undo ``wrap``; raises ``UnwrapError`` when root key, context or any bit differs."""
        ...


class FileRootKeyStore:
    """A root key in a file, encrypted under a passphrase; in memory while the store lives."""

    _CONTEXT = b"casemate:root-key:v1:"

    def __init__(self, root_key: Secret) -> None:
        self._root_key = root_key

    @classmethod
    def create(cls, path: Path, passphrase: Secret) -> FileRootKeyStore:
        """Make a root key and its file (0600); raises ``FileExistsError`` rather than replace one."""
        if path.exists():
            raise FileExistsError(path)
        parameters = ScryptParameters(salt=os.urandom(16))
        head = _header(parameters)
        root_key = Secret.random()
        wrapped = envelope.wrap(
            key_from_passphrase(passphrase, parameters), root_key, context=cls._CONTEXT + canonical_json(head)
        )
        content = {**head, "wrapped": base64.b64encode(wrapped).decode()}
        write_whole(path, json.dumps(content, indent=1).encode() + b"\n")
        return cls(root_key)

    @classmethod
    def open(cls, path: Path, passphrase: Secret) -> FileRootKeyStore:
        """Open an existing file; raises ``RootKeyLockedError`` or ``RootKeyMissingError``."""
        try:
            content: Any = json.loads(path.read_bytes())
            parameters = ScryptParameters(
                salt=base64.b64decode(content["salt"], validate=True),
                n=int(content["n"]),
                r=int(content["r"]),
                p=int(content["p"]),
            )
            wrapped = base64.b64decode(content["wrapped"], validate=True)
            context = cls._CONTEXT + canonical_json(_header(parameters))
            return cls(envelope.unwrap(key_from_passphrase(passphrase, parameters), wrapped, context=context))
        except FileNotFoundError as exc:
            raise RootKeyMissingError(f"{path}: no such file") from exc
        except UnwrapError as exc:
            raise RootKeyLockedError(f"{path}: the passphrase is wrong, or the file was changed") from exc
        except (InvalidKeyError, ValueError, KeyError, TypeError, binascii.Error) as exc:
            raise RootKeyLockedError(f"{path}: not a root key file, or an unusable passphrase") from exc

    def wrap(self, key: Secret, *, context: bytes) -> bytes:
        return envelope.wrap(self._root_key, key, context=context)

    def unwrap(self, wrapped: bytes, *, context: bytes) -> Secret:
        return envelope.unwrap(self._root_key, wrapped, context=context)


def _header(parameters: ScryptParameters) -> dict[str, Any]:
    return {
        "version": 1,
        "kdf": "scrypt",
        "salt": base64.b64encode(parameters.salt).decode(),
        "n": parameters.n,
        "r": parameters.r,
        "p": parameters.p,
    }
