"""Unchanged Spark programs, whole: local by ``python app.py``, and a cluster of the job's own by ``spark-submit``."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.integration.engines.conftest import CANARY, ROWS
from tests.support.kbs_double import Authority
from tests.support.stage import Job, Stage

from casemate.model import Access
from casemate.workload.build import zone_entry
from casemate.workload.manifest import WorkloadManifest

pytestmark = pytest.mark.spark

PROGRAM = """
import json, sys
from pyspark.sql import SparkSession
from pyspark.sql.functions import col, udf

spark = SparkSession.builder.getOrCreate()
patients = spark.read.csv(sys.argv[1], header=True, inferSchema=True)
upper = udf(lambda name: name.upper())
named = patients.withColumn("name", upper(col("name"))).repartition(4, "ward")
named.write.mode("overwrite").parquet(sys.argv[2])
wards = {row["ward"]: row["count"] for row in named.groupBy("ward").count().collect()}
conf = dict(spark.sparkContext.getConf().getAll())
print("RESULT " + json.dumps({"rows": patients.count(), "wards": wards, "conf": conf}))
if "--show" in sys.argv:
    named.where(col("id") == 1234).show()
spark.stop()
"""


# Small data: what costs time here is compiling. That the options arrive is a test as well.
FAST = {
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1",
    "spark.executor.extraJavaOptions": "-XX:TieredStopAtLevel=1",
    "spark.sql.shuffle.partitions": "2",
}


def new_job(stage: Stage, name: str, *arguments: str, source: str = PROGRAM, **options: Any) -> Job:
    program = stage.root / f"{name}.py"
    program.write_text(source)
    zones = [
        zone_entry(stage.dataset("patients"), str(stage.root / "vault" / "patients"), Access.READ),
        zone_entry(stage.dataset(f"report-{name}"), str(stage.root / "vault" / name), Access.WRITE),
    ]
    return stage.job(program, ["vault/patients", f"vault/{name}/out", *arguments], zones, **options)


def result(job: Job) -> dict[str, Any]:
    lines = [line for line in job.output.splitlines() if line.startswith("RESULT ")]
    assert lines, job.output
    # What the JVM or a Python worker prints may begin before the line has ended: they share the job's output.
    value, _ = json.JSONDecoder().raw_decode(lines[0].removeprefix("RESULT "))
    assert isinstance(value, dict)
    return value


def listeners(root: int) -> dict[int, str]:
    """Every TCP port that a process below ``root`` listens on, and that process's name."""
    found = {}
    for process in psutil.Process(root).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            for connection in process.net_connections("tcp"):
                if connection.status == psutil.CONN_LISTEN:
                    found[connection.laddr.port] = " ".join(process.cmdline())[-80:]
    return found


def admits(port: int, context: ssl.SSLContext) -> bool:
    """Whether a server takes this TLS client in: anything but a TLS alert about its certificate, silence included.

    TLS 1.3 refuses a client certificate after the handshake (RFC 8446 section 4.4.2.4), at the first read. The end of
    the connection may overtake that alert: it counts as well, but only after a handshake, as nobody has sent data."""
    shaken = False
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as raw, context.wrap_socket(raw) as sock:
            shaken = True
            sock.recv(1)
    except ssl.SSLError as exc:
        return "CERTIFICATE" not in str(exc).upper() and not only_redirects(port)
    except ConnectionResetError:
        return not shaken
    except OSError:
        return True
    return True


def only_redirects(port: int) -> bool:
    """Whether a server without TLS says nothing but where the one with TLS is, as Spark's web pages do."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
        sock.sendall(b"GET /json/ HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
        answer = sock.recv(65536)
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.split(b" ")[1:2] == [b"302"] and b"location: https://" in head.lower() and not body


def client_contexts(directory: Path) -> dict[str, ssl.SSLContext]:
    """TLS clients that trust anybody: one without a certificate, one with a certificate of another authority."""
    anonymous = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anonymous.check_hostname, anonymous.verify_mode = False, ssl.CERT_NONE
    stranger = Authority("a rogue's").server_context(directory)  # writes the pair to directory
    del stranger
    rogue = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    rogue.check_hostname, rogue.verify_mode = False, ssl.CERT_NONE
    rogue.load_cert_chain(next(directory.glob("server-*.pem")))
    return {"anonymous": anonymous, "rogue": rogue}


def secrets_of(stage: Stage) -> list[bytes]:
    """The authentication secret and keystore passwords of every running member, from their private memory."""
    found = []
    for path in Path("/dev/shm").glob(f"casemate-tee-{stage.host_pid}-*/*/*/tls/credentials"):
        found.append(path.read_bytes()[-64:])
    return found


def test_python_app_py_is_protected_and_reads_and_writes_its_zones(stage: Stage, tmp_path: Path) -> None:
    job = new_job(
        stage,
        "local",
        "--show",
        command=("python", "{program}", "{args}"),
        engine_settings={"master": "local[2]", "conf": FAST},
    )
    outcome = stage.run(job)
    assert outcome.outcome == "done", job.output
    found = result(job)
    assert found["rows"] == ROWS
    assert sum(found["wards"].values()) == ROWS
    conf = found["conf"]
    assert conf["spark.ssl.rpc.needClientAuth"] == "true"
    assert conf["spark.io.encryption.enabled"] == "true"
    assert "-XX:TieredStopAtLevel=1" in conf["spark.driver.extraJavaOptions"].split()
    assert conf["spark.hadoop.fs.file.impl"] == "io.casemate.spark.ZoneLocalFileSystem"
    assert CANARY.upper() in job.output  # the program may show what it likes to whoever it was granted to
    stored = b"".join(p.read_bytes() for p in (stage.root / "vault" / "local").rglob("*") if p.is_file())
    assert stored
    assert CANARY.upper().encode() not in stored
    assert b"PAR1" not in stored
    stage.decrypt(stage.root / "vault" / "local" / "out", tmp_path / "clear")
    clear = b"".join(p.read_bytes() for p in (tmp_path / "clear").rglob("*.parquet"))
    assert b"PAR1" in clear
    assert CANARY.upper().encode() in clear


def test_a_standalone_cluster_attests_every_member_and_admits_no_other(stage: Stage, tmp_path: Path) -> None:
    job = new_job(
        stage,
        "cluster",
        engine_settings={"master": "standalone", "workers": 2, "conf": FAST},
    )
    ports: dict[int, str] = {}
    admitted: list[tuple[str, str]] = []
    exposed: list[str] = []
    contexts = client_contexts(tmp_path)

    def probe(event: Mapping[str, Any]) -> None:
        """While the executors start: knock at every port, and look for secrets in every argument and variable."""
        if event.get("phase") != "started" or event.get("role") != "executor":
            return
        for port, name in listeners(stage.host_pid).items():
            if port not in ports:
                ports[port] = name
                admitted.extend((who, name) for who, context in contexts.items() if admits(port, context))
        secrets = secrets_of(stage)
        assert secrets
        for process in psutil.Process(stage.host_pid).children(recursive=True):
            with contextlib.suppress(OSError):
                shown = b"".join(Path(f"/proc/{process.pid}/{name}").read_bytes() for name in ("cmdline", "environ"))
                for secret in secrets:
                    if any(
                        form in shown for form in (secret, bytes.fromhex(secret.decode()), base64.b64encode(secret))
                    ):
                        exposed.append(" ".join(process.cmdline())[:120])

    outcome = stage.run(job, probe)
    assert outcome.outcome == "done", job.output
    assert result(job)["rows"] == ROWS
    roles = [e.get("role") for e in job.events if e.get("phase") == "attested"]
    assert {role: roles.count(role) for role in set(roles)} == {"master": 1, "worker": 2, "driver": 1, "executor": 2}
    assert len(ports) >= 5, ports
    assert admitted == []
    assert exposed == []


def test_a_job_whose_executor_passed_over_a_damaged_file_is_not_done(stage: Stage) -> None:
    source = (
        "import sys\nfrom pyspark.sql import SparkSession\nspark = SparkSession.builder.getOrCreate()\n"
        "spark.conf.set('spark.sql.files.ignoreCorruptFiles', 'true')\n"
        "rows = spark.read.csv(sys.argv[1], header=True, schema='id int, ward int, name string')\n"
        "print('RESULT', rows.count())\n"
    )
    settings = {"master": "standalone", "workers": 1, "conf": FAST}
    job = new_job(stage, "ignoring", source=source, engine_settings=settings)
    victim = max((stage.root / "vault" / "patients").rglob("*.csv"), key=lambda path: path.stat().st_size)
    good = victim.read_bytes()
    victim.write_bytes(good[:-20] + bytes([good[-20] ^ 1]) + good[-19:])
    try:
        outcome = stage.run(job)
    finally:
        victim.write_bytes(good)
    assert "RESULT" in job.output  # the program itself noticed nothing
    assert (outcome.outcome, outcome.code) == ("refused", "file-tampered"), job.output
    assert str(victim) in outcome.message


def test_a_write_outside_the_zones_is_refused_and_named(stage: Stage) -> None:
    source = (
        "import sys\nfrom pyspark.sql import SparkSession\nspark = SparkSession.builder.getOrCreate()\n"
        "spark.range(3).write.csv(sys.argv[2])\n"
    )
    job = new_job(stage, "outside", source=source, engine_settings={"master": "local[1]", "conf": FAST})
    outside = stage.root / "outside.out"
    value = job.manifest.to_json()
    value["arguments"][1] = str(outside)
    job.manifest = WorkloadManifest.from_json(value)
    stage.grant(job.manifest)
    outcome = stage.run(job)
    assert (outcome.outcome, outcome.code) == ("refused", "outside-zones"), job.output
    assert str(outside) in outcome.message
    assert not outside.exists()


def test_a_program_that_takes_protection_away_in_its_own_code_is_stopped(stage: Stage) -> None:
    source = (
        "from pyspark.sql import SparkSession\n"
        "spark = SparkSession.builder.config('spark.ui.enabled', 'true').getOrCreate()\nprint('RESULT {}')\n"
    )
    job = new_job(
        stage,
        "guarded",
        source=source,
        command=("python", "{program}"),
        engine_settings={"master": "local[1]", "conf": FAST},
    )
    outcome = stage.run(job)
    assert (outcome.outcome, outcome.code) == ("refused", "protected-setting"), job.output
    assert "spark.ui.enabled" in outcome.message
    assert "RESULT" not in job.output
