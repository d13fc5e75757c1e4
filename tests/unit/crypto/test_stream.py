"""The segmented AEAD: geometry, nonces, and agreement with Tink, an independent implementation."""

from __future__ import annotations

import io
import os

import pytest
import tink
from tink import secret_key_access, streaming_aead
from tink.proto import aes_gcm_hkdf_streaming_pb2, common_pb2, tink_pb2

from casemate.crypto import stream
from casemate.crypto.errors import DecryptionError, InvalidKeyError
from casemate.crypto.secret import Secret

FIRST = stream.SEGMENT_PLAINTEXT_SIZE - stream.HEADER_SIZE
FULL = stream.SEGMENT_PLAINTEXT_SIZE
BORDERS = [0, FIRST, FIRST + FULL, FIRST + 2 * FULL, FIRST + 5 * FULL]
SIZES = sorted({max(border + delta, 0) for border in BORDERS for delta in (-17, -16, -1, 0, 1, 15, 16, 17)} | {100})


def tink_primitive(key: Secret) -> streaming_aead.StreamingAead:
    proto = aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingKey(
        key_value=key.reveal(),
        params=aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingParams(
            ciphertext_segment_size=stream.SEGMENT_SIZE, derived_key_size=32, hkdf_hash_type=common_pb2.SHA256
        ),
    )
    keyset = tink_pb2.Keyset(
        primary_key_id=1,
        key=[
            tink_pb2.Keyset.Key(
                key_data=tink_pb2.KeyData(
                    type_url="type.googleapis.com/google.crypto.tink.AesGcmHkdfStreamingKey",
                    value=proto.SerializeToString(),
                    key_material_type=tink_pb2.KeyData.SYMMETRIC,
                ),
                status=tink_pb2.ENABLED,
                key_id=1,
                output_prefix_type=tink_pb2.RAW,
            )
        ],
    )
    streaming_aead.register()
    handle = tink.proto_keyset_format.parse(keyset.SerializeToString(), secret_key_access.TOKEN)
    return handle.primitive(streaming_aead.StreamingAead)


def encrypt(key: Secret, data: bytes, associated_data: bytes = b"ad") -> bytes:
    encrypter = stream.StreamEncrypter(key, associated_data)
    out, done = bytearray(encrypter.header), 0
    while not encrypter.finished:
        piece = data[done : done + encrypter.next_size]
        done += len(piece)
        segment = bytearray(len(piece) + stream.TAG_SIZE)
        encrypter.encrypt(piece, segment, last=done == len(data))
        out += segment
    return bytes(out)


def decrypt(key: Secret, body: bytes, associated_data: bytes = b"ad") -> bytes:
    decrypter = stream.StreamDecrypter(key, body[: stream.HEADER_SIZE], associated_data)
    count, out = stream.segment_count(len(body)), bytearray()
    for i in range(count):
        start = i * stream.SEGMENT_SIZE + (0 if i else stream.HEADER_SIZE)
        ciphertext = body[start : (i + 1) * stream.SEGMENT_SIZE]
        plain = bytearray(len(ciphertext) - stream.TAG_SIZE)
        decrypter.decrypt(i, ciphertext, plain, last=i == count - 1)
        out += plain
    return bytes(out)


@pytest.fixture
def key() -> Secret:
    return Secret.random()


@pytest.mark.parametrize("size", SIZES)
def test_what_we_encrypt_tink_decrypts(key: Secret, size: int) -> None:
    data = os.urandom(size)
    body = encrypt(key, data)
    assert len(body) == stream.body_size(size)
    with tink_primitive(key).new_decrypting_stream(io.BytesIO(body), b"ad") as reader:
        assert reader.read() == data


@pytest.mark.parametrize("size", SIZES)
def test_what_tink_encrypts_we_decrypt(key: Secret, size: int) -> None:
    data, sink = os.urandom(size), io.BytesIO()
    sink.close = lambda: None  # type: ignore[method-assign]
    with tink_primitive(key).new_encrypting_stream(sink, b"ad") as writer:
        writer.write(data)
    body = sink.getvalue()
    assert len(body) == stream.body_size(size)
    assert stream.plaintext_size(len(body)) == size
    assert decrypt(key, body) == data


def test_tink_refuses_our_stream_under_other_associated_data(key: Secret) -> None:
    body = encrypt(key, b"data", b"one")
    with (
        pytest.raises(tink.TinkError),
        tink_primitive(key).new_decrypting_stream(io.BytesIO(body), b"two") as reader,
    ):
        reader.read()


@pytest.mark.parametrize("size", [*SIZES, 10**6, 2**31, 2**33 + 5])
def test_sizes_follow_from_each_other(size: int) -> None:
    assert stream.plaintext_size(stream.body_size(size)) == size
    count = stream.segment_count(stream.body_size(size))
    if count < 100:
        assert sum(stream.segment_plaintext_size(i, size) for i in range(count)) == size


@pytest.mark.parametrize(
    "size",
    [0, 39, 40, 55, *(stream.SEGMENT_SIZE * n + rest for n in (1, 3) for rest in (1, 15, 16))],
)
def test_a_size_that_no_plaintext_gives_is_refused(size: int) -> None:
    with pytest.raises(DecryptionError):
        stream.plaintext_size(size)


def test_a_body_of_more_segments_than_the_nonce_counts_is_refused() -> None:
    most = stream.MAX_SEGMENTS * stream.SEGMENT_SIZE
    assert stream.plaintext_size(most) == stream.MAX_SEGMENTS * FULL - stream.HEADER_SIZE
    with pytest.raises(DecryptionError):
        stream.plaintext_size(most + 17)


def test_every_position_is_located_in_its_segment() -> None:
    for position, place in {0: (0, 0), FIRST - 1: (0, FIRST - 1), FIRST: (1, 0), FIRST + FULL + 7: (2, 7)}.items():
        assert stream.locate(position) == place


def test_two_streams_of_the_same_data_differ(key: Secret) -> None:
    assert encrypt(key, b"same") != encrypt(key, b"same")


def test_no_segment_follows_the_last(key: Secret) -> None:
    encrypter = stream.StreamEncrypter(key, b"")
    encrypter.encrypt(b"end", bytearray(19), last=True)
    with pytest.raises(ValueError, match="segment"):
        encrypter.encrypt(b"more", bytearray(20), last=True)


def test_only_the_last_segment_may_be_short(key: Secret) -> None:
    encrypter = stream.StreamEncrypter(key, b"")
    with pytest.raises(ValueError, match="segment"):
        encrypter.encrypt(b"short", bytearray(21), last=False)
    with pytest.raises(ValueError, match="segment"):
        encrypter.encrypt(bytes(FULL), bytearray(FULL + 16), last=True)


def test_a_key_of_another_size_is_refused() -> None:
    with pytest.raises(InvalidKeyError):
        stream.StreamEncrypter(Secret(b"short"), b"")


def test_a_segment_that_does_not_authenticate_leaves_only_zeros(key: Secret) -> None:
    body = encrypt(key, b"x" * 1000)
    decrypter = stream.StreamDecrypter(key, body[:40], b"ad")
    out = bytearray(b"?" * 1000)
    with pytest.raises(DecryptionError):
        decrypter.decrypt(0, body[40:-1] + b"?", out, last=True)
    assert out == bytes(1000)


@pytest.mark.parametrize("change", ["index", "last", "associated data", "key", "header"])
def test_a_segment_opens_only_in_its_place(key: Secret, change: str) -> None:
    body = encrypt(key, b"data")
    header = bytearray(body[:40])
    if change == "header":
        header[5] ^= 1
    decrypter = stream.StreamDecrypter(
        Secret.random() if change == "key" else key, bytes(header), b"other" if change == "associated data" else b"ad"
    )
    with pytest.raises(DecryptionError):
        decrypter.decrypt(int(change == "index"), body[40:], bytearray(4), last=change != "last")


@pytest.mark.parametrize("header", [b"", bytes(40), bytes([41]) + bytes(39), bytes([40]) + bytes(38)])
def test_what_is_no_stream_header_is_refused(key: Secret, header: bytes) -> None:
    with pytest.raises(DecryptionError):
        stream.StreamDecrypter(key, header, b"")
