"""Verify SEV-SNP evidence: report, endorsement key certificate, chain to a pinned ARK, revocation; no I/O, no clock.

Everything cryptography can say is checked here. What policies may differ on (debug, migration agent, SMT, VMPL, TCB
floors, machine allow-lists) becomes claims."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from casemate.attestation.claims import Claims
from casemate.attestation.evidence import Evidence
from casemate.attestation.platforms.snp.body import parse_body
from casemate.attestation.platforms.snp.certificates import check_validity, split_certificates
from casemate.attestation.platforms.snp.chain import AMD_ARK_PINS, Chain, build_chain, verify_vek
from casemate.attestation.platforms.snp.der import RawCertificate
from casemate.attestation.platforms.snp.endorsement import Vek, VekKind, parse_vek
from casemate.attestation.platforms.snp.errors import (
    SnpChainMissingError,
    SnpChipIdMaskedError,
    SnpChipKeyMaskedError,
    SnpHwidMismatchError,
    SnpProductMismatchError,
    SnpSignatureError,
    SnpTcbMismatchError,
    SnpVekKindMismatchError,
    SnpVekMissingError,
)
from casemate.attestation.platforms.snp.kds import vcek_url
from casemate.attestation.platforms.snp.normalise import claims_of
from casemate.attestation.platforms.snp.report import Report, SigningKey, parse_report
from casemate.attestation.platforms.snp.revocation import RevocationList, check_revocation, parse_crl, verify_crl
from casemate.attestation.platforms.snp.tcb import Product, parse_tcb, product_of_name
from casemate.errors import UsageError

__all__ = ["SnpVerifier"]

_VEK_CACHE_SIZE = 512


@dataclass(frozen=True)
class _Anchor:
    """A product's verified chain and revocation lists."""

    chain: Chain
    crls: tuple[RevocationList, ...]


class SnpVerifier:
    """The ``Verifier`` of SEV-SNP evidence (``snp``), for all products whose chains it was given.

    ``chains``: product name -> PEM bundle with ARK, ASK and, for VLEKs, ASVK, in any order; or several bundles, one per
    root. ``crls``: product name -> DER or PEM revocation lists. ``veks``: endorsement key certificates to use when the
    evidence brings none. ``require_crl``: without a revocation list the outcome is undecided. ``simulated_ark_pins``:
    product name -> SHA-256 of a simulator's ARK; evidence below it is verified alike, and its claims say ``simulated``.

    Chains, lists and endorsement key certificates are verified once, on first use; dates, revocation and the report at
    every call. Several threads may share a verifier."""

    def __init__(
        self,
        chains: Mapping[str, bytes | Iterable[bytes]],
        *,
        crls: Mapping[str, Iterable[bytes]] | None = None,
        veks: Iterable[bytes] = (),
        require_crl: bool = False,
        simulated_ark_pins: Mapping[str, str] | None = None,
    ) -> None:
        self._bundles = {
            product_of_name(name): (found,) if isinstance(found, bytes) else tuple(found)
            for name, found in chains.items()
        }
        self._crls = {product_of_name(name): tuple(blobs) for name, blobs in (crls or {}).items()}
        self._veks = tuple(veks)
        self._require_crl = require_crl
        self._pins = {product_of_name(name): pin.lower() for name, pin in (simulated_ark_pins or {}).items()}
        if set(self._pins.values()) & set(AMD_ARK_PINS.values()):
            raise UsageError("simulated_ark_pins names an AMD root: a real root never vouches for simulated evidence")
        self._anchors: dict[Product, tuple[_Anchor, ...]] = {}
        self._verified_veks: dict[bytes, tuple[Vek, _Anchor]] = {}  # by the certificate's exact bytes

    def verify(self, evidence: Evidence, *, now: datetime) -> Claims:
        """Claims of genuine evidence; raises the ``RefusedError`` or ``UndecidedError`` that names the failed step."""
        body = parse_body(evidence.body)
        report = parse_report(body.report)
        vek = body.vek or self._pick_vek(report)
        return self._verify(report, vek, now=now, spare=body.issuers)

    def verify_report(self, report: bytes, vek: bytes | None = None, *, now: datetime) -> Claims:
        """As ``verify``, for a raw report (1184 bytes) and the DER certificate of its VCEK or VLEK.

        Without ``vek`` one of those the verifier was built with is taken."""
        parsed = parse_report(report)
        return self._verify(parsed, vek if vek is not None else self._pick_vek(parsed), now=now, spare=())

    def _verify(self, report: Report, vek_der: bytes, *, now: datetime, spare: tuple[bytes, ...]) -> Claims:
        # 1. The report was parsed strictly.             5. Revocation of intermediate and endorsement key.
        # 2. The certificate is of the kind it names.    6. Report, certificate and chain are of one product.
        # 3. Chain from the pinned ARK to it.            7. The report's signature.
        # 4. All three certificates are valid now.       8. Reported TCB and chip are the certificate's.
        if now.tzinfo is None:
            raise UsageError("the time of a verification needs a time zone")
        vek, anchor = self._vek(report, vek_der, spare)  # (2), (3)
        chain = anchor.chain
        issuer = chain.issuer(vek.kind)
        if issuer is None:  # step 3 has refused that already
            raise SnpChainMissingError(f"the chain of {chain.product} has no {vek.kind.issuer_role}")
        for certificate in (chain.ark, issuer, vek.certificate):
            check_validity(certificate, now)  # (4)
        crl_ends = check_revocation(  # (5)
            anchor.crls,
            issuer=issuer,
            vek=vek.certificate,
            kind=vek.kind,
            product=chain.product,
            required=self._require_crl,
            now=now,
        )
        if report.product not in (None, chain.product):  # (6)
            raise SnpProductMismatchError(f"the report is by {report.product}, the {vek.kind} for {chain.product}")
        _verify_signature(report, vek)  # (7)
        _check_tcb(report, vek)  # (8)
        if vek.kind is VekKind.VCEK:
            _check_chip(report, vek)
        ends = [chain.ark.not_after, issuer.not_after, vek.certificate.not_after]
        return claims_of(report, vek, chain, min([*ends, *([crl_ends] if crl_ends else [])]))

    def _vek(self, report: Report, der: bytes, spare: tuple[bytes, ...]) -> tuple[Vek, _Anchor]:
        """The endorsement key and the anchor it was verified under; signatures hold at any time, so once is enough."""
        known = self._verified_veks.get(der)
        if known is not None:
            _check_kind(report, known[0])
            return known
        vek = parse_vek(der)
        _check_kind(report, vek)
        anchors = self._product_anchors(vek, spare)
        # Roots may share a product, not a name: the issuer named in the certificate decides; then the signature.
        issued = [item for item in anchors if _subject(item.chain.issuer(vek.kind)) == vek.certificate.issuer]
        anchor = (issued or anchors)[0]
        verify_vek(vek, anchor.chain)
        if vek.product in self._bundles:  # never on the word of a chain that came with evidence
            if len(self._verified_veks) >= _VEK_CACHE_SIZE:
                self._verified_veks.clear()
            self._verified_veks[der] = (vek, anchor)
        return vek, anchor

    def _product_anchors(self, vek: Vek, spare: tuple[bytes, ...]) -> Sequence[_Anchor]:
        """The verified chains for ``vek``'s product; ``spare`` are untrusted issuers from the evidence.

        The caller's chains are always preferred; one from the evidence must end in a pinned ARK all the same."""
        product = vek.product
        if product in self._anchors:
            return self._anchors[product]
        bundles = [split_certificates(blob) for blob in self._bundles.get(product, ())]
        if not bundles and spare:
            bundles = [list(spare)]
        if not bundles:
            raise SnpChainMissingError(f"chain of {product} ({vek.kind.issuer_role} and ARK): not at hand")
        chains = [build_chain(product, certificates, simulated_pins=self._pins) for certificates in bundles]
        lists: dict[bytes, list[RevocationList]] = {chain.ark.subject: [] for chain in chains}
        for crl in map(parse_crl, self._crls.get(product, ())):
            chain = next((chain for chain in chains if chain.ark.subject == crl.issuer), chains[0])
            verify_crl(crl, chain)
            lists[chain.ark.subject].append(crl)
        anchors = tuple(_Anchor(chain, tuple(lists[chain.ark.subject])) for chain in chains)
        if product in self._bundles:
            self._anchors[product] = anchors
        return anchors

    def _pick_vek(self, report: Report) -> bytes:
        """The certificate given for this chip and TCB; when only one was given, that one, so that checks can judge."""
        if len(self._veks) == 1:
            return self._veks[0]
        for der in self._veks:
            vek = parse_vek(der)
            if _kind(report) is not vek.kind or report.product not in (None, vek.product):
                continue
            if parse_tcb(report.reported_tcb, vek.product) != vek.spl:
                continue
            if vek.hwid is None or report.chip_id == vek.hwid.ljust(64, b"\0"):
                return der
        where = f"; {vcek_url(report)}" if _kind(report) is VekKind.VCEK and report.product else ""
        raise SnpVekMissingError(
            f"no {_kind(report)} certificate for chip {report.chip_id[:8].hex()}…, "
            f"reported TCB {report.reported_tcb.hex()}{where}"
        )


def _subject(certificate: RawCertificate | None) -> bytes | None:
    return certificate.subject if certificate is not None else None


# -- checks ------------------------------------------------------------------------------------------------------------
def _kind(report: Report) -> VekKind:
    return VekKind.VLEK if report.signing_key == SigningKey.VLEK else VekKind.VCEK


def _check_kind(report: Report, vek: Vek) -> None:
    if vek.kind is not _kind(report):
        raise SnpVekKindMismatchError(f"the report is signed by a {_kind(report)}, the certificate is a {vek.kind}'s")
    if report.mask_chip_key and vek.kind is VekKind.VCEK:
        raise SnpChipKeyMaskedError("the report says that the chip key is masked, and that the chip key signed it")


def _verify_signature(report: Report, vek: Vek) -> None:
    signature = encode_dss_signature(report.signature_r, report.signature_s)
    try:
        vek.key.verify(signature, report.signed, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature as exc:
        raise SnpSignatureError(f"the report's signature is not by the {vek.kind} of the certificate") from exc


def _check_tcb(report: Report, vek: Vek) -> None:
    """The key was derived for one TCB: an older, weaker firmware cannot sign with it."""
    reported = parse_tcb(report.reported_tcb, vek.product)
    for component, level in vek.spl.items():
        if reported[component] != level:
            raise SnpTcbMismatchError(
                f"TCB component {component}: the {vek.kind} is for {level}, the report says {reported[component]}"
            )


def _check_chip(report: Report, vek: Vek) -> None:
    if not any(report.chip_id):
        raise SnpChipIdMaskedError("the report's CHIP_ID is all zeros: the host masks it")
    hwid = vek.hwid or b""
    if report.chip_id != hwid.ljust(len(report.chip_id), b"\0"):
        raise SnpHwidMismatchError(f"the VCEK is for chip {hwid[:8].hex()}…, the report by {report.chip_id[:8].hex()}…")
