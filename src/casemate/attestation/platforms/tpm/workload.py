"""The workload digest in PCR 8.

A TEE's launch registers hold the workload digest itself; a PCR holds only the *hash* of what extended it. The attester
extends PCR 8, still zero, once with the digest, cut to 32 bytes (or padded with zeros) in the SHA-256 bank as host data
is, and whole in the SHA-384 bank; so

    PCR8[sha256] = SHA-256(0^32 || digest cut to 32 bytes)        PCR8[sha384] = SHA-384(0^48 || digest cut to 48 bytes)

Nobody can read a digest out of that. A verifier is told it instead (by the evidence, by the initialisation data, by the
caller) and checks that it gives the quoted value; SHA-2's preimage resistance makes the check as good as reading. What
the claim then holds is the part the PCR proves: 48 bytes with the SHA-384 bank, else 32. A policy compares it as it
compares SEV-SNP host data, a prefix of at least 32 bytes.

PCR 8 is extended by software. It says what was launched only if the software before it is known: a policy that relies
on it pins the boot PCRs (0 to 7, and 9 and 11 where the kernel and image are measured) too.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

from casemate.attestation.platforms.tpm.errors import (
    TpmWorkloadMismatchError,
    TpmWorkloadMissingError,
    TpmWorkloadRepeatedError,
)
from casemate.errors import RefusedError

__all__ = ["WORKLOAD_PCR", "extend_value", "prove_workload", "workload_pcr"]

WORKLOAD_PCR = 8
MIN_DIGEST_BYTES = 32
_SIZES = {"sha384": 48, "sha256": 32}  # the strongest first


def extend_value(digest: bytes, bank: str) -> bytes:
    """What TPM2_PCR_Extend gets: ``digest`` cut, or padded with zeros, to the bank's size."""
    size = _SIZES[bank]
    return digest[:size].ljust(size, b"\0")


def workload_pcr(digest: bytes, bank: str = "sha256") -> bytes:
    """PCR 8's value after a workload with this digest was launched."""
    value = extend_value(digest, bank)
    return hashlib.new(bank, bytes(len(value)) + value).digest()


def prove_workload(digest: bytes, pcrs: Mapping[str, Mapping[int, bytes]]) -> bytes:
    """The part of ``digest`` that quoted PCRs prove. Every bank that was quoted must agree.

    Raises ``TpmWorkloadMissingError``, ``TpmWorkloadRepeatedError`` or ``TpmWorkloadMismatchError``."""
    if len(digest) < MIN_DIGEST_BYTES:
        raise TpmWorkloadMismatchError(f"workload digest: {len(digest)} bytes, need at least {MIN_DIGEST_BYTES}")
    proven = b""
    for bank, size in _SIZES.items():
        quoted = pcrs.get(bank, {}).get(WORKLOAD_PCR)
        if quoted is None:
            continue
        expected = workload_pcr(digest, bank)
        if not hmac.compare_digest(quoted, expected):
            raise _reason(digest, bank, quoted)(
                f"PCR {bank}:{WORKLOAD_PCR}: workload {digest.hex()} gives {expected.hex()}, quoted is {quoted.hex()}"
            )
        proven = max(proven, digest[:size], key=len)
    if not proven:
        raise TpmWorkloadMismatchError(f"PCR {WORKLOAD_PCR}: not quoted in the SHA-256 or SHA-384 bank")
    return proven


def _reason(digest: bytes, bank: str, quoted: bytes) -> type[RefusedError]:
    """What happened to a register that does not hold ``digest`` once."""
    if not any(quoted):
        return TpmWorkloadMissingError
    twice = hashlib.new(bank, workload_pcr(digest, bank) + extend_value(digest, bank)).digest()
    return TpmWorkloadRepeatedError if quoted == twice else TpmWorkloadMismatchError
