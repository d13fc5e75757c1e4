"""Measured-boot event logs: TCG2 crypto-agile logs (PCRs) and CCEL logs (TDX RTMRs), replayed against quoted values.

A log is untrusted text about signed numbers. Replaying it and finding the quoted register proves the *digests* of its
events, in order; an event's data is proven only where its digest is the hash of that data (``Event.data_is_measured``).
TCG PC Client Platform Firmware Profile 1.06, section 10; for CCEL, UEFI 2.10 section 38.4.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from casemate.attestation.errors import MalformedEvidenceError
from casemate.attestation.wire import Reader
from casemate.errors import RefusedError

__all__ = [
    "Event",
    "EventLog",
    "EventLogBankError",
    "EventLogMalformedError",
    "EventLogMismatchError",
    "EventLogOversizedError",
    "EventLogTruncatedError",
    "check_pcrs",
    "check_rtmrs",
    "parse_event_log",
    "replay_pcrs",
    "replay_rtmrs",
]

MAX_LOG_BYTES = 16 * 1024 * 1024
MAX_EVENTS = 100_000
MAX_EVENT_BYTES = 1024 * 1024
MAX_BANKS = 8
PCR_COUNT = 24
RTMR_COUNT = 4

EV_NO_ACTION = 0x00000003
_SPEC_ID = b"Spec ID Event03\0"
_STARTUP_LOCALITY = b"StartupLocality\0"
_ALGORITHMS = {0x0004: ("sha1", 20), 0x000B: ("sha256", 32), 0x000C: ("sha384", 48), 0x000D: ("sha512", 64)}
_BANKS = frozenset(name for name, _ in _ALGORITHMS.values())
_DYNAMIC_PCRS = range(17, 23)  # start as all ones until a dynamic launch

_EVENT_NAMES = {
    0x00: "EV_PREBOOT_CERT",
    0x01: "EV_POST_CODE",
    0x03: "EV_NO_ACTION",
    0x04: "EV_SEPARATOR",
    0x05: "EV_ACTION",
    0x06: "EV_EVENT_TAG",
    0x07: "EV_S_CRTM_CONTENTS",
    0x08: "EV_S_CRTM_VERSION",
    0x09: "EV_CPU_MICROCODE",
    0x0A: "EV_PLATFORM_CONFIG_FLAGS",
    0x0B: "EV_TABLE_OF_DEVICES",
    0x0C: "EV_COMPACT_HASH",
    0x0D: "EV_IPL",
    0x80000001: "EV_EFI_VARIABLE_DRIVER_CONFIG",
    0x80000002: "EV_EFI_VARIABLE_BOOT",
    0x80000003: "EV_EFI_BOOT_SERVICES_APPLICATION",
    0x80000004: "EV_EFI_BOOT_SERVICES_DRIVER",
    0x80000005: "EV_EFI_RUNTIME_SERVICES_DRIVER",
    0x80000006: "EV_EFI_GPT_EVENT",
    0x80000007: "EV_EFI_ACTION",
    0x80000008: "EV_EFI_PLATFORM_FIRMWARE_BLOB",
    0x80000009: "EV_EFI_HANDOFF_TABLES",
    0x8000000A: "EV_EFI_PLATFORM_FIRMWARE_BLOB2",
    0x8000000B: "EV_EFI_HANDOFF_TABLES2",
    0x8000000C: "EV_EFI_VARIABLE_BOOT2",
    0x800000E0: "EV_EFI_VARIABLE_AUTHORITY",
}


class EventLogMalformedError(MalformedEvidenceError):
    """The event log is not a TCG2 crypto-agile log: no Spec ID event, or an event that breaks the format."""

    code = "eventlog-malformed"
    fix = "Read the log again from the kernel (binary_bios_measurements, or the CCEL ACPI table's data)."


class EventLogTruncatedError(MalformedEvidenceError):
    """The event log ends in the middle of an event."""

    code = "eventlog-truncated"
    fix = "Read the whole log; files below /sys have to be read to their end."


class EventLogOversizedError(MalformedEvidenceError):
    """The event log, one of its events, or a count in it is larger than any real machine's."""

    code = "eventlog-oversized"
    fix = "Read the log again from the kernel; a real one has some hundred events."


class EventLogBankError(RefusedError):
    """The event log carries no digests for the hash bank that was quoted."""

    code = "eventlog-bank-missing"
    fix = "Quote a bank that the firmware logs, or send the log of the quoted bank."


class EventLogMismatchError(RefusedError):
    """Replaying the event log gives another register value than the quoted one: an event was removed, added, changed
    or moved."""

    code = "eventlog-mismatch"
    fix = "Send the log of the same boot as the quote; the first register that differs is named."


@dataclass(frozen=True, slots=True)
class Event:
    """One measurement. ``register`` is a PCR number, or in a CCEL log 0 for MRTD and 1..4 for RTMR0..3."""

    register: int
    type: int
    digests: Mapping[str, bytes]
    data: bytes

    @property
    def name(self) -> str:
        return _EVENT_NAMES.get(self.type, f"0x{self.type:08x}")

    @property
    def is_measured(self) -> bool:
        """Whether the event extended its register; EV_NO_ACTION events only inform."""
        return self.type != EV_NO_ACTION

    @property
    def data_is_measured(self) -> bool:
        """Whether every digest is the hash of ``data``; if not, ``data`` is the log writer's word alone."""
        known = [(bank, digest) for bank, digest in self.digests.items() if bank in _BANKS]
        return self.is_measured and bool(known) and all(hashlib.new(b, self.data).digest() == d for b, d in known)


@dataclass(frozen=True, slots=True)
class EventLog:
    """A parsed log: its hash banks and its events in order, without the leading Spec ID event."""

    banks: tuple[str, ...]
    events: tuple[Event, ...]


def parse_event_log(raw: bytes) -> EventLog:
    """Read a crypto-agile log, TCG2 or CCEL; padding (all 00 or all ff) after the last event is passed over.

    Raises ``EventLogMalformedError``, ``EventLogTruncatedError`` or ``EventLogOversizedError``."""
    if len(raw) > MAX_LOG_BYTES:
        raise EventLogOversizedError(f"event log: {len(raw)} bytes, at most {MAX_LOG_BYTES}")
    reader = Reader(raw, name="event log", truncated=EventLogTruncatedError, order="little")
    algorithms = _parse_spec_id(reader)
    events: list[Event] = []
    while reader.left and not _is_padding(raw, reader.offset):
        if len(events) == MAX_EVENTS:
            raise EventLogOversizedError(f"event log: more than {MAX_EVENTS} events")
        events.append(_parse_event(reader, algorithms))
    return EventLog(tuple(name for name, _ in algorithms.values()), tuple(events))


def _is_padding(raw: bytes, offset: int) -> bool:
    """Whether nothing but padding follows. No event starts like padding does, so a false start is an error."""
    for filler in (b"\0", b"\xff"):
        if raw.startswith(filler * 8, offset) or (len(raw) - offset < 8 and raw[offset : offset + 1] == filler):
            if raw.count(filler, offset) == len(raw) - offset:
                return True
            if raw.startswith(filler * 8, offset):
                raise EventLogMalformedError(f"event log: padding at {offset} is followed by other bytes")
    return False


def _parse_spec_id(reader: Reader) -> dict[int, tuple[str, int]]:
    """The leading TCG_PCR_EVENT: which hash banks every later event carries, in the log's own order."""
    _register, kind = reader.u32("first register"), reader.u32("first event type")
    reader.take(20, "first digest")
    size = reader.u32("first event size")
    if size > MAX_EVENT_BYTES:
        raise EventLogOversizedError(f"event log: first event says {size} bytes, at most {MAX_EVENT_BYTES}")
    body = Reader(
        reader.take(size, "Spec ID event"), name="Spec ID event", truncated=EventLogTruncatedError, order="little"
    )
    if kind != EV_NO_ACTION or body.take(16, "signature") != _SPEC_ID:
        raise EventLogMalformedError("event log: does not start with a Spec ID Event03; SHA-1-only logs are not read")
    body.take(8, "platform class, version, errata, size of UINTN")
    count = body.u32("number of algorithms")
    if not 0 < count <= MAX_BANKS:
        raise EventLogOversizedError(f"event log: {count} hash algorithms, need 1 to {MAX_BANKS}")
    algorithms: dict[int, tuple[str, int]] = {}
    for _ in range(count):
        identifier, digest_size = body.u16("algorithm"), body.u16("digest size")
        name, known_size = _ALGORITHMS.get(identifier, (f"0x{identifier:04x}", digest_size))
        if identifier in algorithms or digest_size != known_size or digest_size > 64:
            raise EventLogMalformedError(f"event log: algorithm 0x{identifier:04x} with digests of {digest_size} bytes")
        algorithms[identifier] = (name, digest_size)
    body.take(body.u8("vendor info size"), "vendor info")
    if body.left:
        raise EventLogMalformedError(f"event log: {body.left} bytes after the Spec ID event's end")
    return algorithms


def _parse_event(reader: Reader, algorithms: Mapping[int, tuple[str, int]]) -> Event:
    """One TCG_PCR_EVENT2."""
    start = reader.offset
    register, kind, count = reader.u32("register"), reader.u32("event type"), reader.u32("digest count")
    if register >= PCR_COUNT:
        raise EventLogMalformedError(f"event log: event at {start} is for register {register}, there are {PCR_COUNT}")
    if count > MAX_BANKS:
        raise EventLogOversizedError(f"event log: event at {start} has {count} digests, at most {MAX_BANKS}")
    digests: dict[str, bytes] = {}
    for _ in range(count):
        identifier = reader.u16("digest algorithm")
        if identifier not in algorithms:
            raise EventLogMalformedError(
                f"event log: event at {start} has algorithm 0x{identifier:04x}, which the Spec ID event does not list"
            )
        name, size = algorithms[identifier]
        if name in digests:
            raise EventLogMalformedError(f"event log: event at {start} has two {name} digests")
        digests[name] = reader.take(size, "digest")
    if len(digests) != len(algorithms):
        raise EventLogMalformedError(
            f"event log: event at {start} has {len(digests)} digests, the Spec ID event lists {len(algorithms)}"
        )
    size = reader.u32("event size")
    if size > MAX_EVENT_BYTES:
        raise EventLogOversizedError(f"event log: event at {start} says {size} bytes, at most {MAX_EVENT_BYTES}")
    return Event(register, kind, digests, reader.take(size, "event data"))


def replay_pcrs(log: EventLog, bank: str) -> dict[int, bytes]:
    """The PCR values that the log's events lead to, for the PCRs it extends; raises ``EventLogBankError``."""
    _need_bank(log, bank)
    size = hashlib.new(bank).digest_size
    values: dict[int, bytes] = {}
    locality = 0
    for event in log.events:
        if event.is_measured:
            start = b"\xff" * size if event.register in _DYNAMIC_PCRS else bytes(size)
            if event.register == 0:
                start = bytes(size - 1) + bytes([locality])
            before = values.get(event.register, start)
            values[event.register] = hashlib.new(bank, before + event.digests[bank]).digest()
        elif event.register == 0 and event.data.startswith(_STARTUP_LOCALITY) and len(event.data) == 17:
            locality = event.data[16]
    return values


def replay_rtmrs(log: EventLog) -> tuple[bytes, ...]:
    """RTMR0..3 (SHA-384) that a CCEL log leads to; raises ``EventLogBankError`` or ``EventLogMalformedError``."""
    _need_bank(log, "sha384")
    values = [bytes(48)] * RTMR_COUNT
    for event in log.events:
        if not event.is_measured:
            continue
        if not 1 <= event.register <= RTMR_COUNT:
            raise EventLogMalformedError(f"CCEL: an event extends register {event.register}, RTMRs are 1 to 4")
        index = event.register - 1
        values[index] = hashlib.sha384(values[index] + event.digests["sha384"]).digest()
    return tuple(values)


def _need_bank(log: EventLog, bank: str) -> None:
    if bank not in log.banks or bank not in _BANKS:
        raise EventLogBankError(f"event log: has banks {', '.join(log.banks)}, need {bank}")


def check_pcrs(log: EventLog, bank: str, quoted: Mapping[int, bytes]) -> tuple[int, ...]:
    """The PCRs that the log explains: every quoted PCR that it extends, and all must match.

    Raises ``EventLogMismatchError`` naming the first that differs, also when none of the log's PCRs was quoted."""
    replayed = replay_pcrs(log, bank)
    explained = tuple(sorted(replayed.keys() & quoted.keys()))
    if not explained:
        raise EventLogMismatchError(f"event log: extends PCRs {sorted(replayed)}, quoted are {sorted(quoted)}")
    for number in explained:
        _compare(f"PCR {bank}:{number}", quoted[number], replayed[number])
    return explained


def check_rtmrs(log: EventLog, quoted: Iterable[bytes], *, registers: Iterable[int] = range(RTMR_COUNT)) -> None:
    """Replay a CCEL log and compare ``registers`` with the four quoted RTMRs.

    A guest that extends RTMR2 or RTMR3 after boot leaves them out. Raises ``EventLogMismatchError``."""
    replayed, values = replay_rtmrs(log), tuple(quoted)
    for number in registers:
        _compare(f"RTMR{number}", values[number], replayed[number])


def _compare(register: str, quoted: bytes, replayed: bytes) -> None:
    if not hmac.compare_digest(quoted, replayed):
        raise EventLogMismatchError(f"{register}: quoted {quoted.hex()}, the event log replays to {replayed.hex()}")
