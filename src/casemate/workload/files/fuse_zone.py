"""One zone as a FUSE file system: every refusal of the zone becomes the error number that programs know.

Links and special files are not there; owners and extended attributes cannot be set. The kernel keeps no copy of the
content (``direct_io``) unless the job says so.
"""

from __future__ import annotations

import errno
import functools
import itertools
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, ParamSpec, TypeVar, cast

import mfusepy

from casemate.data.errors import StorageFailedError, UnsupportedOperationError
from casemate.data.filesystem import ZoneFileSystem
from casemate.data.local import sync_files
from casemate.data.session import ZoneSession
from casemate.data.zones import local_path
from casemate.errors import CasemateError, RefusedError, UsageError
from casemate.model import Zone
from casemate.workload.files.content import Content
from casemate.workload.files.undo import Undo

__all__ = ["FuseZone"]

P = ParamSpec("P")
T = TypeVar("T")

_BLOCK = 4096  # bytes; what programs are told is the best size to read and write, times 256
_NAME_MAX = 255


def error_number(error: Exception) -> int:
    """What a program is told (errno(3)). Damage is ``EIO``, a refusal ``EACCES``; the agent has heard the rest."""
    if isinstance(error, OSError):
        by_class = {
            FileNotFoundError: errno.ENOENT,
            FileExistsError: errno.EEXIST,
            IsADirectoryError: errno.EISDIR,
            NotADirectoryError: errno.ENOTDIR,
            PermissionError: errno.EACCES,
        }
        return error.errno or next((code for cls, code in by_class.items() if isinstance(error, cls)), errno.EIO)
    if isinstance(error, UnsupportedOperationError):
        return errno.ENOTSUP
    if isinstance(error, UsageError):
        return errno.EINVAL
    if isinstance(error, RefusedError) and not error.code.startswith(("file-", "manifest-", "integrity")):
        return errno.EACCES
    return errno.EIO


def _answering(method: Callable[P, T]) -> Callable[P, T]:
    """Give every error its number."""

    @functools.wraps(method)
    def answer(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(*args, **kwargs)
        except mfusepy.FuseOSError:
            raise
        except (OSError, CasemateError, UnicodeError) as exc:
            raise mfusepy.FuseOSError(errno.EINVAL if isinstance(exc, UnicodeError) else error_number(exc)) from exc

    return answer


class FuseZone(mfusepy.Operations):  # type: ignore[misc]
    """One zone of a session. ``ready`` is called when the kernel has been answered first.

    Serve it from one thread: ``mfusepy.FUSE(zone, "/dev/fd/N", foreground=True, nothreads=True)``."""

    use_ns = True

    def __init__(self, session: ZoneSession, zone: Zone, *, ready: Callable[[], None]) -> None:
        self.changed = False
        self.failure: Exception | None = None
        """The first error in storing a file whose last handle was closed already, so that no program heard of it."""
        self.ended = 0.0
        """When the mount went, by the monotonic clock; 0 while it is there."""
        self._session, self._zone, self._ready = session, zone, ready
        self._root = str(local_path(zone.prefix)).rstrip("/")
        self.undo = Undo(Path(self._root))
        self._files = ZoneFileSystem(session)
        self._handles: dict[int, Content] = {}
        self._contents: dict[str, Content] = {}  # by path: what is open
        self._numbers = itertools.count(1)

    def init(self, path: str) -> None:
        self._ready()

    # What contents ask for (``Store``)

    def open_stored(self, path: str) -> IO[bytes]:
        located = self._session.zones.locate(path)
        if not self._zone.access.can_read and self._session.changes.file_id(located.uri) is not None:
            return self._session.open_read(located)  # a program's own output, in a zone that is only written
        return cast(IO[bytes], self._files.open(path, "rb"))

    def open_new(self, path: str) -> IO[bytes]:
        return cast(IO[bytes], self._files.open(path, "wb"))

    def stored_size(self, path: str) -> int:
        return int(self._files.info(path)["size"])

    def replacing(self, path: str) -> None:
        self.undo.keep(Path(path))

    # Looking

    @_answering
    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        content = self._handles.get(fh) if fh is not None else None
        content = content or self._contents.get(self._real(path))
        if content is not None and (content.path is None or not content.is_stored):
            links = 0 if content.path is None else 1
            return self._attributes(stat.S_IFREG, content.size, content.changed_ns, links)
        directory = self._directory(self._real(path))
        if directory is not None:
            return self._attributes(stat.S_IFDIR, 0, directory.st_mtime_ns, 2)
        info = self._files.info(self._real(path))
        size, moment = info["size"], int(info["mtime"] * 1e9)
        if content is not None:
            size, moment = content.size, content.changed_ns if content.is_dirty else moment
        return self._attributes(stat.S_IFREG, size, moment, 1)

    def _directory(self, real: str) -> os.stat_result | None:
        """The directory at a path, if one is there. The kernel asks at every step of the way to a file, so that what
        is below it is only looked at when the directory itself is read."""
        try:
            found = os.lstat(real)
        except OSError:
            return None
        if not stat.S_ISDIR(found.st_mode):
            return None
        self._session.check_is_directory(self._session.zones.locate(real), deep=False)
        return found

    def _attributes(self, kind: int, size: int, moment: int, links: int) -> dict[str, Any]:
        mode = 0o700 if kind == stat.S_IFDIR else 0o600
        return {
            "st_mode": kind | (mode if self._zone.access.can_write else mode & 0o500),
            "st_nlink": links,
            "st_size": size,
            "st_blocks": -(-size // 512),
            "st_blksize": 256 * _BLOCK,
            "st_mtime": moment,
            "st_ctime": moment,
            "st_atime": moment,
            "st_uid": os.getuid(),
            "st_gid": os.getgid(),
        }

    @_answering
    def readdir(self, path: str, fh: int) -> Iterator[str]:
        return iter([".", "..", *sorted(self._names(self._real(path)))])

    def _names(self, directory: str) -> set[str]:
        names = {entry.rpartition("/")[2] for entry in self._files.ls(directory, detail=False)}
        opened = (path.rpartition("/") for path in self._contents)
        return names | {name for above, _, name in opened if above == directory}

    @_answering
    def statfs(self, path: str) -> dict[str, int]:
        found = os.statvfs(self._root)
        names = ("f_bavail", "f_bfree", "f_blocks", "f_bsize", "f_favail", "f_ffree", "f_files", "f_frsize")
        return {**{name: getattr(found, name) for name in names}, "f_namemax": _NAME_MAX}

    # Files

    @_answering
    def open(self, path: str, flags: int) -> int:
        if flags & os.O_ACCMODE != os.O_RDONLY:
            self._must_write()
        content = self._content(self._real(path))
        if flags & os.O_TRUNC:
            content.truncate(0)
        return self._handle(content)

    @_answering
    def create(self, path: str, mode: int, fi: Any = None) -> int:
        """The file is stored when it is closed; in this mount it is there at once."""
        self._must_write()
        real = self._real(path)
        self._contents[real] = Content(self, real, new=True)
        return self._handle(self._contents[real])

    @_answering
    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return self._handles[fh].read(size, offset)

    @_answering
    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        return self._handles[fh].write(data, offset)

    @_answering
    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        self._must_write()
        content = self._handles.get(fh) if fh is not None else None
        content = content or self._content(self._real(path))
        content.truncate(length)
        if content.handles == 0:
            self._contents.pop(self._real(path), None)
            content.close()
        return 0

    @_answering
    def flush(self, path: str, fh: int) -> int:
        """One of perhaps many descriptors of a handle was closed: a shell does so after every command."""
        return 0

    @_answering
    def fsync(self, path: str, datasync: int, fh: int) -> int:
        content = self._handles[fh]
        content.store()
        if content.path is not None:
            sync_files([Path(content.path)])
        return 0

    def release(self, path: str, fh: int) -> int:
        content = self._handles.pop(fh)
        content.handles -= 1
        if content.handles == 0:
            if content.path is not None:
                self._contents.pop(content.path, None)
            self._end(content)
        return 0

    def _end(self, content: Content) -> None:
        try:
            content.close()
        except (OSError, CasemateError) as exc:
            named = StorageFailedError(f"{content.path}: {exc.strerror or exc}") if isinstance(exc, OSError) else exc
            self.failure = self.failure or named

    # Names

    @_answering
    def unlink(self, path: str) -> int:
        self._must_write()
        real = self._real(path)
        content = self._contents.get(real)
        if content is not None:
            content.delete()
            del self._contents[real]
        if content is None or content.is_stored:
            self.undo.keep(Path(real))
            self._files.rm_file(real)
        return 0

    @_answering
    def mkdir(self, path: str, mode: int) -> int:
        self._must_write()
        self._files.mkdir(self._real(path), create_parents=False)
        return 0

    @_answering
    def rmdir(self, path: str) -> int:
        self._must_write()
        real = self._real(path)
        if self._names(real):
            raise mfusepy.FuseOSError(errno.ENOTEMPTY)
        self._files.rm(real, recursive=True)  # unfinished files of others would be in the way of rmdir
        return 0

    @_answering
    def rename(self, old: str, new: str, flags: int = 0) -> int:
        self._must_write()
        source, target = self._real(old), self._real(new)
        if flags:
            raise mfusepy.FuseOSError(errno.EINVAL)
        moving = [content for path, content in self._contents.items() if _is_at_or_below(path, source)]
        for content in moving:
            content.store()
        if self._files.isdir(target):
            if not self._files.isdir(source):
                raise mfusepy.FuseOSError(errno.EISDIR)
            self.rmdir(new)
        replaced = self._contents.get(target)
        if replaced is not None:
            replaced.delete()
            del self._contents[target]
        self.undo.keep_moved(Path(source), Path(target))
        self._files.mv(source, target)
        for content in moving:
            before = str(content.path)
            del self._contents[before]
            content.path = target + before[len(source) :]
            self._contents[content.path] = content
        return 0

    # What encrypted files do not have

    @_answering
    def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
        self._must_write()
        content = self._contents.get(self._real(path))
        if content is not None:
            content.store()
        stored = Path(self._real(path))
        if times is None:
            os.utime(stored)
        else:
            os.utime(stored, ns=times)
        return 0

    @_answering
    def chmod(self, path: str, mode: int) -> int:
        """Programs that copy set modes; a zone's access is the grant's alone."""
        self._must_write()
        return 0

    @_answering
    def chown(self, path: str, uid: int, gid: int) -> int:
        self._must_write()
        if (uid not in (-1, 0xFFFF_FFFF, os.getuid())) or (gid not in (-1, 0xFFFF_FFFF, os.getgid())):
            raise mfusepy.FuseOSError(errno.EPERM)
        return 0

    def link(self, target: str, source: str) -> int:
        raise mfusepy.FuseOSError(errno.EPERM)

    def symlink(self, target: str, source: str) -> int:
        raise mfusepy.FuseOSError(errno.EPERM)

    def readlink(self, path: str) -> str:
        raise mfusepy.FuseOSError(errno.EINVAL)

    def mknod(self, path: str, mode: int, dev: int) -> int:
        raise mfusepy.FuseOSError(errno.EPERM)

    def destroy(self, path: str) -> None:
        """The mount is gone: store what is still open, as closing would have."""
        self.ended = time.monotonic()
        for content in list(self._contents.values()):
            self._end(content)

    def _real(self, path: str) -> str:
        path.encode()  # a name that is no UTF-8 cannot be in a dataset
        return self._root + path if path != "/" else self._root

    def _content(self, real: str) -> Content:
        content = self._contents.get(real)
        if content is None:
            if self._files.info(real)["type"] != "file":
                raise mfusepy.FuseOSError(errno.EISDIR)
            content = self._contents[real] = Content(self, real)
        return content

    def _handle(self, content: Content) -> int:
        number = next(self._numbers)
        self._handles[number] = content
        content.handles += 1
        return number

    def _must_write(self) -> None:
        if not self._zone.access.can_write:
            raise mfusepy.FuseOSError(errno.EROFS)
        self.changed = True


def _is_at_or_below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory + "/")
