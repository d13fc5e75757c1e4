"""What a relying party demands of a verified token. No I/O, no clock."""

from __future__ import annotations

from dataclasses import dataclass

from casemate.attestation.relying.errors import (
    TokenPolicyMismatchError,
    TokenSimulatedError,
    TokenStatusNotAcceptedError,
    TokenWorkloadMismatchError,
)
from casemate.attestation.token import AttestationResult

__all__ = ["Demands"]


@dataclass(frozen=True)
class Demands:
    """Every demand has to be met. ``workloads`` and ``policies`` are digests (hex); empty means that any will do.

    ``allow_simulated`` also accepts the status ``warning``, which is the best a simulated TEE can have.
    ``insecure_allow_bearer``: a token without a proof will do; whoever gets hold of one can then use it."""

    statuses: frozenset[str] = frozenset({"affirming"})
    workloads: frozenset[str] = frozenset()
    policies: frozenset[str] = frozenset()
    allow_simulated: bool = False
    insecure_allow_bearer: bool = False

    def check(self, result: AttestationResult) -> None:
        """Raise the error of the first demand that is not met."""
        simulated = result.claims.simulated
        if simulated and not self.allow_simulated:
            raise TokenSimulatedError("token: expected a real TEE, got a SIMULATED one")
        if not result.accepted:
            raise TokenStatusNotAcceptedError(f"token: the policy {result.policy_name} of its issuer refused the TEE")
        statuses = self.statuses | ({"warning"} if simulated else frozenset())
        if result.status not in statuses:
            raise TokenStatusNotAcceptedError(f"token: status expected {_either(statuses)}, got {result.status}")
        if self.workloads and result.workload not in self.workloads:
            got = "none" if result.workload is None else f"{result.workload[:24]}…"
            raise TokenWorkloadMismatchError(f"token: workload expected {_either(self.workloads)}, got {got}")
        if self.policies and result.policy_digest not in self.policies:
            got = f"{result.policy_name} {result.policy_digest[:24]}…"
            raise TokenPolicyMismatchError(f"token: policy expected {_either(self.policies)}, got {got}")


def _either(values: frozenset[str]) -> str:
    return " or ".join(sorted(value if len(value) <= 24 else f"{value[:24]}…" for value in values))
