from __future__ import annotations

import base64
import json
from typing import Any, cast

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import given, settings
from hypothesis import strategies as st
from jwcrypto import jwe, jwk, jws

from casemate.crypto.canonical import canonical_json, sha256_hex, sha384_hex
from casemate.crypto.errors import InvalidKeyError, SignatureInvalidError, UnsealError
from casemate.crypto.jose import KeyPair, open_jws, peek_jws_header, public_jwk, seal, thumbprint
from casemate.crypto.jwk import b64decode, b64encode
from casemate.crypto.secret import Secret
from casemate.errors import UsageError

SECRET = Secret(b"a dataset key of thirty-two byte")


@pytest.fixture(scope="module")
def pair() -> KeyPair:
    return KeyPair.generate()


def plain_jwk(pair: KeyPair) -> jwk.JWK:
    return jwk.JWK.from_pem(pair.to_pem())


# Sealing


def test_what_is_sealed_opens_with_its_key_alone(pair: KeyPair) -> None:
    message = seal(pair.public, SECRET)
    assert pair.unseal(message) == SECRET
    with pytest.raises(UnsealError):
        KeyPair.generate().unseal(message)


def test_plain_jwcrypto_opens_what_we_seal(pair: KeyPair) -> None:
    token = jwe.JWE()
    token.deserialize(json.dumps(seal(pair.public, SECRET)), key=plain_jwk(pair))
    assert token.payload == SECRET.reveal()


def test_we_open_what_plain_jwcrypto_seals(pair: KeyPair) -> None:
    header = json.dumps({"alg": "ECDH-ES+A256KW", "enc": "A256GCM"})
    token = jwe.JWE(SECRET.reveal(), protected=header)
    token.add_recipient(jwk.JWK(**pair.public))
    assert pair.unseal(json.loads(token.serialize())) == SECRET


@pytest.mark.parametrize(("kind", "options"), [("EC", {"crv": "P-521"}), ("RSA", {"size": 2048})])
def test_other_recipients_of_the_kbs_protocol_open_what_we_seal(kind: str, options: dict[str, Any]) -> None:
    key = jwk.JWK.generate(kty=kind, **options)
    token = jwe.JWE()
    token.deserialize(json.dumps(seal(key.export_public(as_dict=True), SECRET)), key=key)
    assert token.payload == SECRET.reveal()


def test_the_ephemeral_key_is_in_the_protected_header(pair: KeyPair) -> None:
    message = seal(pair.public, SECRET)
    protected = json.loads(base64.urlsafe_b64decode(message["protected"] + "=="))
    assert protected["alg"] == "ECDH-ES+A256KW"
    assert protected["enc"] == "A256GCM"
    assert protected["epk"]["crv"] == "P-256"
    assert "d" not in protected["epk"]
    assert set(message) == {"protected", "encrypted_key", "iv", "ciphertext", "tag"}


def test_two_sealings_share_nothing(pair: KeyPair) -> None:
    first, second = seal(pair.public, SECRET), seal(pair.public, SECRET)
    assert all(first[name] != second[name] for name in first)


@pytest.mark.parametrize("member", ["protected", "encrypted_key", "iv", "ciphertext", "tag"])
def test_a_changed_member_does_not_open(pair: KeyPair, member: str) -> None:
    message = seal(pair.public, SECRET)
    text = message[member]
    middle = len(text) // 2
    changed = text[:middle] + ("A" if text[middle] != "A" else "B") + text[middle + 1 :]
    with pytest.raises(UnsealError):
        pair.unseal({**message, member: changed})
    with pytest.raises(UnsealError):
        pair.unseal({name: value for name, value in message.items() if name != member})


@pytest.mark.parametrize("message", [{}, {"protected": 1}, {"ciphertext": "x"}, {"recipients": []}])
def test_what_is_no_jwe_does_not_open(pair: KeyPair, message: dict[str, Any]) -> None:
    with pytest.raises(UnsealError):
        pair.unseal(message)


@pytest.mark.parametrize("alg", ["ECDH-ES", "ECDH-ES+A128KW"])
def test_algorithms_that_are_not_ours_do_not_open(pair: KeyPair, alg: str) -> None:
    token = jwe.JWE(SECRET.reveal(), protected=json.dumps({"alg": alg, "enc": "A256GCM"}))
    token.add_recipient(jwk.JWK(**pair.public))
    with pytest.raises(UnsealError):
        pair.unseal(json.loads(token.serialize()))


def test_a_compressed_message_does_not_open(pair: KeyPair) -> None:
    header = json.dumps({"alg": "ECDH-ES+A256KW", "enc": "A256GCM", "zip": "DEF"})
    token = jwe.JWE(bytes(10**6), protected=header)
    token.add_recipient(jwk.JWK(**pair.public))
    with pytest.raises(UnsealError):
        pair.unseal(json.loads(token.serialize()))


def _keys_that_cannot_be_sealed_to() -> list[dict[str, Any]]:
    pair = KeyPair.generate()
    x = pair.public["x"]
    return [
        {},
        {"kty": "oct", "k": "AAAA"},
        {"kty": "EC", "crv": "P-256", "x": x, "y": x},  # not on the curve
        {"kty": "EC", "crv": "P-256", "x": x},
        {"kty": "EC", "crv": "P-256", "x": 1, "y": None},
        {"kty": "EC", "crv": "P-999", "x": x, "y": x},
        jwk.JWK.generate(kty="EC", crv="P-256").export(as_dict=True),  # a private key
        jwk.JWK.generate(kty="OKP", crv="Ed25519").export_public(as_dict=True),
        jwk.JWK.generate(kty="EC", crv="P-384").export_public(as_dict=True),
        jwk.JWK.generate(kty="RSA", size=1024).export_public(as_dict=True),
        {"unknown": "member"},
    ]


@pytest.mark.parametrize("key", _keys_that_cannot_be_sealed_to(), ids=lambda key: f"{key.get('kty')}-{len(key)}")
def test_what_is_no_usable_public_key_is_refused(key: dict[str, Any]) -> None:
    with pytest.raises(InvalidKeyError):
        seal(key, SECRET)


# Keys


def test_a_key_pair_survives_its_pem(pair: KeyPair) -> None:
    again = KeyPair.from_pem(pair.to_pem(b"passphrase"), b"passphrase")
    assert again.public == pair.public
    assert b"ENCRYPTED" in pair.to_pem(b"passphrase")
    for wrong in (None, b"wrong"):
        with pytest.raises(InvalidKeyError):
            KeyPair.from_pem(pair.to_pem(b"passphrase"), wrong)


@pytest.mark.parametrize("crv", ["P-384", "P-521"])
def test_a_private_key_on_another_curve_is_refused(crv: str) -> None:
    pem = jwk.JWK.generate(kty="EC", crv=crv).export_to_pem(private_key=True, password=None)
    with pytest.raises(InvalidKeyError):
        KeyPair.from_pem(pem)


def test_a_public_pem_or_garbage_is_no_key_pair(pair: KeyPair) -> None:
    for pem in (jwk.JWK(**pair.public).export_to_pem(), b"", b"-----BEGIN PRIVATE KEY-----\n"):
        with pytest.raises(InvalidKeyError):
            KeyPair.from_pem(pem)


def test_the_public_key_holds_nothing_private(pair: KeyPair) -> None:
    assert set(pair.public) == {"kty", "crv", "x", "y"}
    assert public_jwk({**pair.public, "kid": "x", "use": "sig"}) == pair.public
    assert thumbprint(pair.public) == pair.thumbprint == plain_jwk(pair).thumbprint()
    assert pair.public["x"] not in repr(pair)


# Signatures


def test_plain_jwcrypto_verifies_what_we_sign(pair: KeyPair) -> None:
    token = jws.JWS()
    token.deserialize(pair.sign({"b": 1, "a": 2}, typ="test+jws"))
    token.verify(jwk.JWK(**pair.public), alg="ES256")
    assert token.payload == b'{"a":2,"b":1}'


def test_a_signed_document_opens_with_its_key_and_type_alone(pair: KeyPair) -> None:
    token = pair.sign({"a": [1, "ä"]}, typ="one+jws")
    assert open_jws(token, pair.public, typ="one+jws") == {"a": [1, "ä"]}
    assert peek_jws_header(token)["kid"] == pair.thumbprint
    with pytest.raises(SignatureInvalidError, match="of type"):
        open_jws(token, pair.public, typ="two+jws")
    with pytest.raises(SignatureInvalidError):
        open_jws(token, KeyPair.generate().public, typ="one+jws")


def test_no_changed_character_of_a_signed_document_verifies(pair: KeyPair) -> None:
    token = pair.sign({"a": 1}, typ="t")
    for i in range(len(token)):
        changed = token[:i] + ("A" if token[i] != "A" else "C") + token[i + 1 :]
        with pytest.raises(SignatureInvalidError):
            open_jws(changed, pair.public, typ="t")


def _b64(value: object) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def test_alg_none_and_hmac_with_the_public_key_are_refused(pair: KeyPair) -> None:
    payload = _b64({"a": 1})
    none = f"{_b64({'alg': 'none', 'typ': 't'})}.{payload}."
    hmac = jws.JWS(b'{"a":1}')
    symmetric = jwk.JWK(kty="oct", k=_b64(jwk.JWK(**pair.public).export_to_pem()))
    hmac.add_signature(symmetric, None, json.dumps({"alg": "HS256", "typ": "t"}))
    for token in (none, hmac.serialize(compact=True), "", "a.b", "a.b.c", "..", payload):
        with pytest.raises(SignatureInvalidError):
            open_jws(token, pair.public, typ="t")


def test_a_json_serialised_jws_is_refused(pair: KeyPair) -> None:
    token = jws.JWS(b"{}")
    token.add_signature(plain_jwk(pair), None, json.dumps({"alg": "ES256", "typ": "t"}))
    with pytest.raises(SignatureInvalidError):
        open_jws(token.serialize(compact=False), pair.public, typ="t")


def test_a_critical_extension_that_nobody_knows_is_refused(pair: KeyPair) -> None:
    private = load_pem_private_key(pair.to_pem(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    for extension in ({"crit": ["exp"], "exp": 1}, {"crit": ["b64"], "b64": True}, {"crit": []}, {"b64": False}):
        signed = f"{_b64({'alg': 'ES256', 'typ': 't', **extension})}.{_b64({'a': 1})}"
        r, s = decode_dss_signature(private.sign(signed.encode(), ec.ECDSA(SHA256())))
        token = f"{signed}.{_b64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"
        with pytest.raises(SignatureInvalidError):
            open_jws(token, pair.public, typ="t")


def test_a_payload_that_is_not_json_is_refused(pair: KeyPair) -> None:
    token = jws.JWS(b"not json")
    token.add_signature(plain_jwk(pair), None, json.dumps({"alg": "ES256", "typ": "t"}))
    with pytest.raises(SignatureInvalidError):
        open_jws(token.serialize(compact=True), pair.public, typ="t")


# Canonical JSON


def test_canonical_json_does_not_depend_on_order_or_spelling() -> None:
    assert canonical_json({"b": 1.0, "a": "\u20ac"}) == '{"a":"€","b":1}'.encode()
    assert sha384_hex({"b": 1, "a": 2}) == sha384_hex({"a": 2, "b": 1})
    assert len(sha384_hex({})) == 96
    assert sha256_hex(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), 2**53 + 1, {"a": object()}, {1: 2}, "\ud800", {"\ud800": 1}]
)
def test_what_rfc_8785_cannot_hold_is_a_usage_error(value: object) -> None:
    with pytest.raises(UsageError):
        canonical_json(value)


def test_nesting_without_end_is_a_usage_error() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(UsageError):
        canonical_json(value)


_PLAIN = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text()


@settings(max_examples=300, deadline=None)
@given(
    st.recursive(
        _PLAIN | st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_both_encoders_write_the_same(value: object) -> None:
    assert canonical_json(value) == rfc8785.dumps(cast(Any, value))


def test_one_key_has_one_spelling(pair: KeyPair) -> None:
    x = pair.public["x"]
    for other in (f"{x}=", f"{x}\n", f"A{x}", x[:-1], x.replace("-", "+") + " ", [x]):
        with pytest.raises(InvalidKeyError):
            thumbprint({**pair.public, "x": other})
    padded = b64encode(bytes(1) + b64decode(x))  # the same number
    with pytest.raises(InvalidKeyError):
        thumbprint({**pair.public, "x": padded})


@pytest.mark.parametrize(
    ("kind", "options"),
    [("EC", {"crv": "P-384"}), ("EC", {"crv": "P-521"}), ("OKP", {"crv": "Ed25519"}), ("RSA", {"size": 2048})],
)
def test_thumbprints_are_those_of_plain_jwcrypto(kind: str, options: dict[str, Any]) -> None:
    key = jwk.JWK.generate(kty=kind, **options)
    assert thumbprint(key.export_public(as_dict=True)) == key.thumbprint()


def test_a_signature_has_one_spelling(pair: KeyPair) -> None:
    token = pair.sign({"a": 1}, typ="t")
    last = token[-1]  # its two lowest bits belong to no byte
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    with pytest.raises(SignatureInvalidError):
        open_jws(token[:-1] + alphabet[alphabet.index(last) ^ 1], pair.public, typ="t")
