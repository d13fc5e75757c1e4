"""How long attest-and-release takes, end to end: a real broker process, the SIMULATED machine, a program in its TEE."""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil

from casemate.attestation.platforms.simulator.client import LauncherClient
from casemate.broker.client import BrokerClient
from casemate.broker.grants import Grant, sign_grant
from casemate.cli import identities
from casemate.demo.sandbox import Sandbox
from casemate.errors import FailedError
from casemate.model import Access, DatasetName
from casemate.settings import Settings
from casemate.workload.build import broker_entry, build, zone_entry
from casemate.workload.manifest import WorkloadManifest

__all__ = ["AIM_P50_MS", "Latency", "run"]

AIM_P50_MS = 20.0
_DATASET = DatasetName("bench", "rows")
_POLICY = "version: 1\nname: bench\nallow_simulated: true\nplatforms: [tdx]\ntcb: {statuses: [UpToDate]}\n"


@dataclass(frozen=True)
class Latency:
    """Milliseconds per round by the clock, and processor milliseconds per round in each of the three processes."""

    rounds: int
    p50: float
    p99: float
    processor_ms: dict[str, float]


def run(*, rounds: int = 300, warm_up: int = 30, progress: Callable[[str], None] = lambda line: None) -> Latency:
    """Start a sandbox, agree to a workload, and time ``rounds`` of it; raises ``FailedError`` when one is refused."""
    with tempfile.TemporaryDirectory(prefix="casemate-bench-") as name:
        root = Path(name)
        with Sandbox(root / "home") as sandbox:
            sandbox.casemate("key", "create", str(_DATASET)).check()
            settings = Settings.load(sandbox.environment)
            manifest = _granted_manifest(settings, root)
            progress(f"attest and release, {rounds} rounds after {warm_up} to warm up (SIMULATED TEE)")
            services = {"broker": _service(settings, "broker"), "tee_host": _service(settings, "tee-host")}
            before = {name: _processor_seconds(process) for name, process in services.items()}
            measured = _inside(settings, manifest, root, rounds, warm_up)
            spent = {name: _processor_seconds(process) - before[name] for name, process in services.items()}
    milliseconds = sorted(1000 * seconds for seconds in measured["seconds"])
    return Latency(
        rounds,
        round(statistics.median(milliseconds), 2),
        round(milliseconds[min(len(milliseconds) - 1, int(0.99 * len(milliseconds)))], 2),
        {
            "inside": round(1000 * measured["processor_seconds"], 2),
            **{name: round(1000 * seconds / (rounds + warm_up), 2) for name, seconds in spent.items()},
        },
    )


def _granted_manifest(settings: Settings, root: Path) -> WorkloadManifest:
    program = root / "nothing.py"
    program.write_text("raise SystemExit\n")
    manifest, _ = build(
        program,
        engine="python",
        zones=[zone_entry(_DATASET, str(root / "vault"), Access.READ)],
        brokers={"default": broker_entry(settings.broker_url, settings.broker_ca.read_text())},
        working_directory=root,
    )
    owner, now = identities.load(settings, _DATASET.owner), datetime.now(UTC)
    with BrokerClient(settings.broker_url, settings.broker_ca.read_text(), owner) as client:
        policy = client.add_policy(_POLICY)
        grant = Grant(
            id=str(uuid.uuid4()),
            owner=_DATASET.owner,
            datasets={_DATASET: Access.READ},
            workloads=(manifest.digest(),),
            policy_name=policy["name"],
            policy_digest=policy["digest"],
            not_before=now - timedelta(minutes=1),
            not_after=now + timedelta(hours=1),
        )
        client.add_grant(sign_grant(grant, owner))
    return manifest


def _inside(settings: Settings, manifest: WorkloadManifest, root: Path, rounds: int, warm_up: int) -> dict[str, Any]:
    read, write = os.pipe()
    image = [sys.executable, "-m", "casemate.bench.attest_inside", str(_DATASET), str(rounds), str(warm_up)]
    launcher = LauncherClient(settings.tee_socket)
    with os.fdopen(read, "rb") as said:
        try:
            tee = launcher.launch(
                manifest.to_json(), job="bench", role="task", cwd=root, stdio=(0, write, 2), image=image
            )
        finally:
            os.close(write)
        with tee:
            text = said.read()
            status = tee.wait()
    if status != 0:
        raise FailedError(f"the program in the SIMULATED TEE ended with status {status}")
    measured: dict[str, Any] = json.loads(text)
    return measured


def _service(settings: Settings, name: str) -> psutil.Process:
    return psutil.Process(int(json.loads((settings.run_dir / f"{name}.json").read_text())["pid"]))


def _processor_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
