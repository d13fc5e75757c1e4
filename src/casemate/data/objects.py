"""Object stores below zones, through fsspec: ``s3://`` and ``s3a://`` by s3fs, ``memory://`` for tests, and others.

Credentials and endpoints come from where the store's own tools look for them (for S3: botocore's environment variables
and files), and from nowhere else. Listings are never remembered, since another process may have written.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, BinaryIO, cast

from casemate.data.errors import ObjectStoreMissingError
from casemate.data.manifest import is_hidden
from casemate.data.zones import HIDDEN_DIRECTORY
from casemate.errors import CasemateError, UsageError

__all__ = ["ObjectFile", "ObjectStore", "ObjectWriter", "is_remote", "object_store"]

_SCHEMES = {"s3": "s3", "s3a": "s3", "gs": "gs", "abfs": "abfs", "abfss": "abfs", "memory": "memory"}
_EXTRAS = {"s3": "s3"}
_BLOCK = 8 * 2**20  # bytes that a sequential read fetches at once, and a large object's upload sends at once
_AT_ONCE = 16  # requests


def is_remote(location: str) -> bool:
    """Whether ``location`` names an object store and not a local path. ``UsageError`` for a scheme of neither kind."""
    scheme, separator, _ = location.partition("://")
    if not separator or "/" in scheme or scheme.lower() in ("file", "local"):
        return False
    if scheme.lower() not in _SCHEMES:
        raise UsageError(f"{location}: no storage is known by the scheme {scheme}://; known: {', '.join(_SCHEMES)}")
    return True


@dataclass(frozen=True)
class ObjectFile:
    """One stored object. ``size`` in bytes; ``identity`` differs whenever the content may differ."""

    uri: str
    size: int
    identity: str
    modified: float  # seconds since 1970; 0 where the store does not say


def object_store(uri: str) -> ObjectStore:
    """The store that holds ``uri``. Raises ``ObjectStoreMissingError`` when its library is not installed."""
    if not is_remote(uri):
        raise UsageError(f"{uri}: not in an object store")
    return _store(uri.partition("://")[0].lower(), os.getpid())


@lru_cache(maxsize=16)
def _store(scheme: str, process: int) -> ObjectStore:
    import fsspec

    kind = _SCHEMES[scheme]
    # `anon=False`: never fall back to unsigned requests
    options: dict[str, Any] = {"anon": False, "default_fill_cache": False} if kind == "s3" else {}
    try:
        return ObjectStore(scheme, fsspec.filesystem(kind, use_listings_cache=False, **options))
    except ImportError as exc:
        extra = _EXTRAS.get(kind)
        how = f"install casemate[{extra}]" if extra else f"install the fsspec package for {kind}://"
        raise ObjectStoreMissingError(f"{scheme}://: {how} ({exc})") from exc


@contextlib.contextmanager
def _errors(uri: str) -> Iterator[None]:
    """Whatever the store's library raises becomes an ``OSError`` naming the object."""
    try:
        yield
    except (OSError, CasemateError):
        raise
    except Exception as exc:  # botocore's, aiohttp's and others' errors have no common base
        raise OSError(errno.EIO, f"{type(exc).__name__}: {exc}", uri) from exc


class ObjectStore:
    """Objects by URI. Every method raises ``OSError`` naming the object. Safe to use from threads."""

    def __init__(self, scheme: str, filesystem: Any) -> None:
        self._scheme = scheme
        self._filesystem = filesystem

    def _path(self, uri: str) -> str:
        return cast(str, self._filesystem._strip_protocol(uri))

    def _uri(self, path: str) -> str:
        return f"{self._scheme}://{path.lstrip('/')}"

    def _object(self, info: dict[str, Any]) -> ObjectFile:
        parts = (info.get(name) for name in ("ETag", "etag", "VersionId", "LastModified", "created", "mtime", "size"))
        identity = ":".join(str(part) for part in parts if part)
        times = (info.get(name) for name in ("LastModified", "mtime", "created"))
        modified = next((time.timestamp() for time in times if isinstance(time, datetime)), 0.0)
        return ObjectFile(self._uri(info["name"]), int(info["size"] or 0), identity, modified)

    def info(self, uri: str) -> ObjectFile | None:
        """The object; ``None`` when there is none of exactly this name."""
        with _errors(uri):
            try:
                found = self._filesystem.info(self._path(uri))
            except FileNotFoundError:
                return None
            return self._object(found) if found["type"] == "file" else None

    def found(self, prefix: str) -> Iterator[tuple[str, ObjectFile]]:
        """Every object at or below ``prefix``, with its path below it (empty: the object itself); sorted."""
        with _errors(prefix):
            try:
                infos = self._filesystem.find(self._path(prefix), detail=True, withdirs=False)
            except FileNotFoundError:
                return
        base = self._path(prefix).rstrip("/")
        for name in sorted(infos):
            if name.endswith("/") or (infos[name]["type"] != "file"):
                continue  # markers that some tools leave for directories
            if name == base or name.startswith(base + "/"):
                yield name[len(base) + 1 :], self._object(infos[name])

    def files_below(self, prefix: str, committed: list[str] | None = None) -> Iterator[tuple[str, int]]:
        """As ``local.files_below``: visible objects with their size; ``committed`` gets directories with manifests."""
        for relative, one in self.found(prefix):
            parts = relative.split("/")
            if HIDDEN_DIRECTORY in parts and committed is not None:
                directory = "/".join(parts[: parts.index(HIDDEN_DIRECTORY)])
                if directory and directory not in committed:
                    committed.append(directory)
            if relative and not is_hidden(relative):
                yield relative, one.size

    def glob(self, pattern: str) -> list[str]:
        """URIs of the objects and directories that match."""
        with _errors(pattern):
            return sorted(self._uri(path) for path in self._filesystem.glob(self._path(pattern)))

    def is_directory(self, uri: str) -> bool:
        """Whether something lies below ``uri``."""
        with _errors(uri):
            return bool(self._filesystem.isdir(self._path(uri)))

    def entries(self, uri: str) -> list[tuple[str, ObjectFile | None]]:
        """Names directly below ``uri``, with their object; ``None`` for a directory. ``FileNotFoundError`` for none."""
        with _errors(uri):
            infos = self._filesystem.ls(self._path(uri), detail=True)
        base = self._path(uri).rstrip("/")
        named = {one["name"].rstrip("/")[len(base) + 1 :]: one for one in infos}
        return sorted(
            (name, self._object(one) if one["type"] == "file" else None) for name, one in named.items() if name
        )

    def open(self, uri: str) -> tuple[BinaryIO, int]:
        """An object for reading at any position, and its size. Raises ``FileNotFoundError``."""
        one = self.info(uri)
        if one is None:
            code = errno.EISDIR if self.is_directory(uri) else errno.ENOENT
            raise (IsADirectoryError if code == errno.EISDIR else FileNotFoundError)(code, os.strerror(code), uri)
        return cast(BinaryIO, _RangeReader(self, uri, one.size)), one.size

    def read(self, uri: str, start: int | None = None, end: int | None = None) -> bytes:
        """The bytes of an object, or of ``[start, end)``."""
        with _errors(uri):
            return bytes(self._filesystem.cat_file(self._path(uri), start=start, end=end))

    def write(self, uri: str, data: bytes) -> None:
        """Store a whole object in one step; the one before, if any, is replaced."""
        with _errors(uri):
            self._filesystem.pipe_file(self._path(uri), data)

    def create(self, uri: str, *, exclusive: bool = False) -> ObjectWriter:
        """An object to write from begin to end; it appears when it is committed. ``exclusive``: there is none yet."""
        if exclusive and self.exists(uri):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), uri)
        with _errors(uri):
            return ObjectWriter(uri, self._filesystem.open(self._path(uri), "wb", block_size=_BLOCK))

    def copy(self, source: str, target: str) -> None:
        """A copy made by the store itself."""
        with _errors(source):
            self._filesystem.cp_file(self._path(source), self._path(target))

    def delete(self, uris: Iterable[str]) -> None:
        """Remove objects; it does not matter when one is gone already."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:  # one by one, since `rm` takes names for patterns
            for _ in pool.map(self._delete_one, uris):
                pass

    def _delete_one(self, uri: str) -> None:
        with _errors(uri), contextlib.suppress(FileNotFoundError):
            self._filesystem.rm_file(self._path(uri))

    def exists(self, uri: str) -> bool:
        """Whether there is an object of exactly this name, or something below it."""
        return self.info(uri) is not None or self.is_directory(uri)


class ObjectWriter:
    """An upload. Until ``commit`` nothing is there under its name; large objects go in parts."""

    def __init__(self, uri: str, raw: Any) -> None:
        self._uri, self._raw = uri, raw

    @property
    def raw(self) -> BinaryIO:
        """What to write into: itself, as ``local.AtomicFile`` has it."""
        return cast(BinaryIO, self)

    def write(self, data: bytes | bytearray | memoryview) -> int:
        with _errors(self._uri):
            return int(self._raw.write(bytes(data)))

    def commit(self) -> None:
        """Make the object appear, whole."""
        with _errors(self._uri):
            self._raw.close()

    def discard(self) -> None:
        """Give the upload up."""
        raw = self._raw
        with contextlib.suppress(Exception):  # whatever happens, nothing was committed
            raw.discard()
        raw.closed = True  # or fsspec would complete the upload when it forgets the file


class _RangeReader(io.RawIOBase):
    """Reads an object by ranges; when reading goes on in sequence, large ones, the next already on its way."""

    _ahead: ThreadPoolExecutor | None = None
    _ahead_lock = threading.Lock()

    def __init__(self, store: ObjectStore, uri: str, size: int) -> None:
        super().__init__()
        self._store, self._uri, self._size = store, uri, size
        self._position = 0
        self._start, self._block = 0, b""
        self._next: tuple[int, Future[bytes]] | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        room = min(len(view), self._size - self._position)
        if room <= 0:
            return 0
        offset = self._position - self._start
        if not 0 <= offset < len(self._block):
            self._fetch(room, follows=offset == len(self._block) and bool(self._block))
            offset = 0
        count = min(room, len(self._block) - offset)
        view[:count] = self._block[offset : offset + count]
        self._position += count
        return count

    def _fetch(self, wanted: int, *, follows: bool) -> None:
        start, ahead = self._position, self._next
        self._next = None
        if ahead is not None and ahead[0] == start:
            block = ahead[1].result()
        else:
            if ahead is not None:
                ahead[1].cancel()
            block = self._read(start, max(wanted, _BLOCK) if follows else wanted)
        self._start, self._block = start, block
        after = start + len(block)
        if follows and block and after < self._size:
            self._next = after, self._pool().submit(self._read, after, _BLOCK)

    def _read(self, start: int, size: int) -> bytes:
        return self._store.read(self._uri, start, min(start + size, self._size))

    @classmethod
    def _pool(cls) -> ThreadPoolExecutor:
        with cls._ahead_lock:
            if cls._ahead is None:
                cls._ahead = ThreadPoolExecutor(8, thread_name_prefix="casemate-read-ahead")
            return cls._ahead

    def close(self) -> None:
        if self._next is not None:
            self._next[1].cancel()
            self._next = None
        super().close()
