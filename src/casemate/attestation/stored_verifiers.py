"""Verify stored evidence of any platform with what was given beside it; claims as far as possible, and what is amiss.

Each function here builds the platform's own verifier, whose answer stands. Where it says no for want of an endorsement,
or says no at all, the evidence is read once more without trust, so that an explanation has something to show: such
claims are marked unverified and are never accepted. No network, disk or clock.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from casemate.attestation.claims import Claims
from casemate.attestation.endorsements import Endorsements, common_name, pem_of, sort_endorsements
from casemate.attestation.errors import (
    CollateralExpiredError,
    CollateralMissingError,
    EvidenceSignatureError,
    UntrustedRootError,
)
from casemate.attestation.evidence import Evidence
from casemate.attestation.platforms.certificates import PathError, load_certificates
from casemate.attestation.platforms.gpu.evidence import parse_devices
from casemate.attestation.platforms.gpu.report import parse_report as parse_gpu_report
from casemate.attestation.platforms.gpu.verifier import NVIDIA_DEVICE_ROOT_PIN, GpuVerifier
from casemate.attestation.platforms.intel.collateral import Collateral, CollateralStore, SingleCollateral
from casemate.attestation.platforms.intel.layouts import assemble_collateral
from casemate.attestation.platforms.intel.quote import Quote, parse_quote
from casemate.attestation.platforms.intel.unendorsed import check_quote_signatures, unendorsed_claims
from casemate.attestation.platforms.intel.verifier import IntelVerifier, TrustAnchor
from casemate.attestation.platforms.sgx.verifier import SgxVerifier, read_enclave_body
from casemate.attestation.platforms.snp.body import parse_body
from casemate.attestation.platforms.snp.chain import AMD_ARK_PINS
from casemate.attestation.platforms.snp.collateral import sort_collateral
from casemate.attestation.platforms.snp.der import read_certificate
from casemate.attestation.platforms.snp.normalise import report_claims
from casemate.attestation.platforms.snp.report import SigningKey, parse_report
from casemate.attestation.platforms.snp.tcb import Product, product_of_name
from casemate.attestation.platforms.snp.verifier import SnpVerifier
from casemate.attestation.platforms.tdx.verifier import TdxVerifier, read_td_body
from casemate.attestation.platforms.tpm.azure import AzureVerifier
from casemate.attestation.platforms.tpm.errors import TpmAkUntrustedError
from casemate.attestation.platforms.tpm.evidence import parse_evidence
from casemate.attestation.platforms.tpm.gce import GOOGLE_ROOT_PINS, google_trust
from casemate.attestation.platforms.tpm.trust import TpmTrust
from casemate.attestation.platforms.tpm.verifier import TpmVerifier
from casemate.attestation.stored import Kind, Stored
from casemate.attestation.stored_chain import leaf_first
from casemate.attestation.stored_errors import QuoteTrailingBytesError
from casemate.attestation.trust import is_intel_root
from casemate.attestation.trust_errors import TrustAnchorError
from casemate.errors import CasemateError, UndecidedError

__all__ = ["Anchor", "Beside", "Verified", "read_anchor", "verify_stored"]

_CHIPS = ("GH", "GB")  # a GPU's leaf certificate is named after its chip
_A_MOMENT = timedelta(seconds=1)
_CERTIFICATE_ERRORS = (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, x509.InvalidVersion)


@dataclass(frozen=True)
class Anchor:
    """The one root (or TPM attestation key) that was named; ``simulated`` unless it is a maker's pinned one."""

    der: bytes
    is_key: bool
    simulated: bool


@dataclass(frozen=True)
class Beside:
    """What was given beside the evidence. ``keys`` are digests of attestation keys that the policy insists on."""

    collateral: tuple[str, ...] = ()
    endorsements: Endorsements = field(default_factory=Endorsements)
    anchor: Anchor | None = None
    keys: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Verified:
    """Claims, when any could be read, and the reason why they are not verified; ``None`` when they are."""

    claims: Claims | None
    error: CasemateError | None


def read_anchor(content: bytes) -> Anchor:
    """The trust anchor in a file: one certificate, or the public key of a TPM's attestation key; DER or PEM.

    Raises ``TrustAnchorError``."""
    try:
        found = sort_endorsements([content])
    except CasemateError as exc:
        raise TrustAnchorError(f"trust anchor: {exc.message}") from exc
    certificates = (*found.amd, *found.intel, *found.certificates)
    if len(certificates) + len(found.keys) != 1 or found.crls or found.amd_crls or found.intel_crls:
        raise TrustAnchorError("trust anchor: need one certificate or one public key")
    if found.keys:
        return Anchor(found.keys[0], True, simulated=True)
    der = certificates[0]
    pins = {*AMD_ARK_PINS.values(), *GOOGLE_ROOT_PINS, NVIDIA_DEVICE_ROOT_PIN}
    return Anchor(der, False, simulated=hashlib.sha256(der).hexdigest() not in pins and not _is_intel_root(der))


def verify_stored(stored: Stored, beside: Beside, *, now: datetime, google_only: bool = False) -> Verified:
    """Verify ``stored``; never raises for what the files hold. ``google_only``: trust Google Cloud's vTPMs alone."""
    evidence = stored.evidence
    if evidence is None:
        raise ValueError(f"{stored.kind} is no evidence")
    if stored.kind in (Kind.SGX, Kind.TDX):
        found = _verify_quote(_bytes_of(evidence), beside, now)
    elif stored.kind is Kind.SNP:
        found = _verify_snp(evidence, beside, now)
    elif stored.kind is Kind.AZURE:
        found = _verify_azure(evidence, beside, now)
    elif stored.kind is Kind.TPM:
        found = _verify_tpm(evidence, beside, now, google_only=google_only)
    else:
        found = _verify_gpu(evidence, beside, now)
    return _one_anchor(found, beside.anchor)


def _one_anchor(found: Verified, anchor: Anchor | None) -> Verified:
    """A named anchor is the only one: with a simulated one, real evidence is refused, and the other way round."""
    if anchor is None or found.error is not None or found.claims is None or found.claims.simulated == anchor.simulated:
        return found
    kind = "simulated" if anchor.simulated else "real"
    return Verified(found.claims, UntrustedRootError(f"evidence: does not end in the given, {kind} trust anchor"))


# -- Intel -------------------------------------------------------------------------------------------------------------
def _bytes_of(evidence: Evidence) -> bytes:
    return base64.b64decode(str(evidence.body["quote"]))


def _verify_quote(raw: bytes, beside: Beside, now: datetime) -> Verified:
    # 1. Framing.        3. The verifier, with the collateral at hand; zeros may follow the quote, nothing else.
    # 2. The anchor.     4. Expired collateral: what it said while it was good.
    raw = leaf_first(raw)
    try:
        quote = parse_quote(raw)  # (1)
    except CasemateError as exc:
        return Verified(None, exc)
    read_body = read_enclave_body if quote.tee == "sgx" else read_td_body
    simulated = beside.anchor is not None and beside.anchor.simulated
    claims = unendorsed_claims(quote, read_body(quote, strict=False), simulated=simulated)
    try:
        collateral = _collateral(beside)
        root = _intel_anchor(quote, beside.anchor, collateral)  # (2)
        if collateral is None:
            if quote.certificates:
                check_quote_signatures(quote)
            read_body(quote)
            raise CollateralMissingError(_missing(quote, claims))
        source = SingleCollateral(collateral[0]) if len(collateral) == 1 else CollateralStore(collateral)
        name = "SIMULATED root" if simulated else "Intel SGX Root CA"
        verifier = (SgxVerifier if quote.tee == "sgx" else TdxVerifier)([TrustAnchor(name, root, source, simulated)])
        claims = verifier.verify_quote(raw, now=now)  # (3)
        if any(raw[len(quote.raw) :]):
            raise QuoteTrailingBytesError(f"quote: {quote.trailing_bytes} bytes follow it, not all zero")
        return Verified(claims, None)
    except CollateralExpiredError as exc:
        return _as_of_then(verifier, raw, collateral, Verified(claims, exc))  # (4)
    except CasemateError as exc:
        return Verified(claims, exc)


def _collateral(beside: Beside) -> tuple[Collateral, ...] | None:
    found = beside.endorsements
    if not beside.collateral:
        return None
    return assemble_collateral(beside.collateral, found.intel, found.intel_crls)


def _missing(quote: Quote, claims: Claims) -> str:
    fmspc = claims.extra.get("fmspc")
    return f"collateral: none given for {quote.tee} FMSPC {fmspc}; the quote's own signatures verify"


def _intel_anchor(quote: Quote, anchor: Anchor | None, collateral: Iterable[Collateral] | None) -> bytes:
    """The root to verify under: the one named, else Intel's, which the quote or the collateral brings along."""
    last = quote.certificates[-1] if quote.certificates else None
    if anchor is not None:
        if last is not None and last != anchor.der and not _issued(last, anchor.der):
            raise UntrustedRootError("quote: its certificate chain does not end in the given trust anchor")
        return anchor.der
    for der in (last, *(one.root for one in collateral or ())):
        if der is not None and _is_intel_root(der) and (last in (None, der) or _issued(last, der)):
            return der
    if last is None or not _issued(last, last):
        raise CollateralMissingError("Intel SGX Root CA certificate: neither in the quote nor in the collateral")
    raise UntrustedRootError("quote: its certificate chain ends in another root than the Intel SGX Root CA")


def _is_intel_root(der: bytes) -> bool:
    try:
        return is_intel_root(der)
    except TrustAnchorError:
        return False


def _issued(der: bytes | None, issuer: bytes) -> bool:
    try:
        x509.load_der_x509_certificate(der or b"").verify_directly_issued_by(x509.load_der_x509_certificate(issuer))
    except _CERTIFICATE_ERRORS:
        return False
    return True


def _as_of_then(
    verifier: IntelVerifier, raw: bytes, collateral: tuple[Collateral, ...] | None, found: Verified
) -> Verified:
    """Claims as of the time when the collateral was good; a signature that is wrong at any time is told instead."""
    for one in collateral or ():
        try:
            return Verified(verifier.verify_quote(raw, now=one.expires - _A_MOMENT), found.error)
        except EvidenceSignatureError as exc:
            return Verified(found.claims, exc)
        except CasemateError:
            continue
    return found


# -- AMD ---------------------------------------------------------------------------------------------------------------
def _snp_verifier(beside: Beside) -> SnpVerifier:
    given = beside.endorsements
    anchor = beside.anchor
    own = [anchor.der] if anchor is not None and not anchor.is_key and _is_amd(anchor.der) else []
    sorted_ = sort_collateral([*given.amd, *own, *given.amd_crls])
    pins: dict[str, str] = {}
    if own and anchor is not None and anchor.simulated:
        product = product_of_name(read_certificate(anchor.der).subject_cn.rpartition("-")[2])
        pins[str(product)] = hashlib.sha256(anchor.der).hexdigest()
    return SnpVerifier(sorted_.chains, crls=sorted_.crls, veks=sorted_.veks, simulated_ark_pins=pins)


def _is_amd(der: bytes) -> bool:
    try:
        return read_certificate(der).subject_cn.startswith("ARK-")
    except CasemateError:
        return False


def _read_snp(raw: bytes) -> Claims | None:
    """What a report says by itself. Version 2 does not name its product; Milan and Genoa lay their TCB out alike."""
    try:
        report = parse_report(raw)
        kind = "VLEK" if report.signing_key == SigningKey.VLEK else "VCEK"
        return report_claims(report, product=report.product or Product.MILAN, signing_key=kind)
    except CasemateError:
        return None


def _verify_snp(evidence: Evidence, beside: Beside, now: datetime) -> Verified:
    try:
        body = parse_body(evidence.body)
    except CasemateError as exc:
        return Verified(None, exc)
    try:
        return Verified(_snp_verifier(beside).verify(evidence, now=now), None)
    except CasemateError as exc:
        return Verified(_read_snp(body.report), exc)


# -- TPM ---------------------------------------------------------------------------------------------------------------
def _tpm_trusts(beside: Beside, *, google_only: bool) -> tuple[TpmTrust, TpmTrust | None]:
    """Real and simulated trust. Attestation keys are vouched for by Google's roots, by name, or by the anchor."""
    given, anchor = beside.endorsements, beside.anchor
    simulator = None
    if anchor is not None and anchor.simulated:
        roots, keys = ([], [anchor.der]) if anchor.is_key else ([anchor.der], [])
        simulator = TpmTrust(roots=roots, keys=keys, intermediates=given.certificates, crls=given.crls, simulated=True)
        return TpmTrust(), simulator
    if google_only:
        return google_trust(given.certificates, crls=given.crls), None
    real = TpmTrust(
        pins=GOOGLE_ROOT_PINS,
        intermediates=[*given.certificates, *([anchor.der] if anchor else [])],
        keys=given.keys,
        key_ids=beside.keys,
        crls=given.crls,
    )
    return real, None


def _verify_tpm(evidence: Evidence, beside: Beside, now: datetime, *, google_only: bool) -> Verified:
    try:
        trust, simulator = _tpm_trusts(beside, google_only=google_only)
        verifier = TpmVerifier(trust, simulator_trust=simulator)
        return Verified(verifier.verify(evidence, now=now), None)
    except CasemateError as exc:
        error: CasemateError = exc
    if isinstance(error, UntrustedRootError):
        error = _issuer_missing(evidence, beside) or error
    bare = {name: value for name, value in evidence.body.items() if name not in ("ak_cert_der", "ak_cert_chain")}
    try:  # is all else in order but whose key it is?
        unknown = TpmVerifier(TpmTrust(), insecure_allow_unknown_ak=True)
        claims = unknown.verify(Evidence(evidence.tee, bare), now=now)
    except CasemateError as exc:
        return Verified(None, exc if isinstance(error, TpmAkUntrustedError | UndecidedError) else error)
    return Verified(claims, error)


def _issuer_missing(evidence: Evidence, beside: Beside) -> CasemateError | None:
    """When the key has a certificate whose issuer nobody brought along, that is a missing piece, not a bad one."""
    try:
        parsed = parse_evidence(evidence.body)
        pool = [c for raw in beside.endorsements.certificates for c in load_certificates(raw, "certificate")]
    except (CasemateError, PathError):
        return None
    certificate, known = parsed.certificate, [*pool, *parsed.chain]
    while certificate is not None and certificate.issuer != certificate.subject:
        issuer = next((c for c in known if c.subject == certificate.issuer), None)
        if issuer is None:
            return CollateralMissingError(f"certificate of {certificate.issuer.rfc4514_string()}: not at hand")
        known.remove(issuer)
        certificate = issuer
    return None


def _verify_azure(evidence: Evidence, beside: Beside, now: datetime) -> Verified:
    """The Azure verifier decides about the vTPM; endorsements out of reach leave the hardware's claims unverified."""
    pending: list[CasemateError] = []

    def settle(found: Verified) -> Claims:
        if found.error is None and found.claims is not None:
            return found.claims
        error = found.error or CollateralMissingError("hardware evidence: no claims")
        if found.claims is None or not isinstance(error, UndecidedError):
            raise error
        pending.append(error)
        return found.claims

    def hardware_snp(report: bytes, vek: bytes | None = None, *, now: datetime) -> Claims:
        try:
            found = Verified(_snp_verifier(beside).verify_report(report, vek, now=now), None)
        except CasemateError as exc:
            found = Verified(_read_snp(report), exc)
        return settle(_one_anchor(found, beside.anchor))

    def hardware_tdx(quote: bytes, *, now: datetime) -> Claims:
        return settle(_one_anchor(_verify_quote(quote, beside, now), beside.anchor))

    verifier = AzureVerifier(verify_snp=hardware_snp, verify_tdx=hardware_tdx)
    try:
        claims = verifier.verify(evidence, now=now)
    except CasemateError as exc:
        return Verified(None, exc)
    return Verified(claims, pending[0] if pending else None)


# -- NVIDIA ------------------------------------------------------------------------------------------------------------
def _verify_gpu(evidence: Evidence, beside: Beside, now: datetime) -> Verified:
    given, anchor = beside.endorsements, beside.anchor
    extra = (*given.certificates, *([anchor.der] if anchor is not None and not anchor.is_key else []))
    claims = _read_gpu(evidence)
    try:
        evidence = _with_chain(evidence, extra)
        if not all(device.certificates for device in parse_devices(evidence.body)):
            raise CollateralMissingError("GPU certificate chain: neither in the evidence nor given")
        simulated = [hashlib.sha256(anchor.der).hexdigest()] if anchor is not None and anchor.simulated else []
        pins = [NVIDIA_DEVICE_ROOT_PIN] if not simulated else []
        verifier = GpuVerifier(pins=pins, simulated_pins=simulated, crls=given.crls)
        return Verified(verifier.verify(evidence, now=now), None)
    except CasemateError as exc:
        return Verified(claims, exc)


def _with_chain(evidence: Evidence, extra: tuple[bytes, ...]) -> Evidence:
    """The devices with every given certificate behind their own; a device without one gets the leaf put first."""
    name = "device_evidence_list" if "device_evidence_list" in evidence.body else "evidence_list"
    items = []
    for item, device in zip(evidence.body[name], parse_devices(evidence.body), strict=True):
        chain = device.certificates.decode("ascii", "replace") if device.certificates.strip() else ""
        chain += ("\n" if chain else "") + pem_of(extra if chain else _leaf_first(extra))
        items.append({**item, "certificate": base64.b64encode(chain.encode()).decode()})
    return Evidence(evidence.tee, {**evidence.body, name: items})


def _leaf_first(ders: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Certificates with a device's own first: one that issued none of the others, and is named as a chip is."""
    parsed = []
    for der in ders:
        try:
            certificate = x509.load_der_x509_certificate(der)
            parsed.append((der, certificate.subject, certificate.issuer))
        except _CERTIFICATE_ERRORS:
            continue
    issuers = {issuer for _, _, issuer in parsed}

    def rank(item: tuple[bytes, x509.Name, x509.Name]) -> tuple[bool, bool]:
        return item[1] in issuers, not common_name(item[1]).startswith(_CHIPS)

    return tuple(der for der, _, _ in sorted(parsed, key=rank))


def _read_gpu(evidence: Evidence) -> Claims | None:
    try:
        devices = [(device, parse_gpu_report(device.report)) for device in parse_devices(evidence.body)]
    except CasemateError:
        return None
    return Claims(
        platform="gpu",
        simulated=False,
        debug=False,
        report_data=devices[0][1].nonce.hex(),
        extra={
            "measurements_compared": False,
            "devices": [
                {
                    "architecture": device.architecture,
                    "nonce": report.nonce.hex(),
                    "measurements": {str(i): value.hex() for i, value in sorted(report.measurements.items())},
                    **report.opaque,
                }
                for device, report in devices
            ],
        },
    )
