"""Processor products and their TCB versions: which byte of the 8-byte ``TCB_VERSION`` is which component.

AMD publications 56860 (SEV-SNP Firmware ABI), TCB_VERSION, and 57230 (VCEK certificate and KDS interface)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from casemate.attestation.platforms.snp.errors import SnpProductUnknownError, SnpReportReservedError

__all__ = ["TCB_SIZE", "Product", "encode_tcb", "parse_tcb", "product_of_cpuid", "product_of_name", "tcb_components"]

TCB_SIZE = 8  # bytes

_LAYOUT_MILAN = ("bootloader", "tee", None, None, None, None, "snp", "microcode")
_LAYOUT_TURIN = ("fmc", "bootloader", "tee", "snp", None, None, None, "microcode")


class Product(StrEnum):
    """A processor line with a root key (ARK) of its own, by AMD's name. Bergamo and Siena are signed as Genoa."""

    MILAN = "Milan"
    GENOA = "Genoa"
    TURIN = "Turin"

    @property
    def hwid_size(self) -> int:
        """Bytes of the hardware identity in VCEK certificates and, zero-padded to 64, in CHIP_ID."""
        return 8 if self is Product.TURIN else 64

    @property
    def layout(self) -> tuple[str | None, ...]:
        """Component name of each byte of a TCB version, ``None`` where the byte is reserved."""
        return _LAYOUT_TURIN if self is Product.TURIN else _LAYOUT_MILAN


def tcb_components(product: Product) -> tuple[str, ...]:
    """Names of the components whose security patch levels make up a TCB version of ``product``."""
    return tuple(name for name in product.layout if name is not None)


def parse_tcb(raw: bytes, product: Product) -> dict[str, int]:
    """Component -> security patch level of an 8-byte TCB version; raises ``SnpReportReservedError``."""
    levels: dict[str, int] = {}
    for name, level in zip(product.layout, raw, strict=True):
        if name is not None:
            levels[name] = level
        elif level:
            raise SnpReportReservedError(f"TCB version {raw.hex()}: a byte that {product} reserves is not zero")
    return levels


def encode_tcb(levels: Mapping[str, int], product: Product) -> bytes:
    """The 8 bytes of a TCB version; the reverse of ``parse_tcb``. Components that are not named are 0."""
    return bytes(levels.get(name, 0) if name is not None else 0 for name in product.layout)


def product_of_cpuid(family: int, model: int) -> Product:
    """The product of a CPUID family and model as reports carry them; raises ``SnpProductUnknownError``.

    AMD processor programming references: 19h 00-0F Milan; 19h 10-1F Genoa, A0-AF Bergamo and Siena; 1Ah 00-1F Turin."""
    if family == 0x19 and model <= 0x0F:
        return Product.MILAN
    if family == 0x19 and (0x10 <= model <= 0x1F or 0xA0 <= model <= 0xAF):
        return Product.GENOA
    if family == 0x1A and model <= 0x1F:
        return Product.TURIN
    raise SnpProductUnknownError(f"processor family {family:#x}, model {model:#x}: no product known")


def product_of_name(name: str) -> Product:
    """The product of a name as certificates carry it, with or without stepping (``Milan-B0``)."""
    try:
        return Product(name.partition("-")[0])
    except ValueError:
        raise SnpProductUnknownError(f"product {name!r}: known are {', '.join(Product)}") from None
