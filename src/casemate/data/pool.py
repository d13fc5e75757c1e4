"""Hand tasks to workers, in this process or in others, until all are done or one fails."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from casemate.data.keys import KeyProvider
from casemate.data.pieces import Count, Decrypting, Encrypting
from casemate.data.worker import Channel, describe_error, perform, raise_error
from casemate.errors import CasemateError

__all__ = ["Progress", "Task", "run_tasks", "worker_count"]

Progress = Callable[[int, int], None]
"""Called with the bytes of content done so far, and in all; never from two threads at once."""

_MAX_WORKERS = 8
_WORTH_BYTES = 192 * 2**20  # from here on other processes are worth their start
_WORTH_FILES = 3000


@dataclass(frozen=True)
class Task:
    """An operation of ``worker.perform``; ``about`` is for the caller."""

    operation: str
    arguments: Any
    about: Any = None


def worker_count(files: int, size: int, wanted: int | None) -> int:
    """How many other processes shall work on so many files of so many bytes in all; 0: none, this one does it."""
    if wanted is not None:
        return wanted if wanted > 1 else 0
    cores = min(len(os.sched_getaffinity(0)), _MAX_WORKERS)
    return cores if cores > 1 and (size >= _WORTH_BYTES or files >= _WORTH_FILES) else 0


class _Worker(Protocol):
    def call(self, task: Task, count: Count) -> Any: ...


class _Here:
    def __init__(self, work: Encrypting | Decrypting) -> None:
        self._work = work

    def call(self, task: Task, count: Count) -> Any:
        return perform(self._work, task.operation, task.arguments, count)


class _Elsewhere:
    """Another process. ``keys`` answers it when it decrypts."""

    def __init__(self, process: subprocess.Popen[bytes], work: Encrypting | Decrypting) -> None:
        assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - both are pipes
        self._process, self._work = process, work
        self._channel = Channel(process.stdout, process.stdin)  # type: ignore[arg-type]
        if isinstance(work, Encrypting):
            self._channel.send(
                {
                    "kind": "encrypt",
                    "root": work.root,
                    "location": work.location,
                    "dataset": str(work.key.dataset),
                    "version": work.key.version,
                    "key": base64.b64encode(work.key.secret.reveal()).decode(),
                    "job": work.job,
                    "durable": work.durable,
                }
            )
        else:
            hello = {"kind": "decrypt", "root": work.root, "dataset": str(work.dataset), "durable": work.durable}
            self._channel.send(hello)

    def call(self, task: Task, count: Count) -> Any:
        self._channel.send([task.operation, task.arguments])
        while (answer := self._channel.receive()) is not None:
            if "error" in answer:
                raise_error(answer["error"])
            if "key" not in answer:
                count(answer["done"])
                return answer["value"]
            self._channel.send(self._key(answer["key"]))
        raise OSError(f"a worker process ended with status {self._process.wait()}")

    def _key(self, version: int) -> dict[str, Any]:
        assert isinstance(self._work, Decrypting)  # noqa: S101 - only these ask
        keys: KeyProvider = self._work.keys
        try:
            key = keys.key(self._work.dataset, version)
        except CasemateError as exc:
            return {"error": describe_error(exc)}
        return {"key": base64.b64encode(key.secret.reveal()).decode()}


@contextmanager
def _workers(work: Encrypting | Decrypting, processes: int, threads: int) -> Iterator[list[_Worker]]:
    if not processes:
        yield [_Here(work) for _ in range(threads)]
        return
    with ExitStack() as stack:
        workers: list[_Worker] = []
        for _ in range(processes):
            # -P: a directory that the command is started in must not bring its own modules
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "casemate.data.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            stack.callback(_end, process)
            workers.append(_Elsewhere(process, work))
        yield workers


def _end(process: subprocess.Popen[bytes]) -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            try:
                stream.close()
            except OSError:
                process.kill()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def run_tasks(
    tasks: Iterable[Task],
    work: Encrypting | Decrypting,
    finished: Callable[[Task, Any], None],
    count: Count,
    *,
    processes: int,
    threads: int,
) -> None:
    """Do all tasks, ``processes`` at a time in other processes, or in ``threads`` of this one when that is 0.

    ``finished`` gets each task's answer, ``count`` bytes as they are done, neither from two threads at once. The first
    error stops all work, and is raised."""
    lock, stop = threading.Lock(), threading.Event()
    rest = iter(tasks)
    failed: list[BaseException] = []

    def counted(size: int) -> None:
        if stop.is_set():
            raise CancelledError
        with lock:
            count(size)

    def loop(worker: _Worker) -> None:
        try:
            while not stop.is_set():
                with lock:
                    task = next(rest, None)
                if task is None:
                    return
                answer = worker.call(task, counted)
                with lock:
                    finished(task, answer)
        except BaseException as exc:
            if not stop.is_set():
                failed.append(exc)
            stop.set()

    with _workers(work, processes, threads) as workers:
        running = [threading.Thread(target=loop, args=(worker,)) for worker in workers]
        try:  # an interrupt may come as soon as the first one runs
            for thread in running:
                thread.start()
            for thread in running:
                thread.join()
        except BaseException:
            stop.set()
            for thread in running:
                if thread.ident is not None:
                    thread.join()
            raise
    if failed:
        raise failed[0]
