"""Sort a heap of endorsement files by what is in them: AMD's, Intel's, other makers' certificates, keys, CRLs.

Sorting trusts nothing. Each platform's verifier takes from the heap what it can use, and checks every signature.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from casemate.attestation.errors import MalformedEvidenceError
from casemate.attestation.platforms.snp.der import read_certificate, read_element
from casemate.attestation.platforms.snp.errors import SnpCertificateMalformedError
from casemate.errors import CasemateError

__all__ = ["EndorsementMalformedError", "Endorsements", "common_name", "pem_of", "sort_endorsements"]

MAX_FILE_BYTES = 8 * 1024 * 1024
MAX_PIECES = 256
_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----([A-Za-z0-9+/=\s]{1,4000000}?)-----END \1-----")
_PARSE_ERRORS = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion)


class EndorsementMalformedError(MalformedEvidenceError):
    """A file given as a certificate is no certificate, revocation list or public key, in DER or PEM."""

    code = "endorsement-malformed"
    fix = "Give certificates, revocation lists and public keys in DER or PEM."


@dataclass(frozen=True)
class Endorsements:
    """Unverified, each piece DER: AMD's (ARK, ASK, ASVK, VCEK, VLEK), Intel's, all others; public keys as SPKI."""

    amd: tuple[bytes, ...] = ()
    amd_crls: tuple[bytes, ...] = ()
    intel: tuple[bytes, ...] = ()
    intel_crls: tuple[bytes, ...] = ()
    certificates: tuple[bytes, ...] = ()
    crls: tuple[bytes, ...] = ()
    keys: tuple[bytes, ...] = ()


def sort_endorsements(files: Iterable[bytes]) -> Endorsements:
    """Sort certificates, revocation lists and public keys, each file one or several of them, in DER or PEM.

    Raises ``EndorsementMalformedError``."""
    found: dict[str, list[bytes]] = {name: [] for name in Endorsements.__dataclass_fields__}
    for content in files:
        for der in _pieces(content):
            place = found[_place(der)]
            if der not in place:
                place.append(der)
    return Endorsements(**{name: tuple(ders) for name, ders in found.items()})


def pem_of(ders: Iterable[bytes]) -> str:
    """Certificates as one PEM text."""
    return "".join(
        f"-----BEGIN CERTIFICATE-----\n{base64.encodebytes(der).decode()}-----END CERTIFICATE-----\n" for der in ders
    )


def _pieces(content: bytes) -> Iterator[bytes]:
    if len(content) > MAX_FILE_BYTES:
        raise EndorsementMalformedError(f"certificate file: {len(content)} bytes, at most {MAX_FILE_BYTES}")
    if content.lstrip()[:1] == b"\x30" and not content.isascii():
        yield from _der_pieces(content)
        return
    matches = list(_PEM.finditer(content))
    if not 0 < len(matches) <= MAX_PIECES:
        raise EndorsementMalformedError(f"certificate file: {len(matches)} PEM blocks, need 1 to {MAX_PIECES}")
    for match in matches:
        try:
            yield base64.b64decode(b"".join(match[2].split()), validate=True)
        except ValueError as exc:
            raise EndorsementMalformedError("certificate file: a PEM block is not base64") from exc


def _der_pieces(content: bytes) -> Iterator[bytes]:
    """One DER document, or several certificates in a row."""
    found: list[bytes] = []
    try:
        offset = 0
        while offset < len(content) and len(found) < MAX_PIECES:
            element, offset = read_element(content, offset)
            found.append(element.raw)
    except SnpCertificateMalformedError:  # longer than any certificate: a revocation list
        found = [content]
    yield from found


def _place(der: bytes) -> str:
    try:
        certificate = read_certificate(der)
        names: tuple[str, str] | None = (certificate.subject_cn, certificate.issuer_cn)
    except CasemateError:
        names = None
    if names and (names[0].startswith(("ARK-", "SEV-")) or names[1].startswith(("ARK-", "SEV-"))):
        return "amd"
    try:
        name = common_name(x509.load_der_x509_certificate(der).subject)
        return "intel" if _is_intel(name) else "certificates"
    except _PARSE_ERRORS:
        pass
    try:
        name = common_name(x509.load_der_x509_crl(der).issuer)
        return "amd_crls" if name.startswith("ARK-") else "intel_crls" if _is_intel(name) else "crls"
    except _PARSE_ERRORS:
        pass
    try:
        load_der_public_key(der).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return "keys"
    except _PARSE_ERRORS:
        pass
    raise EndorsementMalformedError(
        f"certificate file: {len(der)} bytes, no certificate, revocation list or public key"
    )


def common_name(name: x509.Name) -> str:
    """The first common name, or nothing."""
    found = name.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""


def _is_intel(name: str) -> bool:
    return "SGX" in name
