"""Encrypt and decrypt one file, or one part of a large one: the work that goes on side by side."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from casemate.crypto import stream
from casemate.crypto.secret import Secret
from casemate.data.errors import ManifestFileSwappedError, SourceChangedError
from casemate.data.fileid import FileIds
from casemate.data.format import PREAMBLE_SIZE, new_preamble, stored_size
from casemate.data.keys import DatasetKey, KeyProvider, RememberedKeys
from casemate.data.objects import is_remote, object_store
from casemate.data.reader import EncryptedReader
from casemate.data.sources import identity_of
from casemate.data.stored import open_stored
from casemate.data.writer import EncryptedWriter, encrypt_whole
from casemate.model import DatasetName

__all__ = ["Count", "Decrypting", "Encrypting", "FilePart", "copy", "new_descriptor"]

Count = Callable[[int], None]
"""Called by a worker with the bytes of content it has just done."""

_CHUNK = 2**20  # bytes
_WHOLE = 2**20  # bytes; files of at most so many are read, encrypted and written in one piece


def copy(source: Any, sink: Any | None, count: Count) -> None:
    """All of ``source`` (has ``readinto``) to ``sink`` (has ``write``; ``None`` only reads), a MiB at a time."""
    buffer = memoryview(bytearray(_CHUNK))
    while size := source.readinto(buffer):
        done = 0
        while sink is not None and done < size:
            done += sink.write(buffer[done:size])
        count(size)


def new_descriptor(path: str) -> int:
    """A new file for writing; never an existing one, and never through a link."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)


@contextlib.contextmanager
def _new_file(path: str, *, durable: bool) -> Iterator[Any]:
    """A file or object that appears whole when the block ends well."""
    if is_remote(path):
        upload = object_store(path).create(path)
        try:
            yield upload
        except BaseException:
            upload.discard()
            raise
        upload.commit()
        return
    with os.fdopen(new_descriptor(path), "wb", buffering=0) as raw:
        yield raw
        if durable:
            os.fsync(raw.fileno())


@dataclass(frozen=True)
class FilePart:
    """Segments ``[first, end)`` of a large file that is encrypted by several workers."""

    path: str
    source: str
    size: int  # bytes of plaintext in the whole file
    dek: Secret
    preamble: bytes
    header: bytes  # of the stream
    first: int
    end: int


class Encrypting:
    """Encrypts files below ``root`` (a local directory or a URI), for ``location``, where they will lie."""

    def __init__(self, root: str, location: str, key: DatasetKey, job: str, *, durable: bool) -> None:
        self.root, self.location, self.key, self.job, self.durable = root, location, key, job, durable
        self._keys = OneKey(key)
        self._ids = FileIds(job)

    def file(self, path: str, source: str, identity: str, count: Count) -> tuple[int, str, str]:
        """Encrypt a whole file; its stored size, its file id, and the identity of what was read."""
        if is_remote(source):
            raw, size = object_store(source).open(source)
            with raw:
                return *self._plain(path, raw, size, count), identity
        descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if status.st_size <= _WHOLE:
                content = os.read(descriptor, status.st_size + 1)
                if len(content) == status.st_size:  # the common case, and what 100,000 small files spend their time on
                    return *self._small(path, content, count), identity_of(status)
                os.lseek(descriptor, 0, os.SEEK_SET)
            with open(descriptor, "rb", buffering=0, closefd=False) as plain:
                return *self.stream(path, plain, count), identity_of(status)
        finally:
            os.close(descriptor)

    def _plain(self, path: str, plain: BinaryIO, size: int, count: Count) -> tuple[int, str]:
        if size <= _WHOLE:
            return self._small(path, plain.read(), count)
        return self.stream(path, plain, count)

    def _small(self, path: str, content: bytes, count: Count) -> tuple[int, str]:
        file_id = self._ids.new(self.key, f"{self.location}/{path}")
        _, stored = encrypt_whole(memoryview(content), self.key, file_id)
        self._write(path, stored)
        count(len(content))
        return len(stored), file_id

    def stream(self, path: str, source: Any, count: Count) -> tuple[int, str]:
        """Encrypt all that ``source`` (has ``readinto``) gives; the stored size and the file id."""
        with _new_file(f"{self.root}/{path}", durable=self.durable) as raw:
            place = (self._ids, f"{self.location}/{path}")
            with EncryptedWriter(raw, self._keys, self.key.dataset, place=place) as writer:
                copy(source, writer, count)
        return writer.stored_size, writer.preamble.file_id

    def begin(self, path: str, source: str, size: int) -> tuple[FilePart, str]:
        """Make a large local file for parts to be put into: the part that is all of it, and its file id."""
        preamble, dek = new_preamble(self.key, self._ids.new(self.key, f"{self.location}/{path}"))
        header = stream.StreamEncrypter(dek, preamble.raw).header
        with os.fdopen(new_descriptor(f"{self.root}/{path}"), "wb", buffering=0) as raw:
            raw.write(preamble.raw + header)
            raw.truncate(stored_size(size))
        end = stream.segment_count(stored_size(size) - PREAMBLE_SIZE)
        return FilePart(path, source, size, dek, preamble.raw, header, 0, end), preamble.file_id

    def part(self, part: FilePart, count: Count) -> None:
        """Encrypt a part into its place. Raises ``SourceChangedError`` when the source has become shorter."""
        total = stream.segment_count(stored_size(part.size) - PREAMBLE_SIZE)
        encrypter = stream.StreamEncrypter.part(part.dek, part.preamble, part.header, first=part.first, end=part.end)
        batch = memoryview(bytearray(16 * stream.SEGMENT_PLAINTEXT_SIZE))
        out = memoryview(bytearray(16 * stream.SEGMENT_SIZE))
        source = os.open(part.source, os.O_RDONLY | os.O_CLOEXEC)
        with os.fdopen(source, "rb", buffering=0), open(f"{self.root}/{part.path}", "r+b", buffering=0) as raw:  # noqa: PTH123
            index = part.first
            while index < part.end:
                inner = min(16, min(part.end, total - 1) - index)
                last = inner <= 0
                sizes = [stream.segment_plaintext_size(i, part.size) for i in range(index, index + max(inner, 1))]
                plain = batch[: sum(sizes)]
                start = index * stream.SEGMENT_PLAINTEXT_SIZE - (stream.HEADER_SIZE if index else 0)
                if _pread(source, plain, start) != len(plain):
                    raise SourceChangedError(f"{part.source}: became shorter while it was encrypted")
                if last:
                    encrypter.encrypt(plain, out[: len(plain) + stream.TAG_SIZE], last=True)
                else:
                    encrypter.encrypt_run(plain, out)
                stored = len(plain) + len(sizes) * stream.TAG_SIZE
                place = PREAMBLE_SIZE + index * stream.SEGMENT_SIZE + (0 if index else stream.HEADER_SIZE)
                _pwrite(raw.fileno(), out[:stored], place)
                count(len(plain))
                index += len(sizes)
            if self.durable:
                os.fsync(raw.fileno())

    def _write(self, path: str, stored: bytearray) -> None:
        target = f"{self.root}/{path}"
        if is_remote(target):
            object_store(target).write(target, bytes(stored))
            return
        descriptor = new_descriptor(target)
        try:
            _pwrite(descriptor, memoryview(stored), 0)
            if self.durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)


class Decrypting:
    """Decrypts files of one dataset below ``root``; with no root it only reads them."""

    def __init__(self, root: str | None, dataset: DatasetName, keys: KeyProvider, *, durable: bool) -> None:
        self.root, self.dataset, self.durable = root, dataset, durable
        self.keys = RememberedKeys(keys)

    def file(self, path: str, uri: str, size: int, file_id: str | None, count: Count) -> str:
        """Decrypt the file at ``uri`` as a whole; its file id. Raises what reading raises, and as ``open``."""
        with self.open(uri, size, file_id) as reader:
            if self.root is None:
                copy(reader, None, count)
            elif reader.size <= _WHOLE and not is_remote(self.root):
                content = reader.readall()
                descriptor = new_descriptor(f"{self.root}/{path}")
                try:
                    _pwrite(descriptor, memoryview(content), 0)
                    if self.durable:
                        os.fsync(descriptor)
                finally:
                    os.close(descriptor)
                count(len(content))
            else:
                with _new_file(f"{self.root}/{path}", durable=self.durable) as plain:
                    copy(reader, plain, count)
            return reader.preamble.file_id

    def part(self, path: str, uri: str, size: int, file_id: str, start: int, end: int, count: Count) -> None:
        """Decrypt bytes ``[start, end)`` of the content into their place in a file that is there already."""
        with contextlib.ExitStack() as stack:
            reader = stack.enter_context(self.open(uri, size, file_id))
            descriptor = None
            if self.root is not None:
                flags = os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
                descriptor = os.open(f"{self.root}/{path}", flags)
                stack.callback(os.close, descriptor)
            reader.seek(start)
            buffer = memoryview(bytearray(_CHUNK))
            while start < end:
                got = reader.readinto(buffer[: end - start])
                if descriptor is not None:
                    _pwrite(descriptor, buffer[:got], start)
                start += got
                count(got)
            if descriptor is not None and self.durable:
                os.fsync(descriptor)

    def open(self, uri: str, size: int, file_id: str | None) -> EncryptedReader:
        """The file at ``uri``, which has ``size`` stored bytes and, unless ``None``, this file id.

        Raises ``ManifestFileSwappedError`` when it is another one."""
        raw, found = open_stored(uri)
        try:
            if found != size:
                raise ManifestFileSwappedError(f"{uri}: {found} stored bytes, {size} when it was listed")
            reader = EncryptedReader(raw, size, self.keys, dataset=self.dataset, name=uri)
            if file_id is not None and reader.preamble.file_id != file_id:
                raise ManifestFileSwappedError(f"{uri}: another file than the one that was committed")
        except BaseException:
            raw.close()
            raise
        return reader


class OneKey:
    """A ``KeyProvider`` that has one key."""

    def __init__(self, key: DatasetKey) -> None:
        self._key = key

    def current_key(self, dataset: DatasetName) -> DatasetKey:
        return self._key

    def key(self, dataset: DatasetName, version: int) -> DatasetKey:
        return self._key


def _pread(descriptor: int, view: memoryview, position: int) -> int:
    done = 0
    while done < len(view):
        got = os.preadv(descriptor, [view[done:]], position + done)
        if not got:
            break
        done += got
    return done


def _pwrite(descriptor: int, view: memoryview, position: int) -> None:
    while view:
        wrote = os.pwrite(descriptor, view, position)
        if not wrote:
            raise OSError(errno.EIO, "wrote nothing")
        view, position = view[wrote:], position + wrote
