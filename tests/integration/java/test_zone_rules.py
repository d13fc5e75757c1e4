"""What a JVM may do where: access modes, links, names, renames between zones, commits, deletions."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
from tests.support.jvm import JavaError

from casemate.data.fileid import FileIds, Origin
from casemate.data.filesystem import ZoneFileSystem
from casemate.data.format import parse_preamble
from casemate.data.generations import Generation
from casemate.data.manifest import manifest_number, manifest_path
from casemate.data.session import ZoneSession
from casemate.data.writer import EncryptedWriter
from casemate.data.zones import ZoneMap, local_uri
from casemate.errors import GenerationConflictError
from casemate.model import DatasetName

PATIENTS = DatasetName.parse("hospital/patients")


@pytest.fixture
def rw(world, request: pytest.FixtureRequest) -> Path:
    path = world.rw / request.node.name
    path.mkdir()
    return path


def put(world, path: Path, data: bytes = b"x", dataset: DatasetName = PATIENTS) -> None:
    """Store an encrypted file without the JVM's knowledge."""
    raw = io.BytesIO()
    with EncryptedWriter(raw, world.agent.keys, dataset) as out:
        out.write(data)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(raw.getvalue())


def generation(world, path: Path) -> Generation:
    return world.agent.records.generation(PATIENTS, local_uri(path))


def test_reading_outside_the_zones_is_plain_and_writing_is_refused_and_reported(world) -> None:
    (world.outside / "plain").write_bytes(b"as it is")
    assert world.read(world.outside / "plain") == b"as it is"
    for op, more in (("write", {"data": ""}), ("mkdirs", {}), ("context_write", {"data": ""})):
        error = world.refused(op, world.outside / "new", **more)
        assert error.code == "outside-zones"
        assert error.message in world.agent.reports
    assert world.refused("delete", world.outside / "plain").code == "outside-zones"
    assert world.call("mkdirs", world.outside) is True  # is there already
    assert sorted(path.name for path in world.outside.iterdir()) == ["plain"]


def test_private_memory_takes_plaintext(world) -> None:
    world.write(world.private / "spill", b"secret")
    assert (world.private / "spill").read_bytes() == b"secret"


def test_a_zone_only_for_reading_takes_nothing(world) -> None:
    for op, more in (("write", {"data": ""}), ("mkdirs", {}), ("delete", {}), ("rename", {"to": f"{world.ro}/b"})):
        assert world.refused(op, world.ro / "new", **more).code == "zone-access-denied"


def test_a_zone_only_for_writing_gives_back_the_jobs_own_output_and_no_others(world) -> None:
    world.write(world.wo / "own" / "file", b"mine")
    assert world.read(world.wo / "own" / "file") == b"mine"
    world.commit(world.wo / "own")
    assert world.refused("read", world.wo / "own" / "file").code == "zone-access-denied"
    assert world.list(world.wo / "own") == {"_SUCCESS": 0, "file": 4}


def test_a_file_of_another_dataset_is_refused(world, rw: Path) -> None:
    put(world, rw / "file", dataset=DatasetName.parse("clinic/visits"))
    assert world.refused("read", rw / "file").code == "file-wrong-dataset"


def test_a_denied_key_is_said_with_its_own_code(world, rw: Path) -> None:
    put(world, rw / "file")
    data = (rw / "file").read_bytes().replace(b'"kek":1', b'"kek":9')
    (rw / "file").write_bytes(data)
    assert world.refused("read", rw / "file").code == "key-denied"


def test_plaintext_put_into_a_zone_is_refused(world, rw: Path) -> None:
    (rw / "file").write_bytes(b"name,age\n" * 1000)
    assert world.refused("read", rw / "file").code == "file-malformed"
    (rw / "short").write_bytes(b"name,age\n")
    assert world.refused("read", rw / "short").code == "file-malformed"


def test_renames_do_not_cross_datasets_or_leave_the_zones(world, rw: Path) -> None:
    world.write(rw / "file", b"x")
    for target in (world.other / "file", world.private / "file", world.wo / "file"):
        assert world.refused("rename", rw / "file", to=str(target)).code == "zone-access-denied"
    assert world.refused("rename", rw / "file", to=str(world.outside / "file")).code == "outside-zones"
    world.write(world.private / "plain", b"secret")
    assert world.refused("rename", world.private / "plain", to=str(rw / "plain")).code == "zone-access-denied"
    assert sorted(path.name for path in rw.iterdir()) == ["file"]


def test_what_holds_zones_is_not_deleted_or_renamed(world) -> None:
    for op, more in (("delete", {}), ("rename", {"to": f"{world.private}/base"})):
        assert world.refused(op, world.base, **more).code in ("outside-zones", "zone-access-denied")


def test_symbolic_links_do_not_lead_out_of_a_zone(world, rw: Path) -> None:
    (world.outside / "target").mkdir(exist_ok=True)
    (rw / "link").symlink_to(world.outside / "target")
    (rw / "dangling").symlink_to(world.outside / "not-there")
    (rw / "file-link").symlink_to("/etc/hostname")
    for op, path, more in (
        ("write", rw / "link" / "file", {"data": "eA=="}),
        ("list", rw / "link", {}),
        ("write", rw / "dangling", {"data": "eA=="}),
        ("read", rw / "file-link", {}),
        ("context_write", rw / "link" / "file", {"data": "eA=="}),
    ):
        assert world.refused(op, path, **more).code == "zone-access-denied"
    assert list((world.outside / "target").iterdir()) == []
    assert not (world.outside / "not-there").exists()


def test_symbolic_links_do_not_put_one_file_in_place_of_another(world, rw: Path) -> None:
    world.write(rw / "real", b"x")
    (rw / "link").symlink_to(rw / "real")
    assert world.refused("read", rw / "link").code == "zone-access-denied"


def test_symbolic_links_do_not_lead_out_of_private_memory(world) -> None:
    (world.private / "way-out").symlink_to(world.outside / "leak")
    (world.private / "detour").symlink_to(world.private / "way-out")
    for name in ("way-out", "detour"):
        assert world.refused("write", world.private / name, data="eA==").code == "outside-zones"
    assert not (world.outside / "leak").exists()


def test_a_link_to_a_zone_is_the_zone(world, rw: Path) -> None:
    world.write(rw / "file", b"x")
    link = world.outside / "link-to-zone"
    link.symlink_to(rw)
    assert world.read(link / "file") == b"x"
    world.write(link / "new", b"MARKER")
    assert b"MARKER" not in (rw / "new").read_bytes()


def test_the_manifests_are_hidden_and_out_of_reach(world, rw: Path) -> None:
    world.write(rw / "file", b"x")
    world.commit(rw)
    assert "_casemate" not in world.list(rw)
    assert (rw / manifest_path(generation(world, rw))).exists()
    for op, more in (("read", {}), ("delete", {}), ("write", {"data": ""}), ("list", {})):
        assert world.refused(op, rw / "_casemate", **more).code == "zone-access-denied"
    assert world.refused("rename", rw / "file", to=str(rw / "_casemate" / "file")).code == "zone-access-denied"


def test_dots_do_not_lead_out_of_a_zone(world, rw: Path) -> None:
    assert world.refused("write", f"{rw}/../../outside/leak", data="eA==").code == "outside-zones"
    with pytest.raises(JavaError):
        world.call("write", "/../../leak", data="eA==")


def test_names_with_spaces_percent_signs_and_other_alphabets_are_themselves(world, rw: Path) -> None:
    for name in ("a b", "100%25", "ü€😀", "k=v", "a:b", "semi;colon", "q?u", "ha#sh"):
        if any(c in name for c in "?#"):
            continue  # not part of a path in Hadoop's URI syntax
        world.write(rw / name, name.encode())
        assert world.read(rw / name) == name.encode()
        assert (rw / name).exists()
    world.commit(rw)
    assert world.list(rw)["ü€😀"] == len("ü€😀".encode())


def test_a_commit_counts_generations_and_drops_old_manifests(world, rw: Path) -> None:
    for number in range(1, 5):
        world.write(rw / f"part-{number}", b"x")
        world.commit(rw)
        assert generation(world, rw).number == number
    kept = sorted(path.name for path in (rw / "_casemate").iterdir())
    assert [manifest_number(name) for name in kept] == [3, 4]
    assert len(world.list(rw)) == 5


def test_an_append_does_not_bless_what_somebody_else_planted(world, rw: Path) -> None:
    world.write(rw / "part-1", b"x")
    world.commit(rw)
    put(world, rw / "planted", b"old news")
    world.write(rw / "part-2", b"x")
    with pytest.raises(JavaError) as caught:
        world.commit(rw)
    assert caught.value.code == "manifest-file-foreign"
    assert "planted" in caught.value.message
    assert generation(world, rw).number == 1


def test_an_append_does_not_forget_what_somebody_else_deleted(world, rw: Path) -> None:
    world.write(rw / "part-1", b"x")
    world.commit(rw)
    (rw / "part-1").unlink()
    world.write(rw / "part-2", b"x")
    with pytest.raises(JavaError, match="manifest-file-missing"):
        world.commit(rw)


def test_an_append_does_not_bless_a_replaced_file(world, rw: Path) -> None:
    world.write(rw / "part-1", b"new")
    world.commit(rw)
    put(world, rw / "part-1", b"old")
    world.write(rw / "part-2", b"x")
    world.commit(rw)  # lengths agree: taken over under its recorded file id ...
    assert world.refused("read", rw / "part-1").code == "manifest-file-swapped"  # ... which the planted one has not


def test_unfinished_work_is_in_no_manifest(world, rw: Path) -> None:
    world.write(rw / "_temporary" / "0" / "part", b"x")
    world.write(rw / "part", b"x")
    world.commit(rw)
    assert b"_temporary" not in (rw / manifest_path(generation(world, rw))).read_bytes()
    world.call("delete", rw / "_temporary")
    assert sorted(world.list(rw)) == ["_SUCCESS", "part"]


def test_overwriting_counts_on_and_old_copies_do_not_come_back(world, rw: Path) -> None:
    table = rw / "table"
    world.write(table / "part", b"first")
    world.commit(table)
    old = {path: path.read_bytes() for path in table.rglob("*") if path.is_file()}
    world.call("delete", table)
    for path, data in old.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    assert generation(world, table).number == 2  # the deletion itself
    world.call("delete", table)
    world.write(table / "part", b"second")
    world.commit(table)
    assert generation(world, table).number >= 3
    for path, data in old.items():
        if path.name == "part":
            path.write_bytes(data)
    world.call("forget", "/")
    assert world.refused("read", table / "part").code in ("manifest-file-swapped", "file-truncated")


def test_a_renamed_committed_directory_is_committed_at_its_new_place(world, rw: Path) -> None:
    world.write(rw / "a" / "part", b"x")
    world.commit(rw / "a")
    assert world.call("rename", rw / "a", to=str(rw / "b")) is True
    assert generation(world, rw / "b").number == 1
    assert world.read(rw / "b" / "part") == b"x"
    (rw / "b" / "part").unlink()
    assert world.refused("list", rw / "b").code == "manifest-file-missing"


def test_a_tampered_directory_is_not_renamed_into_a_good_one(world, rw: Path) -> None:
    world.write(rw / "a" / "part", b"x")
    world.commit(rw / "a")
    put(world, rw / "a" / "planted")
    assert world.refused("rename", rw / "a", to=str(rw / "b")).code == "manifest-file-foreign"
    assert (rw / "a" / "part").exists()


def test_a_commit_that_lost_a_race_looks_again_and_leaves_no_manifest_behind(world, rw: Path, monkeypatch) -> None:
    world.write(rw / "part", b"x")
    monkeypatch.setattr(world.agent.records, "fail_with", GenerationConflictError("recorded by another job"))
    world.commit(rw)
    assert generation(world, rw).number == 1
    assert len(list((rw / "_casemate").iterdir())) == 1


def test_a_committed_directory_with_nothing_visible_left_can_be_deleted_as_empty(world, rw: Path) -> None:
    table = rw / "table"
    world.write(table / "part", b"x")
    world.commit(table)
    with pytest.raises(JavaError):
        world.call("delete_empty", table)
    for name in ("part", "_SUCCESS"):
        world.call("delete", table / name)
    assert world.call("delete_empty", table) is True
    assert not table.exists()


def test_file_contexts_write_and_rename_through_the_zones(world, rw: Path) -> None:
    world.call("context_write", rw / ".0.tmp", data="TUFSS0VS")
    world.call("context_rename", rw / ".0.tmp", to=str(rw / "0"))
    world.call("context_write", rw / ".1.tmp", data="TUFSS0VS")
    world.call("context_rename", rw / ".1.tmp", to=str(rw / "0"))
    assert world.call("context_read", rw / "0") == "TUFSS0VS"
    assert b"MARKER" not in (rw / "0").read_bytes()


def test_a_file_that_is_being_written_does_not_break_the_listing_of_its_directory(world, rw: Path) -> None:
    (rw / ".0.tmp").write_bytes(b"")  # another executor's, just begun
    world.write(rw / "0", b"x")
    assert world.list(rw) == {".0.tmp": 0, "0": 1}
    with pytest.raises(JavaError, match="file-truncated"):
        world.read(rw / ".0.tmp")


def process(world, job: str) -> ZoneFileSystem:
    """Another process of a job, say an executor: its file system in Python."""
    zones = ZoneMap(world.agent.zones)
    return ZoneFileSystem(ZoneSession(zones, world.agent.keys, world.agent.records, job=job))


def test_a_commit_takes_what_other_processes_of_its_job_wrote_there_and_nothing_else(world, rw: Path) -> None:
    world.write(rw / "part-1", b"driver")
    process(world, "test").pipe_file(str(rw / "part-2"), b"executor")
    process(world, "another").pipe_file(str(rw / "part-3"), b"of a job that is still writing")
    (rw / "part-4").write_bytes(b"")  # an executor has just begun
    world.commit(rw)
    reader = process(world, "reader")
    assert {Path(path).name for path in reader.find(str(rw))} == {"_SUCCESS", "part-1", "part-2"}
    assert set(world.list(rw)) == {"_SUCCESS", "part-1", "part-2"}
    assert world.call("exists", rw / "part-3") is False
    assert world.refused("read", rw / "part-3").code == "manifest-file-foreign"
    shutil.copy(rw / "part-2", rw / "part-5")
    assert world.refused("list", rw).code == "manifest-file-foreign", "of this job, but written for another place"
    (rw / "part-5").unlink()
    world.write(rw / "part-3", b"the rerun's")
    world.commit(rw)
    assert process(world, "reader").cat(str(rw / "part-3")) == b"the rerun's"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("_temporary/0/_temporary/attempt_1/ward=1/part", "ward=1/part"),
        ("_temporary/0/task_1/part", "part"),
        (".spark-staging-1/ward=1/part", "ward=1/part"),
        (".spark-staging-1/_temporary/7/_temporary/attempt_1/ward=1/part", "ward=1/part"),
        (".7.01234567-89ab-cdef-0123-456789abcdef.tmp", "7"),
        ("a/.hidden.tmp", "a/.hidden.tmp"),
    ],
    ids=["running", "finished", "staged", "staged and running", "checkpoint", "anything else"],
)
def test_a_file_is_meant_for_where_committers_will_move_it(world, rw: Path, written: str, meant: str) -> None:
    world.write(rw / written, b"x")
    preamble = parse_preamble((rw / written).read_bytes())
    key = world.agent.keys.current_key(PATIENTS)
    assert FileIds("test").origin(key, f"{local_uri(rw)}/{meant}", preamble.file_id) is Origin.OURS
    assert FileIds("other").origin(key, f"{local_uri(rw)}/{meant}", preamble.file_id) is Origin.PENDING
    assert FileIds("test").origin(key, f"{local_uri(rw)}/other", preamble.file_id) is Origin.FOREIGN


def test_a_commit_of_two_jobs_on_the_jvm_and_in_python_lists_the_files_of_both(world, rw: Path) -> None:
    world.write(rw / "part-1", b"jvm")
    world.commit(rw)
    python = process(world, "python job")
    python.pipe_file(str(rw / "part-2"), b"python")
    python.commit(str(rw))
    world.write(rw / "part-3", b"jvm")
    world.commit(rw)
    assert set(world.list(rw)) == {"_SUCCESS", "part-1", "part-2", "part-3"}
    assert generation(world, rw).number == 3


def test_a_log_entry_of_a_stream_commits_its_sink_and_its_checkpoint(world, rw: Path) -> None:
    for place, log in (("sink", "_spark_metadata"), ("checkpoint", "commits")):
        world.write(rw / place / "metadata", b"x")
        world.write(rw / place / log / ".0.01234567-89ab-cdef-0123-456789abcdef.tmp", b"x")
        assert generation(world, rw / place).number == 0
        world.call(
            "rename", rw / place / log / ".0.01234567-89ab-cdef-0123-456789abcdef.tmp", to=str(rw / place / log / "0")
        )
        assert generation(world, rw / place).number == 1
        assert process(world, "reader").exists(str(rw / place / log / "0"))
