"""Inside a SIMULATED TEE: attest and have a key released, again and again; print how long each round took.

``python -m casemate.bench.attest_inside DATASET ROUNDS WARM_UP``. A round is what ``casemate run`` does before the
first byte of data: challenge, quote, attestation, release, opening the sealed key.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from casemate.attestation.detect import find_attester
from casemate.crypto.jose import KeyPair
from casemate.model import DatasetName, Role
from casemate.workload.kbs import KeyBroker
from casemate.workload.manifest import WorkloadManifest

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """One JSON object on standard output: seconds of each round, and this process's processor time per round."""
    dataset, rounds, warm_up = DatasetName.parse(arguments[0]), int(arguments[1]), int(arguments[2])
    manifest = WorkloadManifest.parse(Path(os.environ["CASEMATE_MANIFEST"]).read_bytes())
    broker = KeyBroker(
        manifest.brokers[manifest.coordinator],
        find_attester(),
        KeyPair.generate(),
        job=os.environ["CASEMATE_JOB"],
        role=Role(os.environ["CASEMATE_ROLE"]),
        init_data=manifest.canonical().decode(),
    )
    seconds: list[float] = []
    processor = time.process_time()
    for turn in range(rounds + warm_up):
        if turn == warm_up:
            processor = time.process_time()
        begin = time.perf_counter()
        broker.attest()
        broker.dataset_key(dataset)
        if turn >= warm_up:
            seconds.append(time.perf_counter() - begin)
    spent = (time.process_time() - processor) / max(1, rounds)
    broker.close()
    print(json.dumps({"seconds": seconds, "processor_seconds": spent}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
