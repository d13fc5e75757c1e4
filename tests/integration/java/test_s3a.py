"""Spark on a zone in S3, through Hadoop's own S3A: a real server, and credentials that no setting holds."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support.fake_agent import FakeAgent
from tests.support.s3_server import ACCESS, SECRET, S3Server
from tests.support.zone_spark import JAR, zone_spark

from casemate.model import Access, DatasetName, Zone

pytestmark = pytest.mark.spark

PATIENTS = DatasetName.parse("hospital/patients")
MARKER = "PLAINTEXT-MARKER"
BUCKET = "bucket"
S3A = {
    # What Hadoop 3.5 has by default, in the plain numbers that S3A 3.3 understands.
    "threads.keepalivetime": "60",
    "connection.establish.timeout": "5000",
    "connection.timeout": "200000",
    "multipart.purge.age": "86400",
    "path.style.access": "true",
    "connection.ssl.enabled": "false",
    "aws.credentials.provider": "org.apache.hadoop.fs.s3a.SimpleAWSCredentialsProvider",
}


def s3a_jars() -> list[Path]:
    directory = os.environ.get("TEST_HADOOP_AWS_JARS")
    if directory is None:
        pytest.skip("TEST_HADOOP_AWS_JARS is not set: see scripts/fetch_hadoop_aws.py")
    return [next(Path(directory).glob(pattern)) for pattern in ("hadoop-aws-*.jar", "aws-java-sdk-bundle-*.jar")]


def storage_owner(server: S3Server) -> Any:
    """A client that goes past every zone."""
    import botocore.session

    session = botocore.session.get_session()
    return session.create_client(
        "s3",
        endpoint_url=server.endpoint,
        region_name="us-east-1",
        aws_access_key_id=ACCESS,
        aws_secret_access_key=SECRET,
    )


@dataclass
class Cloud:
    """A Spark session with the zone ``s3a://bucket/data``, and the store's owner's own view of it."""

    session: Any
    agent: FakeAgent
    client: Any

    def keys(self, prefix: str) -> list[str]:
        found = self.client.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
        return [item["Key"] for item in found]

    def content(self, key: str) -> bytes:
        body = self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        assert isinstance(body, bytes)
        return body

    def part(self, prefix: str) -> str:
        return next(key for key in self.keys(prefix) if "/part-" in key)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    jars = s3a_jars()
    base = tmp_path_factory.mktemp("s3a")
    (base / "private").mkdir()
    zones = [Zone("s3a://bucket/data", PATIENTS, Access.READ_WRITE)]
    private = [f"file://{base}/private"]
    with S3Server(base / "s3") as server, FakeAgent(base / "agent.sock", zones, private_prefixes=private) as agent:
        agent.storage_credentials = {"fs.s3a.access.key": ACCESS, "fs.s3a.secret.key": SECRET}
        settings = {
            **{f"spark.hadoop.fs.s3a.{name}": value for name, value in S3A.items()},
            "spark.hadoop.fs.s3a.endpoint": server.endpoint,
            "spark.driver.extraClassPath": os.pathsep.join(map(str, [JAR, *jars])),
        }
        with zone_spark(agent, base / "private", settings) as session:
            rows = session.range(2000).selectExpr("id", f"concat('{MARKER}-', id) as name").coalesce(1)
            rows.write.csv("s3a://bucket/data/csv", header=True)
            rows.write.parquet("s3a://bucket/data/parquet")
            yield Cloud(session, agent, storage_owner(server))
    shutil.rmtree(base, ignore_errors=True)


def test_what_spark_wrote_is_committed_encrypted_and_read(cloud: Cloud) -> None:
    assert cloud.session.read.csv("s3a://bucket/data/csv", header=True).count() == 2000
    assert cloud.session.read.parquet("s3a://bucket/data/parquet").where("name like 'PLAIN%'").count() == 2000
    for name in ("csv", "parquet"):
        assert cloud.agent.records.generation(PATIENTS, f"s3a://bucket/data/{name}").number == 1
    for key in cloud.keys("data/"):
        assert MARKER.encode() not in cloud.content(key), key


def test_a_flipped_bit_in_an_object_is_refused_and_the_file_named(cloud: Cloud) -> None:
    key = cloud.part("data/csv/")
    good = cloud.content(key)
    bad = bytearray(good)
    bad[len(bad) // 2] ^= 1
    cloud.client.put_object(Bucket=BUCKET, Key=key, Body=bytes(bad))
    with pytest.raises(Exception, match=f"file-tampered: s3a://bucket/{key}"):
        cloud.session.read.csv("s3a://bucket/data/csv", header=True).where("name = 'x'").count()
    assert any(report.startswith("file-tampered") for report in cloud.agent.reports)
    cloud.client.put_object(Bucket=BUCKET, Key=key, Body=good)


def test_a_deleted_object_is_missed(cloud: Cloud) -> None:
    key = cloud.part("data/parquet/")
    cloud.client.delete_object(Bucket=BUCKET, Key=key)
    with pytest.raises(Exception, match="manifest-file-missing"):
        cloud.session.read.parquet("s3a://bucket/data/parquet").count()


def test_the_access_key_is_in_no_setting(cloud: Cloud) -> None:
    context = cloud.session.sparkContext
    settings = dict(context.getConf().getAll())
    hadoop = {item.getKey(): item.getValue() for item in context._jsc.hadoopConfiguration().iterator()}
    for value in (*settings.values(), *hadoop.values()):
        assert SECRET not in value
        assert ACCESS not in value
