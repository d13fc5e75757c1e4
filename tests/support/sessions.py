"""A session as it is after attestation, without a broker: for what only needs its certificate and secret."""

from __future__ import annotations

from pathlib import Path

from tests.support.kbs_double import Authority, public_key

from casemate.attestation.evidence import Evidence
from casemate.crypto.secret import Secret
from casemate.model import Role
from casemate.workload.build import broker_entry, build
from casemate.workload.kbs import JobCertificate
from casemate.workload.session import AttestedSession

__all__ = ["JOB_SECRET", "unattested_session"]

JOB_SECRET = Secret(b"the job's secret, of 32 bytes...")


class _NoAttester:
    tee = "none"

    def collect(self, report_data: bytes) -> Evidence:
        raise AssertionError("nothing is attested here")


def unattested_session(directory: Path, authority: Authority, role: Role = Role.WORKER) -> AttestedSession:
    """A member of a standalone Spark job whose private memory is ``directory / "p"``."""
    program = directory / "job.py"
    program.write_text("")
    manifest, _ = build(
        program,
        engine="spark",
        brokers={"default": broker_entry("https://127.0.0.1:1", authority.pem)},
        engine_settings={"master": "standalone", "workers": 2, "worker_cores": 3, "worker_memory": "2g"},
        working_directory=directory,
    )
    private = directory / "p"
    private.mkdir(mode=0o700)
    session = AttestedSession(
        manifest,
        _NoAttester(),
        job="job-1",
        role=role,
        private_dir=private,
        program=private / "bundle" / "job.py",
        simulated=True,
    )
    issued = authority.issue(str(role), public_key(session.key_pair.public))
    session.certificate, session.job_secret = JobCertificate(issued, authority.pem), JOB_SECRET
    return session
