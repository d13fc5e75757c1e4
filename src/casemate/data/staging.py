"""Make a file or directory out of sight and put it into place in one step.

A killed process leaves the destination as it was, and beside it a hidden directory, which the next run to the same
destination removes. Work on many files runs in threads, and stops as a whole at the first error.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, CancelledError, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, TypeVar

from casemate.crypto.canonical import sha256_hex
from casemate.data.errors import DestinationExistsError, StorageFailedError
from casemate.data.generations import Generation
from casemate.data.local import locked, sync_directory
from casemate.data.manifest import manifest_path

__all__ = ["Count", "Progress", "Stage", "copy", "for_each", "staging", "storage_errors"]

F = TypeVar("F")
T = TypeVar("T")

Progress = Callable[[int, int], None]
"""Called with the bytes of content done so far, and in all; never from two threads at once."""

Count = Callable[[int], None]
"""Called by a worker with the bytes it has just done."""

_CHUNK = 2**20  # bytes
_MAX_THREADS = 8
_RENAME_EXCHANGE, _AT_FDCWD = 2, -100  # linux/fs.h, linux/fcntl.h


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """An ``OSError`` becomes a ``StorageFailedError`` naming the file, or ``path``."""
    try:
        yield
    except OSError as exc:
        named = exc.filename if isinstance(exc.filename, str) else path
        raise StorageFailedError(f"{named}: {exc.strerror or exc}") from exc


def copy(source: Any, sink: Any | None, count: Count) -> None:
    """All of ``source`` (has ``readinto``) to ``sink`` (has ``write``; ``None`` only reads), a MiB at a time."""
    buffer = memoryview(bytearray(_CHUNK))
    while size := source.readinto(buffer):
        done = 0
        while sink is not None and done < size:
            done += sink.write(buffer[done:size])
        count(size)


def for_each(
    files: Sequence[F], work: Callable[[F, Count], T], total: int, progress: Progress | None, threads: int | None
) -> list[T]:
    """``work`` on every file, in threads; results in order. The first error stops all, and is raised."""
    lock, stop, done = threading.Lock(), threading.Event(), 0

    def count(size: int) -> None:
        nonlocal done
        if stop.is_set():
            raise CancelledError
        with lock:
            done += size
            if progress is not None:
                progress(done, total)

    with ThreadPoolExecutor(threads or min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
        futures = [pool.submit(work, file, count) for file in files]
        try:
            finished, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in finished:
                future.result()
            return [future.result() for future in futures]
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


class Stage:
    """The hidden directory beside a destination; what is made in it goes into place with ``install``."""

    def __init__(self, directory: Path, destination: Path) -> None:
        self._new = directory / "new"
        self._old = directory / "old"
        self._destination = destination
        self._new.mkdir()

    def new_file(self, relative: str) -> Path:
        """Where to make the file that shall lie at ``relative`` below the destination."""
        path = self._new / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def install(self, commit: Callable[[], None], *, only: str | None = None) -> None:
        """Put everything (or the one file ``only``) into the destination's place, then ``commit``.

        When ``commit`` raises, the destination is again what it was."""
        made = self._new / only if only else self._new
        for directory, _, _ in os.walk(self._new):
            sync_directory(Path(directory))
        undo = self._put(made)
        try:
            sync_directory(self._destination.parent)
            commit()
        except BaseException:
            undo()
            raise

    def _put(self, made: Path) -> Callable[[], None]:
        destination, old = self._destination, self._old
        if not os.path.lexists(destination):
            made.rename(destination)

            def undo() -> None:
                destination.rename(made)

        elif _exchange(made, destination):

            def undo() -> None:
                _exchange(made, destination)

        else:  # a file system without RENAME_EXCHANGE: for a moment the old state has another name
            destination.rename(old)
            try:
                made.rename(destination)
            except BaseException:
                old.rename(destination)
                raise

            def undo() -> None:
                destination.rename(made)
                old.rename(destination)

        return undo


@contextlib.contextmanager
def staging(destination: Path, recorded: Generation, *, overwrite: bool) -> Iterator[Stage]:
    """A stage beside ``destination`` (a real path), gone at the end however it ends; its parents are made if missing.

    ``recorded`` is the destination's recorded generation. Raises ``DestinationExistsError`` unless there is nothing,
    or an empty directory, or ``overwrite`` is given."""
    if destination == destination.parent:
        raise DestinationExistsError(f"{destination}: is the root directory")
    destination.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{destination.name}.casemate-"
    _clear_stale(destination, prefix, recorded)
    if not overwrite and os.path.lexists(destination) and not _is_empty_directory(destination):
        raise DestinationExistsError(f"{destination}: exists and holds something")
    directory = destination.parent / f"{prefix}{secrets.token_hex(8)}"
    directory.mkdir(mode=0o700)
    try:
        with locked(directory):
            yield Stage(directory, destination)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _is_empty_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and not any(path.iterdir())


def _clear_stale(destination: Path, prefix: str, recorded: Generation) -> None:
    """Remove what killed runs left. If one was killed after the exchange and before its record, undo the exchange."""
    for stale in [path for path in destination.parent.iterdir() if path.name.startswith(prefix)]:
        with contextlib.suppress(FileNotFoundError), locked(stale) as ours:
            if not ours:
                continue  # a run that is alive
            for kept in (stale / "old", stale / "new"):
                if recorded.number and _holds(kept, recorded) and not _holds(destination, recorded):
                    if not os.path.lexists(destination):
                        kept.rename(destination)
                    elif not _exchange(kept, destination):
                        destination.rename(stale / "unrecorded")
                        kept.rename(destination)
            shutil.rmtree(stale, ignore_errors=True)


def _holds(directory: Path, recorded: Generation) -> bool:
    try:
        return sha256_hex((directory / manifest_path(recorded)).read_bytes()) == recorded.digest
    except OSError:
        return False


def _exchange(first: Path, second: Path) -> bool:
    """Swap two names in one step (Linux ``renameat2``); ``False`` where the file system cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    if libc.renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
        return False
    raise OSError(code, os.strerror(code), str(second))
