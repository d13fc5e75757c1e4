"""Files that are no evidence: say what they are, check what can be checked, and why they decide nothing.

An endorsement may be perfectly in order; no TEE has said anything by it. The outcome is undecided at best.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from cryptography import x509

from casemate.attestation.claims import Claims, TcbClaims
from casemate.attestation.endorsements import common_name, sort_endorsements
from casemate.attestation.errors import CollateralMissingError, UntrustedRootError
from casemate.attestation.eventlog import parse_event_log
from casemate.attestation.platforms.certificates import Flaw, PathError, Roots, build_path, der_of, load_certificates
from casemate.attestation.platforms.gpu.verifier import NVIDIA_DEVICE_ROOT_PIN
from casemate.attestation.platforms.snp.certificates import check_validity
from casemate.attestation.platforms.snp.chain import build_chain, verify_vek
from casemate.attestation.platforms.snp.collateral import sort_collateral
from casemate.attestation.platforms.snp.endorsement import parse_vek
from casemate.attestation.platforms.snp.errors import SnpChainMissingError
from casemate.attestation.platforms.snp.tcb import product_of_name
from casemate.attestation.platforms.tdx.td_report import parse_td_report
from casemate.attestation.platforms.tpm.gce import GOOGLE_ROOT_PINS
from casemate.attestation.stored import Kind, Stored
from casemate.attestation.stored_errors import EvidenceUnrecognisedError, NotEvidenceError, TdReportUnsignedError
from casemate.attestation.stored_verifiers import Beside, Verified
from casemate.attestation.trust import is_intel_root
from casemate.errors import CasemateError

__all__ = ["verify_alone"]


def verify_alone(stored: Stored, beside: Beside, *, now: datetime) -> Verified:
    """Check a file that is no evidence; the error says what it is, or what is wrong with it. Raises nothing."""
    try:
        if stored.kind is Kind.TDREPORT:
            claims = parse_td_report(stored.raw)
            return Verified(claims, TdReportUnsignedError("TDREPORT: not signed; a quote is needed"))
        if stored.kind is Kind.EVENT_LOG:
            log = parse_event_log(stored.raw)
            return Verified(None, NotEvidenceError(f"event log: {len(log.events)} events of {', '.join(log.banks)}"))
        if stored.kind is Kind.CERTIFICATES:
            return _certificates(stored.raw, beside, now)
        if stored.kind is Kind.COLLATERAL:
            return Verified(None, NotEvidenceError("collateral: it belongs to quotes, and none was given"))
    except CasemateError as exc:
        return Verified(None, exc)
    return Verified(None, EvidenceUnrecognisedError(f"evidence: {stored.kind}"))


def _certificates(raw: bytes, beside: Beside, now: datetime) -> Verified:
    found = sort_endorsements([raw])
    if found.amd:
        return _amd(found.amd, beside, now)
    others = (*found.intel, *found.certificates)
    if not others:
        what = "public key" if found.keys else "revocation list"
        return Verified(None, NotEvidenceError(f"{what}: it belongs to evidence, and none was given"))
    leaf = _load(others[0])
    pool = [_load(der) for der in (*others[1:], *beside.endorsements.intel, *beside.endorsements.certificates)]
    intel = tuple(c for c in (leaf, *pool) if _is_intel_root(c))
    roots = Roots(intel, frozenset({NVIDIA_DEVICE_ROOT_PIN, *GOOGLE_ROOT_PINS}))
    try:
        path = build_path(leaf, pool, roots, now=now)
    except PathError as exc:
        if leaf in intel:  # a root is nobody's leaf; its key usage says so
            return Verified(None, NotEvidenceError(f"certificate: {common_name(leaf.subject)}, a maker's root"))
        missing = exc.flaw is Flaw.NO_ISSUER
        return Verified(None, (CollateralMissingError if missing else UntrustedRootError)(exc.message))
    root = common_name(path.certificates[-1].subject)
    return Verified(None, NotEvidenceError(f"certificate: good below {root}, but no evidence was given"))


def _amd(certificates: tuple[bytes, ...], beside: Beside, now: datetime) -> Verified:
    """A VCEK or VLEK below its chain, or a chain by itself."""
    sorted_ = sort_collateral([*certificates, *beside.endorsements.amd])
    if not sorted_.veks:
        names = []
        for product, bundle in sorted_.chains.items():
            chain = build_chain(product_of_name(product), _split(bundle), simulated_pins={})
            for certificate in (chain.ark, chain.ask, chain.asvk):
                if certificate is not None:
                    check_validity(certificate, now)
                    names.append(certificate.subject_cn)
        return Verified(None, NotEvidenceError(f"certificates: {', '.join(names)} are in order; no report was given"))
    vek = parse_vek(sorted_.veks[0])
    extra: dict[str, Any] = {"product": str(vek.product), "signing_key": str(vek.kind), "csp_id": vek.csp_id}
    claims = Claims(
        platform="snp",
        simulated=False,
        debug=False,
        tcb=TcbClaims(reported=dict(vek.spl)),
        platform_id=vek.hwid.ljust(64, b"\0").hex() if vek.hwid else None,
        collateral_expires=vek.certificate.not_after,
        extra=extra,
    )
    own = sorted_.chains.get(str(vek.product))
    if own is None:
        return Verified(claims, SnpChainMissingError(f"chain of {vek.product}: not at hand"))
    try:
        chain = build_chain(vek.product, _split(own), simulated_pins={})
        verify_vek(vek, chain)
        check_validity(vek.certificate, now)
    except CasemateError as exc:
        return Verified(claims, exc)
    return Verified(claims, NotEvidenceError(f"{vek.kind} of {vek.product}: in order; no report was given"))


def _split(bundle: bytes) -> tuple[bytes, ...]:
    return sort_endorsements([bundle]).amd


def _load(der: bytes) -> x509.Certificate:
    try:
        return load_certificates(der, "certificate")[0]
    except PathError as exc:
        raise UntrustedRootError(exc.message) from exc


def _is_intel_root(certificate: x509.Certificate) -> bool:
    try:
        return is_intel_root(der_of(certificate))
    except CasemateError:
        return False
