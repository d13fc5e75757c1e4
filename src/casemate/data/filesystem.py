"""The zones as an fsspec file system: pandas, Polars, PyArrow read plaintext and write ciphertext through it.

``fsspec.filesystem("zone")`` inside ``casemate run``; paths are plain local ones or ``zone:///path``. It does not call
itself a local file system, since libraries open "local" files past it. What fsspec offers and this module has not
reviewed is refused, so that a newer fsspec cannot add a way around the encryption.
"""

from __future__ import annotations

import io
import os
import shutil
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from fsspec.core import get_compression
from fsspec.spec import AbstractFileSystem
from fsspec.utils import stringify_path

from casemate.data.errors import UnsupportedOperationError, ZoneAccessError
from casemate.data.filesystem_objects import object_delete, object_entries, object_info
from casemate.data.format import plaintext_size
from casemate.data.manifest import is_hidden
from casemate.data.objects import is_remote
from casemate.data.session import ZoneSession
from casemate.data.zones import Located, local_path, normalise
from casemate.errors import UsageError

__all__ = ["REVIEWED", "ZoneFileSystem"]

# Inherited as they are: each does its work through methods that are overridden here (open, ls, info, cp_file, ...), or
# touches no file at all.
_REVIEWED_NAMES = """
    async_impl blocksize cachable cat cat_file cat_ranges checksum clear_instance_cache copy cp current
    delete disk_usage download du expand_path find from_dict from_json fsid get_mapper glob head isdir
    listdir makedir mirror_sync_methods mkdirs move pipe pipe_file protocol read_block read_bytes
    read_text rename root_marker sep size sizes stat tail to_dict to_json transaction_type tree ukey
    unstrip_protocol upload walk write_bytes write_text
"""

REVIEWED = frozenset(_REVIEWED_NAMES.split())
"""The public names of fsspec's base class that this file system takes over unchanged."""

_COPY_CHUNK = 2**20  # bytes


class ZoneFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """Plaintext outside, ciphertext on storage, for every path in a zone; plain files elsewhere.

    Takes the process's agent session, or the one it is given. Raises ``OSError`` as file systems do, and the refusals
    of ``casemate.data.errors``, which are no ``OSError``, so that nobody takes them for an absent file."""

    protocol = ("zone",)
    root_marker = "/"
    cachable = False  # sessions are shared, instances hold nothing

    def __init__(self, session: ZoneSession | None = None, **storage_options: Any) -> None:
        super().__init__(**storage_options)
        self._session = session or ZoneSession.from_environment()

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        text = stringify_path(path)
        if text.startswith("zone://"):
            text = "file" + text[4:]
        uri = normalise(text or "/", working_directory=os.getcwd())  # noqa: PTH109
        local = local_path(uri)
        if local is None:
            try:
                is_remote(uri)
            except UsageError as exc:
                raise UnsupportedOperationError(f"{text}: no storage that can be read and written here") from exc
        return uri if local is None else local

    # Reading

    def _open(self, path: str, mode: str = "rb", block_size: Any = None, autocommit: bool = True, **kwargs: Any) -> Any:
        if not autocommit:
            self.start_transaction()
        if mode == "rb":
            with self._session.reporting():
                located = self._session.zones.read(path)
            return self._session.open_read(located)
        if mode not in ("wb", "xb"):
            raise UnsupportedOperationError(f"{path}: mode {mode!r}; encrypted files are read, or written as a whole")
        return self._session.open_write(self._write(path), exclusive=mode == "xb")

    def open(self, path: Any, mode: str = "rb", *args: Any, **kwargs: Any) -> Any:
        """As fsspec's; modes ``r``, ``w`` and ``x``, text or binary. A file that is never closed never appears.

        Compression only for reading: fsspec's compressors do not close what they write into (``fsspec.open`` does)."""
        compression = get_compression(stringify_path(path), kwargs.get("compression"))
        if compression is not None and "r" not in mode:
            raise UnsupportedOperationError(f"{path}: to write compressed, use fsspec.open, or compress what you write")
        if "+" in mode or "a" in mode:
            raise UnsupportedOperationError(f"{path}: mode {mode!r}; encrypted files are read, or written as a whole")
        return super().open(path, mode, *args, **kwargs)

    def info(self, path: Any, **kwargs: Any) -> dict[str, Any]:
        """Sizes are those of the plaintext; nothing is opened for it."""
        located = self._locate(path)
        if is_remote(located.uri):
            return object_info(self._session, located)
        try:
            status = os.stat(self._path(located), follow_symlinks=located.zone is None)  # noqa: PTH116
        except (FileNotFoundError, NotADirectoryError):
            self._session.check_stat(located, None)
            raise
        if stat.S_ISDIR(status.st_mode):
            self._session.check_is_directory(located)
        else:
            self._session.check_stat(located, status.st_size)
        return self._entry(located, status)

    def ls(self, path: Any, detail: bool = True, **kwargs: Any) -> list[Any]:
        """The directory's entries; in a zone only when everything below is as committed. A file lists as itself."""
        located = self._locate(path)
        if is_remote(located.uri):
            entries = object_entries(self._session, located)
            return entries if detail else [entry["name"] for entry in entries]
        directory = self._path(located)
        if not directory.is_dir():
            entries = [self.info(path)]
        else:
            left_out = self._session.check_directory(located)
            entries = [
                entry
                for found in sorted(directory.iterdir())
                if f"{located.uri}/{found.name}" not in left_out and (entry := self._listed(located, found))
            ]
        return entries if detail else [entry["name"] for entry in entries]

    def _listed(self, parent: Located, path: Path) -> dict[str, Any] | None:
        uri = normalise(f"{parent.uri}/{path.name}")
        zone = self._session.zones.zone_of(uri)
        try:
            if zone is None and path.is_symlink():
                return self.info(str(path))
            status = path.lstat()
        except FileNotFoundError:
            return None  # gone since, or a link to nowhere
        located = Located(uri, zone)
        if zone is not None and (stat.S_ISLNK(status.st_mode) or is_hidden(located.relative)):
            return None
        return self._entry(located, status)

    @staticmethod
    def _entry(located: Located, status: os.stat_result) -> dict[str, Any]:
        regular, directory = stat.S_ISREG(status.st_mode), stat.S_ISDIR(status.st_mode)
        if located.zone is not None and not (regular or directory):
            raise ZoneAccessError(f"{located.uri}: neither a file nor a directory")
        size = status.st_size if regular else 0
        return {
            "name": local_path(located.uri),
            "size": plaintext_size(size, located.uri) if regular and located.zone is not None else size,
            "type": "file" if regular else "directory" if directory else "other",
            "created": status.st_ctime,
            "mtime": status.st_mtime,
            "ino": status.st_ino,
        }

    def exists(self, path: Any, **kwargs: Any) -> bool:
        try:
            self.info(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def lexists(self, path: Any, **kwargs: Any) -> bool:
        return self.exists(path)

    def isfile(self, path: Any) -> bool:
        return self.exists(path) and self.info(path)["type"] == "file"

    def created(self, path: Any) -> datetime:
        return datetime.fromtimestamp(self.info(path)["created"], tz=UTC)

    def modified(self, path: Any) -> datetime:
        return datetime.fromtimestamp(self.info(path)["mtime"], tz=UTC)

    def invalidate_cache(self, path: Any = None) -> None:
        self._session.forget()

    # Writing

    def touch(self, path: Any, truncate: bool = True, **kwargs: Any) -> None:
        """An empty file; with ``truncate=False`` an existing one gets a new modification time."""
        if truncate or not self.exists(path):
            self.open(path, "wb").close()
        else:
            os.utime(self._path(self._write(path)))

    def mkdir(self, path: Any, create_parents: bool = True, **kwargs: Any) -> None:
        located = self._write(path)
        if not is_remote(located.uri):  # object stores have no directories, only names with "/"
            self._path(located).mkdir(parents=create_parents)

    def makedirs(self, path: Any, exist_ok: bool = False) -> None:
        located = self._write(path)
        if not is_remote(located.uri):
            self._path(located).mkdir(parents=True, exist_ok=exist_ok)

    def cp_file(self, path1: Any, path2: Any, **kwargs: Any) -> None:
        """Decrypts and encrypts where the paths lie in zones. A directory becomes an empty directory."""
        if self.isdir(path1):
            self.makedirs(path2, exist_ok=True)
            return
        with self.open(path1, "rb") as source, self._create(path2) as sink:
            shutil.copyfileobj(source, sink, _COPY_CHUNK)

    def get_file(self, rpath: Any, lpath: Any = None, callback: Any = None, outfile: Any = None, **kwargs: Any) -> None:
        """A copy; "local" is no other place. Into a file object that is given, plaintext is written."""
        target = outfile if outfile is not None else lpath
        if hasattr(target, "write"):
            with self.open(rpath, "rb") as source:
                shutil.copyfileobj(source, target, _COPY_CHUNK)
        else:
            self.cp_file(rpath, target)

    def put_file(self, lpath: Any, rpath: Any, callback: Any = None, mode: str = "overwrite", **kwargs: Any) -> None:
        """A copy; "local" is no other place."""
        if mode == "create" and self.exists(rpath):
            raise FileExistsError(rpath)
        self.cp_file(lpath, rpath)

    def get(self, rpath: Any, lpath: Any, recursive: bool = False, callback: Any = None, **kwargs: Any) -> None:
        if hasattr(lpath, "write"):
            self.get_file(rpath, lpath)
            return
        self.copy(rpath, lpath, recursive=recursive, maxdepth=kwargs.get("maxdepth"), on_error="raise")

    def put(self, lpath: Any, rpath: Any, recursive: bool = False, callback: Any = None, **kwargs: Any) -> None:
        self.copy(lpath, rpath, recursive=recursive, maxdepth=kwargs.get("maxdepth"), on_error="raise")

    def mv(self, path1: Any, path2: Any, recursive: bool = False, maxdepth: Any = None, **kwargs: Any) -> None:
        """A rename within one dataset or outside all zones, else copy and delete."""
        if isinstance(path1, list) or isinstance(path2, list) or maxdepth is not None:
            raise UnsupportedOperationError("move: one path to one path, of any depth")
        source, target = self._write(path1, tree=True), self._write(path2, tree=True)
        if self.isdir(path2):
            target = self._write(f"{target.uri}/{source.uri.rpartition('/')[2]}", tree=True)
        self.info(source.uri)  # raises for what is not there, or not as committed
        if self.isdir(source.uri):
            self._session.check_directory(source)
        same = source.zone.dataset == target.zone.dataset if source.zone and target.zone else source.zone is target.zone
        if same and not is_remote(source.uri) and not is_remote(target.uri):
            self._path(source).rename(self._path(target))
            self._session.moved(source, target)
        else:
            self.copy(source.uri, target.uri, recursive=recursive, on_error="raise")
            self.rm(source.uri, recursive=recursive)

    def rm(self, path: Any, recursive: bool = False, maxdepth: Any = None) -> None:
        if maxdepth is not None:
            raise UnsupportedOperationError("delete: all depths, or one file")
        for found in self.expand_path(path):
            located = self._write(found, tree=True)
            if is_remote(located.uri):
                object_delete(self._session, located, recursive=recursive)
                continue
            directory = self._path(located)
            if directory.is_dir() and not directory.is_symlink():
                if not recursive:
                    raise IsADirectoryError(found)
                shutil.rmtree(directory)
            else:
                directory.unlink()
            self._session.changes.gone(located.uri)

    def rm_file(self, path: Any) -> None:
        located = self._write(path)
        if is_remote(located.uri):
            object_delete(self._session, located, recursive=False)
            return
        self._path(located).unlink()
        self._session.changes.gone(located.uri)

    def _rm(self, path: Any) -> None:
        self.rm_file(path)

    def rmdir(self, path: Any) -> None:
        located = self._write(path, tree=True)
        if is_remote(located.uri):
            raise UnsupportedOperationError(f"{path}: an object store has no empty directories to remove")
        self._path(located).rmdir()

    def commit(self, path: Any) -> int:
        """Commit a directory of a zone as it is, which creating ``_SUCCESS`` in it does too; its new generation."""
        return self._session.commit(self._strip_protocol(path)).number

    # Refused

    def sign(self, path: Any, expiration: int = 100, **kwargs: Any) -> NoReturn:
        raise UnsupportedOperationError(f"{path}: a signed link would hand out ciphertext")

    @property
    def transaction(self) -> NoReturn:
        raise UnsupportedOperationError("transaction: each file appears whole when it is closed; there are no others")

    def start_transaction(self) -> NoReturn:
        raise UnsupportedOperationError("transaction: each file appears whole when it is closed; there are no others")

    def end_transaction(self) -> NoReturn:
        self.start_transaction()

    def _locate(self, path: Any) -> Located:
        with self._session.reporting():
            return self._session.zones.locate(self._strip_protocol(path))

    def _write(self, path: Any, *, tree: bool = False) -> Located:
        zones = self._session.zones
        with self._session.reporting():
            return (zones.write_tree if tree else zones.write)(self._strip_protocol(path))

    def _create(self, path: Any) -> io.BufferedIOBase:
        located = self._write(path)
        if not is_remote(located.uri):
            self._path(located).parent.mkdir(parents=True, exist_ok=True)
        return self._session.open_write(located)

    @staticmethod
    def _path(located: Located) -> Path:
        path = local_path(located.uri)
        if path is None:
            raise UnsupportedOperationError(f"{located.uri}: not in an object store")
        return Path(path)


def _refusal(name: str) -> Callable[..., NoReturn]:
    def refuse(*args: object, **kwargs: object) -> NoReturn:
        raise UnsupportedOperationError(f"{name}: not reviewed for encrypted files with this version of fsspec")

    refuse.__name__ = name
    return refuse


def refuse_unreviewed(cls: type[ZoneFileSystem]) -> None:
    """Make every public name of fsspec's base class that is neither overridden nor reviewed a refusal."""
    for name in dir(AbstractFileSystem):
        if not name.startswith("_") and name not in REVIEWED and name not in vars(cls):
            setattr(cls, name, _refusal(name))


refuse_unreviewed(ZoneFileSystem)
