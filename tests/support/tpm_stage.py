"""A real broker that trusts one real swtpm by its attestation key, with an owner, datasets and a policy for it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.support.stage import OWNER, Job, OwnerKeys, Stage, start_ready
from tests.support.swtpm import SoftwareTpm

from casemate.attestation.evidence import Attester
from casemate.attestation.platforms.tpm.attester import TpmAttester
from casemate.attestation.platforms.tpm.structures import parse_tpmt_public
from casemate.attestation.platforms.tpm.trust import key_id
from casemate.broker.client import BrokerClient
from casemate.broker.setup import initialise
from casemate.crypto.jose import KeyPair
from casemate.model import Access, Role
from casemate.workload.build import zone_entry
from casemate.workload.kbs import KeyBroker
from casemate.workload.manifest import ZoneEntry

POLICY = """\
version: 1
name: one-tpm
platforms: [tpm]
workload_binding: launch
platform_ids: ["{ak}"]
extra:
  pcrs.sha256.4: "{zeros}"
"""


@dataclass(frozen=True)
class Ended:
    """How `casemate run` ended: exit status, the program's output, and code and message of the refusal."""

    status: int
    output: str
    code: str
    message: str
    errors: str


class TpmStage(Stage):
    """As ``Stage``, on a machine whose only hardware is a TPM: programs are started by `casemate run` itself."""

    def __enter__(self) -> TpmStage:
        self.tpm = SoftwareTpm(self.root / "tpm")
        self.tpm.start()
        try:
            with TpmAttester(self.tpm.tcti) as attester:
                self.ak, self.ak_id = attester.ak_spki, key_id(parse_tpmt_public(attester.ak_tpmt))
            self.state = initialise(self.root / "broker", self.admin.public)
            self.keys_dir = self.state.trust / "tpm" / "keys"
            self.keys_dir.mkdir(parents=True)
            (self.keys_dir / "machine.der").write_bytes(self.ak)
            serve = ["--state", str(self.state.root), "--port", "0"]
            process, line = start_ready([*self._broker(), *serve], self.root / "broker.log")
            self._processes.append(process)
        except BaseException:
            self.tpm.stop()
            raise
        self.url = re.search(r"https://\S+", line)[0]  # type: ignore[index]
        self.ca = self.state.ca.read_text()
        with BrokerClient(self.url, self.ca, self.admin) as client:
            client.register_owner(OWNER, self.owner.public)
        self.client = BrokerClient(self.url, self.ca, self.owner)
        self.policy = self.client.add_policy(POLICY.format(ak=self.ak_id, zeros="00" * 32))
        self.keys = OwnerKeys(self.client)
        return self

    def __exit__(self, *_: object) -> None:
        super().__exit__(*_)
        self.tpm.stop(signal.SIGKILL)

    def _broker(self) -> list[str]:
        """Tokens of four seconds; trust is looked at ten times a second."""
        start = (
            "import sys, datetime, casemate.attestation.token as t\n"
            "t.TOKEN_LIFETIME = datetime.timedelta(seconds=4)\n"
            "import casemate.broker.trust\n"
            "casemate.broker.trust.LOOK_EVERY = 0.1\n"
            "from casemate.broker.serve import main\n"
            "sys.exit(main())"
        )
        return ["-c", start]

    def input(self, name: str, path: Path) -> ZoneEntry:
        return zone_entry(self.dataset(name), str(path), Access.READ)

    def trust_changed(self) -> None:
        """Give the broker the time to notice."""
        time.sleep(0.25)

    def why(self) -> list[str]:
        """The codes of the clauses that failed in the last refusal, as the owner's audit log has them."""
        entries = [item["entry"] for item in self.client.audit_entries() if item["entry"] is not None]
        refused = [entry for entry in entries if entry["outcome"] == "refused"]
        return [clause["code"] for clause in refused[-1]["clauses"] if not clause["holds"]]

    def casemate_run(
        self, job: Job, *, role: Role = Role.TASK, while_running: Callable[[], None] | None = None, **environment: str
    ) -> Ended:
        """What a machine's own launcher does; ``while_running`` is called when the program printed its first line."""
        manifest = job.bundle.with_suffix(".json")
        manifest.write_bytes(job.manifest.canonical())
        given = {
            "PATH": os.environ["PATH"],
            "CASEMATE_MANIFEST": str(manifest),
            "CASEMATE_BUNDLE": str(job.bundle),
            "CASEMATE_JOB": f"job-{time.monotonic_ns()}",
            "CASEMATE_ROLE": str(role),
            "CASEMATE_TPM": self.tpm.tcti,
            **environment,
        }
        if "JAVA_HOME" in os.environ:
            given["JAVA_HOME"] = os.environ["JAVA_HOME"]
        command = [sys.executable, "-m", "casemate", "run"]
        process = subprocess.Popen(command, env=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            first = ""
            if while_running is not None:
                assert process.stdout is not None
                first = process.stdout.readline()
                while_running()
            output, errors = process.communicate(timeout=240)
        finally:
            process.kill()
        said = re.search(r"^(?:refused|failed|undecided): ([a-z0-9-]+): (.*)$", errors, re.M)
        code, message = (said[1], said[2]) if said else ("", errors)
        return Ended(process.returncode, first + output, code, message, errors)

    def attest(self, job: Job, attester: Attester) -> KeyBroker:
        """Attest for ``job`` with an attester of the test's own: a machine that does not run `casemate run`."""
        broker = KeyBroker(
            job.manifest.brokers["default"],
            attester,
            KeyPair.generate(),
            job=f"job-{time.monotonic_ns()}",
            role=Role.TASK,
            init_data=job.manifest.canonical().decode(),
        )
        try:
            broker.attest()
        except BaseException:
            broker.close()
            raise
        return broker
