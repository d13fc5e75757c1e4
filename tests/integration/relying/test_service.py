"""A service under uvicorn demands attestation in three lines; a program in a SIMULATED TEE brings a broker's token."""

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
import uvicorn
from fastapi import Depends, FastAPI
from tests.support.stage import Stage

from casemate.attestation.relying.fastapi import Attested
from casemate.attestation.token import AttestationResult

PROGRAM = """
import json, sys
import httpx
from casemate.attestation.relying.client import AttestedAuth, BrokerTokens

broker, ca, service, strict = sys.argv[1:5]
auth = AttestedAuth.from_broker(broker, ca)
source = BrokerTokens(broker, ca)
out = {}
with httpx.Client(trust_env=False) as client:
    first = client.get(f"{service}/report?page=1", auth=auth)
    out["report"] = [first.status_code, first.json()]
    sent = dict(first.request.headers)
    again = client.get(f"{service}/report", headers={k: sent[k] for k in ("authorization", "dpop")})
    out["replayed"] = [again.status_code, again.json()["detail"]["code"]]
    token = source.token()
    bare = client.get(f"{service}/report", headers={"Authorization": f"Bearer {token}"})
    out["bare"] = [bare.status_code, bare.json()["detail"]["code"], bare.headers["www-authenticate"]]
    other = client.get(f"{strict}/report", auth=auth)
    out["strict"] = [other.status_code, other.json()["detail"]["code"]]
    assert source.token() == token and source.token(fresh=True) != token
print(json.dumps(out))
"""


@contextmanager
def served(attested: Any, port: int) -> Iterator[None]:
    app = FastAPI()

    @app.get("/report")
    def report(caller: Annotated[AttestationResult, Depends(attested)]) -> dict[str, Any]:
        return {"status": caller.status, "simulated": caller.claims.simulated, "platform": caller.claims.platform}

    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(10)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(tmp_path_factory.mktemp("relying")) as found:
        yield found


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_in_tee(stage: Stage, source: str, *arguments: str) -> dict[str, Any]:
    program = stage.root / "client.py"
    program.write_text(source)
    log = stage.root / "client.out"
    with log.open("w+b") as out, Path(os.devnull).open("rb") as null:
        fds = (null.fileno(), out.fileno(), 2)
        image = [sys.executable, str(program), *arguments]
        with stage.launcher.launch(
            {"version": 1, "name": "client"}, job="client", role="task", cwd=stage.root, stdio=fds, image=image
        ) as tee:
            assert tee.wait() == 0
    found: dict[str, Any] = json.loads(log.read_text())
    return found


def test_a_service_serves_attested_callers_only(stage: Stage) -> None:
    ports = free_port(), free_port()
    service, strict = (f"http://127.0.0.1:{port}" for port in ports)
    ca = stage.root / "relying-ca.pem"
    ca.write_text(stage.ca)
    attested = Attested(stage.url, ca=ca, url=service, allow_simulated=True)
    demanding = Attested(stage.url, ca=stage.ca, url=strict)
    with served(attested, ports[0]), served(demanding, ports[1]):
        out = run_in_tee(stage, PROGRAM, stage.url, str(ca), service, strict)
        with httpx.Client(trust_env=False) as client:
            nobody = client.get(f"{service}/report")
            forged = client.get(f"{service}/report", headers={"Authorization": "DPoP a.b.c", "DPoP": "d.e.f"})
    assert out["report"] == [200, {"status": "warning", "simulated": True, "platform": "tdx"}]
    assert out["replayed"] == [401, "token-proof-replayed"]
    assert out["bare"] == [401, "token-proof-missing", 'DPoP algs="ES256", error="token-proof-missing"']
    assert out["strict"] == [403, "token-simulated"]
    assert (nobody.status_code, nobody.json()["detail"]["code"]) == (401, "token-missing")
    assert (forged.status_code, forged.json()["detail"]["code"]) == (401, "token-invalid")


def test_a_broker_out_of_reach_is_no_acceptance(stage: Stage) -> None:
    port = free_port()
    service = f"http://127.0.0.1:{port}"
    attested = Attested(f"https://127.0.0.1:{free_port()}", ca=stage.ca, url=service)
    token = "eyJhbGciOiJFUzI1NiIsImtpZCI6IngiLCJ0eXAiOiJlYXQrand0In0.e30.AAAA"
    with served(attested, port), httpx.Client(trust_env=False) as client:
        answer = client.get(f"{service}/report", headers={"Authorization": f"DPoP {token}", "DPoP": "x.y.z"})
    assert (answer.status_code, answer.json()["detail"]["code"]) == (503, "key-set-unreachable")
