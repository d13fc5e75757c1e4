"""File ids that say for which place, and by which job, a file was written. No input or output.

``job (5 bytes) | random (5) | tag (6)``, under K = HKDF(dataset key, "casemate:file-id:v1"): ``job`` is the begin of
HMAC(K, "job" 0 job id), ``tag`` of HMAC(K, "file" 0 job random location). To a reader of the file itself an id is 16
bytes like any other; what it says matters where a file lies that no manifest lists: a commit takes what its own job
wrote for that very place, and a strict reader leaves out what some writer has not committed, or never will.
"""

from __future__ import annotations

import base64
import hmac
import os
import secrets
from enum import Enum

from casemate.crypto.mac import MacKey
from casemate.data.keys import DatasetKey

__all__ = ["FileIds", "Origin"]

_PURPOSE = "casemate:file-id:v1"
_JOB_SIZE, _RANDOM_SIZE, _TAG_SIZE = 5, 5, 6  # bytes
_FIXED_SIZE = _JOB_SIZE + _RANDOM_SIZE


class Origin(Enum):
    """What a file's id says, seen from a place and a job."""

    OURS = "written by this job for this place"
    PENDING = "written by another job for this place"
    FOREIGN = "not written for this place"


class FileIds:
    """Makes and reads the file ids of one job. Without a job's name it is a job of its own."""

    def __init__(self, job: str | None = None) -> None:
        self._job = job or secrets.token_hex(16)
        self._keys: dict[tuple[str, int], tuple[MacKey, bytes]] = {}

    def new(self, key: DatasetKey, location: str) -> str:
        """A fresh id (base64) for a file that shall lie at ``location`` (a normalised URI)."""
        mac, job = self._key(key)
        fixed = job + os.urandom(_RANDOM_SIZE)
        return base64.b64encode(fixed + _tag(mac, fixed, location)).decode()

    def origin(self, key: DatasetKey, location: str, file_id: str) -> Origin:
        """What ``file_id`` says about the file at ``location``; ``key`` is of the version the file names.

        Only for ids whose wrapped key was opened, which shows that a holder of the dataset key chose them."""
        mac, job = self._key(key)
        raw = base64.b64decode(file_id)
        if not hmac.compare_digest(_tag(mac, raw[:_FIXED_SIZE], location), raw[_FIXED_SIZE:]):
            return Origin.FOREIGN
        return Origin.OURS if hmac.compare_digest(raw[:_JOB_SIZE], job) else Origin.PENDING

    def _key(self, key: DatasetKey) -> tuple[MacKey, bytes]:
        name = (str(key.dataset), key.version)
        found = self._keys.get(name)
        if found is None:
            mac = MacKey(key.secret, purpose=_PURPOSE)
            found = self._keys[name] = mac, mac.compute(b"job\0" + self._job.encode())[:_JOB_SIZE]
        return found


def _tag(mac: MacKey, fixed: bytes, location: str) -> bytes:
    return mac.compute(b"file\0" + fixed + location.encode(errors="surrogatepass"))[:_TAG_SIZE]
