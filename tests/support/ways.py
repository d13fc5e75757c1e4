"""What becomes of odd files and paths by every way into a zone: tests compare each with plain storage and with this
table, the documentation prints it."""

from __future__ import annotations

from pathlib import Path

from casemate.crypto.stream import HEADER_SIZE, SEGMENT_PLAINTEXT_SIZE, SEGMENT_SIZE, TAG_SIZE, StreamEncrypter
from casemate.data.format import PREAMBLE_SIZE, new_preamble, stored_size
from casemate.data.keys import DatasetKey

__all__ = ["BIG", "CASES", "MANY", "PLAIN", "PROBE", "TABLE", "WAYS", "make_big_file", "make_odd_files"]

BIG = 5 * 10**9  # bytes
PLAIN = "as plain"
MANY = 10_000

WAYS = {"spark": "Spark", "fsspec": "fsspec", "mount": "`--mount`", "stage": "`--stage`", "cli": "encrypt, decrypt"}

CASES = {
    "unknown": "a file of an unknown format",
    "empty": "an empty file",
    "empty-directory": "an empty directory",
    "no-rows": "a CSV file with no row",
    "names": "names with spaces, `%` and letters of any alphabet",
    "many": f"{MANY:,} small files",
    "big": "a file of 5 GB",
    "link-out": "a symbolic link out of the zone, put there by others",
    "dots-inside": "a path with `..` that stays in the zone",
    "dots-out": "a write to a path with `..` that leads out of the zone",
}

TABLE: dict[str, dict[str, str]] = {
    **{case: dict.fromkeys(WAYS, PLAIN) for case in CASES},
    "link-out": {
        "spark": "`zone-access-denied`",
        "fsspec": "`zone-access-denied`",
        "mount": "permission denied",
        "stage": "is not there",
        "cli": "decrypting leaves it out",
    },
    "dots-out": {
        "spark": "`outside-zones`",
        "fsspec": "`outside-zones`",
        "mount": "read-only file system",
        "stage": "stays in private memory",
        "cli": PLAIN,
    },
}
"""By case and way in; ``PLAIN`` is checked against the same action on plain storage."""


def make_odd_files(root: Path, many: int = MANY) -> None:
    """One of each below ``root``, which is made."""
    (root / "many").mkdir(parents=True)
    for number in range(many):
        (root / "many" / f"{number:05d}").write_text(str(number))
    (root / "unknown.xyz").write_bytes(bytes(range(256)) * 300)
    (root / "empty").touch()
    (root / "no-rows.csv").write_text("id,name\n")
    (root / "empty-directory").mkdir()
    (root / "a b" / "ü %25 имя").mkdir(parents=True)
    (root / "a b" / "ü %25 имя" / "x=1 文.txt").write_text("found", encoding="utf-8")


def make_big_file(path: Path, key: DatasetKey, marks: dict[int, bytes]) -> None:
    """An encrypted file of ``BIG`` bytes that is all hole but for where ``marks`` (by offset) lie, and its end.

    It takes no room on the disk; whoever reads a hole is told that it does not authenticate."""
    preamble, dek = new_preamble(key)
    header = StreamEncrypter(dek, preamble.raw).header
    first, count = SEGMENT_PLAINTEXT_SIZE - HEADER_SIZE, stored_segments(BIG)
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        file.truncate(stored_size(BIG))
        file.write(preamble.raw + header)
        near = {(offset - first) // SEGMENT_PLAINTEXT_SIZE + 1 + more for offset in marks for more in range(3)}
        for index in sorted(near & set(range(count)) | {count - 1}):
            begin = first + (index - 1) * SEGMENT_PLAINTEXT_SIZE
            segment = bytearray(min(SEGMENT_PLAINTEXT_SIZE, BIG - begin))
            for offset, mark in marks.items():
                if begin <= offset < begin + len(segment):
                    segment[offset - begin : offset - begin + len(mark)] = mark
            out = bytearray(len(segment) + TAG_SIZE)
            part = StreamEncrypter.part(dek, preamble.raw, header, first=index, end=index + 1)
            part.encrypt(segment, out, last=index == count - 1)
            file.seek(PREAMBLE_SIZE + index * SEGMENT_SIZE)
            file.write(out)


def stored_segments(size: int) -> int:
    """Segments of a file of ``size`` bytes."""
    return -(-(stored_size(size) - PREAMBLE_SIZE) // SEGMENT_SIZE)


PROBE = """
import csv, hashlib, json, os, sys

def look(root):
    def digest(name):
        with open(f"{root}/{name}", "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()

    with open(f"{root}/no-rows.csv", newline="") as file:
        rows = csv.DictReader(file)
        rows = [list(rows), rows.fieldnames]
    many = sorted(os.listdir(f"{root}/many"))
    return {
        "unknown": [digest("unknown.xyz"), os.path.getsize(f"{root}/unknown.xyz")],
        "empty": [digest("empty"), os.path.getsize(f"{root}/empty")],
        "empty-directory": os.listdir(f"{root}/empty-directory"),
        "no-rows": rows,
        "names": sorted(name for _, names, files in os.walk(f"{root}/a b") for name in names + files),
        "many": [len(many), many[-1], sum(int(open(f"{root}/many/{name}").read()) for name in many[::100])],
        "dots-inside": digest("a b/../many/../unknown.xyz"),
    }

def attempt(action):
    try:
        action()
    except OSError as exc:
        return os.strerror(exc.errno).lower()
    return "done"

answers = look(sys.argv[1])
answers["link-out"] = attempt(lambda: open(sys.argv[1] + "/link-out").close())
if len(sys.argv) > 2:
    answers["dots-out"] = attempt(lambda: open(sys.argv[2] + "/../outside/leaked", "w").close())
print(json.dumps(answers))
"""
"""A program for plain paths: a directory to look at and one to write out of; prints its answers by case."""
