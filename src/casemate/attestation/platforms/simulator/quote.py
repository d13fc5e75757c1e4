"""Make SIMULATED quotes in the genuine format: SGX version 3, TDX versions 4 and 5.

Layouts as in ``intel.quote``. Every field that a test wants to spoil is a parameter; the defaults are those of a
machine in good order.
"""

from __future__ import annotations

import hashlib
import os
import struct
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec

from casemate.attestation.platforms.simulator.pki import (
    QE_MRSIGNER,
    QE_PRODUCT,
    QE_SVN,
    SimulatedPki,
    raw_public_key,
    raw_signature,
)

__all__ = ["EnclaveReport", "QuotingEnclave", "TdReport"]

QE_VENDOR = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
SEPT_VE_DISABLE = 1 << 28
XFAM = 0x602E7
TEE_TCB_SVN = bytes([3, 1, 6]) + bytes(13)
_QE_FLAGS = 0x11  # INIT, PROVISION_KEY
_XFRM = 0xE7


@dataclass(frozen=True)
class TdReport:
    """The body of a TDX quote."""

    mrtd: bytes = bytes(48)
    mr_config_id: bytes = bytes(48)
    report_data: bytes = bytes(64)
    rtmr: tuple[bytes, bytes, bytes, bytes] = (bytes(48),) * 4
    td_attributes: int = SEPT_VE_DISABLE
    xfam: int = XFAM
    tee_tcb_svn: bytes = TEE_TCB_SVN
    mr_seam: bytes = bytes([0x5E] * 48)
    mr_signer_seam: bytes = bytes(48)
    seam_attributes: bytes = bytes(8)
    mr_owner: bytes = bytes(48)
    mr_owner_config: bytes = bytes(48)
    tee_tcb_svn2: bytes = TEE_TCB_SVN
    mr_service_td: bytes = bytes(48)

    def to_bytes(self, *, td15: bool = False) -> bytes:
        """584 bytes (TDX 1.0) or 648 bytes (TDX 1.5)."""
        body = b"".join(
            (
                self.tee_tcb_svn,
                self.mr_seam,
                self.mr_signer_seam,
                self.seam_attributes,
                struct.pack("<QQ", self.td_attributes, self.xfam),
                self.mrtd,
                self.mr_config_id,
                self.mr_owner,
                self.mr_owner_config,
                *self.rtmr,
                self.report_data,
            )
        )
        return body + self.tee_tcb_svn2 + self.mr_service_td if td15 else body


@dataclass(frozen=True)
class EnclaveReport:
    """The body of an SGX quote, and the report of the quoting enclave itself."""

    mrenclave: bytes = bytes(32)
    mrsigner: bytes = bytes(32)
    report_data: bytes = bytes(64)
    flags: int = 0x05  # INIT, MODE64
    xfrm: int = _XFRM
    misc_select: int = 0
    product_id: int = 0
    svn: int = 0
    config_id: bytes = bytes(64)
    cpu_svn: bytes = bytes([5] * 16)

    def to_bytes(self) -> bytes:
        """384 bytes."""
        return b"".join(
            (
                self.cpu_svn,
                struct.pack("<I", self.misc_select),
                bytes(28),
                struct.pack("<QQ", self.flags, self.xfrm),
                self.mrenclave,
                bytes(32),
                self.mrsigner,
                bytes(32),
                self.config_id,
                struct.pack("<HHH", self.product_id, self.svn, 0),
                bytes(58),
                self.report_data,
            )
        )


@dataclass(frozen=True)
class QuotingEnclave:
    """The SIMULATED quoting enclave: an attestation key that the platform's PCK key vouches for."""

    pki: SimulatedPki
    key: ec.EllipticCurvePrivateKey
    parts: dict[str, bytes]  # per TEE: QE report, its signature and authentication data, as they go into quotes

    @classmethod
    def create(cls, pki: SimulatedPki, **overrides: int | bytes) -> QuotingEnclave:
        """A quoting enclave with a fresh key; ``overrides`` replace fields of its own report."""
        key, authentication = ec.generate_private_key(ec.SECP256R1()), os.urandom(32)
        bound = hashlib.sha256(raw_public_key(key.public_key()) + authentication).digest() + bytes(32)
        parts = {}
        for tee, product in QE_PRODUCT.items():
            fields: dict[str, object] = {
                "mrenclave": hashlib.sha256(b"SIMULATED quoting enclave").digest(),
                "mrsigner": QE_MRSIGNER,
                "report_data": bound,
                "flags": _QE_FLAGS,
                "product_id": product,
                "svn": QE_SVN,
                **overrides,
            }
            report = EnclaveReport(**fields).to_bytes()  # type: ignore[arg-type]
            signature = raw_signature(pki.pck.key, report)
            parts[tee] = report + signature + struct.pack("<H", len(authentication)) + authentication
        return cls(pki, key, parts)

    def tdx_quote(self, report: TdReport, *, version: int = 4, td15: bool = False, outer_type: int = 6) -> bytes:
        """A TDX quote of version 4 (TDX 1.0 body) or 5 (either body)."""
        body = report.to_bytes(td15=td15)
        if version == 5:
            body = struct.pack("<HI", 3 if td15 else 2, len(body)) + body
        signed = _header(version, 0x81) + body
        qe_part = self.parts["tdx"] + self._certification()
        tail = self._signature(signed) + struct.pack("<HI", outer_type, len(qe_part)) + qe_part
        return signed + struct.pack("<I", len(tail)) + tail

    def sgx_quote(self, report: EnclaveReport) -> bytes:
        """An SGX quote of version 3."""
        signed = _header(3, 0x00) + report.to_bytes()
        tail = self._signature(signed) + self.parts["sgx"] + self._certification()
        return signed + struct.pack("<I", len(tail)) + tail

    def _signature(self, signed: bytes) -> bytes:
        return raw_signature(self.key, signed) + raw_public_key(self.key.public_key())

    def _certification(self) -> bytes:
        chain = self.pki.pck_chain.encode()
        return struct.pack("<HI", 5, len(chain)) + chain


def _header(version: int, tee_type: int) -> bytes:
    svns = struct.pack("<HH", QE_SVN, 13) if version == 3 else bytes(4)
    return struct.pack("<HHI", version, 2, tee_type) + svns + QE_VENDOR + bytes(20)
