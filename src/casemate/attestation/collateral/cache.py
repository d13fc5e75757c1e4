"""The edge that keeps collateral in a directory, in the layout a broker reads from its ``trust/collateral``.

``<tee>-<fmspc>-<ca>-<root>.json`` are whole sets of Intel's; ``snp-<product>-<root>.pem`` AMD's chains, with
endorsement keys (``….der``) and revocation lists (``….crl``) beside them. ``<root>`` is the start of the root's
SHA-256, so that a simulator's and a maker's never meet. Only verified pieces are written, each whole or not at all;
nothing is trusted for lying here: whoever reads it verifies it again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from casemate.attestation.collateral import amd, intel
from casemate.attestation.collateral.amd import AmdSet
from casemate.attestation.collateral.errors import CollateralCacheError
from casemate.attestation.collateral.pieces import CachedPiece
from casemate.attestation.endorsements import pem_of
from casemate.attestation.platforms.intel.collateral import Collateral, parse_collateral
from casemate.attestation.platforms.snp.certificates import split_certificates
from casemate.attestation.platforms.snp.chain import AMD_ARK_PINS
from casemate.attestation.platforms.snp.collateral import sort_collateral
from casemate.attestation.platforms.snp.der import read_certificate
from casemate.attestation.platforms.snp.endorsement import parse_vek
from casemate.attestation.platforms.snp.revocation import parse_crl
from casemate.attestation.platforms.snp.tcb import Product
from casemate.attestation.trust import is_intel_root
from casemate.errors import CasemateError
from casemate.files import write_whole

__all__ = ["Cached", "CollateralCache", "Kept"]

MAX_FILE_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True)
class Cached:
    """What a directory holds, every signature verified; ``damaged`` are files whose content is not in order."""

    intel: tuple[Collateral, ...] = ()
    amd: tuple[AmdSet, ...] = ()
    damaged: tuple[CachedPiece, ...] = ()

    def pieces(self) -> list[CachedPiece]:
        """Every piece, by set."""
        found = [piece for one in self.intel for piece in _marked(intel.pieces_of(one), not is_intel_root(one.root))]
        found += [piece for one in self.amd for piece in _marked(amd.pieces_of(one), one.chain.simulated)]
        return found + list(self.damaged)

    @property
    def simulated(self) -> bool:
        """Whether anything in it ends in another root than a maker's."""
        return any(not is_intel_root(one.root) for one in self.intel) or any(one.chain.simulated for one in self.amd)


@dataclass(frozen=True)
class Kept:
    """What became of one set: ``added``, ``renewed``, ``unchanged``, or ``kept`` what was there, being newer."""

    set: str
    action: str
    detail: str = ""


def _marked(pieces: Iterable[CachedPiece], simulated: bool) -> list[CachedPiece]:
    return [replace(piece, set=f"{piece.set} SIMULATED") if simulated else piece for piece in pieces]


@dataclass
class CollateralCache:
    """The collateral in ``directory``, which need not exist yet."""

    directory: Path
    _damaged: list[CachedPiece] = field(default_factory=list, init=False, repr=False)

    def load(self) -> Cached:
        """All of it; a file that is damaged or that nobody signed is named, not used.

        Raises ``CollateralCacheError`` when the directory cannot be read."""
        self._damaged = []
        sets: list[Collateral] = []
        groups: dict[str, list[Path]] = {}
        for path in self._files():
            if path.suffix == ".json":
                sets += self._intel(path)
            elif path.name.startswith("snp-"):
                groups.setdefault("-".join(path.stem.split("-")[:3]), []).append(path)
        products = [one for paths in groups.values() for one in self._amd(paths)]
        return Cached(tuple(sets), tuple(products), tuple(self._damaged))

    def documents(self) -> list[str]:
        """The JSON text of every Intel set, for a verifier that reads it itself."""
        return [self._read(path).decode("utf-8", "replace") for path in self._files() if path.suffix == ".json"]

    def endorsements(self) -> list[bytes]:
        """The content of every other file that goes with one of AMD's own roots: certificates and revocation lists."""
        starts = tuple(f"snp-{product.lower()}-{pin[:8]}" for product, pin in AMD_ARK_PINS.items())
        return [self._read(path) for path in self._files() if path.name.startswith(starts)]

    def store(self, sets: Sequence[Collateral], products: Sequence[AmdSet], *, now: datetime) -> list[Kept]:
        """Write what is new, after all of it was verified; what is there and newer stays."""
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            return [self._store_intel(one) for one in sets] + [self._store_amd(one, now) for one in products]
        except OSError as exc:
            raise CollateralCacheError(f"{exc.filename or self.directory}: {exc.strerror or exc}") from exc

    # -- reading -------------------------------------------------------------------------------------------------------
    def _files(self) -> list[Path]:
        try:
            found = sorted(path for path in self.directory.iterdir() if not path.name.startswith("."))
        except FileNotFoundError:
            return []
        except OSError as exc:
            raise CollateralCacheError(f"{self.directory}: {exc.strerror or exc}") from exc
        return [path for path in found if path.suffix in (".json", ".pem", ".der", ".crl") and path.is_file()]

    def _read(self, path: Path) -> bytes:
        try:
            with path.open("rb") as file:
                content = file.read(MAX_FILE_BYTES + 1)
        except OSError as exc:
            raise CollateralCacheError(f"{path}: {exc.strerror or exc}") from exc
        if len(content) > MAX_FILE_BYTES:
            raise CollateralCacheError(f"{path}: more than {MAX_FILE_BYTES} bytes")
        return content

    def _intel(self, path: Path) -> list[Collateral]:
        try:
            one = parse_collateral(self._read(path).decode("utf-8", "replace"))
            intel.verify_collateral(one, None if is_intel_root(one.root) else one.root)
        except CollateralCacheError:
            raise
        except CasemateError as exc:
            self._damaged.append(CachedPiece.damaged(path.name, "collateral", exc))
            return []
        return [one]

    def _amd(self, paths: list[Path]) -> list[AmdSet]:
        """One set, out of the files of one product and root."""
        blobs: dict[Path, bytes] = {path: self._read(path) for path in paths}
        good: list[bytes] = []
        pins: dict[Product, str] = {}
        for path, blob in blobs.items():
            try:
                if path.suffix == ".crl":
                    parse_crl(blob)
                elif path.suffix == ".der":
                    parse_vek(blob)
                else:
                    pins |= _simulated_pin(blob)
            except CasemateError as exc:
                self._damaged.append(CachedPiece.damaged(path.name, "file", exc))
                continue
            good.append(blob)
        try:
            return list(amd.verify_endorsements(sort_collateral(good), pins=pins)) if good else []
        except CasemateError as exc:
            name = paths[0].stem if len(paths) == 1 else "-".join(paths[0].stem.split("-")[:3])
            self._damaged.append(CachedPiece.damaged(name, "endorsements", exc))
            return []

    # -- writing -------------------------------------------------------------------------------------------------------
    def _store_intel(self, one: Collateral) -> Kept:
        name = intel.set_name(one)
        path = self.directory / f"{name.replace(' ', '-')}-{_start(one.root)}.json"
        old = self._previous(path)
        if old is not None:
            if (back := intel.is_older(one, old)) is not None:
                return Kept(name, "kept", f"its {back} is older than what is here")
            if old.document == one.document:
                return Kept(name, "unchanged")
        write_whole(path, json.dumps(one.document, indent=1).encode() + b"\n", mode=0o644)
        return Kept(name, "added" if old is None else "renewed")

    def _previous(self, path: Path) -> Collateral | None:
        """What is kept already, if it is in order; a damaged file is simply replaced."""
        try:
            old = parse_collateral(path.read_bytes().decode("utf-8", "replace"))
            intel.verify_collateral(old, None if is_intel_root(old.root) else old.root)
        except (FileNotFoundError, CasemateError):
            return None
        return old

    def _store_amd(self, one: AmdSet, now: datetime) -> Kept:
        start = f"snp-{one.product.lower()}-{one.ark_digest[:8]}"
        wanted = {f"{start}.pem": pem_of(one.certificates).encode()}
        for vek in one.veks:
            wanted[f"{start}-{parse_vek(vek).kind.lower()}-{hashlib.sha256(vek).hexdigest()[:16]}.der"] = vek
        for blob in one.crls:
            wanted[f"{start}-{hashlib.sha256(blob).hexdigest()[:16]}.crl"] = blob
        new = [name for name, content in wanted.items() if not _holds(self.directory / name, content)]
        first = not (self.directory / f"{start}.pem").exists()
        for name in new:
            write_whole(self.directory / name, wanted[name], mode=0o644)
        if one.crls:  # what a current list revokes stands in it; expired ones say nothing any more
            for path in self.directory.glob(f"{start}-*.crl"):
                if path.name not in wanted and _is_expired(path.read_bytes(), now):
                    path.unlink()
        return Kept(one.name, "added" if first else "renewed" if new else "unchanged")


def _simulated_pin(chain: bytes) -> dict[Product, str]:
    """What makes a chain verify under its own root, when that is not AMD's: it is then marked as simulated."""
    for der in split_certificates(chain):
        certificate = read_certificate(der)
        if certificate.issuer == certificate.subject:
            return {name: pin for name, pin in amd.pin_of(der).items() if pin != AMD_ARK_PINS.get(name)}
    return {}


def _is_expired(crl: bytes, now: datetime) -> bool:
    try:
        until = parse_crl(crl).next_update
    except CasemateError:
        return True
    return until is None or until < now


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except FileNotFoundError:
        return False


def _start(der: bytes) -> str:
    return hashlib.sha256(der).hexdigest()[:8]
