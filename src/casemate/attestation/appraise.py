"""Appraise one stored piece of evidence of any platform: recognise, verify, compare, apply a policy, explain.

Bytes and a time in, an explained outcome out; no network, disk or clock. ``casemate attest verify`` is this and files.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from casemate.attestation.claims import Claims
from casemate.attestation.clauses import Clause, Conditions, clause
from casemate.attestation.endorsements import Endorsements, sort_endorsements
from casemate.attestation.errors import EvidenceSignatureError, ReportDataMismatchError
from casemate.attestation.eventlog import EventLogMismatchError, check_pcrs, check_rtmrs
from casemate.attestation.eventlog_json import read_event_log
from casemate.attestation.evidence import REPORT_DATA_SIZE
from casemate.attestation.platforms.gpu.errors import GpuNonceMismatchError
from casemate.attestation.platforms.gpu.report import NONCE_SIZE
from casemate.attestation.platforms.tpm.errors import TpmNonceMismatchError
from casemate.attestation.policy import Appraisal, AppraisalPolicy, Outcome, default_policy
from casemate.attestation.rego import RegoPolicy
from casemate.attestation.rego_events import uefi_events
from casemate.attestation.stored import Kind, Stored, recognise
from casemate.attestation.stored_errors import (
    ChallengeFormError,
    EventLogNotApplicableError,
    EvidencePlatformMismatchError,
)
from casemate.attestation.stored_others import verify_alone
from casemate.attestation.stored_verifiers import Beside, Verified, read_anchor, verify_stored
from casemate.errors import CasemateError, RefusedError, UndecidedError, UsageError

__all__ = ["Judgement", "Platform", "appraise_stored"]


class Platform(StrEnum):
    """What ``--platform`` names; ``auto`` goes by the file's content."""

    AUTO = "auto"
    SGX = "sgx"
    TDX = "tdx"
    SNP = "snp"
    TPM = "tpm"
    AZURE = "azure"
    GCE = "gce"
    GPU = "gpu"


_KINDS = {Platform.GCE: Kind.TPM} | {p: Kind(str(p)) for p in Platform if p not in (Platform.AUTO, Platform.GCE)}
_EVIDENCE = frozenset(_KINDS.values())


@dataclass(frozen=True)
class Judgement:
    """The outcome, its main reason, and one explanation per clause.

    ``verified``: every signature and endorsement behind ``claims`` was checked; else they, and ``rules``, the policies'
    clauses, only explain. ``own`` are the clauses about the evidence itself."""

    outcome: Outcome
    code: str | None
    claims: Claims | None
    verified: bool
    own: tuple[Clause, ...]
    rules: tuple[Clause, ...]
    policies: tuple[str, ...] = ()
    trust_vector: Mapping[str, int] | None = None

    @property
    def clauses(self) -> tuple[Clause, ...]:
        """Every clause: about the evidence, then the policies'."""
        return (*self.own, *self.rules)

    @property
    def reason(self) -> Clause | None:
        """The clause that decided, when not accepted."""
        return next((c for c in self.clauses if not c.holds and c.code == self.code), None)

    def to_json(self) -> dict[str, Any]:
        claims = {} if self.claims is None else {"verified": self.verified, **self.claims.to_json()}
        out = {
            "outcome": str(self.outcome),
            "code": self.code,
            "claims": claims,
            "clauses": [
                *(c.to_json() for c in self.own),
                *({**c.to_json(), **({} if self.verified else {"unverified": True})} for c in self.rules),
            ],
        }
        return out if self.trust_vector is None else {**out, "trust_vector": dict(self.trust_vector)}


def appraise_stored(
    content: bytes,
    *,
    now: datetime,
    platform: Platform = Platform.AUTO,
    collateral: Sequence[str] = (),
    certificates: Sequence[bytes] = (),
    event_log: bytes | None = None,
    challenge: bytes | None = None,
    trust_anchor: bytes | None = None,
    policy: AppraisalPolicy | RegoPolicy | Sequence[AppraisalPolicy | RegoPolicy] | None = None,
) -> Judgement:
    """Appraise the content of one evidence file with what was given beside it; without ``policy`` the strict one.

    Of several policies all have to hold; each clause then names its policy. Whatever the files hold ends in a
    judgement. Raises ``UsageError`` for arguments that fit no evidence at all."""
    # 1. Arguments that can be judged alone.      4. The challenge.
    # 2. Which kind of evidence.                  5. The event log.
    # 3. Signatures and endorsements.             6. The policy.   7. The outcome.
    if now.tzinfo is None:
        raise UsageError("time: need a time zone")
    given = [policy] if isinstance(policy, AppraisalPolicy | RegoPolicy) else list(policy or ())
    policies: list[AppraisalPolicy | RegoPolicy] = given or [default_policy()]
    anchor = None if trust_anchor is None else read_anchor(trust_anchor)  # (1)
    if challenge is not None and not 0 < len(challenge) <= REPORT_DATA_SIZE:
        raise ChallengeFormError(f"challenge: {len(challenge)} bytes, need 1 to {REPORT_DATA_SIZE}")
    stored: Stored | None = None
    verified = Verified(None, None)
    try:
        stored = _recognise(content, platform)  # (2)
        beside = Beside(tuple(collateral), _endorsements(certificates), anchor, _vouched(policies))
        if stored.kind in _EVIDENCE:
            verified = verify_stored(stored, beside, now=now, google_only=platform is Platform.GCE)  # (3)
        else:
            verified = verify_alone(stored, beside, now=now)
    except (RefusedError, UndecidedError) as exc:
        verified = Verified(None, exc)
    claims = verified.claims
    own = [_evidence_clause(verified.error)]
    log = event_log if event_log is not None else stored.event_log if stored is not None else None
    if claims is not None:
        if challenge is not None:
            own.append(_challenge_clause(claims, challenge))  # (4)
        if log is not None:
            found, claims, events = _event_log(claims, log, explicit=event_log is not None)  # (5)
            own += found
            policies = [p.beside(events=events) if isinstance(p, RegoPolicy) else p for p in policies]
    appraisals = [] if claims is None else [p.appraise(claims, now=now) for p in policies]  # (6)
    return _judge(verified.error, claims, tuple(own), appraisals)  # (7)


def _vouched(policies: Iterable[AppraisalPolicy | RegoPolicy]) -> frozenset[str]:
    """As ``vouched_keys``, of the first policy that names any: all of them have to hold."""
    for policy in policies:
        if found := vouched_keys(policy.base if isinstance(policy, RegoPolicy) else policy):
            return found
    return frozenset()


def _judge(
    error: CasemateError | None, claims: Claims | None, own: tuple[Clause, ...], appraisals: Sequence[Appraisal]
) -> Judgement:
    """What refuses goes before what leaves undecided; unverified claims are never judged by the policy alone."""
    several = len(appraisals) > 1
    rules = tuple(c.of(one.policy_name) if several else c for one in appraisals for c in one.clauses)
    deciding = (*own, *rules) if error is None else own
    failed = [c for c in deciding if not c.holds]
    refused = [c for c in failed if not c.undecided]
    outcome = Outcome.REFUSED if refused else Outcome.UNDECIDED if failed else Outcome.ACCEPTED
    code = (refused or failed)[0].code if failed else None
    verified = error is None and claims is not None
    vectors = (one.trust_vector for one in appraisals if verified and one.trust_vector is not None)
    names = tuple(one.policy_name for one in appraisals)
    return Judgement(outcome, code, claims, verified, own, rules, names, next(vectors, None))


def _endorsements(certificates: Sequence[bytes]) -> Endorsements:
    return sort_endorsements(certificates) if certificates else Endorsements()


def _recognise(content: bytes, platform: Platform) -> Stored:
    expected = _KINDS.get(platform)
    stored = recognise(content, expected)
    if expected is not None and stored.kind is not expected and stored.kind in _EVIDENCE:
        raise EvidencePlatformMismatchError(f"evidence: expected {platform}, got {stored.kind}")
    return stored


def vouched_keys(conditions: Conditions) -> frozenset[str]:
    """Digests of TPM attestation keys of which the evidence must have one to be accepted: the policy vouches for them.

    Under ``any`` each alternative has to name some; else evidence could be accepted by one that names none."""
    if conditions.platform_ids:
        return frozenset(value for value in conditions.platform_ids if len(value) == 64)
    for part in conditions.all_ or ():
        if found := vouched_keys(part):
            return found
    branches = [vouched_keys(part) for part in conditions.any_ or ()]
    return frozenset().union(*branches) if branches and all(branches) else frozenset()


# -- clauses of our own ------------------------------------------------------------------------------------------------
def _evidence_clause(error: CasemateError | None) -> Clause:
    expected = "genuine: signatures, endorsements and their dates verify up to a trusted root"
    if error is None:
        return clause("evidence", EvidenceSignatureError, expected=expected, got="genuine", holds=True)
    undecided = isinstance(error, UndecidedError)
    return Clause("evidence", expected, error.message, False, error.fix, error.code, undecided)


def _challenge_clause(claims: Claims, challenge: bytes) -> Clause:
    """Report data must be the challenge, padded with zeros; a GPU's nonce and a vTPM's likewise."""
    size, reason = REPORT_DATA_SIZE, ReportDataMismatchError
    if claims.platform == "gpu":
        size, reason = NONCE_SIZE, GpuNonceMismatchError
    elif claims.platform == "tpm" or "vtpm" in claims.extra:
        reason = TpmNonceMismatchError
    if len(challenge) > size:
        raise ChallengeFormError(f"challenge: {len(challenge)} bytes, evidence of {claims.platform} answers {size}")
    expected, got = challenge.ljust(size, b"\0").hex(), claims.report_data or ""
    return clause("challenge", reason, expected=expected, got=got or "none", holds=hmac.compare_digest(expected, got))


def _event_log(claims: Claims, raw: bytes, *, explicit: bool) -> tuple[list[Clause], Claims, list[dict[str, Any]]]:
    """Replay a log into the registers of the claims; which registers it explains is added to them, events beside."""
    pcrs = _pcrs(claims)
    if pcrs is None and not claims.rtmr:
        if explicit:
            raise EventLogNotApplicableError(f"event log: evidence of {claims.platform} has no registers for it")
        return [], claims, []
    expected = "replays to the quoted registers"
    try:
        log = read_event_log(raw)
        found: dict[str, Any] = {"events": len(log.events), "banks": list(log.banks)}
        if pcrs is not None:
            banks = [bank for bank in pcrs if bank in log.banks] or list(pcrs)[:1]
            found["explained_pcrs"] = {bank: list(check_pcrs(log, bank, pcrs[bank])) for bank in banks}
        else:
            check_rtmrs(log, (bytes.fromhex(value) for value in claims.rtmr))
            found["explained_rtmrs"] = [0, 1, 2, 3]
    except RefusedError as exc:
        return [Clause("event_log", expected, exc.message, False, exc.fix, exc.code)], claims, []
    got = f"{len(log.events)} events, all registers as quoted"
    held = clause("event_log", EventLogMismatchError, expected=expected, got=got, holds=True)
    extra = {**claims.extra, "event_log": found}
    return [held], replace(claims, extra=extra), uefi_events(log)


def _pcrs(claims: Claims) -> dict[str, dict[int, bytes]] | None:
    """PCR values by bank and number: a TPM's own, or those of the vTPM beside Azure's hardware claims."""
    vtpm = claims.extra.get("vtpm", claims.extra)
    banks = vtpm.get("pcrs")
    if not isinstance(banks, Mapping):
        return None
    return {bank: {int(n): bytes.fromhex(value) for n, value in values.items()} for bank, values in banks.items()}
