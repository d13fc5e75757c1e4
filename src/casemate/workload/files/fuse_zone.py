"""One zone as a FUSE file system: every refusal of the zone becomes the error number that programs know.

Links and special files are not there; owners and extended attributes cannot be set. The kernel keeps no copy of the
content (``direct_io``) unless the job says so.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import mfusepy

from casemate.data.errors import UnsupportedOperationError
from casemate.data.filesystem import ZoneFileSystem
from casemate.errors import CasemateError, RefusedError, UsageError
from casemate.workload.files.content import Content

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
    """The zone below the local directory ``root``. ``ready`` is called when the kernel has been answered first.

    Serve it from one thread: ``mfusepy.FUSE(zone, "/dev/fd/N", foreground=True, nothreads=True)``."""

    use_ns = True

    def __init__(self, files: ZoneFileSystem, root: str, *, writable: bool, ready: Callable[[], None]) -> None:
        self.changed = False
        self._files, self._root, self._writable, self._ready = files, root.rstrip("/"), writable, ready
        self._handles: dict[int, Content] = {}
        self._contents: dict[str, Content] = {}  # by path: what is open
        self._numbers = itertools.count(1)

    def init(self, path: str) -> None:
        self._ready()

    # Looking

    @_answering
    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        content = self._handles.get(fh) if fh is not None else None
        content = content or self._contents.get(self._real(path))
        if content is not None and content.path is None:
            return {"st_mode": stat.S_IFREG | 0o600, "st_nlink": 0, "st_size": content.size, **_owner()}
        info = self._files.info(self._real(path))
        size = info["size"] if content is None else content.size
        kind, mode = (stat.S_IFDIR, 0o700) if info["type"] == "directory" else (stat.S_IFREG, 0o600)
        moment = int(info["mtime"] * 1e9)
        return {
            "st_mode": kind | (mode if self._writable else mode & 0o500),
            "st_nlink": 2 if kind == stat.S_IFDIR else 1,
            "st_size": size,
            "st_blocks": -(-size // 512),
            "st_blksize": 256 * _BLOCK,
            "st_mtime": moment,
            "st_ctime": moment,
            "st_atime": moment,
            **_owner(),
        }

    @_answering
    def readdir(self, path: str, fh: int) -> Iterator[str]:
        entries = self._files.ls(self._real(path), detail=False)
        return iter([".", "..", *(entry.rpartition("/")[2] for entry in entries)])

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
            self.changed = True
            content.truncate(0)
        return self._handle(content)

    @_answering
    def create(self, path: str, mode: int, fi: Any = None) -> int:
        self._must_write()
        real = self._real(path)
        self._files.touch(real)  # so that it is there for others; its content comes when it is closed
        self._contents[real] = Content(self._files, real, new=True)
        return self._handle(self._contents[real])

    @_answering
    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return self._handles[fh].read(size, offset)

    @_answering
    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        self.changed = True
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
        self._handles[fh].flush()
        return 0

    @_answering
    def fsync(self, path: str, datasync: int, fh: int) -> int:
        self._handles[fh].flush()
        return 0

    @_answering
    def release(self, path: str, fh: int) -> int:
        content = self._handles.pop(fh)
        content.handles -= 1
        if content.handles == 0:
            if content.path is not None:
                self._contents.pop(content.path, None)
            content.close()
        return 0

    # Names

    @_answering
    def unlink(self, path: str) -> int:
        self._must_write()
        real = self._real(path)
        content = self._contents.pop(real, None)
        if content is not None:
            content.delete()
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
        if self._files.ls(self._real(path)):
            raise mfusepy.FuseOSError(errno.ENOTEMPTY)
        self._files.rm(self._real(path), recursive=True)  # unfinished files of others would be in the way of rmdir
        return 0

    @_answering
    def rename(self, old: str, new: str, flags: int = 0) -> int:
        self._must_write()
        source, target = self._real(old), self._real(new)
        if flags:
            raise mfusepy.FuseOSError(errno.EINVAL)
        if self._files.isdir(target):
            if not self._files.isdir(source):
                raise mfusepy.FuseOSError(errno.EISDIR)
            self.rmdir(new)
        moving = [content for path, content in self._contents.items() if _is_at_or_below(path, source)]
        for content in moving:
            content.flush()
        replaced = self._contents.pop(target, None)
        if replaced is not None:
            replaced.delete()
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
            content.flush()
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
        for content in list(self._contents.values()):
            with contextlib.suppress(OSError, CasemateError):
                content.close()

    def _real(self, path: str) -> str:
        path.encode()  # a name that is no UTF-8 cannot be in a dataset
        return self._root + path if path != "/" else self._root

    def _content(self, real: str) -> Content:
        content = self._contents.get(real)
        if content is None:
            if self._files.info(real)["type"] != "file":
                raise mfusepy.FuseOSError(errno.EISDIR)
            content = self._contents[real] = Content(self._files, real)
        return content

    def _handle(self, content: Content) -> int:
        number = next(self._numbers)
        self._handles[number] = content
        content.handles += 1
        return number

    def _must_write(self) -> None:
        if not self._writable:
            raise mfusepy.FuseOSError(errno.EROFS)
        self.changed = True


def _owner() -> dict[str, int]:
    return {"st_uid": os.getuid(), "st_gid": os.getgid()}


def _is_at_or_below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory + "/")
