"""Spark settings: the ones that protect, the ones a workload may choose, and the file they go into. Pure functions.

What protects is set for every process and refused from the workload, also where it would only repeat us: a setting
that the workload does not hold cannot be got wrong by it.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from casemate.engines.command import filled
from casemate.engines.errors import EngineSettingsError, ProtectedSettingError
from casemate.engines.spark_tls import SparkIdentity
from casemate.workload.manifest import PROGRAM

__all__ = [
    "SCHEMES",
    "SparkSettings",
    "check_command",
    "check_environment",
    "common",
    "filesystems",
    "properties",
    "ssl_settings",
    "workload_conf",
]

# Every scheme that Spark's own jars or its usual add-ons open. The zone file system stands in front of all of them, so
# that what it cannot protect fails instead of passing by.
SCHEMES = (
    *("pfile", "hdfs", "webhdfs", "swebhdfs", "viewfs", "har", "s3", "s3n", "s3a", "gs", "abfs", "abfss", "wasb"),
    *("wasbs", "adl", "oss", "cosn", "obs", "o3fs", "ofs", "ftp", "sftp", "http", "https"),
)
_ZONES = "io.casemate.spark.ZoneFileSystem"
_ZONES_LOCAL = "io.casemate.spark.ZoneLocalFileSystem"  # Hadoop and Spark cast what serves file: to LocalFileSystem
_ZONES_ABSTRACT = "io.casemate.spark.ZoneAbstractFileSystem"

_PROTECTED = re.compile(
    r"spark\.(ssl|authenticate|network\.crypto|network\.sasl|io\.encryption|redaction|executorEnv|yarn|kubernetes"
    r"|history|ui|acls|admin|python\.unix\.domain\.socket|shuffle\.service|storage\.decommission\.fallbackStorage"
    r"|jars\.(packages|repositories|excludes|ivy\w*|ivySettings))(\..*)?"
    r"|spark\.hadoop\.(fs\.([A-Za-z0-9]+|AbstractFileSystem\.[A-Za-z0-9]+)\.impl(\..*)?|hadoop\.security\..*|casemate\..*"
    r"|mapreduce\.outputcommitter\.factory\.scheme\..*|fs\.s3a\.(.*\.)?(access\.key|secret\.key|session\.token)"
    r"|parquet\.(crypto\.factory\.class|encryption\.kms\..*))"
    r"|spark\.(driver|executor)\.(extraClassPath|userClassPathFirst|extraLibraryPath|defaultJavaOptions)"
    r"|spark\.(master|submit\.deployMode|local\.dir|driver\.host|driver\.bindAddress|driver\.supervise|plugins"
    r"|pyspark\.(driver\.)?python|master\.rest\..*|worker\.ui\..*|master\.ui\..*|authenticate|extraListeners"
    r"|sql\.extensions|sql\.sources\.commitProtocolClass"
    r"|sql\.queryExecutionListeners|security\.credentials\..*|deploy\..*|r\..*|plugins\..*)"
)
_ALLOWED = frozenset({"spark.ui.showConsoleProgress", "spark.ui.retainedTasks", "spark.ui.retainedStages"})
_EVENT_LOG = "spark.eventLog.dir"
_CODE_PATHS = frozenset({"spark.jars", "spark.files", "spark.archives", "spark.submit.pyFiles"})
_JAVA_OPTIONS = frozenset({"spark.driver.extraJavaOptions", "spark.executor.extraJavaOptions"})
_MEMORY = re.compile(r"[1-9][0-9]{0,6}[kmgt]", re.IGNORECASE)
_LOCAL = re.compile(r"local(\[(\*|[1-9][0-9]{0,3})(,[1-9][0-9]?)?\])?")
# Options of spark-submit that set, replace or fetch what the manifest and Casemate decide.
_REFUSED_OPTIONS = frozenset(
    (
        *("--master", "--deploy-mode", "--remote", "--properties-file", "--load-spark-defaults"),
        *("--packages", "--exclude-packages", "--repositories", "--archives"),
        *("--driver-class-path", "--driver-java-options", "--driver-library-path"),
        *("--proxy-user", "--keytab", "--principal", "--supervise", "--kill", "--status"),
    )
)
_REFUSED_VARIABLES = frozenset(["JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "CLASSPATH"])


@dataclass(frozen=True)
class SparkSettings:
    """The manifest's ``engine_settings``, checked."""

    conf: Mapping[str, str]
    master: str  # standalone, local, local[N], local[*]
    workers: int
    worker_cores: int | None
    worker_memory: str | None

    @property
    def standalone(self) -> bool:
        return self.master == "standalone"

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> SparkSettings:
        """Raises ``EngineSettingsError``, or ``ProtectedSettingError`` for a setting that only Casemate makes."""
        known = {"conf", "master", "workers", "worker_cores", "worker_memory"}
        if unknown := set(value) - known:
            raise EngineSettingsError(
                f"engine spark: unknown setting {min(unknown)!r}, know {', '.join(sorted(known))}"
            )
        conf = value.get("conf", {})
        if not isinstance(conf, dict) or not all(isinstance(item, str) for item in conf.values()):
            raise EngineSettingsError("engine spark: conf: need an object of texts")
        for name, content in conf.items():
            _check_conf(name, content)
        master = value.get("master", "local[*]")
        if master != "standalone" and not (isinstance(master, str) and _LOCAL.fullmatch(master)):
            raise EngineSettingsError(f"engine spark: master: need standalone, local[N] or local[*], got {master!r}")
        memory = value.get("worker_memory")
        if memory is not None and not (isinstance(memory, str) and _MEMORY.fullmatch(memory)):
            raise EngineSettingsError(f"engine spark: worker_memory: need a size such as 2g, got {memory!r}")
        return cls(
            conf=conf,
            master=master,
            workers=_count(value, "workers") or 1,
            worker_cores=_count(value, "worker_cores"),
            worker_memory=memory,
        )


def check_command(command: tuple[str, ...]) -> None:
    """Raise ``ProtectedSettingError`` when a ``spark-submit`` command line would change how data is protected."""
    options = iter(command)
    for option in options:
        if PROGRAM in option:
            return  # what follows is the program's own
        name, _, attached = option.partition("=")
        if name in _REFUSED_OPTIONS:
            raise ProtectedSettingError(f"command: {name}: {_WHY}")
        if name in ("--conf", "-c", "--jars", "--files", "--py-files"):
            content = attached or next(options, "")
            if name in ("--conf", "-c"):
                key, _, content = content.partition("=")
                _check_conf(key, content)
            else:
                _check_code_path(name, content)


def check_environment(environment: Mapping[str, str]) -> None:
    """Raise ``ProtectedSettingError`` for a variable that would put other code or settings into a JVM."""
    for name in environment:
        if name.startswith(("SPARK_", "PYSPARK_", "HADOOP_", "YARN_")) or name in _REFUSED_VARIABLES:
            raise ProtectedSettingError(f"environment: {name}: {_WHY}")


def common(identity: SparkIdentity) -> dict[str, str]:
    """What every process of every role has: mutual TLS on each connection, a shared secret, nothing on a web page."""
    return {
        **ssl_settings("rpc", identity),
        "spark.authenticate": "true",
        # Only there because Spark wants the setting to exist; the secret itself is in the credentials file, which
        # comes first. If that were ever unread, this random text would match nobody else's.
        "spark.authenticate.secret": secrets.token_hex(16),
        "spark.network.crypto.enabled": "false",  # TLS takes its place
        "spark.io.encryption.enabled": "true",
        "spark.io.encryption.keySizeBits": "256",
        "spark.ui.enabled": "false",
        "spark.master.rest.enabled": "false",
        "spark.redaction.regex": "(?i)secret|password|token|access[.]?key|keystore",
    }


def ssl_settings(namespace: str, identity: SparkIdentity, password: str | None = None) -> dict[str, str]:
    """TLS 1.3 with certificates of the job's authority on both sides."""
    prefix = f"spark.ssl.{namespace}"
    settings = {
        f"{prefix}.enabled": "true",
        f"{prefix}.protocol": "TLSv1.3",
        f"{prefix}.needClientAuth": "true",
        f"{prefix}.keyStore": str(identity.key_store),
        f"{prefix}.keyStoreType": "PKCS12",
        f"{prefix}.trustStore": str(identity.trust_store),
        f"{prefix}.trustStoreType": "PKCS12",
    }
    if password is not None:
        settings |= {f"{prefix}.{name}": password for name in ("keyStorePassword", "keyPassword", "trustStorePassword")}
    return settings


def filesystems() -> dict[str, str]:
    """The zone file system in front of every scheme, through both of Hadoop's entrances."""
    settings = {
        "spark.hadoop.fs.file.impl": _ZONES_LOCAL,
        "spark.hadoop.fs.FILE.impl": _ZONES_LOCAL,
        "spark.hadoop.casemate.fs.FILE.impl": "org.apache.hadoop.fs.LocalFileSystem",
        "spark.hadoop.fs.AbstractFileSystem.file.impl": _ZONES_ABSTRACT,
        "spark.sql.sources.commitProtocolClass": "io.casemate.spark.ZoneCommitProtocol",
        "spark.hadoop.hadoop.security.credential.provider.path": "casemate://agent",  # for the storage's
        # Hadoop's own choice completes uploads at commit, past every file system in front of S3A's.
        "spark.hadoop.mapreduce.outputcommitter.factory.scheme.s3a": _COMMITTERS,
    }
    for scheme in SCHEMES:
        settings[f"spark.hadoop.fs.{scheme}.impl"] = _ZONES_LOCAL if scheme == "file" else _ZONES
        settings[f"spark.hadoop.fs.AbstractFileSystem.{scheme}.impl"] = _ZONES_ABSTRACT
    return settings


def workload_conf(settings: SparkSettings, program: Path, bundle: Path) -> dict[str, str]:
    """The workload's own settings, with the places of its verified files filled in.

    Spark writes event logs on ``file:`` past every file system, in the clear; ``FILE:`` is the same place to Hadoop,
    and goes through the zones."""
    conf = {name: filled(content, program, bundle) for name, content in settings.conf.items()}
    if _EVENT_LOG in conf:
        conf[_EVENT_LOG] = re.sub(r"^(file:/*|/+)", "FILE:///", conf[_EVENT_LOG], flags=re.IGNORECASE)
    return conf


def properties(settings: Mapping[str, str]) -> str:
    """The text of ``spark-defaults.conf``: a Java properties file, everything that it reads specially escaped."""
    return "".join(f"{_escaped(name)}={_escaped(value)}\n" for name, value in sorted(settings.items()))


_COMMITTERS = "org.apache.hadoop.mapreduce.lib.output.FileOutputCommitterFactory"
_WHY = "decides how data is protected or what code runs; only Casemate sets it"


def _check_conf(name: str, content: str) -> None:
    if not name.startswith("spark."):
        raise EngineSettingsError(f"engine spark: conf: {name!r} is not a Spark setting")
    if name in _CODE_PATHS:
        _check_code_path(name, content)
    elif name in _JAVA_OPTIONS:
        if re.search(r"-Dspark\.|-javaagent|-agent|-Xbootclasspath|-XX:(\+|)?(HeapDump|OnError|OnOutOf)", content):
            raise ProtectedSettingError(f"{name}: {content!r}: {_WHY}")
    elif name not in _ALLOWED and _PROTECTED.fullmatch(name):
        raise ProtectedSettingError(f"{name}: {_WHY}")


def _check_code_path(name: str, content: str) -> None:
    for item in filter(None, content.split(",")):
        if not item.startswith(("{bundle}/", "{program}")) or ".." in item.split("/"):
            raise ProtectedSettingError(f"{name}: {item!r}: need a file of the workload itself, as {{bundle}}/NAME")


def _count(value: Mapping[str, Any], name: str) -> int | None:
    found = value.get(name)
    if found is not None and (type(found) is not int or not 1 <= found <= 1024):
        raise EngineSettingsError(f"engine spark: {name}: need a number from 1 to 1024, got {found!r}")
    return found


def _escaped(text: str) -> str:
    out = text.replace("\\", "\\\\")
    for plain, escape in (("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t"), ("\f", "\\f")):
        out = out.replace(plain, escape)
    return re.sub(r"[=:#! ]", lambda match: f"\\{match[0]}", out)
