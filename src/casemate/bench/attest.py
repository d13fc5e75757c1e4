"""What attestation costs: verifications per second and core, and the latency of attest-and-release."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from casemate.bench import attest_release, verification
from casemate.bench.attest_release import AIM_P50_MS, Latency
from casemate.bench.verification import AIMS, Rate

__all__ = ["AttestResult", "run"]


@dataclass(frozen=True)
class AttestResult:
    """Both measurements; ``rates`` by platform."""

    rates: dict[str, Rate]
    latency: Latency

    def to_json(self) -> dict[str, Any]:
        return {
            "verifications_per_second": {name: rate.per_second for name, rate in self.rates.items() if name in AIMS},
            "attest_release_ms": {"p50": self.latency.p50, "p99": self.latency.p99},
            "aims": {"verifications_per_second": AIMS, "attest_release_ms": {"p50": AIM_P50_MS}},
            "snp_known_chip_per_second": self.rates["snp_known_chip"].per_second,
            "evidence": {name: rate.source for name, rate in self.rates.items()},
            "attest_release_processor_ms": self.latency.processor_ms,
            "attest_release_rounds": self.latency.rounds,
            "simulated_machine": True,
        }

    @property
    def text(self) -> str:
        """One line per figure, for people."""
        lines = [
            f"{name}: {self.rates[name].per_second:.0f} verifications per second and core "
            f"({self.rates[name].source}), aim {aim:.0f}"
            for name, aim in AIMS.items()
        ]
        late = self.latency
        lines.append(
            f"attest and release (SIMULATED TEE): p50 {late.p50:.1f} ms, p99 {late.p99:.1f} ms, "
            f"aim p50 {AIM_P50_MS:.0f} ms"
        )
        return "\n".join(lines)


def run(
    *, rounds: int = 300, vectors: Path | None = None, progress: Callable[[str], None] = lambda line: None
) -> AttestResult:
    """Measure; ``vectors`` is a folder of real evidence, looked for when it is not given."""
    rates = {}
    for case in verification.cases(vectors or verification.find_vectors()):
        rates[case.platform] = verification.measure(case)
        progress(f"{case.platform}: {rates[case.platform].per_second:.0f}/s ({case.source})")
    return AttestResult(rates, attest_release.run(rounds=rounds, progress=progress))
