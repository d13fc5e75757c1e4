"""Sort a heap of AMD's certificates and revocation lists, as files hold them, into what a verifier is built with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from casemate.attestation.platforms.snp.certificates import split_certificates
from casemate.attestation.platforms.snp.der import read_certificate
from casemate.attestation.platforms.snp.errors import SnpCertificateMalformedError, SnpProductUnknownError
from casemate.attestation.platforms.snp.revocation import parse_crl
from casemate.attestation.platforms.snp.tcb import Product
from casemate.errors import RefusedError

__all__ = ["SnpCollateral", "sort_collateral"]

_CRL_LABEL = b"-----BEGIN X509 CRL-----"


@dataclass(frozen=True)
class SnpCollateral:
    """Unverified, by product: ``chains`` as DER certificates in a row; ``veks`` of every product."""

    chains: dict[str, bytes]
    crls: dict[str, list[bytes]]
    veks: list[bytes]


def sort_collateral(blobs: Iterable[bytes]) -> SnpCollateral:
    """Tell chains, endorsement keys and revocation lists apart, each blob DER or PEM, by the common names in them.

    Sorting trusts nothing: the verifier checks every signature. The same certificate twice counts once.
    Raises ``SnpCertificateMalformedError``, ``SnpCrlMalformedError`` or ``SnpProductUnknownError``."""
    chains: dict[str, list[bytes]] = {}
    crls: dict[str, list[bytes]] = {}
    veks: list[bytes] = []
    for blob in blobs:
        if blob.lstrip().startswith(_CRL_LABEL) or _is_der_crl(blob):
            crls.setdefault(_product(parse_crl(blob).issuer_cn), []).append(blob)
            continue
        for der in split_certificates(blob):
            name = read_certificate(der).subject_cn
            found = veks if name in ("SEV-VCEK", "SEV-VLEK") else chains.setdefault(_product(name), [])
            if der not in found:
                found.append(der)
    return SnpCollateral({product: b"".join(ders) for product, ders in chains.items()}, crls, veks)


def _is_der_crl(blob: bytes) -> bool:
    """A DER blob that is no certificate, and is a revocation list."""
    if blob.lstrip().startswith(b"-----"):
        return False
    try:
        split = split_certificates(blob)
        read_certificate(split[0] if split else b"")
    except SnpCertificateMalformedError:
        try:
            parse_crl(blob)
        except RefusedError:
            return False
        return True
    except RefusedError:
        return False
    return False


def _product(common_name: str) -> str:
    """``ARK-Milan``, ``SEV-Milan``, ``SEV-VLEK-Milan`` -> ``Milan``."""
    name = common_name.rpartition("-")[2]
    if name not in set(Product):
        raise SnpProductUnknownError(f"certificate or list of {common_name!r}: known products are {', '.join(Product)}")
    return name
