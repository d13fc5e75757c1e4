"""Event logs made by hand: replay, padding, and every way to spoil one, each with its own code."""

from __future__ import annotations

import hashlib
import struct
import time
from collections.abc import Callable

import pytest

from casemate.attestation.eventlog import (
    EventLogMismatchError,
    check_pcrs,
    check_rtmrs,
    parse_event_log,
    replay_pcrs,
    replay_rtmrs,
)
from casemate.errors import RefusedError

BANKS = {"sha1": 4, "sha256": 11, "sha384": 12}
SEPARATOR, IPL, NO_ACTION = 4, 13, 3


def spec_id(*banks: str, signature: bytes = b"Spec ID Event03\0", vendor: bytes = b"") -> bytes:
    body = signature + bytes(8) + struct.pack("<I", len(banks))
    for bank in banks:
        body += struct.pack("<HH", BANKS[bank], hashlib.new(bank).digest_size)
    body += bytes([len(vendor)]) + vendor
    return struct.pack("<II", 0, NO_ACTION) + bytes(20) + struct.pack("<I", len(body)) + body


def event(register: int, kind: int, data: bytes, *banks: str, digest_of: bytes | None = None) -> bytes:
    out = struct.pack("<III", register, kind, len(banks))
    for bank in banks:
        out += struct.pack("<H", BANKS[bank]) + hashlib.new(bank, data if digest_of is None else digest_of).digest()
    return out + struct.pack("<I", len(data)) + data


GOOD = spec_id("sha256", "sha384") + b"".join(
    event(n % 8, SEPARATOR, bytes([n]), "sha256", "sha384") for n in range(1, 20)
)


def test_events_extend_their_registers_in_order() -> None:
    log = parse_event_log(
        spec_id("sha256") + event(4, IPL, b"one", "sha256") + event(4, IPL, b"two", "sha256", digest_of=b"2")
    )
    value = hashlib.sha256(bytes(32) + hashlib.sha256(b"one").digest()).digest()
    value = hashlib.sha256(value + hashlib.sha256(b"2").digest()).digest()
    assert replay_pcrs(log, "sha256") == {4: value}
    assert [e.data_is_measured for e in log.events] == [True, False]
    assert log.events[0].name == "EV_IPL"


def test_informing_events_extend_nothing_but_may_set_the_locality() -> None:
    log = parse_event_log(
        spec_id("sha256")
        + event(0, NO_ACTION, b"StartupLocality\0\x03", "sha256")
        + event(0, SEPARATOR, b"\0\0\0\0", "sha256")
        + event(17, SEPARATOR, b"d", "sha256")
    )
    start = bytes(31) + b"\x03"
    assert replay_pcrs(log, "sha256") == {
        0: hashlib.sha256(start + hashlib.sha256(bytes(4)).digest()).digest(),
        17: hashlib.sha256(b"\xff" * 32 + hashlib.sha256(b"d").digest()).digest(),
    }


def test_only_quoted_registers_that_the_log_extends_are_compared() -> None:
    log = parse_event_log(GOOD)
    replayed = replay_pcrs(log, "sha256")
    assert check_pcrs(log, "sha256", {0: replayed[0], 7: replayed[7], 16: bytes(32)}) == (0, 7)


def test_the_first_register_that_differs_is_named() -> None:
    log = parse_event_log(GOOD)
    replayed = replay_pcrs(log, "sha384")
    with pytest.raises(EventLogMismatchError, match="PCR sha384:3: quoted 000000"):
        check_pcrs(log, "sha384", replayed | {3: bytes(48), 5: bytes(48)})


def test_a_log_that_explains_no_quoted_register_is_refused() -> None:
    with pytest.raises(EventLogMismatchError):
        check_pcrs(parse_event_log(GOOD), "sha256", {16: bytes(32)})


@pytest.mark.parametrize("change", ["remove", "repeat", "swap", "edit"])
def test_a_removed_repeated_moved_or_edited_event_is_noticed(change: str) -> None:
    events = [event(1 + n % 4, IPL, b"e%d" % n, "sha384") for n in range(8)]
    before = replay_rtmrs(parse_event_log(spec_id("sha384") + b"".join(events)))
    if change == "remove":
        del events[5]
    elif change == "repeat":
        events.insert(5, events[5])
    elif change == "swap":
        events[1], events[5] = events[5], events[1]
    else:
        events[5] = event(2, IPL, b"E5", "sha384")
    with pytest.raises(EventLogMismatchError, match="RTMR1"):
        check_rtmrs(parse_event_log(spec_id("sha384") + b"".join(events)), before)


def huge_event() -> bytes:
    return spec_id("sha256") + event(1, IPL, b"", "sha256")[:-4] + struct.pack("<I", 1 << 30)


def huge_first_event() -> bytes:
    return struct.pack("<II", 0, NO_ACTION) + bytes(20) + struct.pack("<I", 1 << 30)


def huge_digest_count() -> bytes:
    return spec_id("sha256") + struct.pack("<III", 1, IPL, 0xFFFFFFFF)


def huge_algorithm_count() -> bytes:
    body = b"Spec ID Event03\0" + bytes(8) + struct.pack("<I", 0xFFFFFFFF)
    return struct.pack("<II", 0, NO_ACTION) + bytes(20) + struct.pack("<I", len(body)) + body


def no_algorithm() -> bytes:
    return spec_id()


def too_many_events() -> bytes:
    return spec_id("sha256") + event(1, IPL, b"", "sha256") * 100_001


def whole_log_too_large() -> bytes:
    return bytes(16 * 1024 * 1024 + 1)


def cut_anywhere() -> bytes:
    return GOOD[:-1]


def cut_in_a_digest() -> bytes:
    return spec_id("sha256") + event(1, IPL, b"", "sha256")[:30]


def empty() -> bytes:
    return b""


def sha1_only_log() -> bytes:
    return struct.pack("<II", 0, SEPARATOR) + bytes(20) + struct.pack("<I", 4) + bytes(4)


def other_spec() -> bytes:
    return spec_id("sha256", signature=b"Spec ID Event02\0")


def algorithm_listed_twice() -> bytes:
    return spec_id("sha256", "sha256")


def digest_size_wrong() -> bytes:
    return spec_id("sha256").replace(struct.pack("<HH", 11, 32), struct.pack("<HH", 11, 20))


def register_out_of_range() -> bytes:
    return spec_id("sha256") + event(24, IPL, b"", "sha256")


def unlisted_algorithm() -> bytes:
    return spec_id("sha256") + event(1, IPL, b"", "sha384")


def digest_missing() -> bytes:
    return spec_id("sha256", "sha384") + event(1, IPL, b"", "sha256")


def digest_twice() -> bytes:
    return spec_id("sha256", "sha384") + event(1, IPL, b"", "sha256", "sha256")


def padding_then_more() -> bytes:
    return GOOD + bytes(64) + event(1, IPL, b"hidden", "sha256", "sha384")


def spec_id_with_a_tail() -> bytes:
    raw = bytearray(spec_id("sha256"))
    raw[28:32] = struct.pack("<I", len(raw) - 32 + 3)
    return bytes(raw) + b"abc"


FAULTS: dict[Callable[[], bytes], str] = {
    huge_event: "eventlog-oversized",
    huge_first_event: "eventlog-oversized",
    huge_digest_count: "eventlog-oversized",
    huge_algorithm_count: "eventlog-oversized",
    no_algorithm: "eventlog-oversized",
    too_many_events: "eventlog-oversized",
    whole_log_too_large: "eventlog-oversized",
    cut_anywhere: "eventlog-truncated",
    cut_in_a_digest: "eventlog-truncated",
    empty: "eventlog-truncated",
    sha1_only_log: "eventlog-malformed",
    other_spec: "eventlog-malformed",
    algorithm_listed_twice: "eventlog-malformed",
    digest_size_wrong: "eventlog-malformed",
    register_out_of_range: "eventlog-malformed",
    unlisted_algorithm: "eventlog-malformed",
    digest_missing: "eventlog-malformed",
    digest_twice: "eventlog-malformed",
    padding_then_more: "eventlog-malformed",
    spec_id_with_a_tail: "eventlog-malformed",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_each_spoilt_log_is_refused_for_its_own_reason(fault: Callable[[], bytes]) -> None:
    raw = fault()
    started = time.monotonic()
    with pytest.raises(RefusedError) as caught:
        parse_event_log(raw)
    assert caught.value.code == FAULTS[fault], caught.value.message
    assert time.monotonic() - started < 5


def test_a_bank_that_was_not_logged_is_named() -> None:
    log = parse_event_log(spec_id("sha1") + event(1, IPL, b"", "sha1"))
    for ask in (lambda: replay_rtmrs(log), lambda: replay_pcrs(log, "sha256"), lambda: replay_pcrs(log, "md5")):
        with pytest.raises(RefusedError) as caught:
            ask()
        assert caught.value.code == "eventlog-bank-missing"


def test_a_ccel_that_extends_something_else_than_an_rtmr_is_refused() -> None:
    with pytest.raises(RefusedError) as caught:
        replay_rtmrs(parse_event_log(spec_id("sha384") + event(5, IPL, b"", "sha384")))
    assert caught.value.code == "eventlog-malformed"
