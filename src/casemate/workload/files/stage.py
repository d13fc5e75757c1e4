"""Start a program on copies of its zones in the TEE's private memory: ``python -m casemate.workload.files.stage``.

Where nothing can be mounted. ``casemate run`` starts this in the program's place (``engine_settings: {"files":
"stage"}``): every zone that is read is decrypted into private memory, every argument that names a path in a zone names
the copy instead, and when the program has ended with status 0, what is new or changed in the copies of zones that are
written is encrypted and committed. A failed program changes nothing in its zones.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from casemate.data.client import AgentClient
from casemate.data.errors import OutsideZonesError, UnsupportedOperationError
from casemate.data.filesystem import ZoneFileSystem
from casemate.data.session import ZoneSession
from casemate.data.zones import ZoneMap, is_within, local_path, normalise
from casemate.errors import CasemateError, UsageError
from casemate.model import Zone
from casemate.workload.child import die_with_parent
from casemate.workload.errors import StageTooSmallError

__all__ = ["main", "staged_argument"]

_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_SPARE = 0.9  # of the private memory's free space may be filled with copies

Mark = tuple[int, int, int]
"""Inode, size, modification time in nanoseconds: what tells a changed copy."""


@dataclass
class _Copy:
    """A zone and where its plaintext lies."""

    zone: Zone
    directory: Path
    before: dict[str, Mark] = field(default_factory=dict)


def main(argv: Sequence[str]) -> int:
    """``-- program argument…``; the exit status is the program's, or 1 with a refusal reported."""
    command = list(argv[argv.index("--") + 1 :])
    agent = AgentClient.from_environment()
    place = Path(tempfile.mkdtemp(prefix="zones-"))  # TMPDIR is private memory
    try:
        session = ZoneSession.from_environment()
        files = ZoneFileSystem(session)
        copies = [_Copy(zone, place / str(number)) for number, zone in enumerate(agent.session().zones)]
        _fill(files, copies)
        status = _program([staged_argument(text, session.zones, _directories(copies)) for text in command])
        if status == 0:
            for copy in copies:
                if copy.zone.access.can_write:
                    _bring_back(files, session, copy)
        return status
    except CasemateError as exc:
        agent.report(exc)
        return 1
    finally:
        shutil.rmtree(place, ignore_errors=True)
        agent.close()


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


def _directories(copies: Sequence[_Copy]) -> dict[str, Path]:
    return {copy.zone.prefix: copy.directory for copy in copies}


def _fill(files: ZoneFileSystem, copies: Sequence[_Copy]) -> None:
    """Decrypt what is read into the copies, when it fits."""
    plan: list[tuple[_Copy, str, str, int]] = []
    for copy in copies:
        root = _root(copy.zone)
        copy.directory.mkdir()
        if not copy.zone.access.can_read or not files.exists(root):
            continue
        if files.isfile(root):
            raise UnsupportedOperationError(f"{copy.zone.prefix}: is a file; staging needs the directory around it")
        for path, info in files.find(root, withdirs=True, detail=True).items():
            if path != root:
                plan.append(
                    (copy, path, path[len(root) :].lstrip("/"), -1 if info["type"] == "directory" else info["size"])
                )
    needed = sum(max(size, 0) for *_, size in plan)
    free = shutil.disk_usage(copies[0].directory).free if copies else 0
    if needed > free * _SPARE:
        raise StageTooSmallError(f"{needed} bytes of plaintext, {free} bytes of private memory are free")
    for copy, path, relative, size in plan:
        target = copy.directory / relative
        if size < 0:
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with files.open(path, "rb") as source, target.open("xb") as out:
            shutil.copyfileobj(source, out, 2**20)
    for copy in copies:
        copy.before = dict(_marks(copy.directory))


def _program(command: list[str]) -> int:
    """Run it; its exit status, 128 + n when signal n ended it."""
    process = subprocess.Popen(command, preexec_fn=die_with_parent)

    def forward(signum: int, _frame: FrameType | None) -> None:
        process.send_signal(signum)

    for signum in _FORWARDED:
        signal.signal(signum, forward)
    status = process.wait()
    return status if status >= 0 else 128 - status


def _bring_back(files: ZoneFileSystem, session: ZoneSession, copy: _Copy) -> None:
    """Encrypt what the program made or changed, delete what it deleted, and commit the zone."""
    root, after = _root(copy.zone), dict(_marks(copy.directory))
    changed = [relative for relative, mark in after.items() if copy.before.get(relative) != mark]
    gone = [relative for relative in copy.before if relative not in after]
    for directory in sorted(path for path in copy.directory.rglob("*") if path.is_dir() and not path.is_symlink()):
        files.makedirs(f"{root}/{directory.relative_to(copy.directory).as_posix()}", exist_ok=True)
    for relative in changed:
        path = f"{root}/{relative}"
        files.makedirs(path.rpartition("/")[0], exist_ok=True)
        with (copy.directory / relative).open("rb") as source, files.open(path, "wb") as out:
            shutil.copyfileobj(source, out, 2**20)
    for relative in gone:
        files.rm_file(f"{root}/{relative}")
    if changed or gone:
        session.commit(copy.zone.prefix)


def _marks(directory: Path) -> Iterator[tuple[str, Mark]]:
    for path in sorted(directory.rglob("*")):
        relative = path.relative_to(directory).as_posix()
        if path.is_symlink():
            raise OutsideZonesError(f"{relative}: is a symbolic link, and links cannot be stored encrypted")
        if path.is_file():
            found = path.stat()
            yield relative, (found.st_ino, found.st_size, found.st_mtime_ns)


def _root(zone: Zone) -> str:
    path = local_path(zone.prefix)
    if path is None or not is_within(zone.prefix, "file:///"):
        raise UnsupportedOperationError(f"{zone.prefix}: only local directories can be staged")
    return path


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
