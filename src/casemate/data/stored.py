"""Encrypted data where it lies, by URI: on this machine's file systems or in an object store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from casemate.data import local
from casemate.data.errors import ManifestMissingError, ManifestRolledBackError
from casemate.data.generations import Generation
from casemate.data.manifest import manifest_number, manifest_path
from casemate.data.objects import object_store
from casemate.data.zones import HIDDEN_DIRECTORY, local_path

__all__ = ["files_below", "open_stored", "read_manifest", "remove", "stored_manifests", "write_manifest"]


def open_stored(uri: str) -> tuple[BinaryIO, int]:
    """The file or object at a normalised URI for reading at any position, and its size in bytes.

    Raises ``OSError``, or ``ZoneAccessError`` for a symbolic link."""
    path = local_path(uri)
    return local.open_stored(Path(path)) if path is not None else object_store(uri).open(uri)


def files_below(uri: str, committed: list[str] | None = None) -> Iterator[tuple[str, int]]:
    """Relative path and stored size of every file below ``uri``, but for hidden ones; sorted.

    ``committed`` gets the path of every directory below it in which manifests lie."""
    path = local_path(uri)
    if path is not None:
        return local.files_below(Path(path), committed)
    return object_store(uri).files_below(uri, committed)


def stored_manifests(uri: str) -> list[tuple[int, str]]:
    """Number and URI of the manifests at ``uri``, ascending; whether they are any good is not looked at."""
    path = local_path(uri)
    if path is not None:
        return [(number, f"{uri}/{HIDDEN_DIRECTORY}/{one.name}") for number, one in local.stored_manifests(Path(path))]
    found = ((manifest_number(name), one.uri) for name, one in object_store(uri).found(f"{uri}/{HIDDEN_DIRECTORY}"))
    return sorted((number, one) for number, one in found if number is not None)


def read_manifest(uri: str, generation: Generation) -> bytes:
    """The bytes of that manifest. Raises ``ManifestMissingError`` or ``ManifestRolledBackError``."""
    path = local_path(uri)
    if path is not None:
        return local.read_manifest(Path(path), generation)
    place = f"{uri}/{manifest_path(generation)}"
    if not generation.holds_files:
        raise ManifestMissingError(f"{uri}: was deleted as generation {generation.number} and not written again")
    try:
        return object_store(uri).read(place)
    except FileNotFoundError as exc:
        older = [number for number, _ in stored_manifests(uri) if number < generation.number]
        if older:
            raise ManifestRolledBackError(
                f"{uri}: rolled back from generation {generation.number} to {max(older)}"
            ) from exc
        raise ManifestMissingError(f"{place}: not there, and generation {generation.number} is recorded") from exc


def write_manifest(uri: str, generation: Generation, manifest: bytes) -> str:
    """Store a manifest of the directory at ``uri`` durably, and give its URI; says nothing to the records."""
    path, place = local_path(uri), f"{uri}/{manifest_path(generation)}"
    if path is not None:
        local.write_manifest(Path(path), generation, manifest)
    else:
        object_store(uri).write(place, manifest)
    return place


def remove(uri: str) -> None:
    """Delete a file or object; it does not matter when it is gone already."""
    path = local_path(uri)
    if path is not None:
        Path(path).unlink(missing_ok=True)
    else:
        object_store(uri).delete([uri])
