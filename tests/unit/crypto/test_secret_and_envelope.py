from __future__ import annotations

import copy
import pickle

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from casemate.crypto.envelope import WRAPPED_OVERHEAD, unwrap, wrap
from casemate.crypto.errors import InvalidKeyError, SignatureInvalidError, UnwrapError
from casemate.crypto.mac import compute_mac, verify_mac
from casemate.crypto.secret import Secret

RAW = bytes(range(32))


@pytest.mark.parametrize("text", [str, repr, lambda s: f"{s}", lambda s: f"{s!r:>40}".strip(), "{}".format])
def test_a_secret_never_prints_its_bytes(text: object) -> None:
    assert text(Secret(RAW)) == "<32 bytes>"  # type: ignore[operator]


def test_a_secret_cannot_leave_by_pickle_copy_or_attributes() -> None:
    secret = Secret(RAW)
    for leave in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            leave(secret)  # type: ignore[operator]
    assert not hasattr(secret, "__dict__")
    with pytest.raises(TypeError):
        bytes(secret)  # type: ignore[call-overload]


def test_secrets_compare_by_content_and_do_not_hash() -> None:
    assert Secret(RAW) == Secret(RAW)
    assert Secret(RAW) != Secret(RAW[::-1])
    assert Secret(RAW) != RAW
    with pytest.raises(TypeError):
        hash(Secret(RAW))


def test_a_secret_does_not_share_memory_with_what_it_was_made_from() -> None:
    raw = bytearray(RAW)
    secret = Secret(raw)  # type: ignore[arg-type]
    raw[0] = 255
    assert secret.reveal() == RAW


def test_random_secrets_differ_and_have_the_size_asked_for() -> None:
    assert Secret.random() != Secret.random()
    assert (len(Secret.random()), len(Secret.random(16))) == (32, 16)
    with pytest.raises(InvalidKeyError, match="16 bytes, need 32"):
        Secret.random(16).require_size(32)


def test_a_wrapped_key_unwraps_with_its_key_and_context() -> None:
    kek, dek = Secret.random(), Secret.random()
    wrapped = wrap(kek, dek, context=b"for this")
    assert len(wrapped) == 32 + WRAPPED_OVERHEAD
    assert unwrap(kek, wrapped, context=b"for this") == dek
    assert AESGCM(kek.reveal()).decrypt(wrapped[:12], wrapped[12:], b"for this") == dek.reveal()
    assert wrap(kek, dek, context=b"for this") != wrapped


def test_a_wrapped_key_does_not_unwrap_for_another_context_or_key() -> None:
    kek, dek = Secret.random(), Secret.random()
    wrapped = wrap(kek, dek, context=b"for this")
    with pytest.raises(UnwrapError):
        unwrap(kek, wrapped, context=b"for that")
    with pytest.raises(UnwrapError):
        unwrap(Secret.random(), wrapped, context=b"for this")


def test_no_changed_byte_of_a_wrapped_key_unwraps() -> None:
    kek = Secret.random()
    wrapped = wrap(kek, Secret.random(), context=b"c")
    for i in range(len(wrapped)):
        with pytest.raises(UnwrapError):
            unwrap(kek, wrapped[:i] + bytes([wrapped[i] ^ 1]) + wrapped[i + 1 :], context=b"c")
    for size in range(len(wrapped)):
        with pytest.raises(UnwrapError):
            unwrap(kek, wrapped[:size], context=b"c")
    with pytest.raises(UnwrapError):
        unwrap(kek, wrapped + b"\0", context=b"c")


@pytest.mark.parametrize("size", [0, 16, 24, 31, 33])
def test_only_256_bit_keys_wrap(size: int) -> None:
    with pytest.raises(InvalidKeyError):
        wrap(Secret(bytes(size)), Secret.random(), context=b"")
    with pytest.raises(InvalidKeyError):
        unwrap(Secret(bytes(size)), bytes(60), context=b"")


def test_a_mac_holds_for_its_message_key_and_purpose_alone() -> None:
    key = Secret.random()
    mac = compute_mac(key, b"message", purpose="one")
    verify_mac(key, b"message", mac, purpose="one")
    for other_key, message, purpose, other_mac in (
        (Secret.random(), b"message", "one", mac),
        (key, b"massage", "one", mac),
        (key, b"message", "two", mac),
        (key, b"message", "one", mac[:-1]),
        (key, b"message", "one", b""),
    ):
        with pytest.raises(SignatureInvalidError):
            verify_mac(other_key, message, other_mac, purpose=purpose)
