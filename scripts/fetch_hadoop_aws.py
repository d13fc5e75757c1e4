"""Fetch Hadoop's S3A file system for the tests of zones on ``s3a://``.

The only package that carries its jars is the source distribution of ``sagemaker-pyspark`` (170 MB); nothing of it is
built or installed. Usage: ``python scripts/fetch_hadoop_aws.py DIRECTORY``, then set TEST_HADOOP_AWS_JARS to it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

SOURCE = "sagemaker-pyspark==1.4.5"
JARS = ("hadoop-aws-3.3.1.jar", "aws-java-sdk-bundle-1.11.901.jar")


def fetch(directory: Path) -> None:
    """Leave ``JARS`` in ``directory``."""
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--no-binary",
            ":all:",
            "-d",
            temporary,
            SOURCE,
        ]
        subprocess.run(command, check=True)
        with tarfile.open(next(Path(temporary).glob("*.tar.gz"))) as archive:
            for member in archive:
                name = Path(member.name).name
                content = archive.extractfile(member) if name in JARS else None
                if content is not None:
                    with content, (directory / name).open("wb") as out:
                        shutil.copyfileobj(content, out)
    if missing := [name for name in JARS if not (directory / name).exists()]:
        sys.exit(f"{SOURCE} holds no {' and no '.join(missing)}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    fetch(Path(sys.argv[1]))
