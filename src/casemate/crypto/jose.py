"""JOSE on P-256: key pairs, sealing to a public key (JWE), signatures (JWS). A typed wall around ``jwcrypto``.

Sealing to an EC key is done here, since the confidential-containers KBS protocol wants ``epk`` in the protected
header of a flattened JWE, where ``jwcrypto`` puts it into the unprotected one.
"""

from __future__ import annotations

import base64
import json
import os
import re
from functools import cached_property
from typing import Any, cast

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.keywrap import aes_key_wrap
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwcrypto import jwe, jwk, jws
from jwcrypto.common import JWException

from casemate.crypto.canonical import canonical_json
from casemate.crypto.errors import InvalidKeyError, SignatureInvalidError, UnsealError
from casemate.crypto.secret import Secret

__all__ = ["Jwk", "KeyPair", "open_jws", "peek_jws_header", "public_jwk", "seal", "thumbprint"]

Jwk = dict[str, Any]
"""A public JSON Web Key (RFC 7517) as a plain dict."""

MIN_RSA_BITS = 2048  # NIST SP 800-131A

_SEAL_CURVES: dict[str, type[ec.EllipticCurve]] = {"P-256": ec.SECP256R1, "P-521": ec.SECP521R1}


_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*")


def _public_key(public: Jwk) -> jwk.JWK:
    try:
        key = jwk.JWK(**public)
        if key.has_private or not key.has_public:
            raise InvalidKeyError("JWK: need a public key, got a private or symmetric one")
        usable = load_pem_public_key(key.export_to_pem())  # jwcrypto alone takes a point that is not on its curve
    except (JWException, TypeError, ValueError, KeyError, UnsupportedAlgorithm) as exc:
        raise InvalidKeyError("JWK: not a public key that can be used") from exc
    if isinstance(usable, rsa.RSAPublicKey) and usable.key_size < MIN_RSA_BITS:
        raise InvalidKeyError(f"JWK: RSA key of {usable.key_size} bits, need at least {MIN_RSA_BITS}")
    return key


def public_jwk(public: Jwk) -> Jwk:
    """The required members alone (RFC 7638 3.2); raises ``InvalidKeyError`` for anything but a usable public key."""
    exported = cast(Jwk, _public_key(public).export_public(as_dict=True))
    return {name: exported[name] for name in ("crv", "e", "kty", "n", "x", "y") if name in exported}


def thumbprint(public: Jwk) -> str:
    """RFC 7638 SHA-256 thumbprint, base64url without padding."""
    return cast(str, _public_key(public).thumbprint())


class KeyPair:
    """An EC P-256 key pair: receives sealed messages (ECDH-ES) and signs (ES256)."""

    def __init__(self, key: jwk.JWK) -> None:
        self._key = key

    @classmethod
    def generate(cls) -> KeyPair:
        return cls(jwk.JWK.generate(kty="EC", crv="P-256"))

    @classmethod
    def from_pem(cls, pem: bytes, passphrase: bytes | None = None) -> KeyPair:
        """Read a PKCS#8 PEM private key; raises ``InvalidKeyError`` for another type or a wrong passphrase."""
        try:
            key = jwk.JWK.from_pem(pem, password=passphrase)
        except (JWException, ValueError, TypeError) as exc:
            raise InvalidKeyError(
                "private key: need a PKCS#8 PEM P-256 key (and its passphrase if it has one)"
            ) from exc
        if not key.has_private or key.get("crv") != "P-256":
            raise InvalidKeyError(f"private key: need P-256, got {key.get('crv') or key.get('kty')}")
        return cls(key)

    def to_pem(self, passphrase: bytes | None = None) -> bytes:
        """PKCS#8 PEM, encrypted when a passphrase is given. The private key: write it 0600, or to TEE memory only."""
        return cast(bytes, self._key.export_to_pem(private_key=True, password=passphrase))

    @cached_property
    def _public(self) -> Jwk:
        return public_jwk(self._key.export_public(as_dict=True))

    @property
    def public(self) -> Jwk:
        return dict(self._public)

    @cached_property
    def thumbprint(self) -> str:
        return cast(str, self._key.thumbprint())

    def unseal(self, message: dict[str, Any]) -> Secret:
        """Open a flattened JWE sealed to this key; raises ``UnsealError``."""
        try:
            token = jwe.JWE()
            token.allowed_algs = ["ECDH-ES+A256KW", "A256GCM"]
            token.deserialize(json.dumps(message))
            if "zip" in token.jose_header:  # nothing of ours is compressed, and a small message could fill the memory
                raise UnsealError("sealed message is compressed")
            token.decrypt(self._key)
            return Secret(token.payload)
        except (JWException, ValueError, TypeError, KeyError) as exc:
            raise UnsealError("sealed message does not open with this key") from exc

    def sign(self, payload: Any, *, typ: str, header: dict[str, Any] | None = None) -> str:
        """Compact JWS (RFC 7515, ES256) over the canonical JSON of ``payload``; ``typ`` keeps kinds apart."""
        token = jws.JWS(canonical_json(payload))
        protected = {"alg": "ES256", "typ": typ, "kid": self.thumbprint, **(header or {})}
        token.add_signature(self._key, None, canonical_json(protected).decode())
        return cast(str, token.serialize(compact=True))


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _ecdh_key(recipient: ec.EllipticCurvePublicKey, curve: ec.EllipticCurve) -> tuple[Jwk, bytes]:
    """An ephemeral public key and the ECDH-ES+A256KW key it agrees on with ``recipient`` (RFC 7518 section 4.6)."""
    ephemeral = ec.generate_private_key(curve)
    shared = ephemeral.exchange(ec.ECDH(), recipient)
    alg = b"ECDH-ES+A256KW"
    info = len(alg).to_bytes(4, "big") + alg + bytes(4) + bytes(4) + (256).to_bytes(4, "big")
    epk = jwk.JWK.from_pyca(ephemeral.public_key()).export_public(as_dict=True)
    return public_jwk(epk), ConcatKDFHash(SHA256(), 32, info).derive(shared)


def seal(recipient: Jwk, plaintext: Secret) -> dict[str, Any]:
    """Encrypt to a public key: flattened JWE (RFC 7516), A256GCM content, as the confidential-containers KBS answers.

    EC P-256 and P-521 keys get ECDH-ES+A256KW, RSA keys RSA-OAEP-256; others raise ``InvalidKeyError``."""
    key = _public_key(recipient)
    if key.get("kty") == "RSA":
        token = jwe.JWE(plaintext.reveal(), protected=json.dumps({"alg": "RSA-OAEP-256", "enc": "A256GCM"}))
        token.add_recipient(key)
        return cast(dict[str, Any], json.loads(token.serialize()))
    curve = _SEAL_CURVES.get(str(key.get("crv")))
    if curve is None:
        raise InvalidKeyError(f"cannot seal to a {key.get('kty')} {key.get('crv') or ''} key")
    point = cast(ec.EllipticCurvePublicKey, load_pem_public_key(key.export_to_pem()))
    epk, wrapping_key = _ecdh_key(point, curve())
    content_key, iv = os.urandom(32), os.urandom(12)
    protected = _b64(canonical_json({"alg": "ECDH-ES+A256KW", "enc": "A256GCM", "epk": epk}))
    sealed = AESGCM(content_key).encrypt(iv, plaintext.reveal(), protected.encode())
    return {
        "protected": protected,
        "encrypted_key": _b64(aes_key_wrap(wrapping_key, content_key)),
        "iv": _b64(iv),
        "ciphertext": _b64(sealed[:-16]),
        "tag": _b64(sealed[-16:]),
    }


def peek_jws_header(token: str) -> dict[str, Any]:
    """The unverified protected header of a compact JWS, to find the key to verify with."""
    try:
        if not _COMPACT.fullmatch(token):
            raise ValueError("not three parts of base64url")
        parsed = jws.JWS()
        parsed.deserialize(token)
        header = cast(dict[str, Any], parsed.jose_header)
    except (JWException, ValueError, TypeError, AttributeError, RecursionError) as exc:
        raise SignatureInvalidError("not a compact JWS") from exc
    if "crit" in header or "b64" in header:
        raise SignatureInvalidError("JWS: a critical extension (RFC 7515 4.1.11) that is not understood here")
    return header


def open_jws(token: str, public: Jwk, *, typ: str) -> Any:
    """The verified JSON payload of a compact ES256 JWS; else ``SignatureInvalidError``."""
    header = peek_jws_header(token)
    if header.get("typ") != typ or header.get("alg") != "ES256":
        raise SignatureInvalidError(
            f"JWS: need ES256 of type {typ}, got {header.get('alg')} of type {header.get('typ')}"
        )
    parsed = jws.JWS()
    try:
        parsed.deserialize(token)
        parsed.verify(_public_key(public), alg="ES256")
        return json.loads(parsed.payload)
    except (JWException, ValueError, TypeError, RecursionError) as exc:
        raise SignatureInvalidError("JWS does not verify under the expected key") from exc
