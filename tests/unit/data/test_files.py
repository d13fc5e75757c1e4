"""One encrypted file: its preamble, its reader, its writer, and every damage that must be refused."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.damage import damages
from tests.support.memory import MemoryKeys
from tests.unit.crypto.test_stream import tink_primitive

from casemate.crypto import stream
from casemate.data.errors import (
    FileMalformedError,
    FileTamperedError,
    FileTruncatedError,
    FileWrongDatasetError,
    IntegrityError,
    KeyDeniedError,
)
from casemate.data.format import PREAMBLE_SIZE, new_preamble, parse_preamble, plaintext_size, stored_size
from casemate.data.reader import EncryptedReader
from casemate.data.writer import EncryptedWriter
from casemate.model import DatasetName

FIRST = stream.SEGMENT_PLAINTEXT_SIZE - stream.HEADER_SIZE
FULL = stream.SEGMENT_PLAINTEXT_SIZE
SIZES = [0, 1, FIRST - 1, FIRST, FIRST + 1, FIRST + FULL - 1, FIRST + FULL, FIRST + FULL + 1, FIRST + 20 * FULL + 99]


def write(keys: MemoryKeys, dataset: DatasetName, *pieces: bytes) -> bytes:
    sink = io.BytesIO()
    with EncryptedWriter(sink, keys, dataset) as writer:
        for piece in pieces:
            assert writer.write(piece) == len(piece)
    assert writer.stored_size == len(sink.getvalue())
    return sink.getvalue()


def open_bytes(stored: bytes, keys: MemoryKeys, dataset: DatasetName) -> EncryptedReader:
    return EncryptedReader(io.BytesIO(stored), len(stored), keys, dataset=dataset, name="patients.csv")


@pytest.fixture(scope="module")
def big() -> tuple[MemoryKeys, DatasetName, bytes, bytes]:
    dataset, keys = DatasetName.parse("hospital/patients"), MemoryKeys("hospital/patients")
    data = random.Random(7).randbytes(FIRST + 4 * FULL + 12345)
    return keys, dataset, data, write(keys, dataset, data)


# Round trips


@pytest.mark.parametrize("size", SIZES)
def test_what_is_written_is_read(keys: MemoryKeys, dataset: DatasetName, size: int) -> None:
    data = os.urandom(size)
    stored = write(keys, dataset, data)
    assert len(stored) == stored_size(size)
    assert plaintext_size(len(stored)) == size
    with open_bytes(stored, keys, dataset) as reader:
        assert reader.size == size
        assert reader.readall() == data
        assert reader.read(1) == b""


@pytest.mark.parametrize("size", SIZES)
def test_tink_reads_a_file_given_its_key(keys: MemoryKeys, dataset: DatasetName, size: int) -> None:
    data = os.urandom(size)
    stored = write(keys, dataset, data)
    preamble = parse_preamble(stored)
    dek = preamble.unwrap(keys.key(dataset, 1), "file")
    body = io.BytesIO(stored[PREAMBLE_SIZE:])
    with tink_primitive(dek).new_decrypting_stream(body, stored[:PREAMBLE_SIZE]) as reader:
        assert reader.read() == data


@pytest.mark.parametrize("size", SIZES)
def test_a_file_that_tink_wrote_is_read(keys: MemoryKeys, dataset: DatasetName, size: int) -> None:
    data = os.urandom(size)
    preamble, dek = new_preamble(keys.current_key(dataset))
    sink = io.BytesIO()
    sink.close = lambda: None  # type: ignore[method-assign]
    with tink_primitive(dek).new_encrypting_stream(sink, preamble.raw) as writer:
        writer.write(data)
    assert open_bytes(preamble.raw + sink.getvalue(), keys, dataset).readall() == data


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.sampled_from([0, 1, 7, 4096, FIRST - 1, FIRST, FIRST + 1, FULL, 2 * FULL + 3]), max_size=12))
def test_the_sizes_of_the_writes_do_not_matter(keys: MemoryKeys, dataset: DatasetName, sizes: list[int]) -> None:
    pieces = [bytes([i % 251]) * size for i, size in enumerate(sizes)]
    assert open_bytes(write(keys, dataset, *pieces), keys, dataset).readall() == b"".join(pieces)


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_any_sequence_of_seeks_and_reads_gives_the_bytes_of_the_plaintext(
    big: tuple[MemoryKeys, DatasetName, bytes, bytes], data: st.DataObject
) -> None:
    keys, dataset, plain, stored = big
    reader, oracle = open_bytes(stored, keys, dataset), io.BytesIO(plain)
    near = st.sampled_from([0, FIRST, FIRST + FULL, FIRST + 4 * FULL, len(plain)])
    for _ in range(data.draw(st.integers(1, 12))):
        if data.draw(st.booleans()):
            position = max(data.draw(near) + data.draw(st.integers(-20, 20)), 0)
            assert reader.seek(position) == oracle.seek(position)
        size = data.draw(st.one_of(st.integers(0, 300), st.integers(0, 3 * FULL), st.just(-1)))
        assert reader.read(size) == oracle.read(size)
        assert reader.tell() == oracle.tell()


def test_a_buffered_reader_over_it_gives_lines(keys: MemoryKeys, dataset: DatasetName) -> None:
    lines = [f"row {i},{'x' * (i % 97)}\n".encode() for i in range(20_000)]
    with io.BufferedReader(open_bytes(write(keys, dataset, *lines), keys, dataset)) as reader:
        assert list(reader) == lines


def test_storage_that_reads_and_writes_in_small_pieces_is_no_matter(keys: MemoryKeys, dataset: DatasetName) -> None:
    class Slow(io.RawIOBase):
        def __init__(self, inner: io.BytesIO) -> None:
            self.inner = inner

        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
            return self.inner.readinto(memoryview(buffer)[:1000])

        def write(self, data: memoryview) -> int:  # type: ignore[override]
            return self.inner.write(data[:1000])

        def seek(self, position: int, whence: int = 0) -> int:
            return self.inner.seek(position, whence)

    data, inner = os.urandom(3 * FULL), io.BytesIO()
    with EncryptedWriter(Slow(inner), keys, dataset) as writer:  # type: ignore[arg-type]
        writer.write(data)
    slow = Slow(inner)
    assert EncryptedReader(slow, len(inner.getvalue()), keys, dataset=dataset).readall() == data  # type: ignore[arg-type]


def test_seeking_from_the_end_and_from_here(big: tuple[MemoryKeys, DatasetName, bytes, bytes]) -> None:
    keys, dataset, plain, stored = big
    reader = open_bytes(stored, keys, dataset)
    reader.seek(-10, os.SEEK_END)
    assert reader.read() == plain[-10:]
    reader.seek(-5, os.SEEK_CUR)
    assert reader.read() == plain[-5:]
    reader.seek(10, os.SEEK_END)
    assert reader.read(3) == b""
    with pytest.raises(ValueError, match="seek"):
        reader.seek(-1)


def test_a_closed_file_is_neither_read_nor_written(keys: MemoryKeys, dataset: DatasetName) -> None:
    reader = open_bytes(write(keys, dataset, b"x"), keys, dataset)
    reader.close()
    reader.close()
    for use in (reader.tell, reader.readall, lambda: reader.read(1), lambda: reader.seek(0)):
        with pytest.raises(ValueError, match="closed"):
            use()
    writer = EncryptedWriter(io.BytesIO(), keys, dataset)
    writer.close()
    for use in (writer.tell, lambda: writer.write(b"x")):
        with pytest.raises(ValueError, match="closed"):
            use()


def test_files_of_the_same_content_share_no_byte_run(keys: MemoryKeys, dataset: DatasetName) -> None:
    first, second = (write(keys, dataset, b"same" * 100)[PREAMBLE_SIZE + 1 :] for _ in range(2))
    assert not any(first[i : i + 8] in second for i in range(0, len(first) - 8, 8))


def test_old_files_stay_readable_after_a_rotation(keys: MemoryKeys, dataset: DatasetName) -> None:
    old = write(keys, dataset, b"old")
    keys.rotate(dataset)
    new = write(keys, dataset, b"new")
    assert [parse_preamble(one).key_version for one in (old, new)] == [1, 2]
    assert [open_bytes(one, keys, dataset).readall() for one in (old, new)] == [b"old", b"new"]


# Refusals


def test_every_damage_is_refused_before_a_wrong_byte_is_given_out(
    big: tuple[MemoryKeys, DatasetName, bytes, bytes],
) -> None:
    keys, dataset, plain, stored = big
    accepted, unnamed, names = [], [], set()
    for name, damaged in damages(stored):
        assert damaged != stored
        assert name not in names
        names.add(name)
        given_out = bytearray()
        try:
            reader = open_bytes(damaged, keys, dataset)
            while piece := reader.read(10_000):
                given_out += piece
            accepted.append(name)
        except KeyDeniedError:
            pass
        except IntegrityError as exc:
            unnamed += [] if exc.message.startswith("patients.csv: ") else [name]
        assert plain.startswith(bytes(given_out)), name
    assert (accepted, unnamed) == ([], [])
    assert len(names) > 170


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, FIRST - 1, FIRST, FIRST + 1])
def test_every_damage_of_a_small_file_is_refused(keys: MemoryKeys, dataset: DatasetName, size: int) -> None:
    stored = write(keys, dataset, os.urandom(size))
    for name, damaged in damages(stored):
        if damaged != stored:
            with pytest.raises((IntegrityError, KeyDeniedError)):
                pytest.fail(f"{name}: {len(open_bytes(damaged, keys, dataset).readall())} bytes")


def test_every_single_byte_of_a_small_file_counts(keys: MemoryKeys, dataset: DatasetName) -> None:
    stored = write(keys, dataset, b"hello")
    for i in range(len(stored)):
        with pytest.raises((IntegrityError, KeyDeniedError)):
            open_bytes(stored[:i] + bytes([stored[i] ^ 1]) + stored[i + 1 :], keys, dataset).readall()
        with pytest.raises(IntegrityError):
            open_bytes(stored[:i], keys, dataset).readall()


def test_a_file_cut_at_a_segment_border_is_refused_when_it_is_opened(
    big: tuple[MemoryKeys, DatasetName, bytes, bytes],
) -> None:
    keys, dataset, _, stored = big
    for segments in (1, 2, 4):
        with pytest.raises(FileTruncatedError, match=f"patients.csv: ends after segment {segments - 1}"):
            open_bytes(stored[: PREAMBLE_SIZE + segments * stream.SEGMENT_SIZE], keys, dataset)


def test_a_file_that_shrinks_while_it_is_read_is_refused(big: tuple[MemoryKeys, DatasetName, bytes, bytes]) -> None:
    keys, dataset, _, stored = big
    raw = io.BytesIO(stored)
    reader = EncryptedReader(raw, len(stored), keys, dataset=dataset)
    raw.truncate(PREAMBLE_SIZE + 2 * stream.SEGMENT_SIZE)
    with pytest.raises(FileTruncatedError):
        reader.readall()


def test_the_error_names_file_and_segment(big: tuple[MemoryKeys, DatasetName, bytes, bytes]) -> None:
    keys, dataset, _, stored = big
    position = PREAMBLE_SIZE + 3 * stream.SEGMENT_SIZE + 77
    damaged = stored[:position] + bytes([stored[position] ^ 64]) + stored[position + 1 :]
    with pytest.raises(FileTamperedError, match=r"^patients\.csv: segment 3 "):
        open_bytes(damaged, keys, dataset).readall()


def test_a_file_of_another_dataset_is_refused(keys: MemoryKeys, dataset: DatasetName) -> None:
    stored = write(keys, DatasetName.parse("hospital/report"), b"x")
    with pytest.raises(FileWrongDatasetError, match="hospital/report, not hospital/patients"):
        open_bytes(stored, keys, dataset)


def test_without_a_key_nothing_is_read_or_written(keys: MemoryKeys, dataset: DatasetName) -> None:
    stored = write(keys, dataset, b"x")
    keys.deny(dataset)
    with pytest.raises(KeyDeniedError):
        open_bytes(stored, keys, dataset)
    sink = io.BytesIO()
    with pytest.raises(KeyDeniedError):
        EncryptedWriter(sink, keys, dataset)
    assert sink.getvalue() == b""


def test_the_same_name_with_another_key_is_tampering(keys: MemoryKeys, dataset: DatasetName) -> None:
    stored = write(keys, dataset, b"x")
    with pytest.raises(FileTamperedError, match="file key does not open"):
        open_bytes(stored, MemoryKeys(str(dataset)), dataset)


@pytest.mark.parametrize("stored", [b"", b"id,name\n", b"\0" * 600, b"PAR1" + bytes(600), b"CSMT" + bytes(600)])
def test_what_is_no_encrypted_file_is_refused_as_such(keys: MemoryKeys, dataset: DatasetName, stored: bytes) -> None:
    with pytest.raises((FileMalformedError, FileTruncatedError), match=r"^patients\.csv: "):
        open_bytes(stored, keys, dataset)


def _header(stored: bytes, **changes: object) -> bytes:
    length = int.from_bytes(stored[6:8], "big")
    header = {**json.loads(stored[8 : 8 + length]), **changes}
    text = json.dumps({k: v for k, v in header.items() if v is not ...}, sort_keys=True, separators=(",", ":")).encode()
    return (stored[:6] + len(text).to_bytes(2, "big") + text).ljust(512, b"\0") + stored[512:]


@pytest.mark.parametrize(
    "changes",
    [
        {"alg": "AES128-GCM"},
        {"alg": None},
        {"dataset": "Hospital/Patients"},
        {"dataset": "patients"},
        {"dataset": 7},
        {"kek": 0},
        {"kek": -1},
        {"kek": "1"},
        {"kek": True},
        {"kek": 1.5},
        {"kek": 2**31},
        {"file_id": ""},
        {"file_id": "AAAA"},
        {"file_id": "AAAAAAAAAAAAAAAAAAAAAA"},
        {"file_id": "AAAAAAAAAAAAAAAAAAAAAB=="},
        {"file_id": "AAAAAAAAAAAAAAAAAAAA\nAA=="},
        {"file_id": None},
        {"wrapped_dek": ""},
        {"wrapped_dek": "A" * 84},
        {"wrapped_dek": ["A"]},
        {"extra": 1},
        {"kek": ...},
    ],
    ids=repr,
)
def test_a_header_field_that_is_not_as_written_is_refused(
    keys: MemoryKeys, dataset: DatasetName, changes: dict[str, object]
) -> None:
    with pytest.raises(FileMalformedError, match="header"):
        open_bytes(_header(write(keys, dataset, b"x"), **changes), keys, dataset)


def test_the_same_header_in_another_spelling_is_refused(keys: MemoryKeys, dataset: DatasetName) -> None:
    stored = write(keys, dataset, b"x")
    length = int.from_bytes(stored[6:8], "big")
    text = stored[8 : 8 + length]
    for other in (text.replace(b",", b", ", 1), text.replace(b"/", b"\\/", 1), text[:-1] + b',"kek":1}', b" " + text):
        respelled = (stored[:6] + len(other).to_bytes(2, "big") + other).ljust(512, b"\0")
        with pytest.raises(FileMalformedError, match="RFC 8785"):
            parse_preamble(respelled)


def test_the_longest_dataset_name_fits_the_preamble() -> None:
    name = "o" * 63 + "/" + "n" * 127
    keys, dataset = MemoryKeys(name), DatasetName.parse(name)
    assert open_bytes(write(keys, dataset, b"x"), keys, dataset).readall() == b"x"


# Unfinished files


@pytest.mark.parametrize("size", [0, 1, FIRST, FIRST + FULL, FIRST + 40 * FULL])
def test_a_file_whose_writer_gave_up_never_reads_as_a_file(keys: MemoryKeys, dataset: DatasetName, size: int) -> None:
    sinks = [io.BytesIO() for _ in range(3)]
    aborted = EncryptedWriter(sinks[0], keys, dataset)
    aborted.write(bytes(size))
    aborted.abort()
    aborted.close()
    with contextlib.suppress(KeyboardInterrupt), EncryptedWriter(sinks[1], keys, dataset) as left:
        left.write(bytes(size))
        raise KeyboardInterrupt
    forgotten = EncryptedWriter(sinks[2], keys, dataset)
    forgotten.write(bytes(size))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del forgotten
    for sink in sinks:
        with pytest.raises((FileTruncatedError, FileTamperedError)):
            open_bytes(sink.getvalue(), keys, dataset)


@pytest.mark.parametrize("room", [0, 511, 552, 70_000, 2_000_000])
def test_a_full_disk_raises_what_the_storage_raised_and_completes_nothing(
    keys: MemoryKeys, dataset: DatasetName, room: int
) -> None:
    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            view = memoryview(data)[: room - self.tell()]  # type: ignore[arg-type]
            if not view:
                raise OSError(28, "No space left on device")
            return super().write(view)

    sink = Full()
    with pytest.raises(OSError, match="No space"), EncryptedWriter(sink, keys, dataset) as writer:
        writer.write(os.urandom(3_000_000))
    with pytest.raises(IntegrityError):
        open_bytes(sink.getvalue(), keys, dataset)


def test_no_plaintext_is_in_a_stored_file(keys: MemoryKeys, dataset: DatasetName, tmp_path: Path) -> None:
    canary = b"canary-7b1f0c"
    stored = write(keys, dataset, canary * 20_000)
    assert canary not in stored
    assert keys.current_key(dataset).secret.reveal() not in stored
