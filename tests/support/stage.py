"""A real broker and a real simulated machine for one test module, with an owner, datasets and grants."""

from __future__ import annotations

import ctypes
import re
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from casemate.attestation.platforms.simulator.client import LauncherClient
from casemate.broker.client import BrokerClient
from casemate.broker.grants import Grant, sign_grant
from casemate.broker.setup import initialise
from casemate.crypto.jose import KeyPair
from casemate.data.dataset import decrypt_tree, encrypt_tree
from casemate.data.generations import NOTHING_RECORDED, Generation
from casemate.data.keys import DatasetKey
from casemate.model import Access, DatasetName
from casemate.workload.build import broker_entry, build, zone_entry
from casemate.workload.bundle import write_bundle
from casemate.workload.manifest import WorkloadManifest, ZoneEntry
from casemate.workload.submit import OnEvent, Outcome, submit

OWNER = "hospital"
POLICY = """\
version: 1
name: simulated
allow_simulated: true
tcb:
  statuses: [UpToDate]
"""
_libc = ctypes.CDLL(None)


def _die_with_parent() -> None:
    _libc.prctl(1, signal.SIGTERM)


def start_ready(arguments: Sequence[str], log: Path) -> tuple[subprocess.Popen[str], str]:
    """A service that prints one line when it is ready; it ends with this process."""
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=errors, text=True, preexec_fn=_die_with_parent
        )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"{arguments}: did not start: {log.read_text()[-2000:]}"
    return process, line


def stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    process.wait(timeout=20)
    assert process.stdout is not None
    process.stdout.close()


class OwnerKeys:
    """The owner's own view of keys and generations, through the broker."""

    def __init__(self, client: BrokerClient) -> None:
        self.client = client

    def current_key(self, dataset: DatasetName) -> DatasetKey:
        return DatasetKey(dataset, *self.client.dataset_key(dataset))

    def key(self, dataset: DatasetName, version: int) -> DatasetKey:
        return DatasetKey(dataset, *self.client.dataset_key(dataset, version))

    def generation(self, dataset: DatasetName, location: str) -> Generation:
        number, digest = self.client.generation(dataset, location)
        return Generation(number, digest) if number else NOTHING_RECORDED

    def record(self, dataset: DatasetName, location: str, generation: Generation) -> None:
        assert generation.digest is not None
        self.client.record_generation(dataset, location, generation.number, generation.digest)


@dataclass
class Job:
    """A manifest, its bundle on disk and what became of it."""

    manifest: WorkloadManifest
    bundle: Path
    grant: str | None = None
    outcome: Outcome | None = None
    output: str = ""
    events: list[Mapping[str, Any]] = field(default_factory=list)


class Stage:
    """Use as a context manager; ``root`` gets everything that is written."""

    def __init__(self, root: Path, *, token_seconds: int | None = None) -> None:
        self.root = root
        self._token_seconds = token_seconds
        self.owner, self.admin = KeyPair.generate(), KeyPair.generate()
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Stage:
        tee, broker = self.root / "tee", self.root / "broker"
        self.socket = self.root / "tee.sock"
        host = ["-m", "casemate.attestation.platforms.simulator.host"]
        host += ["--state", str(tee), "--socket", str(self.socket)]
        process, _ = start_ready(host, self.root / "host.log")
        self._processes.append(process)
        self.host_pid = process.pid
        state = initialise(broker, self.admin.public)
        (state.trust / "collateral").mkdir(exist_ok=True)
        shutil.copy(tee / "root_ca.der", state.trust / "simulator_root.der")
        for path in tee.glob("collateral*.json"):
            shutil.copy(path, state.trust / "collateral")
        serve = ["--state", str(broker), "--port", "0"]
        process, line = start_ready([*self._broker(), *serve], self.root / "broker.log")
        self._processes.append(process)
        self.url = re.search(r"https://\S+", line)[0]  # type: ignore[index]
        self.ca = state.ca.read_text()
        with BrokerClient(self.url, self.ca, self.admin) as client:
            client.register_owner(OWNER, self.owner.public)
        self.client = BrokerClient(self.url, self.ca, self.owner)
        self.policy = self.client.add_policy(POLICY)
        self.keys = OwnerKeys(self.client)
        self.launcher = LauncherClient(self.socket)
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        for process in reversed(self._processes):
            stop(process)

    def _broker(self) -> list[str]:
        if self._token_seconds is None:
            return ["-m", "casemate.broker.serve"]
        start = (
            "import sys, datetime, casemate.attestation.token as t\n"
            f"t.TOKEN_LIFETIME = datetime.timedelta(seconds={self._token_seconds})\n"
            "from casemate.broker.serve import main\n"
            "sys.exit(main())"
        )
        return ["-c", start]

    def stop_broker(self) -> None:
        stop(self._processes.pop())

    def dataset(self, name: str) -> DatasetName:
        dataset = DatasetName.parse(f"{OWNER}/{name}")
        if str(dataset) not in {entry["name"] for entry in self.client.datasets()}:
            self.client.create_dataset(dataset)
        return dataset

    def encrypt(self, name: str, source: Path, destination: Path) -> ZoneEntry:
        """Encrypt ``source`` and give its read zone."""
        dataset = self.dataset(name)
        encrypt_tree(source, destination, dataset=dataset, keys=self.keys, records=self.keys)
        return zone_entry(dataset, str(destination), Access.READ)

    def output(self, name: str, path: Path) -> ZoneEntry:
        return zone_entry(self.dataset(name), str(path), Access.WRITE)

    def decrypt(self, source: Path, destination: Path) -> None:
        decrypt_tree(source, destination, keys=self.keys, records=self.keys)

    def job(
        self,
        program: Path,
        arguments: Sequence[str] = (),
        zones: Sequence[ZoneEntry] = (),
        *,
        engine: str = "spark",
        granted: bool = True,
        **options: Any,
    ) -> Job:
        manifest, sources = build(
            program,
            arguments,
            engine=engine,
            zones=zones,
            brokers={"default": broker_entry(self.url, self.ca)},
            working_directory=options.pop("working_directory", self.root),
            **options,
        )
        bundle = self.root / f"bundle-{uuid.uuid4().hex[:8]}"
        write_bundle(bundle, manifest, sources)
        job = Job(manifest, bundle)
        if granted and zones:
            job.grant = self.grant(manifest)
        return job

    def grant(self, manifest: WorkloadManifest, **changes: Any) -> str:
        now = datetime.now(UTC)
        datasets: dict[DatasetName, Access] = {}
        for zone in manifest.plain_zones():
            datasets[zone.dataset] = datasets.get(zone.dataset, zone.access) | zone.access
        grant = Grant(
            **{
                "id": str(uuid.uuid4()),
                "owner": OWNER,
                "datasets": datasets,
                "workloads": (manifest.digest(),),
                "policy_name": self.policy["name"],
                "policy_digest": self.policy["digest"],
                "not_before": now - timedelta(minutes=1),
                "not_after": now + timedelta(hours=1),
                "recipients": tuple(str(name) for name in datasets),
                **changes,
            }
        )
        return self.client.add_grant(sign_grant(grant, self.owner))

    def run(self, job: Job, on_event: OnEvent = lambda _: None) -> Outcome:
        """Submit and wait; the program's output (stdout and stderr) ends up in ``job.output``."""

        def hear(event: Mapping[str, Any]) -> None:
            job.events.append(event)
            on_event(event)

        log = self.root / f"output-{uuid.uuid4().hex[:8]}.log"
        with log.open("w+b") as out, Path("/dev/null").open("rb") as null:
            fds = (null.fileno(), out.fileno(), out.fileno())
            try:
                job.outcome = submit(job.manifest, job.bundle, self.launcher, hear, stdio=fds)
            finally:
                job.output = log.read_text(errors="replace")
        return job.outcome


__all__ = ["OWNER", "Job", "OwnerKeys", "Stage", "start_ready", "stop"]
