"""Everything a process needs to read and write its zones, in one object: zone map, keys, records, strict reads.

Integrity errors and refusals of the zones go to ``report`` as well, so that the job's operator sees them even where
the program swallows the exception.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from casemate.data.changes import Changes
from casemate.data.client import AgentClient
from casemate.data.commit import commit_directory
from casemate.data.errors import (
    ManifestFileMissingError,
    ManifestMissingError,
    UnsupportedOperationError,
    ZoneAccessError,
)
from casemate.data.fileid import FileIds, Origin
from casemate.data.generations import Generation, GenerationRecords
from casemate.data.keys import KeyProvider
from casemate.data.local import AtomicFile, sync_file_system, sync_files
from casemate.data.manifest import is_hidden
from casemate.data.objects import ObjectWriter, object_store
from casemate.data.reader import EncryptedReader
from casemate.data.stored import files_below, open_stored
from casemate.data.strict import Governed, StrictReads, authentic_preamble, check_file
from casemate.data.writer import EncryptedWriter
from casemate.data.zones import Located, ZoneMap, local_path
from casemate.errors import CasemateError, RefusedError
from casemate.model import Zone

__all__ = ["ZoneReader", "ZoneSession", "ZoneWriter"]

T = TypeVar("T")

COMMIT_MARKER = "_SUCCESS"  # Hadoop's committers and engines create it when a directory is complete
_FEW_FILES = 64  # up to so many are made durable one by one, more by one wait for the whole file system
_BUFFER = 65536  # bytes; for reads in small pieces, larger ones bypass it


class ZoneReader(io.BufferedReader):
    """Plaintext of one file. ``size`` is its length in bytes."""

    def __init__(self, raw: io.RawIOBase, size: int) -> None:
        super().__init__(raw, _BUFFER)
        self.size = size


class ZoneWriter(EncryptedWriter):
    """A file of a zone, which appears under its name when it is closed, whole; ``abort`` leaves no trace."""

    def __init__(self, session: ZoneSession, located: Located, zone: Zone, *, exclusive: bool) -> None:
        self._session = session
        self._located = located
        self._zone = zone
        self._file = _new_file(located.uri, exclusive=exclusive, durable=session.durable_files)
        self.name = located.uri
        try:
            super().__init__(self._file.raw, session.keys, zone.dataset, place=(session.ids, located.uri))
        except BaseException:
            self._file.discard()
            raise

    def abort(self) -> None:
        super().abort()
        self._file.discard()

    def close(self) -> None:
        if self.closed:
            return
        try:
            super().close()
        except BaseException:
            self._file.discard()
            raise
        self._file.commit()
        self._session.changes.wrote(self._located.uri, self.preamble.file_id)
        if self._located.uri.endswith("/" + COMMIT_MARKER):
            self._session.commit(self._located.uri.rpartition("/")[0])


def _new_file(uri: str, *, exclusive: bool, durable: bool) -> AtomicFile | ObjectWriter:
    path = local_path(uri)
    if path is None:
        return object_store(uri).create(uri, exclusive=exclusive)
    return AtomicFile(Path(path), exclusive=exclusive, durable=durable)


def _path(uri: str) -> Path:
    path = local_path(uri)
    if path is None:
        raise UnsupportedOperationError(f"{uri}: outside the zones, where only local files (file://) are used")
    return Path(path)


class ZoneSession:
    """The zones of one process. Paths in, plaintext streams out, or a refusal. Safe to use from threads."""

    def __init__(
        self,
        zones: ZoneMap,
        keys: KeyProvider,
        records: GenerationRecords,
        *,
        strict: bool = True,
        report: Callable[[CasemateError], None] = lambda error: None,
        job: str | None = None,
    ) -> None:
        self.zones = zones
        self.keys = keys
        self.ids = FileIds(job)
        self.changes = Changes()
        self.durable_files = True
        """Whether every file is on the disk when it is closed, or only when ``commit_changes`` says so."""
        self._records = records
        self._strict = StrictReads(keys, records, self.ids) if strict else None
        self._report = report

    _shared: tuple[int, str, ZoneSession] | None = None
    _shared_lock = threading.Lock()

    @classmethod
    def from_environment(cls) -> ZoneSession:
        """The one session of this process with its agent. Raises ``AgentUnreachableError``."""
        client = AgentClient.from_environment()
        with cls._shared_lock:
            shared = cls._shared
            if shared is None or shared[:2] != (os.getpid(), client.path):
                if shared is not None and shared[0] == os.getpid():
                    shared[2].close()
                job = client.session()
                session = cls(job.zone_map(), client, client, strict=job.strict, report=client.report, job=job.job)
                cls._shared = shared = (os.getpid(), client.path, session)
        return shared[2]

    def close(self) -> None:
        """End the connection to the agent, where there is one; a next request makes it anew."""
        if isinstance(self._records, AgentClient):
            self._records.close()

    def tell(self, error: CasemateError) -> None:
        """Tell the job's operator of an error that the program will not see as such."""
        self._report(error)

    @contextlib.contextmanager
    def reporting(self) -> Iterator[None]:
        """Report the refusals that pass through."""
        try:
            yield
        except RefusedError as exc:
            self._report(exc)
            raise

    def open_read(self, located: Located) -> ZoneReader:
        """The plaintext at ``located``; raises ``OSError``, an ``IntegrityError``, or what the keys raise."""
        zone = located.zone
        if zone is None:
            plain = _path(located.uri).open("rb", buffering=0)
            return ZoneReader(plain, os.fstat(plain.fileno()).st_size)
        return self._checked(lambda: self._open_encrypted(located.uri, zone))

    def _open_encrypted(self, uri: str, zone: Zone) -> ZoneReader:
        governed = self._governing(uri, zone)
        try:
            raw, size = open_stored(uri)
        except FileNotFoundError as exc:
            self._refuse_missing(governed, uri, exc)
            raise
        try:
            reader = EncryptedReader(raw, size, self.keys, dataset=zone.dataset, name=uri)
            if governed is not None and not (
                governed.relative(uri) not in governed.manifest.by_path and self._own(uri, zone)
            ):
                check_file(governed, uri, size, reader.preamble.file_id)
        except BaseException:
            raw.close()
            raise
        return ZoneReader(reader, reader.size)

    def open_write(self, located: Located, *, exclusive: bool = False) -> io.BufferedIOBase:
        """A file to write at ``located``, from ``ZoneMap.write``."""
        if located.zone is None:
            return _path(located.uri).open("xb" if exclusive else "wb")
        return ZoneWriter(self, located, located.zone, exclusive=exclusive)

    def check_stat(self, located: Located, stored_size: int | None) -> None:
        """A file that was found with ``stored_size``, or (``None``) not found, is as committed."""
        zone = located.zone
        if zone is None:
            return

        def check() -> None:
            governed = self._governing(located.uri, zone)
            if governed is not None and stored_size is not None:
                if self._left_out(governed, located.uri, zone):
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), located.uri)
                if governed.relative(located.uri) in governed.manifest.by_path or not self._own(located.uri, zone):
                    check_file(governed, located.uri, stored_size)
            elif stored_size is None:
                self._refuse_missing(governed, located.uri, None)

        self._checked(check)

    def check_is_directory(self, located: Located, *, deep: bool = True) -> None:
        """A directory that was found may be there; what is in it ``check_directory`` looks at.

        Where nothing around it was committed, all that is below it has to be good; ``deep=False`` leaves that to
        whoever lists it."""
        zone, strict = located.zone, self._strict
        if zone is None or strict is None or self._exempt(located.uri, zone):
            return
        governed = self._checked(lambda: self._nearest(strict, located.uri, zone))
        if (governed is None and deep) or (governed and governed.relative(located.uri) in governed.manifest.by_path):
            self.check_directory(located)

    def check_directory(self, located: Located) -> frozenset[str]:
        """Everything below a directory of a zone is as committed. Raises an ``IntegrityError`` naming a file.

        Answers the URIs of files that are left out, since their writers have not committed them."""
        zone, strict = located.zone, self._strict
        if zone is None or strict is None or self._exempt(located.uri, zone):
            return frozenset()

        def check() -> frozenset[str]:
            below = files_below(located.uri)
            alone = len(self.zones.zones) == 1
            files = {path: size for path, size in below if alone or self.zones.zone_of(f"{located.uri}/{path}") == zone}
            governors: Mapping[str, Governed | None] = strict.check_tree(
                zone.dataset,
                located.uri,
                files,
                top=zone.prefix,
                ignore=lambda uri: self.zones.zone_of(uri) != zone or self._exempt(uri, zone),
                written=zone.access.can_write,
            )
            if not zone.access.can_write:
                ungoverned = next((path for path, one in governors.items() if one is None), None)
                if ungoverned is not None:
                    raise ManifestMissingError(f"{located.uri}/{ungoverned}: nothing around it was ever committed")
                if not governors and strict.governing(zone.dataset, located.uri, top=zone.prefix) is None:
                    raise ManifestMissingError(f"{located.uri}: nothing was ever committed here")
            return frozenset(f"{located.uri}/{path}" for path in files if path not in governors)

        return self._checked(check)

    def moved(self, source: Located, target: Located) -> None:
        """This process moved a file or directory within one dataset: what lies at ``target`` is its own."""
        self.changes.gone(source.uri)
        zone, path = target.zone, _path(target.uri)
        if zone is None:
            return
        if not path.is_dir():
            self.changes.wrote(target.uri, authentic_preamble(target.uri, zone.dataset, self.keys).file_id)
            return
        for relative, _ in files_below(target.uri):
            uri = f"{target.uri}/{relative}"
            self.changes.wrote(uri, authentic_preamble(uri, zone.dataset, self.keys).file_id)

    def commit(self, directory: str) -> Generation:
        """Commit a directory of a zone as it is now. Raises ``ZoneAccessError`` outside the zones."""
        located = self.zones.write(directory)
        if located.zone is None:
            raise ZoneAccessError(f"{located.uri}: not in a zone, so that there is nothing to commit")
        with self.reporting():
            generation = commit_directory(
                None if local_path(located.uri) is None else _path(located.uri),
                located.uri,
                located.zone.dataset,
                self.keys,
                self._records,
                ids=self.ids,
                changes=self.changes,
                remembered=None if self._strict is None else self._strict.remembered,
            )
        self.changes.committed(located.uri)
        self.forget()
        return generation

    def commit_changes(self, zone: Zone) -> None:
        """Commit every directory of a zone in which this process changed something: the nearest that was committed
        before, else the whole zone. Raises as ``commit``."""
        strict, changed = self._strict, self.changes.within(zone.prefix)
        if not self.durable_files and (len(changed) <= _FEW_FILES or not sync_file_system(_path(zone.prefix))):
            sync_files(_path(f"{zone.prefix}/{path}") for path in changed)
        places = set() if strict is not None and changed else {zone.prefix}
        for path in changed:
            governed = self._nearest(strict, f"{zone.prefix}/{path}", zone) if strict is not None else None
            places.add(governed.location if governed is not None else zone.prefix)
        for place in sorted(places, key=len, reverse=True):
            self.commit(place)

    def forget(self) -> None:
        """Look generations up anew."""
        if self._strict is not None:
            self._strict.invalidate()

    def _checked(self, check: Callable[[], T]) -> T:
        with self.reporting():
            return self._strict.checked(check) if self._strict is not None else check()

    def _exempt(self, uri: str, zone: Zone) -> bool:
        if not zone.access.can_write:
            return False
        if is_hidden(uri[len(zone.prefix) :].lstrip("/")):
            return True  # unfinished files of committers
        return self.changes.covers(uri)

    def _nearest(self, strict: StrictReads, uri: str, zone: Zone) -> Governed | None:
        return strict.governing(zone.dataset, uri, top=zone.prefix, written=zone.access.can_write)

    def _own(self, uri: str, zone: Zone) -> bool:
        """Whether a file that no manifest lists is this job's, written for its place and not committed yet."""
        strict = self._strict
        return strict is not None and zone.access.can_write and strict.left_out(zone.dataset, uri) is Origin.OURS

    def _left_out(self, governed: Governed, uri: str, zone: Zone) -> bool:
        strict = self._strict
        if strict is None or governed.relative(uri) in governed.manifest.by_path:
            return False
        origin = strict.left_out(zone.dataset, uri)
        return origin is Origin.PENDING or (origin is Origin.OURS and not zone.access.can_write)

    def _governing(self, uri: str, zone: Zone) -> Governed | None:
        if self._strict is None or self._exempt(uri, zone):
            return None
        writable = zone.access.can_write
        # In a zone that is only read, nothing but a listed file is read; so its own URI need not be looked up.
        start = uri if writable or uri == zone.prefix else uri.rpartition("/")[0]
        governed = self._nearest(self._strict, start, zone)
        if governed is None and not writable:
            raise ManifestMissingError(f"{uri}: nothing around it was ever committed")
        return governed

    @staticmethod
    def _refuse_missing(governed: Governed | None, uri: str, cause: Exception | None) -> None:
        if governed is None:
            return
        path = governed.relative(uri)
        if path in governed.manifest.by_path or path in governed.manifest.directories:
            place = f"generation {governed.manifest.generation} of {governed.location}"
            raise ManifestFileMissingError(f"{uri}: is in {place} but not there") from cause
