"""Write the conformance kit ``casemate-format`` into ``conformance/``, or check that it is what this script writes.

Independent of the package on purpose: the format is built here once more, from its specification and ``cryptography``
alone, with every random value derived from its name, so that the kit is the same on every machine.

    python scripts/generate_conformance.py [--check]
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KIT = Path(__file__).resolve().parents[1] / "conformance"
DATASET, OTHER = "kit/patients", "kit/visits"
PREAMBLE, STREAM_HEADER, TAG, SEGMENT = 512, 40, 16, 65536  # bytes
FIRST, FULL = SEGMENT - STREAM_HEADER - TAG, SEGMENT - TAG  # plaintext bytes of the first segment, and of each other

Header = dict[str, Any]


def drawn(name: str, size: int) -> bytes:
    """Bytes that look random and are always the same for a name. For a test kit alone."""
    return hashlib.shake_256(f"casemate-format:{name}".encode()).digest(size)


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


KEYS = {(dataset, version): drawn(f"key {dataset} {version}", 32) for dataset in (DATASET, OTHER) for version in (1, 2)}


def canonical(value: Any) -> bytes:
    """RFC 8785, for the ASCII texts and small integers that occur here."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def header(name: str, *, dataset: str = DATASET, version: int = 1, context: str | None = None) -> Header:
    file_id = b64(drawn(f"file id {name}", 16))
    aad = context or f"casemate:dek:v1:{dataset}:{version}:{file_id}"
    nonce = drawn(f"wrap nonce {name}", 12)
    wrapped = nonce + AESGCM(KEYS[dataset, version]).encrypt(nonce, drawn(f"dek {name}", 32), aad.encode())
    return {
        "alg": "AES256-GCM-HKDF-64K",
        "dataset": dataset,
        "file_id": file_id,
        "kek": version,
        "wrapped_dek": b64(wrapped),
    }


def preamble(
    text: bytes, *, magic: bytes = b"CSMT", version: int = 1, flags: int = 0, length: int | None = None
) -> bytes:
    size = len(text) if length is None else length
    return (magic + bytes([version, flags]) + size.to_bytes(2, "big") + text).ljust(PREAMBLE, b"\0")[:PREAMBLE]


def body(name: str, content: bytes, aad: bytes, **flaw: Any) -> bytes:
    """Tink's AES256-GCM-HKDF streaming AEAD. ``flaw`` changes one thing of it."""
    salt, prefix = drawn(f"salt {name}", 32), drawn(f"prefix {name}", 7)
    info = flaw.get("info", aad)
    key = HKDF(hashes.SHA256(), 32, salt, info).derive(flaw.get("dek", drawn(f"dek {name}", 32)))
    segment = flaw.get("segment", SEGMENT)
    first, full = segment - STREAM_HEADER - TAG, segment - TAG
    pieces = [content[:first]] + [content[at : at + full] for at in range(first, len(content), full)]
    pieces += flaw.get("more", [])
    out = bytes([flaw.get("header_size", STREAM_HEADER)]) + salt + prefix
    for number, piece in enumerate(pieces):
        last = number == len(pieces) - 1
        if "last" in flaw:
            last = flaw["last"](number)
        counter = flaw.get("counter", lambda number: number)(number)
        nonce = prefix + counter.to_bytes(4, "big") + bytes([last])
        out += AESGCM(key).encrypt(nonce, piece, flaw.get("segment_aad", b""))
    return out


def whole(name: str, content: bytes, **of_header: Any) -> bytes:
    """A file as a writer must write it."""
    start = preamble(canonical(header(name, **of_header)))
    return start + body(name, content, start)


def content(size: int) -> bytes:
    """The plaintext of every file of a size."""
    return drawn("content", size)


VALID: dict[str, tuple[int, dict[str, Any]]] = {
    "empty": (0, {}),
    "one-byte": (1, {}),
    "one-row": (33, {}),
    "first-segment-less-one": (FIRST - 1, {}),
    "first-segment-exactly": (FIRST, {}),
    "first-segment-and-one": (FIRST + 1, {}),
    "two-segments-exactly": (FIRST + FULL, {}),
    "three-segments": (FIRST + FULL + 1000, {}),
    "second-key-version": (33, {"version": 2}),
}


def damaged() -> Iterator[tuple[str, str, bytes]]:
    """Name, what is wrong, and the bytes. All but the flaw is sound: the body is bound to the flawed preamble."""
    yield from spoiled_preambles()
    yield from spoiled_bodies()
    yield from spoiled_stretches()


def spoiled_preambles() -> Iterator[tuple[str, str, bytes]]:
    name, data = "one-row", content(33)
    good = header(name)
    text = canonical(good)

    def bound(flawed: bytes) -> bytes:
        return flawed + body(name, data, flawed)

    def member(**changed: Any) -> bytes:
        return bound(preamble(canonical({**good, **changed})))

    yield "magic-lower-case", "begins with csmt", bound(preamble(text, magic=b"csmt"))
    yield "magic-of-another", "begins with CSMX", bound(preamble(text, magic=b"CSMX"))
    yield "version-0", "format version 0", bound(preamble(text, version=0))
    yield "version-2", "format version 2", bound(preamble(text, version=2))
    yield "flags-1", "an unknown flag", bound(preamble(text, flags=1))
    yield "flags-128", "an unknown flag", bound(preamble(text, flags=128))
    yield "padding-first-byte", "the first padding byte is 1", bound(spoil(preamble(text), 8 + len(text), 1))
    yield "padding-last-byte", "the last padding byte is 1", bound(spoil(preamble(text), PREAMBLE - 1, 1))
    yield "padding-of-spaces", "padded with spaces", bound(preamble(text).rstrip(b"\0").ljust(PREAMBLE))
    yield "header-length-short", "the length leaves out the closing brace", bound(preamble(text, length=len(text) - 1))
    yield "header-length-long", "the length takes in a padding byte", bound(preamble(text, length=len(text) + 1))
    yield "header-length-beyond", "the length goes beyond the preamble", bound(preamble(text, length=505))
    yield "header-length-0", "no header", bound(preamble(b""))
    yield "header-not-json", "the header is not JSON", bound(preamble(text[:-1] + b"]"))
    yield "header-not-an-object", "the header is a list", bound(preamble(b"[" + text + b"]"))
    yield "header-not-utf-8", "a byte that is not UTF-8", bound(preamble(text.replace(b"patients", b"patient\xff")))
    yield "header-with-bom", "a byte order mark", bound(preamble(b"\xef\xbb\xbf" + text))
    yield "header-with-space", "a space between members", bound(preamble(text.replace(b",", b", ", 1)))
    yield "header-with-newline", "a newline at the end", bound(preamble(text + b"\n"))
    swapped = {key: good[key] for key in ("dataset", "alg", "file_id", "kek", "wrapped_dek")}
    unsorted = json.dumps(swapped, separators=(",", ":")).encode()
    yield "header-unsorted", "members in another order", bound(preamble(unsorted))
    yield (
        "header-escaped",
        "a letter written as an escape",
        bound(preamble(text.replace(b"patients", b"\\u0070atients"))),
    )
    yield "header-member-twice", "kek twice", bound(preamble(text.replace(b'"kek":1', b'"kek":1,"kek":1')))
    yield "header-member-more", "an unknown member", member(note="x")
    for missing in good:
        rest = canonical({key: value for key, value in good.items() if key != missing})
        yield f"header-without-{missing.replace('_', '-')}", f"{missing} is missing", bound(preamble(rest))
    yield "alg-another", "AES128", member(alg="AES128-GCM-HKDF-64K")
    yield "alg-null", "alg is null", member(alg=None)
    yield "dataset-without-owner", "a name of one part", member(dataset="patients")
    yield "dataset-three-parts", "a name of three parts", member(dataset="kit/a/b")
    yield "dataset-upper-case", "a name with a capital", member(dataset="Kit/patients")
    yield "dataset-empty", "an empty name", member(dataset="")
    yield "dataset-another", "another dataset of the same owner, with its key", whole("other", data, dataset=OTHER)
    yield "dataset-renamed", "written for another dataset, renamed", renamed(data)
    yield "kek-0", "key version 0", member(kek=0)
    yield "kek-negative", "key version -1", member(kek=-1)
    yield "kek-too-large", "key version 2147483648", member(kek=2**31)
    yield "kek-text", "key version as a text", member(kek="1")
    yield "kek-true", "key version true", member(kek=True)
    yield "kek-fraction", "key version 1.0", bound(preamble(text.replace(b'"kek":1', b'"kek":1.0')))
    yield "kek-unknown", "a key version that does not exist", member(kek=9)
    yield "kek-of-another-version", "wrapped under version 1, says 2", member(kek=2)
    yield "file-id-15-bytes", "a file id of 15 bytes", member(file_id=b64(drawn("file id", 15)))
    yield "file-id-17-bytes", "a file id of 17 bytes", member(file_id=b64(drawn("file id", 17)))
    yield "file-id-another", "another file's id", member(file_id=b64(drawn("file id of another", 16)))
    yield "file-id-unpadded", "base64 without its padding", member(file_id=good["file_id"].rstrip("="))
    yield "file-id-loose-bits", "base64 with bits set behind the end", member(file_id=loose(good["file_id"]))
    yield "file-id-number", "a number", member(file_id=7)
    yield (
        "wrapped-dek-59-bytes",
        "one byte too few",
        member(wrapped_dek=b64(base64.b64decode(good["wrapped_dek"])[:-1])),
    )
    yield (
        "wrapped-dek-61-bytes",
        "one byte too many",
        member(wrapped_dek=b64(base64.b64decode(good["wrapped_dek"]) + b"\0")),
    )
    yield "wrapped-dek-with-newline", "base64 with a newline", member(wrapped_dek=good["wrapped_dek"] + "\n")
    for where, at in {"nonce": 0, "ciphertext": 20, "tag": 59}.items():
        raw = base64.b64decode(good["wrapped_dek"])
        yield (
            f"wrapped-dek-{where}-flipped",
            f"a bit of its {where}",
            member(wrapped_dek=b64(spoil(raw, at, raw[at] ^ 1))),
        )
    other = header(name, context=f"casemate:dek:v1:{DATASET}:1")
    start = preamble(canonical(other))
    yield "wrapped-dek-another-context", "wrapped in a context without the file id", start + body(name, data, start)


def spoiled_bodies() -> Iterator[tuple[str, str, bytes]]:
    """One segment."""
    name, data = "one-row", content(33)
    start = preamble(canonical(header(name)))
    good = start + body(name, data, start)
    yield "stream-header-size-39", "the stream's header says 39 bytes", start + body(name, data, start, header_size=39)
    yield "stream-header-size-41", "the stream's header says 41 bytes", start + body(name, data, start, header_size=41)
    for where, at in {"salt": 513, "nonce-prefix": 545, "ciphertext": 552, "tag": len(good) - 1}.items():
        yield f"{where}-flipped", f"a bit of the {where}", spoil(good, at, good[at] ^ 0x20)
    yield "associated-data-none", "the body is bound to nothing", start + body(name, data, start, info=b"")
    yield (
        "associated-data-header-alone",
        "bound to the JSON, not the preamble",
        start + body(name, data, start, info=canonical(header(name))),
    )
    yield (
        "associated-data-per-segment",
        "the preamble also as associated data of each segment",
        start + body(name, data, start, segment_aad=start),
    )
    yield "key-another", "the body under another file key", start + body(name, data, start, dek=drawn("another", 32))
    yield (
        "not-last",
        "the last segment is not marked as the last",
        start + body(name, data, start, last=lambda _: False),
    )
    yield (
        "counter-from-1",
        "segments counted from 1",
        start + body(name, data, start, counter=lambda number: number + 1),
    )
    yield "nothing", "no byte at all", b""
    yield "preamble-cut", "half a preamble", good[:256]
    yield "preamble-alone", "no body", good[:PREAMBLE]
    yield "stream-header-alone", "no segment", good[: PREAMBLE + STREAM_HEADER]
    yield "tag-cut", "a byte less than a tag", good[: PREAMBLE + STREAM_HEADER + TAG - 1]
    yield "last-byte-cut", "without the last byte", good[:-1]
    yield "byte-appended", "a byte more", good + b"\0"
    yield "byte-prepended", "a byte before", b"\0" + good
    yield "file-twice", "the file after itself", good + good


def spoiled_stretches() -> Iterator[tuple[str, str, bytes]]:
    """Several segments."""
    name = "three-segments"
    data = content(FIRST + FULL + 1000)
    start = preamble(canonical(header(name)))
    good = start + body(name, data, start)
    edges = [PREAMBLE + STREAM_HEADER, PREAMBLE + SEGMENT, PREAMBLE + 2 * SEGMENT, len(good)]
    head, (one, two, three) = good[: edges[0]], [good[a:b] for a, b in pairwise(edges)]
    yield "last-segment-removed", "cut at the end of the second segment", head + one + two
    yield "second-segment-removed", "the second of three segments is gone", head + one + three
    yield "second-segment-twice", "the second segment twice", head + one + two + two + three
    yield "last-segment-twice", "the last segment twice", good + three
    swapped = whole("third", data)
    yield (
        "segment-of-another-file",
        "the second segment of another file",
        head + one + swapped[edges[1] : edges[2]] + three,
    )
    yield "cut-in-second-segment", "cut inside the second segment", good[: edges[1] + 100]
    yield (
        "two-last-segments",
        "the second segment is marked as the last as well",
        start + body(name, data, start, last=lambda number: number >= 1),
    )
    exact = content(FIRST)
    yield (
        "empty-segment-appended",
        "an empty last segment behind a full one",
        start + body(name, exact, start, more=[b""]),
    )
    yield "segments-of-4-KiB", "segments of another size", start + body(name, content(9000), start, segment=4096)


def renamed(data: bytes) -> bytes:
    start = preamble(canonical({**header("other", dataset=OTHER), "dataset": DATASET}))
    return start + body("other", data, start)


def loose(text: str) -> str:
    """The same bytes in base64, with bits set that a decoder ignores."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = len(text.rstrip("=")) - 1
    return text[:last] + alphabet[alphabet.index(text[last]) | 1] + text[last + 1 :]


def spoil(data: bytes, position: int, value: int) -> bytes:
    return data[:position] + bytes([value]) + data[position + 1 :]


def kit() -> dict[str, bytes]:
    """Every file of the kit by its path."""
    files: dict[str, bytes] = {}
    valid = []
    for name, (size, of_header) in VALID.items():
        path = f"valid/{name}.csmt"
        files[path] = whole(name, content(size), **of_header)
        digest = hashlib.sha256(content(size)).hexdigest()
        valid.append({"file": path, "plaintext_size": size, "plaintext_sha256": digest})
    refused = []
    for name, flaw, data in damaged():
        path = f"damaged/{name}.csmt"
        if path in files:
            raise ValueError(f"{path}: twice")
        files[path] = data
        refused.append({"file": path, "flaw": flaw})
    keys = [{"dataset": dataset, "version": version, "key": b64(key)} for (dataset, version), key in KEYS.items()]
    value = {
        "kit": "casemate-format",
        "format_version": 1,
        "dataset": DATASET,
        "keys": keys,
        "valid": valid,
        "damaged": refused,
    }
    files["vectors.json"] = json.dumps(value, indent=1).encode() + b"\n"
    return files


def main(write: Callable[[str], object] = print) -> int:
    files = kit()
    there = {path.relative_to(KIT).as_posix(): path for path in KIT.rglob("*") if path.is_file()}
    there.pop("README.md", None)
    if "--check" in sys.argv[1:]:
        wrong = sorted(
            files.keys() ^ there.keys() | {p for p in files.keys() & there.keys() if there[p].read_bytes() != files[p]}
        )
        if wrong:
            write(f"conformance/: {', '.join(wrong)}: not what scripts/generate_conformance.py writes; run it")
        return bool(wrong)
    for gone in there.keys() - files.keys():
        there[gone].unlink()
    for path, data in files.items():
        (KIT / path).parent.mkdir(parents=True, exist_ok=True)
        (KIT / path).write_bytes(data)
    write(f"wrote {len(files)} files, {sum(map(len, files.values()))} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
