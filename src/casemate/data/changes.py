"""What one process wrote, moved or deleted in its zones and has not committed yet. No manifest can say it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

__all__ = ["Changes"]


class Changes:
    """Paths are normalised URIs. Safe to use from threads."""

    def __init__(self) -> None:
        self._marks: dict[str, str | None] = {}  # the id of a file that was written or moved here; None: gone
        self._lock = threading.Lock()

    def wrote(self, uri: str, file_id: str) -> None:
        """A file with this id was put at ``uri``, whatever was there before."""
        with self._lock:
            self._marks[uri] = file_id

    def gone(self, uri: str) -> None:
        """What was at or below ``uri`` was deleted or moved away."""
        with self._lock:
            self._marks = {path: mark for path, mark in self._marks.items() if not path.startswith(uri + "/")}
            self._marks[uri] = None

    def file_id(self, uri: str) -> str | None:
        """The id of the file that this process put at ``uri``."""
        return self._marks.get(uri)

    def covers(self, uri: str) -> bool:
        """Whether ``uri`` or a directory above it was changed."""
        return bool(self._marks) and any(path in self._marks for path in _and_above(uri))

    def within(self, directory: str) -> list[str]:
        """What was changed below ``directory``, as paths relative to it."""
        below = directory + "/"
        with self._lock:
            return [path[len(below) :] for path in self._marks if path.startswith(below)]

    def committed(self, directory: str) -> None:
        """A manifest now says what is in ``directory``."""
        with self._lock:
            below = directory + "/"
            self._marks = {
                path: mark for path, mark in self._marks.items() if path != directory and not path.startswith(below)
            }


def _and_above(uri: str) -> Iterator[str]:
    while uri.count("/") > 2:
        yield uri
        uri = uri.rpartition("/")[0]
