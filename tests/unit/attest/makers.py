"""SIMULATED makers of all platforms, and evidence in good order that a case may spoil before it is judged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from casemate.attestation.appraise import Judgement, Platform, appraise_stored
from casemate.attestation.platforms.certificates import der_of
from casemate.attestation.platforms.gpu.simulator import SimulatedGpu
from casemate.attestation.platforms.simulator.pki import CollateralEdits, PlatformIdentity, SimulatedPki
from casemate.attestation.platforms.simulator.quote import EnclaveReport, QuotingEnclave, TdReport
from casemate.attestation.platforms.snp.body import build_body
from casemate.attestation.platforms.snp.simulator import SimulatedAmd, SimulatedVek
from casemate.attestation.platforms.snp.tcb import Product
from casemate.attestation.platforms.tpm.simulator import AkAuthority, SimulatedTpm
from casemate.attestation.policy import AppraisalPolicy

__all__ = ["CHALLENGE", "NOW", "PCRS", "TRIAL", "Given", "Makers", "policy"]

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
CHALLENGE = hashlib.sha384(b"challenge").digest().ljust(64, b"\0")
PCRS = {n: hashlib.sha256(bytes([n])).digest() for n in range(9)}
MEASUREMENT = bytes([0xAB] * 48)


def policy(**rules: Any) -> AppraisalPolicy:
    """The strict rules for simulated evidence, and ``rules`` beside them."""
    base: dict[str, Any] = {"version": 1, "name": "trial", "allow_simulated": True}
    return AppraisalPolicy.from_document(base | {"platforms": ["sgx", "tdx", "snp", "tpm", "gpu"]} | rules)


TRIAL = policy()


@dataclass(frozen=True)
class Given:
    """One evidence file and what is given beside it; good unless a case changed it."""

    content: bytes
    collateral: tuple[str, ...] = ()
    certificates: tuple[bytes, ...] = ()
    trust_anchor: bytes | None = None
    event_log: bytes | None = None
    challenge: bytes | None = CHALLENGE
    policy: AppraisalPolicy | None = TRIAL
    now: datetime = NOW
    platform: Platform = Platform.AUTO

    def but(self, **changes: Any) -> Given:
        return replace(self, **changes)

    def flipped(self, place: int, bits: int = 1) -> Given:
        content = bytearray(self.content)
        content[place] ^= bits
        return self.but(content=bytes(content))

    def judge(self) -> Judgement:
        values = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "content"}
        return appraise_stored(self.content, **values)


@dataclass
class Makers:
    """Every maker once; keys are made when first used."""

    extra: dict[str, Any] = field(default_factory=dict)

    # -- Intel ---------------------------------------------------------------------------------------------------------
    @cached_property
    def pki(self) -> SimulatedPki:
        return SimulatedPki.create(NOW, PlatformIdentity(ppid=bytes(range(16)), piid=bytes(range(16, 32))))

    @cached_property
    def other_pki(self) -> SimulatedPki:
        return SimulatedPki.create(NOW)

    @cached_property
    def enclave(self) -> QuotingEnclave:
        return QuotingEnclave.create(self.pki)

    def collateral(self, tee: str, edits: CollateralEdits | None = None, now: datetime = NOW, **members: str) -> str:
        return json.dumps(self.pki.collateral(tee, now, edits) | members)

    def tdx(
        self,
        edits: CollateralEdits | None = None,
        *,
        enclave: QuotingEnclave | None = None,
        version: int = 4,
        td15: bool = False,
        outer_type: int = 6,
        members: Mapping[str, str] | None = None,
        **td: Any,
    ) -> Given:
        report = TdReport(**({"mrtd": MEASUREMENT, "mr_config_id": bytes([7] * 48), "report_data": CHALLENGE} | td))
        quote = (enclave or self.enclave).tdx_quote(report, version=version, td15=td15, outer_type=outer_type)
        return Given(quote, (self.collateral("tdx", edits, **(members or {})),), trust_anchor=self.pki.root.der)

    def sgx(
        self, edits: CollateralEdits | None = None, *, enclave: QuotingEnclave | None = None, **report: Any
    ) -> Given:
        body = EnclaveReport(**({"mrenclave": MEASUREMENT[:32], "report_data": CHALLENGE, "svn": 3} | report))
        quote = (enclave or self.enclave).sgx_quote(body)
        return Given(quote, (self.collateral("sgx", edits),), trust_anchor=self.pki.root.der)

    # -- AMD -----------------------------------------------------------------------------------------------------------
    @cached_property
    def amd(self) -> SimulatedAmd:
        return SimulatedAmd(Product.MILAN, not_before=NOW - 900 * DAY, not_after=NOW + 5000 * DAY)

    @cached_property
    def other_amd(self) -> SimulatedAmd:
        return SimulatedAmd(Product.MILAN, not_before=NOW - 900 * DAY, not_after=NOW + 5000 * DAY)

    @cached_property
    def vek(self) -> SimulatedVek:
        return self.amd.vek()

    def snp(
        self,
        *,
        vek: SimulatedVek | None = None,
        chain: bytes | None = None,
        crl: bytes | None = None,
        with_vek: bool = True,
        bend: Callable[[bytes], bytes] = bytes,
        **fields: Any,
    ) -> Given:
        vek = vek or self.vek
        report = bend(self.amd.report(vek, **({"report_data": CHALLENGE, "measurement": MEASUREMENT} | fields)))
        body = build_body(report, vek.der if with_vek else None, kind=vek.kind)
        certificates = [self.amd.chain_pem() if chain is None else chain, *([crl] if crl else [])]
        return Given(
            json.dumps(body).encode(),
            certificates=tuple(c for c in certificates if c),
            trust_anchor=self.amd.certificates["ARK"],
        )

    # -- TPM -----------------------------------------------------------------------------------------------------------
    @cached_property
    def tpm_key(self) -> SimulatedTpm:
        return SimulatedTpm("ecdsa")

    @cached_property
    def authority(self) -> AkAuthority:
        return AkAuthority(NOW)

    def tpm(self, change: Callable[[dict[str, Any]], Any] | None = None, **quote: Any) -> Given:
        """Evidence of a key on the allow-list; ``change`` bends the JSON."""
        body = self.tpm_key.evidence(quote.pop("pcrs", PCRS), quote.pop("nonce", CHALLENGE), **quote)
        if change is not None:
            change(body)
        return Given(json.dumps(body).encode(), trust_anchor=self.tpm_key.spki)

    def certified(self, crls: tuple[bytes, ...] = (), **validity: Any) -> Given:
        """Evidence of a key with a certificate below the anchor."""
        certificate = validity.pop("certificate", None) or self.authority.certify(self.tpm_key.public_key, **validity)
        body = self.tpm_key.evidence(PCRS, CHALLENGE) | {"ak_cert_der": der_of(certificate).hex()}
        root, intermediate = der_of(self.authority.root), der_of(self.authority.intermediate)
        return Given(json.dumps(body).encode(), certificates=(intermediate, *crls), trust_anchor=root)

    # -- NVIDIA --------------------------------------------------------------------------------------------------------
    @cached_property
    def device(self) -> SimulatedGpu:
        return SimulatedGpu(NOW)

    def gpu(self, *, certificates: tuple[bytes, ...] = (), nonce: bytes = CHALLENGE[:32], **parts: Any) -> Given:
        body = self.device.evidence(nonce, **parts)
        anchor = self.device.root.public_bytes(Encoding.DER)
        return Given(
            json.dumps(body).encode(), certificates=certificates, trust_anchor=anchor, challenge=CHALLENGE[:32]
        )
