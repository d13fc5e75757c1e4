"""The broker's client for owners and administrators: one method per /v1/ route, typed errors, a pinned CA.

Every request carries a proof made with the identity key. It needs neither the web framework nor the database library.
"""

from __future__ import annotations

import base64
import binascii
import http.client
import json
import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlencode

import casemate.attestation.errors
import casemate.attestation.refusals
import casemate.attestation.token_errors  # noqa: F401  (imported so that their codes map back to classes)
from casemate.broker import audit, merkle
from casemate.broker.errors import (
    AuditInconsistentError,
    BrokerAnswerError,
    BrokerUnreachableError,
)
from casemate.crypto.canonical import canonical_json
from casemate.crypto.jose import Jwk, KeyPair
from casemate.crypto.proof import make_proof
from casemate.crypto.secret import KEY_SIZE, Secret
from casemate.errors import CasemateError, error_class
from casemate.https import MAX_ANSWER, HttpsConnection
from casemate.model import DatasetName

__all__ = ["AuditReport", "BrokerClient"]

_PAGE_SIZE = 1000  # entries of one answer
_MAX_ERROR_TEXT = 2000  # characters


@dataclass(frozen=True)
class AuditReport:
    """A verified audit log: its size, how many entries were shown in full, and the checkpoint to keep."""

    size: int
    visible: int
    checkpoint: audit.Checkpoint
    entries: tuple[dict[str, Any], ...]


class BrokerClient:
    """Talks to one broker as the holder of ``key``. Close it, or use it as a context manager.

    ``token`` makes it an attested member instead of an owner: requests then carry the token, and proofs of the key its
    evidence binds. Every method raises the broker's own error by its code, or ``BrokerUnreachableError``."""

    def __init__(
        self,
        url: str,
        ca_pem: str,
        key: KeyPair,
        *,
        token: str | None = None,
        timeout: float = 20.0,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.url = url.rstrip("/")
        self._key = key
        self._token = token
        self._clock = clock
        try:
            self._connection = HttpsConnection(self.url, ca_pem, timeout=timeout)
        except ssl.SSLError as exc:
            raise BrokerUnreachableError(f"{self.url}: the pinned CA certificate cannot be used") from exc
        except ValueError as exc:
            raise BrokerUnreachableError(f"{self.url}: not an address ({exc})") from exc

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    # --- the broker ---

    def health(self) -> dict[str, Any]:
        """Status, version and id of the broker."""
        return self._object("GET", "/v1/health")

    def jwks(self) -> dict[str, Any]:
        """The keys that attestation tokens are signed with."""
        return self._object("GET", "/.well-known/jwks.json")

    # --- registry ---

    def register_owner(self, name: str, jwk: Jwk) -> dict[str, Any]:
        """Register an owner's public key (administrators)."""
        return self._object("POST", "/v1/owners", {"name": name, "jwk": jwk})

    def owners(self) -> list[dict[str, Any]]:
        return self._list("/v1/owners", "owners")

    def create_dataset(self, dataset: DatasetName) -> int:
        """Make a dataset's key; its version (1). Raises ``DatasetExistsError``."""
        return int(self._object("POST", "/v1/datasets", {"name": str(dataset)})["version"])

    def datasets(self) -> list[dict[str, Any]]:
        """The owner's datasets (all, for an administrator): name, owner, version, created."""
        return self._list("/v1/datasets", "datasets")

    def rotate(self, dataset: DatasetName) -> int:
        """Make the next version of a dataset's key; its number."""
        return int(self._object("POST", f"{_path(dataset)}/rotate")["version"])

    def dataset_key(self, dataset: DatasetName, version: int | None = None) -> tuple[int, Secret]:
        """One version of a dataset key, the latest by default, for its owner: (version, 32 bytes).

        It travels sealed to a key pair that lives for this call alone."""
        ephemeral = KeyPair.generate()
        body = {"version": version, "recipient": ephemeral.public}
        answer = self._object("POST", f"{_path(dataset)}/release", body)
        return _open_key(dataset, version, ephemeral.unseal(answer["jwe"]))

    def add_policy(self, yaml: str) -> dict[str, Any]:
        """Upload an appraisal policy: its name and digest, which grants name."""
        return self._object("POST", "/v1/policies", {"yaml": yaml})

    def policies(self) -> list[dict[str, Any]]:
        return self._list("/v1/policies", "policies")

    def policy(self, digest: str) -> dict[str, Any]:
        """A policy by its digest: name, digest, created, yaml. Raises ``PolicyUnknownError``."""
        return self._object("GET", f"/v1/policies/{quote(digest, safe='')}")

    def set_floor(self, digest: str, owner: str | None = None) -> dict[str, Any]:
        """Make a policy the floor of an owner's datasets, or of the whole broker (administrators)."""
        return self._object("PUT", _floor_path(owner), {"digest": digest})

    def clear_floor(self, owner: str | None = None) -> None:
        """Take the floor of an owner, or of the broker, away (administrators)."""
        self._object("DELETE", _floor_path(owner))

    def floors(self) -> list[dict[str, Any]]:
        """The floors that count for the owner (all, for an administrator): owner, name, digest, since."""
        return self._list("/v1/floors", "floors")

    def add_grant(self, jws: str) -> str:
        """Bring a signed grant; its id."""
        return str(self._object("POST", "/v1/grants", {"jws": jws})["id"])

    def grants(self) -> list[dict[str, Any]]:
        """The owner's grants (all, for an administrator): their terms, status, releases, jws."""
        return self._list("/v1/grants", "grants")

    def revoke_grant(self, grant_id: str) -> None:
        self._object("POST", f"/v1/grants/{quote(grant_id, safe='')}/revoke")

    # --- generations and jobs ---

    def generation(self, dataset: DatasetName, location: str) -> tuple[int, str | None]:
        """The generation recorded for a location: (number, digest); (0, None) when there is none."""
        answer = self._object("GET", f"{_path(dataset)}/generations", params={"location": location})
        return int(answer["generation"]), answer["digest"]

    def record_generation(self, dataset: DatasetName, location: str, number: int, digest: str) -> None:
        """Record generation ``number``; raises ``GenerationConflictError`` unless ``number - 1`` is recorded."""
        body = {"generation": number, "digest": digest}
        self._object("PUT", f"{_path(dataset)}/generations", body, params={"location": location})

    def job_certificate(self, job: str, names: Iterable[str] = ()) -> dict[str, Any]:
        """``certificate`` and ``ca`` (PEM) for an attested member's key; needs ``token``."""
        return self._object("POST", f"/v1/jobs/{quote(job, safe='')}/certificate", {"names": list(names)})

    # --- audit ---

    def explain(self, refusal_id: str) -> dict[str, Any]:
        """The audit entry of a refusal, with every clause."""
        return self._object("GET", f"/v1/refusals/{quote(refusal_id, safe='')}")

    def audit_entries(self, start: int = 0, end: int | None = None) -> list[dict[str, Any]]:
        """Entries ``start`` to ``end`` (exclusive): index, leaf_hash, and entry (None when it is not ours to see)."""
        out: list[dict[str, Any]] = []
        while end is None or start < end:
            params = {"start": start} if end is None else {"start": start, "end": end}
            page = self._list("/v1/audit/entries", "entries", params=params)
            out += page
            start += len(page)
            if len(page) < _PAGE_SIZE:
                break
        return out

    def audit_checkpoint(self, size: int | None = None) -> dict[str, Any]:
        """The signed checkpoint of ``size`` (default: the latest): size, root, time, jws, jwk."""
        return self._object("GET", "/v1/audit/checkpoint", params=_given(size=size))

    def audit_key(self) -> Jwk:
        """The key that checkpoints are signed with."""
        return dict(self._object("GET", "/v1/audit/key")["jwk"])

    def inclusion_proof(self, index: int, size: int | None = None) -> dict[str, Any]:
        return self._object("GET", "/v1/audit/proof/inclusion", params=_given(index=index, size=size))

    def consistency_proof(self, first: int, second: int | None = None) -> dict[str, Any]:
        return self._object("GET", "/v1/audit/proof/consistency", params=_given(first=first, second=second))

    def verify_audit(self, seen: Iterable[str] = (), key: Jwk | None = None) -> AuditReport:
        """Fetch the whole log and verify it against its latest checkpoint and those ``seen`` before (JWS).

        ``key`` is the audit key known from before; without it, the one the broker names over its pinned connection.
        Raises ``AuditInconsistentError`` for any edit, deletion, insertion, reordering, fork or roll-back."""
        latest = self.audit_checkpoint()
        public = key or latest["jwk"]
        checkpoint = audit.open_checkpoint(latest["jws"], public)
        rows = self.audit_entries(0, checkpoint.size)
        leaves, visible = [], []
        for place, row in enumerate(rows):
            try:
                index, leaf, entry = row["index"], bytes.fromhex(row["leaf_hash"]), row["entry"]
            except (KeyError, TypeError, ValueError) as exc:
                raise AuditInconsistentError(f"audit entry {place} is not readable") from exc
            if index != place:
                raise AuditInconsistentError(f"audit entry {place} is missing; the broker sent entry {index} instead")
            if entry is not None:
                visible.append(audit.open_entry(canonical_json(entry), leaf, place))
            leaves.append(leaf)
        audit.verify(leaves, [checkpoint.jws], public, seen)
        return AuditReport(len(leaves), len(visible), checkpoint, tuple(visible))

    def verify_inclusion(self, index: int, checkpoint: audit.Checkpoint) -> None:
        """Check that entry ``index`` is in the log of a checkpoint, without fetching the log."""
        proof = self.inclusion_proof(index, checkpoint.size)
        path = [bytes.fromhex(node) for node in proof["proof"]]
        leaf = bytes.fromhex(self.audit_entries(index, index + 1)[0]["leaf_hash"])
        merkle.verify_inclusion(leaf, index, checkpoint.size, path, checkpoint.root)

    # --- plumbing ---

    def _headers(self, method: str, path: str) -> dict[str, str]:
        proof = make_proof(self._key, method=method, url=self.url + path, now=self._clock(), token=self._token)
        return {"DPoP": proof, **({} if self._token is None else {"Authorization": f"DPoP {self._token}"})}

    def _object(
        self, method: str, path: str, body: Any = None, *, params: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        payload = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        query = f"?{urlencode(params)}" if params else ""
        try:
            reply = self._connection.exchange(
                method, path + query, payload, lambda: self._headers(method, path), again=False
            )
        except (OSError, http.client.HTTPException, UnicodeError) as exc:
            raise BrokerUnreachableError(f"{self.url}: {str(exc) or type(exc).__name__}") from exc
        try:
            if len(reply.body) > MAX_ANSWER:
                raise ValueError("too much")
            value = json.loads(reply.body)
        except (ValueError, RecursionError) as exc:
            raise BrokerAnswerError(f"{self.url}: HTTP status {reply.status}, and no JSON") from exc
        if not isinstance(value, dict):
            raise BrokerAnswerError(f"{self.url}: need a JSON object, got {type(value).__name__}")
        if 200 <= reply.status < 300:
            return value
        raise _typed_error(reply.status, value)

    def _list(self, path: str, member: str, *, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        value = self._object("GET", path, params=params).get(member)
        if not isinstance(value, list):
            raise BrokerAnswerError(f"{self.url}{path}: the answer has no list {member!r}")
        return value


def _floor_path(owner: str | None) -> str:
    return "/v1/floors/broker" if owner is None else f"/v1/floors/owners/{quote(owner, safe='')}"


def _path(dataset: DatasetName) -> str:
    return f"/v1/datasets/{quote(dataset.owner)}/{quote(dataset.name)}"


def _given(**params: int | None) -> dict[str, int]:
    return {name: value for name, value in params.items() if value is not None}


def _typed_error(status: int, problem: Mapping[str, Any]) -> CasemateError:
    code, detail, refusal = problem.get("code"), problem.get("detail"), problem.get("refusal_id")
    if not isinstance(code, str):
        return BrokerAnswerError(f"HTTP status {status}: {str(detail)[:_MAX_ERROR_TEXT]}")
    message = detail if isinstance(detail, str) else code
    error = error_class(code, status)(
        message[:_MAX_ERROR_TEXT], refusal_id=refusal if isinstance(refusal, str) else None
    )
    if error.code != code:  # a newer broker's code: keep it beside its branch
        setattr(error, "code", code)  # noqa: B010
    return error


def _open_key(dataset: DatasetName, version: int | None, plaintext: Secret) -> tuple[int, Secret]:
    """The key in an ``oct`` JWK whose ``kid`` is ``owner/dataset/version``; nothing of it reaches a message."""
    try:
        jwk = json.loads(plaintext.reveal())
        name, _, number = jwk["kid"].rpartition("/")
        raw = base64.b64decode(jwk["k"] + "=" * (-len(jwk["k"]) % 4), altchars=b"-_", validate=True)
        found = int(number)
        good = name == str(dataset) and jwk["kty"] == "oct" and len(raw) == KEY_SIZE and version in (None, found)
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error):
        good = False
    if not good:
        raise BrokerAnswerError(f"{dataset}: the broker's answer is not the key that was asked for") from None
    return found, Secret(raw)
