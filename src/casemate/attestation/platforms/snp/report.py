"""Parse SEV-SNP attestation reports, versions 2 to 5; no signature is checked here.

Layout: AMD publication 56860 (SEV Secure Nested Paging Firmware ABI), ATTESTATION_REPORT. All numbers little-endian.
Version 3 added the processor's CPUID, version 5 the mitigation vectors; what version 4 added AMD has not published."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from casemate.attestation.platforms.snp.errors import (
    SnpPolicyBitError,
    SnpReportReservedError,
    SnpReportTrailingBytesError,
    SnpReportTruncatedError,
    SnpReportVersionError,
    SnpReportVmplError,
    SnpSignatureAlgorithmError,
    SnpSignatureRangeError,
    SnpSigningKeyError,
)
from casemate.attestation.platforms.snp.tcb import Product, product_of_cpuid

__all__ = [
    "KEY_INFO",
    "P384_ORDER",
    "PLATFORM_INFO_BITS",
    "POLICY_BITS",
    "REPORT_SIZE",
    "SIGNATURE_NUMBER_SIZE",
    "SIGNED_SIZE",
    "VERSIONS",
    "Report",
    "SigningKey",
    "parse_report",
]

REPORT_SIZE = 0x4A0  # bytes
SIGNED_SIZE = 0x2A0  # the signature covers [0, 0x2A0)
SIGNATURE_NUMBER_SIZE = 72  # r, then s, each little-endian and zero-extended
KEY_INFO = 0x48  # offset of AUTHOR_KEY_EN (bit 0), MASK_CHIP_KEY (bit 1), SIGNING_KEY (bits 4:2)
VERSIONS = range(2, 6)
P384_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973

# Names of the ABI, lower case. Policy bits 7:0 and 15:8 are the ABI version, 17 must be one, 63:26 must be zero.
POLICY_BITS = {
    "smt": 16,
    "migrate_ma": 18,
    "debug": 19,
    "single_socket": 20,
    "cxl_allow": 21,
    "mem_aes_256_xts": 22,
    "rapl_dis": 23,
    "ciphertext_hiding_dram": 24,
    "page_swap_disable": 25,
}
_POLICY_MUST_BE_ONE = 1 << 17
_POLICY_RESERVED = (1 << 64) - (1 << 26)
# Further bits of PLATFORM_INFO are reported as a number only: they describe the host, and firmware updates add some.
PLATFORM_INFO_BITS = {
    "smt_en": 0,
    "tsme_en": 1,
    "ecc_en": 2,
    "rapl_dis": 3,
    "ciphertext_hiding_dram_en": 4,
    "alias_check_complete": 5,
    "tio_en": 7,
}

_ECDSA_P384_SHA384 = 1


class SigningKey:
    """Values of SIGNING_KEY that name a key."""

    VCEK = 0
    VLEK = 1


@dataclass(frozen=True)
class Report:
    """One attestation report, well-formed; fields by the ABI's names, TCB versions as raw 8 bytes.

    ``None`` stands for a field that the report's version does not have. ``signed`` is what the signature covers."""

    version: int
    guest_svn: int
    policy: int
    family_id: bytes
    image_id: bytes
    vmpl: int
    current_tcb: bytes
    platform_info: int
    author_key_en: bool
    mask_chip_key: bool
    signing_key: int
    report_data: bytes
    measurement: bytes
    host_data: bytes
    id_key_digest: bytes
    author_key_digest: bytes
    report_id: bytes
    report_id_ma: bytes
    reported_tcb: bytes
    cpuid_fam_id: int | None
    cpuid_mod_id: int | None
    cpuid_step: int | None
    chip_id: bytes
    committed_tcb: bytes
    current_version: tuple[int, int, int]  # major, minor, build
    committed_version: tuple[int, int, int]
    launch_tcb: bytes
    launch_mit_vector: int | None
    current_mit_vector: int | None
    signature_r: int
    signature_s: int
    signed: bytes

    def policy_bit(self, name: str) -> bool:
        """A guest policy bit by the ABI's name, lower case (``debug``, ``migrate_ma``)."""
        return bool(self.policy >> POLICY_BITS[name] & 1)

    @property
    def product(self) -> Product | None:
        """The product of the reporting processor; ``None`` in version 2. Raises ``SnpProductUnknownError``."""
        if self.cpuid_fam_id is None or self.cpuid_mod_id is None:
            return None
        return product_of_cpuid(self.cpuid_fam_id, self.cpuid_mod_id)


def parse_report(raw: bytes) -> Report:
    """Read exactly ``REPORT_SIZE`` bytes; any field the ABI fixes is checked, so that no reader can see another value.

    Raises the ``MalformedEvidenceError`` that names the field, or ``SnpSignatureRangeError``."""
    # 1. Size, version, reserved fields.
    if len(raw) < REPORT_SIZE:
        raise SnpReportTruncatedError(f"attestation report: got {len(raw)} bytes, need {REPORT_SIZE}")
    if len(raw) > REPORT_SIZE:
        raise SnpReportTrailingBytesError(f"attestation report: got {len(raw)} bytes, need {REPORT_SIZE}")
    raw = bytes(raw)
    version, guest_svn, policy = struct.unpack_from("<IIQ", raw, 0x000)
    vmpl, signature_algo = struct.unpack_from("<II", raw, 0x030)
    (platform_info,) = struct.unpack_from("<Q", raw, 0x040)
    (key_info,) = struct.unpack_from("<I", raw, KEY_INFO)
    if version not in VERSIONS:
        raise SnpReportVersionError(
            f"attestation report version {version}: read are {VERSIONS.start} to {VERSIONS.stop - 1}"
        )
    _check_reserved(raw, version)
    # 2. Fields with one legal value, or few.
    if policy & _POLICY_RESERVED:
        raise SnpReportReservedError(f"guest policy {policy:#x}: bits 63:26 must be zero")
    if not policy & _POLICY_MUST_BE_ONE:
        raise SnpPolicyBitError(f"guest policy {policy:#x}: bit 17 must be one")
    if vmpl > 3:
        raise SnpReportVmplError(f"VMPL {vmpl:#x}: a guest has 0 to 3")
    if signature_algo != _ECDSA_P384_SHA384:
        raise SnpSignatureAlgorithmError(f"signature algorithm {signature_algo}: need 1 (ECDSA P-384 with SHA-384)")
    if key_info >> 5:
        raise SnpReportReservedError(f"key information {key_info:#x}: bits 31:5 must be zero")
    signing_key = key_info >> 2 & 7
    if signing_key not in (SigningKey.VCEK, SigningKey.VLEK):
        raise SnpSigningKeyError(f"signing key {signing_key}: need 0 (VCEK) or 1 (VLEK); 7 stands for none")
    # 3. The signature's two numbers.
    signature_r = _signature_number(raw, SIGNED_SIZE, "r")
    signature_s = _signature_number(raw, SIGNED_SIZE + SIGNATURE_NUMBER_SIZE, "s")
    has_cpuid, has_mitigations = version >= 3, version >= 5
    return Report(
        version=version,
        guest_svn=guest_svn,
        policy=policy,
        family_id=raw[0x010:0x020],
        image_id=raw[0x020:0x030],
        vmpl=vmpl,
        current_tcb=raw[0x038:0x040],
        platform_info=platform_info,
        author_key_en=bool(key_info & 1),
        mask_chip_key=bool(key_info >> 1 & 1),
        signing_key=signing_key,
        report_data=raw[0x050:0x090],
        measurement=raw[0x090:0x0C0],
        host_data=raw[0x0C0:0x0E0],
        id_key_digest=raw[0x0E0:0x110],
        author_key_digest=raw[0x110:0x140],
        report_id=raw[0x140:0x160],
        report_id_ma=raw[0x160:0x180],
        reported_tcb=raw[0x180:0x188],
        cpuid_fam_id=raw[0x188] if has_cpuid else None,
        cpuid_mod_id=raw[0x189] if has_cpuid else None,
        cpuid_step=raw[0x18A] if has_cpuid else None,
        chip_id=raw[0x1A0:0x1E0],
        committed_tcb=raw[0x1E0:0x1E8],
        current_version=(raw[0x1EA], raw[0x1E9], raw[0x1E8]),
        committed_version=(raw[0x1EE], raw[0x1ED], raw[0x1EC]),
        launch_tcb=raw[0x1F0:0x1F8],
        launch_mit_vector=struct.unpack_from("<Q", raw, 0x1F8)[0] if has_mitigations else None,
        current_mit_vector=struct.unpack_from("<Q", raw, 0x200)[0] if has_mitigations else None,
        signature_r=signature_r,
        signature_s=signature_s,
        signed=raw[:SIGNED_SIZE],
    )


def _check_reserved(raw: bytes, version: int) -> None:
    """Refuse bytes that no field of this version claims. [0x330, 0x4A0) is not even signed, so it must not vary."""
    ranges = [
        (0x04C, 0x050),
        (0x188 if version < 3 else 0x18B, 0x1A0),
        (0x1EB, 0x1EC),
        (0x1EF, 0x1F0),
        # Firmware that writes version 4 is known to fill the place of version 5's mitigation vectors.
        (0x1F8 if version < 4 else 0x208, SIGNED_SIZE),
        (SIGNED_SIZE + 2 * SIGNATURE_NUMBER_SIZE, REPORT_SIZE),
    ]
    for start, stop in ranges:
        if any(raw[start:stop]):
            raise SnpReportReservedError(
                f"report version {version}: bytes {start:#05x} to {stop - 1:#05x} must be zero"
            )


def _signature_number(raw: bytes, offset: int, name: str) -> int:
    number = int.from_bytes(raw[offset : offset + SIGNATURE_NUMBER_SIZE], "little")
    if not 0 < number < P384_ORDER:
        raise SnpSignatureRangeError(f"signature {name}: need 1 to the order of P-384 less 1, got {number:#x}")
    return number
