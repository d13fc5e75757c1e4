"""The certificate table that an SEV-SNP host may give with a report (GHCB specification 2.03, section 4.1.8.1).

Entries of a GUID, an offset and a length, ended by an entry of zeros; the certificates follow. The host wrote it, so it
is a convenience: the verifier believes none of it without a chain to AMD's root.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from casemate.attestation.platforms.linux.errors import TsmCertificateTableError
from casemate.attestation.wire import Reader

__all__ = ["CERTIFICATE_GUIDS", "endorsement_key", "parse_certificate_table"]

MAX_TABLE_BYTES = 1024 * 1024
MAX_ENTRIES = 64
ENTRY_SIZE = 24
CERTIFICATE_GUIDS = {
    "c0b406a4-a803-4952-9743-3fb6014cd0ae": "ARK",
    "4ab7b379-bbac-4fe4-a02f-05aef327c782": "ASK",
    "63da758d-e664-4564-adc5-f4b93be8accd": "VCEK",
    "a8074bc2-a25a-483e-aae6-39c045a0b8a1": "VLEK",
    "92f81bc3-5811-4d3d-97ff-d19f88dc67ea": "CRL",
}


def parse_certificate_table(raw: bytes) -> dict[str, bytes]:
    """Certificates by name (``VCEK``, ``ASK`` ...), unknown ones by GUID; an empty table is none.

    Raises ``TsmCertificateTableError``."""
    if len(raw) > MAX_TABLE_BYTES:
        raise TsmCertificateTableError(f"certificate table: {len(raw)} bytes, at most {MAX_TABLE_BYTES}")
    if not raw:
        return {}
    reader = Reader(raw, name="certificate table", truncated=TsmCertificateTableError, order="little")
    entries: dict[str, tuple[int, int]] = {}
    while True:
        guid = uuid.UUID(bytes_le=reader.take(16, "GUID"))  # GUIDs are stored as UEFI stores them
        offset, length = reader.u32("offset"), reader.u32("length")
        if guid.int == 0 and length == 0:
            break
        name = CERTIFICATE_GUIDS.get(str(guid), str(guid))
        if name in entries or len(entries) == MAX_ENTRIES:
            raise TsmCertificateTableError(f"certificate table: {name} comes twice, or more than {MAX_ENTRIES} entries")
        entries[name] = offset, length
    certificates: dict[str, bytes] = {}
    for name, (offset, length) in entries.items():
        if offset < reader.offset or length == 0 or offset + length > len(raw):
            raise TsmCertificateTableError(f"certificate table: {name} at {offset}, {length} bytes, of {len(raw)}")
        certificates[name] = raw[offset : offset + length]
    return certificates


def endorsement_key(certificates: Mapping[str, bytes]) -> tuple[str, bytes] | None:
    """The kind and DER of the key that signs reports: VLEK before VCEK, since a host that loads one signs with it."""
    for kind in ("VLEK", "VCEK"):
        if kind in certificates:
            return kind, certificates[kind]
    return None
