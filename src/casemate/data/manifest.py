"""The manifest of a committed directory: which files belong to it, so that a missing, added or old one shows.

RFC 8785 JSON, authenticated under a key derived from the dataset key; its SHA-256 and generation number are recorded
away from the storage. No input or output here.
"""

from __future__ import annotations

import base64
import json
import operator
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from casemate.crypto.canonical import sha256_hex
from casemate.crypto.errors import SignatureInvalidError
from casemate.crypto.mac import MAC_SIZE, compute_mac, verify_mac
from casemate.data.errors import ManifestRolledBackError, ManifestTamperedError
from casemate.data.format import FILE_ID_SIZE, MAX_KEY_VERSION, parse_base64, stored_size
from casemate.data.generations import Generation
from casemate.data.keys import DatasetKey, KeyProvider
from casemate.data.zones import HIDDEN_DIRECTORY
from casemate.errors import UsageError
from casemate.model import DatasetName

__all__ = [
    "STAGING_PREFIX",
    "TEMPORARY_DIRECTORY",
    "Manifest",
    "ManifestFile",
    "build_manifest",
    "is_hidden",
    "manifest_number",
    "manifest_path",
    "parse_manifest",
    "verify_manifest",
]

TEMPORARY_DIRECTORY = "_temporary"  # where Hadoop's committers and our own writers keep unfinished files
STAGING_PREFIX = ".spark-staging-"  # where Spark stages partitions that replace others
_PURPOSE = "casemate:manifest:v1"
_NAME = re.compile(r"manifest-(\d{10,19})-[0-9a-f]{16}\.json")
_MEMBERS = {"dataset", "files", "generation", "kek", "location", "mac", "version"}
_END = re.compile(rb',"mac":"([A-Za-z0-9+/]{43}=)","version":1\}')
_END_SIZE = len(b',"mac":"","version":1}') + 44  # bytes
_END_WITHOUT_MAC = b',"version":1}'
_FILE_ID = re.compile(r"[A-Za-z0-9+/]{21}[AQgw]==")  # the one spelling of 16 bytes
_NEVER_LISTED = re.compile(r"(?:^|/)(?:\.{0,2}|_casemate|_temporary|\.spark-staging-[^/]*)(?:/|$)|\0")


def manifest_path(generation: Generation) -> str:
    """Where the manifest of a generation lies, relative to the committed directory.

    With the begin of its digest, so that two jobs that commit at once do not write one file."""
    return f"{HIDDEN_DIRECTORY}/manifest-{generation.number:010d}-{str(generation.digest)[:16]}.json"


def manifest_number(name: str) -> int | None:
    """The generation in a manifest's file name; ``None`` for any other name."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match and f"{int(match[1]):010d}" == match[1] else None


def is_hidden(relative_path: str) -> bool:
    """Whether a path below a committed directory is never part of its data."""
    return any(
        name in (HIDDEN_DIRECTORY, TEMPORARY_DIRECTORY) or name.startswith(STAGING_PREFIX)
        for name in relative_path.split("/")
    )


class ManifestFile(NamedTuple):
    """One file: its path below the committed directory, its stored length in bytes, its file id (base64)."""

    path: str
    length: int
    file_id: str


@dataclass(frozen=True)
class Manifest:
    """A committed directory's content."""

    dataset: DatasetName
    key_version: int  # of the key that authenticates the manifest; the files name their own
    location: str
    generation: int
    files: tuple[ManifestFile, ...]  # sorted by the UTF-8 bytes of their path

    @cached_property
    def by_path(self) -> Mapping[str, ManifestFile]:
        return {file.path: file for file in self.files}

    @cached_property
    def directories(self) -> frozenset[str]:
        """The directories that hold listed files, at any depth."""
        found: set[str] = set()
        for file in self.files:
            above = file.path.rpartition("/")[0]
            while above and above not in found:
                found.add(above)
                above = above.rpartition("/")[0]
        return frozenset(found)


def build_manifest(key: DatasetKey, location: str, generation: int, files: Iterable[ManifestFile]) -> bytes:
    """The manifest file's bytes, authenticated under ``key``."""
    document: dict[str, Any] = {
        "version": 1,
        "dataset": str(key.dataset),
        "kek": key.version,
        "location": location,
        "generation": generation,
        "files": [
            {"file_id": file.file_id, "length": file.length, "path": file.path}
            for file in sorted(files, key=lambda file: file.path.encode())
        ],
    }
    message = _canonical(document)
    mac = base64.b64encode(compute_mac(key.secret, message, purpose=_PURPOSE))
    return b"".join((message[: -len(_END_WITHOUT_MAC)], b',"mac":"', mac, b'"', _END_WITHOUT_MAC))


def _canonical(document: dict[str, Any]) -> bytes:
    """RFC 8785 of what a manifest is made of (ASCII names, texts, small integers), many times as fast as of anything.

    The last member is ``version``, the one before it ``mac``, so that the authenticated bytes are those of the file
    but for one piece near their end."""
    text = json.dumps(document, ensure_ascii=False, sort_keys=True, separators=(",", ":"), check_circular=False)
    try:
        return text.encode()
    except UnicodeEncodeError as exc:
        raise UsageError("a file name is not UTF-8, and cannot be in a manifest") from exc


def parse_manifest(raw: bytes, name: str) -> tuple[Manifest, bytes, bytes]:
    """The manifest, unverified, with its MAC and the bytes that are authenticated.

    Raises ``ManifestTamperedError`` for anything that ``build_manifest`` would not have written."""
    try:
        end = _END.fullmatch(raw[-_END_SIZE:])
        document = json.loads(raw)
        if end is None or not isinstance(document, dict) or document.keys() != _MEMBERS:
            raise ValueError(f"need exactly the members {', '.join(sorted(_MEMBERS))}")
        _number(document["version"], 1)
        if not isinstance(document["files"], list):
            raise ValueError("files is not a list")
        if _canonical(document) != raw:
            raise ValueError("not in RFC 8785 form")
        manifest = Manifest(
            DatasetName.parse(_text(document["dataset"])),
            _number(document["kek"], MAX_KEY_VERSION),
            _text(document["location"]),
            _number(document["generation"], 2**53 - 1),
            tuple([_parse_file(file) for file in document["files"]]),
        )
        paths = [file.path.encode() for file in manifest.files]
        if any(map(operator.ge, paths, paths[1:])):
            raise ValueError("files are not sorted, or one is listed twice")
        mac = parse_base64(end[1].decode(), MAC_SIZE, "mac")
    except (ValueError, TypeError, KeyError, RecursionError, UsageError) as exc:
        raise ManifestTamperedError(f"{name}: not a manifest: {exc}") from exc
    return manifest, mac, raw[:-_END_SIZE] + _END_WITHOUT_MAC


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"need a text, got {value!r}")
    return value


def _number(value: object, most: int) -> int:
    if type(value) is not int or not 1 <= value <= most:
        raise ValueError(f"need a number from 1 to {most}, got {value!r}")
    return value


def _parse_file(entry: object) -> ManifestFile:
    if not isinstance(entry, dict) or len(entry) != 3:
        raise ValueError("a file needs exactly file_id, length and path")
    path, length, file_id = _text(entry["path"]), entry["length"], _text(entry["file_id"])
    if _NEVER_LISTED.search(path):
        raise ValueError(f"path {path!r} cannot be in a manifest")
    if not _FILE_ID.fullmatch(file_id):
        raise ValueError(f"file id of {path!r} is not {FILE_ID_SIZE} bytes in base64")
    if type(length) is not int or not _SMALLEST <= length < 2**53:
        raise ValueError(f"length {length!r} of {path!r} is not one that a file can have")
    return ManifestFile(path, length, file_id)


_SMALLEST = stored_size(0)


def verify_manifest(
    raw: bytes, recorded: Generation, *, dataset: DatasetName, location: str, keys: KeyProvider, name: str
) -> Manifest:
    """The manifest in ``raw``, when it is the recorded one of ``dataset`` at ``location``.

    Raises ``ManifestRolledBackError`` for an older one, else ``ManifestTamperedError``; or what ``keys`` raises."""
    # 1. The very bytes that were recorded.   3. Authentic under the dataset key.
    # 2. In the one form a writer writes.     4. For this dataset, place and generation.
    digest = sha256_hex(raw)
    if digest != recorded.digest:  # (1)
        stored = parse_manifest(raw, name)[0].generation  # unverified: words the refusal, decides nothing
        if stored < recorded.number:
            raise ManifestRolledBackError(f"{name}: rolled back from generation {recorded.number} to {stored}")
        raise ManifestTamperedError(f"{name}: digest {digest[:16]}…, recorded {str(recorded.digest)[:16]}…")
    manifest, mac, message = parse_manifest(raw, name)  # (2)
    if manifest.dataset != dataset:  # (4), before its key is asked for
        raise ManifestTamperedError(f"{name}: for dataset {manifest.dataset}, need {dataset}")
    try:
        verify_mac(keys.key(dataset, manifest.key_version).secret, message, mac, purpose=_PURPOSE)  # (3)
    except SignatureInvalidError as exc:
        raise ManifestTamperedError(f"{name}: does not authenticate under version {manifest.key_version}") from exc
    if (manifest.location, manifest.generation) != (location, recorded.number):  # (4)
        raise ManifestTamperedError(
            f"{name}: generation {manifest.generation} of {manifest.location}, need {recorded.number} of {location}"
        )
    return manifest
