"""What attestation adds to the start of a Spark job: ``casemate submit`` against plain ``spark-submit``, alternating.

Both sides run ``examples``' smallest program (or one given) on the same rows in ``local[*]``. A single machine is
noisy, so the sides take turns and the figure is the difference of medians.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from casemate.demo.sandbox import Sandbox
from casemate.errors import FailedError

__all__ = ["StartupResult", "run"]

AIM_SECONDS = 2.0
_PROGRAM = """import sys
from pyspark.sql import SparkSession

spark = SparkSession.builder.getOrCreate()
print(f"rows: {spark.read.csv(sys.argv[1], header=True).count()}")
spark.stop()
"""


@dataclass(frozen=True)
class StartupResult:
    """Wall-clock seconds of each run, both sides in the order they ran, and the difference of the medians."""

    plain_seconds: list[float]
    attested_seconds: list[float]
    plain_median: float
    attested_median: float
    extra_seconds: float
    aim_seconds: float
    simulated: bool

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def run(*, repeats: int = 5, progress: Callable[[str], None] = lambda line: None) -> StartupResult:
    """Time ``repeats`` runs of each side after a warm-up; raises ``FailedError`` when a run does not succeed."""
    with tempfile.TemporaryDirectory(prefix="casemate-bench-") as name:
        root = Path(name)
        plain = root / "plain"
        plain.mkdir()
        (plain / "rows.csv").write_text("id,value\n" + "".join(f"{n},{n * n}\n" for n in range(1000)))
        program = root / "count_rows.py"
        program.write_text(_PROGRAM)
        with Sandbox(root / "home") as sandbox:
            vault = root / "vault"
            sandbox.casemate("key", "create", "bench/rows").check()
            sandbox.casemate("encrypt", str(plain), str(vault), "--dataset", "bench/rows").check()
            spark_submit = str(Path(sys.executable).with_name("spark-submit"))
            sides = {
                "plain": [spark_submit, "--master", "local[*]", str(program), str(plain)],
                "attested": [
                    *(sys.executable, "-m", "casemate", "submit", str(program), str(vault)),
                    *("--read", f"bench/rows={vault}", "--master", "local[*]"),
                ],
            }
            seconds: dict[str, list[float]] = {side: [] for side in sides}
            for turn in range(repeats + 1):
                for side, command in sides.items():
                    begin = time.perf_counter()
                    finished = sandbox.finish(sandbox.start(command), " ".join(command[-6:]))
                    spent = time.perf_counter() - begin
                    if finished.status != 0 or "rows: 1000" not in finished.stdout + finished.stderr:
                        raise FailedError(f"{side} run ended with status {finished.status}: {finished.line}")
                    progress(f"{'warm-up' if turn == 0 else f'{turn}/{repeats}'} {side}: {spent:.2f} s")
                    if turn:
                        seconds[side].append(round(spent, 3))
        medians = {side: statistics.median(values) for side, values in seconds.items()}
        return StartupResult(
            plain_seconds=seconds["plain"],
            attested_seconds=seconds["attested"],
            plain_median=medians["plain"],
            attested_median=medians["attested"],
            extra_seconds=round(medians["attested"] - medians["plain"], 3),
            aim_seconds=AIM_SECONDS,
            simulated=True,
        )
