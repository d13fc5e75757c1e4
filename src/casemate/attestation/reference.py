"""Reference values (RFC 9334 section 8.3): what evidence of a build must say, signed by whoever built it.

A document holds the values, digests of everything they were computed from, the tools, and an expiry; it is a JWS by the
builder's key. Two documents can be compared in words, and a policy written that pins the values. No network, disk or
clock."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from casemate.attestation.claims import Claims
from casemate.attestation.policy import AppraisalPolicy
from casemate.attestation.reference_errors import (
    ReferenceBuilderUnknownError,
    ReferenceEmptyError,
    ReferenceExpiredError,
    ReferenceInputError,
    ReferenceMalformedError,
    ReferenceSignatureError,
)
from casemate.crypto.errors import InvalidKeyError, SignatureInvalidError
from casemate.crypto.jose import Jwk, KeyPair, open_jws, peek_jws_header, public_jwk, thumbprint

__all__ = [
    "NAMES",
    "REFERENCE_TYPE",
    "Change",
    "Input",
    "Reference",
    "changes",
    "open_reference",
    "policy_yaml",
    "sign_reference",
    "values_of_claims",
]

REFERENCE_TYPE = "casemate-reference+jws"
MAX_SIZE = 1024 * 1024  # characters
NAMES: Mapping[str, str] = {
    "snp.measurement": "the SNP launch digest",
    "tdx.rtmr0": "RTMR0 (firmware configuration)",
    "tdx.rtmr1": "RTMR1 (boot loader and kernel)",
    "tdx.rtmr2": "RTMR2 (kernel command line, initrd)",
    "tdx.rtmr3": "RTMR3 (run time)",
    "sgx.measurement": "MRENCLAVE",
    "sgx.signer": "MRSIGNER",
    "simulator.measurement": "the SIMULATED runtime measurement",
    "workload": "the workload digest",
}
"""Every value a document may have. Hex: 48 bytes, 32 for SGX."""
_HEX = re.compile(r"(?:[0-9a-f]{64}|[0-9a-f]{96})")
_WORD = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_MAX_ITEMS = 1000
_UNDATED = datetime(1970, 1, 1, tzinfo=UTC)  # what evidence shows has no date


@dataclass(frozen=True)
class Input:
    """A file that values were computed from: its part in the build, its name, its SHA-256 (hex) and size in bytes."""

    role: str
    name: str
    sha256: str
    size: int

    def to_json(self) -> dict[str, Any]:
        return {"role": self.role, "name": self.name, "sha256": self.sha256, "size": self.size}


@dataclass(frozen=True)
class Reference:
    """Reference values of one build. ``parameters`` are settings that went in beside files, such as a command line."""

    name: str
    values: Mapping[str, str]
    inputs: tuple[Input, ...] = ()
    parameters: Mapping[str, str] = field(default_factory=dict)
    tools: Mapping[str, str] = field(default_factory=dict)
    issued: datetime = _UNDATED
    expires: datetime = _UNDATED
    builder: Jwk | None = None

    @property
    def builder_thumbprint(self) -> str:
        """RFC 7638 thumbprint of the key that signed it."""
        return "" if self.builder is None else thumbprint(self.builder)

    def to_json(self) -> dict[str, Any]:
        return {
            "version": 1,
            "name": self.name,
            "issued": self.issued.isoformat(),
            "expires": self.expires.isoformat(),
            "builder": self.builder,
            "values": dict(sorted(self.values.items())),
            "inputs": [one.to_json() for one in self.inputs],
            "parameters": dict(sorted(self.parameters.items())),
            "tools": dict(sorted(self.tools.items())),
        }


# -- the signed document -----------------------------------------------------------------------------------------------
def sign_reference(reference: Reference, key: KeyPair) -> str:
    """The compact JWS by ``key``, which the document then names as its builder.

    Raises ``ReferenceEmptyError`` without a value."""
    if not reference.values:
        raise ReferenceEmptyError("reference values: none to sign")
    return key.sign({**reference.to_json(), "builder": key.public}, typ=REFERENCE_TYPE)


def open_reference(token: str, *, builder: Jwk | None = None, now: datetime | None = None) -> Reference:
    """The document of a JWS, its signature verified; ``builder``: whose it must be, ``now``: when it must hold.

    Without ``builder`` the signature only proves that the document is as the key in it left it: enough to show, not to
    decide. Raises ``ReferenceMalformedError``, ``ReferenceSignatureError``, ``ReferenceBuilderUnknownError`` or, when
    it is no longer good, ``ReferenceExpiredError``."""
    # 1. Form and type.     2. The key it names.     3. The signature.     4. The builder demanded.     5. Expiry.
    token = token.strip()
    if len(token) > MAX_SIZE:
        raise ReferenceMalformedError(f"reference values: {len(token)} characters, at most {MAX_SIZE}")
    try:  # (1)
        header = peek_jws_header(token)
        part = token.split(".")[1]
        payload = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (SignatureInvalidError, ValueError, binascii.Error, RecursionError) as exc:
        raise ReferenceMalformedError("reference values: not a compact JWS with a JSON document") from exc
    if header.get("typ") != REFERENCE_TYPE:
        raise ReferenceMalformedError(f"reference values: need a JWS of type {REFERENCE_TYPE}, got {header.get('typ')}")
    found = _parse(payload)
    key = found.builder or {}  # (2)
    try:
        open_jws(token, key, typ=REFERENCE_TYPE)  # (3)
    except (SignatureInvalidError, InvalidKeyError) as exc:
        raise ReferenceSignatureError(f"reference values {found.name}: {exc.message}") from exc
    if builder is not None and thumbprint(builder) != found.builder_thumbprint:  # (4)
        raise ReferenceBuilderUnknownError(
            f"reference values {found.name}: signed by {found.builder_thumbprint}, need {thumbprint(builder)}"
        )
    if now is not None and now > found.expires:  # (5)
        raise ReferenceExpiredError(
            f"reference values {found.name}: good until {found.expires.isoformat()}, now {now.isoformat()}"
        )
    return found


def _parse(payload: Any) -> Reference:
    members = {"version", "name", "issued", "expires", "builder", "values", "inputs", "parameters", "tools"}
    if not isinstance(payload, dict) or payload.keys() != members or payload["version"] != 1:
        raise ReferenceMalformedError("reference values: need a document of version 1 with its nine members")
    values = _texts(payload["values"], "values")
    for name, value in values.items():
        if name not in NAMES or not _HEX.fullmatch(value):
            raise ReferenceMalformedError(f"reference values: {name[:60]!r} is unknown, or not a digest")
    if not isinstance(payload["name"], str) or not _WORD.fullmatch(payload["name"]):
        raise ReferenceMalformedError("reference values: the name is not a word of lower-case letters and digits")
    try:
        builder = public_jwk(payload["builder"])
        issued, expires = datetime.fromisoformat(payload["issued"]), datetime.fromisoformat(payload["expires"])
        if issued.tzinfo is None or expires.tzinfo is None:
            raise ValueError("a time without a zone")
    except (InvalidKeyError, ValueError, TypeError) as exc:
        raise ReferenceMalformedError(f"reference values: builder, issued or expires: {exc}") from exc
    if not values:
        raise ReferenceMalformedError("reference values: there are none")
    parameters, tools = _texts(payload["parameters"], "parameters"), _texts(payload["tools"], "tools")
    inputs = tuple(_inputs(payload["inputs"]))
    return Reference(payload["name"], values, inputs, parameters, tools, issued, expires, builder)


def _texts(value: Any, what: str) -> dict[str, str]:
    good = isinstance(value, dict) and len(value) <= _MAX_ITEMS and all(isinstance(one, str) for one in value.values())
    if not good:
        raise ReferenceMalformedError(f"reference values: {what} is not an object of texts")
    return dict(value)


def _inputs(value: Any) -> Iterator[Input]:
    if not isinstance(value, list) or len(value) > _MAX_ITEMS:
        raise ReferenceMalformedError("reference values: inputs is not a list")
    for one in value:
        try:
            item = Input(**one)
        except TypeError as exc:
            raise ReferenceMalformedError("reference values: an input has other members than it must") from exc
        texts = (item.role, item.name, item.sha256)
        if not all(isinstance(text, str) for text in texts) or type(item.size) is not int:
            raise ReferenceMalformedError("reference values: a member of an input is of the wrong type")
        yield item


# -- what changed ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Change:
    """One difference. ``kind``: value, input, parameter, tool or document; ``before`` or ``after`` is ``None`` when it
    was added or removed."""

    kind: str
    name: str
    before: str | None
    after: str | None
    because: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "name": self.name,
            "before": self.before,
            "after": self.after,
            "because": list(self.because),
            "text": self.text(),
        }

    def text(self) -> str:
        """The change as a sentence."""
        what = NAMES.get(self.name, self.name) if self.kind == "value" else f"the {self.kind} {self.name}"
        if self.before is None:
            said = f"{what} is new: {_short(self.after)}"
        elif self.after is None:
            said = f"{what} is gone: it was {_short(self.before)}"
        else:
            said = f"{what} changed from {_short(self.before)} to {_short(self.after)}"
        return said + (f", because {' and '.join(self.because)} changed" if self.because else "")


_FEEDS: Mapping[str, tuple[str, ...]] = {
    "snp.": ("ovmf", "kernel", "initrd", "snp."),
    "tdx.": ("event log",),
    "sgx.": ("sigstruct", "gramine manifest", "sgx."),
    "simulator.": ("runtime",),
    "workload": ("workload manifest",),
}
_TOOLS: Mapping[str, str] = {"snp.": "sev-snp-measure", "sgx.": "gramine-sgx-sign", "simulator.": "casemate"}


def changes(old: Reference, new: Reference) -> list[Change]:
    """Every difference in values, inputs, parameters and tools; a changed value names what of its inputs changed."""
    inputs = _differences("input", _digests(old.inputs), _digests(new.inputs))
    parameters = _differences("parameter", old.parameters, new.parameters)
    tools = _differences("tool", old.tools, new.tools)
    values = [
        Change(one.kind, one.name, one.before, one.after, _because(one.name, (*inputs, *parameters, *tools)))
        for one in _differences("value", old.values, new.values)
    ]
    document = []
    if old.builder is not None and new.builder is not None and old.builder_thumbprint != new.builder_thumbprint:
        document = [Change("document", "builder", old.builder_thumbprint, new.builder_thumbprint)]
    return [*values, *inputs, *parameters, *tools, *document]


def _because(name: str, causes: Sequence[Change]) -> tuple[str, ...]:
    prefix = next(prefix for prefix in _FEEDS if name.startswith(prefix))
    feeds, tool = _FEEDS[prefix], _TOOLS.get(prefix)
    found = []
    for one in causes:
        fed = any(one.name.startswith(feed) for feed in feeds) if one.kind != "tool" else one.name == tool
        if fed and one.before is not None and one.after is not None:
            found.append(f"the {one.kind} {one.name}")
    return tuple(found)


def _digests(inputs: Sequence[Input]) -> dict[str, str]:
    return {one.role: one.sha256 for one in inputs}


def _differences(kind: str, old: Mapping[str, str], new: Mapping[str, str]) -> list[Change]:
    names = sorted(old.keys() | new.keys())
    return [Change(kind, name, old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)]


def _short(text: str | None) -> str:
    text = "nothing" if text is None else repr(text) if not _HEX.fullmatch(text) and text else text or "nothing"
    return text if len(text) <= 48 else f"{text[:24]}…"


def values_of_claims(claims: Claims) -> dict[str, str]:
    """The values that evidence shows, by the names of reference values: to compare, not to accept."""
    platform = "simulator" if claims.simulated and claims.platform == "tdx" else claims.platform
    out: dict[str, str] = {}
    if platform != "tdx" and claims.measurement:
        out[f"{platform}.measurement"] = claims.measurement
    if platform == "sgx" and claims.signer:
        out["sgx.signer"] = claims.signer
    if platform == "tdx":
        out |= {f"tdx.rtmr{number}": value for number, value in enumerate(claims.rtmr)}
    if claims.workload and any(character != "0" for character in claims.workload):
        out["workload"] = claims.workload
    return {name: value for name, value in out.items() if name in NAMES}


# -- a policy that pins them -------------------------------------------------------------------------------------------
def policy_yaml(reference: Reference, platform: str | None = None, mrtd: str | None = None) -> str:
    """A YAML policy that accepts this build alone, on ``platform`` (sgx, tdx, snp, simulator), or on the only one.

    TDX needs ``mrtd`` (hex): RTMRs are the word of the firmware, and only MRTD says which firmware that is.
    Raises ``ReferenceInputError`` without it, ``ReferenceEmptyError`` when the document has no value for the platform,
    or several platforms and none is named."""
    known = sorted({name.partition(".")[0] for name in reference.values if "." in name})
    if platform is None and len(known) == 1:
        platform = known[0]
    if platform is None or platform not in known:
        raise ReferenceEmptyError(
            f"reference values {reference.name}: for {', '.join(known) or 'no platform'}; name one"
        )
    values = reference.values
    lines = [
        f"# Pins the reference values {reference.name}, signed by {reference.builder_thumbprint}",
        f"# on {reference.issued.date().isoformat()}, good until {reference.expires.date().isoformat()}.",
        "version: 1",
        f"name: {reference.name[:50].rstrip('._-')}-{platform}",
    ]
    if platform == "simulator":
        lines += [
            "# SIMULATED evidence protects nothing from the administrator of the machine.",
            "allow_simulated: true",
        ]
    lines.append(f"platforms: [{'tdx' if platform == 'simulator' else platform}]")
    measurement = values.get(f"{platform}.measurement")
    if platform == "tdx":
        if mrtd is None or not re.fullmatch(r"[0-9a-f]{96}", mrtd):
            raise ReferenceInputError("TDX: RTMRs are the firmware's word; give its MRTD, 96 hex digits, by --mrtd")
        measurement = mrtd
    if measurement:
        lines.append(f'measurements: ["{measurement}"]')
    if platform == "sgx" and (signer := values.get("sgx.signer")):
        lines.append(f'signers: ["{signer}"]')
    rtmrs = {name[-1]: value for name, value in sorted(values.items()) if name.startswith("tdx.rtmr")}
    if platform == "tdx" and rtmrs:
        lines.append("rtmrs:")
        lines += [f'  "{number}": ["{value}"]' for number, value in rtmrs.items()]
    if workload := values.get("workload"):
        lines += [f'workloads: ["{workload}"]', "workload_binding: launch"]
    if platform in ("tdx", "sgx", "simulator"):
        lines += ["tcb:", "  statuses: [UpToDate]"]
    text = "\n".join(lines) + "\n"
    AppraisalPolicy.from_yaml(text)  # what is printed can be used
    return text
