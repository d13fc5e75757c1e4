"""Build hook: compile the Java part against the installed PySpark's jars into ``src/casemate/jars``.

Runs for wheels and editable installs; ``python hatch_build.py`` does the same by hand. The jar depends on the sources
alone: same sources, same bytes.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).resolve().parent
SOURCES = "java/src"
JAR = "src/casemate/jars/casemate-spark.jar"
RELEASE = 17  # of Java, as Spark 4 needs at least
# What the sources are compiled against: Hadoop's client and the JSON parser that Spark brings along, Parquet for its
# keys, for the guard of settings Spark's own core, and for commits its SQL part.
CLASS_PATH = (
    *("hadoop-client-api-*.jar", "jackson-core-*.jar"),
    *("parquet-hadoop-*.jar", "parquet-column-*.jar", "parquet-common-*.jar"),
    *("spark-core_*.jar", "spark-sql_*.jar", "spark-common-utils_*.jar"),
    *("scala-library-*.jar", "xbean-asm9-shaded-*.jar"),
    "tink-*.jar",  # to be measured beside
)
MANIFEST = "Manifest-Version: 1.0\r\nCreated-By: casemate\r\nPremain-Class: io.casemate.spark.JvmAgent\r\n\r\n"
SERVICES = {
    "org.apache.hadoop.security.alias.CredentialProviderFactory": "io.casemate.spark.AgentCredentials$Factory",
}
DIGEST_ENTRY = "META-INF/casemate-sources.sha256"
EPOCH = (2024, 1, 1, 0, 0, 0)  # every entry's time, so that the jar is reproducible


class JavaBuildError(Exception):
    """The jar cannot be built; the message is one line that says what to do."""


def sources(root: Path) -> list[Path]:
    """The Java files, sorted."""
    found = sorted((root / SOURCES).rglob("*.java"))
    if not found:
        raise JavaBuildError(f"no Java source below {root / SOURCES}")
    return found


def source_digest(root: Path) -> str:
    """SHA-256 (hex) over names and contents of all sources and over how they are built."""
    digest = hashlib.sha256(f"release {RELEASE} {CLASS_PATH} {MANIFEST} {SERVICES}".encode())
    for path in sources(root):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def is_current(jar: Path, digest: str) -> bool:
    """Whether ``jar`` was built from sources with that digest."""
    try:
        with zipfile.ZipFile(jar) as archive:
            return archive.read(DIGEST_ENTRY).decode() == digest
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return False


def class_path() -> list[Path]:
    """PySpark's jars to compile against; looks for the package without importing it."""
    spec = importlib.util.find_spec("pyspark")
    if spec is None or not spec.submodule_search_locations:
        raise JavaBuildError(
            "PySpark is not installed: run `pip install pyspark==4.3.0`, then install with --no-build-isolation"
        )
    directory = Path(spec.submodule_search_locations[0]) / "jars"
    found = [jar for pattern in CLASS_PATH for jar in sorted(directory.glob(pattern))]
    if len(found) < len(CLASS_PATH):
        raise JavaBuildError(f"PySpark in {directory.parent} lacks {' or '.join(CLASS_PATH)}")
    return found


def javac() -> str:
    """A Java compiler of at least ``RELEASE``: of JAVA_HOME, else of PATH."""
    home = os.environ.get("JAVA_HOME")
    candidates = [str(Path(home) / "bin" / "javac")] if home else []
    for candidate in [*candidates, "javac"]:
        program = shutil.which(candidate)
        if program is None:
            continue
        version = subprocess.run([program, "-version"], capture_output=True, text=True, check=False)
        match = re.search(r"javac (\d+)", version.stdout + version.stderr)
        if match and int(match[1]) >= RELEASE:
            return program
    raise JavaBuildError(
        f"need javac {RELEASE} or newer (Debian: apt-get install openjdk-17-jdk-headless), or JAVA_HOME"
    )


def compile_classes(root: Path, target: Path) -> None:
    """Compile all sources into ``target``; the compiler's complaints go to stderr."""
    command = [javac(), "--release", str(RELEASE), "-proc:none", "-encoding", "UTF-8", "-g:source,lines"]
    command += ["-cp", os.pathsep.join(map(str, class_path())), "-d", str(target), *map(str, sources(root))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.stderr.write(done.stderr)
        raise JavaBuildError(f"javac failed with status {done.returncode}; its messages are above")


def write_jar(classes: Path, jar: Path, digest: str) -> None:
    """Pack compiled classes, sorted and with fixed times; the jar appears whole or not at all."""
    entries = {"META-INF/MANIFEST.MF": MANIFEST.encode()}
    entries[DIGEST_ENTRY] = digest.encode()
    entries |= {f"META-INF/services/{interface}": f"{name}\n".encode() for interface, name in SERVICES.items()}
    for path in sorted(classes.rglob("*.class")):
        entries[path.relative_to(classes).as_posix()] = path.read_bytes()
    jar.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=jar.parent, prefix=".jar-", delete=False) as file:
        temporary = Path(file.name)
    try:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in entries.items():
                info = zipfile.ZipInfo(name, EPOCH)
                info.external_attr = 0o644 << 16
                archive.writestr(info, content, zipfile.ZIP_DEFLATED)
        temporary.chmod(0o644)
        temporary.replace(jar)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def build(root: Path = ROOT) -> bool:
    """Bring the jar up to date; returns whether it had to be built. Raises ``JavaBuildError``."""
    jar, digest = root / JAR, source_digest(root)
    if is_current(jar, digest):
        return False
    with tempfile.TemporaryDirectory(prefix="casemate-javac-") as directory:
        compile_classes(root, Path(directory))
        write_jar(Path(directory), jar, digest)
    return True


class JavaBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Puts ``casemate-spark.jar`` beside the Python code before it is packed."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        try:
            build(Path(self.root))
        except JavaBuildError as exc:
            self.app.abort(f"casemate: {exc}")


if __name__ == "__main__":
    try:
        print(f"{JAR}: {'built' if build() else 'up to date'}")
    except JavaBuildError as error:
        sys.exit(f"hatch_build: {error}")
