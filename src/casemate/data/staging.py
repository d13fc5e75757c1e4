"""Make a file or directory out of sight and put it into place in one step.

A killed process leaves the destination as it was, and beside it a hidden directory. The next run to the same
destination goes on with what is in it when its journal shows that it did the same work, else removes it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Set
from pathlib import Path

from casemate.crypto.canonical import sha256_hex
from casemate.data.errors import DestinationExistsError, StorageFailedError
from casemate.data.generations import Generation
from casemate.data.local import locked, stored_manifests, sync_directory, sync_file_system
from casemate.data.manifest import manifest_path

__all__ = ["JOURNAL", "Stage", "staging", "storage_errors"]

JOURNAL = "journal"
"""Its name in the hidden directory."""

_RENAME_EXCHANGE, _AT_FDCWD = 2, -100  # linux/fs.h, linux/fcntl.h


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """An ``OSError`` becomes a ``StorageFailedError`` naming the file, or ``path``."""
    try:
        yield
    except OSError as exc:
        named = exc.filename if isinstance(exc.filename, str) else path
        raise StorageFailedError(f"{named}: {exc.strerror or exc}") from exc


class Stage:
    """The hidden directory beside a destination; what is made in it goes into place with ``install``."""

    def __init__(self, directory: Path, destination: Path, *, adopted: bool) -> None:
        self.adopted = adopted
        """Whether a run that was killed has left something in ``root``."""
        self.root = directory / "new"
        """What becomes the destination is made in here."""
        self.journal = directory / JOURNAL
        self._old = directory / "old"
        self._destination = destination
        self.root.mkdir(exist_ok=True)

    def keep_only(self, paths: Set[str]) -> None:
        """Remove every file below ``root`` but these."""
        for directory, _, names in os.walk(self.root):
            below = os.path.relpath(directory, self.root)
            for name in names:
                if (name if below == "." else f"{below}/{name}") not in paths:
                    Path(directory, name).unlink()

    def make_directories(self, paths: Iterable[str]) -> None:
        """Directories for files to be made in; those above them come along."""
        for path in sorted(set(paths)):
            (self.root / path).mkdir(parents=True, exist_ok=True)

    def make_durable(self, *, all_at_once: bool) -> None:
        """Wait until what was made is on the disk: file by file was done before, or everything now."""
        if all_at_once and sync_file_system(self.root):
            return
        for directory, _, names in os.walk(self.root):
            for name in names if all_at_once else []:
                descriptor = os.open(os.path.join(directory, name), os.O_RDONLY | os.O_CLOEXEC)  # noqa: PTH118
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
            sync_directory(Path(directory))

    def install(self, commit: Callable[[], None], *, only: str | None = None) -> None:
        """Put everything (or the one file ``only``) into the destination's place, then ``commit``.

        When ``commit`` raises, the destination is again what it was."""
        made = self.root / only if only else self.root
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
def staging(
    destination: Path, recorded: Generation, *, overwrite: bool, adopt: Callable[[Path], bool] = lambda journal: False
) -> Iterator[Stage]:
    """A stage beside ``destination`` (a real path), gone at the end however it ends; its parents are made if missing.

    ``recorded`` is the destination's recorded generation; ``adopt`` says of a journal that a killed run has left
    whether this run goes on with its work. Raises ``DestinationExistsError`` unless there is nothing, or an empty
    directory, or ``overwrite`` is given."""
    if destination == destination.parent:
        raise DestinationExistsError(f"{destination}: is the root directory")
    destination.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{destination.name}.casemate-"
    with contextlib.ExitStack() as stack:
        directory = _clear_stale(destination, prefix, recorded, adopt, stack)
        adopted = directory is not None
        try:
            if not overwrite and os.path.lexists(destination) and not _is_empty_directory(destination):
                raise DestinationExistsError(f"{destination}: exists and holds something")
            if directory is None:
                directory = destination.parent / f"{prefix}{secrets.token_hex(8)}"
                directory.mkdir(mode=0o700)
                stack.enter_context(locked(directory))
            yield Stage(directory, destination, adopted=adopted)
        finally:
            if directory is not None:
                shutil.rmtree(directory, ignore_errors=True)


def _is_empty_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and not any(path.iterdir())


def _clear_stale(
    destination: Path,
    prefix: str,
    recorded: Generation,
    adopt: Callable[[Path], bool],
    stack: contextlib.ExitStack,
) -> Path | None:
    """Remove what killed runs left, but for one that can be gone on with: that is given back, locked.

    If one was killed after the exchange and before its record, undo the exchange."""
    adopted = None
    for stale in [
        path for path in destination.parent.iterdir() if path.name.startswith(prefix) and not path.is_symlink()
    ]:
        with contextlib.suppress(FileNotFoundError), contextlib.ExitStack() as own:
            if not own.enter_context(locked(stale)):
                continue  # a run that is alive
            _undo(stale, destination, recorded)
            if adopted is None and adopt(stale / JOURNAL):
                _take_back(stale, destination, recorded)
                adopted = stale
                stack.enter_context(own.pop_all())
            else:
                shutil.rmtree(stale, ignore_errors=True)
    return adopted


def _undo(stale: Path, destination: Path, recorded: Generation) -> None:
    for kept in (stale / "old", stale / "new"):
        if recorded.number and _holds(kept, recorded) and not _holds(destination, recorded):
            if not os.path.lexists(destination):
                kept.rename(destination)
            elif not _exchange(kept, destination):
                unrecorded = stale / "unrecorded"
                destination.rename(unrecorded)
                kept.rename(destination)
                if not (stale / "new").exists():
                    unrecorded.rename(stale / "new")


def _take_back(stale: Path, destination: Path, recorded: Generation) -> None:
    """A run that was killed between its first install and the record: what it made is no destination yet."""
    made = stale / "new"
    if made.exists() or not destination.is_dir() or not stored_manifests(destination):
        return
    if not (recorded.number and _holds(destination, recorded)):
        destination.rename(made)


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
