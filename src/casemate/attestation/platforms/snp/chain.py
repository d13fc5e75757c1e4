"""The chain from a product's pinned root (ARK) over ASK or ASVK to an endorsement key.

Source: AMD publication 57230. All here holds at any time; validity dates and revocation are the verifier's to check."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from casemate.attestation.platforms.snp.certificates import check_issuer_usage, parse_certificate, verify_signature
from casemate.attestation.platforms.snp.der import RawCertificate
from casemate.attestation.platforms.snp.endorsement import Vek, VekKind
from casemate.attestation.platforms.snp.errors import (
    SnpArkUntrustedError,
    SnpCertificateUsageError,
    SnpChainMissingError,
    SnpIssuerMismatchError,
    SnpProductMismatchError,
)
from casemate.attestation.platforms.snp.tcb import Product

__all__ = ["AMD_ARK_PINS", "Chain", "build_chain", "verify_vek"]

# SHA-256 of the ARK certificates' DER. Source: https://kdsintf.amd.com/vcek/v1/{Milan,Genoa,Turin}/cert_chain; three
# other verifiers pin the same values.
AMD_ARK_PINS: Mapping[Product, str] = {
    Product.MILAN: "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd",
    Product.GENOA: "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1",
    Product.TURIN: "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a",
}


@dataclass(frozen=True)
class Chain:
    """A product's ARK, pinned, and the intermediates whose signatures by it were verified."""

    product: Product
    simulated: bool
    ark: RawCertificate
    ask: RawCertificate | None
    asvk: RawCertificate | None

    def issuer(self, kind: VekKind) -> RawCertificate | None:
        return self.ask if kind is VekKind.VCEK else self.asvk


def build_chain(
    product: Product,
    certificates: Iterable[bytes],
    *,
    simulated_pins: Mapping[Product, str],
) -> Chain:
    """The verified chain of ``product`` out of DER ``certificates`` in any order; holds at any time (no dates).

    Which pin matched decides ``simulated``. Raises ``SnpChainMissingError`` without an ARK, ``SnpArkUntrustedError``
    with another than the pinned one, and the error of whichever check of an intermediate fails."""
    parsed = [parse_certificate(der) for der in certificates]
    roots = {item.der: item for item in parsed if item.issuer == item.subject}
    if not roots:
        raise SnpChainMissingError(f"the chain of {product} has no self-issued root (ARK)")
    if len(roots) > 1:
        raise SnpCertificateUsageError(f"the chain of {product} has {len(roots)} roots; a chain ends in one")
    # 1. The root is pinned, bit for bit.
    (ark,) = roots.values()
    digest = hashlib.sha256(ark.der).hexdigest()
    simulated = digest == simulated_pins.get(product)
    if not simulated and digest != AMD_ARK_PINS.get(product):
        raise SnpArkUntrustedError(f"root {ark.subject_cn!r}: SHA-256 {digest} is not pinned for {product}")
    check_issuer_usage(ark)
    verify_signature(ark, ark)
    # 2. Each intermediate was issued by it, and its name says for which kind of endorsement key.
    roles: dict[str, RawCertificate] = {}
    for item in parsed:
        if item.der in roots:
            continue
        if item.issuer != ark.subject:
            raise SnpIssuerMismatchError(
                f"certificate {item.subject_cn!r} was issued by {item.issuer_cn!r}, not {ark.subject_cn!r}"
            )
        verify_signature(item, ark)
        check_issuer_usage(item)
        role = {f"SEV-{product}": "ASK", f"SEV-VLEK-{product}": "ASVK"}.get(item.subject_cn)
        if role is None:
            raise SnpProductMismatchError(f"certificate {item.subject_cn!r} is neither ASK nor ASVK of {product}")
        if role in roles and roles[role].der != item.der:
            raise SnpCertificateUsageError(f"the chain of {product} has two different certificates for the {role}")
        roles[role] = item
    return Chain(product, simulated, ark, roles.get("ASK"), roles.get("ASVK"))


def verify_vek(vek: Vek, chain: Chain) -> None:
    """That ``chain``'s intermediate for the kind of ``vek`` issued it; holds at any time (no dates, no revocation).

    Raises ``SnpIssuerMismatchError``, ``SnpCertificateAlgorithmError`` or ``SnpCertificateSignatureError``, and,
    undecided, ``SnpChainMissingError`` when the chain is a root alone."""
    if chain.ask is None and chain.asvk is None:
        raise SnpChainMissingError(f"the chain of {chain.product} has no {vek.kind.issuer_role}")
    issuer = chain.issuer(vek.kind)
    if issuer is None or vek.certificate.issuer != issuer.subject:
        offered = [item.subject_cn for item in (chain.ask, chain.asvk, chain.ark) if item is not None]
        raise SnpIssuerMismatchError(
            f"the {vek.kind} was issued by {vek.certificate.issuer_cn!r}; need the {vek.kind.issuer_role} of "
            f"{chain.product}, the chain has {', '.join(offered)}"
        )
    verify_signature(vek.certificate, issuer)
    if vek.product is not chain.product:
        raise SnpProductMismatchError(f"the {vek.kind} is for {vek.product}, its chain for {chain.product}")
