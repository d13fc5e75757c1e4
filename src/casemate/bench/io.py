"""How fast data is encrypted and decrypted on in-memory storage, by everything that could do it, taking turns.

GiB of content per second of processor time (user and system) of one core: waiting for other processes does not count,
all work of the kernel does. The same by the clock, random reads and all cores are in the details.
"""

from __future__ import annotations

import os
import random
import shutil
import statistics
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from casemate.bench.errors import BenchProcessError
from casemate.bench.io_jvm import java_version, jvm_speeds
from casemate.bench.machine import describe
from casemate.bench.memory_storage import memory_storage
from casemate.crypto import stream
from casemate.crypto.secret import Secret
from casemate.data.keys import DatasetKey
from casemate.data.pieces import OneKey
from casemate.data.reader import EncryptedReader
from casemate.data.writer import EncryptedWriter
from casemate.model import DatasetName

__all__ = ["IoResult", "run"]

AIMS = {"python_read": 3.0, "python_write": 2.5, "java_read": 4.0, "java_write": 3.5}
_DATASET = DatasetName.parse("bench/io")
_CHUNK = 2**20  # bytes that a program reads or writes at once
_KEYS = (
    "raw_openssl",
    "raw_jvm",
    "python_read",
    "python_write",
    "java_read",
    "java_write",
    "tink_python_read",
    "tink_java_read",
    "tink_java_write",
    "memcpy",
)


@dataclass(frozen=True)
class IoResult:
    """Medians, GiB per second."""

    gib_per_s: dict[str, float | None]
    details: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {"gib_per_s": self.gib_per_s, **self.details}

    @property
    def text(self) -> str:
        rows = [f"{name:<18}{'-' if rate is None else f'{rate:6.2f}'}" for name, rate in self.gib_per_s.items()]
        return "\n".join(["GiB/s of one core, in memory", *rows])


def run(*, size: int, repeats: int, jvm: bool = True, progress: Callable[[str], None] = lambda text: None) -> IoResult:
    """Measure over ``size`` bytes, ``repeats`` times; ``jvm=False`` leaves the JVM's half out (``None``)."""
    machine = describe()
    cores = len(os.sched_getaffinity(0))
    room = (2 * cores + 3) * (size + 2**25)  # two files of each core's, three of ours
    with memory_storage(room) as (directory, storage), _Python(directory, size) as python:
        progress(f"measuring {size >> 20} MiB, {repeats} times, on {storage}")
        sequential = python.alternate(python.sequential, repeats)
        progress("measuring random reads")
        scattered = python.alternate(python.scattered, repeats)
        progress(f"measuring {cores} cores at once")
        together = {str(count): python.together(count, repeats) for count in sorted({1, cores})}
        java = {}
        if jvm:
            progress("measuring the JVM")
            java = jvm_speeds(directory, size, repeats)
    speeds = {**{name: pair[0] for name, pair in sequential.items()}, **java}
    return IoResult(
        {name: _rounded(speeds.get(name)) for name in _KEYS},
        {
            "unit": "GiB of content per second of processor time, one core; medians",
            "aims": AIMS,
            "size_bytes": size,
            "repeats": repeats,
            "storage": storage,
            "processor": {name: _rounded(pair[0]) for name, pair in {**sequential, **scattered}.items()},
            "wall": {name: _rounded(pair[1]) for name, pair in {**sequential, **scattered}.items()},
            "cores": together,
            "jvm": {name: _rounded(rate) for name, rate in java.items()},
            "machine": machine,
            "versions": {"java": java_version()} if jvm else {},
        },
    )


def _rounded(rate: float | None) -> float | None:
    return None if rate is None else round(rate, 3)


class _Python:
    """Everything that runs in this interpreter. A context manager."""

    def __init__(self, directory: Path, size: int, *, tink: bool = True) -> None:
        self._directory, self._size = directory, size
        self._keys = OneKey(DatasetKey(_DATASET, 1, Secret.random()))
        self._chunk = memoryview(bytearray(os.urandom(_CHUNK)))
        self._buffer = memoryview(bytearray(_CHUNK))
        self._large = memoryview(bytearray(min(size, 2**27)))
        self._large[:] = b"\1" * len(self._large)  # so that its pages are there
        self._stored = directory / "stored"
        self._tink_stored = directory / "tink"
        self._tink: Any = _tink() if tink else None

    def __enter__(self) -> _Python:
        self._write(self._stored)
        if self._tink:
            self._tink_write(self._tink_stored)
        return self

    def __exit__(self, *exc: object) -> None:
        self._stored.unlink(missing_ok=True)
        self._tink_stored.unlink(missing_ok=True)

    @property
    def sequential(self) -> dict[str, Callable[[], int]]:
        """What to measure; each does its work and answers the bytes of content."""
        return {
            "memcpy": self._copy,
            "raw_openssl": self._raw_encrypt,
            "raw_openssl_decrypt": self._raw_decrypt,
            "python_write": lambda: self._write(self._directory / "new"),
            "python_read": lambda: self._read(self._stored),
            **(
                {
                    "tink_python_write": lambda: self._tink_write(self._directory / "new"),
                    "tink_python_read": self._tink_read,
                }
                if self._tink
                else {}
            ),
        }

    @property
    def scattered(self) -> dict[str, Callable[[], int]]:
        return {
            "python_random_8k": lambda: self._random(8 * 1024, 4000),
            "python_random_1m": lambda: self._random(2**20, 128),
        }

    def alternate(self, works: dict[str, Callable[[], int]], repeats: int) -> dict[str, tuple[float, float]]:
        """Each in turn, once unmeasured and then ``repeats`` times: medians by processor time and by the clock."""
        rates: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
        for number in range(repeats + 1):
            for name, work in works.items():
                (self._directory / "new").unlink(missing_ok=True)
                processor, clock = time.process_time(), time.perf_counter()
                gib = work() / 2**30
                one = gib / (time.process_time() - processor), gib / (time.perf_counter() - clock)
                if number:
                    rates[name].append(one)
        (self._directory / "new").unlink(missing_ok=True)
        return {
            name: (statistics.median(r[0] for r in found), statistics.median(r[1] for r in found))
            for name, found in rates.items()
        }

    def together(self, count: int, repeats: int) -> dict[str, dict[str, float]]:
        """So many processes at once, each with a file of its own: the sum of what they do, both ways of counting."""
        found: dict[str, list[tuple[float, float]]] = {
            name: [] for name in ("raw_openssl", "python_read", "python_write", "memcpy")
        }
        for _ in range(repeats):
            for name, rates in found.items():
                rates.append(self._fork(name, count))
        return {
            how: {name: round(statistics.median(pair[which] for pair in rates), 3) for name, rates in found.items()}
            for which, how in enumerate(("processor", "wall"))
        }

    def _fork(self, name: str, count: int) -> tuple[float, float]:
        directories = [self._directory / f"core-{number}" for number in range(count)]
        for directory in directories:
            directory.mkdir()
        ready = [os.pipe() for _ in range(count)]
        go_read, go_write = os.pipe()
        children = []
        for number, core in zip(range(count), sorted(os.sched_getaffinity(0)), strict=False):
            child = os.fork()
            if not child:
                status = 1
                try:
                    for pipe in ready:  # each ends with the child whose it is
                        if pipe is not ready[number]:
                            os.close(pipe[1])
                    os.close(go_write)
                    os.sched_setaffinity(0, {core})
                    self._measure_beside(name, directories[number], ready[number][1], go_read)
                    status = 0
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(status)
            children.append(child)
        for pipe in ready:
            os.close(pipe[1])
        for pipe in ready:
            os.read(pipe[0], 1)
        os.close(go_write)
        os.close(go_read)
        answers = [[float(rate) for rate in os.read(pipe[0], 64).split()] for pipe in ready]
        statuses = [os.waitpid(child, 0)[1] for child in children]
        for pipe, directory in zip(ready, directories, strict=True):
            os.close(pipe[0])
            shutil.rmtree(directory)
        if any(statuses):
            raise BenchProcessError(f"measuring {name} on {count} cores at once failed")
        return sum(rates[0] for rates in answers), sum(rates[1] for rates in answers)

    def _measure_beside(self, name: str, directory: Path, answer: int, go: int) -> None:
        """Say that we are ready, wait until ``go`` is closed, and answer both rates."""
        with _Python(directory, self._size, tink=False) as own:
            work = own.sequential[name]
            work()
            (directory / "new").unlink(missing_ok=True)
            os.write(answer, b"r")
            os.read(go, 1)
            processor, started = time.process_time(), time.perf_counter()
            gib = work() / 2**30
            processor, clock = time.process_time() - processor, time.perf_counter() - started
            os.write(answer, f"{gib / processor:.6f} {gib / clock:.6f}".encode())

    def _copy(self) -> int:
        half = len(self._large) // 2
        for _ in range(self._size // half):
            self._large[:half] = self._large[half:]
        return self._size // half * half

    def _segments(self) -> int:
        return self._size // stream.SEGMENT_PLAINTEXT_SIZE

    def _raw_encrypt(self) -> int:
        encrypter = stream.StreamEncrypter(Secret.random(), b"")
        out = memoryview(bytearray(16 * stream.SEGMENT_SIZE))
        plain = memoryview(bytearray(16 * stream.SEGMENT_PLAINTEXT_SIZE))
        encrypter.encrypt_run(plain[: encrypter.next_size], out)
        for _ in range(self._segments() // 16):
            encrypter.encrypt_run(plain, out)
        return self._segments() // 16 * len(plain)

    def _raw_decrypt(self) -> int:
        key = Secret.random()
        encrypter = stream.StreamEncrypter(key, b"")
        plain = memoryview(bytearray(17 * stream.SEGMENT_PLAINTEXT_SIZE - stream.HEADER_SIZE))
        cipher = memoryview(bytearray(len(plain) + 17 * stream.TAG_SIZE))
        encrypter.encrypt_run(plain, cipher)
        inner = cipher[stream.SEGMENT_SIZE - stream.HEADER_SIZE :]
        segments = [inner[at : at + stream.SEGMENT_SIZE] for at in range(0, len(inner), stream.SEGMENT_SIZE)]
        decrypter = stream.StreamDecrypter(key, encrypter.header, b"")
        out = plain[: 16 * stream.SEGMENT_PLAINTEXT_SIZE]
        for _ in range(self._segments() // 16):
            decrypter.decrypt_run(1, segments, out)
        return self._segments() // 16 * len(out)

    def _write(self, path: Path) -> int:
        with path.open("xb", buffering=0) as raw, EncryptedWriter(raw, self._keys, _DATASET) as out:
            for _ in range(self._size // _CHUNK):
                out.write(self._chunk)
        return self._size // _CHUNK * _CHUNK

    def _open(self, path: Path) -> EncryptedReader:
        return EncryptedReader(
            path.open("rb", buffering=0), path.stat().st_size, self._keys, dataset=_DATASET, name=str(path)
        )

    def _read(self, path: Path) -> int:
        done = 0
        with self._open(path) as reader:
            while got := reader.readinto(self._buffer):
                done += got
        return done

    def _random(self, piece: int, count: int) -> int:
        places = random.Random(1)  # noqa: S311 - the same places every time
        with self._open(self._stored) as reader:
            for _ in range(count):
                reader.seek(places.randrange(max(reader.size - piece, 1)))
                reader.readinto(self._buffer[:piece])
        return piece * count

    def _tink_write(self, path: Path) -> int:
        with path.open("xb") as raw, self._tink.new_encrypting_stream(raw, b"") as out:
            for _ in range(self._size // _CHUNK):
                out.write(self._chunk)
        return self._size // _CHUNK * _CHUNK

    def _tink_read(self) -> int:
        done = 0
        with self._tink_stored.open("rb") as raw, self._tink.new_decrypting_stream(raw, b"") as reader:
            while piece := reader.read(_CHUNK):
                done += len(piece)
        return done


def _tink() -> Any:
    """Tink's own implementation of the same stream; ``None`` when the ``tink`` package is not installed."""
    try:
        import tink
        from tink import secret_key_access, streaming_aead
        from tink.proto import aes_gcm_hkdf_streaming_pb2, common_pb2, tink_pb2
    except ImportError:
        return None
    key = aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingKey(
        key_value=os.urandom(32),
        params=aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingParams(
            ciphertext_segment_size=stream.SEGMENT_SIZE, derived_key_size=32, hkdf_hash_type=common_pb2.SHA256
        ),
    )
    data = tink_pb2.KeyData(
        type_url="type.googleapis.com/google.crypto.tink.AesGcmHkdfStreamingKey",
        value=key.SerializeToString(),
        key_material_type=tink_pb2.KeyData.SYMMETRIC,
    )
    one = tink_pb2.Keyset.Key(key_data=data, status=tink_pb2.ENABLED, key_id=1, output_prefix_type=tink_pb2.RAW)
    streaming_aead.register()
    keyset = tink_pb2.Keyset(primary_key_id=1, key=[one])
    handle = tink.proto_keyset_format.parse(keyset.SerializeToString(), secret_key_access.TOKEN)
    return handle.primitive(streaming_aead.StreamingAead)
