"""A driver's JVM gets the command line that Spark's own launcher would make; what could change it goes the long way."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from casemate.engines.spark_conf import properties
from casemate.engines.spark_home import SparkHome, find_spark
from casemate.engines.spark_submit import is_direct, submit_argv

COMMAND = ("spark-submit", "{program}", "{args}")
OPTIONS = ("-javaagent:/j.jar=gateway:/tls", "-XX:-UsePerfData", "-XX:CompileCommand=quiet")


@pytest.fixture(scope="module")
def home() -> SparkHome:
    if shutil.which("java", path="/usr/bin:/bin") is None:
        pytest.skip("no Java on the system path")
    return find_spark({"PATH": "/usr/bin:/bin"})


@pytest.mark.parametrize("conf", [{}, {"spark.driver.memory": "900m", "spark.sql.shuffle.partitions": "7"}])
def test_the_command_line_is_the_one_that_sparks_launcher_makes(
    home: SparkHome, conf: dict[str, str], tmp_path: Path
) -> None:
    ours = {"spark.driver.extraClassPath": str(home.jar), "spark.driver.extraJavaOptions": " ".join(OPTIONS)}
    (tmp_path / "spark-defaults.conf").write_text(properties({**conf, **ours}))
    arguments = ("in put", "--conf", "spark.x=1")
    asked = subprocess.run(
        [
            *(home.java / "bin" / "java", "-cp", f"{home.spark}/jars/*", "org.apache.spark.launcher.Main"),
            *("org.apache.spark.deploy.SparkSubmit", "/bundle/job.py", *arguments),
        ],
        env={
            "JAVA_HOME": str(home.java),
            "SPARK_HOME": str(home.spark),
            "SPARK_CONF_DIR": str(tmp_path),
            "SPARK_SCALA_VERSION": "2.13",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    expected = asked.stdout.strip("\n\0").split("\0")
    got = submit_argv(home, tmp_path, Path("/bundle/job.py"), arguments, options=OPTIONS, conf=conf)
    assert [*got] == [part for part in expected if part.strip()]


@pytest.mark.parametrize(
    ("command", "conf"),
    [
        (("spark-submit", "--driver-memory", "2g", "{program}", "{args}"), {}),
        (("python", "{program}", "{args}"), {}),
        (COMMAND, {"spark.driver.extraJavaOptions": "-Xss4m"}),
    ],
)
def test_options_that_spark_would_read_go_through_its_script(command: tuple[str, ...], conf: dict[str, str]) -> None:
    assert is_direct(COMMAND, {"spark.driver.memory": "2g"})
    assert not is_direct(command, conf)
