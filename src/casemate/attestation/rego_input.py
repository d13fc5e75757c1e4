"""Claims as the input of a Rego policy: our own form, and the one policies for confidential-containers expect.

Trustee's verifiers named things differently over time; where two releases differ, both names are there. Byte fields are
hex in the order of the structure, but for ``az-snp-vtpm``, whose values are text and base64.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

from casemate.attestation.claims import Claims

__all__ = ["casemate_input", "trustee_inputs"]

_INTEL_VENDOR = "939a7233f79c4ca9940a0db3957f0607"  # the only one that quotes are read of
_ECDSA_P256 = "0200"  # the only attestation key type
_TCB_PARTS = ("bootloader", "tee", "snp", "microcode", "fmc")
_NOT_CONFIGURATION = frozenset(
    {"architecture", "uuid", "device_id", "certificate", "root", "crls_checked", "nonce", "measurements"}
)


def casemate_input(claims: Claims, *, init_data: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """``{"claims": ...}``, the claims by the names they have everywhere else; ``init_data`` beside, when known."""
    document: dict[str, Any] = {"claims": _plain(claims.to_json())}
    return document if init_data is None else {**document, "init_data": _plain(dict(init_data))}


def trustee_inputs(
    claims: Claims,
    *,
    events: Sequence[Mapping[str, Any]] = (),
    init_data: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], ...]:
    """What such a policy is asked about: one document, or one for each GPU; all have to be found good.

    A document has one member named for the platform (``tdx``, ``sgx``, ``snp``, ``az-tdx-vtpm``, ``az-snp-vtpm``,
    ``tpm``, ``nvidia``) with the claims by Trustee's names, and ``report_data`` and ``init_data`` beside. ``events``
    are those of a log that replays to the quoted registers, ``init_data`` the document whose digest the evidence
    carries."""
    shared: dict[str, Any] = {"report_data": claims.report_data, "init_data": _init_data(claims)}
    if init_data is not None:
        shared["init_data_claims"] = dict(init_data)
    out = []
    for name, part in _parts(claims):
        if events:
            part["uefi_event_logs"] = list(events)
        out.append(_plain({name: part, **shared}))
    return tuple(out) or (_plain(shared),)


def _parts(claims: Claims) -> list[tuple[str, dict[str, Any]]]:
    platform = claims.platform
    if platform == "gpu":
        return [("nvidia", _device(device)) for device in claims.extra.get("devices") or ()]
    if "vtpm" in claims.extra and platform in ("snp", "tdx"):
        return [(f"az-{platform}-vtpm", (_azure_snp if platform == "snp" else _azure_tdx)(claims))]
    maker = {"tdx": _tdx, "sgx": _sgx, "snp": _snp, "tpm": _tpm}.get(platform)
    return [] if maker is None else [(platform, maker(claims))]


def _init_data(claims: Claims) -> str | None:
    """The field that the digest of init-data travels in, as the structure holds it."""
    if claims.platform == "snp" and "vtpm" not in claims.extra:
        host_data = claims.extra.get("host_data")
        return str(host_data) if host_data is not None else None
    if claims.platform == "tpm" or "vtpm" in claims.extra:
        return _pcrs(claims).get("pcr08")
    return claims.workload or {"tdx": "00" * 48, "sgx": "00" * 64}.get(claims.platform)


# -- Intel -------------------------------------------------------------------------------------------------------------
def _intel(claims: Claims) -> dict[str, Any]:
    extra = claims.extra
    return {
        "tcb_status": claims.tcb.status,
        "tcb_date": claims.tcb.date,
        "advisory_ids": list(claims.tcb.advisories),
        "collateral_expiration_status": "0",  # expired collateral never gets this far: it is undecided
        "tcb_eval_num": claims.tcb.evaluation_number,
        "earliest_expiration_date": claims.collateral_expires and claims.collateral_expires.isoformat(),
        "platform_provider_id": extra.get("ppid"),
        "platform_instance_id": claims.platform_id,
        "is_dynamic_platform": extra.get("dynamic_platform"),
        "is_cached_keys": extra.get("cached_keys"),
        "is_smt_enabled": extra.get("smt_enabled"),
    }


def _tdx(claims: Claims) -> dict[str, Any]:
    extra = claims.extra
    attributes = extra.get("attributes") or []
    body = {
        "mr_td": claims.measurement,
        "mr_seam": extra.get("mr_seam"),
        "mrsigner_seam": claims.signer,
        "seam_attributes": extra.get("seam_attributes"),
        "mr_config_id": claims.workload or "00" * 48,
        "mr_owner": extra.get("mr_owner"),
        "mr_owner_config": extra.get("mr_owner_config"),
        "tcb_svn": extra.get("tee_tcb_svn"),
        "tee_tcb_svn2": extra.get("tee_tcb_svn2"),
        "td_attributes": _little_endian(extra.get("td_attributes")),
        "xfam": _little_endian(extra.get("xfam")),
        "report_data": extra.get("hardware_report_data") or claims.report_data,
        **{f"rtmr_{n}": value for n, value in enumerate(claims.rtmr)},
    }
    header = {"tee_type": "81000000", **_header(extra)}
    flags = {"debug": claims.debug, "septve_disable": "sept-ve-disable" in attributes}
    named = {"pks": "pks", "protection_keys": "pks", "key_locker": "key-locker", "perfmon": "perfmon"}
    flags |= {name: ours in attributes for name, ours in named.items()}
    return {"quote": {"header": header, "body": body}, "td_attributes": flags, **_intel(claims)}


def _sgx(claims: Claims) -> dict[str, Any]:
    extra = claims.extra
    body = {
        "mr_enclave": claims.measurement,
        "mr_signer": claims.signer,
        "isv_prod_id": _u16(claims.product_id),
        "isv_svn": _u16(claims.svn),
        "cpu_svn": extra.get("cpu_svn"),
        "misc_select": extra.get("misc_select"),
        "isv_ext_prod_id": extra.get("isv_ext_prod_id"),
        "isv_family_id": extra.get("isv_family_id"),
        "attributes.flags": _little_endian(extra.get("attributes_flags")),
        "attributes.xfrm": _little_endian(extra.get("attributes_xfrm")),
        "config_id": claims.workload or "00" * 64,
        "config_svn": _u16(extra.get("config_svn")),
        "report_data": claims.report_data,
    }
    header = {"att_key_data_0": "00000000", "tee_type": "00000000", **_header(extra)}
    quote = {"header": header, "body": body}
    return {**quote, "quote": quote, "debug": claims.debug, **_intel(claims)}


def _header(extra: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "vendor_id": _INTEL_VENDOR,
        "att_key_type": _ECDSA_P256,
        "version": _u16(extra.get("quote_version")),
    }


# -- AMD ---------------------------------------------------------------------------------------------------------------
def _snp(claims: Claims) -> dict[str, Any]:
    """``evidence`` as a structure, and flat as releases before had it."""
    policy, platform, reported = _snp_parts(claims)
    evidence = {
        "measurement": claims.measurement,
        "report_data": claims.extra.get("hardware_report_data") or claims.report_data,
        "host_data": claims.extra.get("host_data"),
        "vmpl": claims.vmpl,
        "version": claims.extra.get("version"),
        "chip_id": claims.platform_id,
        "guest_svn": claims.svn,
        "family_id": claims.extra.get("family_id"),
        "image_id": claims.extra.get("image_id"),
        "id_key_digest": claims.extra.get("id_key_digest"),
        "author_key_digest": claims.extra.get("author_key_digest"),
        "reported_tcb": reported,
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
    return {"evidence": evidence, "measurement": claims.measurement, **_snp_flat(claims)}


def _snp_parts(claims: Claims) -> tuple[Mapping[str, Any], Mapping[str, Any], dict[str, int]]:
    policy, platform = (dict(claims.extra.get(name) or {}) for name in ("policy", "platform_info"))
    reported = claims.tcb.reported or {}
    return policy, platform, {name: reported[name] for name in _TCB_PARTS if name in reported}


def _snp_flat(claims: Claims) -> dict[str, Any]:
    policy, platform, reported = _snp_parts(claims)
    return {
        "policy_abi_major": policy.get("abi_major"),
        "policy_abi_minor": policy.get("abi_minor"),
        "policy_smt_allowed": policy.get("smt"),
        "policy_migrate_ma": policy.get("migrate_ma"),
        "policy_debug_allowed": claims.debug,
        "policy_single_socket": policy.get("single_socket"),
        "platform_smt_enabled": platform.get("smt_en"),
        "platform_tsme_enabled": platform.get("tsme_en"),
        **{f"reported_tcb_{name}": value for name, value in reported.items()},
    }


# -- Azure, TPM, NVIDIA ------------------------------------------------------------------------------------------------
def _azure_snp(claims: Claims) -> dict[str, Any]:
    """Every number and flag as text, the measurement as base64: so has Trustee's verifier for Azure."""
    flat = {name: str(value).lower() for name, value in _snp_flat(claims).items() if value is not None}
    measurement = base64.b64encode(bytes.fromhex(claims.measurement or "")).decode()
    return {**flat, "measurement": measurement, "tpm": _pcrs(claims)}


def _azure_tdx(claims: Claims) -> dict[str, Any]:
    return {**_tdx(claims), "tpm": _pcrs(claims)}


def _tpm(claims: Claims) -> dict[str, Any]:
    return {**_pcrs(claims), "ak_public": claims.extra.get("ak_public"), "report_data": claims.report_data}


def _pcrs(claims: Claims) -> dict[str, str]:
    """PCRs by ``pcrNN``, of the SHA-256 bank if there is one."""
    banks = claims.extra.get("vtpm", claims.extra).get("pcrs") or {}
    values: Mapping[str, str] = banks.get("sha256") or next(iter(banks.values()), {})
    return {f"pcr{int(n):02}": value for n, value in values.items()}


def _device(device: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "arch": str(device.get("architecture") or "").capitalize(),
        "uuid": device.get("uuid"),
        "measurements": dict(device.get("measurements") or {}),
        "config": {name: value for name, value in device.items() if name not in _NOT_CONFIGURATION},
        "verifier": "local",
    }


# -- values ------------------------------------------------------------------------------------------------------------
def _u16(number: object) -> str | None:
    """A number of 16 bits as the bytes the structure holds."""
    return number.to_bytes(2, "little").hex() if isinstance(number, int) and 0 <= number < 1 << 16 else None


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
