"""What a program replaces or deletes in a zone stays within reach until it has ended well: then it is committed or,
when the program failed, put back, so that readers find what was committed before.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from pathlib import Path

from casemate.data.zones import HIDDEN_DIRECTORY

__all__ = ["Undo"]


class Undo:
    """For the zone below ``root``. Encrypted files are never changed in place, so that hard links keep them; where the
    storage has none, copies do."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._place = root / HIDDEN_DIRECTORY / f"undo-{secrets.token_hex(8)}"
        self._seen: dict[str, bool] = {}  # by path below the root: whether the program found a file there

    def keep(self, path: Path) -> None:
        """Call before the file, or all below the directory, at ``path`` is made, replaced or deleted."""
        for file in _files(path):
            self._keep(file)

    def keep_moved(self, source: Path, target: Path) -> None:
        """Call before ``source`` is renamed to ``target``."""
        for file in _files(source):
            self._keep(file)
            self._keep(target / file.relative_to(source))

    def _keep(self, path: Path) -> None:
        relative = path.relative_to(self._root).as_posix()
        if relative in self._seen:
            return
        self._seen[relative] = path.is_file()
        if self._seen[relative]:
            kept = self._place / relative
            kept.parent.mkdir(parents=True, exist_ok=True)
            try:
                kept.hardlink_to(path)
            except OSError:
                shutil.copyfile(path, kept)
                shutil.copystat(path, kept)

    def drop(self) -> None:
        """The program ended well."""
        shutil.rmtree(self._place, ignore_errors=True)
        with contextlib.suppress(OSError):
            self._place.parent.rmdir()

    def restore(self) -> None:
        """Put back everything that was kept, and remove what the program added."""
        for relative, was_there in self._seen.items():
            if not was_there:
                with contextlib.suppress(OSError):  # a directory by now, or in a file's place
                    (self._root / relative).unlink()
        for relative, was_there in self._seen.items():
            if was_there:
                self._put_back(self._place / relative, self._root / relative)
        self.drop()

    def _put_back(self, kept: Path, target: Path) -> None:
        for above in target.parents:
            if above.is_file():
                above.unlink()
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            shutil.rmtree(target)
        kept.replace(target)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return [Path(directory, name) for directory, _, names in os.walk(path) for name in names]
