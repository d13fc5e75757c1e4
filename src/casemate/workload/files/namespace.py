"""A mount namespace of the program's own: what is mounted in it nobody outside sees, and it ends with its processes.

Source: mount_namespaces(7), user_namespaces(7), mount(2), mount_setattr(2), fuse(4).
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterable
from pathlib import Path

from casemate.workload.errors import MountUnavailableError

__all__ = ["FUSE_DEVICE", "enter_private_namespace", "make_read_only_but_for", "mount_fuse"]

FUSE_DEVICE = Path("/dev/fuse")
MAX_READ = 2**20  # bytes the kernel may ask for at once

_CLONE_NEWNS, _CLONE_NEWUSER = 0x0002_0000, 0x1000_0000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 2, 4, 4096, 16384, 1 << 18
_AT_RECURSIVE, _MOUNT_ATTR_RDONLY = 0x8000, 1
_SYS_MOUNT_SETATTR = 442  # the same number on every architecture since Linux 5.12
_AT_FDCWD = -100

_libc = ctypes.CDLL(None, use_errno=True)


class _MountAttributes(ctypes.Structure):
    """``struct mount_attr`` (linux/mount.h)."""

    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def _check(result: int, doing: str) -> None:
    if result != 0:
        raise MountUnavailableError(f"{doing}: {os.strerror(ctypes.get_errno())}")


def enter_private_namespace() -> None:
    """Put this process, which must have one thread, into a mount namespace of its own, in which it may mount.

    Who is not root gets a user namespace as well, in which it keeps its own ids. Raises ``MountUnavailableError``."""
    user, group = os.getuid(), os.getgid()
    if _libc.unshare(_CLONE_NEWNS) != 0:
        if ctypes.get_errno() != errno.EPERM:
            _check(-1, "unshare")
        _check(_libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS), "unshare: neither root nor user namespaces")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    _check(_libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None), "mount --make-rprivate /")


def mount_fuse(directory: Path, *, writable: bool) -> int:
    """Mount a FUSE file system over ``directory``; the answer is the connection's descriptor, for whoever serves it.

    Unless ``writable``, the kernel answers every attempt to change something with ``EROFS``. Raises
    ``MountUnavailableError``."""
    try:
        descriptor = os.open(FUSE_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as exc:
        raise MountUnavailableError(f"{FUSE_DEVICE}: {exc.strerror or exc}") from exc
    options = f"fd={descriptor},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()},max_read={MAX_READ}"
    options += ",default_permissions"
    flags = _MS_NOSUID | _MS_NODEV | (0 if writable else _MS_RDONLY)
    _check(
        _libc.mount(b"casemate", os.fsencode(directory), b"fuse", flags, options.encode()),
        f"mount over {directory}",
    )
    return descriptor


def make_read_only_but_for(writable: Iterable[Path]) -> None:
    """Make every file system of this namespace read-only, but for the directories named and mounts made over others
    afterwards. Raises ``MountUnavailableError``."""
    kept = [os.fsencode(path) for path in writable]
    for path in kept:
        _check(_libc.mount(path, path, None, _MS_BIND | _MS_REC, None), f"bind {os.fsdecode(path)}")
    _set_read_only(b"/", recursive=True, value=True)
    for path in kept:
        _set_read_only(path, recursive=False, value=False)


def _set_read_only(path: bytes, *, recursive: bool, value: bool) -> None:
    attributes = _MountAttributes(**{"attr_set" if value else "attr_clr": _MOUNT_ATTR_RDONLY})
    result = _libc.syscall(
        _SYS_MOUNT_SETATTR,
        _AT_FDCWD,
        path,
        _AT_RECURSIVE if recursive else 0,
        ctypes.byref(attributes),
        ctypes.sizeof(attributes),
    )
    _check(result, f"mount_setattr {os.fsdecode(path)}")
