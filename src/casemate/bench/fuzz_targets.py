"""What is fuzzed: every parser of evidence, endorsements, policies and tokens, and every verifier, with good inputs.

Evidence is SIMULATED, signed by makers that live for one run. A target that ``decides`` answers with the claims that
matter; one that only parses may answer anything.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from casemate.attestation import token as tokens
from casemate.attestation.appraise import Platform, appraise_stored
from casemate.attestation.claims import Claims
from casemate.attestation.endorsements import sort_endorsements
from casemate.attestation.errors import MalformedEvidenceError
from casemate.attestation.eventlog import parse_event_log, replay_pcrs
from casemate.attestation.evidence import Evidence
from casemate.attestation.platforms.certificates import der_of
from casemate.attestation.platforms.gpu.report import parse_report as parse_gpu_report
from casemate.attestation.platforms.gpu.simulator import SimulatedGpu
from casemate.attestation.platforms.gpu.verifier import GpuVerifier
from casemate.attestation.platforms.intel.collateral import SingleCollateral, parse_collateral
from casemate.attestation.platforms.intel.quote import parse_quote
from casemate.attestation.platforms.linux.snp_certificates import parse_certificate_table
from casemate.attestation.platforms.simulator.pki import SimulatedPki
from casemate.attestation.platforms.simulator.quote import EnclaveReport, QuotingEnclave, TdReport
from casemate.attestation.platforms.snp.endorsement import parse_vek
from casemate.attestation.platforms.snp.report import parse_report as parse_snp_report
from casemate.attestation.platforms.snp.revocation import parse_crl
from casemate.attestation.platforms.snp.simulator import SimulatedAmd
from casemate.attestation.platforms.snp.tcb import Product
from casemate.attestation.platforms.snp.verifier import SnpVerifier
from casemate.attestation.platforms.tpm.azure import parse_hcl_report
from casemate.attestation.platforms.tpm.simulator import SimulatedTpm
from casemate.attestation.platforms.tpm.structures import parse_quote as parse_tpm_quote
from casemate.attestation.platforms.tpm.structures import parse_signature, parse_tpmt_public
from casemate.attestation.platforms.tpm.trust import TpmTrust
from casemate.attestation.platforms.tpm.verifier import TpmVerifier
from casemate.attestation.policy import AppraisalPolicy, Outcome, default_policy
from casemate.attestation.ratls.certificate import parse_certificate
from casemate.attestation.ratls.extension import decode_dice, encode_dice
from casemate.attestation.ratls.identity import create_identity
from casemate.attestation.ratls.peer import PeerRules
from casemate.attestation.stored import recognise
from casemate.attestation.trust import TrustStore
from casemate.crypto.jose import KeyPair
from casemate.errors import RefusedError

__all__ = ["Target", "targets"]

NOW = datetime(2026, 6, 1, tzinfo=UTC)
_DAYS = timedelta(days=300)
_PCRS = {n: bytes([n]) * 32 for n in range(9)}
_CORE = (
    "platform", "simulated", "debug", "measurement", "signer", "product_id", "svn", "rtmr", "workload",
    "report_data", "tcb", "platform_id", "vmpl",
)  # fmt: skip
_POLICY = "version: 1\nname: trial\nallow_simulated: true\nplatforms: [sgx, tdx, snp, tpm, gpu]\n"


@dataclass(frozen=True)
class Target:
    """``run`` takes a mutated seed; errors of ours are its refusals."""

    name: str
    seeds: Sequence[Any]
    run: Callable[[Any], Any]
    decides: bool = False


def targets() -> list[Target]:
    """All of them; makes the makers, which takes a second."""
    return [*_intel(), *_amd(), *_tpm(), *_gpu(), *_certificates(), *_documents()]


def _core(claims: Claims) -> dict[str, Any]:
    stated = claims.to_json()
    return {name: stated[name] for name in _CORE} | {"pcrs": claims.extra.get("pcrs")}


def _evidence(tee: str, body: Any) -> Evidence:
    """As the trust store does, which every body passes before its verifier sees it."""
    if not isinstance(body, Mapping):
        raise MalformedEvidenceError("evidence: need a JSON object")
    return Evidence(tee, body)


def _encoded(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _intel() -> Iterator[Target]:
    pki = SimulatedPki.create(NOW)
    enclave = QuotingEnclave.create(pki)
    report = TdReport(mrtd=bytes([1] * 48), mr_config_id=bytes([2] * 48), report_data=bytes([3] * 64))
    quotes = {
        "sgx_v3": ("sgx", enclave.sgx_quote(EnclaveReport(mrenclave=bytes([4] * 32)))),
        "tdx_v4": ("tdx", enclave.tdx_quote(report)),
        "tdx_v5": ("tdx", enclave.tdx_quote(report, version=5, td15=True)),
    }
    documents = {tee: pki.collateral(tee, NOW) for tee in ("sgx", "tdx")}
    yield Target("intel_parse_quote", [raw for _, raw in quotes.values()], parse_quote)
    for name, (tee, raw) in quotes.items():
        yield Target(f"intel_verify_{name}", [raw], _verify_quote(pki, tee, json.dumps(documents[tee])), decides=True)
    good = quotes["tdx_v4"][1]

    def with_collateral(text: str) -> Any:
        return _verify_quote(pki, "tdx", text)(good)

    # Dates and names that no signature covers do not exist in it, but the chain of a list's issuer is only advice.
    yield Target("intel_collateral_text", [json.dumps(documents["tdx"])], with_collateral, decides=True)
    yield Target("intel_collateral_json", [documents["tdx"]], lambda d: with_collateral(json.dumps(d)), decides=True)

    def stored(raw: bytes) -> Any:
        policy = AppraisalPolicy.from_yaml(_POLICY)
        judgement = appraise_stored(
            raw, now=NOW, collateral=[json.dumps(documents["tdx"])], trust_anchor=pki.root.der, policy=policy
        )
        if judgement.outcome is not Outcome.ACCEPTED or judgement.claims is None:
            raise RefusedError(judgement.code or "refused")
        return _core(judgement.claims)

    yield Target("stored_evidence_tdx", [good, base64.b64encode(good), good.hex().encode()], stored, decides=True)


def _verify_quote(pki: SimulatedPki, tee: str, collateral: str) -> Callable[[bytes], Any]:
    def run(raw: bytes) -> Any:
        store = TrustStore(simulator_root=pki.root.der, collateral=SingleCollateral(parse_collateral(collateral)))
        return _core(store.verify(Evidence(tee, {"quote": _encoded(raw)}), now=NOW))

    return run


def _amd() -> Iterator[Target]:
    amd = SimulatedAmd(Product.TURIN, not_before=NOW - _DAYS, not_after=NOW + _DAYS)
    vek = amd.vek()
    report = amd.report(vek, version=5, measurement=bytes([5] * 48))
    crl = amd.crl(this_update=NOW, next_update=NOW + _DAYS, revoked=[1, 2])
    pins, chain = {"Turin": amd.ark_pin}, amd.chain_pem()
    verifier = SnpVerifier({"Turin": chain}, simulated_ark_pins=pins)
    body = dict(amd.evidence(vek, bytes(64)).body)

    def with_chain(pem: bytes) -> Any:
        return _core(SnpVerifier({"Turin": pem}, simulated_ark_pins=pins).verify_report(report, vek.der, now=NOW))

    def with_crl(raw: bytes) -> Any:
        strict = SnpVerifier({"Turin": chain}, crls={"Turin": [raw]}, require_crl=True, simulated_ark_pins=pins)
        return _core(strict.verify_report(report, vek.der, now=NOW))

    yield Target("snp_parse_report", [report], parse_snp_report)
    yield Target("snp_parse_certificate", [vek.der], parse_vek)
    yield Target("snp_parse_crl", [crl], parse_crl)
    yield Target(
        "snp_verify_report", [report], lambda raw: _core(verifier.verify_report(raw, vek.der, now=NOW)), decides=True
    )
    yield Target(
        "snp_verify_certificate",
        [vek.der],
        lambda raw: _core(verifier.verify_report(report, raw, now=NOW)),
        decides=True,
    )
    yield Target("snp_verify_chain", [chain], with_chain, decides=True)
    yield Target("snp_verify_crl", [crl], with_crl, decides=True)
    yield Target(
        "snp_verify_body", [body], lambda value: _core(verifier.verify(_evidence("snp", value), now=NOW)), decides=True
    )
    table = bytes.fromhex("8d75da6364e66445adc5f4b93be8accd") + (48).to_bytes(4, "little") + b"\4\0\0\0" + bytes(24)
    yield Target("snp_certificate_table", [table + b"cert"], parse_certificate_table)


def _tpm() -> Iterator[Target]:
    tpm = SimulatedTpm()
    nonce = bytes(32)
    quote, body = tpm.quote(_PCRS, nonce), tpm.evidence(_PCRS, nonce)
    trust = TpmTrust(keys=[tpm.spki], simulated=True)
    verifier = TpmVerifier(TpmTrust(), simulator_trust=trust)

    def verify(value: Mapping[str, Any]) -> Any:
        return _core(verifier.verify(_evidence("tpm", value), now=NOW))

    def with_part(name: str) -> Callable[[bytes], Any]:
        return lambda raw: verify({**body, "tpm_quote": {**body["tpm_quote"], name: _encoded(raw)}})

    yield Target("tpm_parse_quote", [quote], parse_tpm_quote)
    yield Target("tpm_parse_signature", [tpm.sign(quote)], parse_signature)
    yield Target("tpm_parse_public", [tpm.tpmt_public()], parse_tpmt_public)
    yield Target("tpm_verify_message", [quote], with_part("message"), decides=True)
    yield Target(
        "tpm_verify_signature", [base64.b64decode(body["tpm_quote"]["signature"])], with_part("signature"), decides=True
    )
    yield Target("tpm_verify_body", [body], verify, decides=True)
    hcl = b"HCLA" + bytes(28 + 1184) + (22).to_bytes(4, "little") + bytes.fromhex("01000000020000000100000002000000")
    yield Target("azure_hcl_report", [hcl + b"{}"], parse_hcl_report)

    def replay(raw: bytes) -> None:
        replay_pcrs(parse_event_log(raw), "sha256")

    spec = bytes(8) + b"\1\0\0\0\x0b\0\x20\0\0"
    events = (b"\1\0\0\0\x0d\0\0\0\1\0\0\0\x0b\0" + bytes(32) + b"\1\0\0\0x") * 3
    head = bytes.fromhex("0000000003000000") + bytes(20) + (16 + len(spec)).to_bytes(4, "little")
    yield Target("event_log", [head + b"Spec ID Event03\0" + spec + events], replay)


def _gpu() -> Iterator[Target]:
    gpu = SimulatedGpu(NOW)
    nonce = bytes(32)
    report, body = gpu.sign(gpu.message(nonce)), gpu.evidence(nonce)
    verifier = GpuVerifier(pins=(), simulated_pins=[gpu.pin])

    def verify(value: Mapping[str, Any]) -> Any:
        return _core(verifier.verify(_evidence("nvidia", value), now=NOW))

    def with_report(raw: bytes) -> Any:
        return verify({"device_evidence_list": [{**body["device_evidence_list"][0], "evidence": _encoded(raw)}]})

    yield Target("gpu_parse_report", [report], parse_gpu_report)
    yield Target("gpu_verify_report", [report], with_report, decides=True)
    yield Target("gpu_verify_body", [body], verify, decides=True)
    yield Target("endorsement_files", [der_of(gpu.leaf), gpu.chain(), gpu.crl()], lambda raw: sort_endorsements([raw]))


def _certificates() -> Iterator[Target]:
    """RA-TLS certificates and the extension in them."""
    pki = SimulatedPki.create(NOW)
    enclave = QuotingEnclave.create(pki)
    collateral = SingleCollateral(parse_collateral(json.dumps(pki.collateral("tdx", NOW))))
    store = TrustStore(simulator_root=pki.root.der, collateral=collateral)

    class Maker:
        tee = "tdx"

        def collect(self, report_data: bytes) -> Evidence:
            return Evidence("tdx", {"quote": _encoded(enclave.tdx_quote(TdReport(report_data=report_data)))})

    identity = create_identity(Maker(), now=NOW)
    carried = parse_certificate(identity.certificate).carried
    rules = PeerRules(store, AppraisalPolicy.from_yaml(_POLICY))

    def judge(der: bytes) -> Any:
        peer = rules.appraise(der, now=NOW)
        return _core(peer.claims) | {"key": peer.key_sha256}

    yield Target("ratls_certificate", [identity.certificate], judge, decides=True)
    yield Target("ratls_extension", [encode_dice(carried.evidence, carried.claims or b"")], decode_dice)


def _documents() -> Iterator[Target]:
    signer, tee = KeyPair.generate(), KeyPair.generate()
    claims = Claims(platform="tdx", simulated=False, debug=False, measurement="ab" * 48)
    appraisal = default_policy().appraise(claims, now=NOW)
    token = tokens.issue(
        signer,
        token_id="fuzz",  # noqa: S106  (a name)
        issuer="https://broker.example",
        audience="https://service.example",
        claims=claims,
        appraisal=appraisal,
        tee_pubkey=tee.public,
        now=NOW,
    )
    keys = tokens.jwks(signer.public)

    def verify_token(text: str) -> Any:
        result = tokens.verify(
            text, keys=keys, issuer="https://broker.example", audience="https://service.example", now=NOW
        )
        return dict(result.raw)

    yield Target("token", [token], verify_token, decides=True)
    yield Target("policy_yaml", [_POLICY], AppraisalPolicy.from_yaml)
    yield Target("policy_document", [default_policy().document], AppraisalPolicy.from_document)
    yield Target("recognise", [b"HCLA" + bytes(1300), b'{"quote": "AAAA"}', bytes(1184)], _recognised)


def _recognised(raw: bytes) -> Any:
    """Recognise, and judge what was recognised by the strict policy, which accepts none of it."""
    recognise(raw)
    judgement = appraise_stored(raw, now=NOW, platform=Platform.AUTO)
    if judgement.outcome is Outcome.ACCEPTED:
        raise AssertionError("junk was accepted")
    return judgement
