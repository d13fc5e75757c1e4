"""Every way to damage an encrypted file that its readers, in Python and on the JVM, must notice."""

from __future__ import annotations

from collections.abc import Iterator

PREAMBLE = 512
HEADER = 40
SEGMENT = 65536
TAG = 16


def _flip(data: bytes, position: int, mask: int = 0x01) -> bytes:
    return data[:position] + bytes([data[position] ^ mask]) + data[position + 1 :]


def _spans(data: bytes) -> list[tuple[int, int]]:
    """Start and end of each segment's ciphertext, tag included."""
    body = len(data) - PREAMBLE
    spans = []
    for start in range(0, body, SEGMENT):
        first = HEADER if start == 0 else 0
        spans.append((PREAMBLE + start + first, PREAMBLE + min(start + SEGMENT, body)))
    return spans


def _preamble_positions(data: bytes) -> Iterator[tuple[str, int]]:
    length = int.from_bytes(data[6:8], "big")
    for i in range(4):
        yield f"magic byte {i}", i
    yield "version", 4
    yield "flags", 5
    yield "header length high", 6
    yield "header length low", 7
    header = data[8 : 8 + length]
    for member in (b"alg", b"dataset", b"file_id", b"kek", b"wrapped_dek"):
        name = header.index(b'"' + member + b'":')
        value = name + len(member) + 3
        end = header.find(b',"', value)
        end = length - 1 if end < 0 else end
        yield f"header name {member.decode()}", 8 + name + 1
        for where, position in (
            ("start", value),
            ("second", value + 1),
            ("middle", (value + end) // 2),
            ("end", end - 1),
        ):
            yield f"header value {member.decode()} {where}", 8 + min(position, end - 1)
    yield "header opening brace", 8
    yield "header closing brace", 8 + length - 1
    yield "padding start", 8 + length
    yield "padding middle", (8 + length + PREAMBLE) // 2
    yield "padding end", PREAMBLE - 1
    yield "stream header length", PREAMBLE
    for where, offset in (("start", 1), ("middle", 16), ("end", 32)):
        yield f"salt {where}", PREAMBLE + offset
    for where, offset in (("start", 33), ("end", 39)):
        yield f"nonce prefix {where}", PREAMBLE + offset


def damages(file_bytes: bytes) -> Iterator[tuple[str, bytes]]:
    """``(name, damaged bytes)`` for a whole encrypted file; needs at least 4 segments to yield every case.

    Names are unique and hold only letters, digits, spaces, ``+`` and ``-``."""
    data = file_bytes
    for name, position in _preamble_positions(data):
        yield f"flip low bit of {name}", _flip(data, position)
        yield f"flip high bit of {name}", _flip(data, position, 0x80)
    spans = _spans(data)
    for i, (start, end) in enumerate(spans):
        kind = f"segment {i}{' last' if i == len(spans) - 1 else ''}"
        places = {"tag start": end - TAG, "tag end": end - 1}
        if end - TAG > start:
            places |= {"start": start, "middle": (start + end - TAG) // 2, "last byte": end - TAG - 1}
        for where, position in places.items():
            yield f"flip {kind} {where}", _flip(data, position, 0x10)
    yield from _cuts(data, spans)
    yield from _additions(data, spans)
    yield from _rearrangements(data, spans)


def _cuts(data: bytes, spans: list[tuple[int, int]]) -> Iterator[tuple[str, bytes]]:
    for length in (0, 1, 7, PREAMBLE - 1, PREAMBLE, PREAMBLE + 1, PREAMBLE + HEADER - 1, PREAMBLE + HEADER):
        yield f"cut to {length}", data[:length]
    for length in (PREAMBLE + HEADER + TAG - 1, PREAMBLE + HEADER + TAG, PREAMBLE + HEADER + TAG + 1):
        if length < len(data):
            yield f"cut to {length}", data[:length]
    for i, (_, end) in enumerate(spans):
        for delta in (-TAG - 1, -TAG, -1, 0, 1, TAG, TAG + 1):
            if PREAMBLE + HEADER + TAG + 1 < end + delta < len(data):
                yield f"cut at end of segment {i} {delta:+d}", data[: end + delta]


def _additions(data: bytes, spans: list[tuple[int, int]]) -> Iterator[tuple[str, bytes]]:
    start, end = spans[-1]
    yield "append one zero", data + b"\0"
    yield "append a tag of zeros", data + bytes(TAG)
    yield "append a segment of zeros", data + bytes(SEGMENT)
    yield "append the last segment again", data + data[start:end]
    yield "append the file again", data + data
    yield "fill the last segment up", data + bytes(max(SEGMENT - (end - start), 1))
    yield "insert a byte after the preamble", data[:PREAMBLE] + b"\0" + data[PREAMBLE:]
    yield "prepend a byte", b"\0" + data


def _rearrangements(data: bytes, spans: list[tuple[int, int]]) -> Iterator[tuple[str, bytes]]:
    segments = [data[start:end] for start, end in spans]
    head = data[: PREAMBLE + HEADER]

    def joined(order: list[int]) -> bytes:
        return head + b"".join(segments[i] for i in order)

    order = list(range(len(segments)))
    for i in order[:-1]:
        if len(segments[i]) != len(segments[i + 1]) or segments[i] != segments[i + 1]:
            yield f"swap segments {i} and {i + 1}", joined([*order[:i], i + 1, i, *order[i + 2 :]])
    for i in order:
        yield f"duplicate segment {i}", joined([*order[: i + 1], *order[i:]])
        if len(order) > 1:
            yield f"remove segment {i}", joined([*order[:i], *order[i + 1 :]])
    for i in order[1:-1]:
        yield f"overwrite segment {i} with the next", joined([*order[:i], i + 1, *order[i + 1 :]])
        yield f"overwrite segment {i} with the one before", joined([*order[:i], i - 1, *order[i + 1 :]])
    yield "reverse all segments", joined(order[::-1]) if len(order) > 1 else data[::-1]
