"""PyTorch data sets over zones, for ``torch.utils.data.DataLoader`` with any number of workers and ranks.

Content is decrypted as it is read, in the process that reads it; nothing is staged. Random access costs the 64 KiB
segments that an item lies in. Every data set may be sent to workers (fork or spawn): open files and the connection to
the agent stay behind and are made anew there. Where ``torch.distributed`` is initialised, its ranks share a data set
that streams without overlap, as its workers do; for data sets with an index, take ``DistributedSampler``.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from casemate.data.errors import SourceMissingError, StorageFailedError
from casemate.data.filesystem import ZoneFileSystem
from casemate.errors import UsageError

if TYPE_CHECKING:
    import torch.utils.data as data
else:
    try:
        import torch.utils.data as data
    except ImportError as exc:
        raise UsageError("PyTorch is not installed; install casemate[torch]") from exc

__all__ = ["ZoneLines", "ZoneRecords", "ZoneRows", "ZoneSamples", "tensors_of"]

Transform = Callable[[Any], Any]

_MAX_OPEN = 64  # files that one process keeps open at once
_RANGE = 8 * 2**20  # bytes of text that one worker takes at a time
_BUFFER = 2**20  # bytes read at once when text is streamed


class _Files:
    """The files below some paths, and this process's own handles on them."""

    def __init__(self, paths: str | Sequence[str], suffix: str | None, files: ZoneFileSystem | None) -> None:
        self._given = files
        self._pid = -1
        self._opened: dict[int, BinaryIO] = {}
        self.paths: list[str] = []
        self.sizes: list[int] = []
        for path in [paths] if isinstance(paths, str) else paths:
            found = self._system().find(path, detail=True)
            for name, info in sorted(found.items()):
                hidden = any(part.startswith(("_", ".")) for part in name[len(path) :].split("/"))
                if name == path or (not hidden and (suffix is None or name.endswith(suffix))):
                    self.paths.append(name)
                    self.sizes.append(int(info["size"]))
        if not self.paths:
            raise SourceMissingError(f"{paths}: holds no file{f' ending in {suffix}' if suffix else ''}")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pid": -1, "_opened": {}, "_system_here": None}

    def open(self, index: int) -> BinaryIO:
        """The file with that index, from this process's open ones or newly opened."""
        self._system()
        file = self._opened.pop(index, None)
        if file is None:
            if len(self._opened) >= _MAX_OPEN:
                self._opened.pop(next(iter(self._opened))).close()
            file = self._system().open(self.paths[index], "rb")
        self._opened[index] = file  # the most recently used comes last
        return file

    def new(self, index: int) -> Any:
        """The file with that index, newly opened for one pass; the caller closes it."""
        return self._system().open(self.paths[index], "rb")

    def _system(self) -> ZoneFileSystem:
        if self._pid != os.getpid():
            self._pid, self._opened = os.getpid(), {}  # handles of the process we were forked from are not ours
            self._system_here = self._given or ZoneFileSystem()
        return self._system_here


class ZoneSamples(data.Dataset[Any]):
    """One file is one sample: ``transform(bytes)``, for example an image's decoder. Sorted by path.

    ``paths`` are files or directories of a zone; of a directory, what begins with ``_`` or ``.`` is left out. Raises
    ``SourceMissingError``, and at access what reading a zone raises."""

    def __init__(
        self,
        paths: str | Sequence[str],
        transform: Transform | None = None,
        *,
        suffix: str | None = None,
        files: ZoneFileSystem | None = None,
    ) -> None:
        self._files, self._transform = _Files(paths, suffix, files), transform

    @property
    def paths(self) -> list[str]:
        """The file behind each index, for labels."""
        return self._files.paths

    def __len__(self) -> int:
        return len(self._files.paths)

    def __getitem__(self, index: int) -> Any:
        with self._files.new(range(len(self))[index]) as file:
            content = file.read()
        return content if self._transform is None else self._transform(content)


class ZoneRecords(data.Dataset[Any]):
    """Random access to records of ``record_size`` bytes each, packed one after another in files.

    ``transform`` gets a record's bytes, for example ``lambda raw: torch.frombuffer(bytearray(raw), dtype=torch.int8)``.
    Raises ``SourceMissingError``, ``StorageFailedError`` for a file that ends inside a record, and at access what
    reading a zone raises."""

    def __init__(
        self,
        paths: str | Sequence[str],
        record_size: int,
        transform: Transform | None = None,
        *,
        suffix: str | None = None,
        files: ZoneFileSystem | None = None,
    ) -> None:
        if record_size < 1:
            raise UsageError(f"record_size {record_size}: need a number of bytes")
        self._files, self._transform, self._size = _Files(paths, suffix, files), transform, record_size
        self._ends = []
        total = 0
        for path, size in zip(self._files.paths, self._files.sizes, strict=True):
            if size % record_size:
                raise StorageFailedError(f"{path}: {size} bytes are no whole number of {record_size}-byte records")
            total += size // record_size
            self._ends.append(total)

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Any:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """A batch; neighbours are read together, whatever order they are asked for in."""
        numbered = sorted((range(len(self))[index], place) for place, index in enumerate(indices))
        found: list[Any] = [None] * len(numbered)
        start = 0
        while start < len(numbered):
            end = start + 1
            number = bisect_right(self._ends, numbered[start][0])
            while end < len(numbered) and numbered[end][0] - numbered[end - 1][0] <= 1:
                if numbered[end][0] >= self._ends[number]:
                    break
                end += 1
            self._read(number, numbered[start:end], found)
            start = end
        return found

    def _read(self, number: int, run: Sequence[tuple[int, int]], found: list[Any]) -> None:
        before = self._ends[number - 1] if number else 0
        first = run[0][0]
        file = self._files.open(number)
        file.seek((first - before) * self._size)
        content = file.read((run[-1][0] - first + 1) * self._size)
        for index, place in run:
            record = content[(index - first) * self._size : (index - first + 1) * self._size]
            found[place] = record if self._transform is None else self._transform(record)


class ZoneLines(data.IterableDataset[Any]):
    """The lines of text files, each exactly once among all workers and ranks: ``transform(line)``, without its newline.

    Workers share the files in ranges of bytes, so one large file keeps all of them busy. Without workers the order is
    that of the files. ``skip_first`` leaves out the first line of each file (a CSV's header)."""

    def __init__(
        self,
        paths: str | Sequence[str],
        transform: Transform | None = None,
        *,
        encoding: str = "utf-8",
        skip_first: bool = False,
        suffix: str | None = None,
        files: ZoneFileSystem | None = None,
    ) -> None:
        self._files, self._transform = _Files(paths, suffix, files), transform
        self._encoding, self._skip = encoding, skip_first

    def __iter__(self) -> Iterator[Any]:
        ranges = [(number, start) for number, size in enumerate(self._files.sizes) for start in range(0, size, _RANGE)]
        for number, start in _own(ranges):
            for raw in self._lines(number, start):
                line = raw.decode(self._encoding)
                yield line if self._transform is None else self._transform(line)

    def _lines(self, number: int, start: int) -> Iterator[bytes]:
        """The lines that begin in a range: what a line before left over is its own range's."""
        with self._files.new(number) as file:
            position = start
            if start:
                file.seek(start - 1)
                position = start - 1 + len(file.readline())
            first = start == 0
            while position < start + _RANGE and (raw := file.readline()):
                position += len(raw)
                if not (first and self._skip):
                    yield raw.removesuffix(b"\n").removesuffix(b"\r")
                first = False


class ZoneRows(data.IterableDataset[Any]):
    """Batches of rows of Parquet files, through PyArrow: ``transform(batch)`` of a ``pyarrow.RecordBatch``, by default
    ``{column: tensor}`` for numeric columns and lists for others. Row groups are shared among workers and ranks."""

    def __init__(
        self,
        paths: str | Sequence[str],
        *,
        columns: Sequence[str] | None = None,
        batch_size: int = 1024,
        transform: Transform | None = None,
        files: ZoneFileSystem | None = None,
    ) -> None:
        self._files = _Files(paths, ".parquet", files)
        self._columns, self._batch_size = None if columns is None else list(columns), batch_size
        self._transform = transform or tensors_of

    def __iter__(self) -> Iterator[Any]:
        import pyarrow.parquet as pq

        groups: list[tuple[int, int]] = []
        for number in range(len(self._files.paths)):
            with self._files.new(number) as file:
                groups += [(number, group) for group in range(pq.ParquetFile(file).num_row_groups)]
        for number, group in _own(groups):
            with self._files.new(number) as file:
                parquet = pq.ParquetFile(file)
                batches = parquet.iter_batches(self._batch_size, row_groups=[group], columns=self._columns)
                yield from map(self._transform, batches)


def tensors_of(batch: Any) -> dict[str, Any]:
    """A ``pyarrow.RecordBatch`` as tensors, where its columns are numbers without nulls, else as lists."""
    import pyarrow as pa
    import torch

    found: dict[str, Any] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        kind = column.type
        numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind)
        if numeric and column.null_count == 0:
            found[name] = torch.from_numpy(column.to_numpy(zero_copy_only=False).copy())
        else:
            found[name] = column.to_pylist()
    return found


def _own(items: Sequence[tuple[int, int]]) -> Sequence[tuple[int, int]]:
    """This worker's and rank's share of ``items``; all shares together are ``items``, without overlap."""
    import torch.distributed as distributed

    worker = data.get_worker_info()
    number, count = (worker.id, worker.num_workers) if worker is not None else (0, 1)
    if distributed.is_available() and distributed.is_initialized():
        number, count = number + distributed.get_rank() * count, count * distributed.get_world_size()
    return items[number::count]
