"""Several Spark jobs at one dataset, and jobs that are killed: nothing is lost, mixed, or taken over unfinished."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.support.fake_agent import FakeAgent
from tests.support.memory import MemoryKeys, MemoryRecords
from tests.support.spark_app import SparkApp

from casemate.data.dataset import verify_tree
from casemate.data.errors import IntegrityError
from casemate.data.zones import local_uri
from casemate.model import DatasetName

pytestmark = [pytest.mark.spark, pytest.mark.timeout(600)]  # two applications on two cores

PATIENTS = DatasetName.parse("hospital/patients")
SLOW = "reflect('java.lang.Thread', 'sleep', 250L) is not null"  # a quarter of a second for each row; all are kept


@dataclass
class Site:
    """A zone, its keys and records, and the jobs that were started on it."""

    base: Path
    keys: MemoryKeys = field(default_factory=lambda: MemoryKeys(str(PATIENTS)))
    records: MemoryRecords = field(default_factory=MemoryRecords)
    stack: ExitStack = field(default_factory=ExitStack)

    @property
    def zone(self) -> Path:
        return self.base / "zone"

    def app(self, job: str) -> SparkApp:
        zones = [FakeAgent.zone(self.zone, str(PATIENTS))]
        private = self.base / job
        agent = FakeAgent(
            self.base / f"{job}.sock",
            zones,
            keys=self.keys,
            records=self.records,
            private_prefixes=[local_uri(private)],
            job=job,
        )
        self.stack.enter_context(agent)
        return self.stack.enter_context(SparkApp(agent, private))

    def generation(self, name: str) -> int:
        return self.records.generation(PATIENTS, local_uri(self.zone / name)).number

    def verify(self, name: str) -> int | None:
        """The generation that a strict reader sees."""
        return verify_tree(self.zone / name, keys=self.keys, records=self.records).generation


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("jobs"))
    made.zone.mkdir()
    with made.stack:
        yield made
    shutil.rmtree(made.base, ignore_errors=True)


def wait_for(condition: object, seconds: float = 60) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "never happened"
        time.sleep(0.02)


def test_jobs_that_are_killed_or_write_at_the_same_time_leave_whole_datasets(site: Site) -> None:
    table, stream = site.zone / "table", site.zone / "stream"
    source = f"spark.readStream.schema('id long').parquet('{stream}/in').writeStream.format('parquet')"
    query = (
        f"{source}.option('path', '{stream}/out').option('checkpointLocation', '{stream}/checkpoint')"
        ".trigger(availableNow=True).start().awaitTermination()"
    )
    count = "result = spark.read.parquet('{}').count()"

    with ThreadPoolExecutor(2) as pool:
        first, two = pool.map(site.app, ["first", "two"])

    # 1. Two jobs append at once, each by another of Hadoop's ways to commit; both get in.
    first.run(f"spark.range(100).repartition(2).write.parquet('{table}')")
    two.run("spark.conf.set('mapreduce.fileoutputcommitter.algorithm.version', '2')")
    two.start(f"spark.range(200, 204).repartition(2).where(\"{SLOW}\").write.mode('append').parquet('{table}')")
    first.start(f"spark.range(100, 110).repartition(2).where(\"{SLOW}\").write.mode('append').parquet('{table}')")
    wait_for(lambda: site.generation("table") == 2)
    site.verify("table")
    for app in (first, two):
        app.finish()
    assert site.verify("table") == 3
    for app in (first, two):
        rows = app.run(f"result = sorted(r.id for r in spark.read.parquet('{table}').collect())")
        assert rows == [*range(110), *range(200, 204)]

    # 2. A streaming query commits each batch, and each step in its checkpoint.
    first.run(f"spark.range(30).write.parquet('{stream}/in')")
    first.run(query)
    assert site.generation("stream/out") == 1
    assert site.generation("stream/checkpoint") == 2

    # 3. Killed while it overwrites: the old dataset stands, before and after.
    first.start(f"spark.range(60).repartition(2).where(\"{SLOW}\").write.mode('overwrite').parquet('{table}')")
    wait_for(lambda: any(table.glob("_temporary/*/_temporary/*/*")))
    assert site.verify("table") == 3
    first.kill()
    assert site.verify("table") == 3
    site.verify("stream/out")

    # 4. Another job does what that one did not finish, and goes on with its query.
    two.run(f"spark.range(60).repartition(2).write.mode('overwrite').parquet('{table}')")
    assert two.run(count.format(table)) == 60
    assert site.verify("table") == 4
    assert len(list(table.glob("*.parquet"))) <= 2, "what was replaced is gone"
    two.run(f"spark.range(30, 40).write.mode('append').parquet('{stream}/in')")
    two.run(query)
    assert two.run(count.format(stream / "out")) == 40

    # 5. A checkpoint that somebody takes back to an earlier state is no checkpoint.
    (stream / "checkpoint" / "commits" / "1").unlink()
    with pytest.raises(IntegrityError, match="checkpoint/commits/1"):
        site.verify("stream/checkpoint")
    with pytest.raises(RuntimeError, match="manifest-file-missing"):
        two.run(query)
