"""Local storage below zones: files that appear whole or not at all, and listings that follow no symbolic link."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from casemate.data.errors import ManifestMissingError, ManifestRolledBackError, ZoneAccessError
from casemate.data.generations import Generation
from casemate.data.manifest import TEMPORARY_DIRECTORY, is_hidden, manifest_number, manifest_path
from casemate.data.zones import HIDDEN_DIRECTORY

__all__ = [
    "AtomicFile",
    "empty_directories_below",
    "files_below",
    "locked",
    "open_stored",
    "read_manifest",
    "stored_manifests",
    "sync_directory",
    "sync_file_system",
    "sync_files",
    "write_manifest",
]


def open_stored(path: Path) -> tuple[BinaryIO, int]:
    """A regular file for unbuffered reading, and its size. Raises ``OSError``, or ``ZoneAccessError`` for a link."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as exc:
        if exc.errno == errno.ELOOP:
            raise ZoneAccessError(f"{path}: is a symbolic link") from exc
        raise
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        code = errno.EISDIR if stat.S_ISDIR(status.st_mode) else errno.EINVAL
        raise OSError(code, os.strerror(code), str(path))
    return os.fdopen(descriptor, "rb", buffering=0), status.st_size


def sync_directory(path: Path) -> None:
    """Make names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file_system(directory: Path) -> bool:
    """Write out the whole file system (Linux ``syncfs``): one wait instead of one for each of very many files."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "syncfs"):
        return False
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if libc.syncfs(descriptor) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(directory))
    finally:
        os.close(descriptor)
    return True


def sync_files(paths: Iterable[Path]) -> None:
    """Make files and their names durable; those that are not there are passed over."""
    directories = set()
    for path in paths:
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            os.fsync(file.fileno())
            directories.add(path.parent)
    for directory in directories:
        sync_directory(directory)


class AtomicFile:
    """A file under a temporary name until ``commit``; the name it replaces stays as it was until then.

    The temporary name lies in ``_temporary/`` beside the file, which no listing and no manifest includes. With
    ``durable=False`` the caller synchronises the file system before anything depends on the file."""

    def __init__(self, path: Path, *, exclusive: bool = False, durable: bool = True) -> None:
        self._path = path
        self._exclusive, self._durable = exclusive, durable
        self._directory = path.parent / TEMPORARY_DIRECTORY
        if not path.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path.parent))
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if exclusive and os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        self._temporary = self._directory / f"casemate-{secrets.token_hex(8)}"
        self.raw = os.fdopen(self._create(), "wb", buffering=0)

    def _create(self) -> int:
        for attempts_left in range(20, -1, -1):
            with contextlib.suppress(FileExistsError):
                self._directory.mkdir()
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
                return os.open(self._temporary, flags, 0o666)
            except FileNotFoundError:  # another writer finished, and removed the directory it thought empty
                if not attempts_left:
                    raise
            except BaseException:
                self._tidy()
                raise
        raise AssertionError("unreachable")

    def commit(self) -> None:
        """Make the file durable and give it its name. On an error the file is gone and the old one stands."""
        try:
            if self._durable:
                os.fsync(self.raw.fileno())
            self.raw.close()
            if self._exclusive:
                os.link(self._temporary, self._path)
                self._temporary.unlink()
            else:
                self._temporary.replace(self._path)
        except BaseException:
            self.discard()
            raise
        self._tidy()
        if self._durable:
            sync_directory(self._path.parent)

    def discard(self) -> None:
        """Remove the unfinished file."""
        self.raw.close()
        with contextlib.suppress(OSError):
            self._temporary.unlink()
        self._tidy()

    def _tidy(self) -> None:
        with contextlib.suppress(OSError):  # another writer's file may be in it
            self._directory.rmdir()


def files_below(root: Path, committed: list[str] | None = None) -> Iterator[tuple[str, int]]:
    """Relative path (with ``/``) and stored size of every regular file below ``root``, but for hidden ones; sorted.

    ``committed`` gets the path of every directory below ``root`` in which manifests lie."""

    def walk(directory: str, relative: str) -> Iterator[tuple[str, int]]:
        with os.scandir(directory) as entries:
            ordered = sorted(entries, key=lambda entry: entry.name)
        for entry in ordered:
            if is_hidden(entry.name):
                if entry.name == HIDDEN_DIRECTORY and relative and committed is not None:
                    committed.append(relative[:-1])
            elif entry.is_dir(follow_symlinks=False):
                yield from walk(entry.path, f"{relative}{entry.name}/")
            elif entry.is_file(follow_symlinks=False):
                yield f"{relative}{entry.name}", entry.stat(follow_symlinks=False).st_size

    yield from walk(str(root), "")


def empty_directories_below(root: Path) -> Iterator[str]:
    """Relative path of every directory below ``root`` with nothing in it but what is hidden."""
    for directory, names, files in os.walk(root):
        names[:] = [name for name in names if not is_hidden(name)]
        if not names and not files and directory != str(root):
            yield os.path.relpath(directory, root)


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[bool]:
    """Hold a directory's advisory lock; gives ``False`` when another process holds it. Ends with the process."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def stored_manifests(root: Path) -> list[tuple[int, Path]]:
    """The manifest files below ``root`` with the number in their name, ascending; whether they are any good is not
    looked at."""
    try:
        found = [(manifest_number(path.name), path) for path in (root / HIDDEN_DIRECTORY).iterdir()]
    except OSError:
        return []
    return sorted((number, path) for number, path in found if number is not None)


def read_manifest(root: Path, generation: Generation) -> bytes:
    """The bytes of that manifest. Raises ``ManifestMissingError`` or ``ManifestRolledBackError``."""
    path = root / manifest_path(generation)
    if not generation.holds_files:
        raise ManifestMissingError(f"{root}: was deleted as generation {generation.number} and not written again")
    try:
        raw, _ = open_stored(path)
        with raw:
            return raw.read()
    except (OSError, ZoneAccessError) as exc:
        older = [number for number, _ in stored_manifests(root) if number < generation.number]
        if older:
            raise ManifestRolledBackError(
                f"{root}: rolled back from generation {generation.number} to {max(older)}"
            ) from exc
        raise ManifestMissingError(f"{path}: not there, and generation {generation.number} is recorded") from exc


def write_manifest(root: Path, generation: Generation, manifest: bytes) -> Path:
    """Store a manifest durably; says nothing to the records."""
    path = root / manifest_path(generation)
    path.parent.mkdir(exist_ok=True)
    out = AtomicFile(path)
    try:
        out.raw.write(manifest)
    except BaseException:
        out.discard()
        raise
    out.commit()
    return path
