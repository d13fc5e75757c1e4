"""The edge of the verifier: read trust anchors and collateral from a directory. Everything else takes bytes.

``intel_root.der``, ``simulator_root.der``, ``collateral/*.json``; each may be absent.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from casemate.attestation.errors import CollateralMissingError
from casemate.attestation.evidence import Verifier
from casemate.attestation.platforms.intel.collateral import Collateral, parse_collateral
from casemate.attestation.platforms.intel.errors import CollateralMalformedError
from casemate.attestation.trust import TrustStore

__all__ = ["load_collateral", "load_trust"]


def load_trust(directory: Path, *, verifiers: Mapping[str, Verifier] | None = None) -> TrustStore:
    """The trust store that ``directory`` describes."""
    return TrustStore(
        intel_root=_read(directory / "intel_root.der"),
        simulator_root=_read(directory / "simulator_root.der"),
        collateral=[load_collateral(path) for path in sorted((directory / "collateral").glob("*.json"))],
        verifiers=verifiers,
    )


def load_collateral(path: Path) -> Collateral:
    """One collateral file; raises ``CollateralMissingError`` or ``CollateralMalformedError`` naming it."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise CollateralMissingError(f"{path}: not readable ({exc})") from exc
    try:
        return parse_collateral(text)
    except CollateralMalformedError as exc:
        raise type(exc)(f"{path}: {exc.message}") from exc


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise CollateralMissingError(f"{path}: not readable ({exc})") from exc
