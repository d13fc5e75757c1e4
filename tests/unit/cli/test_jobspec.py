"""Options to a workload manifest: nothing is guessed, and everything that matters is in the digest."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from casemate.cli.errors import FileMissingError, NotRunningError
from casemate.cli.jobspec import Engine, Job, Launcher, describe, manifest_of, parse_pairs, zones_of
from casemate.errors import UsageError
from casemate.model import Access, ColumnKeys
from casemate.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = Settings.at(tmp_path / "home")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now)
    settings.broker_ca.parent.mkdir(parents=True)
    settings.broker_ca.write_bytes(builder.sign(key, SHA256()).public_bytes(Encoding.PEM))
    return settings


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (tmp_path / "in").mkdir()
    program = tmp_path / "job.py"
    program.write_text("print(1)\n")
    return Job(program, ("a", "b"), read=(f"o/in={tmp_path}/in",), write=(f"o/out={tmp_path}/out",))


def test_zones_are_absolute_and_have_their_access(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    read, write = zones_of([f"o/in={tmp_path}/in"], [f"o/out={tmp_path}/out"])
    assert (read.zone.prefix, read.zone.access) == (f"file://{tmp_path}/in", Access.READ)
    assert (write.zone.prefix, write.zone.access) == (f"file://{tmp_path}/out", Access.WRITE)


def test_one_path_for_both_is_one_read_write_zone(tmp_path: Path) -> None:
    (zone,) = zones_of([f"o/d={tmp_path}"], [f"o/d={tmp_path}"])
    assert zone.zone.access is Access.READ_WRITE


@pytest.mark.parametrize("item", ["o/in", "o/in=", "=path", "in=path", "O/in=path"])
def test_a_zone_of_another_form_is_refused(item: str) -> None:
    with pytest.raises(UsageError):
        zones_of([], [item])


def test_a_read_zone_has_to_exist(tmp_path: Path) -> None:
    with pytest.raises(FileMissingError, match="does not exist"):
        zones_of([f"o/in={tmp_path}/nowhere"], [])


def test_columns_belong_to_the_zone_at_their_path(tmp_path: Path) -> None:
    place = f"{tmp_path}:a,b.c"
    (entry,) = zones_of([f"o/d={tmp_path}"], [], [f"o/x={place}", f"o/y={tmp_path}:e"])
    assert entry.zone.parquet == ColumnKeys.of({"o/x": ["a", "b.c"], "o/y": ["e"]})
    for item in ("o/x", f"o/x={tmp_path}", f"o/x={tmp_path}:", f"o/x={tmp_path}/other:a", f"x={place}"):
        with pytest.raises(UsageError):
            zones_of([f"o/d={tmp_path}"], [], [item])


@pytest.mark.parametrize("items", [["a"], ["=b"], ["a=1", "a=2"]])
def test_settings_are_pairs_and_given_once(items: list[str]) -> None:
    with pytest.raises(UsageError):
        parse_pairs(items, "--conf", "a=b")


def test_a_value_may_hold_an_equals_sign() -> None:
    assert parse_pairs(["a=b=c"], "--conf", "a=b") == {"a": "b=c"}


def test_everything_that_matters_changes_the_digest(job: Job, settings: Settings, tmp_path: Path) -> None:
    extra = tmp_path / "lib.py"
    extra.write_text("")
    digests = {
        manifest_of(variant, settings)[0].digest()
        for variant in (
            job,
            dataclasses.replace(job, arguments=("a", "c")),
            dataclasses.replace(job, write=()),
            dataclasses.replace(job, conf=("spark.x=1",)),
            dataclasses.replace(job, environment=("TZ=UTC",)),
            dataclasses.replace(job, files=(extra,)),
            dataclasses.replace(job, launcher=Launcher.PYTHON),
            dataclasses.replace(job, master="standalone"),
            dataclasses.replace(job, engine=Engine.PLAIN),
        )
    }
    assert len(digests) == 9
    job.program.write_text("print(2)\n")
    assert manifest_of(job, settings)[0].digest() not in digests


def test_the_same_job_has_the_same_digest(job: Job, settings: Settings) -> None:
    assert manifest_of(job, settings)[0].digest() == manifest_of(job, settings)[0].digest()


def test_files_of_one_name_are_refused(job: Job, settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "job.py").write_text("")
    with pytest.raises(UsageError, match=r"job\.py"):
        manifest_of(dataclasses.replace(job, files=(tmp_path / "sub" / "job.py",)), settings)


def test_spark_settings_for_a_plain_program_are_refused(job: Job, settings: Settings) -> None:
    with pytest.raises(UsageError, match="--conf"):
        manifest_of(dataclasses.replace(job, engine=Engine.PLAIN, conf=("a=b",)), settings)


def test_without_a_broker_there_is_no_manifest(job: Job, tmp_path: Path) -> None:
    with pytest.raises(NotRunningError):
        manifest_of(job, Settings.at(tmp_path / "other"))


def test_what_a_person_agrees_to_names_every_part(job: Job, settings: Settings) -> None:
    manifest, _ = manifest_of(dataclasses.replace(job, environment=("TZ=UTC",), conf=("spark.x=1",)), settings)
    text = describe(manifest)
    for part in (manifest.digest(), "job.py", "'a'", "TZ='UTC'", "spark.x = 1", "o/in", "o/out", "https://127.0.0.1"):
        assert part in text
