"""The half of the fsspec file system whose files lie in an object store."""

from __future__ import annotations

import errno
import os
from typing import Any

from casemate.data.errors import UnsupportedOperationError
from casemate.data.format import plaintext_size
from casemate.data.manifest import is_hidden
from casemate.data.objects import ObjectFile, object_store
from casemate.data.session import ZoneSession
from casemate.data.zones import Located

__all__ = ["object_delete", "object_entries", "object_info"]


def _require_zone(located: Located) -> None:
    if located.zone is None:
        raise UnsupportedOperationError(f"{located.uri}: outside the zones, where only local files are used")


def _entry(located: Located, one: ObjectFile | None) -> dict[str, Any]:
    if one is None:
        return {"name": located.uri, "size": 0, "type": "directory", "created": 0.0, "mtime": 0.0}
    size = plaintext_size(one.size, located.uri)
    return {"name": located.uri, "size": size, "type": "file", "created": one.modified, "mtime": one.modified}


def object_info(session: ZoneSession, located: Located) -> dict[str, Any]:
    """As ``ZoneFileSystem.info``."""
    _require_zone(located)
    store = object_store(located.uri)
    one = store.info(located.uri)
    if one is not None:
        session.check_stat(located, one.size)
    elif store.is_directory(located.uri):
        session.check_is_directory(located)
    else:
        session.check_stat(located, None)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), located.uri)
    return _entry(located, one)


def object_entries(session: ZoneSession, located: Located) -> list[dict[str, Any]]:
    """As ``ZoneFileSystem.ls``, with details."""
    _require_zone(located)
    store = object_store(located.uri)
    if store.info(located.uri) is not None or not store.is_directory(located.uri):
        return [object_info(session, located)]
    left_out = session.check_directory(located)
    found = []
    for name, one in store.entries(located.uri):
        below = Located(f"{located.uri}/{name}", session.zones.zone_of(f"{located.uri}/{name}"))
        if below.uri not in left_out and not is_hidden(below.relative):
            found.append(_entry(below, one))
    return found


def object_delete(session: ZoneSession, located: Located, *, recursive: bool) -> None:
    """Delete an object, or all below a name. Raises ``IsADirectoryError`` or ``FileNotFoundError``."""
    _require_zone(located)
    store = object_store(located.uri)
    uris = [one.uri for _, one in store.found(located.uri)]
    if not uris:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), located.uri)
    if not recursive and uris != [located.uri]:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), located.uri)
    store.delete(uris)
    session.changes.gone(located.uri)
