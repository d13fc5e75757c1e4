"""Keys and generation records for attested workloads: every answer is a release decision, and is entered in the log."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from casemate.attestation.errors import AppraisalRefusedError
from casemate.broker.asking import Answers, Lanes
from casemate.broker.auditing import Record
from casemate.broker.context import BrokerContext
from casemate.broker.errors import (
    DatasetUnknownError,
    RequestMalformedError,
)
from casemate.broker.grants import GrantUse
from casemate.broker.identity import Principal
from casemate.broker.keys import dataset_key_jwk
from casemate.broker.registry import open_key, read_grant, read_policy
from casemate.broker.release import Decision, Floor, GrantRecord, decide
from casemate.broker.sessions import Member
from casemate.broker.storage.repository import DatasetRow, GenerationRow, Reader
from casemate.broker.uses import count_releases, is_counted, opener_of
from casemate.crypto.errors import SignatureInvalidError
from casemate.crypto.jose import seal
from casemate.crypto.secret import Secret
from casemate.errors import CasemateError, GenerationConflictError
from casemate.model import Access, DatasetName

__all__ = ["Releases"]

_LOCATION = re.compile(r"[a-z][a-z0-9+.-]*://[^\x00-\x1f\x7f]+")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MAX_LOCATION = 2048  # bytes; a key of PostgreSQL's holds 2,704


@dataclass(frozen=True)
class Releases:
    context: BrokerContext
    lanes: Lanes = field(default_factory=Lanes)

    def release_key(self, member: Member, name: DatasetName, version: int | None) -> dict[str, Any]:
        """A dataset key sealed to the attested key, or the refusal.

        Deciding, counting, unwrapping and the entry in the log are one transaction: of two jobs that race for the last
        release of a grant, one gets it. Policies in Rego are asked beside it (``asking``)."""
        context = self.context

        def deed(answers: Answers) -> tuple[int, Secret]:
            with context.repository.writing() as writer:
                row = _dataset(writer, name)
                decision = self._permit(writer, record, member, name, answers)
                if decision.grant is not None and not decision.counted:
                    opener = opener_of(member.attested.role, member.thumbprint)
                    writer.add_use(decision.grant.id, member.job, opener, context.clock())
                number, key = open_key(context, writer, row, version)
                record.subject["version"] = number
                context.audit.append(writer, record.entry("accepted"), context.clock())
                return number, key

        with context.audit.recording("release", **_subject(member, name), version=version) as record:
            record.owners = (name.owner,)
            number, key = self.lanes.settle(name.owner, deed)
        return seal(member.tee_pubkey, dataset_key_jwk(key, str(name), number))

    def generation(self, asker: Member | Principal, name: DatasetName, location: str) -> GenerationRow:
        """What is recorded for a location. A workload needs a zone there and a grant; its reads are not logged."""
        context = self.context
        _check_location(location)

        def deed(answers: Answers) -> GenerationRow:
            with context.repository.reading() as reader:
                _dataset(reader, name)
                self._authorise(reader, record, asker, name, None, location, answers)
                return reader.generation(str(name), location)

        with context.audit.recording("generation.read", **_subject(asker, name), location=location) as record:
            record.owners = (name.owner,)
            return self.lanes.settle(name.owner, deed)

    def record(self, asker: Member | Principal, name: DatasetName, location: str, number: int, digest: str) -> None:
        """Record the next generation, if nobody else did; raises ``GenerationConflictError`` otherwise."""
        context = self.context
        _check_location(location)
        if number < 1 or not _DIGEST.fullmatch(digest):
            raise RequestMalformedError("generation: need a number from 1 and a SHA-256 digest in lower-case hex")
        subject = {**_subject(asker, name), "location": location, "generation": number, "digest": digest}

        def deed(answers: Answers) -> None:
            with context.repository.writing() as writer:
                _dataset(writer, name)
                self._authorise(writer, record, asker, name, Access.WRITE, location, answers)
                now = context.clock()
                if not writer.swap_generation(str(name), location, number, digest, now):
                    known = writer.generation(str(name), location).number
                    raise GenerationConflictError(
                        f"{name} at {location}: generation {known} is recorded, cannot record {number}"
                    )
                context.audit.append(writer, record.entry("accepted"), now)

        with context.audit.recording("generation.record", **subject) as record:
            record.owners = (name.owner,)
            self.lanes.settle(name.owner, deed)

    def _authorise(
        self,
        reader: Reader,
        record: Record,
        asker: Member | Principal,
        name: DatasetName,
        access: Access | None,
        location: str,
        answers: Answers,
    ) -> None:
        if isinstance(asker, Principal):
            asker.require_owner(name.owner)
        else:
            self._permit(reader, record, asker, name, answers, access=access, location=location)

    def _permit(
        self,
        reader: Reader,
        record: Record,
        member: Member,
        name: DatasetName,
        answers: Answers,
        *,
        access: Access | None = None,
        location: str | None = None,
    ) -> Decision:
        """The decision, when it accepts; else its error is raised, its explanation left in ``record``."""
        records = self._grants(reader, member, name)
        policies = {}
        for digest in {item.grant.policy_digest for item in records}:
            policy = reader.policy(digest)
            if policy is not None:
                policies[digest] = answers.of(read_policy(policy.yaml))
        now = self.context.clock()
        floors = [
            Floor(
                "floor of the broker" if row.owner is None else f"floor of {row.owner}",
                answers.of(read_policy(row.policy.yaml)),
            )
            for row in reader.floors(name.owner)
        ]
        decision = decide(
            member.attested, name, records, policies, now=now, access=access, location=location, floors=floors
        )
        record.clauses = tuple(clause.to_json() for clause in decision.clauses)
        record.message = decision.message or None
        if decision.grant is not None:
            record.subject["grant"] = decision.grant.id
        if decision.others:
            record.subject["other_grants"] = [{"id": grant, "codes": list(codes)} for grant, codes in decision.others]
        if decision.error is not None:
            raise decision.error(_public_message(decision.error, decision))
        return decision

    def _grants(self, reader: Reader, member: Member, name: DatasetName) -> list[GrantRecord]:
        owner = reader.owner(name.owner)
        if owner is None:
            return []
        opener = opener_of(member.attested.role, member.thumbprint)
        records = []
        for row in reader.grants_for(str(name), self.context.clock()):
            try:
                grant = read_grant(row, owner)
            except SignatureInvalidError:
                continue  # a row that its owner never signed is no grant
            use = GrantUse(count_releases(row.openers), is_counted(row.openers, member.job, opener), row.revoked)
            records.append(GrantRecord(grant, use))
        return records


def _dataset(reader: Reader, name: DatasetName) -> DatasetRow:
    row = reader.dataset(str(name))
    if row is None:
        raise DatasetUnknownError(f"no dataset {name}")
    return row


def _subject(asker: Member | Principal, name: DatasetName) -> dict[str, Any]:
    if isinstance(asker, Principal):
        return {"dataset": str(name), "actor": str(asker)}
    attested = asker.attested
    return {
        "dataset": str(name),
        "job": attested.job,
        "role": attested.role.value,
        "workload": None if attested.workload is None else attested.workload.digest,
        "token": asker.token_id,
    }


def _public_message(error: type[CasemateError], decision: Decision) -> str:
    """What the caller gets to read: the cause in general; for a policy also which of its clauses failed."""
    cause = " ".join((error.__doc__ or error.code).split())
    if error is AppraisalRefusedError:
        codes = dict.fromkeys(clause.code for clause in decision.clauses if not clause.holds)
        return f"{cause} ({', '.join(codes)})"
    return cause


def _check_location(location: str) -> None:
    parts = location.split("/")
    if (
        len(location.encode(errors="replace")) > _MAX_LOCATION
        or not _LOCATION.fullmatch(location)
        or location.endswith("/")
        or "." in parts
        or ".." in parts
    ):
        raise RequestMalformedError("location: need a normalised absolute URI without a trailing slash")
