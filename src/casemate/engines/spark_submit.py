"""The driver's JVM as ``spark-submit`` starts it, without the shell script and the JVM that only make its command line.

That is a good quarter of a second of every job. A test compares with what Spark's own launcher answers; a command with
options of ``spark-submit``, or with Java options of the workload's own, is left to the script.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from casemate.engines.spark_home import SparkHome
from casemate.workload.manifest import ARGUMENTS, PROGRAM

__all__ = ["ENVIRONMENT", "is_direct", "submit_argv"]

ENVIRONMENT = {"PYTHONHASHSEED": "0"}  # the script's: executors partition by the hashes of the driver's strings
_COMMAND = ("spark-submit", PROGRAM, ARGUMENTS)
_DECIDED = frozenset(
    {"spark.driver.extraJavaOptions", "spark.driver.defaultJavaOptions", "spark.driver.extraLibraryPath"}
)
_MEMORY = "1g"  # Spark's default
_OPENED = (
    *("java.lang", "java.lang.invoke", "java.lang.reflect", "java.io", "java.net", "java.nio", "java.util"),
    *("java.util.concurrent", "java.util.concurrent.atomic", "jdk.internal.ref", "sun.nio.ch", "sun.nio.cs"),
    *("sun.security.action", "sun.util.calendar"),
)
# org.apache.spark.launcher.JavaModuleOptions of Spark 4.3
_MODULES = (
    "-XX:+IgnoreUnrecognizedVMOptions",
    "--add-modules=jdk.incubator.vector",
    *(f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPENED),
    "--add-opens=java.security.jgss/sun.security.krb5=ALL-UNNAMED",
    "-Dio.netty.tryReflectionSetAccessible=true",
    "-Dio.netty.allocator.type=pooled",
    "-Dio.netty.handler.ssl.defaultEndpointVerificationAlgorithm=NONE",
    "--sun-misc-unsafe-memory-access=allow",
    "--enable-native-access=ALL-UNNAMED",
)


def is_direct(command: Sequence[str], conf: Mapping[str, str]) -> bool:
    """Whether the JVM's command line follows from what Casemate sets: no option, no Java option of the workload's."""
    return tuple(command) == _COMMAND and not _DECIDED & conf.keys()


def submit_argv(
    home: SparkHome,
    configuration: Path,
    program: Path,
    arguments: Sequence[str],
    *,
    options: Sequence[str],
    conf: Mapping[str, str],
) -> tuple[str, ...]:
    """The argv of ``SparkSubmit`` for ``program``; ``options`` are Java's, ``configuration`` is SPARK_CONF_DIR."""
    jars = home.spark / "jars"
    logging = [str(path) for path in sorted(jars.glob("slf4j-api-*.jar"))]
    return (
        str(home.java / "bin" / "java"),
        *("-cp", ":".join([str(home.jar), f"{configuration}/", *logging, f"{jars}/*"])),
        f"-Xmx{conf.get('spark.driver.memory', _MEMORY)}",
        *options,
        *_MODULES,
        "-Dderby.connection.requireAuthentication=false",
        "org.apache.spark.deploy.SparkSubmit",
        str(program),
        *arguments,
    )
