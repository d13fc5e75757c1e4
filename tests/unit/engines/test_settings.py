"""What a workload may set and what only Casemate sets; what is written for Spark to read."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate import engines
from casemate.crypto.secret import Secret
from casemate.engines.errors import (
    EngineSettingsError,
    EngineUnavailableError,
    EngineUnknownError,
    ProtectedSettingError,
)
from casemate.engines.spark_conf import (
    SCHEMES,
    SparkSettings,
    check_command,
    check_environment,
    common,
    filesystems,
    properties,
    workload_conf,
)
from casemate.engines.spark_home import find_spark
from casemate.engines.spark_tls import SparkIdentity, authentication_secret, credentials_file

IDENTITY = SparkIdentity(Path("/p/tls/key.p12"), Path("/p/tls/trust.p12"), Path("/p/tls/credentials"), "pass-word")


@pytest.mark.parametrize("name", engines.NAMES)
def test_every_named_engine_loads(name: str) -> None:
    assert engines.load(name)


@pytest.mark.parametrize("name", ["", "flink", "../spark", "Spark"])
def test_another_engine_is_refused(name: str) -> None:
    with pytest.raises(EngineUnknownError, match="plain, spark"):
        engines.load(name)


# --- settings ---


def test_settings_have_defaults() -> None:
    settings = SparkSettings.parse({})
    assert (settings.master, settings.workers, settings.conf, settings.standalone) == ("local[*]", 1, {}, False)


@pytest.mark.parametrize(
    "value",
    [
        {"x": 1},
        {"conf": []},
        {"conf": {"spark.app.name": 1}},
        {"conf": {"app.name": "x"}},
        {"master": "spark://host:7077"},
        {"master": "yarn"},
        {"master": "local[0]"},
        {"master": 3},
        {"workers": 0},
        {"workers": "2"},
        {"workers": True},
        {"worker_memory": "lots"},
    ],
)
def test_a_setting_of_the_wrong_kind_is_named(value: dict[str, Any]) -> None:
    with pytest.raises(EngineSettingsError):
        SparkSettings.parse(value)


@pytest.mark.parametrize("master", ["local", "local[1]", "local[*]", "local[8,3]", "standalone"])
def test_masters(master: str) -> None:
    assert SparkSettings.parse({"master": master}).master == master


def test_everything_that_protects_is_refused_from_the_workload() -> None:
    for name in {**common(IDENTITY), **filesystems()}:
        with pytest.raises(ProtectedSettingError, match=re.escape(name)):
            SparkSettings.parse({"conf": {name: "x"}})


@pytest.mark.parametrize(
    "name",
    [
        "spark.ssl.enabled",
        "spark.ssl.rpc.trustStore",
        "spark.authenticate.secret.file",
        "spark.hadoop.fs.newscheme.impl",
        "spark.hadoop.fs.file.impl.disable.cache",
        "spark.hadoop.hadoop.security.credential.provider.path",
        "spark.hadoop.fs.s3a.secret.key",
        "spark.hadoop.fs.s3a.bucket.vault.access.key",
        "spark.hadoop.casemate.fs.file.impl",
        "spark.hadoop.parquet.crypto.factory.class",
        "spark.hadoop.parquet.encryption.kms.client.class",
        "spark.driver.extraClassPath",
        "spark.executor.extraClassPath",
        "spark.executor.userClassPathFirst",
        "spark.executorEnv.LD_PRELOAD",
        "spark.plugins",
        "spark.jars.packages",
        "spark.jars.ivySettings",
        "spark.ui.enabled",
        "spark.ui.port",
        "spark.local.dir",
        "spark.pyspark.python",
        "spark.python.unix.domain.socket.dir",
        "spark.submit.deployMode",
        "spark.master",
    ],
)
def test_a_protected_setting_is_refused(name: str) -> None:
    with pytest.raises(ProtectedSettingError, match=re.escape(name)):
        SparkSettings.parse({"conf": {name: "x"}})


@pytest.mark.parametrize(
    "name",
    [
        "spark.sql.shuffle.partitions",
        "spark.executor.memory",
        "spark.driver.memory",
        "spark.executor.cores",
        "spark.ui.showConsoleProgress",
        "spark.hadoop.fs.s3a.endpoint",
        "spark.sql.warehouse.dir",
        "spark.executor.extraJavaOptions",
        "spark.python.worker.memory",
        "spark.serializer",
        "spark.eventLog.enabled",
    ],
)
def test_an_ordinary_setting_is_the_workloads_own(name: str) -> None:
    assert SparkSettings.parse({"conf": {name: "x"}}).conf == {name: "x"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("spark.driver.extraJavaOptions", "-Dspark.ssl.rpc.enabled=false"),
        ("spark.executor.extraJavaOptions", "-javaagent:/tmp/x.jar"),
        ("spark.driver.extraJavaOptions", "-XX:+HeapDumpOnOutOfMemoryError"),
        ("spark.jars", "/tmp/x.jar"),
        ("spark.jars", "{bundle}/a.jar,https://example.org/x.jar"),
        ("spark.files", "{bundle}/../../x"),
        ("spark.submit.pyFiles", "lib.py"),
    ],
)
def test_a_value_that_brings_code_or_loses_data_is_refused(name: str, value: str) -> None:
    with pytest.raises(ProtectedSettingError, match=re.escape(name)):
        SparkSettings.parse({"conf": {name: value}})


def test_the_workloads_own_files_may_be_named() -> None:
    settings = SparkSettings.parse({"conf": {"spark.jars": "{bundle}/a.jar,{bundle}/lib/b.jar"}})
    filled = workload_conf(settings, Path("/p/bundle/job.py"), Path("/p/bundle"))
    assert filled == {"spark.jars": "/p/bundle/a.jar,/p/bundle/lib/b.jar"}


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("/logs/spark", "FILE:///logs/spark"),
        ("file:/logs", "FILE:///logs"),
        ("file:///logs", "FILE:///logs"),
        ("s3a://bucket/logs", "s3a://bucket/logs"),
    ],
)
def test_event_logs_on_local_paths_go_through_the_zones(given: str, written: str) -> None:
    settings = SparkSettings.parse({"conf": {"spark.eventLog.dir": given}})
    assert workload_conf(settings, Path("/p/job.py"), Path("/p")) == {"spark.eventLog.dir": written}
    assert "spark.hadoop.fs.FILE.impl" in filesystems()


# --- the command line ---


@pytest.mark.parametrize(
    "options",
    [
        ["--master", "local"],
        ["--master=local"],
        ["--deploy-mode", "cluster"],
        ["--packages", "a:b:1"],
        ["--properties-file", "/tmp/x"],
        ["--driver-java-options", "-X"],
        ["--driver-class-path", "/tmp/x.jar"],
        ["--conf", "spark.ssl.rpc.enabled=false"],
        ["--conf=spark.ssl.rpc.enabled=false"],
        ["-c", "spark.authenticate=false"],
        ["--py-files", "/tmp/x.zip"],
        ["--jars", "{bundle}/a.jar,/tmp/b.jar"],
        ["--proxy-user", "root"],
    ],
)
def test_a_command_line_that_weakens_is_refused(options: list[str]) -> None:
    with pytest.raises(ProtectedSettingError):
        check_command(("spark-submit", *options, "{program}", "{args}"))


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--conf", "spark.sql.shuffle.partitions=8"],
        ["--driver-memory", "2g", "--name", "x"],
        ["--py-files", "{bundle}/lib.py"],
        ["--class", "a.B", "--jars", "{bundle}/a.jar"],
    ],
)
def test_an_ordinary_command_line_passes(options: list[str]) -> None:
    check_command(("spark-submit", *options, "{program}", "{args}"))


def test_what_follows_the_program_is_the_programs_own() -> None:
    check_command(("spark-submit", "{program}", "--master", "--conf", "spark.ssl.rpc.enabled=false"))


@pytest.mark.parametrize(
    "name", ["SPARK_CONF_DIR", "HADOOP_CONF_DIR", "JAVA_TOOL_OPTIONS", "PYSPARK_PYTHON", "CLASSPATH"]
)
def test_a_variable_that_brings_settings_or_code_is_refused(name: str) -> None:
    with pytest.raises(ProtectedSettingError, match=name):
        check_environment({name: "x"})
    check_environment({"TZ": "UTC", "AWS_REGION": "x", "JAVA_HOME": "/opt/java"})


# --- what is written ---


def test_no_setting_holds_a_secret() -> None:
    text = properties({**common(IDENTITY), **filesystems()})
    assert IDENTITY.password not in text
    assert common(IDENTITY)["spark.authenticate.secret"] != common(IDENTITY)["spark.authenticate.secret"]


def test_the_zone_file_system_stands_in_front_of_every_scheme() -> None:
    settings = filesystems()
    assert settings["spark.hadoop.fs.file.impl"] == "io.casemate.spark.ZoneLocalFileSystem"
    for scheme in SCHEMES:
        assert settings[f"spark.hadoop.fs.{scheme}.impl"] == "io.casemate.spark.ZoneFileSystem"
    for scheme in ("file", *SCHEMES):
        assert settings[f"spark.hadoop.fs.AbstractFileSystem.{scheme}.impl"].endswith("ZoneAbstractFileSystem")


@given(st.dictionaries(st.text(min_size=1, max_size=8), st.text(max_size=8), max_size=4))
def test_properties_survive_javas_reading(settings: dict[str, str]) -> None:
    # Java reads a file as UTF-8 text; what it cannot hold (lone surrogates, NUL) does not come from a manifest.
    assert read_properties(properties(settings)) == settings


def test_the_credentials_file_holds_one_secret_in_hadoops_form() -> None:
    secret = authentication_secret(Secret(b"j" * 32))
    assert re.fullmatch(rb"[0-9a-f]{64}", secret.reveal())
    assert secret != authentication_secret(Secret(b"k" * 32))
    assert b"j" * 32 not in secret.reveal()
    assert credentials_file(Secret(b"value")) == b"HDTS" + b"\0" + b"\0" + b"\1" + b"\x0bsparkCookie" + b"\5value"


def read_properties(text: str) -> dict[str, str]:
    """java.util.Properties.load for what ``properties`` writes: one line each, ``\\`` escapes, first bare ``=``."""
    found = {}
    for line in text.split("\n")[:-1]:
        parts, escaped, fields = [""], False, 0
        for char in line:
            if escaped:
                parts[-1] += {"n": "\n", "r": "\r", "t": "\t", "f": "\f"}.get(char, char)
                escaped = False
            elif char == "\\":
                escaped = True
            elif char == "=" and not fields:
                parts.append("")
                fields = 1
            else:
                parts[-1] += char
        found[parts[0]] = parts[1]
    return found


# --- where Spark is ---


def test_spark_and_java_are_found_without_the_callers_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", "/evil")
    monkeypatch.setenv("SPARK_HOME", "/evil")
    if shutil.which("java", path="/usr/bin:/bin") is None:
        pytest.skip("no Java on the system path")
    home = find_spark({"PATH": "/usr/bin:/bin"})
    assert "evil" not in f"{home.spark} {home.java}"
    assert (home.java / "bin" / "java").exists()
    assert home.class_path(Path("/c")).split(":")[0] == str(home.jar)


def test_missing_java_is_said(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailableError, match="Java 17"):
        find_spark({"PATH": str(tmp_path)})
    with pytest.raises(EngineUnavailableError, match="Java 17"):
        find_spark({"PATH": "/usr/bin", "JAVA_HOME": str(tmp_path)})
