"""Any bytes, any text: parsers answer or raise one of ours, and never something that was not written."""

from __future__ import annotations

import contextlib
import posixpath

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.support.memory import MemoryKeys

from casemate.crypto.canonical import canonical_json, sha256_hex
from casemate.data.errors import IntegrityError
from casemate.data.format import new_preamble, parse_preamble, plaintext_size
from casemate.data.generations import Generation
from casemate.data.manifest import build_manifest, parse_manifest, verify_manifest
from casemate.data.zones import ZoneMap, is_within, normalise
from casemate.errors import CasemateError, UsageError
from casemate.model import Access, DatasetName, Zone

DATASET = DatasetName.parse("hospital/patients")
KEYS = MemoryKeys(str(DATASET))
GENUINE, _ = new_preamble(KEYS.current_key(DATASET))
MANIFEST = build_manifest(KEYS.current_key(DATASET), "file:///v", 3, [])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(-1e9, 1e9) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def mutate(data: st.DataObject, raw: bytes) -> bytes:
    out = bytearray(raw)
    for _ in range(data.draw(st.integers(1, 6))):
        position = data.draw(st.integers(0, max(len(out) - 1, 0)))
        kind = data.draw(st.sampled_from(["set", "insert", "delete", "cut", "repeat"]))
        if kind == "set":
            out[position : position + 1] = data.draw(st.binary(min_size=1, max_size=1))
        elif kind == "insert":
            out[position:position] = data.draw(st.binary(max_size=20))
        elif kind == "delete":
            del out[position : position + data.draw(st.integers(1, 20))]
        elif kind == "cut":
            del out[position:]
        else:
            out[position:position] = out[position : position + 30]
    return bytes(out)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=600))
@example(b"CSMT\x01\x00\x00\x00" + bytes(504))
@example(b"CSMT\x01\x00\xff\xff" + bytes(504))
def test_any_bytes_as_a_preamble(raw: bytes) -> None:
    with pytest.raises(IntegrityError, match=r"^name: "):
        parse_preamble(raw, "name")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_mutated_preamble_is_refused_or_does_not_unwrap(data: st.DataObject) -> None:
    raw = mutate(data, GENUINE.raw).ljust(512, b"\0")[:512]
    if raw == GENUINE.raw:
        return
    with pytest.raises(IntegrityError):
        parse_preamble(raw, "name").unwrap(KEYS.key(DATASET, 1), "name")


@settings(max_examples=200, deadline=None)
@given(JSON)
def test_any_json_as_a_header(value: object) -> None:
    text = canonical_json(value)
    if len(text) > 504:
        return
    raw = (b"CSMT\x01\x00" + len(text).to_bytes(2, "big") + text).ljust(512, b"\0")
    with pytest.raises(IntegrityError):
        parse_preamble(raw)


@settings(max_examples=200, deadline=None)
@given(st.integers(-(2**40), 2**70))
def test_any_number_as_a_stored_size(stored: int) -> None:
    with contextlib.suppress(IntegrityError):
        assert 0 <= plaintext_size(stored) < stored


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_mutated_manifest_never_verifies(data: st.DataObject) -> None:
    raw = mutate(data, MANIFEST)
    if raw == MANIFEST:
        return
    recorded = Generation(3, sha256_hex(raw))
    with pytest.raises(IntegrityError):
        verify_manifest(raw, recorded, dataset=DATASET, location="file:///v", keys=KEYS, name="m")


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=400), JSON.map(canonical_json)))
def test_any_bytes_or_json_as_a_manifest(raw: bytes) -> None:
    with pytest.raises(IntegrityError):
        parse_manifest(raw, "m")


_WORDS = "vault plain in .. . / // a _casemate file: file:// FILE:/// %2e%2e s3a:// ~ \\ ü ? # localhost : ::"
PIECES = st.lists(st.sampled_from([*_WORDS.split(), "", " ", "\n", "\0", "\udcff"]), max_size=12)
PATHS = st.one_of(st.text(max_size=40), PIECES.map("/".join), PIECES.map("".join))
ZONES = [
    Zone("file:///vault", DATASET, Access.READ_WRITE),
    Zone("file:///vault/in", DATASET, Access.READ),
    Zone("s3a://bucket/vault", DATASET, Access.WRITE),
]


@settings(max_examples=500, deadline=None)
@given(PATHS)
def test_normalising_is_stable_and_leaves_nothing_to_resolve(text: str) -> None:
    try:
        uri = normalise(text, working_directory="/srv")
    except UsageError:
        return
    assert normalise(uri) == uri
    scheme, _, rest = uri.partition("://")
    assert scheme == scheme.lower()
    assert not {"..", "."} & set(rest.split("/"))
    assert "//" not in rest
    assert rest == "/" or not uri.endswith("/")


@settings(max_examples=500, deadline=None)
@given(PATHS)
def test_a_plain_path_goes_where_the_kernel_would_go_without_links(text: str) -> None:
    if not text or "://" in text or text.lower().startswith("file:/") or "\0" in text:
        return
    try:
        uri = normalise(text, working_directory="/srv")
    except UsageError:
        return
    assert uri == "file://" + posixpath.normpath("/" + posixpath.join("/srv", text).lstrip("/"))


@settings(max_examples=500, deadline=None)
@given(PATHS)
def test_no_spelling_writes_to_a_read_zone_or_outside_the_zones(text: str) -> None:
    zones = ZoneMap(ZONES, working_directory="/srv", realpath=lambda path: path)
    try:
        located = zones.write(text)
    except CasemateError:
        return
    assert located.zone is not None
    assert located.zone.access.can_write
    assert is_within(located.uri, located.zone.prefix)
    assert not is_within(located.uri, "file:///vault/in")
    assert "_casemate" not in located.uri.split("/")
