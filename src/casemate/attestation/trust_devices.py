"""Read the trust anchors of TPMs and GPUs from their directories; see ``trust_files`` for the layout."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from cryptography import x509

from casemate.attestation.errors import CollateralMissingError
from casemate.attestation.platforms.certificates import PathError, der_of, load_certificates, load_crl
from casemate.attestation.platforms.gpu.verifier import NVIDIA_DEVICE_ROOT_PIN, GpuVerifier
from casemate.attestation.platforms.tpm.gce import GOOGLE_ROOT_PINS
from casemate.attestation.platforms.tpm.structures import parse_public_key
from casemate.attestation.platforms.tpm.trust import TpmTrust
from casemate.attestation.platforms.tpm.verifier import TpmVerifier
from casemate.attestation.trust_errors import TrustAnchorError
from casemate.errors import CasemateError

__all__ = ["load_gpu_verifier", "load_tpm_trust", "load_tpm_verifier"]

_MAKERS = GOOGLE_ROOT_PINS | {NVIDIA_DEVICE_ROOT_PIN}
_T = TypeVar("_T")


def load_tpm_trust(directory: Path, *, simulated: bool = False) -> TpmTrust:
    """Whom ``directory`` trusts to vouch for attestation keys; it may be empty. Raises an error naming the file.

    Read are ``keys/``, ``roots/``, ``certificates/`` and ``crls/``."""
    roots = _contents(directory / "roots", _certificates)
    for path, pins in _pins(directory / "roots"):
        if simulated and pins & _MAKERS:
            raise TrustAnchorError(f"{path}: is a maker's root; a real platform and the simulator share no anchor")
    return TpmTrust(
        roots=roots,
        keys=_contents(directory / "keys", parse_public_key),
        intermediates=_contents(directory / "certificates", _certificates),
        crls=_contents(directory / "crls", _crl),
        simulated=simulated,
    )


def load_tpm_verifier(directory: Path) -> TpmVerifier | None:
    """The verifier of TPM evidence, Google Cloud's too; ``None`` when nobody vouches for any key."""
    real = load_tpm_trust(directory / "tpm")
    simulated = load_tpm_trust(directory / "tpm-simulated", simulated=True)
    if not real.anchors and not simulated.anchors:
        return None
    if real.anchors & simulated.anchors:
        raise TrustAnchorError(f"{directory}: an anchor lies in tpm and in tpm-simulated; they share none")
    return TpmVerifier(real, simulator_trust=simulated if simulated.anchors else None)


def load_gpu_verifier(directory: Path) -> GpuVerifier | None:
    """The verifier of NVIDIA's evidence; ``None`` without a root."""
    real = {pin for _, pins in _pins(directory / "gpu" / "roots") for pin in pins}
    simulated = {pin for _, pins in _pins(directory / "gpu-simulated" / "roots") for pin in pins}
    if real - {NVIDIA_DEVICE_ROOT_PIN}:
        raise TrustAnchorError(
            f"{directory / 'gpu' / 'roots'}: need NVIDIA's device root alone, {NVIDIA_DEVICE_ROOT_PIN}"
        )
    if simulated & _MAKERS:
        raise TrustAnchorError(
            f"{directory / 'gpu-simulated'}: holds a maker's root; it shares none with the simulator"
        )
    if not real and not simulated:
        return None
    crls = [*_contents(directory / "gpu" / "crls", _crl), *_contents(directory / "gpu-simulated" / "crls", _crl)]
    return GpuVerifier(pins=real, simulated_pins=simulated, crls=crls)


def _certificates(raw: bytes) -> tuple[x509.Certificate, ...]:
    return load_certificates(raw, "certificate")


def _crl(raw: bytes) -> x509.CertificateRevocationList:
    return load_crl(raw, "revocation list")


def _pins(directory: Path) -> list[tuple[Path, frozenset[str]]]:
    """Every file in ``directory``, with the SHA-256 of each certificate in it."""
    return [
        (path, frozenset(hashlib.sha256(der_of(c)).hexdigest() for c in _parsed(path, raw, _certificates)))
        for path, raw in _read_all(directory)
    ]


def _contents(directory: Path, parse: Callable[[bytes], object]) -> list[bytes]:
    """The files in ``directory`` that ``parse`` can read; any other is an error."""
    found = _read_all(directory)
    for path, raw in found:
        _parsed(path, raw, parse)
    return [raw for _, raw in found]


def _parsed(path: Path, raw: bytes, parse: Callable[[bytes], _T]) -> _T:
    try:
        return parse(raw)
    except CasemateError as exc:
        raise TrustAnchorError(f"{path}: {exc.message}") from exc
    except PathError as exc:
        raise TrustAnchorError(f"{path}: {exc.message}") from exc


def _read_all(directory: Path) -> list[tuple[Path, bytes]]:
    """Whole files, by name; hidden ones are drafts of somebody who is writing."""
    try:
        paths = sorted(path for path in directory.iterdir() if not path.name.startswith(".") and path.is_file())
        return [(path, path.read_bytes()) for path in paths]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as exc:
        raise CollateralMissingError(f"{exc.filename}: not readable ({exc.strerror})") from exc
