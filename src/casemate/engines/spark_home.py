"""Where Spark, its Java and Casemate's own jar are, inside the TEE."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import casemate
from casemate.engines.errors import EngineUnavailableError

__all__ = ["SparkHome", "find_spark"]


@dataclass(frozen=True)
class SparkHome:
    """Directories and files that this process starts Spark from; all of them are part of what was measured."""

    spark: Path
    java: Path  # a JAVA_HOME
    jar: Path

    def class_path(self, configuration: Path) -> str:
        """Casemate's jar first, then the configuration (logging), then Spark's own jars."""
        return f"{self.jar}:{configuration}:{self.spark / 'jars'}/*"


def find_spark(environment: Mapping[str, str]) -> SparkHome:
    """PySpark's own Spark; Java from JAVA_HOME if the manifest sets it, else from PATH. Imports no PySpark.

    Raises ``EngineUnavailableError``."""
    spec = importlib.util.find_spec("pyspark")
    if spec is None or not spec.submodule_search_locations:
        raise EngineUnavailableError("PySpark is not installed")
    spark = Path(spec.submodule_search_locations[0])
    if not (spark / "jars").is_dir():
        raise EngineUnavailableError(f"{spark} holds no jars; install the full pyspark, not pyspark-client")
    jar = Path(casemate.__file__).parent / "jars" / "casemate-spark.jar"
    if not jar.is_file():
        raise EngineUnavailableError(f"{jar} is missing; install Casemate where a JDK 17 can build it, or from a wheel")
    return SparkHome(spark, _java_home(environment), jar)


def _java_home(environment: Mapping[str, str]) -> Path:
    given = environment.get("JAVA_HOME")
    java = f"{given}/bin/java" if given else shutil.which("java", path=environment["PATH"])
    if java is None or not os.access(java, os.X_OK):
        raise EngineUnavailableError(f"Java: {java or 'not on ' + environment['PATH']}; Spark needs Java 17")
    return Path(java).resolve().parent.parent
