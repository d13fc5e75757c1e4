"""What the members of a job share: a secret, and certificates of the job's own authority."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from casemate.broker import job_ca
from casemate.broker.auditing import Record
from casemate.broker.context import BrokerContext
from casemate.broker.errors import NotAuthorisedError, ResourceUnknownError, WorkloadManifestMissingError
from casemate.broker.sessions import Member
from casemate.broker.storage.repository import JobRow, Reader
from casemate.crypto.jose import seal
from casemate.crypto.secret import KEY_SIZE, Secret

__all__ = ["Jobs"]

_LOCAL_NAMES = ("localhost", "127.0.0.1")


@dataclass(frozen=True)
class Jobs:
    context: BrokerContext

    def secret(self, member: Member, job_id: str) -> dict[str, Any]:
        """The job's 32 secret bytes, made at the first request, sealed to the attested key."""
        context, now = self.context, self.context.clock()
        with (
            context.audit.recording("job.secret", job=job_id, role=member.attested.role.value) as record,
            context.repository.writing() as writer,
        ):
            job = self._job(writer, record, member, job_id)
            purpose = f"casemate:job-secret:v1:{job_id}".encode()
            if job.wrapped_secret is None:
                secret = Secret.random(KEY_SIZE)
                writer.set_job_secret(job_id, context.root_keys.wrap(secret, context=purpose))
            else:
                secret = context.root_keys.unwrap(job.wrapped_secret, context=purpose)
            context.audit.append(writer, record.entry("accepted"), now)
        return seal(member.tee_pubkey, secret)

    def certificate(self, member: Member, job_id: str, names: Sequence[str]) -> dict[str, str]:
        """A certificate for the attested key itself, at most an hour long, and the job's CA certificate (PEM)."""
        context, now = self.context, self.context.clock()
        role = member.attested.role.value
        with (
            context.audit.recording("job.certificate", job=job_id, role=role, names=list(names)) as record,
            context.repository.writing() as writer,
        ):
            job = self._job(writer, record, member, job_id)
            purpose = f"casemate:job-ca:v1:{job_id}".encode()
            if job.certificate is None or job.wrapped_key is None:
                authority = job_ca.create_authority(f"casemate job {job_id[:40]}", job_id, now=now)
                wrapped = context.root_keys.wrap(authority.private_key, context=purpose)
                writer.set_job_authority(job_id, authority.certificate_pem, wrapped)
            else:
                key = context.root_keys.unwrap(job.wrapped_key, context=purpose)
                authority = job_ca.Authority(job.certificate, key)
            pem = job_ca.issue(
                authority,
                member.tee_pubkey,
                common_name=role,
                unit=job_id,
                names=[*_LOCAL_NAMES, *names],
                now=now,
            )
            record.subject["tee_pubkey"] = member.thumbprint
            context.audit.append(writer, record.entry("accepted"), now)
        return {"certificate": pem, "ca": authority.certificate_pem}

    def _job(self, reader: Reader, record: Record, member: Member, job_id: str) -> JobRow:
        """The member's own job; it has a manifest, and its evidence was accepted."""
        if member.job != job_id:
            raise NotAuthorisedError("this is for the attested members of that job")
        workload = member.attested.workload
        if workload is None or not workload.has_manifest:
            raise WorkloadManifestMissingError("only members with a workload manifest share a job")
        names = dict.fromkeys(name.owner for zone in workload.zones for name in zone.datasets)
        record.owners = tuple(name for name in names if reader.owner(name) is not None)
        member.require_accepted()
        job = reader.job(job_id)
        if job is None or job.workload != workload.digest:
            raise ResourceUnknownError(f"no job {job_id} of this workload")
        return job
