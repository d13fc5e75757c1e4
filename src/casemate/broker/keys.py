"""How the broker wraps what it keeps: one context per purpose, so that no blob opens as another. No I/O.

A dataset key's context names the thumbprint of its owner's key: whoever replaces the owner's key in the database, to
sign grants of their own, finds that the dataset key no longer opens.
"""

from __future__ import annotations

import base64

from casemate.broker.rootkey import RootKeyStore
from casemate.crypto.canonical import canonical_json
from casemate.crypto.jose import KeyPair
from casemate.crypto.secret import KEY_SIZE, Secret

__all__ = ["dataset_key_jwk", "unwrap_dataset_key", "unwrap_key_pair", "wrap_dataset_key", "wrap_key_pair"]


def _dataset_context(dataset: str, version: int, owner_thumbprint: str) -> bytes:
    return f"casemate:kek:v1:{dataset}:{version}:{owner_thumbprint}".encode()


def wrap_dataset_key(store: RootKeyStore, key: Secret, dataset: str, version: int, owner_thumbprint: str) -> bytes:
    return store.wrap(key.require_size(KEY_SIZE), context=_dataset_context(dataset, version, owner_thumbprint))


def unwrap_dataset_key(
    store: RootKeyStore, wrapped: bytes, dataset: str, version: int, owner_thumbprint: str
) -> Secret:
    """The 32 bytes of one version of a dataset key; raises ``UnwrapError``."""
    context = _dataset_context(dataset, version, owner_thumbprint)
    return store.unwrap(wrapped, context=context).require_size(KEY_SIZE)


def wrap_key_pair(store: RootKeyStore, key: KeyPair, purpose: str) -> bytes:
    return store.wrap(Secret(key.to_pem()), context=f"casemate:broker-key:v1:{purpose}".encode())


def unwrap_key_pair(store: RootKeyStore, wrapped: bytes, purpose: str) -> KeyPair:
    """A key pair of the broker's own; raises ``UnwrapError``."""
    return KeyPair.from_pem(store.unwrap(wrapped, context=f"casemate:broker-key:v1:{purpose}".encode()).reveal())


def dataset_key_jwk(key: Secret, dataset: str, version: int) -> Secret:
    """What is sealed to whoever may have the key: an ``oct`` JWK whose ``kid`` is ``owner/dataset/version``."""
    encoded = base64.urlsafe_b64encode(key.reveal()).rstrip(b"=").decode()
    return Secret(canonical_json({"kty": "oct", "k": encoded, "kid": f"{dataset}/{version}", "alg": "A256GCM"}))
