"""JOSE on P-256: key pairs, sealing to a public key (JWE), signatures (JWS), straight on ``cryptography``.

Few algorithms and one serialisation of each: compact JWS with ES256, flattened JWE as the confidential-containers KBS
protocol has it, with ``epk`` in the protected header.
"""

from __future__ import annotations

import json
import os
import re
from functools import cached_property
from typing import Any, Final, cast

from cryptography.exceptions import InvalidSignature, InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from casemate.crypto.canonical import canonical_json
from casemate.crypto.errors import InvalidKeyError, SignatureInvalidError, UnsealError
from casemate.crypto.jwk import Jwk, b64decode, b64encode, ec_jwk, public_jwk, read_public_key, thumbprint
from casemate.crypto.secret import Secret

__all__ = ["Jwk", "KeyPair", "open_jws", "peek_jws_header", "public_jwk", "seal", "thumbprint"]

_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*")
_ES256: Final = ec.ECDSA(SHA256())
_HALF: Final = 32  # bytes of each number in an ES256 signature
_WRAP: Final = "ECDH-ES+A256KW"
_ENC: Final = "A256GCM"
_TAG_SIZE: Final = 16  # bytes
_SEALED_MEMBERS: Final = frozenset(
    {"protected", "unprotected", "header", "encrypted_key", "iv", "aad", "ciphertext", "tag"}
)


class KeyPair:
    """An EC P-256 key pair: receives sealed messages (ECDH-ES) and signs (ES256)."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key

    @classmethod
    def generate(cls) -> KeyPair:
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def from_pem(cls, pem: bytes, passphrase: bytes | None = None) -> KeyPair:
        """Read a PKCS#8 PEM private key; raises ``InvalidKeyError`` for another type or a wrong passphrase."""
        try:
            key = load_pem_private_key(pem, password=passphrase)
        except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
            raise InvalidKeyError(
                "private key: need a PKCS#8 PEM P-256 key (and its passphrase if it has one)"
            ) from exc
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            got = key.curve.name if isinstance(key, ec.EllipticCurvePrivateKey) else type(key).__name__
            raise InvalidKeyError(f"private key: need P-256, got {got}")
        return cls(key)

    def to_pem(self, passphrase: bytes | None = None) -> bytes:
        """PKCS#8 PEM, encrypted when a passphrase is given. The private key: write it 0600, or to TEE memory only."""
        encryption = NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase)
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)

    @cached_property
    def _public(self) -> Jwk:
        return public_jwk(ec_jwk(self._key.public_key()))

    @property
    def public(self) -> Jwk:
        return dict(self._public)

    @cached_property
    def thumbprint(self) -> str:
        return thumbprint(self._public)

    def unseal(self, message: dict[str, Any]) -> Secret:
        """Open a flattened JWE sealed to this key; raises ``UnsealError``."""
        try:
            return Secret(self._unseal(message))
        except (ValueError, TypeError, KeyError, RecursionError, InvalidKeyError, InvalidTag, InvalidUnwrap) as exc:
            raise UnsealError("sealed message does not open with this key") from exc

    def _unseal(self, message: dict[str, Any]) -> bytes:
        if not message.keys() <= _SEALED_MEMBERS:
            raise ValueError("not a flattened JWE")
        protected = json.loads(b64decode(message["protected"]))
        parts = [protected, message.get("unprotected") or {}, message.get("header") or {}]
        header = {name: value for part in parts for name, value in part.items()}
        if len(header) != sum(map(len, parts)) or "zip" in header or "crit" in header:
            # Nothing of ours is compressed, and a small message could fill the memory.
            raise ValueError("a header member that is given twice, compression, or a critical extension")
        if header["alg"] != _WRAP or header["enc"] != _ENC:
            raise ValueError("another algorithm")
        sender = read_public_key(header["epk"]).key
        if not isinstance(sender, ec.EllipticCurvePublicKey):
            raise ValueError("not an elliptic-curve key")
        shared = self._key.exchange(ec.ECDH(), sender)
        parties = [b64decode(header.get(name, "")) for name in ("apu", "apv")]
        content_key = aes_key_unwrap(_agreed(shared, *parties), b64decode(message["encrypted_key"]))
        iv, tag = b64decode(message["iv"]), b64decode(message["tag"])
        if len(content_key) != 32 or len(iv) != 12 or len(tag) != _TAG_SIZE:
            raise ValueError("a key, IV or tag of another size than A256GCM's")
        associated = message["protected"] + (f".{message['aad']}" if message.get("aad") else "")
        return AESGCM(content_key).decrypt(iv, b64decode(message["ciphertext"]) + tag, associated.encode())

    def sign(self, payload: Any, *, typ: str, header: dict[str, Any] | None = None) -> str:
        """Compact JWS (RFC 7515, ES256) over the canonical JSON of ``payload``; ``typ`` keeps kinds apart."""
        protected = {"alg": "ES256", "typ": typ, "kid": self.thumbprint, **(header or {})}
        signed = f"{b64encode(canonical_json(protected))}.{b64encode(canonical_json(payload))}"
        r, s = decode_dss_signature(self._key.sign(signed.encode(), _ES256))
        return f"{signed}.{b64encode(r.to_bytes(_HALF, 'big') + s.to_bytes(_HALF, 'big'))}"


def _agreed(shared: bytes, apu: bytes = b"", apv: bytes = b"") -> bytes:
    """The key that ECDH-ES+A256KW wraps the content key with (RFC 7518 section 4.6.2)."""
    fields = b"".join(len(field).to_bytes(4, "big") + field for field in (_WRAP.encode(), apu, apv))
    return ConcatKDFHash(SHA256(), 32, fields + (256).to_bytes(4, "big")).derive(shared)


def seal(recipient: Jwk, plaintext: Secret) -> dict[str, Any]:
    """Encrypt to a public key: flattened JWE (RFC 7516), A256GCM content, as the confidential-containers KBS answers.

    EC P-256 and P-521 keys get ECDH-ES+A256KW, RSA keys RSA-OAEP-256; others raise ``InvalidKeyError``."""
    key = read_public_key(recipient).key
    content_key, iv = os.urandom(32), os.urandom(12)
    header: dict[str, Any]
    if isinstance(key, rsa.RSAPublicKey):
        header = {"alg": "RSA-OAEP-256", "enc": _ENC}
        wrapped = key.encrypt(content_key, padding.OAEP(padding.MGF1(SHA256()), SHA256(), None))
    elif isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1 | ec.SECP521R1):
        ephemeral = ec.generate_private_key(key.curve)
        header = {"alg": _WRAP, "enc": _ENC, "epk": ec_jwk(ephemeral.public_key())}
        wrapped = aes_key_wrap(_agreed(ephemeral.exchange(ec.ECDH(), key)), content_key)
    else:
        raise InvalidKeyError(f"cannot seal to a {recipient.get('kty')} {recipient.get('crv') or ''} key")
    protected = b64encode(canonical_json(header))
    sealed = AESGCM(content_key).encrypt(iv, plaintext.reveal(), protected.encode())
    return {
        "protected": protected,
        "encrypted_key": b64encode(wrapped),
        "iv": b64encode(iv),
        "ciphertext": b64encode(sealed[:-_TAG_SIZE]),
        "tag": b64encode(sealed[-_TAG_SIZE:]),
    }


def peek_jws_header(token: str) -> dict[str, Any]:
    """The unverified protected header of a compact JWS, to find the key to verify with."""
    try:
        if not _COMPACT.fullmatch(token):
            raise ValueError("not three parts of base64url")
        header = json.loads(b64decode(token.partition(".")[0]))
        if not isinstance(header, dict):
            raise ValueError("its header is not an object")
    except (ValueError, TypeError, RecursionError) as exc:
        raise SignatureInvalidError("not a compact JWS") from exc
    if "crit" in header or "b64" in header:
        raise SignatureInvalidError("JWS: a critical extension (RFC 7515 4.1.11) that is not understood here")
    return cast(dict[str, Any], header)


def open_jws(token: str, public: Jwk, *, typ: str) -> Any:
    """The verified JSON payload of a compact ES256 JWS; else ``SignatureInvalidError``."""
    header = peek_jws_header(token)
    if header.get("typ") != typ or header.get("alg") != "ES256":
        raise SignatureInvalidError(
            f"JWS: need ES256 of type {typ}, got {header.get('alg')} of type {header.get('typ')}"
        )
    key = read_public_key(public).key
    signed, _, signature = token.rpartition(".")
    try:
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise ValueError("not a P-256 key")
        raw = b64decode(signature)
        if len(raw) != 2 * _HALF:
            raise ValueError("not a signature of ES256")
        r, s = int.from_bytes(raw[:_HALF], "big"), int.from_bytes(raw[_HALF:], "big")
        key.verify(encode_dss_signature(r, s), signed.encode(), _ES256)
        return json.loads(b64decode(signed.partition(".")[2]))
    except (InvalidSignature, ValueError, RecursionError) as exc:
        raise SignatureInvalidError("JWS does not verify under the expected key") from exc
