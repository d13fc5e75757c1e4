"""AMD's endorsements before they are kept: chains to a pinned ARK, endorsement keys, revocation lists.

No network, disk or clock. The report's verifier checks all of this again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from casemate.attestation.collateral.errors import CollateralNotYetValidError
from casemate.attestation.collateral.pieces import CachedPiece
from casemate.attestation.platforms.snp.certificates import check_validity, split_certificates
from casemate.attestation.platforms.snp.chain import Chain, build_chain, verify_vek
from casemate.attestation.platforms.snp.collateral import SnpCollateral
from casemate.attestation.platforms.snp.der import RawCertificate, read_certificate
from casemate.attestation.platforms.snp.endorsement import Vek, parse_vek
from casemate.attestation.platforms.snp.errors import SnpChainMissingError, SnpCrlExpiredError
from casemate.attestation.platforms.snp.revocation import RevocationList, parse_crl, verify_crl
from casemate.attestation.platforms.snp.tcb import Product, product_of_name

__all__ = ["AmdSet", "check_dates", "pieces_of", "pin_of", "verify_endorsements"]


@dataclass(frozen=True)
class AmdSet:
    """What is kept of one product under one root: verified chain, endorsement keys, revocation lists; all in DER."""

    product: Product
    chain: Chain
    veks: tuple[bytes, ...] = ()
    crls: tuple[bytes, ...] = ()

    @property
    def name(self) -> str:
        return f"snp {self.product}"

    @property
    def ark_digest(self) -> str:
        """SHA-256 of the root, hex."""
        return hashlib.sha256(self.chain.ark.der).hexdigest()

    @property
    def certificates(self) -> tuple[bytes, ...]:
        """ARK and the intermediates there are."""
        found = (self.chain.ark, self.chain.ask, self.chain.asvk)
        return tuple(item.der for item in found if item is not None)


def pin_of(ark: bytes) -> dict[Product, str]:
    """What names a root of one's own choice: its product and SHA-256; raises what its parser raises."""
    product = product_of_name(read_certificate(ark).subject_cn.rpartition("-")[2])
    return {product: hashlib.sha256(ark).hexdigest()}


def verify_endorsements(
    given: SnpCollateral, *, kept: Iterable[AmdSet] = (), pins: Mapping[Product, str] | None = None
) -> tuple[AmdSet, ...]:
    """The verified sets that ``given`` makes, one per product; dates are not judged.

    A chain that is not in ``given`` is taken from ``kept``, the sets there are already. ``pins`` are roots to trust
    beside AMD's. Raises the ``Snp…Error`` of the first check that fails; ``SnpChainMissingError``, undecided, for
    keys or lists without a chain."""
    veks: dict[Product, list[Vek]] = {}
    for der in given.veks:
        vek = parse_vek(der)
        veks.setdefault(vek.product, []).append(vek)
    names = {product_of_name(name) for name in (*given.chains, *given.crls)} | veks.keys()
    wanted = {one.product: one for one in kept if (pins or {}).get(one.product, one.ark_digest) == one.ark_digest}
    known = {product: one for product, one in wanted.items() if not one.chain.simulated or product in (pins or {})}
    return tuple(
        _one(product, given, tuple(veks.get(product, ())), known.get(product), pins) for product in sorted(names)
    )


def _one(
    product: Product,
    given: SnpCollateral,
    veks: tuple[Vek, ...],
    kept: AmdSet | None,
    pins: Mapping[Product, str] | None,
) -> AmdSet:
    # 1. The chain, completed by the intermediates that are kept.     2. Endorsement keys.     3. Revocation lists.
    ders = split_certificates(given.chains.get(product, b""))
    if kept is not None:
        ders += [der for der in kept.certificates if der not in ders]
    if not ders:
        raise SnpChainMissingError(f"chain of {product} (ARK and ASK or ASVK): neither given nor kept")
    chain = build_chain(product, ders, simulated_pins=pins or {})  # (1)
    for vek in veks:  # (2)
        verify_vek(vek, chain)
    crls = tuple(given.crls.get(product, ()))
    for blob in crls:  # (3)
        verify_crl(parse_crl(blob), chain)
    return AmdSet(product, chain, tuple(vek.certificate.der for vek in veks), crls)


def check_dates(one: AmdSet, now: datetime) -> None:
    """That what was given holds at ``now``; raises, undecided, the expiry error of the first piece that does not."""
    for der in (*one.certificates, *one.veks):
        check_validity(read_certificate(der), now)
    for blob in one.crls:
        crl = parse_crl(blob)
        if now < crl.this_update:
            raise CollateralNotYetValidError(
                f"{one.name}: revocation list: issued {crl.this_update.isoformat()}, now {now.isoformat()}"
            )
        if crl.next_update is None or now > crl.next_update:
            raise SnpCrlExpiredError(
                f"{one.name}: revocation list: good until {crl.next_update and crl.next_update.isoformat()}, "
                f"now {now.isoformat()}"
            )


def pieces_of(one: AmdSet) -> list[CachedPiece]:
    """Every piece of a set; a revocation list that is not there is a missing piece."""
    found = [_certificate(one, read_certificate(der), "certificate") for der in one.certificates]
    for der in one.veks:
        vek = parse_vek(der)
        piece = _certificate(one, vek.certificate, "endorsement key")
        subject = f"{vek.kind} {vek.hwid.hex()[:16] + '…' if vek.hwid else vek.csp_id}"
        found.append(replace(piece, subject=subject))
    lists = sorted((parse_crl(blob) for blob in one.crls), key=lambda crl: crl.this_update)
    found += [_list(one, crl) for crl in lists[-1:]]  # older ones count only for what they revoke
    return found if lists else [*found, CachedPiece(one.name, "revocation list", one.chain.ark.subject_cn)]


def _certificate(one: AmdSet, certificate: RawCertificate, piece: str) -> CachedPiece:
    return CachedPiece(one.name, piece, certificate.subject_cn, certificate.not_before, certificate.not_after)


def _list(one: AmdSet, crl: RevocationList) -> CachedPiece:
    return CachedPiece(one.name, "revocation list", crl.issuer_cn, crl.this_update, crl.next_update)
