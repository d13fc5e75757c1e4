"""What a run has finished, so that the next one after a kill need not do it again.

One line for each group of finished files, authenticated under a key derived from the dataset key: the journal lies
beside the destination, and whoever owns that storage must not get an old file listed in a new manifest. A journal of
another boot of the machine counts for nothing, since files may have been lost with the power that had made them.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from casemate.crypto.mac import MacKey
from casemate.data.keys import DatasetKey

__all__ = ["Done", "Journal"]

_PURPOSE = "casemate:journal:v1"
_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Done:
    """One finished file: what it was made of, the bytes that were made, and its id."""

    path: str
    identity: str
    size: int
    file_id: str


class Journal:
    """Written by one process, from several of its threads only under the caller's lock."""

    def __init__(self, path: Path, key: DatasetKey, about: str) -> None:
        """``about``: what the run does, in full; a journal about anything else is not this run's."""
        self._path = path
        self._mac = MacKey(key.secret, purpose=_PURPOSE)
        self._about = f"v1 {about} {key.dataset} {key.version} {_boot()}"
        self._id = ""
        self._descriptor = -1
        self.done: Mapping[str, Done] = {}

    @property
    def id(self) -> str:
        """The same for a run and the runs that go on with its work."""
        return self._id

    def load(self) -> bool:
        """Take over what is there; whether it is this run's. A last line that was cut off is left out."""
        try:
            lines = self._path.read_bytes().split(b"\n")
        except OSError:
            return False
        try:
            head = json.loads(lines[0][64:])
            self._id = str(head["id"])
        except (ValueError, KeyError, TypeError, IndexError):
            return False
        if head.get("about") != self._about or self._line(head) != lines[0]:
            self._id = ""
            return False
        done = {}
        for line in lines[1:]:
            if not hmac.compare_digest(self._tag(line[64:]), line[:64]):
                break
            for path, identity, size, file_id in json.loads(line[64:]):
                done[path] = Done(path, identity, size, file_id)
        self.done = done
        return True

    def start(self) -> None:
        """Begin to write, anew with what was taken over."""
        if not self._id:
            self._id = secrets.token_hex(16)
        draft = self._path.with_name(self._path.name + ".new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(draft, flags, 0o600)
        self._write([self._line({"about": self._about, "id": self._id})])
        self.add(self.done.values())
        draft.replace(self._path)

    def add(self, finished: Iterable[Done]) -> None:
        """These files are finished."""
        self._write([self._line([[one.path, one.identity, one.size, one.file_id] for one in finished])])

    def close(self, *, remove: bool = False) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if remove:
            with contextlib.suppress(OSError):
                self._path.unlink()

    def _line(self, value: object) -> bytes:
        text = json.dumps(value).encode()
        return self._tag(text) + text

    def _tag(self, text: bytes) -> bytes:
        return self._mac.compute(self._id.encode() + text).hex().encode()

    def _write(self, lines: list[bytes]) -> None:
        data = b"".join(line + b"\n" for line in lines)
        while data:
            data = data[os.write(self._descriptor, data) :]


def _boot() -> str:
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return "unknown-" + secrets.token_hex(8)
