"""Spark, unchanged: settings for every process of a job, in files that Spark reads by itself.

``SPARK_CONF_DIR`` reaches ``spark-submit`` and a plain ``python app.py`` alike, so neither the program nor its command
line changes. Masters: ``local[N]`` in one TEE, or a standalone cluster that lives as long as the job.
"""

from __future__ import annotations

from pathlib import Path

from casemate.engines.command import expand
from casemate.engines.errors import EngineSettingsError
from casemate.engines.spark_cluster import (
    HOST,
    executor,
    java_options,
    logging,
    master,
    master_url,
    spark_environment,
    worker,
    write_private,
)
from casemate.engines.spark_conf import (
    SparkSettings,
    check_command,
    check_environment,
    common,
    filesystems,
    properties,
    workload_conf,
)
from casemate.engines.spark_home import SparkHome, find_spark
from casemate.engines.spark_parquet import FACTORY
from casemate.engines.spark_submit import ENVIRONMENT, is_direct, submit_argv
from casemate.engines.spark_tls import SparkIdentity, write_identity
from casemate.model import Role
from casemate.workload.manifest import WorkloadManifest
from casemate.workload.profile import Launch, RunContext
from casemate.workload.session import AttestedSession

__all__ = ["SparkProfile"]

_DRIVER_OPTIONS, _EXECUTOR_OPTIONS = "spark.driver.extraJavaOptions", "spark.executor.extraJavaOptions"
_PROGRAMS = frozenset({"spark-submit"})
_PROGRAMS_CHOICE = frozenset({"spark.master", "spark.submit.deployMode"})  # a program may say `.master("local[2]")`
_GATEWAY = Path(__file__).parent / "gateway"  # holds Python's end of the gateway's TLS


class SparkProfile:
    """The profile of one process; keeps that process's identity for renewals."""

    def __init__(self) -> None:
        self._identity: SparkIdentity | None = None

    def check(self, manifest: WorkloadManifest, role: Role) -> None:
        """Raise ``ProtectedSettingError`` or ``EngineSettingsError``."""
        settings = SparkSettings.parse(manifest.engine_settings)
        check_command(manifest.command)
        check_environment(manifest.environment)
        if role is Role.TASK or not (settings.standalone or role is Role.DRIVER):
            raise EngineSettingsError(f"engine spark: master {settings.master} has no role {role}")

    def certificate_names(self, manifest: WorkloadManifest, role: Role) -> tuple[str, ...]:
        return ()

    def prepare(self, session: AttestedSession, context: RunContext) -> Launch:
        """Write this process's stores, secrets and settings; say how Spark starts it."""
        home = find_spark(context.base_environment)
        self._identity = identity = write_identity(session)
        settings = SparkSettings.parse(session.manifest.engine_settings)
        if session.role is Role.MASTER:
            return master(session, context, home, identity)
        if session.role is Role.WORKER:
            return worker(session, context, home, identity, settings)
        if session.role is Role.EXECUTOR:
            return executor(session, context, home, identity)
        return _driver(session, context, home, identity, settings)

    def renewed(self, session: AttestedSession) -> None:
        """Put the new certificate into the stores that are in use, under the password they have."""
        if self._identity is not None:
            write_identity(session, self._identity.password)


def _driver(
    session: AttestedSession, context: RunContext, home: SparkHome, identity: SparkIdentity, settings: SparkSettings
) -> Launch:
    private = session.private_dir
    own = workload_conf(settings, session.program, session.bundle_dir)
    protected = {
        **common(identity),
        **filesystems(),
        **FACTORY,
        "spark.master": master_url(context) if settings.standalone else settings.master,
        "spark.submit.deployMode": "client",
        "spark.driver.host": HOST,
        "spark.driver.bindAddress": HOST,
        "spark.driver.extraClassPath": str(home.jar),
        "spark.executor.extraClassPath": str(home.jar),
        "spark.python.unix.domain.socket.enabled": "true",
        "spark.plugins": "io.casemate.spark.SettingsGuard",
    }
    configuration = private / "conf"
    guarded = configuration / "protected.properties"
    write_private(guarded, properties({name: protected[name] for name in protected if name not in _PROGRAMS_CHOICE}))
    options = (
        f"-Dcasemate.protected-settings={guarded}",
        *java_options(session, home, identity, gateway=True),
    )
    protected[_DRIVER_OPTIONS] = " ".join(filter(None, (own.get(_DRIVER_OPTIONS), *options)))
    defaults = {"spark.sql.warehouse.dir": f"file://{private}/warehouse", "spark.app.name": session.manifest.name}
    write_private(configuration / "spark-defaults.conf", properties({**defaults, **own, **protected}))
    write_private(configuration / "log4j2.properties", logging())
    environment = {
        **spark_environment(session, context, home, identity),
        "JAVA_HOME": str(home.java),
        "PYTHONPATH": f"{_GATEWAY}:{session.bundle_dir}",
        "CASEMATE_GATEWAY_TLS": str(identity.directory),
    }

    def find(name: str) -> Path | None:
        return home.spark / "bin" / name if name in _PROGRAMS else None

    argv = expand(session, environment, find)
    if is_direct(session.manifest.command, own):
        arguments = session.manifest.arguments
        environment |= ENVIRONMENT
        argv = submit_argv(home, configuration, session.program, arguments, options=options, conf=own)
    return Launch(argv, environment, session.manifest.working_directory)
