"""Owners, datasets and their keys, appraisal policies, grants: what owners and administrators put into the broker."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from casemate.attestation.policies import Policy, parse_policy
from casemate.attestation.rego_worker import shared_worker
from casemate.broker.context import BrokerContext
from casemate.broker.errors import (
    DatasetExistsError,
    DatasetUnknownError,
    GrantConflictError,
    GrantUnknownError,
    KeyVersionUnknownError,
    NotAuthorisedError,
    OwnerExistsError,
    OwnerUnknownError,
    PolicyUnknownError,
    RequestMalformedError,
)
from casemate.broker.grants import Grant, verify_grant
from casemate.broker.identity import Principal
from casemate.broker.keys import dataset_key_jwk, unwrap_dataset_key, wrap_dataset_key
from casemate.broker.storage.repository import DatasetRow, GrantRow, OwnerRow, PolicyRow, Reader
from casemate.broker.uses import count_releases
from casemate.crypto.errors import SignatureInvalidError
from casemate.crypto.jose import Jwk, peek_jws_header, public_jwk, seal, thumbprint
from casemate.crypto.secret import Secret
from casemate.model import DatasetName

__all__ = ["RESERVED_OWNERS", "Registry", "open_key", "read_grant", "read_policy"]

RESERVED_OWNERS = frozenset({"job"})  # resource paths that begin so are not datasets


@lru_cache(maxsize=4096)
def _verified(jws: str, owner_jwk: str) -> Grant:
    return verify_grant(jws, json.loads(owner_jwk))


def read_grant(row: GrantRow, owner: OwnerRow) -> Grant:
    """The grant in a stored row, its signature verified against its owner's key."""
    return _verified(row.jws, json.dumps(owner.jwk, sort_keys=True))


@lru_cache(maxsize=256)
def read_policy(text: str) -> Policy:
    """A stored policy. It was checked when it came in: whether its language can be evaluated here shows in its use."""
    return parse_policy(text, shared_worker(), known_good=True)


def open_key(context: BrokerContext, reader: Reader, dataset: DatasetRow, version: int | None) -> tuple[int, Secret]:
    """One version of a dataset key (None: the latest); raises ``KeyVersionUnknownError`` or ``UnwrapError``."""
    number = dataset.version if version is None else version
    wrapped = reader.wrapped_key(dataset.name, number)
    owner = reader.owner(dataset.owner)
    if wrapped is None or owner is None:
        raise KeyVersionUnknownError(f"{dataset.name}: no key version {number}; the latest is {dataset.version}")
    return number, unwrap_dataset_key(context.root_keys, wrapped, dataset.name, number, thumbprint(owner.jwk))


@dataclass(frozen=True)
class Registry:
    context: BrokerContext

    # --- owners ---

    def add_owner(self, principal: Principal, name: str, jwk: Jwk) -> dict[str, Any]:
        """Register an owner (administrators only). The same name with the same key again changes nothing."""
        context, now = self.context, self.context.clock()
        DatasetName(name, "x")  # the form of an owner's name
        if name in RESERVED_OWNERS:
            raise RequestMalformedError(f"owner name {name!r} is reserved")
        key = public_jwk(jwk)
        if key.get("crv") != "P-256":
            raise RequestMalformedError("owner key: need an EC P-256 key")
        row = OwnerRow(name, thumbprint(key), key, now)
        with context.audit.recording("owner.create", owner=name, actor=str(principal)) as record:
            principal.require_admin()
            record.owners = (name,)
            with context.repository.writing() as writer:
                known = writer.owner(name)
                if known is not None and known.thumbprint == row.thumbprint:
                    return _owner_view(known)
                if not writer.add_owner(row):
                    raise OwnerExistsError(f"owner {name}: the name or the key is registered already")
                record.subject["thumbprint"] = row.thumbprint
                context.audit.append(writer, record.entry("accepted"), now)
        return _owner_view(row)

    def owners(self) -> list[dict[str, Any]]:
        with self.context.repository.reading() as reader:
            return [_owner_view(row) for row in reader.owners()]

    # --- datasets ---

    def add_dataset(self, principal: Principal, name: DatasetName) -> dict[str, Any]:
        """Make a dataset and version 1 of its key (its owner only)."""
        context, now = self.context, self.context.clock()
        with context.audit.recording("dataset.create", dataset=str(name), actor=str(principal)) as record:
            record.owners = (name.owner,)
            principal.require_owner(name.owner)
            with context.repository.writing() as writer:
                if not writer.add_dataset(str(name), name.owner, now):
                    raise DatasetExistsError(f"dataset {name} has a key already")
                self._add_version(writer, str(name), 1, principal, now)
                context.audit.append(writer, record.entry("accepted"), now)
        return {"name": str(name), "version": 1}

    def rotate(self, principal: Principal, name: DatasetName) -> dict[str, Any]:
        """Make the next version of a dataset's key (its owner only); older ones stay readable."""
        context, now = self.context, self.context.clock()
        with context.audit.recording("dataset.rotate", dataset=str(name), actor=str(principal)) as record:
            record.owners = (name.owner,)
            principal.require_owner(name.owner)
            with context.repository.writing() as writer:
                version = _dataset(writer, name).version + 1
                self._add_version(writer, str(name), version, principal, now)
                record.subject["version"] = version
                context.audit.append(writer, record.entry("accepted"), now)
        return {"name": str(name), "version": version}

    def _add_version(self, writer: Any, name: str, version: int, principal: Principal, now: datetime) -> None:
        wrapped = wrap_dataset_key(self.context.root_keys, Secret.random(), name, version, principal.thumbprint)
        if not writer.add_key(name, version, wrapped, now):
            raise DatasetExistsError(f"dataset {name} has key version {version} already")

    def datasets(self, principal: Principal) -> list[dict[str, Any]]:
        """An owner's datasets; all of them for an administrator."""
        with self.context.repository.reading() as reader:
            rows = reader.datasets(None if principal.admin else principal.owner or "")
        return [
            {"name": row.name, "owner": row.owner, "version": row.version, "created": row.created.isoformat()}
            for row in rows
        ]

    def release_to_owner(
        self, principal: Principal, name: DatasetName, version: int | None, recipient: Jwk
    ) -> dict[str, Any]:
        """A dataset key sealed to a key of its owner's choice (the owner only); entered into the audit log."""
        context, now = self.context, self.context.clock()
        with context.audit.recording("release.owner", dataset=str(name), actor=str(principal)) as record:
            record.owners = (name.owner,)
            principal.require_owner(name.owner)
            with context.repository.writing() as writer:
                number, key = open_key(context, writer, _dataset(writer, name), version)
                sealed = seal(recipient, dataset_key_jwk(key, str(name), number))
                record.subject.update(version=number, recipient=thumbprint(recipient))
                context.audit.append(writer, record.entry("accepted"), now)
        return sealed

    # --- policies ---

    def add_policy(self, principal: Principal, yaml: str) -> dict[str, Any]:
        """Take in an appraisal policy. It is known by its digest, so that it never changes under a grant."""
        context, now = self.context, self.context.clock()
        policy = parse_policy(yaml, shared_worker())
        view = {"name": policy.name, "digest": policy.digest}
        with (
            context.audit.recording("policy.create", **view, actor=str(principal)) as record,
            context.repository.writing() as writer,
        ):
            if writer.add_policy(PolicyRow(policy.digest, policy.name, yaml, now)):
                record.owners = () if principal.owner is None else (principal.owner,)
                context.audit.append(writer, record.entry("accepted"), now)
        return view

    def policies(self) -> list[dict[str, Any]]:
        with self.context.repository.reading() as reader:
            rows = reader.policies()
        return [{"name": row.name, "digest": row.digest, "created": row.created.isoformat()} for row in rows]

    def policy(self, digest: str) -> dict[str, Any]:
        """One policy with its text; raises ``PolicyUnknownError``."""
        with self.context.repository.reading() as reader:
            row = reader.policy(digest)
        if row is None:
            raise PolicyUnknownError(f"no policy with digest {digest[:16]}…")
        return {"name": row.name, "digest": row.digest, "created": row.created.isoformat(), "yaml": row.yaml}

    # --- floors ---

    def set_floor(self, principal: Principal, owner: str | None, digest: str | None) -> dict[str, Any]:
        """Make a policy the floor of an owner, or of the broker (None); no digest takes it away. Administrators only.

        From then on it has to hold beside the policy of any grant, those that exist included."""
        context, now = self.context, self.context.clock()
        kind, scope = ("floor.set" if digest else "floor.clear"), owner or "broker"
        with (
            context.audit.recording(kind, scope=scope, digest=digest, actor=str(principal)) as record,
            context.repository.writing() as writer,
        ):
            principal.require_admin()
            if owner is not None:
                if writer.owner(owner) is None:
                    raise OwnerUnknownError(f"no owner {owner}")
                record.owners = (owner,)
            policy = None if digest is None else writer.policy(digest)
            if digest is not None and policy is None:
                raise PolicyUnknownError(f"no policy with digest {digest[:16]}…")
            writer.set_floor(owner, digest, now)
            record.subject["name"] = None if policy is None else policy.name
            context.audit.append(writer, record.entry("accepted"), now)
        return {"owner": owner, "name": None if policy is None else policy.name, "digest": digest}

    def floors(self, principal: Principal) -> list[dict[str, Any]]:
        """The floors that count for an owner; all of them for an administrator."""
        with self.context.repository.reading() as reader:
            rows = reader.floors(None if principal.admin else principal.owner or "")
        return [
            {
                "owner": row.owner,
                "name": row.policy.name,
                "digest": row.policy.digest,
                "since": row.created.isoformat(),
            }
            for row in rows
        ]

    # --- grants ---

    def add_grant(self, principal: Principal, jws: str) -> dict[str, Any]:
        """Take in a grant that its owner signed. The very same grant again changes nothing."""
        context, now = self.context, self.context.clock()
        with (
            context.audit.recording("grant.create", actor=str(principal)) as record,
            context.repository.writing() as writer,
        ):
            owner = writer.owner_by_thumbprint(str(peek_jws_header(jws).get("kid")))
            if owner is None:
                raise OwnerUnknownError("the grant is not signed by a registered owner")
            record.owners = (owner.name,)
            grant = verify_grant(jws, owner.jwk)
            record.subject.update(grant=grant.id, owner=grant.owner)
            if grant.owner != owner.name:
                raise SignatureInvalidError(f"the grant is of {grant.owner}, but signed by {owner.name}")
            if not (principal.admin or principal.owner == grant.owner):
                raise NotAuthorisedError(f"only {grant.owner} or an administrator may bring this grant")
            self._check_names(writer, grant)
            row = GrantRow(grant.id, grant.owner, jws, now, None, not_after=grant.not_after)
            if writer.add_grant(row, [str(name) for name in grant.datasets]):
                record.subject["terms"] = grant.to_json()
                context.audit.append(writer, record.entry("accepted"), now)
            elif (known := writer.grant(grant.id)) is None or known.jws != jws:
                raise GrantConflictError(f"grant {grant.id} exists with other terms")
        return {"id": grant.id}

    def _check_names(self, reader: Reader, grant: Grant) -> None:
        for name in grant.datasets:
            _dataset(reader, name)
        if reader.policy(grant.policy_digest) is None:
            raise PolicyUnknownError(f"no policy {grant.policy_name} with digest {grant.policy_digest[:16]}…")

    def revoke_grant(self, principal: Principal, grant_id: str) -> dict[str, Any]:
        """Take a grant back (its owner only); from then on nothing is released under it."""
        context, now = self.context, self.context.clock()
        with (
            context.audit.recording("grant.revoke", grant=grant_id, actor=str(principal)) as record,
            context.repository.writing() as writer,
        ):
            row = writer.grant(grant_id)
            if row is None:
                raise GrantUnknownError(f"no grant {grant_id}")
            record.owners = (row.owner,)
            principal.require_owner(row.owner)
            if writer.revoke_grant(grant_id, now):
                context.audit.append(writer, record.entry("accepted"), now)
        return {"id": grant_id, "status": "revoked"}

    def grants(self, principal: Principal) -> list[dict[str, Any]]:
        """An owner's grants with their state; all of them for an administrator."""
        now = self.context.clock()
        with self.context.repository.reading() as reader:
            rows = reader.grants(None if principal.admin else principal.owner or "")
            owners = {row.name: row for row in reader.owners()}
        return [_grant_view(row, read_grant(row, owners[row.owner]), now) for row in rows]


def _dataset(reader: Reader, name: DatasetName) -> DatasetRow:
    row = reader.dataset(str(name))
    if row is None:
        raise DatasetUnknownError(f"no dataset {name}")
    return row


def _owner_view(row: OwnerRow) -> dict[str, Any]:
    return {"name": row.name, "jwk": row.jwk, "thumbprint": row.thumbprint, "created": row.created.isoformat()}


def _grant_view(row: GrantRow, grant: Grant, now: datetime) -> dict[str, Any]:
    releases = count_releases(row.openers)
    status = "active"
    if row.revoked is not None:
        status = "revoked"
    elif now >= grant.not_after:
        status = "expired"
    elif now < grant.not_before:
        status = "not-yet-valid"
    elif grant.max_releases is not None and releases >= grant.max_releases:
        status = "exhausted"
    return {
        **grant.to_json(),
        "status": status,
        "releases": releases,
        "created": row.created.isoformat(),
        "revoked": None if row.revoked is None else row.revoked.isoformat(),
        "jws": row.jws,
    }
