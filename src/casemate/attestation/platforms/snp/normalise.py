"""From a verified SEV-SNP report to normalised claims; nothing is checked here."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from casemate.attestation.claims import Claims, TcbClaims, WorkloadBinding
from casemate.attestation.platforms.snp.chain import Chain
from casemate.attestation.platforms.snp.endorsement import Vek
from casemate.attestation.platforms.snp.report import PLATFORM_INFO_BITS, POLICY_BITS, Report
from casemate.attestation.platforms.snp.tcb import Product, parse_tcb

__all__ = ["claims_of", "report_claims"]


def claims_of(report: Report, vek: Vek, chain: Chain, expires: datetime) -> Claims:
    """Claims of a report whose every check has passed; ``expires`` is when the first piece of its collateral does.

    HOST_DATA carries the workload digest, cut to 32 bytes, as confidential containers do with init-data."""
    return report_claims(
        report,
        product=chain.product,
        signing_key=str(vek.kind),
        csp_id=vek.csp_id,
        simulated=chain.simulated,
        expires=expires,
    )


def report_claims(
    report: Report,
    *,
    product: Product,
    signing_key: str,
    csp_id: str | None = None,
    simulated: bool = False,
    expires: datetime | None = None,
) -> Claims:
    """The claims of a report alone; true only if somebody has verified it."""
    has_workload = any(report.host_data)
    return Claims(
        platform="snp",
        simulated=simulated,
        debug=report.policy_bit("debug"),
        measurement=report.measurement.hex(),
        signer=report.author_key_digest.hex() if report.author_key_en else None,
        svn=report.guest_svn,
        workload=report.host_data.hex() if has_workload else None,
        workload_binding=WorkloadBinding.LAUNCH if has_workload else None,
        report_data=report.report_data.hex(),
        tcb=TcbClaims(
            reported=parse_tcb(report.reported_tcb, product),
            committed=parse_tcb(report.committed_tcb, product),
            launch=parse_tcb(report.launch_tcb, product),
        ),
        platform_id=report.chip_id.hex() if any(report.chip_id) else None,
        vmpl=report.vmpl,
        collateral_expires=expires,
        extra=_extra(report, product, signing_key, csp_id),
    )


def _extra(report: Report, product: Product, signing_key: str, csp_id: str | None) -> dict[str, Any]:
    """What only SEV-SNP knows, by the ABI's field names in lower case; policy and platform info bit by bit."""
    policy = {name: report.policy_bit(name) for name in POLICY_BITS}
    platform = {name: bool(report.platform_info >> bit & 1) for name, bit in PLATFORM_INFO_BITS.items()}
    version = ("major", "minor", "build")
    extra: dict[str, Any] = {
        "version": report.version,
        "product": str(product),
        "signing_key": signing_key,
        "csp_id": csp_id,
        "policy": {
            "value": report.policy,
            "abi_major": report.policy >> 8 & 0xFF,
            "abi_minor": report.policy & 0xFF,
            **policy,
        },
        "platform_info": {"value": report.platform_info, **platform},
        "family_id": report.family_id.hex(),
        "image_id": report.image_id.hex(),
        "host_data": report.host_data.hex(),
        "id_key_digest": report.id_key_digest.hex(),
        "author_key_en": report.author_key_en,
        "author_key_digest": report.author_key_digest.hex(),
        "mask_chip_key": report.mask_chip_key,
        "report_id": report.report_id.hex(),
        "report_id_ma": report.report_id_ma.hex(),
        "current_tcb": parse_tcb(report.current_tcb, product),
        "current_version": dict(zip(version, report.current_version, strict=True)),
        "committed_version": dict(zip(version, report.committed_version, strict=True)),
        "cpuid_fam_id": report.cpuid_fam_id,
        "cpuid_mod_id": report.cpuid_mod_id,
        "cpuid_step": report.cpuid_step,
        "launch_mit_vector": report.launch_mit_vector,
        "current_mit_vector": report.current_mit_vector,
    }
    return extra
