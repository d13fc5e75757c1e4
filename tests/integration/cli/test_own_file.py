"""The five commands on a file of one's own, the owner's other commands, and every wrong use of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.cli import Cli, processes_of

COPY = "import sys, shutil\nprint('hello from inside')\nprint('and to stderr', file=sys.stderr)\n"
SPARK = """import sys
from pyspark.sql import SparkSession

spark = SparkSession.builder.getOrCreate()
patients = spark.read.csv(sys.argv[1], header=True, inferSchema=True)
print("rows:", patients.count())
patients.groupBy("age").count().orderBy("age").coalesce(1).write.csv(sys.argv[2], header=True)
spark.stop()
"""


@pytest.mark.spark
def test_five_commands_from_nothing_to_a_decrypted_result(cli: Cli) -> None:
    cli.write("patients.csv", "id,age\n" + "".join(f"{n},{n % 90}\n" for n in range(5000)))
    cli.write("job.py", SPARK)
    cli.ok("up", "--port", "0")
    cli.ok("key", "create", "hospital/patients")
    cli.ok("encrypt", "patients.csv", "vault/patients", "--dataset", "hospital/patients")
    done = cli.ok(
        *("submit", "job.py", "vault/patients", "vault/report"),
        *("--read", "hospital/patients=vault/patients", "--write", "hospital/report=vault/report"),
    )
    assert "rows: 5000" in done.out
    assert "granted as hospital: read hospital/patients, write hospital/report" in done.err
    assert "SIMULATED" in done.err
    cli.ok("decrypt", "vault/report", "report.csv")
    lines = (cli.where / "report.csv").read_text().splitlines()
    assert lines[0] == "age,count"
    assert len(lines) == 91
    for path in (cli.where / "vault").rglob("*.csv"):
        assert path.read_bytes()[:4] == b"CSMT"


def test_a_plain_programs_output_and_status_come_through(services: Cli) -> None:
    services.write("hello.py", COPY)
    done = services.ok("submit", "--engine", "plain", "hello.py", "--read", "hospital/patients=vault/patients")
    assert done.out == "hello from inside\n"
    assert "and to stderr" in done.err
    services.write("broken.py", "import sys; sys.exit(7)")
    services.run("submit", "--engine", "plain", "broken.py").refused(1, "program-ended")


def test_json_has_stdout_to_itself(services: Cli) -> None:
    services.write("hello.py", COPY)
    done = services.ok("submit", "--engine", "plain", "hello.py", "--format", "json")
    assert done.value["outcome"] == "done"
    assert done.value["simulated"] is True
    assert "hello from inside" in done.err


def test_arguments_with_dashes_follow_two_dashes(services: Cli) -> None:
    services.write("args.py", "import sys; print(sys.argv[1:])")
    done = services.ok("submit", "--engine", "plain", "args.py", "a", "--", "--depth", "3", "-x")
    assert done.out == "['a', '--depth', '3', '-x']\n"
    services.run("submit", "--engine", "plain", "args.py", "--depth", "3").refused(2, "No such option")


def test_a_missing_key_to_write_is_made_and_told(services: Cli) -> None:
    services.write("hello.py", COPY)
    done = services.ok("submit", "--engine", "plain", "hello.py", "--write", "hospital/fresh=vault/fresh")
    assert "created hospital/fresh" in done.err
    assert "hospital/fresh" in {row["name"] for row in services.json("key", "list")}


@pytest.mark.parametrize(
    ("arguments", "status", "codes"),
    [
        ("encrypt nowhere.csv vault/x --dataset hospital/patients", 2, ("source-missing",)),
        ("encrypt patients.csv vault/x --dataset hospital/unknown", 1, ("dataset-unknown",)),
        ("encrypt patients.csv vault/x --dataset lab/samples", 2, ("identity-missing",)),
        ("encrypt patients.csv vault/x --dataset patients", 2, ("dataset name 'patients'",)),
        ("encrypt patients.csv vault/patients --dataset hospital/patients", 2, ("destination-exists",)),
        ("encrypt patients.csv . --dataset hospital/patients", 2, ("patients.csv and .", "destination-exists")),
        ("decrypt nowhere out.csv", 2, ("source-missing",)),
        ("decrypt patients.csv out.csv", 1, ("file-malformed",)),
        ("decrypt vault/patients patients.csv", 2, ("destination-exists",)),
        (
            "decrypt vault/patients out.csv --dataset hospital/other",
            1,
            ("file-wrong-dataset", "manifest-missing", "dataset-unknown"),
        ),
        ("inspect patients.csv", 1, ("file-malformed",)),
        ("key create hospital/patients", 2, ("dataset-exists",)),
        ("key create admin/things", 2, ("owner 'admin'",)),
        ("key create job/things", 2, ("request-malformed", "usage")),
        ("key rotate hospital/unknown", 1, ("dataset-unknown",)),
        ("grant revoke 0000", 2, ("no grant '0000' of an owner whose identity is on this machine",)),
        ("explain r-0000", 2, ("refusal-unknown",)),
        ("submit nowhere.py", 2, ("file-missing",)),
        ("submit patients.csv --read hospital/patients=vault/nowhere", 2, ("file-missing",)),
        ("submit patients.csv --policy nowhere.yaml", 2, ("file-missing",)),
        ("submit patients.csv --policy patients.csv", 2, ("policy-malformed",)),
        ("submit patients.csv --grant-for ever", 2, ("duration 'ever'",)),
    ],
)
def test_each_wrong_use_is_one_line_and_writes_nothing(
    services: Cli, arguments: str, status: int, codes: tuple[str, ...]
) -> None:
    before = sorted(path for path in services.where.rglob("*") if services.home not in path.parents)
    services.run(*arguments.split()).refused(status, *codes)
    assert sorted(path for path in services.where.rglob("*") if services.home not in path.parents) == before


def test_without_a_grant_nothing_is_released(services: Cli) -> None:
    services.ok("key", "create", "hospital/lonely")
    services.ok("encrypt", "patients.csv", "vault/lonely", "--dataset", "hospital/lonely")
    services.write("hello.py", COPY)
    done = services.run(
        "submit", "--no-grant", "--engine", "plain", "hello.py", "--read", "hospital/lonely=vault/lonely"
    )
    done.refused(1, "grant-missing")
    assert "hello" not in done.out


def test_a_grant_by_hand_opens_its_workload_until_it_is_revoked(services: Cli) -> None:
    services.write("count.py", "print(2)")
    job = ["--engine", "plain", "count.py", "--read", "hospital/patients=vault/patients"]
    services.write("workload.json", services.ok("workload", "show", *job, "--format", "json").out)
    (grant,) = services.json("grant", "create", "--manifest", "workload.json", "--for", "10m")
    assert services.ok("submit", "--no-grant", *job).out == "2\n"
    listed = {row["id"]: row for row in services.json("grant", "list")}
    assert (listed[grant["id"]]["status"], listed[grant["id"]]["releases"]) == ("active", 1)
    services.ok("grant", "revoke", grant["id"])
    services.run("submit", "--no-grant", *job).refused(1, "grant-revoked")


def test_a_changed_program_needs_another_grant_and_explain_says_so(services: Cli) -> None:
    services.write("agreed.py", "print(3)")
    job = ["--engine", "plain", "agreed.py", "--read", "hospital/patients=vault/patients"]
    digest = services.json("workload", "show", *job)["digest"]
    services.ok("grant", "create", "--workload", digest, "--read", "hospital/patients")
    services.write("agreed.py", "print(4)")
    done = services.run("submit", "--no-grant", *job).refused(1, "grant-workload-mismatch")
    refusal = done.err.split("casemate explain ")[1].split("`")[0]
    explained = services.json("explain", refusal)
    failing = {clause["clause"] for clause in explained["clauses"] if not clause["holds"]}
    assert "workload" in failing
    assert "FAILS  workload" in services.ok("explain", refusal).out


def test_a_production_policy_refuses_the_simulator(services: Cli) -> None:
    services.write("production.yaml", "version: 1\nname: production\nplatforms: [tdx]\n")
    services.write("hello.py", COPY)
    done = services.run(
        *("submit", "--engine", "plain", "--policy", "production.yaml", "hello.py"),
        *("--read", "hospital/patients=vault/patients"),
    )
    assert done.status == 1
    assert "simulated" in done.err.splitlines()[-2]


def test_rotation_keeps_older_files_readable(services: Cli) -> None:
    services.ok("key", "create", "hospital/turning")
    services.ok("encrypt", "patients.csv", "vault/turning", "--dataset", "hospital/turning")
    assert services.json("key", "rotate", "hospital/turning")["version"] == 2
    services.ok("decrypt", "vault/turning", "turned.csv")
    services.ok("encrypt", "patients.csv", "vault/turning", "--dataset", "hospital/turning", "--overwrite")
    assert services.json("inspect", "vault/turning")[0]["key_version"] == 2
    assert (services.where / "turned.csv").read_bytes() == (services.where / "patients.csv").read_bytes()


def test_a_flipped_bit_is_refused_and_names_the_file(services: Cli) -> None:
    shutil.copy(services.where / "patients.csv", services.where / "flip.csv")
    services.ok("encrypt", "flip.csv", "vault/flip", "--dataset", "hospital/patients")
    stored = services.where / "vault" / "flip" / "flip.csv"
    content = bytearray(stored.read_bytes())
    content[-20] ^= 1
    stored.write_bytes(content)
    done = services.run("decrypt", "vault/flip", "flipped.csv").refused(1, "file-tampered")
    assert "flip.csv" in done.err
    assert not (services.where / "flipped.csv").exists()


def test_an_interrupted_submit_stops_the_program(services: Cli) -> None:
    services.write("slow.py", "import time\nprint('inside', flush=True)\ntime.sleep(300)\n")
    process = services.start("submit", "--engine", "plain", "slow.py")
    assert process.stdout is not None
    assert process.stdout.readline() == "inside\n"
    process.send_signal(2)
    process.communicate(timeout=30)
    assert process.returncode == 130
    deadline = time.monotonic() + 15
    while any("slow.py" in line for line in processes_of(Path("slow.py"))):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_without_services_everything_is_undecided(cli: Cli) -> None:
    cli.write("a.csv", "x")
    cli.write("job.py", "print(1)")
    cli.run("submit", "--engine", "plain", "job.py").refused(3, "not-running")
    cli.ok("up", "--port", "0")
    cli.ok("key", "create", "o/d")
    cli.ok("down")
    cli.run("encrypt", "a.csv", "vault/a", "--dataset", "o/d").refused(3, "broker-unreachable")
    assert not (cli.where / "vault" / "a").exists()
    cli.run("key", "create", "new/d").refused(3, "broker-unreachable")
    assert not (cli.home / "identities" / "new.pem").exists()
    cli.run("submit", "--engine", "plain", "job.py").refused(3, "not-running")
    cli.run("audit", "verify").refused(3, "broker-unreachable")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    path = tmp_path / "small"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(path)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small file system is not permitted here")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def test_a_full_disk_is_one_line_and_nothing_half_written(services: Cli, small_disk: Path) -> None:
    big = services.where / "big.bin"
    big.write_bytes(os.urandom(1024 * 1024))
    done = services.run("encrypt", str(big), str(small_disk / "vault"), "--dataset", "hospital/patients")
    done.refused(1, "disk-full", "storage-failed")
    assert list(small_disk.iterdir()) == []


def test_patterns_and_streams_go_in_and_out(services: Cli) -> None:
    for number in range(70):
        services.write(f"export-{number:02}.csv", f"{number}\n")
    done = services.json("encrypt", "export-*.csv", "patients.csv", "vault/many", "--dataset", "hospital/patients")
    assert (done["files"], done["generation"], done["kept_files"]) == (71, 1, 0)
    assert services.ok("decrypt", "vault/many/export-07.csv", "-").out == "7\n"
    stream = ("encrypt", "-", "vault/stream", "--dataset", "hospital/patients")
    assert services.run(*stream, "--name", "dump.sql", stdin="SELECT 1;\n").status == 0
    piped = services.ok("decrypt", "vault/stream", "-")
    assert (piped.out, "decrypted 1 file" in piped.err) == ("SELECT 1;\n", True)
    assert services.run(*stream, stdin="x").status == 2
    assert services.run("encrypt", "patients.csv", "--dataset", "hospital/patients").status == 2
    services.run("encrypt", "none-*.csv", "vault/none", "--dataset", "hospital/patients").refused(2, "source-missing")
    assert services.run("encrypt", "/dev/null", "vault/device", "--dataset", "hospital/patients").status == 2
