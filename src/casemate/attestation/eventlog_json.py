"""Event logs in other encodings than the kernel's: text of the binary log, and JSON of one object per event.

The JSON form is what TDX guest agents hand out: ``[{"imr": 0, "event_type": …, "digest": hex, "event_payload": hex}]``,
SHA-384 alone, registers RTMR0 to RTMR3 counted from 0.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from casemate.attestation.eventlog import (
    MAX_EVENTS,
    MAX_LOG_BYTES,
    RTMR_COUNT,
    Event,
    EventLog,
    EventLogMalformedError,
    EventLogOversizedError,
    parse_event_log,
)
from casemate.attestation.stored_text import decoded

__all__ = ["read_event_log"]

_SHA384_SIZE = 48


def read_event_log(raw: bytes) -> EventLog:
    """A log in any of these forms; raises what ``parse_event_log`` raises."""
    if len(raw) > MAX_LOG_BYTES * 4:
        raise EventLogOversizedError(f"event log: {len(raw)} bytes of text, at most {MAX_LOG_BYTES * 4}")
    text = raw[:4096].strip()
    if text[:1] == b"[":
        return _from_json(raw)
    found = decoded(raw) if text.isascii() and b"\0" not in text else None
    return parse_event_log(raw if found is None else found)


def _from_json(raw: bytes) -> EventLog:
    try:
        events = json.loads(raw)
    except (ValueError, RecursionError) as exc:
        raise EventLogMalformedError(f"event log: not JSON that can be read ({type(exc).__name__})") from exc
    if not isinstance(events, list) or not events or not all(isinstance(event, Mapping) for event in events):
        raise EventLogMalformedError("event log: need a JSON array of events")
    if len(events) > MAX_EVENTS:
        raise EventLogOversizedError(f"event log: {len(events)} events, at most {MAX_EVENTS}")
    return EventLog(("sha384",), tuple(_event(n, event) for n, event in enumerate(events)))


def _event(number: int, event: Mapping[str, Any]) -> Event:
    register, kind = event.get("imr"), event.get("event_type")
    try:
        digest = bytes.fromhex(str(event.get("digest") or ""))
        data = bytes.fromhex(str(event.get("event_payload") or ""))
    except ValueError as exc:
        raise EventLogMalformedError(f"event log: event {number} has a digest or payload that is not hex") from exc
    if type(register) is not int or not 0 <= register < RTMR_COUNT or len(digest) != _SHA384_SIZE:
        raise EventLogMalformedError(f"event log: event {number} needs imr 0 to 3 and a SHA-384 digest")
    if type(kind) is not int or not 0 <= kind < 1 << 32:
        raise EventLogMalformedError(f"event log: event {number} needs event_type, a number of 32 bits")
    return Event(register + 1, kind, {"sha384": digest}, data)
