"""The edge of the verifier: read trust anchors and collateral from a directory. Everything else takes bytes.

    intel_root.der          Intel's root; not needed beside collateral, which brings it (its key is pinned)
    collateral/             as `casemate collateral` keeps it: Intel's ``*.json``, AMD's ``snp-*``
    tpm/keys/               attestation keys that are trusted one by one (SubjectPublicKeyInfo)
    tpm/roots/              authorities that certify attestation keys: your own, Google's
    tpm/certificates/       what lies between those and a key
    tpm/crls/               their revocation lists
    gpu/roots/  gpu/crls/   NVIDIA's device root (pinned), and its revocation lists
    simulator_root.der  tpm-simulated/  gpu-simulated/    the same for simulated evidence; never shared with the others

Each may be absent; what lies in a directory is DER or PEM.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from casemate.attestation.claims import Claims
from casemate.attestation.errors import CollateralMissingError
from casemate.attestation.evidence import Evidence, Verifier
from casemate.attestation.platforms.intel.collateral import Collateral, parse_collateral
from casemate.attestation.platforms.intel.errors import CollateralMalformedError
from casemate.attestation.platforms.snp.certificates import split_certificates
from casemate.attestation.platforms.snp.chain import AMD_ARK_PINS
from casemate.attestation.platforms.snp.collateral import sort_collateral
from casemate.attestation.platforms.snp.errors import SnpCertificateMalformedError
from casemate.attestation.platforms.snp.verifier import SnpVerifier
from casemate.attestation.trust import TrustStore, is_intel_root
from casemate.attestation.trust_devices import load_gpu_verifier, load_tpm_verifier
from casemate.attestation.trust_errors import TrustUnreadableError
from casemate.errors import CasemateError

__all__ = ["load_collateral", "load_snp_verifier", "load_trust"]

OnDamage = Callable[[CasemateError], None]


def load_trust(
    directory: Path,
    *,
    collateral: Sequence[Path] = (),
    verifiers: Mapping[str, Verifier] | None = None,
    on_damage: OnDamage | None = None,
) -> TrustStore:
    """The trust store that ``directory`` describes; ``verifiers`` come before those that it makes possible.

    ``collateral`` are further directories laid out like its ``collateral/``. With AMD's chains, SEV-SNP evidence is
    verified, and a current revocation list is demanded. Raises what is wrong with a file; with ``on_damage`` that is
    told instead, and evidence that the file is for stays undecided (``TrustUnreadableError``)."""
    reader = _Reader(on_damage)
    directories = (directory / "collateral", *collateral)
    sets = [one for place in directories for path in sorted(place.glob("*.json")) for one in reader.intel(path)]
    found: dict[str, Verifier] = {}
    for kind, load in (
        ("snp", lambda: load_snp_verifier(*directories)),
        ("tpm", lambda: load_tpm_verifier(directory)),
        ("nvidia", lambda: load_gpu_verifier(directory)),
    ):
        found |= reader.verifier(kind, load)
    root = reader.root(directory / "intel_root.der", lambda der: TrustStore(intel_root=der))
    simulator = reader.root(directory / "simulator_root.der", lambda der: TrustStore(simulator_root=der))
    return TrustStore(
        intel_root=root or next((one.root for one in sets if is_intel_root(one.root)), None),
        simulator_root=simulator,
        collateral=sets,
        verifiers={**reader.damaged, **found, **(verifiers or {})},
    )


def load_snp_verifier(*directories: Path) -> Verifier | None:
    """The verifier of SEV-SNP evidence under AMD's own roots that is kept in there; ``None`` without a chain.

    Raises the ``Snp…Error`` of a file that is malformed."""
    chains = [blob for path in _files(directories, "pem") if (blob := _read(path)) and _is_amds(path, blob)]
    if not chains:
        return None
    products = {product for blob in chains for product in sort_collateral([blob]).chains}
    others = [_read(path) or b"" for suffix in ("der", "crl") for path in _files(directories, suffix)]
    sorted_ = sort_collateral([*dict.fromkeys(chains), *dict.fromkeys(others)])
    crls = {product: lists for product, lists in sorted_.crls.items() if product in products}
    return SnpVerifier(sorted_.chains, crls=crls, veks=sorted_.veks, require_crl=True)


def _files(directories: Sequence[Path], suffix: str) -> list[Path]:
    return [path for directory in directories for path in sorted(directory.glob(f"snp-*.{suffix}"))]


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


class _Reader:
    """Reads piece by piece, so that one damaged file leaves the other platforms' evidence verifiable."""

    def __init__(self, on_damage: OnDamage | None) -> None:
        self._on_damage = on_damage
        self.damaged: dict[str, Verifier] = {}

    def intel(self, path: Path) -> list[Collateral]:
        """One set of collateral; a damaged one is as good as a missing one, which the verifier names."""
        try:
            return [load_collateral(path)]
        except CasemateError as exc:
            self._tell(exc)
            return []

    def root(self, path: Path, check: Callable[[bytes], object]) -> bytes | None:
        """An anchor of Intel's quotes or of the simulator's; ``check`` says what is wrong with it."""
        try:
            der = _read(path)
            if der is not None:
                check(der)
            return der
        except CasemateError as exc:
            self._tell(type(exc)(f"{path}: {exc.message}"))
            self.damaged |= {kind: _Damaged(exc) for kind in ("sgx", "tdx")}
            return None

    def verifier(self, kind: str, load: Callable[[], Verifier | None]) -> dict[str, Verifier]:
        try:
            made = load()
        except CasemateError as exc:
            self._tell(exc)
            return {kind: _Damaged(exc)}
        return {} if made is None else {kind: made}

    def _tell(self, exc: CasemateError) -> None:
        if self._on_damage is None:
            raise exc
        self._on_damage(exc)


@dataclass(frozen=True)
class _Damaged:
    """In the place of a verifier whose anchors could not be read."""

    cause: CasemateError

    def verify(self, evidence: Evidence, *, now: datetime) -> Claims:
        raise TrustUnreadableError(self.cause.message)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise CollateralMissingError(f"{path}: not readable ({exc})") from exc
