"""How many pieces of evidence one core verifies and appraises in a second, per platform.

Real evidence is taken where it is at hand, at a time when its collateral was good; else SIMULATED evidence of the same
format, which takes the same path. Processor time is counted, so that a busy machine does not falsify the figure.
"""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from casemate.attestation.claims import Claims
from casemate.attestation.evidence import Evidence
from casemate.attestation.platforms.intel.collateral import SingleCollateral, parse_collateral
from casemate.attestation.platforms.intel.verifier import TrustAnchor
from casemate.attestation.platforms.sgx.verifier import SgxVerifier
from casemate.attestation.platforms.simulator.pki import SimulatedPki
from casemate.attestation.platforms.simulator.quote import EnclaveReport, QuotingEnclave, TdReport
from casemate.attestation.platforms.snp.body import build_body
from casemate.attestation.platforms.snp.simulator import SimulatedAmd
from casemate.attestation.platforms.snp.tcb import Product
from casemate.attestation.platforms.snp.verifier import SnpVerifier
from casemate.attestation.platforms.tdx.verifier import TdxVerifier
from casemate.attestation.platforms.tpm.evidence import parse_evidence
from casemate.attestation.platforms.tpm.simulator import SimulatedTpm
from casemate.attestation.platforms.tpm.trust import TpmTrust, key_id
from casemate.attestation.platforms.tpm.verifier import TpmVerifier
from casemate.attestation.policy import AppraisalPolicy, Outcome
from casemate.errors import FailedError

__all__ = ["AIMS", "Case", "Rate", "cases", "find_vectors", "measure"]

AIMS = {"sgx": 350.0, "tdx": 350.0, "snp": 300.0, "tpm": 2000.0}
_SIMULATED_AT = datetime(2026, 6, 1, tzinfo=UTC)
_TRIAL_SECONDS = 0.25  # processor time of one trial; the best of several counts, as other load only ever slows
_TRIALS = 4


@dataclass(frozen=True)
class Case:
    """One platform's evidence and how it is verified. ``verify`` raises unless it is genuine."""

    platform: str
    source: str  # "real: file" or "simulated"
    verify: Callable[[], Claims]
    policy: AppraisalPolicy
    now: datetime

    def once(self) -> None:
        """Verify and appraise; raises ``FailedError`` when the policy does not accept, a fault of this bench."""
        appraisal = self.policy.appraise(self.verify(), now=self.now)
        if appraisal.outcome is not Outcome.ACCEPTED:
            raise FailedError(f"bench of {self.platform}: its evidence was {appraisal.outcome}: {appraisal.code}")


@dataclass(frozen=True)
class Rate:
    per_second: float
    source: str
    verifications: int


def find_vectors() -> Path | None:
    """The folder of real evidence: ``CASEMATE_VECTORS``, or ``shared/vectors`` beside the checkout."""
    beside = Path(__file__).resolve().parents[3].parent / "shared" / "vectors"
    folder = Path(os.environ.get("CASEMATE_VECTORS") or beside)
    return folder if folder.is_dir() else None


def cases(vectors: Path | None) -> list[Case]:
    """A case per platform, and one more: ``snp_known_chip``, whose endorsement key was verified before."""
    snp, known = _snp(vectors)
    return [_intel("sgx", vectors), _intel("tdx", vectors), snp, known, _tpm(vectors)]


def measure(case: Case, *, seconds: float = _TRIAL_SECONDS, trials: int = _TRIALS) -> Rate:
    """Verifications per second of processor time, in one thread."""
    case.once()
    best, total = 0.0, 0
    for _ in range(trials):
        begin, count = time.process_time(), 0
        while (spent := time.process_time() - begin) < seconds:
            case.once()
            count += 1
        best, total = max(best, count / spent), total + count
    return Rate(round(best, 1), case.source, total)


def _policy(platform: str, *statuses: str) -> AppraisalPolicy:
    rules: dict[str, Any] = {"version": 1, "name": "bench", "platforms": [platform], "allow_simulated": True}
    if statuses:
        rules["tcb"] = {"statuses": ["UpToDate", *statuses]}
    return AppraisalPolicy.from_document(rules)


def _intel(tee: str, vectors: Path | None) -> Case:
    name = {"sgx": "sgx/phala_v3", "tdx": "tdx/phala_v4_td10"}[tee]
    if vectors is not None and (vectors / f"{name}.quote").exists():
        raw = (vectors / f"{name}.quote").read_bytes()
        document = (vectors / f"{name}.collateral.json").read_text()
        root = (vectors / "sgx/intel_sgx_root_ca.der").read_bytes()
        now, simulated, source = datetime(2025, 6, 20, 12, tzinfo=UTC), False, f"real: {name}.quote"
    else:
        pki = SimulatedPki.create(_SIMULATED_AT)
        enclave = QuotingEnclave.create(pki)
        raw = enclave.tdx_quote(TdReport()) if tee == "tdx" else enclave.sgx_quote(EnclaveReport())
        document, root = json.dumps(pki.collateral(tee, _SIMULATED_AT)), pki.root.der
        now, simulated, source = _SIMULATED_AT, True, "simulated"
    anchor = TrustAnchor("bench", root, SingleCollateral(parse_collateral(document)), simulated)
    verifier = (TdxVerifier if tee == "tdx" else SgxVerifier)([anchor])
    evidence = Evidence(tee, {"quote": base64.b64encode(raw).decode()})
    policy = _policy(tee, "ConfigurationAndSWHardeningNeeded")
    return Case(tee, source, lambda: verifier.verify(evidence, now=now), policy, now)


def _snp(vectors: Path | None) -> tuple[Case, Case]:
    """Every time an unknown chip below a chain that is verified anew; and one known from before."""
    name, pins = "snp/coco_milan_v2", {}
    if vectors is not None and (vectors / f"{name}.report").exists():
        report, vek = (vectors / f"{name}.report").read_bytes(), (vectors / f"{name}.vcek.der").read_bytes()
        chain = (vectors / "snp/milan_ask_ark_asvk.pem").read_bytes()
        now, source = datetime(2026, 6, 1, tzinfo=UTC), f"real: {name}.report"
    else:
        year = timedelta(days=365)
        amd = SimulatedAmd(Product.MILAN, not_before=_SIMULATED_AT - year, not_after=_SIMULATED_AT + year)
        made = amd.vek()
        report, vek, chain, pins = amd.report(made), made.der, amd.chain_pem(), {"Milan": amd.ark_pin}
        now, source = _SIMULATED_AT, "simulated"
    evidence = Evidence("snp", build_body(report, vek))

    def verifier() -> SnpVerifier:
        return SnpVerifier({"Milan": chain}, simulated_ark_pins=pins)

    known, policy = verifier(), _policy("snp")
    return (
        Case("snp", source, lambda: verifier().verify(evidence, now=now), policy, now),
        Case("snp_known_chip", source, lambda: known.verify(evidence, now=now), policy, now),
    )


def _tpm(vectors: Path | None) -> Case:
    name = "tpm/swtpm_ecc.json"
    if vectors is not None and (vectors / name).exists():
        body, source = json.loads((vectors / name).read_bytes()), f"software TPM: {name}"
    else:
        pcrs = {n: bytes([n] * 32) for n in range(9)}
        body, source = SimulatedTpm().evidence(pcrs, bytes(32)), "simulated"
    key = parse_evidence(body).key
    trust = TpmTrust(key_ids=[key_id(key)], simulated=True)
    verifier, evidence = TpmVerifier(TpmTrust(), simulator_trust=trust), Evidence("tpm", body)
    return Case("tpm", source, lambda: verifier.verify(evidence, now=_SIMULATED_AT), _policy("tpm"), _SIMULATED_AT)
