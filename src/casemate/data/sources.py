"""What to encrypt: files, directories, patterns and objects, each with the path it gets in the dataset.

Nothing is left out in silence: what cannot be encrypted (a device, a name that is not UTF-8, a reserved one, a link to
a directory) is refused before anything is written.
"""

from __future__ import annotations

import glob
import itertools
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from casemate.data.errors import SourceMissingError
from casemate.data.manifest import is_hidden
from casemate.data.objects import is_remote, object_store
from casemate.errors import UsageError

__all__ = ["PlainFile", "Sources", "find_sources", "identity_of", "split_pattern"]


@dataclass(frozen=True, slots=True)
class PlainFile:
    """One file to encrypt."""

    path: str  # below the destination, with "/"
    source: str  # a local path, or an object's URI
    size: int  # bytes, when it was found
    identity: str  # differs whenever the content may differ


@dataclass
class Sources:
    """Everything to encrypt: files in the order of their paths, and directories that hold none."""

    files: list[PlainFile] = field(default_factory=list)
    empty_directories: list[str] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(file.size for file in self.files)


def identity_of(status: os.stat_result) -> str:
    """What a local file's identity rests on: inode, size, and the times of its last changes in nanoseconds."""
    return f"{status.st_dev}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"


def find_sources(sources: Sequence[str]) -> Sources:
    """All files of ``sources``: local paths, patterns (``*``, ``?``, ``[...]``, ``**``) and URIs such as ``s3://``.

    One file keeps its name and one directory gives what it holds. Of several, or of a pattern's matches, each keeps its
    name: its path below the pattern's part before the first wildcard. Raises ``SourceMissingError`` for one that
    matches nothing or holds no file, and ``UsageError`` for what cannot be in a dataset, or two files of one path."""
    found = Sources()
    for source in sources:
        for location, name in _expand(source, alone=len(sources) == 1):
            before = len(found.files)
            _add(found, location, name)
            if len(found.files) == before:
                raise SourceMissingError(f"{location}: holds no file")
    found.files.sort(key=lambda file: file.path)
    for one, other in itertools.pairwise(found.files):
        if one.path == other.path or other.path.startswith(one.path + "/"):
            raise UsageError(f"{one.source} and {other.source}: both would be {one.path} in the dataset")
    return found


def split_pattern(pattern: str) -> tuple[str, bool]:
    """The directory part before the first wildcard, and whether there is a wildcard at all."""
    parts = pattern.split("/")
    for i, part in enumerate(parts):
        if glob.has_magic(part):
            return "/".join(parts[:i]), True
    return pattern, False


def _expand(source: str, *, alone: bool) -> Iterator[tuple[str, str | None]]:
    """Places to look at, each with the name it gets; ``None``: what it holds goes to the top."""
    base, is_pattern = split_pattern(source)
    remote = is_remote(source)
    if is_pattern and (object_store(source).exists(source) if remote else os.path.lexists(source)):
        is_pattern = False  # a name that is there is no pattern
    if not is_pattern:
        matches = [source]
    elif remote:
        matches = object_store(source).glob(source)
    else:
        matches = sorted(glob.glob(source, recursive=True, include_hidden=False))  # noqa: PTH207 - text, as given
    if not matches:
        raise SourceMissingError(f"{source}: matches nothing")
    taken = set(matches)
    for match in matches:
        if is_pattern:
            if any(above in taken for above in _above(match)):
                continue  # a directory around it matches as well, and brings it
            yield match, match[len(base) :].strip("/") if base else match.strip("/")
        else:
            yield match, None if alone else os.path.basename(match.rstrip("/")) or None  # noqa: PTH119


def _above(path: str) -> Iterator[str]:
    while (cut := path.rstrip("/").rfind("/")) > 0:
        path = path[:cut]
        yield path


def _add(found: Sources, location: str, name: str | None) -> None:
    if is_remote(location):
        found.files.extend(_objects(location, name))
        return
    try:
        status = os.stat(location)  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        raise SourceMissingError(f"{location}: not found") from None
    if stat.S_ISDIR(status.st_mode):
        _walk(found, location, name + "/" if name else "")
    elif stat.S_ISREG(status.st_mode):
        path = _dataset_path(name or os.path.basename(location), location)  # noqa: PTH119
        found.files.append(PlainFile(path, location, status.st_size, identity_of(status)))
    else:
        raise UsageError(f"{location}: not a regular file")


def _objects(location: str, name: str | None) -> Iterable[PlainFile]:
    for relative, one in object_store(location).found(location):
        path = "/".join(part for part in (name, relative) if part) or one.uri.rpartition("/")[2]
        yield PlainFile(_dataset_path(path, one.uri), one.uri, one.size, one.identity)


def _walk(found: Sources, directory: str, relative: str) -> None:
    empty = True
    with os.scandir(directory) as entries:
        for entry in entries:
            empty = False
            path = _dataset_path(relative + entry.name, entry.path)
            if entry.is_dir(follow_symlinks=False):
                _walk(found, entry.path, path + "/")
            elif entry.is_file():
                status = entry.stat()
                found.files.append(PlainFile(path, entry.path, status.st_size, identity_of(status)))
            elif entry.is_symlink() and entry.is_dir():
                raise UsageError(f"{entry.path}: a symbolic link to a directory; give the directory itself")
            else:
                raise UsageError(f"{entry.path}: not a regular file")
    if empty and relative:
        found.empty_directories.append(relative[:-1])


def _dataset_path(relative: str, location: str) -> str:
    try:
        relative.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{os.fsencode(location)!r}: the file's name is not UTF-8") from None
    if is_hidden(relative):
        raise UsageError(f"{location}: this name is reserved, and cannot be in a dataset")
    if any(part in ("", ".", "..") for part in relative.split("/")):
        raise UsageError(f"{location}: a path with {relative!r} in it cannot be in a dataset")
    return relative
