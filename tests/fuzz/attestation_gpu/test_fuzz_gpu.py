"""Whatever comes in as a GPU report or a device list: our own errors, quickly, and nothing accepted."""

from __future__ import annotations

import contextlib
import random
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casemate.attestation.evidence import Evidence
from casemate.attestation.platforms.gpu.evidence import read_evidence
from casemate.attestation.platforms.gpu.report import parse_report
from casemate.attestation.platforms.gpu.simulator import SimulatedGpu
from casemate.attestation.platforms.gpu.verifier import GpuVerifier
from casemate.errors import CasemateError

NOW = datetime(2026, 6, 1, tzinfo=UTC)
GPU = SimulatedGpu(NOW)
REPORT = GPU.sign(GPU.message(bytes(32)))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=80),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=12), inner, max_size=6),
    max_leaves=20,
)


@settings(max_examples=300, deadline=None, database=None)
@given(st.binary(max_size=3000))
def test_any_bytes_give_a_report_or_our_error(raw: bytes) -> None:
    for tail in (b"", bytes(96)):
        with contextlib.suppress(CasemateError):
            parse_report(raw + tail)


@settings(max_examples=500, deadline=None, database=None)
@given(st.integers(0, 2**32))
def test_no_mutated_report_is_accepted(seed: int) -> None:
    source = random.Random(seed)
    data = bytearray(REPORT)
    for _ in range(source.randint(1, 3)):
        at = source.randrange(len(data))
        if source.random() < 0.5:
            data[at] ^= 1 << source.randrange(8)
        else:
            data[at : at + source.randint(0, 6)] = source.randbytes(source.randint(0, 6))
    if bytes(data) == REPORT:
        return
    body = GPU.evidence(bytes(32))
    body["device_evidence_list"][0]["evidence"] = data.hex()
    with pytest.raises(CasemateError):
        GpuVerifier(pins=[GPU.pin]).verify(Evidence("nvidia", body), now=NOW)


@settings(max_examples=300, deadline=None, database=None)
@given(JSON | st.lists(st.fixed_dictionaries({"evidence": JSON, "certificate": JSON, "arch": JSON})))
def test_any_json_as_a_device_list_is_refused(devices: Any) -> None:
    with pytest.raises(CasemateError):
        GpuVerifier().verify(Evidence("nvidia", {"device_evidence_list": devices}), now=NOW)


@settings(max_examples=200, deadline=None, database=None)
@given(st.binary(max_size=400) | st.text(max_size=200).map(lambda text: ("[" + text).encode(errors="replace")))
def test_any_file_is_evidence_to_refuse_or_our_error(raw: bytes) -> None:
    with pytest.raises(CasemateError):
        GpuVerifier().verify(read_evidence(raw), now=NOW)
