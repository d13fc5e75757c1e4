"""Make sets of collateral out of whatever a bundle has, and verify all of it. No network, disk or clock.

A whole set (``QuoteCollateralV3`` JSON) stands as it is. Loose pieces (replies of a PCS, certificates, revocation
lists) are put together, newest first, with what is kept filling the gaps; a lone new revocation list so renews every
set it belongs to. One piece that does not verify refuses the import."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from casemate.attestation.collateral import amd, intel
from casemate.attestation.collateral.errors import BundleMalformedError
from casemate.attestation.endorsements import common_name, pem_of, sort_endorsements
from casemate.attestation.errors import CollateralMissingError
from casemate.attestation.platforms.intel.collateral import Collateral, parse_collateral
from casemate.attestation.platforms.intel.errors import CollateralMalformedError
from casemate.attestation.platforms.intel.layouts import read_pieces
from casemate.attestation.platforms.intel.quote import pem_certificates
from casemate.attestation.platforms.snp.collateral import sort_collateral
from casemate.attestation.trust import is_intel_root
from casemate.attestation.trust_errors import TrustAnchorError
from casemate.errors import CasemateError

__all__ = ["Imported", "TrustedRoot", "import_files"]

_SUFFIXES = (".json", ".pem", ".crt", ".cer", ".der", ".crl")
_WHOLE = ("tcb_info", "qe_identity", "root_ca_crl", "pck_crl", "tcb_info_issuer_chain")
_PARSE_ERRORS = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion)
_QE_OF = {"sgx": "QE", "tdx": "TD_QE"}


@dataclass(frozen=True)
class TrustedRoot:
    """The roots an import is verified under: the makers' pinned ones, or one that was named (DER), Intel's or AMD's."""

    intel: bytes | None = None
    amd: bytes | None = None

    @classmethod
    def of(cls, der: bytes) -> TrustedRoot:
        found = sort_endorsements([der])
        return cls(amd=found.amd[0]) if found.amd else cls(intel=der)


@dataclass(frozen=True)
class Imported:
    """Verified and current at the time given; ``ignored`` are files that are no collateral."""

    intel: tuple[Collateral, ...] = ()
    amd: tuple[amd.AmdSet, ...] = ()
    ignored: tuple[str, ...] = ()


@dataclass
class _Heap:
    """Unverified pieces, in the order they were found."""

    documents: list[dict[str, str]] = field(default_factory=list)
    certificates: list[bytes] = field(default_factory=list)
    crls: list[bytes] = field(default_factory=list)
    amd: list[bytes] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)


def import_files(
    files: Iterable[tuple[str, bytes]],
    *,
    now: datetime,
    root: TrustedRoot | None = None,
    kept_intel: Sequence[Collateral] = (),
    kept_amd: Sequence[amd.AmdSet] = (),
) -> Imported:
    """The sets that ``files`` (name, content) make; raises the error of the first piece that is not in order.

    Refused: malformed, unsigned, revoked or future pieces. Undecided: missing and expired ones, by name."""
    # 1. Tell the files apart.     2. Intel: whole sets, then loose pieces.     3. AMD.     4. Dates of all.
    root = root or TrustedRoot()
    heap = _sorted(files)  # (1)
    whole = [one for one in heap.documents if all(name in one for name in _WHOLE)]
    loose = [one for one in heap.documents if one not in whole]
    sets = [parse_collateral(json.dumps(one)) for one in whole]  # (2)
    if loose or heap.crls:
        try:
            sets += _assembled(loose, heap, [*sets, *kept_intel], root.intel)
        except _PARSE_ERRORS as exc:
            raise CollateralMalformedError(f"a certificate or revocation list does not parse ({exc})") from exc
    for one in sets:
        intel.verify_collateral(one, root.intel)
    pins = amd.pin_of(root.amd) if root.amd is not None else None
    named = [root.amd] if root.amd is not None and heap.amd else []
    found = sort_collateral([*heap.amd, *named]) if heap.amd else None  # (3)
    products = amd.verify_endorsements(found, kept=kept_amd, pins=pins) if found is not None else ()
    if not sets and not products:
        raise BundleMalformedError(f"bundle: no collateral in {len(heap.ignored)} files: {', '.join(heap.ignored[:5])}")
    for one in sets:  # (4)
        intel.check_dates(one, now)
    for product in products:
        amd.check_dates(product, now)
    return Imported(tuple(sets), products, tuple(heap.ignored))


def _sorted(files: Iterable[tuple[str, bytes]]) -> _Heap:
    heap, count = _Heap(), 0
    for count, (name, content) in enumerate(files, start=1):
        try:
            if content.lstrip()[:1] == b"{":
                heap.documents.append(read_pieces(content.decode("utf-8")))
                continue
            found = sort_endorsements([content])
        except (CasemateError, UnicodeDecodeError) as exc:
            if name.lower().endswith(_SUFFIXES) or (count == 1 and "/" not in name and not heap.ignored):
                if isinstance(exc, CollateralMalformedError):
                    raise type(exc)(f"{name}: {exc.message}") from exc
                raise BundleMalformedError(f"{name}: {exc}") from exc
            heap.ignored.append(name)
            continue
        heap.certificates += found.intel
        heap.crls += found.intel_crls
        heap.amd += [*found.amd, *found.amd_crls]
        if not any((found.intel, found.intel_crls, found.amd, found.amd_crls)):
            heap.ignored.append(name)
    return heap


# -- loose pieces of Intel's -------------------------------------------------------------------------------------------
def _assembled(
    loose: list[dict[str, str]], heap: _Heap, known: Sequence[Collateral], root: bytes | None
) -> Iterator[Collateral]:
    # 1. The root, and every certificate at hand.       3. One set for each TCB info and PCK CRL that go together.
    # 2. Every list, identity and TCB info at hand.     4. Or, without a TCB info, the sets that the rest renews.
    certificates = [*heap.certificates, *_chains(loose), *_chains(one.document for one in known)]
    anchor = root if root is not None else _intel_root(certificates)  # (1)
    subject = x509.load_der_x509_certificate(anchor).subject
    known = [one for one in known if one.root == anchor]
    lists = [*heap.crls, *_lists(loose)]
    issuers_known = [x509.load_der_x509_certificate(der).subject for der in (*certificates, anchor)]
    for issuer in (x509.load_der_x509_crl(der).issuer for der in lists):
        if issuer not in issuers_known:
            raise CollateralMissingError(f"certificate of {common_name(issuer)!r}: neither given nor kept")
    pool = [x509.load_der_x509_crl(der) for der in (*lists, *_lists(one.document for one in known))]  # (2)
    root_crl = _newest([crl for crl in pool if crl.issuer == subject])
    issuers = {crl.issuer.public_bytes(): crl.issuer for crl in pool if crl.issuer != subject}
    identities = [one for one in (*loose, *(kept.document for kept in known)) if "qe_identity" in one]
    given = [one for one in loose if "tcb_info" in one]
    jobs = [(one, issuer) for one in given for issuer in issuers.values()]  # (3)
    if not given:  # (4)
        jobs = [(one.document, one.crl("pck_crl").issuer) for one in known]
    elif not issuers:
        raise CollateralMissingError("PCK CRL: neither given nor kept")
    if not jobs:
        raise CollateralMissingError("TCB info: neither given nor kept")
    for document, issuer in jobs:
        tee = _member(document, "tcb_info", "id").lower()
        matching = [one for one in identities if _member(one, "qe_identity", "id") == _QE_OF.get(tee)]
        if not matching:
            raise CollateralMissingError(f"QE identity for {tee}: neither given nor kept")
        if root_crl is None:
            raise CollateralMissingError("root CA CRL: neither given nor kept")
        identity = max(matching, key=lambda one: _member(one, "qe_identity", "issueDate"))
        pck_crl = _newest([crl for crl in pool if crl.issuer == issuer])
        assert pck_crl is not None  # noqa: S101  (its issuer is known from it)
        pieces = {
            **_signed_piece("tcb_info", document, certificates, anchor),
            **_signed_piece("qe_identity", identity, certificates, anchor),
            "root_ca_crl": root_crl.public_bytes(Encoding.DER).hex(),
            "pck_crl": pck_crl.public_bytes(Encoding.DER).hex(),
            "pck_crl_issuer_chain": _issuer_chain(issuer, certificates, anchor),
        }
        yield parse_collateral(json.dumps(pieces))


def _signed_piece(name: str, document: dict[str, str], certificates: list[bytes], anchor: bytes) -> dict[str, str]:
    """A signed text, its signature and its issuer chain: its own, or the certificate at hand that signed it."""
    out = {member: document[member] for member in (name, f"{name}_signature") if member in document}
    if len(out) < 2:
        raise CollateralMissingError(f"signature of the {name.replace('_', ' ')}: not given")
    chain = document.get(f"{name}_issuer_chain")
    if chain is None:
        signature = bytes.fromhex(out[f"{name}_signature"])
        for der in certificates:
            if intel.signed_by(out[name].encode(), signature, x509.load_der_x509_certificate(der)):
                chain = pem_of([der, anchor])
                break
        else:
            raise CollateralMissingError(
                f"certificate of the {name.replace('_', ' ')}'s signer: neither given nor kept"
            )
    return {**out, f"{name}_issuer_chain": chain}


def _issuer_chain(issuer: x509.Name, certificates: list[bytes], anchor: bytes) -> str:
    for der in certificates:
        if x509.load_der_x509_certificate(der).subject == issuer:
            return pem_of([der, anchor])
    raise CollateralMissingError(f"certificate of {common_name(issuer)!r}: neither given nor kept")


def _intel_root(certificates: list[bytes]) -> bytes:
    for der in certificates:
        try:
            if is_intel_root(der):
                return der
        except TrustAnchorError:
            continue
    raise CollateralMissingError("Intel SGX Root CA certificate: neither given nor kept")


def _newest(crls: list[x509.CertificateRevocationList]) -> x509.CertificateRevocationList | None:
    return max(crls, key=lambda crl: crl.last_update_utc, default=None)


def _chains(documents: Iterable[dict[str, Any]]) -> list[bytes]:
    texts = [text for one in documents for name, text in one.items() if name.endswith("_chain")]
    return list(dict.fromkeys(der for text in texts for der in pem_certificates(text.encode())))


def _lists(documents: Iterable[dict[str, Any]]) -> list[bytes]:
    return [bytes.fromhex(one[name]) for one in documents for name in ("root_ca_crl", "pck_crl") if name in one]


def _member(document: dict[str, str], name: str, member: str) -> str:
    try:
        return str(json.loads(document[name])[member])
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise CollateralMalformedError(f"collateral: {name.replace('_', ' ')} has no {member}") from exc
