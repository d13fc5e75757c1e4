"""What an attester says it was launched with (init-data), read for a release decision. No I/O, no clock.

The text is untrusted until its digest was compared with the evidence; then it says which zones the workload has.
Two formats: ``json``, a workload manifest as RFC 8785 JSON, and ``toml``, a confidential-containers init-data document
that may carry such a manifest as ``data."casemate.json"``. Any member of the manifest that a decision does not need is
left alone: the digest covers it.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from casemate.broker.errors import WorkloadDigestError
from casemate.broker.grants import PLAINTEXT_RECIPIENT
from casemate.crypto.canonical import canonical_json
from casemate.crypto.errors import InvalidKeyError, SignatureInvalidError
from casemate.crypto.jose import KeyPair, open_jws, peek_jws_header, thumbprint
from casemate.errors import UsageError
from casemate.model import Access, ColumnKeys, DatasetName, Zone

__all__ = ["WORKLOAD_TYPE", "Workload", "parse_init_data", "sign_workload", "verify_signers"]

WORKLOAD_TYPE = "casemate-workload+jws"
_TOML_MEMBER = "casemate.json"
_TOML_DIGESTS = {"sha-256": hashlib.sha256, "sha-384": hashlib.sha384, "sha-512": hashlib.sha512}
_MAX_ZONES = 1024


@dataclass(frozen=True)
class Workload:
    """A workload as its evidence binds it. ``bound`` is the digest the evidence has to carry, ``digest`` the manifest's
    (SHA-384, hex; they differ only for TOML); ``has_manifest`` is False for a guest that knows nothing of zones."""

    digest: str
    bound: str
    zones: tuple[Zone, ...] = ()
    plaintext_output: bool = False
    has_manifest: bool = True
    init_data: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)  # as policies may read it

    def access(self, dataset: DatasetName) -> Access | None:
        """All that the zones need that name a dataset, for all their files or for columns; None when none does."""
        needed: Access | None = None
        for zone in self.zones:
            if dataset in zone.datasets:
                needed = zone.access if needed is None else needed | zone.access
        return needed

    def covers(self, dataset: DatasetName, location: str, *, write: bool) -> bool:
        """Whether a zone of the dataset holds ``location`` (a normalised URI), for writing if asked."""
        return any(
            zone.dataset == dataset
            and (zone.access.can_write or not write)
            and (location == zone.prefix or location.startswith(zone.prefix.rstrip("/") + "/"))
            for zone in self.zones
        )

    @property
    def outputs(self) -> tuple[str, ...]:
        """Where the workload may write: dataset names, and ``plaintext`` when it may write outside its zones."""
        names = dict.fromkeys(str(name) for zone in self.zones if zone.access.can_write for name in zone.datasets)
        return (*names, PLAINTEXT_RECIPIENT) if self.plaintext_output else tuple(names)


def parse_init_data(format_: str, body: str) -> Workload:
    """Read init-data; raises ``WorkloadDigestError`` for what is not canonical or not a manifest."""
    raw = body.encode()
    if format_ == "json":
        return _from_manifest(raw, bound=hashlib.sha384(raw).hexdigest())
    if format_ != "toml":
        raise WorkloadDigestError(f"init-data: format {format_!r}, need json or toml")
    try:
        document = tomllib.loads(body)
        bound = _TOML_DIGESTS[document["algorithm"]](raw).hexdigest()
        inner = document["data"].get(_TOML_MEMBER)
    except (tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise WorkloadDigestError("init-data: not a TOML document with algorithm and data") from exc
    if not isinstance(inner, str):
        return Workload(hashlib.sha384(raw).hexdigest(), bound, has_manifest=False, init_data=document["data"])
    return _from_manifest(inner.encode(), bound=bound)


def _from_manifest(raw: bytes, *, bound: str) -> Workload:
    try:
        manifest: Any = json.loads(raw)
        if not isinstance(manifest, dict) or canonical_json(manifest) != raw:
            raise ValueError("not an object in RFC 8785 form")
        zones = manifest.get("zones", [])
        if not isinstance(zones, list) or len(zones) > _MAX_ZONES:
            raise ValueError(f"zones: need a list of at most {_MAX_ZONES}")
        return Workload(
            digest=hashlib.sha384(raw).hexdigest(),
            bound=bound,
            zones=tuple(_zone(item) for item in zones),
            plaintext_output=manifest.get("plaintext_output", "deny") != "deny",
            init_data=manifest,
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, UsageError) as exc:
        raise WorkloadDigestError(f"init-data: not a workload manifest as RFC 8785 JSON: {exc}") from exc


def _zone(item: Mapping[str, Any]) -> Zone:
    prefix = item["prefix"]
    if not isinstance(prefix, str) or "://" not in prefix or "/../" in f"{prefix}/":
        raise ValueError(f"zone prefix {prefix!r}: need a normalised absolute URI")
    columns = ColumnKeys.from_json(item["parquet"]) if "parquet" in item else None
    return Zone(prefix, DatasetName.parse(item["dataset"]), Access(item["access"]), columns)


def sign_workload(digest: str, key: KeyPair) -> str:
    """A signer's word for a workload digest: travels beside the init-data, and grants may name the signer instead."""
    return key.sign({"version": 1, "workload": digest}, typ=WORKLOAD_TYPE, header={"jwk": key.public})


def verify_signers(signatures: Sequence[str], digest: str) -> frozenset[str]:
    """Thumbprints of the keys that signed this very digest; raises ``SignatureInvalidError`` for a bad signature."""
    signers = set()
    for jws in signatures:
        key = peek_jws_header(jws).get("jwk")
        if not isinstance(key, dict):
            raise SignatureInvalidError("workload signature: no key in its header")
        if open_jws(jws, key, typ=WORKLOAD_TYPE) != {"version": 1, "workload": digest}:
            raise SignatureInvalidError("workload signature: made for another workload")
        try:
            signers.add(thumbprint(key))
        except InvalidKeyError as exc:
            raise SignatureInvalidError("workload signature: unusable key") from exc
    return frozenset(signers)
