"""Replay an attestation: genuine evidence, made inside a TEE for one challenge, is sent again for another.

``python -m casemate.demo.replay URL CA`` is what runs inside the TEE; it prints what it sent, as a careless workload
would that logs its requests.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
from pathlib import Path
from typing import Any

import httpx

from casemate.attestation.binding import report_data
from casemate.attestation.platforms.simulator.client import TEE_SOCKET_VARIABLE, LauncherClient, SimulatorAttester
from casemate.crypto.canonical import canonical_json
from casemate.crypto.jose import KeyPair
from casemate.errors import FailedError

__all__ = ["capture", "replay"]

_AUTH = {"version": "0.4.0", "tee": "tdx", "extra-params": {}}


def _client(url: str, authority: str) -> httpx.Client:
    return httpx.Client(base_url=url, verify=ssl.create_default_context(cafile=authority), timeout=30)


def _attest_once(url: str, authority: str) -> dict[str, Any]:
    """Inside the TEE: one honest attestation; gives what was sent and how it was answered."""
    key = KeyPair.generate().public
    with _client(url, authority) as client:
        nonce = client.post("/kbs/v0/auth", json=_AUTH).raise_for_status().json()["nonce"]
        evidence = SimulatorAttester(Path(os.environ[TEE_SOCKET_VARIABLE])).collect(report_data(nonce, key))
        manifest = canonical_json(json.loads(Path(os.environ["CASEMATE_MANIFEST"]).read_bytes())).decode()
        body = {
            "init-data": {"format": "json", "body": manifest},
            "runtime-data": {"nonce": nonce, "tee-pubkey": key},
            "tee-evidence": {"primary_evidence": dict(evidence.body), "additional_evidence": ""},
        }
        answer = client.post("/kbs/v0/attest", json=body)
        return {"status": answer.status_code, "sent": body, "cookies": dict(client.cookies)}


def capture(launcher: LauncherClient, manifest: dict[str, Any], url: str, authority: Path) -> dict[str, Any]:
    """Have a TEE attest honestly and get hold of what it sent; raises ``FailedError`` when it was not accepted."""
    read, write = os.pipe()
    image = [sys.executable, "-m", "casemate.demo.replay", url, str(authority)]
    try:
        with launcher.launch(manifest, job="replay", role="task", stdio=(0, write, 2), image=image) as tee:
            os.close(write)
            write = -1
            with os.fdopen(read, "rb", closefd=False) as said:
                text = said.read()
            tee.wait()
    finally:
        os.close(read)
        if write >= 0:
            os.close(write)
    captured: dict[str, Any] = json.loads(text or b"{}")
    if captured.get("status") != httpx.codes.OK:
        raise FailedError(f"the honest attestation to be replayed was answered {captured.get('status')}")
    return captured


def replay(captured: dict[str, Any], url: str, authority: Path) -> list[httpx.Response]:
    """The broker's answers to the captured request: sent again in its own session, then for a new challenge."""
    answers = []
    with _client(url, str(authority)) as client:
        client.cookies.update(captured["cookies"])
        answers.append(client.post("/kbs/v0/attest", json=captured["sent"]))
    with _client(url, str(authority)) as client:
        nonce = client.post("/kbs/v0/auth", json=_AUTH).raise_for_status().json()["nonce"]
        renewed = {**captured["sent"], "runtime-data": {**captured["sent"]["runtime-data"], "nonce": nonce}}
        answers.append(client.post("/kbs/v0/attest", json=renewed))
    return answers


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_attest_once(sys.argv[1], sys.argv[2])))
