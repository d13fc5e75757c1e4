"""GPUs beside a TEE: their evidence counts when it is verified and answers the session of the TEE that brings it."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from tests.unit.broker.support import World, digest, manifest, text

from casemate.attestation.binding import report_data
from casemate.attestation.claims import Claims
from casemate.attestation.platforms.gpu.binding import device_nonce, device_report_data
from casemate.attestation.platforms.gpu.simulator import SimulatedGpu
from casemate.attestation.platforms.gpu.verifier import GpuVerifier
from casemate.attestation.platforms.intel.collateral import parse_collateral
from casemate.attestation.trust import TrustStore
from casemate.broker.sessions import AttestRequest, Challenge
from casemate.crypto.jose import KeyPair
from casemate.errors import CasemateError

KEY = KeyPair.generate()


@pytest.fixture
def gpu(world: World) -> SimulatedGpu:
    return SimulatedGpu(world.clock())


@pytest.fixture
def with_gpus(world: World, gpu: SimulatedGpu) -> World:
    """A broker that trusts the simulated GPU maker as well."""
    pin = hashlib.sha256(gpu.root.public_bytes(Encoding.DER)).hexdigest()
    machine = world.machine
    trust = TrustStore(
        simulator_root=machine.pki.root.der,
        collateral=[parse_collateral(machine.collateral)],
        verifiers={"nvidia": GpuVerifier(pins=(), simulated_pins=[pin])},
    )
    sessions = world.broker.sessions
    sessions.context = replace(sessions.context, trust=trust)
    return world


def asked(challenge: Challenge) -> bytes:
    return device_nonce(device_report_data(challenge.nonce, KEY.public))


def request(world: World, challenge: Challenge, additional: str) -> AttestRequest:
    quote = world.machine.quote(report_data(challenge.nonce, KEY.public, additional), digest(manifest()))
    return AttestRequest(
        nonce=challenge.nonce,
        tee_pubkey=KEY.public,
        primary_evidence={"quote": base64.b64encode(quote).decode()},
        additional_evidence=additional,
        init_format="json",
        init_body=text(manifest()),
    )


def attest(world: World, challenge: Challenge, devices: Mapping[str, Any] | str) -> Claims:
    additional = devices if isinstance(devices, str) else json.dumps(devices)
    token = world.broker.sessions.attest(challenge.session, request(world, challenge, additional))
    return world.broker.sessions.by_token(token).attested.claims


def refusal(world: World, challenge: Challenge, devices: Mapping[str, Any] | str) -> str:
    with pytest.raises(CasemateError) as caught:
        attest(world, challenge, devices)
    return caught.value.code


def test_verified_gpus_are_in_the_claims(with_gpus: World, gpu: SimulatedGpu) -> None:
    challenge = with_gpus.challenge()
    evidence = gpu.evidence(asked(challenge))
    evidence["device_evidence_list"] *= 2  # one chip, twice
    claims = attest(with_gpus, challenge, {"nvidia": json.dumps(evidence)})
    assert (claims.platform, claims.simulated, claims.extra["gpus"]) == ("tdx", True, 1)
    assert claims.extra["gpu_measurements_compared"] is False
    assert len(claims.extra["devices"]) == 2


def test_a_gpu_that_answered_another_session_is_refused(with_gpus: World, gpu: SimulatedGpu) -> None:
    """A relayed or replayed device, although the TEE vouches for having seen it."""
    earlier, challenge = with_gpus.challenge(), with_gpus.challenge()
    assert refusal(with_gpus, challenge, {"nvidia": gpu.evidence(asked(earlier))}) == "gpu-nonce-mismatch"


def test_a_gpu_of_another_maker_is_refused(with_gpus: World) -> None:
    challenge = with_gpus.challenge()
    other = SimulatedGpu(with_gpus.clock())
    assert refusal(with_gpus, challenge, {"nvidia": other.evidence(asked(challenge))}) == "gpu-certificate-untrusted"


def test_devices_that_nobody_can_verify_count_for_nothing(world: World, gpu: SimulatedGpu) -> None:
    challenge = world.challenge()
    claims = attest(world, challenge, {"nvidia": gpu.evidence(asked(challenge)), "npu": {}})
    assert (claims.extra["gpus"], claims.extra["devices_unverified"]) == (0, ["npu", "nvidia"])


@pytest.mark.parametrize("additional", ["[]", "{", '{"nvidia": 1}', '{"nvidia": "x"}', "[" * 10_000])
def test_what_is_no_map_of_evidence_is_malformed(with_gpus: World, additional: str) -> None:
    assert refusal(with_gpus, with_gpus.challenge(), additional) == "request-malformed"


def test_devices_that_the_tee_did_not_see_are_refused(with_gpus: World, gpu: SimulatedGpu) -> None:
    """The report data of the CPU does not hash them."""
    challenge = with_gpus.challenge()
    honest = request(with_gpus, challenge, "")
    swapped = replace(honest, additional_evidence=json.dumps({"nvidia": gpu.evidence(asked(challenge))}))
    with pytest.raises(CasemateError) as caught:
        with_gpus.broker.sessions.attest(challenge.session, swapped)
    assert caught.value.code == "report-data-mismatch"
