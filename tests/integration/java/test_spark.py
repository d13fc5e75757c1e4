"""A real Spark on zones: what programs do every day works unchanged, and a changed storage is refused."""

from __future__ import annotations

import io
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support.damage import damages
from tests.support.dataset_attacks import ATTACKS, Scene, refusal
from tests.support.fake_agent import FakeAgent
from tests.support.ways import BIG, PLAIN, TABLE, make_big_file, make_odd_files
from tests.support.zone_spark import zone_spark

from casemate.data.dataset import encrypt_tree, verify_tree
from casemate.data.writer import EncryptedWriter
from casemate.data.zones import local_uri
from casemate.model import DatasetName

pytestmark = pytest.mark.spark

PATIENTS = DatasetName.parse("hospital/patients")
MARKER = "PLAINTEXT-MARKER"
ROWS = 2000


@dataclass
class Job:
    """A Spark session whose JVM sees the zones ``rw`` (to read and write) and ``ro`` (to read) below ``base``."""

    base: Path
    agent: FakeAgent
    session: Any

    @property
    def rw(self) -> Path:
        return self.base / "rw"

    @property
    def ro(self) -> Path:
        return self.base / "ro"

    def rows(self, count: int = ROWS) -> Any:
        return self.session.range(count).selectExpr(
            "cast(id as int) as id", f"concat('{MARKER}-', id, ',\"ü') as name", "cast(id % 3 as int) as ward"
        )

    def generation(self, path: Path) -> int:
        return self.agent.records.generation(PATIENTS, local_uri(path)).number


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Job]:
    base = tmp_path_factory.mktemp("spark")
    for area in ("rw", "ro", "outside", "private"):
        (base / area).mkdir()
    zones = [
        FakeAgent.zone(base / "rw", str(PATIENTS)),
        FakeAgent.zone(base / "ro", str(PATIENTS), "read"),
    ]
    with FakeAgent(base / "agent.sock", zones, private_prefixes=[f"file://{base}/private"]) as agent:
        settings = {
            "spark.sql.warehouse.dir": f"file://{base}/rw/warehouse",
            "spark.sql.files.maxPartitionBytes": "1m",
            "spark.sql.files.openCostInBytes": "64k",
        }
        with zone_spark(agent, base / "private", settings) as session:
            yield Job(base, agent, session)
    shutil.rmtree(base, ignore_errors=True)


@pytest.fixture
def path(job: Job, request: pytest.FixtureRequest) -> Path:
    """Where this test writes to, in the zone to read and write."""
    return job.rw / request.node.name.replace("[", "-").rstrip("]")


def is_sealed(path: Path) -> bool:
    """No file below holds the marker, each that is not a manifest is encrypted, and there is at least one."""
    files = [file for file in path.rglob("*") if file.is_file()]
    assert files
    for file in files:
        data = file.read_bytes()
        assert MARKER.encode() not in data, file
        assert data.startswith(b"CSMT") or file.parent.name == "_casemate", file
    return True


def fails(action: Callable[[], Any]) -> str:
    """The message of the error that ``action`` must end in."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - several classes of py4j and PySpark
        action()
    return str(caught.value)


@pytest.mark.parametrize("kind", ["csv", "json", "parquet", "orc", "xml"])
def test_a_format_is_written_appended_partitioned_and_read_unchanged(job: Job, path: Path, kind: str) -> None:
    options = {"csv": {"header": True}, "xml": {"rowTag": "row"}}.get(kind, {})
    rows = job.rows()

    def write(mode: str, *partitions: str) -> None:
        rows.write.format(kind).options(**options).mode(mode).partitionBy(*partitions).save(str(path))

    def ids() -> list[int]:
        found = job.session.read.format(kind).options(**options).schema(rows.schema).load(str(path))
        assert {row.name for row in found.limit(5).collect()} <= {f'{MARKER}-{i},"ü' for i in range(ROWS)}
        return sorted(row.id for row in found.select("id").collect())

    write("error")
    assert ids() == list(range(ROWS))
    assert job.generation(path) == 1
    write("append")
    assert ids() == sorted([*range(ROWS)] * 2)
    write("overwrite", "ward")
    assert ids() == list(range(ROWS))
    assert {entry.name for entry in path.iterdir()} == {"_SUCCESS", "_casemate", "ward=0", "ward=1", "ward=2"}
    assert is_sealed(path)
    verify_tree(path, keys=job.agent.keys, records=job.agent.records)


def test_compressed_and_binary_and_whole_text_files_read_back(job: Job, path: Path) -> None:
    text = job.rows().select("name")
    text.write.option("compression", "gzip").text(str(path))
    assert job.session.read.text(str(path)).count() == ROWS
    binary = job.session.read.format("binaryFile").load(f"{path}/*.gz").select("length", "content").collect()
    assert all(row.content[:2] == b"\x1f\x8b" and row.length == len(row.content) for row in binary)
    assert sum(line.count(MARKER) for _, line in job.session.sparkContext.wholeTextFiles(str(path)).collect()) == ROWS
    assert is_sealed(path)


def test_rdds_are_saved_and_read(job: Job, path: Path) -> None:
    rdd = job.session.sparkContext.parallelize([f"{MARKER}-{i}" for i in range(100)], 2)
    rdd.saveAsTextFile(str(path / "text"))
    assert sorted(job.session.sparkContext.textFile(str(path / "text")).collect()) == sorted(rdd.collect())
    rdd.map(lambda line: (line, 1)).saveAsSequenceFile(str(path / "sequence"))
    assert job.session.sparkContext.sequenceFile(str(path / "sequence")).count() == 100
    rdd.saveAsPickleFile(str(path / "pickle"))
    assert job.session.sparkContext.pickleFile(str(path / "pickle")).count() == 100
    assert is_sealed(path)


def test_one_big_file_is_read_by_as_many_tasks_as_a_plain_one(job: Job, path: Path) -> None:
    data = b"".join(b"%d,%s\n" % (i, random.Random(i).randbytes(20).hex().encode()) for i in range(150_000))
    plain = job.base / "outside" / "big.csv"
    plain.write_bytes(data)
    raw = io.BytesIO()
    with EncryptedWriter(raw, job.agent.keys, PATIENTS) as out:
        out.write(data)
    path.mkdir()
    (path / "big.csv").write_bytes(raw.getvalue())
    read = job.session.read.schema("id int, text string").csv
    expected, got = read(str(plain)), read(str(path / "big.csv"))
    assert got.rdd.getNumPartitions() == expected.rdd.getNumPartitions() > 4
    assert got.selectExpr("sum(id)", "count(distinct text)").collect() == (
        expected.selectExpr("sum(id)", "count(distinct text)").collect()
    )
    lines = job.session.sparkContext.textFile
    assert lines(str(path / "big.csv"), 4).count() == lines(str(plain), 4).count() == 150_000


def test_dynamic_partition_overwrite_replaces_partitions_and_commits(job: Job, path: Path) -> None:
    job.rows().write.partitionBy("ward").parquet(str(path))
    other = job.rows(300).where("ward = 1")
    other.write.mode("overwrite").option("partitionOverwriteMode", "dynamic").partitionBy("ward").parquet(str(path))
    counts = {row.ward: row["count"] for row in job.session.read.parquet(str(path)).groupBy("ward").count().collect()}
    assert counts == {0: 667, 1: 100, 2: 666}
    assert job.generation(path) == 2
    verify_tree(path, keys=job.agent.keys, records=job.agent.records)
    assert is_sealed(path)


def test_tables_are_made_appended_overwritten_bucketed_renamed_and_dropped(job: Job) -> None:
    job.rows().write.bucketBy(2, "id").sortBy("id").saveAsTable("patients")
    job.rows().write.mode("append").bucketBy(2, "id").sortBy("id").saveAsTable("patients")
    assert job.session.table("patients").count() == 2 * ROWS
    job.rows().write.mode("overwrite").saveAsTable("patients")
    job.session.sql("insert into patients select * from patients where id < 10")
    assert job.session.table("patients").count() == ROWS + 10
    job.session.sql("alter table patients rename to cohort")
    assert job.session.table("cohort").count() == ROWS + 10
    assert is_sealed(job.rw / "warehouse" / "cohort")
    job.session.sql("drop table cohort")
    job.rows().write.saveAsTable("cohort")
    assert job.session.table("cohort").count() == ROWS
    job.session.sql("drop table cohort")


def test_streams_keep_files_and_checkpoints_in_the_zone(job: Job, path: Path) -> None:
    schema = job.rows().schema

    def run() -> None:
        stream = job.session.readStream.schema(schema).parquet(str(path / "in"))
        counts = stream.groupBy("ward").count()  # keeps state
        sink = stream.writeStream.format("parquet").option("path", str(path / "out"))
        for writer in (
            sink.option("checkpointLocation", str(path / "checkpoint")),
            counts.writeStream.format("noop")
            .outputMode("complete")
            .option("checkpointLocation", str(path / "checkpoint-state")),
        ):
            writer.trigger(availableNow=True).start().awaitTermination()

    job.rows(100).write.parquet(str(path / "in"))
    run()
    job.rows(50).write.mode("append").parquet(str(path / "in"))
    run()  # takes up the checkpoints
    assert job.session.read.parquet(str(path / "out")).count() == 150
    assert (path / "checkpoint" / "commits").is_dir()
    assert is_sealed(path)


def test_models_are_saved_and_loaded(job: Job, path: Path) -> None:
    from pyspark.ml import Pipeline, PipelineModel
    from pyspark.ml.feature import StringIndexer, VectorAssembler

    rows = job.rows(100)
    stages = [StringIndexer(inputCol="name", outputCol="index"), VectorAssembler(inputCols=["ward"], outputCol="v")]
    Pipeline(stages=stages).fit(rows).write().overwrite().save(str(path))
    assert PipelineModel.load(str(path)).transform(rows).count() == 100
    assert is_sealed(path)


def test_empty_data_and_strange_names_behave_as_on_plain_storage(job: Job, path: Path) -> None:
    target = path / "a b ü %25 x=y"
    job.rows(0).write.option("header", True).csv(str(target))
    assert job.session.read.option("header", True).schema(job.rows().schema).csv(str(target)).count() == 0
    job.rows(10).write.mode("overwrite").parquet(str(target))
    assert job.session.read.parquet(str(target)).count() == 10
    (path / "empty").mkdir()
    assert job.session.read.schema("a int").json(str(path / "empty")).count() == 0


def test_odd_files_and_paths_are_as_the_table_in_the_documentation_says(job: Job, path: Path) -> None:
    plain, zone = job.base / "outside" / "ways", job.ro / "ways"
    make_odd_files(plain, many=1000)  # with all of them each reading takes Spark many seconds
    encrypt_tree(plain, zone, dataset=PATIENTS, keys=job.agent.keys, records=job.agent.records)

    def content(root: Path, name: str) -> Any:
        rows = job.session.read.format("binaryFile").option("recursiveFileLookup", True).load(str(root / name))
        return sorted((row.path.rpartition("/ways/")[2], row.length, bytes(row.content)) for row in rows.collect())

    def look(root: Path) -> dict[str, Any]:
        empty = job.session.read.schema("a int").json(str(root / "empty-directory"))
        no_rows = job.session.read.option("header", True).csv(str(root / "no-rows.csv"))
        many = job.session.read.text(str(root / "many")).selectExpr("count(*)", "sum(cast(value as long))")
        return {
            "unknown": content(root, "unknown.xyz"),
            "empty": (content(root, "empty"), job.session.read.text(str(root / "empty")).count()),
            "empty-directory": empty.count(),
            "no-rows": (no_rows.columns, no_rows.count()),
            "names": content(root, "a b"),
            "many": [tuple(row) for row in many.collect()],
            "dots-inside": content(root, "a b/../many/../unknown.xyz"),
        }

    cost = "spark.sql.files.openCostInBytes"
    before = job.session.conf.get(cost)
    job.session.conf.set(cost, "16")
    try:
        expected, got = look(plain), look(zone)
    finally:
        job.session.conf.set(cost, before)
    assert {case: TABLE[case]["spark"] for case in got} == dict.fromkeys(got, PLAIN)
    for case in got:
        assert got[case] == expected[case], case
    (zone / "link-out").symlink_to("/etc/hostname")
    assert TABLE["link-out"]["spark"].strip("`") in fails(lambda: content(zone, "link-out"))
    leaked = f"{job.rw}/../outside/leaked"
    assert TABLE["dots-out"]["spark"].strip("`") in fails(lambda: job.rows(1).write.csv(leaked))
    assert not (job.base / "outside" / "leaked").exists()
    marks = {2**31 + 5: b"beyond 2^31", 2**32 + 7: b"beyond 2^32", BIG - 3: b"end"}
    make_big_file(path / "big", job.agent.keys.current_key(PATIENTS), marks)
    jvm = job.session._jvm
    place = jvm.org.apache.hadoop.fs.Path(f"file://{path}/big")
    files = place.getFileSystem(job.session._jsc.hadoopConfiguration())
    assert files.getFileStatus(place).getLen() == BIG
    stream = files.open(place)
    for offset, mark in marks.items():
        stream.seek(offset)
        assert bytes(jvm.org.apache.commons.io.IOUtils.toByteArray(stream, len(mark))) == mark
    stream.close()
    (path / "big").unlink()


def test_nothing_is_written_outside_the_zones(job: Job) -> None:
    target = job.base / "outside" / "report"
    for write in (
        lambda: job.rows().write.csv(str(target)),
        lambda: job.rows().write.parquet(f"file://{target}"),
        lambda: job.session.sparkContext.parallelize([MARKER]).saveAsTextFile(str(target)),
        lambda: job.session.sql(f"insert overwrite directory '{target}' using json select '{MARKER}' as x"),
    ):
        assert "outside-zones: " in fails(write)
    assert not target.exists()
    assert any(report.startswith(f"outside-zones: file://{target}") for report in job.agent.reports)


@pytest.fixture
def dataset(job: Job, request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A committed CSV dataset of four files in the zone that is only read."""
    for part in range(4):
        lines = [f"{part * 20_000 + i},{MARKER}-{i:05d}" for i in range(20_000)]
        (tmp_path / f"part-{part}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    destination = job.ro / request.node.name.replace("[", "-").rstrip("]")
    encrypt_tree(tmp_path, destination, dataset=PATIENTS, keys=job.agent.keys, records=job.agent.records)
    return destination


def total(job: Job, path: Path) -> int:
    frame = job.session.read.schema("id long, name string").csv(str(path))
    return int(frame.selectExpr("sum(id)").collect()[0][0])


def test_an_untouched_dataset_is_read(job: Job, dataset: Path) -> None:
    assert total(job, dataset) == sum(range(80_000))


def test_one_flipped_bit_is_refused_and_the_file_named(job: Job, dataset: Path) -> None:
    data = bytearray((dataset / "part-2.csv").read_bytes())
    data[len(data) // 2] ^= 1
    (dataset / "part-2.csv").write_bytes(data)
    message = fails(lambda: total(job, dataset))
    assert f"file-tampered: file://{dataset}/part-2.csv: segment" in message
    assert any(report.startswith(f"file-tampered: file://{dataset}/part-2.csv") for report in job.agent.reports)


def test_a_truncated_file_is_refused(job: Job, dataset: Path) -> None:
    data = (dataset / "part-1.csv").read_bytes()
    (dataset / "part-1.csv").write_bytes(data[: 512 + 65536])  # at a segment's border
    assert f"file-truncated: file://{dataset}/part-1.csv" in fails(lambda: total(job, dataset))


def test_swapped_files_are_refused(job: Job, dataset: Path) -> None:
    one, two = dataset / "part-1.csv", dataset / "part-2.csv"
    one.rename(dataset / "x")
    two.rename(one)
    (dataset / "x").rename(two)
    assert "manifest-file-swapped: " in fails(lambda: total(job, dataset))


def test_a_deleted_file_is_refused(job: Job, dataset: Path) -> None:
    (dataset / "part-3.csv").unlink()
    assert f"manifest-file-missing: file://{dataset}/part-3.csv" in fails(lambda: total(job, dataset))


def test_a_foreign_file_is_refused(job: Job, dataset: Path) -> None:
    shutil.copy(dataset / "part-3.csv", dataset / "part-4.csv")
    assert f"manifest-file-foreign: file://{dataset}/part-4.csv" in fails(lambda: total(job, dataset))


def test_an_ignored_error_is_still_reported(job: Job, dataset: Path) -> None:
    """A program may tell Spark to pass over damaged files; whoever started it learns of it all the same."""
    data = bytearray((dataset / "part-0.csv").read_bytes())
    data[-20] ^= 1
    (dataset / "part-0.csv").write_bytes(data)
    frame = job.session.read.option("ignoreCorruptFiles", True).schema("id long, name string").csv(str(dataset))
    frame.count()
    assert any(report.startswith(f"file-tampered: file://{dataset}/part-0.csv") for report in job.agent.reports)


def test_damage_of_every_kind_is_refused_in_a_dataset_that_was_not_even_committed(job: Job, path: Path) -> None:
    raw = io.BytesIO()
    with EncryptedWriter(raw, job.agent.keys, PATIENTS) as out:
        out.write(b"".join(b"%d,%s\n" % (i, MARKER.encode()) for i in range(10_000)))
    path.mkdir()
    chosen = random.Random(4).sample(list(damages(raw.getvalue())), 12)
    accepted = []
    for number, (name, bad) in enumerate(chosen):
        (path / str(number)).mkdir()
        (path / str(number) / "file.csv").write_bytes(bad)
        try:
            accepted.append((name, total(job, path / str(number))))
        except Exception as exc:
            assert "file-" in str(exc) or "key-denied" in str(exc), name  # noqa: PT017 - the loop goes on
    assert accepted == []


def read_all(job: Job, directory: Path) -> int:
    """Lines in every file below; of files beside partitions Spark would else read none."""
    return int(job.session.read.option("recursiveFileLookup", True).text(str(directory)).count())


def test_every_attack_on_a_dataset_is_refused_and_what_was_attacked_is_named(job: Job, tmp_path: Path) -> None:
    accepted = []
    for number, attack in enumerate(ATTACKS):
        scene = Scene(job.ro / f"scene-{number}", tmp_path / str(number), job.agent.keys, job.agent.records, PATIENTS)
        if number == 0:
            assert read_all(job, scene.victim) == 400
            shutil.rmtree(job.ro / "scene-0")
            scene = Scene(job.ro / "again", tmp_path / "again", job.agent.keys, job.agent.records, PATIENTS)
        attack.act(scene)
        message = refusal(lambda scene=scene: read_all(job, scene.victim))
        if not any(f"{code}: " in message for code in attack.codes) or attack.named not in message:
            accepted.append((attack.name, message[:300]))
    assert accepted == []
