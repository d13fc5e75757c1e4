"""Column keys in Spark: an unchanged program writes and reads them, PyArrow opens its files, and the reverse."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support.fake_agent import FakeAgent
from tests.support.memory import MemoryKeys
from tests.support.zone_spark import zone_spark

from casemate.data.parquet import ParquetKeys
from casemate.data.reader import EncryptedReader
from casemate.data.writer import EncryptedWriter
from casemate.data.zones import local_uri
from casemate.engines.spark_parquet import FACTORY
from casemate.model import Access, ColumnKeys, DatasetName, Zone

pytestmark = pytest.mark.spark

PATIENTS, DIAGNOSIS, NOTES = (DatasetName("hospital", name) for name in ("patients", "diagnosis", "notes"))
ROWS = 600
FORMS: dict[str, ColumnKeys | None] = {
    f"{kind}, footer {'signed' if signed else 'encrypted'}": columns
    for signed in (False, True)
    for kind, columns in {
        "uniform": None,
        "columns": ColumnKeys.of({str(DIAGNOSIS): ["diagnosis", "history.code"]}, plaintext_footer=signed),
    }.items()
}
FORMS["columns, GCM and CTR"] = ColumnKeys.of({str(DIAGNOSIS): ["diagnosis"]}, algorithm="AES_GCM_CTR_V1")


@dataclass
class Job:
    """A Spark session whose agent has no key of ``hospital/notes``; ``keys`` have all three datasets."""

    base: Path
    agent: FakeAgent
    keys: MemoryKeys
    session: Any

    def rows(self) -> Any:
        return self.session.range(ROWS).selectExpr(
            "concat('CANARY-', id % 7) as diagnosis",
            "cast(id as int) as age",
            "concat('city-', id % 5) as city",
            "named_struct('code', id % 11, 'since', cast(id as string)) as history",
        )

    def put(self, path: Path, data: bytes) -> Path:
        """A file of the zone, as `casemate encrypt` would have written it."""
        path.parent.mkdir(exist_ok=True)
        with path.open("wb") as raw, EncryptedWriter(raw, self.keys, PATIENTS) as out:
            out.write(data)
        return path

    def get(self, path: Path) -> bytes:
        """The Parquet file in an encrypted one."""
        with path.open("rb") as raw:
            return EncryptedReader(raw, path.stat().st_size, self.keys, dataset=PATIENTS).read()


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Job]:
    base = tmp_path_factory.mktemp("parquet")
    for area in ("zone", "notes", "private"):
        (base / area).mkdir()
    keys = MemoryKeys(str(PATIENTS), str(DIAGNOSIS), str(NOTES))
    granted = MemoryKeys()
    granted._keys = {name: own for name, own in keys._keys.items() if name != NOTES}
    columns = ColumnKeys.of({str(DIAGNOSIS): ["diagnosis", "history.code"]})
    zones = [
        Zone(local_uri(base / "zone"), PATIENTS, Access.READ_WRITE, columns),
        Zone(local_uri(base / "notes"), PATIENTS, Access.READ, ColumnKeys.of({str(NOTES): ["note"]})),
    ]
    private = f"file://{base}/private"
    # Manifests are not what is tested here: zones take files that the test puts there.
    with (
        FakeAgent(base / "a.sock", zones, keys=granted, private_prefixes=[private], strict=False) as agent,
        zone_spark(agent, base / "private", FACTORY) as session,
    ):
        yield Job(base, agent, keys, session)
    shutil.rmtree(base, ignore_errors=True)


def parquet_files(path: Path) -> list[Path]:
    found = sorted(path.glob("*.parquet"))
    assert found
    return found


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_spark_and_pyarrow_open_each_others_files(
    job: Job, request: pytest.FixtureRequest, form: ColumnKeys | None
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    signed = "signed" in request.node.name
    where = job.base / "private" / str(abs(hash(request.node.name)))
    options = {"uniform.key": str(PATIENTS)}
    if form is not None:
        listed = ";".join(f"{name}:{','.join(columns)}" for name, columns in form.columns)
        options = {"footer.key": str(PATIENTS), "column.keys": listed, "complete.columns": "true"}
        options["algorithm"] = form.algorithm
    # Double wrapping is not our default, but a program may ask for it.
    options |= {"plaintext.footer": str(signed).lower(), "double.wrapping": str(signed).lower()}
    options = {f"parquet.encryption.{name}": value for name, value in options.items()}
    job.rows().coalesce(1).write.options(**options).parquet(str(where / "spark"))
    (file,) = parquet_files(where / "spark")
    data = file.read_bytes()
    assert data[:4] == data[-4:] == (b"PAR1" if signed else b"PARE")
    assert b"CANARY" not in data
    parquet = ParquetKeys(PATIENTS, form, keys=job.keys)
    read = parquet.read_table(file)
    assert read.num_rows == ROWS
    assert sum(read["age"].to_pylist()) == sum(range(ROWS))
    assert read["history"][12].as_py() == {"code": 1, "since": "12"}
    (where / "arrow").mkdir()
    properties = parquet.encryption_properties(read.schema)
    pq.write_table(pa.table(read), where / "arrow" / "a.parquet", encryption_properties=properties)
    found = job.session.read.parquet(str(where / "arrow"))
    assert sorted(found.collect()) == sorted(job.rows().collect())


def test_an_unchanged_program_writes_a_zones_columns_under_their_own_keys(job: Job) -> None:
    path = job.base / "zone" / "patients"
    job.rows().coalesce(1).write.partitionBy("city").parquet(str(path))
    found = job.session.read.parquet(str(path))
    assert found.count() == ROWS
    assert {row.diagnosis for row in found.select("diagnosis").distinct().collect()} == {
        f"CANARY-{i}" for i in range(7)
    }
    files = sorted(path.glob("city=*/*.parquet"))
    assert len(files) == 5
    others = MemoryKeys()
    others._keys = {name: own for name, own in job.keys._keys.items() if name == PATIENTS}
    for file in files:
        data = job.get(file)
        assert data.startswith(b"PARE")
        assert b"CANARY" not in data
        columns = ParquetKeys(PATIENTS, keys=others).read_table(io.BytesIO(data), ["age"])
        assert columns.num_rows > 0
        with pytest.raises(Exception, match="under hospital/diagnosis"):
            ParquetKeys(PATIENTS, keys=others).read_table(io.BytesIO(data), ["diagnosis"])


def test_settings_of_the_program_do_not_take_a_zones_columns_their_keys(job: Job) -> None:
    path = job.base / "zone" / "stubborn"
    options = {"parquet.encryption.uniform.key": str(PATIENTS), "parquet.encryption.plaintext.footer": "true"}
    job.rows().coalesce(1).write.options(**options).parquet(str(path))
    data = job.get(parquet_files(path)[0])
    assert data.startswith(b"PARE")
    assert str(DIAGNOSIS).encode() not in data  # it is in the footer, which is encrypted
    assert job.session.read.parquet(str(path)).filter("diagnosis = 'CANARY-3'").count() > 0


def test_a_file_without_a_named_column_is_not_written(job: Job) -> None:
    with pytest.raises(Exception, match=r"column-missing.*history\.code"):
        job.rows().drop("history").write.parquet(str(job.base / "zone" / "without"))
    assert not list((job.base / "zone" / "without").glob("*.parquet"))
    assert any(report.startswith("column-missing: ") for report in job.agent.reports)


def notes(job: Job, first: str) -> Path:
    """A file whose column ``note`` is under a key that the job does not get, put into its zone by the owner."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"note": ["secret"] * 50, "age": list(range(50)), "city": ["x"] * 50})
    table = table.select([first, *(name for name in table.column_names if name != first)])
    parquet = ParquetKeys(PATIENTS, ColumnKeys.of({str(NOTES): ["note"]}), keys=job.keys)
    sink = io.BytesIO()
    pq.write_table(table, sink, encryption_properties=parquet.encryption_properties(table.schema))
    return job.put(job.base / "notes" / first / "a.parquet", sink.getvalue()).parent


@pytest.mark.parametrize("first", ["note", "age"])
def test_a_refused_column_is_named_and_the_others_are_read(job: Job, first: str) -> None:
    found = job.session.read.parquet(str(notes(job, first)))
    assert set(found.columns) == {"note", "age", "city"}
    assert found.count() == 50
    assert found.filter("age >= 40").select("city").count() == 10
    assert found.agg({"age": "sum"}).first()[0] == sum(range(50))
    for program in (found, found.filter("note = 'secret'").select("age")):
        with pytest.raises(Exception, match=r"Column \[note\]") as caught:
            program.collect()
        assert "column-denied" in str(caught.value)
        assert "column note of hospital/notes" in str(caught.value)
    assert any("column note of hospital/notes" in report for report in job.agent.reports)


def test_a_plain_parquet_file_is_not_read_where_columns_have_keys(job: Job) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(pa.table({"note": ["forged"], "age": [1]}), sink)
    forged = job.put(job.base / "notes" / "forged" / "a.parquet", sink.getvalue())
    with pytest.raises(Exception, match="plaintext file"):
        job.session.read.parquet(str(forged.parent)).collect()


@pytest.mark.parametrize("damage", ["a byte of a page", "pages of another file", "footer of another file"])
def test_a_changed_file_is_refused(job: Job, damage: str) -> None:
    """Outside every zone, where Parquet's own encryption is all there is."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    parquet = ParquetKeys(PATIENTS, ColumnKeys.of({str(DIAGNOSIS): ["diagnosis"]}), keys=job.keys)
    files = []
    for offset in (0, 1000):
        sink = io.BytesIO()
        numbers = [i + offset for i in range(100)]
        table = pa.table({"age": numbers, "diagnosis": numbers})
        properties = parquet.encryption_properties(table.schema)
        pq.write_table(table, sink, encryption_properties=properties, compression="none", use_dictionary=False)
        files.append(sink.getvalue())
    one, two = files
    assert len(one) == len(two)
    end = len(one) - 8 - int.from_bytes(one[-8:-4], "little")
    changed = {
        "a byte of a page": one[:400] + bytes([one[400] ^ 1]) + one[401:],
        "pages of another file": one[:4] + two[4:end] + one[end:],
        "footer of another file": one[:end] + two[end:],
    }[damage]
    path = job.base / "private" / f"damaged-{damage.replace(' ', '-')}"
    path.mkdir()
    (path / "a.parquet").write_bytes(one)
    assert job.session.read.parquet(str(path)).agg({"diagnosis": "max"}).first()[0] == 99
    (path / "a.parquet").write_bytes(changed)
    with pytest.raises(Exception, match=r"(?i)tag|decrypt|crypto"):
        job.session.read.parquet(str(path)).collect()


def test_a_key_that_another_dataset_wrapped_is_refused(job: Job) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    strangers = MemoryKeys(str(PATIENTS), str(DIAGNOSIS))
    parquet = ParquetKeys(PATIENTS, keys=strangers)
    path = job.base / "private" / "stranger"
    path.mkdir()
    table = pa.table({"age": [1]})
    pq.write_table(table, path / "a.parquet", encryption_properties=parquet.encryption_properties(table.schema))
    with pytest.raises(Exception, match="version 1 of hospital/patients"):
        job.session.read.parquet(str(path)).collect()
