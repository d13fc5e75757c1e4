"""The members of a job's own standalone cluster: master, workers, and the executors that workers start.

A worker starts executors with the ``java`` of its JAVA_HOME. That is a directory of ours in TEE-private memory whose
``java`` hands over to ``casemate run`` in the executor's role: each executor attests for itself, with a key pair and a
certificate of its own, before any JVM sees the driver.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path

from casemate.engines.errors import EngineSettingsError
from casemate.engines.spark_conf import SparkSettings, common, properties, ssl_settings
from casemate.engines.spark_home import SparkHome
from casemate.engines.spark_tls import SECRET_VARIABLES, SparkIdentity
from casemate.errors import FailedError
from casemate.workload.errors import RunEnvironmentError
from casemate.workload.profile import MASTER_VARIABLE, Announcement, Launch, RunContext
from casemate.workload.session import AttestedSession

__all__ = [
    "COMPILE_EARLY",
    "HOST",
    "executor",
    "java_options",
    "logging",
    "master",
    "master_url",
    "spark_environment",
    "worker",
    "write_private",
]

_MASTER_URL = re.compile(r"spark://[A-Za-z0-9.:\[\]-]{1,253}:[0-9]{1,5}")
_EXECUTOR = "org.apache.spark.executor.CoarseGrainedExecutorBackend"
_REPLACED = ("-Dspark.ssl.", "-Dspark.authenticate", "-Dspark.network.crypto.", "-Djava.io.tmpdir=", "-XX:ErrorFile=")
_HANDED_ON = ("CASEMATE_JOB", "CASEMATE_TEE_SOCKET")
# A master or worker handles a few messages: no time is worth spending on compiling or collecting well.
_DAEMON_OPTIONS = ("-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
HOST = "127.0.0.1"


def master(session: AttestedSession, context: RunContext, home: SparkHome, identity: SparkIdentity) -> Launch:
    """The cluster's master, on a port that the system chooses; announces its address."""
    found = re.compile(r"Starting Spark master at (?P<url>spark://\S+)")
    arguments = ("--host", HOST, "--port", "0", "--webui-port", "0")
    return _daemon(
        session,
        context,
        home,
        identity,
        "org.apache.spark.deploy.master.Master",
        arguments,
        Announcement(found, "address"),
    )


def worker(
    session: AttestedSession, context: RunContext, home: SparkHome, identity: SparkIdentity, settings: SparkSettings
) -> Launch:
    """One worker, which starts every executor through ``casemate run``."""
    cores = settings.worker_cores or max(1, (os.cpu_count() or 1) // settings.workers)
    arguments = ["--host", HOST, "--cores", str(cores), "--webui-port", "0"]
    arguments += ["--work-dir", str(session.private_dir / "work")]
    if settings.worker_memory is not None:
        arguments += ["--memory", settings.worker_memory]
    found = re.compile(r"Successfully registered with master")
    launch = _daemon(
        session,
        context,
        home,
        identity,
        "org.apache.spark.deploy.worker.Worker",
        (*arguments, master_url(context)),
        Announcement(found, "registered"),
    )
    shim = _executor_java_home(session, context, home)
    return Launch(
        launch.argv,
        {**launch.environment, "JAVA_HOME": str(shim)},
        launch.working_directory,
        launch.announcements,
        stops_on_signal=True,
    )


def executor(session: AttestedSession, context: RunContext, home: SparkHome, identity: SparkIdentity) -> Launch:
    """The executor that a worker asked for: its own certificate and secret in place of whatever the worker said."""
    argv = list(context.argv)
    if _EXECUTOR not in argv or argv[:1] != ["-cp"] or len(argv) < 3:
        raise EngineSettingsError(f"executor: need '-cp … {_EXECUTOR} …', got {' '.join(argv)[:80]!r}")
    own = {**ssl_settings("rpc", identity), "spark.authenticate": "true", "spark.network.crypto.enabled": "false"}
    options = [f"-D{name}={value}" for name, value in own.items()]
    kept = [argument for argument in argv[2:] if not argument.startswith(_REPLACED)]
    local = session.private_dir / "local"
    local.mkdir(mode=0o700)
    return Launch(
        (
            str(home.java / "bin" / "java"),
            *("-cp", f"{home.jar}:{argv[1]}"),
            *(*java_options(session, home, identity), *options, *kept),
        ),
        {
            **spark_environment(session, context, home, identity),
            "JAVA_HOME": str(home.java),
            "SPARK_EXECUTOR_DIRS": str(local),
        },
        str(Path.cwd()),
        stops_on_signal=True,
    )


def spark_environment(
    session: AttestedSession, context: RunContext, home: SparkHome, identity: SparkIdentity
) -> dict[str, str]:
    """What every Spark process finds in its environment."""
    return {
        **context.base_environment,
        **identity.environment(),
        "SPARK_HOME": str(home.spark),
        "SPARK_CONF_DIR": str(session.private_dir / "conf"),
        "SPARK_SCALA_VERSION": "2.13",
        "SPARK_LOCAL_IP": HOST,
        "SPARK_LOCAL_DIRS": str(session.private_dir / "local"),
        "SPARK_LOG_DIR": str(session.private_dir / "log"),
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_DRIVER_PYTHON": sys.executable,
        "PYTHONPATH": str(session.bundle_dir),
    }


COMPILE_EARLY = (
    "-XX:CompileCommand=quiet",
    "-XX:CompileCommand=CompileThresholdScaling,com.sun.crypto.provider.*::*,0.001",
)
"""Java options that have AES-GCM compiled at its first use: see ``WarmUp`` in the Java part."""


def java_options(
    session: AttestedSession, home: SparkHome, identity: SparkIdentity, *, gateway: bool = False
) -> tuple[str, ...]:
    """Our agent, which follows renewed certificates and in a driver puts TLS under the Python gateway.

    Temporary files, crash reports and performance data stay in private memory, or are not made."""
    return (
        f"-javaagent:{home.jar}={'gateway:' if gateway else ''}{identity.directory}",
        f"-Djava.io.tmpdir={session.temporary_dir}",
        f"-XX:ErrorFile={session.private_dir / 'hs_err.log'}",
        "-XX:-UsePerfData",
        "-XX:-CreateCoredumpOnCrash",
        *COMPILE_EARLY,
    )


def logging(level: str = "warn", informative: tuple[str, ...] = ()) -> str:
    """The text of ``log4j2.properties``: warnings to stderr, and the few classes whose progress is waited for."""
    lines = [
        f"rootLogger.level = {level}",
        "rootLogger.appenderRef.stderr.ref = console",
        "appender.console.type = Console",
        "appender.console.name = console",
        "appender.console.target = SYSTEM_ERR",
        "appender.console.layout.type = PatternLayout",
        "appender.console.layout.pattern = %d{HH:mm:ss} %p %c{1}: %m%n%ex",
    ]
    for index, name in enumerate(informative):
        lines += [f"logger.i{index}.name = {name}", f"logger.i{index}.level = info"]
    # Said by every Spark on a machine without Hadoop's native library; nothing follows from it.
    lines += ["logger.native.name = org.apache.hadoop.util.NativeCodeLoader", "logger.native.level = error"]
    return "\n".join(lines) + "\n"


def master_url(context: RunContext) -> str:
    """The master's address as the launcher gave it; raises ``RunEnvironmentError``."""
    url = context.options.get(MASTER_VARIABLE, "")
    if not _MASTER_URL.fullmatch(url):
        raise RunEnvironmentError(f"{MASTER_VARIABLE}: need spark://host:port, got {url!r}")
    return url


def _daemon(
    session: AttestedSession,
    context: RunContext,
    home: SparkHome,
    identity: SparkIdentity,
    main_class: str,
    arguments: tuple[str, ...],
    announcement: Announcement,
) -> Launch:
    configuration = session.private_dir / "conf"
    defaults = configuration / "spark-defaults.conf"
    settings = common(identity) | ssl_settings("standalone", identity, identity.password)
    write_private(defaults, properties(settings))
    write_private(configuration / "log4j2.properties", logging(informative=(main_class,)))
    return Launch(
        (
            str(home.java / "bin" / "java"),
            *("-cp", home.class_path(configuration), *_DAEMON_OPTIONS, *java_options(session, home, identity)),
            *(main_class, "--properties-file", str(defaults), *arguments),
        ),
        {**spark_environment(session, context, home, identity), "JAVA_HOME": str(home.java)},
        str(session.private_dir),
        (announcement,),
        stops_on_signal=True,
    )


def _executor_java_home(session: AttestedSession, context: RunContext, home: SparkHome) -> Path:
    """A JAVA_HOME whose ``java`` is ``casemate run``. What the worker would hand on as secrets is dropped first."""
    manifest = session.private_dir / "manifest.json"
    write_private(manifest, session.manifest.canonical().decode())
    executors = Path(context.options.get("CASEMATE_TEE_DIR") or session.private_dir / "x")
    executors.mkdir(mode=0o700, exist_ok=True)
    told = {name: context.options[name] for name in _HANDED_ON if name in context.options} | {
        "CASEMATE_ROLE": "executor",
        "CASEMATE_MANIFEST": str(manifest),
        "CASEMATE_BUNDLE": str(session.bundle_dir),
        "CASEMATE_TEE_DIR": str(executors),
    }
    script = "\n".join(
        (
            "#!/bin/sh",
            f"unset {' '.join(SECRET_VARIABLES)} HADOOP_TOKEN_FILE_LOCATION CASEMATE_AGENT_SOCKET JAVA_HOME",
            *(f"export {name}={shlex.quote(value)}" for name, value in told.items()),
            f'exec {shlex.quote(sys.executable)} -I -m casemate run -- "$@"',
            "",
        )
    )
    shim = session.private_dir / "java"
    write_private(shim / "bin" / "java", script, mode=0o700)
    return shim


def write_private(path: Path, text: str, *, mode: int = 0o600) -> None:
    """Write a file of this process's own; raises ``FailedError``."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as exc:
        raise FailedError(f"{path}: {exc.strerror or exc}") from exc
