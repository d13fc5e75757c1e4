"""NVIDIA attestation reports: an SPDM 1.1 GET_MEASUREMENTS request, its response, and a P-384 signature over both.

DMTF DSP0274 1.1, 10.11; the opaque data is NVIDIA's own: (u16 type, u16 size, bytes), little endian like all the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from casemate.attestation.platforms.gpu.errors import (
    GpuMeasurementError,
    GpuOpaqueDataError,
    GpuOversizedError,
    GpuSpdmMessageError,
    GpuTrailingBytesError,
    GpuTruncatedError,
)
from casemate.attestation.wire import Reader

__all__ = ["NONCE_SIZE", "SIGNATURE_SIZE", "GpuReport", "parse_report"]

MAX_REPORT_BYTES = 64 * 1024
SIGNATURE_SIZE = 96  # r and s of P-384, big endian
NONCE_SIZE = 32
FWID_SIZE = 48
_SPDM_1_1 = 0x11
_GET_MEASUREMENTS, _MEASUREMENTS = 0xE0, 0x60
_SIGNATURE_REQUESTED = 0x01
_ALL_MEASUREMENTS = 0xFF
_DMTF = 0x01
_RAW = 0x80  # in the measurement's type: the value itself, not its digest

_FIELDS = {
    1: "certificate_issuer",
    2: "authority_key_id",
    3: "driver_version",
    4: "gpu_info",
    5: "sku",
    6: "vbios_version",
    7: "manufacturer_id",
    8: "tamper_detection",
    9: "smc",
    10: "vpr",
    11: "nvdec0_status",
    12: "measurement_count",
    13: "cpr_info",
    14: "board_id",
    15: "chip_sku",
    16: "chip_sku_mod",
    17: "project",
    18: "project_sku",
    19: "project_sku_mod",
    20: "fwid",
    21: "protected_pcie_status",
}
_TEXTS = frozenset({"driver_version", "nvdec0_status", "chip_sku", "chip_sku_mod", "project", "project_sku"}) | {
    "project_sku_mod",
    "protected_pcie_status",
}


@dataclass(frozen=True, slots=True)
class GpuReport:
    """A report's content; proves nothing before its signature is verified over ``signed``."""

    nonce: bytes
    measurements: Mapping[int, bytes]
    opaque: Mapping[str, Any]
    signed: bytes
    signature: bytes

    @property
    def firmware_id(self) -> str | None:
        value = self.opaque.get("fwid")
        return value if isinstance(value, str) else None


def parse_report(raw: bytes) -> GpuReport:
    """Read a report of some 4000 bytes; raises one of this platform's ``MalformedEvidenceError`` classes."""
    if len(raw) > MAX_REPORT_BYTES:
        raise GpuOversizedError(f"GPU report: {len(raw)} bytes, at most {MAX_REPORT_BYTES}")
    if len(raw) < SIGNATURE_SIZE:
        raise GpuTruncatedError(f"GPU report: {len(raw)} bytes, the signature alone has {SIGNATURE_SIZE}")
    reader = Reader(raw[:-SIGNATURE_SIZE], name="GPU report", truncated=GpuTruncatedError, order="little")
    nonce = _parse_request(reader)
    _expect(reader, "response", version=_SPDM_1_1, code=_MEASUREMENTS)
    reader.take(2, "response parameters")
    count = reader.u8("number of blocks")
    record = reader.take(int.from_bytes(reader.take(3, "record size"), "little"), "measurement record")
    reader.take(NONCE_SIZE, "response nonce")
    opaque = reader.take(reader.u16("opaque size"), "opaque data")
    if reader.left:
        raise GpuTrailingBytesError(f"GPU report: {reader.left} bytes between the opaque data and the signature")
    return GpuReport(
        nonce=nonce,
        measurements=_parse_record(record, count),
        opaque=_parse_opaque(opaque),
        signed=raw[:-SIGNATURE_SIZE],
        signature=raw[-SIGNATURE_SIZE:],
    )


def _parse_request(reader: Reader) -> bytes:
    _expect(reader, "request", version=_SPDM_1_1, code=_GET_MEASUREMENTS)
    attributes, operation = reader.u8("request attributes"), reader.u8("measurement operation")
    if attributes & _SIGNATURE_REQUESTED == 0 or operation != _ALL_MEASUREMENTS:
        raise GpuSpdmMessageError(f"GPU request: attributes {attributes:#x}, operation {operation:#x}; need 0x1, 0xff")
    nonce = reader.take(NONCE_SIZE, "request nonce")
    reader.u8("slot")
    return nonce


def _expect(reader: Reader, what: str, *, version: int, code: int) -> None:
    got = (reader.u8(f"{what} SPDM version"), reader.u8(f"{what} code"))
    if got != (version, code):
        raise GpuSpdmMessageError(f"GPU {what}: version and code {got[0]:#x} {got[1]:#x}, need {version:#x} {code:#x}")


def _parse_record(raw: bytes, count: int) -> dict[int, bytes]:
    reader = Reader(raw, name="GPU measurement record", truncated=GpuMeasurementError, order="little")
    measurements: dict[int, bytes] = {}
    for _ in range(count):
        index, specification, size = reader.u8("index"), reader.u8("specification"), reader.u16("block size")
        block = Reader(
            reader.take(size, "block"), name=f"GPU measurement {index}", truncated=GpuMeasurementError, order="little"
        )
        kind, value = block.u8("type"), block.take(block.u16("value size"), "value")
        if specification != _DMTF or block.left or index in measurements or index == 0:
            raise GpuMeasurementError(f"GPU measurement {index}: not one DMTF block, or it comes twice")
        if not kind & _RAW and len(value) not in (32, 48, 64):
            raise GpuMeasurementError(f"GPU measurement {index}: a digest of {len(value)} bytes")
        measurements[index] = value
    if reader.left or not measurements:
        raise GpuMeasurementError(f"GPU measurement record: {count} blocks, and {reader.left} bytes after them")
    return measurements


def _parse_opaque(raw: bytes) -> dict[str, Any]:
    reader = Reader(raw, name="GPU opaque data", truncated=GpuOpaqueDataError, order="little")
    fields: dict[str, Any] = {}
    while reader.left:
        kind = reader.u16("field type")
        name = _FIELDS.get(kind, f"field_{kind}")
        value = reader.take(reader.u16("field size"), name)
        if name in fields:
            raise GpuOpaqueDataError(f"GPU opaque data: {name} comes twice")
        fields[name] = _read_field(name, value)
    return fields


def _read_field(name: str, value: bytes) -> Any:
    """Text where NVIDIA writes text, a count per measurement, a dotted VBIOS version; hex for everything else."""
    if name == "vbios_version" and len(value) == 8:
        high, low = value[3::-1], value[4:5]
        return ".".join(f"{byte:02x}" for byte in high + low)
    if name == "measurement_count" and len(value) % 4 == 0:
        return {str(i // 4 + 1): int.from_bytes(value[i : i + 4], "little") for i in range(0, len(value), 4)}
    if name == "fwid" and len(value) != FWID_SIZE:
        raise GpuOpaqueDataError(f"GPU opaque data: fwid of {len(value)} bytes, need {FWID_SIZE}")
    text = value.rstrip(b"\0")
    if name in _TEXTS and text and text.isascii() and text.decode("ascii").isprintable():
        return text.decode("ascii")
    return value.hex()
