"""Parquet Modular Encryption under dataset keys, as PyArrow writes and reads it."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.memory import MemoryKeys

from casemate.data.errors import (
    ColumnDeniedError,
    ColumnMissingError,
    FileMalformedError,
    FileTamperedError,
    KeyDeniedError,
)
from casemate.data.parquet import ParquetKeys, unwrap_parquet_key, wrap_parquet_key
from casemate.errors import CasemateError, UsageError
from casemate.model import ColumnKeys, DatasetName

pa = pytest.importorskip("pyarrow", reason="PyArrow comes with the extra spark")
pq = pytest.importorskip("pyarrow.parquet", reason="PyArrow comes with the extra spark")
ds = pytest.importorskip("pyarrow.dataset", reason="PyArrow comes with the extra spark")

PATIENTS, DIAGNOSIS = DatasetName("hospital", "patients"), DatasetName("hospital", "diagnosis")
MARKER = "CANARY-pneumonia"
ROWS = 200


@pytest.fixture
def keys() -> MemoryKeys:
    return MemoryKeys(str(PATIENTS), str(DIAGNOSIS))


def layout(**options: Any) -> ColumnKeys:
    return ColumnKeys.of({str(DIAGNOSIS): ["diagnosis", "History"]}, **options)


def table(marker: str = MARKER) -> Any:
    return pa.table(
        {
            "diagnosis": [f"{marker}-{i % 7}" for i in range(ROWS)],
            "age": list(range(ROWS)),
            "city": [f"{marker}-city-{i % 5}" for i in range(ROWS)],
            "history": [{"code": i, "notes": [marker]} for i in range(ROWS)],
        }
    )


def written(parquet: ParquetKeys, content: Any = None, **options: Any) -> bytes:
    content = table() if content is None else content
    sink = io.BytesIO()
    properties = parquet.encryption_properties(content.schema)
    pq.write_table(content, sink, encryption_properties=properties, compression="none", **options)
    return sink.getvalue()


def read(parquet: ParquetKeys, data: bytes, columns: list[str] | None = None) -> Any:
    return parquet.read_table(pa.BufferReader(data), columns)


FORMS: dict[str, ColumnKeys | None] = {
    "uniform": None,
    "columns": layout(),
    "columns, footer signed": layout(plaintext_footer=True),
    "columns, GCM and CTR": layout(algorithm="AES_GCM_CTR_V1"),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_file_opens_with_its_keys_and_shows_nothing(keys: MemoryKeys, form: ColumnKeys | None) -> None:
    parquet = ParquetKeys(PATIENTS, form, keys=keys)
    data = written(parquet)
    assert data[:4] == data[-4:] == (b"PAR1" if form and form.plaintext_footer else b"PARE")
    assert MARKER.encode() not in data
    assert read(parquet, data) == table()
    with pytest.raises(OSError, match=r"[Dd]ecrypt"):
        pq.read_table(pa.BufferReader(data))


@pytest.mark.parametrize("signed", [False, True])
def test_a_refused_column_is_named_and_the_others_are_read(keys: MemoryKeys, signed: bool) -> None:
    parquet = ParquetKeys(PATIENTS, layout(plaintext_footer=signed), keys=keys)
    data = written(parquet)
    keys.deny(DIAGNOSIS)
    assert read(parquet, data, ["city", "age"]) == table().select(["city", "age"])
    for refused in ("diagnosis", "history"):
        with pytest.raises(ColumnDeniedError, match="column History, diagnosis of hospital/diagnosis"):
            read(parquet, data, [refused])
    with pytest.raises(ColumnDeniedError):  # no column can be written under a key one does not get
        written(parquet)


def test_without_the_footers_key_nothing_is_read(keys: MemoryKeys) -> None:
    data = written(ParquetKeys(PATIENTS, layout(), keys=keys))
    keys.deny(PATIENTS)
    with pytest.raises(ColumnDeniedError, match="under hospital/patients"):
        read(ParquetKeys(keys=keys), data, ["age"])


def test_the_dataset_api_and_pandas_take_the_same_keys(keys: MemoryKeys, tmp_path: Any) -> None:
    parquet = ParquetKeys(PATIENTS, layout(), keys=keys)
    options = parquet.write_options(table().schema)
    ds.write_dataset(table(), tmp_path, format="parquet", file_options=options, basename_template="part-{i}.parquet")
    file = tmp_path / "part-0.parquet"
    assert file.read_bytes()[:4] == b"PARE"
    found = ds.dataset(tmp_path, format=parquet.dataset_format())
    assert found.to_table(columns=["age"], filter=ds.field("age") > 189).num_rows == 10
    pd = pytest.importorskip("pandas", reason="pandas comes with the extra spark")
    frame = pd.read_parquet(file, decryption_properties=parquet.decryption_properties())
    assert list(frame["diagnosis"]) == table()["diagnosis"].to_pylist()


def test_old_versions_of_a_key_still_open_files(keys: MemoryKeys) -> None:
    parquet = ParquetKeys(PATIENTS, layout(), keys=keys)
    old = written(parquet)
    keys.rotate(DIAGNOSIS)
    keys.rotate(PATIENTS)
    assert read(parquet, old) == read(parquet, written(parquet)) == table()


def chunk(data: bytes, parquet: ParquetKeys, column: str) -> slice:
    """Where a column's pages lie."""
    group = pq.ParquetFile(pa.BufferReader(data), decryption_properties=parquet.decryption_properties()).metadata
    chunks = [group.row_group(0).column(i) for i in range(group.num_columns)]
    found = next(item for item in chunks if item.path_in_schema == column)
    begin = found.dictionary_page_offset or found.data_page_offset
    return slice(begin, begin + found.total_compressed_size)


def footer(data: bytes) -> slice:
    return slice(len(data) - 8 - int.from_bytes(data[-8:-4], "little"), len(data))


def spliced(data: bytes, place: slice, other: bytes) -> bytes:
    assert len(data[place]) == len(other)
    return data[: place.start] + other + data[place.stop :]


SWAPS: dict[str, Callable[[bytes, bytes, ParquetKeys], bytes]] = {
    "a column of another file": lambda a, b, p: spliced(a, chunk(a, p, "age"), b[chunk(b, p, "age")]),
    "the footer of another file": lambda a, b, _: a[: footer(a).start] + b[footer(b)],
    "a column in another's place": lambda a, _, p: spliced(a, chunk(a, p, "age"), a[chunk(a, p, "weight")]),
    "a file cut short": lambda a, *_: a[:-1],
}


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("swap", SWAPS.values(), ids=SWAPS)
def test_parts_that_were_swapped_are_refused(
    keys: MemoryKeys, swap: Callable[[bytes, bytes, ParquetKeys], bytes], signed: bool
) -> None:
    columns = ColumnKeys.of({str(DIAGNOSIS): ["weight"]}, plaintext_footer=signed)
    parquet = ParquetKeys(PATIENTS, columns, keys=keys)

    def file(offset: int) -> bytes:
        numbers = [i + offset for i in range(ROWS)]
        return written(parquet, pa.table({"age": numbers, "weight": numbers[::-1]}), use_dictionary=False)

    one, two = file(0), file(1000)
    assert read(parquet, one)["age"].to_pylist() == list(range(ROWS))
    with pytest.raises((OSError, pa.ArrowException)):
        read(parquet, swap(one, two, parquet))


@pytest.mark.parametrize("signed", [False, True])
def test_no_changed_byte_changes_what_is_read(keys: MemoryKeys, signed: bool) -> None:
    parquet = ParquetKeys(PATIENTS, ColumnKeys.of({str(DIAGNOSIS): ["b"]}, plaintext_footer=signed), keys=keys)
    content = pa.table({"a": [1, 2, 3], "b": ["x", "y", "z"]})
    data = written(parquet, content, write_statistics=False, store_schema=False)
    refused = 0
    for position in range(0, len(data), 2):
        damaged = bytearray(data)
        damaged[position] ^= 1
        try:
            assert read(parquet, bytes(damaged)).equals(content), position
        except (OSError, pa.ArrowException, CasemateError):
            refused += 1
    assert refused > len(data) // 2 * 0.9


def test_other_keys_and_other_datasets_do_not_open_a_wrapped_key(keys: MemoryKeys) -> None:
    wrapped = wrap_parquet_key(keys, b"k" * 32, PATIENTS)
    assert wrapped.startswith("casemate:parquet:v1:1:")
    assert unwrap_parquet_key(keys, wrapped, PATIENTS) == b"k" * 32
    with pytest.raises(FileTamperedError, match="hospital/diagnosis"):
        unwrap_parquet_key(keys, wrapped, DIAGNOSIS)
    with pytest.raises(FileTamperedError, match="version 1 of hospital/patients"):
        unwrap_parquet_key(MemoryKeys(str(PATIENTS)), wrapped, PATIENTS)
    keys.rotate(PATIENTS)
    with pytest.raises(FileTamperedError):
        unwrap_parquet_key(keys, wrapped.replace(":1:", ":2:"), PATIENTS)
    for text in ("", wrapped[9:], wrapped + "=", wrapped[:40], wrapped.replace(":1:", ":0:"), "x" * 10_000):
        with pytest.raises((FileMalformedError, FileTamperedError)):
            unwrap_parquet_key(keys, text, PATIENTS)


def test_a_named_column_that_is_not_there_is_not_written_under_another_key(keys: MemoryKeys) -> None:
    parquet = ParquetKeys(PATIENTS, layout(), keys=keys)
    with pytest.raises(ColumnMissingError, match="diagnosis"):
        written(parquet, table().rename_columns(["diagnose", "age", "city", "history"]))
    upper = table().rename_columns(["DIAGNOSIS", "age", "city", "history"])
    data = written(parquet, upper)
    keys.deny(DIAGNOSIS)
    with pytest.raises(ColumnDeniedError):
        read(parquet, data, ["DIAGNOSIS"])


@given(st.text() | st.from_regex(r"casemate:parquet:v1:[0-9]{1,10}:[A-Za-z0-9+/=]{0,90}", fullmatch=True))
def test_no_text_is_taken_for_a_wrapped_key(text: str) -> None:
    with pytest.raises((FileMalformedError, FileTamperedError, KeyDeniedError)):
        unwrap_parquet_key(MemoryKeys(str(PATIENTS)), text, PATIENTS)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["columns", "plaintext_footer", "algorithm", "a/b", "x"]), inner, max_size=4)
    ),
)


@given(JSON)
def test_any_other_json_is_refused_as_column_keys(value: Any) -> None:
    with pytest.raises(UsageError):
        ColumnKeys.from_json(value)


@pytest.mark.parametrize(
    "columns",
    [
        {},
        {"hospital/diagnosis": []},
        {"hospital": ["a"]},
        {"a/b": ["x"], "c/d": ["X"]},
        {"a/b": ["x,y"]},
        {"a/b": [" "]},
    ],
    ids=str,
)
def test_column_keys_that_name_nothing_or_twice_are_refused(columns: dict[str, list[str]]) -> None:
    with pytest.raises(UsageError):
        ColumnKeys.of(columns)
    with pytest.raises(UsageError):
        ColumnKeys.from_json({"columns": columns, "plaintext_footer": False, "algorithm": "AES_GCM_V1"})


def test_column_keys_in_json_are_read_back_and_nothing_else_is() -> None:
    value = layout(plaintext_footer=True).to_json()
    assert ColumnKeys.from_json(value) == layout(plaintext_footer=True)
    for changed in ({**value, "more": 1}, {**value, "algorithm": "AES"}, {**value, "plaintext_footer": 1}, [], None):
        with pytest.raises(UsageError):
            ColumnKeys.from_json(changed)
