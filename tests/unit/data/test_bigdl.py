"""Files of BigDL PPML: read right when they are whole, and refused when they are not, which BigDL never did."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from tests.support.bigdl_writer import CODES, PLAIN, PRIMARY, wrapped, write_file, write_native_file

from casemate.data.bigdl import data_key, open_bigdl
from casemate.data.errors import BigDLKeyError, BigDLMalformedError, BigDLTamperedError


def aes(key: bytes, iv: bytes, data: bytes, *, encrypt: bool) -> bytes:
    cipher = Cipher(algorithms.AES(key), modes.CBC(iv))
    return (cipher.encryptor() if encrypt else cipher.decryptor()).update(data)


CONTENT = b"id,name\n" + b"".join(b"%d,Ada Lovelace\n" % i for i in range(200_000))


@pytest.mark.parametrize("content", [b"", b"x", b"sixteen bytes or", CONTENT], ids=["empty", "byte", "block", "large"])
@pytest.mark.parametrize("text", [CODES, PLAIN], ids=["codes", "digits"])
def test_the_primary_key_opens_what_it_wrapped(tmp_path: Path, content: bytes, text: str) -> None:
    path = tmp_path / "part-0.csv.cbc"
    write_file(path, content, text=text)
    with open_bigdl(path, PRIMARY) as reader:
        assert reader.read() == content


def test_a_wrong_form_of_the_key_never_wins_by_chance(tmp_path: Path) -> None:
    """In one of 256 files the wrong form leaves sound padding; the HMAC then tells which is right."""
    path, iv = tmp_path / "part.cbc", bytes(16)
    right, wrong = (text.encode()[16:32].ljust(16, b"\0") for text in (PLAIN, CODES))
    for number in range(10_000):
        content = b"row %d" % number
        pad = 16 - len(content)
        block = aes(right, iv, content + bytes([pad]) * pad, encrypt=True)
        if aes(wrong, iv, block, encrypt=False)[-1] == 1:
            break
    write_file(path, content, text=PLAIN, iv=iv)
    with open_bigdl(path, PRIMARY) as reader:
        assert reader.read() == content


def test_a_data_key_unwrapped_elsewhere_opens_its_file(tmp_path: Path) -> None:
    text = "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA="
    write_file(tmp_path / "a.cbc", b"secret rows", text=text, wrapped_key="ehsm:blob")
    with open_bigdl(tmp_path / "a.cbc", [data_key(text)]) as reader:
        assert reader.read() == b"secret rows"
    with pytest.raises(BigDLKeyError, match="--data-key"):
        open_bigdl(tmp_path / "a.cbc", PRIMARY)


def test_the_native_mode_is_read_with_its_bare_iv(tmp_path: Path) -> None:
    write_native_file(tmp_path / "a.cbc", CONTENT)
    (tmp_path / ".meta").write_text(json.dumps({"encryptedDataKey": wrapped()}))
    with open_bigdl(tmp_path / "a.cbc", PRIMARY, native=True) as reader:
        assert reader.read() == CONTENT


def test_every_flipped_bit_behind_the_header_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.cbc"
    write_file(path, os.urandom(100))
    good = path.read_bytes()
    for position in range(400, len(good)):
        bad = bytearray(good)
        bad[position] ^= 1 << random.Random(position).randrange(8)
        path.write_bytes(bad)
        with pytest.raises(BigDLTamperedError, match=str(path)), open_bigdl(path, [data_key(CODES)]) as reader:
            reader.read()


def test_a_flipped_bit_of_the_header_is_noticed_but_for_the_iv_and_the_key(tmp_path: Path) -> None:
    """BigDL authenticates no header. The lengths and the filling are fixed; an IV could be changed unnoticed."""
    path = tmp_path / "a.cbc"
    write_file(path, b"some rows", iv=bytes(16))
    good = path.read_bytes()
    for position in [*range(8), *range(8 + 16 + 16, 400)]:
        path.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
        with pytest.raises((BigDLMalformedError, BigDLKeyError)):
            open_bigdl(path, PRIMARY)


@pytest.mark.parametrize("size", [0, 7, 399, 400, 431, 432, 440], ids=str)
def test_a_file_cut_short_is_refused(tmp_path: Path, size: int) -> None:
    write_file(tmp_path / "a.cbc", b"some rows")
    (tmp_path / "a.cbc").write_bytes((tmp_path / "a.cbc").read_bytes()[:size])
    with pytest.raises((BigDLMalformedError, BigDLTamperedError)), open_bigdl(tmp_path / "a.cbc", PRIMARY) as reader:
        reader.read()


def test_another_primary_key_is_refused(tmp_path: Path) -> None:
    write_file(tmp_path / "a.cbc", CONTENT)
    with pytest.raises(BigDLTamperedError, match="another key"), open_bigdl(tmp_path / "a.cbc", "1" * 16) as reader:
        reader.read()


@pytest.mark.parametrize("key", ["", "12345", "not digits at all", "481192537026445x"])
def test_what_is_no_primary_key_is_named_as_such(tmp_path: Path, key: str) -> None:
    write_file(tmp_path / "a.cbc", b"rows")
    with pytest.raises(BigDLKeyError, match="primary key: need") as caught:
        open_bigdl(tmp_path / "a.cbc", key)
    assert not key or key not in caught.value.message


def test_a_meta_that_names_another_key_is_refused(tmp_path: Path) -> None:
    write_file(tmp_path / "a.cbc", b"rows")
    (tmp_path / ".meta").write_text(json.dumps({"encryptedDataKey": "1" * 16}))
    with pytest.raises(BigDLTamperedError, match="different wrapped keys"):
        open_bigdl(tmp_path / "a.cbc", PRIMARY)


@pytest.mark.parametrize("meta", ["", "{}", "[]", '{"encryptedDataKey": 7}'])
def test_a_meta_of_another_form_is_refused(tmp_path: Path, meta: str) -> None:
    write_file(tmp_path / "a.cbc", b"rows")
    (tmp_path / ".meta").write_text(meta)
    with pytest.raises(BigDLMalformedError, match=r"\.meta"):
        open_bigdl(tmp_path / "a.cbc", PRIMARY)
