"""Find the attester of the machine this process runs on."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from casemate.attestation.errors import NoTeeError
from casemate.attestation.evidence import Attester
from casemate.attestation.platforms.simulator.client import TEE_SOCKET_VARIABLE, SimulatorAttester

__all__ = ["find_attester"]

Finder = Callable[[Mapping[str, str]], Attester | None]


def _simulator(environment: Mapping[str, str]) -> Attester | None:
    path = environment.get(TEE_SOCKET_VARIABLE)
    return SimulatorAttester(Path(path)) if path else None


# Real platforms come before the simulator, so that an environment variable never hides real hardware.
_FINDERS: tuple[tuple[str, Finder], ...] = ((f"a simulated TEE (${TEE_SOCKET_VARIABLE})", _simulator),)


def find_attester(environment: Mapping[str, str] | None = None) -> Attester:
    """The attester of the TEE this process runs in; raises ``NoTeeError`` saying what was looked for."""
    environment = os.environ if environment is None else environment
    for _, finder in _FINDERS:
        attester = finder(environment)
        if attester is not None:
            return attester
    looked_for = "; ".join(name for name, _ in _FINDERS)
    raise NoTeeError(f"no trusted execution environment here; looked for: {looked_for}")
