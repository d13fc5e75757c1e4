"""Public JSON Web Keys (RFC 7517, 7518, 8037): read strictly once, remembered by their content.

Only the members that RFC 7638 calls required count, and each has one spelling, so that one key has one thumbprint.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa, x448, x25519
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from casemate.crypto.canonical import canonical_json
from casemate.crypto.errors import InvalidKeyError

__all__ = [
    "Jwk",
    "PublicKey",
    "b64decode",
    "b64encode",
    "ec_jwk",
    "jwk_from_pem",
    "public_jwk",
    "read_public_key",
    "thumbprint",
]

Jwk = dict[str, Any]
"""A public JSON Web Key as a plain dict."""

MIN_RSA_BITS: Final = 2048  # NIST SP 800-131A
MAX_RSA_BITS: Final = 16384  # what OpenSSL still verifies with

_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_REQUIRED: Final = {"EC": ("crv", "kty", "x", "y"), "RSA": ("e", "kty", "n"), "OKP": ("crv", "kty", "x")}
_CURVES: Final[dict[str, ec.EllipticCurve]] = {
    "P-256": ec.SECP256R1(),
    "P-384": ec.SECP384R1(),
    "P-521": ec.SECP521R1(),
    "secp256k1": ec.SECP256K1(),
}
_OCTET_KEYS: Final[dict[str, Any]] = {
    "Ed25519": ed25519.Ed25519PublicKey,
    "Ed448": ed448.Ed448PublicKey,
    "X25519": x25519.X25519PublicKey,
    "X448": x448.X448PublicKey,
}
_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]*\Z")


@dataclass(frozen=True)
class PublicKey:
    """A usable public key: ``key`` for the cryptographic library, its JWK members, its RFC 7638 thumbprint."""

    key: Any
    members: tuple[tuple[str, str], ...]
    thumbprint: str

    @property
    def jwk(self) -> Jwk:
        return dict(self.members)


def b64encode(raw: bytes) -> str:
    """base64url without padding (RFC 7515 section 2)."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def b64decode(text: str) -> bytes:
    """The bytes of base64url text in its one spelling; raises ``ValueError`` for padding, line ends or stray bits."""
    if not isinstance(text, str) or not _BASE64URL.match(text):
        raise ValueError("not base64url")
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if b64encode(raw) != text:
        raise ValueError("not base64url in its one spelling")
    return raw


def read_public_key(public: Jwk) -> PublicKey:
    """The key in a JWK; raises ``InvalidKeyError`` for anything but a public key that can be used."""
    if not isinstance(public, dict) or not _PRIVATE.isdisjoint(public):
        raise InvalidKeyError("JWK: need a public key, got a private or symmetric one, or none")
    kind = public.get("kty")
    names = _REQUIRED.get(kind) if isinstance(kind, str) else None
    if names is None:
        raise InvalidKeyError(f"JWK: key type {str(kind)[:32]!r}, need one of {', '.join(_REQUIRED)}")
    values = tuple(public.get(name) for name in names)
    if not all(isinstance(value, str) and len(value) < 4096 for value in values):
        raise InvalidKeyError(f"JWK: need text in each of {', '.join(names)}")
    return _read(kind, tuple(zip(names, values, strict=True)))


def public_jwk(public: Jwk) -> Jwk:
    """The required members alone (RFC 7638 3.2); raises ``InvalidKeyError`` for anything but a usable public key."""
    return read_public_key(public).jwk


def thumbprint(public: Jwk) -> str:
    """RFC 7638 SHA-256 thumbprint, base64url without padding."""
    return read_public_key(public).thumbprint


def jwk_from_pem(pem: bytes) -> Jwk:
    """The P-256 public key in a PEM file (SubjectPublicKeyInfo); raises ``InvalidKeyError``, also for a private key."""
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise InvalidKeyError("public key: need PEM that begins with BEGIN PUBLIC KEY") from exc
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidKeyError("public key: need P-256")
    return public_jwk(ec_jwk(key))


def ec_jwk(key: ec.EllipticCurvePublicKey) -> Jwk:
    """The JWK of an elliptic-curve public key; coordinates have the full size of the curve (RFC 7518 6.2.1.2)."""
    name = next(name for name, curve in _CURVES.items() if curve.name == key.curve.name)
    numbers, size = key.public_numbers(), (key.curve.key_size + 7) // 8
    return {"kty": "EC", "crv": name, "x": _coordinate(numbers.x, size), "y": _coordinate(numbers.y, size)}


def _coordinate(value: int, size: int) -> str:
    return b64encode(value.to_bytes(size, "big"))


@lru_cache(maxsize=4096)
def _read(kind: str, members: tuple[tuple[str, str], ...]) -> PublicKey:
    given = dict(members)
    try:
        key = _load(kind, given)
    except (ValueError, TypeError, KeyError, UnsupportedAlgorithm) as exc:
        raise InvalidKeyError("JWK: not a public key that can be used") from exc
    digest = hashlib.sha256(canonical_json(given)).digest()
    return PublicKey(key, members, b64encode(digest))


def _load(kind: str, given: dict[str, str]) -> Any:
    if kind == "EC":
        curve = _CURVES[given["crv"]]
        x, y = b64decode(given["x"]), b64decode(given["y"])
        if len(x) != (curve.key_size + 7) // 8 or len(y) != len(x):
            raise ValueError("coordinates of another size than the curve's")
        # Refuses a point that is not on the curve.
        return ec.EllipticCurvePublicNumbers(int.from_bytes(x, "big"), int.from_bytes(y, "big"), curve).public_key()
    if kind == "OKP":
        return _OCTET_KEYS[given["crv"]].from_public_bytes(b64decode(given["x"]))
    n, e = b64decode(given["n"]), b64decode(given["e"])
    if n[:1] == b"\0" or e[:1] == b"\0":
        raise ValueError("a number with leading zeros")
    key = rsa.RSAPublicNumbers(int.from_bytes(e, "big"), int.from_bytes(n, "big")).public_key()
    if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
        raise InvalidKeyError(f"JWK: RSA key of {key.key_size} bits, need {MIN_RSA_BITS} to {MAX_RSA_BITS}")
    return key
