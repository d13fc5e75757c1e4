"""Storage that is memory, for benches: a tmpfs of our own with large pages, else /dev/shm as it is."""

from __future__ import annotations

import contextlib
import ctypes
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["memory_storage"]

_CLONE_NEWNS, _MS_REC, _MS_PRIVATE = 0x20000, 0x4000, 1 << 18  # linux/sched.h, linux/mount.h
_SHARED = Path("/dev/shm")  # noqa: S108 - memory, and the directory in it is made by mkdtemp


@contextlib.contextmanager
def memory_storage(size: int) -> Iterator[tuple[Path, str]]:
    """A directory in memory with room for ``size`` bytes, and in words what it is.

    Pages of 2 MiB, where the kernel and our rights allow them, in a mount that only this process and its children see.
    With pages of 4 KiB the kernel's own work on each page is as much as the encryption (docs/guides/move-data.md)."""
    parent = _SHARED if _SHARED.is_dir() else Path(tempfile.gettempdir())
    with tempfile.TemporaryDirectory(prefix="casemate-bench-", dir=parent) as directory:
        mounted = _mount_large_pages(directory, size)
        try:
            yield Path(directory), "tmpfs, huge pages" if mounted else f"{parent} as it is"
        finally:
            if mounted:
                ctypes.CDLL(None).umount2(os.fsencode(directory), 2)


def _mount_large_pages(directory: str, size: int) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() != 0 or libc.unshare(_CLONE_NEWNS) != 0:
        return False
    if libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None) != 0:
        return False
    options = f"huge=within_size,size={size},mode=0700".encode()
    return bool(libc.mount(b"casemate-bench", os.fsencode(directory), b"tmpfs", 0, options) == 0)
