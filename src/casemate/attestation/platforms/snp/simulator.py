"""SIMULATED SEV-SNP: an authority of our own that issues certificates and signs reports in AMD's exact formats.

For tests and for the simulated TEE host. Nothing here is trusted by default: a verifier must be told the SHA-256 of the
simulated ARK, and the claims then say ``simulated``. Any fault can be injected by keyword, so that each check of the
verifier can be shown to refuse for its own reason. Times and contents are arguments; only keys are random."""

from __future__ import annotations

import base64
import hashlib
import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from casemate.attestation.evidence import Evidence
from casemate.attestation.platforms.snp import simulator_der as der
from casemate.attestation.platforms.snp.body import build_body
from casemate.attestation.platforms.snp.certificates import PSS_IDENTIFIERS
from casemate.attestation.platforms.snp.endorsement import OID_CSP_ID, OID_HWID, OID_PRODUCT, SPL_OIDS, VekKind
from casemate.attestation.platforms.snp.report import KEY_INFO, REPORT_SIZE, SIGNATURE_NUMBER_SIZE, SIGNED_SIZE
from casemate.attestation.platforms.snp.tcb import Product, encode_tcb, tcb_components

__all__ = ["SimulatedAmd", "SimulatedVek", "build_report", "sign_report"]

ORGANISATION = "Casemate simulator, not AMD"
POLICY = 0x30000  # bit 17, and SMT allowed
_OID_STRUCTURE_VERSION = "1.3.6.1.4.1.3704.1.1"
_CPUID = {Product.MILAN: (0x19, 0x01, 0x01), Product.GENOA: (0x19, 0x11, 0x01), Product.TURIN: (0x1A, 0x02, 0x01)}
_LEVELS = {"bootloader": 4, "tee": 0, "snp": 24, "microcode": 219, "fmc": 1}
_CA_EXTENSIONS = (
    ("2.5.29.19", True, der.sequence(der.boolean(True))),
    ("2.5.29.15", True, der.bits(b"\x06", 1)),  # keyCertSign, cRLSign
)
Extension = tuple[str, bool, bytes]  # object identifier, critical, content of extnValue


@dataclass(frozen=True)
class SimulatedVek:
    """An endorsement key with its certificate; ``hwid`` is empty for a VLEK."""

    kind: VekKind
    der: bytes
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    hwid: bytes
    tcb: Mapping[str, int]


def _name(common_name: str) -> bytes:
    return der.name([("2.5.4.10", ORGANISATION), ("2.5.4.3", common_name)])


def _spki(key: CertificatePublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _pem(certificate: bytes) -> bytes:
    body = base64.encodebytes(certificate)
    return b"-----BEGIN CERTIFICATE-----\n" + body + b"-----END CERTIFICATE-----\n"


class SimulatedAmd:
    """ARK, ASK and ASVK of one product, as AMD would run them; RSA keys of 2048 bits for speed."""

    def __init__(
        self, product: Product, *, not_before: datetime, not_after: datetime, key_size_bits: int = 2048
    ) -> None:
        self.product = product
        self.not_before, self.not_after = not_before, not_after
        self.names = {"ARK": f"ARK-{product}", "ASK": f"SEV-{product}", "ASVK": f"SEV-VLEK-{product}"}
        self._serials = {"ARK": 0x70000, "ASK": 0x70001, "ASVK": 0x70101}
        self._keys = {
            role: rsa.generate_private_key(public_exponent=65537, key_size=key_size_bits) for role in self.names
        }
        self.certificates = {role: self.issuer(role) for role in self.names}

    # -- certificates --------------------------------------------------------------------------------------------------
    @property
    def ark_pin(self) -> str:
        """SHA-256 of the ARK certificate, hex: what a verifier must be told."""
        return hashlib.sha256(self.certificates["ARK"]).hexdigest()

    def chain_pem(self, roles: Sequence[str] = ("ASK", "ARK", "ASVK"), **replace: bytes) -> bytes:
        """The PEM bundle of ``roles``; ``replace`` puts other DER certificates in (``ASK=...``)."""
        return b"".join(_pem({**self.certificates, **replace}[role]) for role in roles)

    def issuer(self, role: str, *, signed_by: str = "ARK", **faults: Any) -> bytes:
        """The certificate of ``role`` (ARK, ASK, ASVK); ``faults`` as for ``certificate``."""
        fields: dict[str, Any] = {
            "subject": self.names[role],
            "issuer": self.names["ARK"],
            "serial": self._serials[role],
            "extensions": _CA_EXTENSIONS,
            **faults,
        }
        return self.certificate(_spki(self._keys[role].public_key()), self._keys[signed_by], **fields)

    def certificate(
        self,
        public_key: bytes,
        signer: rsa.RSAPrivateKey,
        *,
        subject: str,
        issuer: str,
        serial: int,
        extensions: Iterable[Extension],
        not_before: datetime | None = None,
        not_after: datetime | None = None,
        version: int = 2,
        algorithm: bytes = PSS_IDENTIFIERS[1],
        outer_algorithm: bytes | None = None,
        salt_length: int = 48,
        flip_signature: bool = False,
    ) -> bytes:
        """One signed certificate, DER. ``version`` 2 stands for X.509 version 3."""
        tbs = der.sequence(
            der.tagged(0, der.integer(version)),
            der.integer(serial),
            algorithm,
            _name(issuer),
            der.sequence(der.time(not_before or self.not_before), der.time(not_after or self.not_after)),
            _name(subject),
            public_key,
            der.tagged(3, der.sequence(*(_extension(*item) for item in extensions))),
        )
        signature = bytearray(_sign(signer, tbs, salt_length))
        if flip_signature:
            signature[-1] ^= 1
        return der.sequence(tbs, outer_algorithm or algorithm, der.bits(bytes(signature)))

    def vek(
        self,
        kind: VekKind = VekKind.VCEK,
        *,
        hwid: bytes | None = None,
        hwid_octet_string: bool = False,
        csp_id: str = "CN=cc-test.casemate.example",
        tcb: Mapping[str, int] | None = None,
        product_name: str | None = None,
        curve: ec.EllipticCurve | None = None,
        public_key: bytes | None = None,
        signed_by: str | None = None,
        drop: Iterable[str] = (),
        duplicate: Iterable[str] = (),
        override: Mapping[str, bytes] | None = None,
        extra: Iterable[Extension] = (),
        **faults: Any,
    ) -> SimulatedVek:
        """A fresh endorsement key with its certificate, serial number 0 as AMD's.

        ``drop``, ``duplicate``, ``override``, ``extra`` bend its extensions, by object identifier; ``faults`` as for
        ``certificate``; ``signed_by`` names the role whose key signs, the issuer's name staying right."""
        key = ec.generate_private_key(ec.SECP384R1())
        levels = {name: {**_LEVELS, **(tcb or {})}[name] for name in tcb_components(self.product)}
        hwid = (hwid if hwid is not None else os.urandom(self.product.hwid_size)) if kind is VekKind.VCEK else b""
        role = kind.issuer_role
        extensions: list[Extension] = [
            (_OID_STRUCTURE_VERSION, False, der.integer(1 if self.product is Product.TURIN else 0)),
            (OID_PRODUCT, False, der.text(product_name or f"{self.product}-B0")),
            *((SPL_OIDS[name], False, der.integer(level)) for name, level in levels.items()),
        ]
        if kind is VekKind.VCEK:
            extensions.append((OID_HWID, False, der.octets(hwid) if hwid_octet_string else hwid))
        else:
            extensions.append((OID_CSP_ID, False, der.text(csp_id)))
        extensions = [(item[0], item[1], (override or {}).get(item[0], item[2])) for item in extensions]
        extensions = [item for item in extensions if item[0] not in set(drop)]
        extensions += [item for item in extensions if item[0] in set(duplicate)]
        fields: dict[str, Any] = {
            "subject": f"SEV-{kind}",
            "issuer": self.names[role],
            "serial": 0,
            "extensions": [*extensions, *extra],
            **faults,
        }
        shown = ec.generate_private_key(curve).public_key() if curve else key.public_key()
        certificate = self.certificate(public_key or _spki(shown), self._keys[signed_by or role], **fields)
        return SimulatedVek(kind, certificate, key, hwid, levels)

    def crl(
        self,
        *,
        this_update: datetime,
        next_update: datetime | None,
        revoked: Iterable[int] = (),
        revoked_by: Mapping[str, Iterable[int]] | None = None,
        issuer: str = "ARK",
        signed_by: str | None = None,
        salt_length: int = 48,
        algorithm: bytes = PSS_IDENTIFIERS[1],
        extensions: Iterable[Extension] = (("2.5.29.20", False, der.integer(1)),),
    ) -> bytes:
        """A revocation list, DER: serial numbers the ARK issued, and, by role, ones that another issued."""
        entries = [_entry(serial, this_update) for serial in revoked]
        for role, serials in (revoked_by or {}).items():
            names = der.sequence(der.tagged(4, _name(self.names[role])))
            entries += [_entry(serial, this_update, ("2.5.29.29", True, names)) for serial in serials]
        tbs = der.sequence(
            der.integer(1),
            algorithm,
            _name(self.names[issuer]),
            der.time(this_update),
            *([der.time(next_update)] if next_update is not None else []),
            *([der.sequence(*entries)] if entries else []),
            der.tagged(0, der.sequence(*(_extension(*item) for item in extensions))),
        )
        return der.sequence(tbs, algorithm, der.bits(_sign(self._keys[signed_by or issuer], tbs, salt_length)))

    # -- reports -------------------------------------------------------------------------------------------------------
    def report(self, vek: SimulatedVek, **fields: Any) -> bytes:
        """A report that ``vek`` signs; ``fields`` as for ``build_report``, ``r`` and ``s`` as for ``sign_report``."""
        signature = {name: fields.pop(name) for name in ("r", "s") if name in fields}
        defaults: dict[str, Any] = {
            "tcb": vek.tcb,
            "chip_id": vek.hwid,
            "key_info": 1 << 2 if vek.kind is VekKind.VLEK else 0,
        }
        return sign_report(build_report(self.product, **{**defaults, **fields}), vek.key, **signature)

    def evidence(self, vek: SimulatedVek, report_data: bytes, **fields: Any) -> Evidence:
        """Evidence as a guest would send it, over ``report_data`` (64 bytes)."""
        return Evidence("snp", build_body(self.report(vek, report_data=report_data, **fields), vek.der, kind=vek.kind))


def _extension(oid: str, critical: bool, value: bytes) -> bytes:
    return der.sequence(der.oid(oid), *([der.boolean(True)] if critical else []), der.octets(value))


def _entry(serial: int, date: datetime, *extensions: Extension) -> bytes:
    tail = [der.sequence(*(_extension(*item) for item in extensions))] if extensions else []
    return der.sequence(der.integer(serial), der.time(date), *tail)


def _sign(key: rsa.RSAPrivateKey, message: bytes, salt_length: int) -> bytes:
    return key.sign(message, padding.PSS(padding.MGF1(hashes.SHA384()), salt_length), hashes.SHA384())


def build_report(
    product: Product,
    *,
    version: int = 3,
    guest_svn: int = 0,
    policy: int = POLICY,
    family_id: bytes = b"",
    image_id: bytes = b"",
    vmpl: int = 0,
    signature_algo: int = 1,
    platform_info: int = 0x25,
    key_info: int = 0,
    report_data: bytes = b"",
    measurement: bytes = bytes(48),
    host_data: bytes = b"",
    id_key_digest: bytes = b"",
    author_key_digest: bytes = b"",
    chip_id: bytes = b"",
    tcb: Mapping[str, int] | None = None,
    current_tcb: Mapping[str, int] | None = None,
    committed_tcb: Mapping[str, int] | None = None,
    launch_tcb: Mapping[str, int] | None = None,
    cpuid: tuple[int, int, int] | None = None,
    mitigations: tuple[int, int] = (0, 0),
    patch: Mapping[int, bytes] | None = None,
) -> bytes:
    """The 672 bytes that are signed. Short byte strings are zero-padded; ``patch`` overwrites bytes at any offset.

    ``tcb`` is the reported one; the other three follow it unless given. ``mitigations`` are launch and current."""
    raw = bytearray(SIGNED_SIZE)
    struct.pack_into("<IIQ", raw, 0x000, version, guest_svn, policy)
    struct.pack_into("<II", raw, 0x030, vmpl, signature_algo)
    struct.pack_into("<Q", raw, 0x040, platform_info)
    struct.pack_into("<I", raw, KEY_INFO, key_info)
    levels = tcb or {}
    for offset, value, size in (
        (0x010, family_id, 16),
        (0x020, image_id, 16),
        (0x038, encode_tcb(current_tcb or levels, product), 8),
        (0x050, report_data, 64),
        (0x090, measurement, 48),
        (0x0C0, host_data, 32),
        (0x0E0, id_key_digest, 48),
        (0x110, author_key_digest, 48),
        (0x160, b"\xff" * 32, 32),  # REPORT_ID_MA: no migration agent
        (0x180, encode_tcb(levels, product), 8),
        (0x1A0, chip_id, 64),
        (0x1E0, encode_tcb(committed_tcb or levels, product), 8),
        (0x1E8, bytes((29, 55, 1, 0, 29, 55, 1, 0)), 8),  # current and committed build, minor, major
        (0x1F0, encode_tcb(launch_tcb or levels, product), 8),
    ):
        if len(value) > size:
            raise ValueError(f"field at {offset:#05x}: {len(value)} bytes, at most {size}")
        raw[offset : offset + size] = value.ljust(size, b"\0")
    if version >= 3:
        raw[0x188:0x18B] = bytes(cpuid or _CPUID[product])
    if version >= 5:
        struct.pack_into("<QQ", raw, 0x1F8, *mitigations)
    for offset, value in (patch or {}).items():
        raw[offset : offset + len(value)] = value
    return bytes(raw[:SIGNED_SIZE])


def sign_report(signed: bytes, key: ec.EllipticCurvePrivateKey, *, r: int | None = None, s: int | None = None) -> bytes:
    """The whole report: ``signed`` and the signature over it; ``r`` and ``s`` put in others of up to 72 bytes."""
    true_r, true_s = decode_dss_signature(key.sign(signed, ec.ECDSA(hashes.SHA384())))
    numbers = (true_r if r is None else r, true_s if s is None else s)
    return (signed + b"".join(n.to_bytes(SIGNATURE_NUMBER_SIZE, "little") for n in numbers)).ljust(REPORT_SIZE, b"\0")
