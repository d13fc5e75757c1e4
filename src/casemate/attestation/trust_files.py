"""The edge of the verifier: read trust anchors and collateral from a directory. Everything else takes bytes.

``intel_root.der``, ``simulator_root.der``, and ``collateral/`` as ``casemate collateral`` keeps it: ``*.json`` of
Intel's, ``snp-*`` of AMD's. Each may be absent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from casemate.attestation.errors import CollateralMissingError
from casemate.attestation.evidence import Verifier
from casemate.attestation.platforms.intel.collateral import Collateral, parse_collateral
from casemate.attestation.platforms.intel.errors import CollateralMalformedError
from casemate.attestation.platforms.snp.certificates import split_certificates
from casemate.attestation.platforms.snp.chain import AMD_ARK_PINS
from casemate.attestation.platforms.snp.collateral import sort_collateral
from casemate.attestation.platforms.snp.errors import SnpCertificateMalformedError
from casemate.attestation.platforms.snp.verifier import SnpVerifier
from casemate.attestation.trust import TrustStore

__all__ = ["load_collateral", "load_snp_verifier", "load_trust"]


def load_trust(directory: Path, *, verifiers: Mapping[str, Verifier] | None = None) -> TrustStore:
    """The trust store that ``directory`` describes; ``verifiers`` come before those that it makes possible.

    With AMD's chains in ``collateral/``, SEV-SNP evidence is verified, and a current revocation list is demanded."""
    snp = load_snp_verifier(directory / "collateral")
    return TrustStore(
        intel_root=_read(directory / "intel_root.der"),
        simulator_root=_read(directory / "simulator_root.der"),
        collateral=[load_collateral(path) for path in sorted((directory / "collateral").glob("*.json"))],
        verifiers={**({} if snp is None else {"snp": snp}), **(verifiers or {})},
    )


def load_snp_verifier(directory: Path) -> Verifier | None:
    """The verifier of SEV-SNP evidence under AMD's own roots that is kept in ``directory``; ``None`` without a chain.

    Raises the ``Snp…Error`` of a file that is malformed."""
    chains = [blob for path in sorted(directory.glob("snp-*.pem")) if (blob := _read(path)) and _is_amds(path, blob)]
    if not chains:
        return None
    products = {product for blob in chains for product in sort_collateral([blob]).chains}
    others = [_read(path) or b"" for suffix in ("der", "crl") for path in sorted(directory.glob(f"snp-*.{suffix}"))]
    sorted_ = sort_collateral([*chains, *others])
    crls = {product: lists for product, lists in sorted_.crls.items() if product in products}
    return SnpVerifier(sorted_.chains, crls=crls, veks=sorted_.veks, require_crl=True)


def _is_amds(path: Path, chain: bytes) -> bool:
    """Whether a chain ends in one of AMD's pinned roots: a simulated one is left to whoever trusts it on purpose."""
    try:
        ders = split_certificates(chain)
    except SnpCertificateMalformedError as exc:
        raise type(exc)(f"{path}: {exc.message}") from exc
    return any(hashlib.sha256(der).hexdigest() in AMD_ARK_PINS.values() for der in ders)


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
