"""Keys stay where they belong: searched for in every spelling while a job runs and after it."""

from __future__ import annotations

import base64
import contextlib
import json
import sqlite3
import sys
import time
from pathlib import Path

import pytest

from casemate.broker.rootkey import FileRootKeyStore
from casemate.broker.state import StateDirectory, read_passphrase
from casemate.cli.owner import Owners
from casemate.crypto.secret import Secret
from casemate.demo.sandbox import Sandbox
from casemate.demo.search import Watcher, search_processes
from casemate.model import DatasetName
from casemate.settings import Settings

pytestmark = [pytest.mark.spark, pytest.mark.timeout(300)]

PROGRAM = """
import os, sys, time
from pyspark.sql import SparkSession

source, target, go = sys.argv[1:]
spark = SparkSession.builder.getOrCreate()
rows = spark.read.csv(source, header=True).repartition(4, "id").cache()
rows.write.mode("overwrite").csv(target)
print("ui", spark.sparkContext.uiWebUrl, flush=True)
for _ in range(300):
    if os.path.exists(go):
        break
    rows.groupBy("value").count().count()
    time.sleep(0.2)
spark.stop()
"""


def _spellings(label: str, secret: Secret) -> dict[str, bytes]:
    raw = secret.reveal()
    return {
        f"{label} raw": raw,
        f"{label} hex": raw.hex().encode(),
        f"{label} HEX": raw.hex().upper().encode(),
        f"{label} base64": base64.b64encode(raw).rstrip(b"="),
        f"{label} base64url": base64.urlsafe_b64encode(raw).rstrip(b"="),
    }


def _job_secret(state: StateDirectory, root: FileRootKeyStore, seconds: float = 90) -> Secret:
    """The running job's secret, read as an administrator with the root key could."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.closing(sqlite3.connect(state.database)) as database:
            row = database.execute("SELECT id, wrapped_secret FROM jobs WHERE wrapped_secret IS NOT NULL").fetchone()
        if row is not None:
            return root.unwrap(row[1], context=f"casemate:job-secret:v1:{row[0]}".encode())
        time.sleep(0.1)
    raise AssertionError("no job asked for a secret")


def test_no_key_is_found_outside_a_tees_private_memory(tmp_path: Path) -> None:
    plain, vault, go = tmp_path / "rows.csv", tmp_path / "vault", tmp_path / "go"
    plain.write_text("id,value\n" + "".join(f"{n},{n % 7}\n" for n in range(2000)))
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    with Sandbox(tmp_path / "home") as sandbox:
        settings = Settings.load(sandbox.environment)
        state = StateDirectory(settings.broker_dir)
        sandbox.casemate("key", "create", "o/in").check()
        sandbox.casemate("encrypt", str(plain), str(vault / "in"), "--dataset", "o/in").check()
        with Owners(settings) as owners:
            dataset = DatasetName.parse("o/in")
            key = owners.current_key(dataset).secret
        root = FileRootKeyStore.open(state.root_key, read_passphrase(state.passphrase))
        needles = {**_spellings("dataset key", key), **_spellings("root key", root._root_key)}
        command = [
            *(sys.executable, "-m", "casemate", "submit", str(program)),
            *(f"{vault}/in", f"{vault}/out", str(go), "--read", f"o/in={vault}/in", "--write", f"o/out={vault}/out"),
            *("--master", "standalone", "--workers", "1", "--format", "json"),
            *("--conf", "spark.driver.extraJavaOptions=-XX:TieredStopAtLevel=1"),
            *("--conf", "spark.executor.extraJavaOptions=-XX:TieredStopAtLevel=1"),
        ]
        job = sandbox.start(command)
        needles |= _spellings("job secret", _job_secret(state, root))
        # What a TEE keeps in its private memory is its own; everything else is the storage and host owner's to read.
        private = list(Path("/dev/shm").glob("casemate-*"))
        with Watcher(
            needles, [tmp_path], shared=[Path("/dev/shm"), Path("/tmp")], skip=[*private, go], environ=False
        ) as watcher:
            deadline = time.monotonic() + 60
            while not (vault / "out/_SUCCESS").exists() and job.poll() is None and time.monotonic() < deadline:
                time.sleep(0.2)
            time.sleep(3)  # some rounds of shuffle under the watcher's eyes
            go.touch()
            finished = sandbox.finish(job, "casemate submit").check()
        assert watcher.hits == set()
        assert watcher.files_searched > 10
        assert json.loads(finished.stdout)["attestations"] >= 4
        assert "ui None" in finished.stderr
        assert search_processes(needles) == set()
    assert watcher.hits == set()


def test_the_search_finds_a_key_that_does_lie_about(tmp_path: Path) -> None:
    secret = Secret.random()
    needles = _spellings("key", secret)
    (tmp_path / "careless").write_text(f"key={secret.reveal().hex()}")
    with Watcher(needles, [tmp_path]) as watcher:
        pass
    assert {hit.needle for hit in watcher.hits} == {"key hex"}
