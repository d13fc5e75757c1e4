"""A SIMULATED machine, a broker in this process with a clock in the test's hand, and the parties that use it."""

from __future__ import annotations

import base64
import hashlib
import json
import uuid
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from casemate.attestation.binding import report_data
from casemate.attestation.claims import WorkloadBinding
from casemate.attestation.platforms.intel.collateral import parse_collateral
from casemate.attestation.platforms.simulator.pki import SimulatedPki
from casemate.attestation.platforms.simulator.quote import QuotingEnclave, TdReport
from casemate.attestation.policy import AppraisalPolicy
from casemate.attestation.trust import TrustStore
from casemate.broker.auditing import AuditLog
from casemate.broker.context import BrokerConfig, BrokerContext
from casemate.broker.grants import Grant, sign_grant
from casemate.broker.identity import Principal
from casemate.broker.rootkey import FileRootKeyStore
from casemate.broker.service import Broker
from casemate.broker.sessions import AttestRequest, Challenge, Member
from casemate.broker.storage.migrate import upgrade
from casemate.broker.storage.sql import SqlRepository, open_engine
from casemate.crypto.canonical import canonical_json
from casemate.crypto.jose import KeyPair
from casemate.crypto.secret import Secret
from casemate.model import Access, DatasetName

PATIENTS = DatasetName("hospital", "patients")
REPORT = DatasetName("hospital", "report")
POLICY = "version: 1\nname: trial\nallow_simulated: true\nplatforms: [tdx]\n"
PRODUCTION = "version: 1\nname: production\nplatforms: [tdx]\n"
START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
URL = "https://broker.test"


class Machine:
    """A SIMULATED machine: quotes whatever it is asked to, as hardware would for what it launched."""

    def __init__(self, now: datetime) -> None:
        self.pki = SimulatedPki.create(now)
        self.enclave = QuotingEnclave.create(self.pki)
        self.collateral = json.dumps(self.pki.collateral("tdx", now))

    def quote(self, report_data_: bytes, workload: str, **fields: Any) -> bytes:
        report = TdReport(
            mrtd=bytes([0xAB] * 48), mr_config_id=bytes.fromhex(workload), report_data=report_data_, **fields
        )
        return self.enclave.tdx_quote(report)

    def trust(self) -> TrustStore:
        return TrustStore(simulator_root=self.pki.root.der, collateral=[parse_collateral(self.collateral)])

    def write_trust(self, directory: Path) -> None:
        (directory / "collateral").mkdir(parents=True, exist_ok=True)
        (directory / "simulator_root.der").write_bytes(self.pki.root.der)
        (directory / "collateral" / "tdx.json").write_text(self.collateral)


def manifest(**changes: Any) -> dict[str, Any]:
    """A workload manifest: reads patients, writes report."""
    return {
        "version": 1,
        "name": "job.py",
        "program": {"path": "job.py", "sha256": "00" * 32},
        "arguments": ["vault/patients", "vault/report"],
        "plaintext_output": "deny",
        "strict": True,
        "zones": [zone(PATIENTS, "read"), zone(REPORT, "write")],
        **changes,
    }


def zone(dataset: DatasetName, access: str, prefix: str | None = None) -> dict[str, Any]:
    prefix = prefix or f"file:///vault/{dataset.name}"
    return {"prefix": prefix, "dataset": str(dataset), "access": access, "broker": "default"}


def text(value: dict[str, Any]) -> str:
    return canonical_json(value).decode()


def digest(value: dict[str, Any]) -> str:
    return hashlib.sha384(canonical_json(value)).hexdigest()


def grant(workload: dict[str, Any] | None = None, **changes: Any) -> Grant:
    """A grant of the hospital for one workload: read patients, write report, for a day."""
    policy = AppraisalPolicy.from_yaml(POLICY)
    base = Grant(
        id=str(uuid.uuid4()),
        owner="hospital",
        datasets={PATIENTS: Access.READ, REPORT: Access.WRITE},
        workloads=(digest(workload or manifest()),),
        policy_name=policy.name,
        policy_digest=policy.digest,
        not_before=START - timedelta(hours=1),
        not_after=START + timedelta(days=1),
        recipients=(str(REPORT),),
        binding=WorkloadBinding.LAUNCH,
    )
    return replace(base, **changes)


@dataclass
class Clock:
    now: datetime = START

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **amount: float) -> None:
        self.now += timedelta(**amount)


@dataclass
class World:
    """A broker with an owner, the hospital, two datasets and two policies; grants are the test's business."""

    directory: Path
    machine: Machine
    clock: Clock = field(default_factory=Clock)
    admin_key: KeyPair = field(default_factory=KeyPair.generate)
    owner_key: KeyPair = field(default_factory=KeyPair.generate)

    def __post_init__(self) -> None:
        engine = open_engine(f"sqlite:///{self.directory}/broker.db")
        upgrade(engine)
        repository = SqlRepository(engine)
        context = BrokerContext(
            config=BrokerConfig(URL, frozenset({"broker.test"}), "00" * 32),
            repository=repository,
            root_keys=FileRootKeyStore(Secret.random()),
            token_key=KeyPair.generate(),
            audit=AuditLog(repository, KeyPair.generate(), self.clock),
            trust=self.machine.trust(),
            default_policy=AppraisalPolicy.from_yaml(POLICY),
            clock=self.clock,
        )
        self.broker = Broker(context)
        with repository.writing() as writer:
            writer.add_admin(self.admin_key.thumbprint, self.admin_key.public, self.clock())
        self.admin = Principal(self.admin_key.thumbprint, None, admin=True)
        self.owner = Principal(self.owner_key.thumbprint, "hospital")
        registry = self.broker.registry
        registry.add_owner(self.admin, "hospital", self.owner_key.public)
        for name in (PATIENTS, REPORT):
            registry.add_dataset(self.owner, name)
        for policy in (POLICY, PRODUCTION):
            registry.add_policy(self.owner, policy)

    def give(self, given: Grant | None = None) -> Grant:
        given = given or grant()
        self.broker.registry.add_grant(self.owner, sign_grant(given, self.owner_key))
        return given

    def challenge(self, job: str = "job-1", role: str = "driver") -> Challenge:
        return self.broker.sessions.challenge("0.4.0", "tdx", {"casemate": {"job": job, "role": role}})

    def evidence(
        self, challenge: Challenge, key: KeyPair, workload: dict[str, Any], *, launched: str | None = None, **td: Any
    ) -> AttestRequest:
        """What an attester sends: evidence over the challenge and its key, and the manifest it was launched with."""
        quote = self.machine.quote(report_data(challenge.nonce, key.public), launched or digest(workload), **td)
        return AttestRequest(
            nonce=challenge.nonce,
            tee_pubkey=key.public,
            primary_evidence={"quote": base64.b64encode(quote).decode()},
            init_format="json",
            init_body=text(workload),
        )

    def attest(
        self,
        job: str = "job-1",
        role: str = "driver",
        workload: dict[str, Any] | None = None,
        key: KeyPair | None = None,
        signatures: tuple[str, ...] = (),
        **td: Any,
    ) -> Member:
        """An attested member of a job."""
        challenge = self.challenge(job, role)
        request = self.evidence(challenge, key or KeyPair.generate(), workload or manifest(), **td)
        token = self.broker.sessions.attest(challenge.session, replace(request, signatures=signatures))
        return self.broker.sessions.by_token(token)

    def entries(self, kind: str | None = None) -> list[dict[str, Any]]:
        """The audit log as an administrator sees it."""
        rows = self.broker.audit.entries(self.admin, 0, None)
        return [row["entry"] for row in rows if kind in (None, row["entry"]["kind"])]
