"""Find the attester of the machine this process runs on."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from casemate.attestation.errors import NoTeeError
from casemate.attestation.evidence import Attester
from casemate.attestation.platforms.simulator.client import TEE_SOCKET_VARIABLE, SimulatorAttester

__all__ = ["TPM_CERTIFICATE_VARIABLE", "TPM_EVENT_LOG_VARIABLE", "TPM_VARIABLE", "find_attester"]

TPM_VARIABLE = "CASEMATE_TPM"
"""Names a TPM as tpm2-tss does (``device:/dev/tpmrm0``). A TPM is never picked unasked: most machines have one."""
TPM_CERTIFICATE_VARIABLE = "CASEMATE_TPM_CERTIFICATE"
"""A PEM file with the attestation key's certificate and those above it, to be sent along."""
TPM_EVENT_LOG_VARIABLE = "CASEMATE_TPM_EVENT_LOG"
"""The firmware's log, to be sent along: ``/sys/kernel/security/tpm0/binary_bios_measurements``."""

Finder = Callable[[Mapping[str, str], Path], Attester | None]


# What the environment names comes first. A host that sets these variables gains nothing by it: simulated evidence
# and TPM evidence say what they are, and a policy that wants other evidence refuses them.


def _simulator(environment: Mapping[str, str], root: Path) -> Attester | None:
    path = environment.get(TEE_SOCKET_VARIABLE)
    return SimulatorAttester(Path(path)) if path else None


def _tpm(environment: Mapping[str, str], root: Path) -> Attester | None:
    name = environment.get(TPM_VARIABLE)
    if not name:
        return None
    from casemate.attestation.platforms.tpm.attester import TpmAttester  # an optional extra

    log, certificates = environment.get(TPM_EVENT_LOG_VARIABLE), environment.get(TPM_CERTIFICATE_VARIABLE)
    return TpmAttester(
        name, event_log=Path(log) if log else None, certificates=Path(certificates) if certificates else None
    )


def _gramine(environment: Mapping[str, str], root: Path) -> Attester | None:
    from casemate.attestation.platforms.linux.gramine import GRAMINE_ATTESTATION, GramineAttester

    base = _below(root, GRAMINE_ATTESTATION)
    return GramineAttester(base=base) if (base / "attestation_type").exists() else None


def _linux(environment: Mapping[str, str], root: Path) -> Attester | None:
    from casemate.attestation.platforms.linux.configfs_tsm import TSM_REPORTS, TsmAttester

    base = _below(root, TSM_REPORTS)
    return TsmAttester(base=base) if base.is_dir() else None


_FINDERS: tuple[tuple[str, Finder], ...] = (
    (f"a simulated TEE (${TEE_SOCKET_VARIABLE})", _simulator),
    (f"a TPM (${TPM_VARIABLE})", _tpm),
    ("SGX under Gramine (/dev/attestation)", _gramine),
    ("TDX or SEV-SNP (/sys/kernel/config/tsm/report)", _linux),
)


def find_attester(environment: Mapping[str, str] | None = None, *, root: Path = Path("/")) -> Attester:
    """The attester of the TEE this process runs in; raises ``NoTeeError`` saying what was looked for.

    ``root`` is where the machine's files begin, for tests on a tree that stands in."""
    environment = os.environ if environment is None else environment
    for _, finder in _FINDERS:
        attester = finder(environment, root)
        if attester is not None:
            return attester
    looked_for = "; ".join(name for name, _ in _FINDERS)
    raise NoTeeError(f"no trusted execution environment here; looked for: {looked_for}")


def _below(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")
