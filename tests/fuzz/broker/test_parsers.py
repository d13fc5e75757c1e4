"""What reads untrusted documents ends in one of our own errors, whatever it is given."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.broker.support import grant, manifest, text

from casemate.broker.audit import open_checkpoint, open_entry
from casemate.broker.grants import Grant, parse_grant, verify_grant
from casemate.broker.workloads import Workload, parse_init_data
from casemate.crypto.jose import KeyPair
from casemate.errors import CasemateError

KEY = KeyPair.generate()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


@given(st.sampled_from(sorted(grant().to_json())), JSON)
@settings(max_examples=300, deadline=None)
def test_a_grant_with_any_member_replaced_is_read_or_refused(member: str, value: Any) -> None:
    with contextlib.suppress(CasemateError):
        assert isinstance(parse_grant({**grant().to_json(), member: value}), Grant)


@given(JSON)
@settings(max_examples=200, deadline=None)
def test_anything_as_a_grant_is_refused(value: Any) -> None:
    with contextlib.suppress(CasemateError):
        parse_grant(value)
        raise AssertionError("accepted")


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda raw: raw.decode("latin-1")))
@settings(max_examples=200, deadline=None)
def test_any_text_as_a_signed_document_is_refused(token: str) -> None:
    for read in (lambda: verify_grant(token, KEY.public), lambda: open_checkpoint(token, KEY.public)):
        with contextlib.suppress(CasemateError):
            read()
            raise AssertionError("accepted")


@given(st.sampled_from(["json", "toml", "", "x"]), st.text(max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_text_as_init_data_is_read_or_refused(format_: str, body: str) -> None:
    with contextlib.suppress(CasemateError):
        assert isinstance(parse_init_data(format_, body), Workload)


@given(st.sampled_from(sorted(manifest())), JSON)
@settings(max_examples=300, deadline=None)
def test_a_manifest_with_any_member_replaced_is_read_or_refused(member: str, value: Any) -> None:
    with contextlib.suppress(CasemateError):
        assert isinstance(parse_init_data("json", text({**manifest(), member: value})), Workload)


@given(JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=100))
@settings(max_examples=200, deadline=None)
def test_any_bytes_as_an_audit_entry_are_refused(body: bytes) -> None:
    with contextlib.suppress(CasemateError):
        open_entry(body, b"\0" * 32, 0)
        raise AssertionError("accepted")
