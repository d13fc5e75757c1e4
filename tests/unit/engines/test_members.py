"""How each role's process is started: its own stores, its own secrets, nothing of them where others look."""

from __future__ import annotations

import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs12
from tests.support.kbs_double import Authority, public_key
from tests.support.sessions import JOB_SECRET, unattested_session

from casemate.engines.errors import EngineSettingsError
from casemate.engines.spark import SparkProfile
from casemate.engines.spark_home import SparkHome
from casemate.engines.spark_tls import SECRET_VARIABLES, write_identity
from casemate.model import Role
from casemate.workload.errors import RunEnvironmentError
from casemate.workload.kbs import JobCertificate
from casemate.workload.manifest import WorkloadManifest
from casemate.workload.profile import MASTER_VARIABLE, Launch, RunContext
from casemate.workload.session import AttestedSession

EXECUTOR = "org.apache.spark.executor.CoarseGrainedExecutorBackend"


@pytest.fixture
def authority() -> Authority:
    return Authority("job")


@pytest.fixture
def session(tmp_path: Path, authority: Authority) -> Iterator[AttestedSession]:
    session = unattested_session(tmp_path, authority)
    yield session
    session.close()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SparkHome:
    found = SparkHome(tmp_path / "spark", tmp_path / "jdk", tmp_path / "casemate.jar")
    monkeypatch.setattr("casemate.engines.spark.find_spark", lambda _: found)
    return found


def prepared(session: AttestedSession, role: Role, *argv: str, **options: str) -> Launch:
    session.role = role
    given = {MASTER_VARIABLE: "spark://127.0.0.1:7077", "CASEMATE_JOB": "job-1", **options}
    context = RunContext(argv, given, {"PATH": "/usr/bin", "TMPDIR": "t"}, session.bundle_dir)
    return SparkProfile().prepare(session, context)


def every_text(session: AttestedSession) -> str:
    """All files of the private directory but the ones that hold this process's own identity."""
    files = [p for p in session.private_dir.rglob("*") if p.is_file() and p.parent.name != "tls"]
    return "".join(p.read_text() for p in files)


def test_the_stores_hold_the_attested_key_and_trust_the_jobs_authority_alone(
    session: AttestedSession, authority: Authority
) -> None:
    identity = write_identity(session)
    key, certificate, chain = pkcs12.load_key_and_certificates(
        identity.key_store.read_bytes(), identity.password.encode()
    )
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.public_key() == public_key(session.key_pair.public)
    assert certificate is not None
    certificate.verify_directly_issued_by(authority.certificate)
    assert chain == [authority.certificate]
    _, _, trusted = pkcs12.load_key_and_certificates(identity.trust_store.read_bytes(), identity.password.encode())
    assert trusted == [authority.certificate]
    for path in identity.key_store.parent.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(ValueError, match="password"):
        pkcs12.load_key_and_certificates(identity.key_store.read_bytes(), b"wrong")


def test_a_renewed_certificate_takes_the_old_ones_place_under_the_same_password(
    session: AttestedSession, authority: Authority
) -> None:
    first = write_identity(session)
    before = first.key_store.read_bytes()
    session.certificate = JobCertificate(authority.issue("worker", public_key(session.key_pair.public)), authority.pem)
    assert write_identity(session, first.password) == first
    assert first.key_store.read_bytes() != before
    pkcs12.load_key_and_certificates(first.key_store.read_bytes(), first.password.encode())


@pytest.mark.parametrize("role", [Role.MASTER, Role.WORKER, Role.DRIVER])
def test_no_argument_and_no_setting_of_any_role_holds_a_secret(
    session: AttestedSession, home: SparkHome, role: Role
) -> None:
    launch = prepared(session, role)
    password = launch.environment["_SPARK_SSL_RPC_KEY_PASSWORD"]
    shown = " ".join(launch.argv)
    assert password not in shown
    for form in (JOB_SECRET.reveal().decode(), JOB_SECRET.reveal().hex()):
        assert form not in shown + every_text(session) + repr(launch.environment)
    assert "_SPARK_AUTH_SECRET" not in launch.environment
    if role is Role.DRIVER:  # a driver's settings travel to the executors
        assert password not in every_text(session)


def test_a_workers_java_home_hands_over_to_casemate_run_without_any_secret(
    session: AttestedSession, home: SparkHome, tmp_path: Path
) -> None:
    launch = prepared(session, Role.WORKER)
    shim = Path(launch.environment["JAVA_HOME"]) / "bin" / "java"
    script = shim.read_text().replace(f"exec {sys.executable} -I -m casemate run", f"exec {sys.executable} -c '{SHOW}'")
    assert script != shim.read_text()
    shim.write_text(script)
    worker = {**dict.fromkeys(SECRET_VARIABLES, "SECRET"), "HADOOP_TOKEN_FILE_LOCATION": "x", "KEPT": "1"}
    done = subprocess.run(
        [shim, "-cp", "a b", EXECUTOR, "$(id)"], env=worker, capture_output=True, text=True, check=True
    )
    assert "SECRET" not in done.stdout
    assert "HADOOP_TOKEN" not in done.stdout
    assert "['-c', '--', '-cp', 'a b', '" + EXECUTOR + "', '$(id)']" in done.stdout
    for told in ("'CASEMATE_ROLE': 'executor'", "'CASEMATE_JOB': 'job-1'", "'KEPT': '1'"):
        assert told in done.stdout
    assert "CASEMATE_TEE_DIR" in done.stdout


SHOW = "import os, sys; print(sys.argv, dict(os.environ))"


def test_a_worker_is_told_its_share(session: AttestedSession, home: SparkHome) -> None:
    argv = prepared(session, Role.WORKER).argv
    assert argv[argv.index("--cores") + 1] == "3"
    assert argv[argv.index("--memory") + 1] == "2g"
    assert argv[-1] == "spark://127.0.0.1:7077"
    assert argv[argv.index("--work-dir") + 1].startswith(str(session.private_dir))


def test_an_executor_takes_nothing_of_its_identity_from_the_worker(session: AttestedSession, home: SparkHome) -> None:
    given = (
        *("-cp", "/worker/conf:/spark/jars/*", "-Xmx1024M"),
        *("-Dspark.ssl.rpc.keyStore=/driver/key.p12", "-Dspark.ssl.rpc.enabled=false", "-Dspark.authenticate=false"),
        *("-Dspark.ssl.rpc.needClientAuth=false", "-Dspark.network.crypto.enabled=true", "-Djava.io.tmpdir=/tmp"),
        *("-Dspark.driver.port=1234", EXECUTOR, "--driver-url", "spark://x@localhost:1234"),
    )
    launch = prepared(session, Role.EXECUTOR, *given)
    text = " ".join(launch.argv)
    assert launch.argv[:3] == (str(home.java / "bin" / "java"), "-cp", f"{home.jar}:/worker/conf:/spark/jars/*")
    replaced = ("/driver/", "ssl.rpc.enabled=false", "authenticate=false", "Auth=false", "tmpdir=/tmp ")
    for gone in (*replaced, "crypto.enabled=true"):
        assert gone not in text
    for kept in ("-Xmx1024M", "-Dspark.driver.port=1234", "--driver-url spark://x@localhost:1234"):
        assert kept in text
    assert f"-Dspark.ssl.rpc.keyStore={session.private_dir}/tls/key.p12" in text
    assert launch.argv.index(EXECUTOR) > launch.argv.index("-Dspark.ssl.rpc.enabled=true")
    assert launch.environment["SPARK_EXECUTOR_DIRS"].startswith(str(session.private_dir))


@pytest.mark.parametrize(
    "argv",
    [
        (),
        ("-version",),
        ("-cp", "x", "org.apache.spark.deploy.worker.DriverWrapper"),
        ("-Xmx1g", "-cp", "x", EXECUTOR),
        ("-cp", EXECUTOR),
    ],
)
def test_nothing_but_an_executor_is_started_as_one(
    session: AttestedSession, home: SparkHome, argv: tuple[str, ...]
) -> None:
    with pytest.raises(EngineSettingsError, match="executor"):
        prepared(session, Role.EXECUTOR, *argv)


@pytest.mark.parametrize("url", ["", "http://x:1", "spark://x", "spark://x:1 --host evil", "spark://x:1,y:2"])
def test_a_master_address_of_another_form_is_refused(session: AttestedSession, home: SparkHome, url: str) -> None:
    with pytest.raises(RunEnvironmentError, match=MASTER_VARIABLE):
        prepared(session, Role.WORKER, **{MASTER_VARIABLE: url})


def test_web_pages_of_master_and_worker_ask_for_a_certificate(session: AttestedSession, home: SparkHome) -> None:
    prepared(session, Role.MASTER)
    text = every_text(session)
    for setting in ("spark.ssl.standalone.enabled=true", "spark.ssl.standalone.needClientAuth=true"):
        assert setting in text


@pytest.mark.parametrize("role", [Role.MASTER, Role.WORKER, Role.EXECUTOR, Role.TASK])
def test_a_local_job_has_a_driver_alone(session: AttestedSession, role: Role) -> None:
    local = WorkloadManifest.from_json({**session.manifest.to_json(), "engine_settings": {"master": "local[2]"}})
    with pytest.raises(EngineSettingsError, match=f"no role {role}"):
        SparkProfile().check(local, role)
    SparkProfile().check(local, Role.DRIVER)
