"""Start a program on copies of its zones in the TEE's private memory: ``python -m casemate.workload.files.stage``.

Where nothing can be mounted. ``casemate run`` starts this in the program's place (``engine_settings: {"files":
"stage"}``): every zone that is read is decrypted into private memory, every argument that names a path in a zone names
the copy instead, and when the program has ended with status 0, what is new or changed in the copies of zones that are
written is encrypted and committed, and what was deleted is deleted. A failed program changes nothing in its zones.
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from casemate.data.client import AgentClient
from casemate.data.errors import OutsideZonesError, StorageFailedError, UnsupportedOperationError, ZoneAccessError
from casemate.data.filesystem import ZoneFileSystem
from casemate.data.format import stored_size
from casemate.data.keys import RememberedKeys
from casemate.data.session import ZoneSession
from casemate.data.zones import ZoneMap, is_within, local_path, normalise
from casemate.errors import CasemateError, FailedError, UsageError
from casemate.model import Zone
from casemate.workload.child import die_with_parent, end_descendants, keep_descendants
from casemate.workload.errors import StageTooSmallError
from casemate.workload.files.undo import Undo

__all__ = ["Copy", "copies_of", "fill", "main", "staged_argument"]

_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_SPARE = 0.9  # of the private memory's free space may be filled with copies
_PAGE, _CHUNK = 4096, 2**20  # bytes

Mark = tuple[int, int, int]
"""Inode, size, modification time in nanoseconds: what tells a changed copy."""


@dataclass
class Copy:
    """A zone and where its plaintext lies: a zone that lies in another has its copy in the other's."""

    zone: Zone
    directory: Path
    inner: list[Path] = field(default_factory=list)  # where the copies of zones in this one begin
    before: dict[str, Mark | None] = field(default_factory=dict)  # by relative path; None: a directory


def main(argv: Sequence[str]) -> int:
    """``-- program argument…``; the exit status is the program's, or 1 with a refusal reported."""
    command = list(argv[argv.index("--") + 1 :])
    agent = AgentClient.from_environment()
    place = Path(tempfile.mkdtemp(prefix="zones-"))  # TMPDIR is private memory
    keep_descendants()
    try:
        session = ZoneSession.from_environment()
        session.keys, session.durable_files = RememberedKeys(session.keys), False
        files = ZoneFileSystem(session)
        copies = copies_of(agent.session().zones, place)
        fill(files, copies)
        status = _program([staged_argument(text, session.zones, _directories(copies)) for text in command])
        end_descendants()  # nobody changes the copies any more
        if status == 0:
            _bring_back(files, session, copies)
        return status
    except CasemateError as exc:
        agent.report(exc)
        return 1
    except OSError as exc:
        agent.report(StorageFailedError(f"{exc.filename or 'staging'}: {exc.strerror or exc}"))
        return 1
    finally:
        shutil.rmtree(place, ignore_errors=True)
        agent.close()


def copies_of(zones: Sequence[Zone], place: Path) -> list[Copy]:
    """Where below ``place`` the copy of each zone lies. Raises ``UnsupportedOperationError``."""
    copies: list[Copy] = []
    for number, zone in enumerate(sorted(zones, key=lambda zone: len(zone.prefix))):
        _root(zone)
        around = next((copy for copy in reversed(copies) if is_within(zone.prefix, copy.zone.prefix)), None)
        if around is None:
            copies.append(Copy(zone, place / str(number)))
        else:
            copies.append(Copy(zone, around.directory / zone.prefix[len(around.zone.prefix) :].lstrip("/")))
            around.inner.append(copies[-1].directory)
    return copies


def staged_argument(text: str, zones: ZoneMap, directories: Mapping[str, Path]) -> str:
    """The argument as the program gets it: a path in a zone (absolute or relative) names the copy in ``directories``,
    which are by the zones' prefixes; anything else stays as it is."""
    if not text or "\0" in text:
        return text
    try:
        uri = normalise(text, working_directory=os.getcwd())  # noqa: PTH109
    except (UsageError, CasemateError):
        return text
    zone = zones.zone_of(uri)
    if zone is None:
        return text
    below = uri[len(zone.prefix) :].lstrip("/")
    return str(directories[zone.prefix] / below) if below else str(directories[zone.prefix])


def _directories(copies: Sequence[Copy]) -> dict[str, Path]:
    return {copy.zone.prefix: copy.directory for copy in copies}


def fill(files: ZoneFileSystem, copies: Sequence[Copy]) -> None:
    """Decrypt what is read into the copies, when it fits. Raises ``StageTooSmallError``, or as strict reads do."""
    plan: list[tuple[str, dict[str, Any], Path]] = []
    for copy in copies:
        root = _root(copy.zone)
        copy.directory.mkdir(parents=True, exist_ok=True)
        if not copy.zone.access.can_read or not files.exists(root):
            continue
        if files.isfile(root):
            raise UnsupportedOperationError(f"{copy.zone.prefix}: is a file; staging needs the directory around it")
        for path, info in files.find(root, withdirs=True, detail=True).items():
            target = copy.directory / path[len(root) :].lstrip("/")
            if path != root and not any(target.is_relative_to(inner) for inner in copy.inner):
                plan.append((path, info, target))
    needed = sum(-(-info["size"] // _PAGE) * _PAGE for _, info, _ in plan)
    free = shutil.disk_usage(copies[0].directory).free if copies else 0
    if needed > free * _SPARE:
        raise StageTooSmallError(f"{needed} bytes of plaintext, {free} bytes of private memory are free")
    for path, info, target in plan:
        if info["type"] == "directory":
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with files.open(path, "rb") as source, target.open("xb") as out:
            shutil.copyfileobj(source, out, _CHUNK)
        os.utime(target, (info["mtime"], info["mtime"]))  # so that every change shows, however soon it comes
    for copy in copies:
        copy.before = dict(_marks(copy))


def _program(command: list[str]) -> int:
    """Run it; its exit status, 128 + n when signal n ended it."""
    try:
        process = subprocess.Popen(command, preexec_fn=die_with_parent)
    except OSError as exc:
        raise FailedError(f"{command[0]}: {exc.strerror or exc}") from exc

    def forward(signum: int, _frame: FrameType | None) -> None:
        process.send_signal(signum)

    for signum in _FORWARDED:
        signal.signal(signum, forward)
    status = process.wait()
    return status if status >= 0 else 128 - status


def _bring_back(files: ZoneFileSystem, session: ZoneSession, copies: Sequence[Copy]) -> None:
    """Encrypt what the program made or changed, delete what it deleted, and commit; all of it or nothing."""
    work = [(copy, dict(_marks(copy))) for copy in copies]
    for copy, after in work:
        if not copy.zone.access.can_write and after != copy.before:
            path = min(path for path, _ in copy.before.items() ^ after.items())
            raise ZoneAccessError(f"{copy.zone.prefix}/{path}: changed, and the zone is only for reading")
        needed = sum(stored_size(mark[1]) for path, mark in after.items() if mark and copy.before.get(path) != mark)
        _root_directory(copy.zone, needed)
    for copy, after in reversed(work):
        if copy.zone.access.can_write and after != copy.before:
            undo = Undo(Path(_root(copy.zone)))
            try:
                _store(files, copy, after, undo)
                session.commit_changes(copy.zone)
            except BaseException:
                undo.restore()
                raise
            undo.drop()


def _root_directory(zone: Zone, needed: int) -> None:
    """Have the zone's directory, with room for ``needed`` bytes more."""
    if zone.access.can_write:
        root = Path(_root(zone))
        root.mkdir(parents=True, exist_ok=True)
        if needed > (free := shutil.disk_usage(root).free):
            raise StorageFailedError(f"{zone.prefix}: {needed} bytes to store, {free} bytes are free")


def _store(files: ZoneFileSystem, copy: Copy, after: Mapping[str, Mark | None], undo: Undo) -> None:
    root = _root(copy.zone)
    for relative, mark in sorted(copy.before.items(), reverse=True):  # what is in a directory before itself
        if relative in after and (after[relative] is None) == (mark is None):
            continue
        undo.keep(Path(root, relative))
        if mark is None:
            files.rm(f"{root}/{relative}", recursive=True)
        else:
            files.rm_file(f"{root}/{relative}")
    for relative, mark in sorted(after.items()):
        path = f"{root}/{relative}"
        if mark is None:
            files.makedirs(path, exist_ok=True)
        elif copy.before.get(relative) != mark:
            undo.keep(Path(path))
            with (copy.directory / relative).open("rb") as source, files.open(path, "wb") as out:
                shutil.copyfileobj(source, out, _CHUNK)


def _marks(copy: Copy) -> Iterator[tuple[str, Mark | None]]:
    for path in copy.directory.rglob("*"):
        if any(path.is_relative_to(inner) for inner in copy.inner):
            continue
        relative, found = path.relative_to(copy.directory).as_posix(), path.lstat()
        if stat.S_ISLNK(found.st_mode):
            raise OutsideZonesError(f"{relative}: is a symbolic link, and links cannot be stored encrypted")
        if stat.S_ISDIR(found.st_mode):
            yield relative, None
        elif stat.S_ISREG(found.st_mode):
            yield relative, (found.st_ino, found.st_size, found.st_mtime_ns)


def _root(zone: Zone) -> str:
    path = local_path(zone.prefix)
    if path is None or not is_within(zone.prefix, "file:///"):
        raise UnsupportedOperationError(f"{zone.prefix}: only local directories can be staged")
    return path


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
