"""The SIMULATED maker: root, PCK and TCB authorities, revocation lists, TCB info and identities, as Intel's are formed.

Formats: Intel SGX PKI "PCK Certificate and CRL Profile" 1.5 and PCS API version 4. Everything takes the time as an
argument; what tests need to spoil can be edited before it is signed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from casemate.attestation.platforms.simulator.der import sgx_extension

__all__ = ["Authority", "CollateralEdits", "PlatformIdentity", "SimulatedPki", "raw_signature"]

COLLATERAL_LIFETIME = timedelta(days=30)
QE_MRSIGNER = bytes.fromhex("51" * 32)
QE_PRODUCT = {"sgx": 1, "tdx": 2}
QE_SVN = 6
Edit = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class PlatformIdentity:
    """What the PCK certificate of one SIMULATED machine says."""

    ppid: bytes = field(default_factory=lambda: os.urandom(16))
    piid: bytes = field(default_factory=lambda: os.urandom(16))
    fmspc: bytes = b"SIM\0\0\0"
    cpu_svn: bytes = bytes([5] * 16)
    pce_svn: int = 13


@dataclass(frozen=True)
class Authority:
    """A certificate and its private key."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)


@dataclass(frozen=True)
class CollateralEdits:
    """What to spoil before signing; nothing, for collateral that is good."""

    tcb_info: Edit | None = None
    qe_identity: Edit | None = None
    revoke: tuple[x509.Certificate, ...] = ()
    issued: datetime | None = None
    expires: datetime | None = None
    crl_expires: datetime | None = None
    tcb_signer: Authority | None = None
    qe_signer: Authority | None = None
    crl_signer: Authority | None = None


@dataclass(frozen=True)
class SimulatedPki:
    """All authorities of one SIMULATED maker, and one platform of its make."""

    root: Authority
    pck_ca: Authority
    tcb_signer: Authority
    pck: Authority
    platform: PlatformIdentity

    @classmethod
    def create(cls, now: datetime, platform: PlatformIdentity | None = None) -> SimulatedPki:
        """A new maker with new keys; certificates are valid from a day ago, for ten years and more."""
        root = make_authority("SIMULATED SGX Root CA", None, now, years=20, path_length=1)
        platform = platform or PlatformIdentity()
        pck_ca = make_authority("SIMULATED Intel SGX PCK Platform CA", root, now, years=15, path_length=0)
        return cls(
            root=root,
            pck_ca=pck_ca,
            tcb_signer=make_authority("SIMULATED SGX TCB Signing", root, now, years=15),
            pck=make_pck(pck_ca, platform, now),
            platform=platform,
        )

    @property
    def pck_chain(self) -> str:
        """The PEM chain that goes into quotes, leaf first."""
        return self.pck.pem + self.pck_ca.pem + self.root.pem

    def collateral(self, tee: str, now: datetime, edits: CollateralEdits | None = None) -> dict[str, Any]:
        """The collateral document for this platform, issued a day ago, good for 30 days; ``tee`` is sgx or tdx."""
        edits = edits or CollateralEdits()
        issued = edits.issued or now - timedelta(days=1)
        expires = edits.expires or issued + COLLATERAL_LIFETIME
        dates = {"issueDate": _iso(issued), "nextUpdate": _iso(expires)}
        crl_dates = (issued, edits.crl_expires or expires)
        tcb_info = _edited(_tcb_info(tee, self.platform, dates), edits.tcb_info)
        qe_identity = _edited(_qe_identity(tee, dates), edits.qe_identity)
        tcb_signer, qe_signer = edits.tcb_signer or self.tcb_signer, edits.qe_signer or self.tcb_signer
        by_root = [c for c in edits.revoke if c.issuer == self.root.certificate.subject]
        by_ca = [c for c in edits.revoke if c.issuer == self.pck_ca.certificate.subject]
        crl_signer = edits.crl_signer or self.pck_ca
        return {
            "pck_crl_issuer_chain": self.pck_ca.pem + self.root.pem,
            "root_ca_crl": _crl(self.root, by_root, *crl_dates).hex(),
            "pck_crl": _crl(crl_signer, by_ca, *crl_dates, issuer=self.pck_ca).hex(),
            "tcb_info_issuer_chain": tcb_signer.pem + self.root.pem,
            "tcb_info": tcb_info,
            "tcb_info_signature": raw_signature(tcb_signer.key, tcb_info.encode()).hex(),
            "qe_identity_issuer_chain": qe_signer.pem + self.root.pem,
            "qe_identity": qe_identity,
            "qe_identity_signature": raw_signature(qe_signer.key, qe_identity.encode()).hex(),
        }


def make_authority(
    name: str,
    issuer: Authority | None,
    now: datetime,
    *,
    years: int,
    path_length: int | None = None,
    valid_from: datetime | None = None,
    key: ec.EllipticCurvePrivateKey | None = None,
) -> Authority:
    """A certificate authority, or with ``path_length`` None a signer; self-signed without ``issuer``."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    start = valid_from or now - timedelta(days=1)
    builder = _certificate(name, key, issuer, start, start + timedelta(days=365 * years))
    is_ca = path_length is not None
    builder = builder.add_extension(x509.BasicConstraints(ca=is_ca, path_length=path_length), critical=True)
    builder = builder.add_extension(_usage(certificates=is_ca), critical=True)
    return Authority(key, builder.sign((issuer.key if issuer else key), SHA256()))


def make_pck(
    ca: Authority,
    platform: PlatformIdentity,
    now: datetime,
    *,
    years: int = 10,
    key: ec.EllipticCurvePrivateKey | None = None,
) -> Authority:
    """The certificate of a platform's provisioning key, with the SGX extension that says which platform it is."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    start = now - timedelta(days=1)
    builder = _certificate("SIMULATED SGX PCK Certificate", key, ca, start, start + timedelta(days=365 * years))
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(certificates=False), critical=True)
    extension = sgx_extension(
        platform.ppid, platform.cpu_svn, platform.pce_svn, platform.fmspc, platform.piid, dynamic=True, smt=True
    )
    return Authority(key, builder.add_extension(extension, critical=False).sign(ca.key, SHA256()))


def _certificate(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: Authority | None, start: datetime, end: datetime
) -> x509.CertificateBuilder:
    issuer_key = (issuer.key if issuer else key).public_key()
    points = [
        x509.DistributionPoint([x509.UniformResourceIdentifier("https://simulated.invalid/crl")], None, None, None)
    ]
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(issuer.certificate.subject if issuer else _name(name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.CRLDistributionPoints(points), critical=False)
    )


def _name(common_name: str) -> x509.Name:
    organisation = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Casemate simulator (SIMULATED, no protection)")
    return x509.Name([organisation, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _usage(*, certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certificates,
        crl_sign=certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _crl(
    signer: Authority,
    revoked: Iterable[x509.Certificate],
    issued: datetime,
    expires: datetime,
    *,
    issuer: Authority | None = None,
) -> bytes:
    named = issuer or signer
    builder = x509.CertificateRevocationListBuilder(named.certificate.subject, issued, expires)
    aki = x509.AuthorityKeyIdentifier.from_issuer_public_key(named.key.public_key())
    builder = builder.add_extension(x509.CRLNumber(1), critical=False).add_extension(aki, critical=False)
    for certificate in revoked:
        entry = x509.RevokedCertificateBuilder(certificate.serial_number, issued).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(signer.key, SHA256()).public_bytes(Encoding.DER)


def _tcb_info(tee: str, platform: PlatformIdentity, dates: dict[str, str]) -> dict[str, Any]:
    tcb: dict[str, Any] = {"sgxtcbcomponents": [{"svn": svn} for svn in platform.cpu_svn], "pcesvn": platform.pce_svn}
    out: dict[str, Any] = {"id": tee.upper(), "version": 3, **dates, "fmspc": platform.fmspc.hex().upper()}
    out |= {"pceId": "0000", "tcbType": 0, "tcbEvaluationDataNumber": 20}
    if tee == "tdx":
        module = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}
        out["tdxModule"] = module
        out["tdxModuleIdentities"] = [{"id": "TDX_01", **module, "tcbLevels": [_level({"isvsvn": 3})]}]
        tcb["tdxtcbcomponents"] = [{"svn": svn} for svn in (3, 0, 6, *[0] * 13)]
    out["tcbLevels"] = [_level(tcb)]
    return out


def _level(tcb: dict[str, Any]) -> dict[str, Any]:
    return {"tcb": tcb, "tcbDate": "2026-01-01T00:00:00Z", "tcbStatus": "UpToDate"}


def _qe_identity(tee: str, dates: dict[str, str]) -> dict[str, Any]:
    return {
        "id": "TD_QE" if tee == "tdx" else "QE",
        "version": 2,
        **dates,
        "tcbEvaluationDataNumber": 20,
        "miscselect": "00000000",
        "miscselectMask": "FFFFFFFF",
        "attributes": "11" + "00" * 15,
        "attributesMask": "FB" + "FF" * 7 + "00" * 8,
        "mrsigner": QE_MRSIGNER.hex().upper(),
        "isvprodid": QE_PRODUCT[tee],
        "tcbLevels": [_level({"isvsvn": QE_SVN})],
    }


def _edited(value: dict[str, Any], edit: Edit | None) -> str:
    if edit is not None:
        edit(value)
    return json.dumps(value, separators=(",", ":"))


def _iso(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def raw_signature(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    """ECDSA P-256 with SHA-256 as r and s, 32 bytes each, big endian."""
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def raw_public_key(key: ec.EllipticCurvePublicKey) -> bytes:
    """x and y, 32 bytes each, as quotes carry a key."""
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]
