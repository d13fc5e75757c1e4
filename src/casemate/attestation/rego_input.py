"""Claims as the input of a Rego policy: our own form, and the one policies for confidential-containers expect."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from casemate.attestation.claims import Claims

__all__ = ["casemate_input", "trustee_input"]

_INTEL_VENDOR = "939a7233f79c4ca9940a0db3957f0607"  # the only one that quotes are read of
_SNP_TCB = {"bootloader": "bootloader", "tee": "tee", "snp": "snp", "microcode": "microcode", "fmc": "fmc"}


def casemate_input(claims: Claims) -> dict[str, Any]:
    """``{"claims": ...}``, the claims by the names they have everywhere else."""
    return {"claims": _plain(claims.to_json())}


def trustee_input(claims: Claims) -> dict[str, Any]:
    """One member named for the platform (``tdx``, ``sgx``, ``snp``, ``tpm``) with its claims by Trustee's names.

    Byte fields are hex in the order of the structure (``xfam`` as eight bytes). What only Trustee's attesters report
    (parsed UEFI events) is not there, so that rules about it do not hold."""
    makers = {"tdx": _tdx, "sgx": _sgx, "snp": _snp, "tpm": _tpm}
    maker = makers.get(claims.platform)
    document: dict[str, Any] = {} if maker is None else {claims.platform: maker(claims)}
    return _plain({**document, "report_data": claims.report_data, "init_data": claims.workload})


def _intel(claims: Claims) -> dict[str, Any]:
    return {
        "tcb_status": claims.tcb.status,
        "tcb_date": claims.tcb.date,
        "advisory_ids": list(claims.tcb.advisories),
        "collateral_expiration_status": "0",  # expired collateral never gets this far: it is undecided
        "tcb_eval_num": claims.tcb.evaluation_number,
    }


def _tdx(claims: Claims) -> dict[str, Any]:
    extra = claims.extra
    attributes = extra.get("attributes") or []
    body = {
        "mr_td": claims.measurement,
        "mr_seam": extra.get("mr_seam"),
        "mrsigner_seam": claims.signer,
        "mr_config_id": claims.workload or "00" * 48,
        "mr_owner": extra.get("mr_owner"),
        "mr_owner_config": extra.get("mr_owner_config"),
        "tcb_svn": extra.get("tee_tcb_svn"),
        "td_attributes": _little_endian(extra.get("td_attributes")),
        "xfam": _little_endian(extra.get("xfam")),
        "report_data": claims.report_data,
        **{f"rtmr_{n}": value for n, value in enumerate(claims.rtmr)},
    }
    header = {"tee_type": "81000000", "vendor_id": _INTEL_VENDOR, "version": _version(extra)}
    flags = {"debug": claims.debug, "septve_disable": "sept-ve-disable" in attributes, "pks": "pks" in attributes}
    flags |= {"key_locker": "key-locker" in attributes, "perfmon": "perfmon" in attributes}
    return {"quote": {"header": header, "body": body}, "td_attributes": flags, **_intel(claims)}


def _sgx(claims: Claims) -> dict[str, Any]:
    body = {
        "mr_enclave": claims.measurement,
        "mr_signer": claims.signer,
        "isv_prod_id": claims.product_id,
        "isv_svn": claims.svn,
        "config_id": claims.workload or "00" * 64,
        "report_data": claims.report_data,
    }
    header = {"tee_type": "00000000", "vendor_id": _INTEL_VENDOR, "version": _version(claims.extra)}
    return {"quote": {"header": header, "body": body}, "debug": claims.debug, **_intel(claims)}


def _snp(claims: Claims) -> dict[str, Any]:
    policy, platform = (dict(claims.extra.get(name) or {}) for name in ("policy", "platform_info"))
    reported = claims.tcb.reported or {}
    evidence = {
        "measurement": claims.measurement,
        "report_data": claims.report_data,
        "host_data": claims.extra.get("host_data"),
        "vmpl": claims.vmpl,
        "chip_id": claims.platform_id,
        "guest_svn": claims.svn,
        "reported_tcb": {name: reported[ours] for name, ours in _SNP_TCB.items() if ours in reported},
        "policy": {
            "abi_major": policy.get("abi_major"),
            "abi_minor": policy.get("abi_minor"),
            "debug_allowed": claims.debug,
            "migrate_ma_allowed": policy.get("migrate_ma"),
            "smt_allowed": policy.get("smt"),
            "single_socket_required": policy.get("single_socket"),
        },
        "plat_info": {"smt_enabled": platform.get("smt_en"), "tsme_enabled": platform.get("tsme_en")},
    }
    return {"evidence": evidence}


def _tpm(claims: Claims) -> dict[str, Any]:
    banks = claims.extra.get("pcrs") or {}
    strongest: Mapping[str, str] = banks.get("sha256") or next(iter(banks.values()), {})
    return {**{f"pcr{int(n):02}": value for n, value in strongest.items()}, "report_data": claims.report_data}


def _version(extra: Mapping[str, Any]) -> str:
    return int(extra.get("quote_version") or 0).to_bytes(2, "little").hex()


def _little_endian(number: object) -> str | None:
    """A hexadecimal number of 64 bits as the bytes the structure holds."""
    return int(number, 16).to_bytes(8, "little").hex() if isinstance(number, str) else None


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    """The same as JSON has it: no tuples, no times. What nobody stated is left out, so that it is undefined."""
    found: dict[str, Any] = json.loads(json.dumps(value, default=str))
    return {name: _stated(item) for name, item in found.items() if item is not None}


def _stated(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _stated(item) for name, item in value.items() if item is not None}
    return value
