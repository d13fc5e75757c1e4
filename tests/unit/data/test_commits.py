"""What a commit takes and what it leaves: several jobs at one place, jobs that were killed, new key versions."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.support.fake_agent import FakeAgent
from tests.support.memory import MemoryKeys, MemoryRecords

from casemate.data.appending import append_tree
from casemate.data.dataset import decrypt_tree, encrypt_tree, inspect, verify_tree
from casemate.data.errors import (
    DestinationExistsError,
    IntegrityError,
    ManifestFileForeignError,
    ManifestFileMissingError,
    ManifestMissingError,
    ManifestRolledBackError,
)
from casemate.data.filesystem import ZoneFileSystem
from casemate.data.local import files_below
from casemate.data.rewrapping import rewrap_tree
from casemate.data.session import ZoneSession
from casemate.data.zones import ZoneMap, local_uri
from casemate.model import Access, DatasetName, Zone


class Jobs:
    """File systems of jobs over one zone, each with its own job id and memory."""

    def __init__(self, root: Path, keys: MemoryKeys, records: MemoryRecords, dataset: DatasetName) -> None:
        self.root, self.keys, self.records, self.dataset = root, keys, records, dataset
        root.mkdir()

    def job(self, name: str, access: Access = Access.READ_WRITE) -> ZoneFileSystem:
        zones = ZoneMap([Zone(local_uri(self.root), self.dataset, access)])
        return ZoneFileSystem(ZoneSession(zones, self.keys, self.records, job=name))

    def reader(self) -> ZoneFileSystem:
        return self.job("reader", Access.READ)

    def names(self, fs: ZoneFileSystem | None = None) -> list[str]:
        found = (fs or self.reader()).find(str(self.root))
        return [Path(path).name for path in found]

    def write(self, fs: ZoneFileSystem, name: str, data: bytes = b"data") -> None:
        fs.makedirs(str((self.root / name).parent), exist_ok=True)
        with fs.open(str(self.root / name), "wb") as out:
            out.write(data)

    def commit(self, fs: ZoneFileSystem) -> int:
        return fs.commit(str(self.root))

    @property
    def generation(self) -> int:
        return self.records.generation(self.dataset, local_uri(self.root)).number


@pytest.fixture
def jobs(tmp_path: Path, keys: MemoryKeys, records: MemoryRecords, dataset: DatasetName) -> Jobs:
    made = Jobs(tmp_path / "zone", keys, records, dataset)
    first = made.job("first")
    made.write(first, "part-0")
    made.commit(first)
    return made


def test_two_jobs_that_append_at_once_both_get_in_and_neither_takes_the_others_unfinished_work(jobs: Jobs) -> None:
    one, two = jobs.job("one"), jobs.job("two")
    jobs.write(one, "part-1")
    jobs.write(two, "part-2")
    jobs.commit(one)
    assert jobs.names() == ["part-0", "part-1"]
    assert jobs.names(one) == ["part-0", "part-1"]
    assert set(jobs.names(two)) == {"part-0", "part-1", "part-2"}, "its own file is there to the job that wrote it"
    jobs.commit(two)
    assert jobs.names() == ["part-0", "part-1", "part-2"]


def test_twenty_jobs_that_commit_at_the_same_moment_all_get_in(jobs: Jobs) -> None:
    def append(number: int) -> None:
        fs = jobs.job(f"job-{number}")
        jobs.write(fs, f"more-{number:02d}")
        jobs.commit(fs)

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(append, range(20)))
    assert jobs.names() == [*(f"more-{number:02d}" for number in range(20)), "part-0"]
    assert jobs.generation == 21
    assert len(list((jobs.root / "_casemate").iterdir())) <= 3, "manifests that nobody needs are gone"


def test_what_a_killed_job_left_is_left_out_and_the_rerun_completes(jobs: Jobs) -> None:
    killed, rerun = jobs.job("killed"), jobs.job("rerun")
    jobs.write(killed, "part-1", b"old")
    assert jobs.names() == ["part-0"]
    jobs.write(rerun, "part-2")
    jobs.commit(rerun)
    assert jobs.names() == ["part-0", "part-2"]
    assert not jobs.reader().exists(str(jobs.root / "part-1"))
    with pytest.raises(ManifestFileForeignError, match="part-1"):
        jobs.reader().open(str(jobs.root / "part-1"))
    jobs.write(rerun, "part-1", b"new")
    jobs.commit(rerun)
    assert jobs.reader().cat(str(jobs.root / "part-1")) == b"new"


def test_a_first_commit_takes_no_file_that_its_job_did_not_write_there(
    tmp_path: Path, keys: MemoryKeys, records: MemoryRecords, dataset: DatasetName
) -> None:
    jobs = Jobs(tmp_path / "zone", keys, records, dataset)
    earlier, job = jobs.job("earlier"), jobs.job("job")
    jobs.write(earlier, "left over")
    jobs.write(job, "mine")
    jobs.commit(job)
    assert jobs.names() == ["mine"]
    shutil.copy(jobs.root / "mine", jobs.root / "copy of mine")  # of this very job, but not written for this place
    fresh = jobs.job("job")
    jobs.write(fresh, "more")
    with pytest.raises(ManifestFileForeignError, match="copy of mine"):
        jobs.commit(fresh)


def test_a_process_that_remembers_an_older_generation_sees_a_commit_at_its_next_look(jobs: Jobs) -> None:
    reader, writer = jobs.reader(), jobs.job("writer")
    assert jobs.names(reader) == ["part-0"]
    jobs.write(writer, "part-1")
    assert jobs.names(reader) == ["part-0"]
    jobs.commit(writer)
    assert jobs.names(reader) == ["part-0", "part-1"]


def test_moved_and_deleted_files_are_committed_by_whoever_moved_them(jobs: Jobs) -> None:
    job = jobs.job("job")
    jobs.write(job, "a/one")
    jobs.commit(job)
    job.mv(str(jobs.root / "a"), str(jobs.root / "b"), recursive=True)
    job.rm(str(jobs.root / "part-0"))
    jobs.commit(job)
    assert job.find(str(jobs.root)) == [str(jobs.root / "b/one")]
    (jobs.root / "b/one").unlink()
    with pytest.raises(ManifestFileMissingError, match="b/one"):
        jobs.commit(jobs.job("other"))


# Adding files with the owner's key


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    source = tmp_path / "plain"
    source.mkdir()
    for number in range(8):
        (source / f"{number}.csv").write_bytes(bytes([65 + number]) * 50_000)
    return source


def test_appends_of_the_owner_get_in_whoever_else_appends(jobs: Jobs, tmp_path: Path) -> None:
    def append(number: int) -> None:
        source = tmp_path / f"day-{number}.csv"
        source.write_text(f"day {number}")
        append_tree(source, jobs.root, dataset=jobs.dataset, keys=jobs.keys, records=jobs.records, threads=1)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(append, range(4)))
    assert jobs.names() == [*(f"day-{number}.csv" for number in range(4)), "part-0"]
    with pytest.raises(DestinationExistsError, match=r"day-2\.csv"):
        append(2)
    assert not (jobs.root / "_temporary").exists()


# Rewrapping


def test_rewrapping_brings_every_file_under_the_newest_key_and_keeps_what_is(
    plain: Path, tmp_path: Path, keys: MemoryKeys, records: MemoryRecords, dataset: DatasetName
) -> None:
    vault = tmp_path / "vault"
    encrypt_tree(plain, vault, dataset=dataset, keys=keys, records=records)
    assert rewrap_tree(vault, keys=keys, records=records, dataset=dataset).files == 0
    keys.rotate(dataset)
    (tmp_path / "late.csv").write_text("under the new key")
    append_tree(tmp_path / "late.csv", vault, dataset=dataset, keys=keys, records=records)
    before = {info.path: info for info in inspect(vault)}
    result = rewrap_tree(vault, keys=keys, records=records, dataset=dataset)
    assert (result.files, result.generation) == (8, 3)
    for info in inspect(vault):
        assert info.key_version == 2
        assert (info.file_id == before[info.path].file_id) == info.path.endswith("late.csv")
    decrypt_tree(vault, tmp_path / "out", keys=keys, records=records)
    assert {path.name: path.read_bytes() for path in plain.iterdir()}.items() <= {
        path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()
    }.items()
    assert [path.name for path in tmp_path.iterdir() if "casemate-" in path.name] == []


def test_rewrapping_does_not_bless_a_damaged_dataset(
    plain: Path, tmp_path: Path, keys: MemoryKeys, records: MemoryRecords, dataset: DatasetName
) -> None:
    vault = tmp_path / "vault"
    encrypt_tree(plain, vault, dataset=dataset, keys=keys, records=records)
    keys.rotate(dataset)
    shutil.copytree(vault, tmp_path / "good")
    for damage in (
        lambda: (vault / "3.csv").unlink(),
        lambda: shutil.copy(vault / "3.csv", vault / "9.csv"),
        lambda: shutil.copy(vault / "3.csv", vault / "4.csv"),
        lambda: (vault / "3.csv").write_bytes((vault / "3.csv").read_bytes()[:-1] + b"x"),
    ):
        damage()
        before = {path: path.read_bytes() for path in vault.rglob("*") if path.is_file()}
        with pytest.raises(IntegrityError, match=r"[3-9]\.csv"):
            rewrap_tree(vault, keys=keys, records=records, dataset=dataset)
        assert {path: path.read_bytes() for path in vault.rglob("*") if path.is_file()} == before
        shutil.rmtree(vault)
        shutil.copytree(tmp_path / "good", vault)
    assert rewrap_tree(vault, keys=keys, records=records, dataset=dataset).generation == 2


REWRAP = """
import sys
from pathlib import Path
from casemate.data.client import AgentClient
from casemate.data.rewrapping import rewrap_tree
from casemate.model import DatasetName
agent = AgentClient.from_environment()
print("begun", flush=True)
rewrap_tree(Path(sys.argv[1]), keys=agent, records=agent, dataset=DatasetName.parse(sys.argv[2]), threads=1)
print("done", flush=True)
"""


def test_a_rewrap_killed_at_any_moment_leaves_the_old_dataset_or_the_new_and_a_rerun_completes(
    tmp_path: Path, keys: MemoryKeys, records: MemoryRecords, dataset: DatasetName
) -> None:
    source, vault = tmp_path / "plain", tmp_path / "vault"
    source.mkdir()
    for number in range(20):
        (source / f"{number:02d}").write_bytes(os.urandom(3_000_000))
    encrypt_tree(source, vault, dataset=dataset, keys=keys, records=records)
    keys.rotate(dataset)
    seen: set[int] = set()
    stop = threading.Event()
    failures: list[Exception] = []

    def read() -> None:
        while not stop.is_set():
            try:
                result = verify_tree(vault, keys=keys, records=records, dataset=dataset, threads=1)
                seen.add(result.generation or 0)
            except (ManifestMissingError, ManifestRolledBackError, IntegrityError) as exc:
                failures.append(exc)
                time.sleep(0.3)

    zone = FakeAgent.zone(vault, str(dataset))
    with FakeAgent(tmp_path / "agent.sock", [zone], keys=keys, records=records) as agent:
        for delay in (0.02, 0.1, 0.2):
            command = [sys.executable, "-c", REWRAP, str(vault), str(dataset)]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=agent.environment())
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
            process.wait()
            process.stdout.close()
            verify_tree(vault, keys=keys, records=records, dataset=dataset)
        reader = threading.Thread(target=read)
        reader.start()
        result = rewrap_tree(vault, keys=keys, records=records, dataset=dataset)
        stop.set()
        reader.join()
    assert {info.key_version for info in inspect(vault)} == {2}
    assert (result.generation or records.generation(dataset, local_uri(vault)).number) == 2
    assert seen <= {1, 2}
    assert len(failures) <= 2, "only who reads at the very moment may be refused, and never gets a mixture"
    assert dict(files_below(vault)).keys() == {f"{number:02d}" for number in range(20)}
    assert [path.name for path in tmp_path.iterdir() if "casemate-" in path.name] == []
