"""Encrypt, decrypt, verify and inspect whole directories: all of it or nothing, whatever happens on the way."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from casemate.data.decrypting import decrypt_stream, decrypt_tree, verify_tree
from casemate.data.encrypting import encrypt_stream, encrypt_tree
from casemate.data.errors import SourceMissingError
from casemate.data.format import plaintext_size
from casemate.data.objects import is_remote, object_store
from casemate.data.pool import Progress
from casemate.data.reader import read_preamble
from casemate.data.staging import storage_errors
from casemate.data.stored import files_below, open_stored
from casemate.data.trees import Location, TreeResult
from casemate.data.zones import local_path, local_uri, normalise
from casemate.model import DatasetName

__all__ = [
    "FileInfo",
    "Progress",
    "TreeResult",
    "decrypt_stream",
    "decrypt_tree",
    "encrypt_stream",
    "encrypt_tree",
    "inspect",
    "verify_tree",
]


@dataclass(frozen=True)
class FileInfo:
    """What an encrypted file says about itself; unverified, since no key was used. Sizes in bytes."""

    path: str  # a local path or a URI
    dataset: DatasetName
    key_version: int
    file_id: str
    plaintext_size: int
    stored_size: int


def inspect(path: Location) -> list[FileInfo]:
    """What the encrypted file, or each one below the directory, says about itself; needs no key.

    Raises ``FileMalformedError`` naming the first that is not an encrypted file, or ``SourceMissingError``."""
    text = os.fspath(path)
    with storage_errors(Path(text)):
        uri = normalise(text) if is_remote(text) else local_uri(text)
        single = object_store(uri).info(uri) is not None if is_remote(uri) else os.path.isfile(text)  # noqa: PTH113
        places = [uri] if single else [f"{uri}/{relative}" for relative, _ in files_below(uri)] if _there(text) else []
        if not places:
            raise SourceMissingError(f"{text}: not found, or holds no file")
        return [_info(place) for place in places]


def _there(path: str) -> bool:
    return is_remote(path) or os.path.isdir(path)  # noqa: PTH112


def _info(uri: str) -> FileInfo:
    name = local_path(uri) or uri
    raw, size = open_stored(uri)
    with raw:
        preamble = read_preamble(raw, name)
    plain = plaintext_size(size, name)
    return FileInfo(name, preamble.dataset, preamble.key_version, preamble.file_id, plain, size)
