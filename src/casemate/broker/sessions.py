"""Challenge, attestation, session: the first half of the confidential-containers KBS protocol (0.4.0).

A challenge is good for one attestation, within five minutes. What it says travels in its own session id, signed by the
broker: nothing is stored for whoever only asks, and an answered challenge leaves a session, so that it is good once.
An accepted attestation's session holds the token itself: what it says is read and verified again at every use.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import threading
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property, lru_cache
from typing import Any

from casemate.attestation import token as tokens
from casemate.attestation.binding import carries_digest, check_report_data, report_data
from casemate.attestation.claims import Claims
from casemate.attestation.evidence import Evidence
from casemate.attestation.policy import Appraisal
from casemate.broker.auditing import Record
from casemate.broker.context import BrokerContext
from casemate.broker.devices import with_devices
from casemate.broker.errors import (
    ChallengeExpiredError,
    ChallengeUnknownError,
    JobWorkloadError,
    NotAttestedError,
    RequestMalformedError,
    SessionAppraisalError,
    WorkloadDigestError,
)
from casemate.broker.release import Attested
from casemate.broker.storage.repository import AttestedRow, JobRow, SessionRow, Writer
from casemate.broker.workloads import Workload, parse_init_data, verify_signers
from casemate.crypto.errors import SignatureInvalidError
from casemate.crypto.jose import Jwk, open_jws, public_jwk, thumbprint
from casemate.errors import RefusedError, UndecidedError
from casemate.model import Role

__all__ = ["PROTOCOL_VERSION", "AttestRequest", "Challenge", "Member", "Sessions"]

PROTOCOL_VERSION = "0.4.0"
_CHALLENGE_TYPE = "casemate-challenge+jws"
_JOB = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_KEPT = timedelta(hours=1)  # after its end a session is still known, so that it can be called expired
_PURGE_EVERY = timedelta(minutes=1)
_PCR_TEES = frozenset({"tpm", "az-snp-vtpm", "az-tdx-vtpm"})
_REMEMBERED = 1024  # verified tokens

_parse = lru_cache(maxsize=256)(parse_init_data)


@dataclass(frozen=True)
class Challenge:
    """``session`` goes into a cookie, ``nonce`` (base64, 32 bytes) into the evidence."""

    session: str
    nonce: str


@dataclass(frozen=True)
class AttestRequest:
    """The parsed body of /kbs/v0/attest."""

    nonce: str
    tee_pubkey: Jwk
    primary_evidence: dict[str, Any]
    additional_evidence: str = ""
    init_format: str | None = None
    init_body: str | None = None
    signatures: Sequence[str] = ()


@dataclass(frozen=True)
class Member:
    """An attested process with a valid session."""

    attested: Attested
    tee_pubkey: Jwk
    thumbprint: str
    token_id: str
    status: str

    @property
    def job(self) -> str:
        return self.attested.job

    def require_accepted(self) -> None:
        """Raise ``SessionAppraisalError`` unless the broker's default policy accepted the evidence."""
        if self.status not in ("affirming", "warning"):
            raise SessionAppraisalError(f"the attestation of job {self.job} has status {self.status}")


@dataclass
class Sessions:
    context: BrokerContext
    _purged: datetime | None = None
    _owners: set[str] = field(default_factory=set)  # seen in storage; owners are never removed
    _verified: OrderedDict[str, tokens.AttestationResult] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def challenge(self, version: str, tee: str, extra: object) -> Challenge:
        """Begin a session. ``extra`` may carry ``{"casemate": {"job", "role"}}``; without it the guest is a job."""
        if version != PROTOCOL_VERSION:
            raise RequestMalformedError(f"protocol version {version!r}, need {PROTOCOL_VERSION}")
        job, role = _job_and_role(extra)
        nonce = base64.b64encode(secrets.token_bytes(32)).decode()
        ends = self.context.clock() + self.context.config.challenge_lifetime
        pending = {"nonce": nonce, "tee": tee, "job": job, "role": role.value, "expires": ends.isoformat()}
        return Challenge(self.context.token_key.sign(pending, typ=_CHALLENGE_TYPE), nonce)

    def attest(self, session_id: str | None, request: AttestRequest) -> str:
        """Verify evidence over a challenge and return the token; every failure uses the challenge up.

        1. The challenge is pending and fresh.    4. The workload manifest is the one it was launched with.
        2. The evidence is genuine.               5. Appraise under the broker's default policy.
        3. It binds this challenge and this key.  6. Use up the challenge, bind the job, keep the token: all or nothing.
        """
        context = self.context
        record = Record("attest", {})
        row: SessionRow | None = None
        try:
            self._name_owners(request, record)
            row = self._asked(session_id, record)
            self._require_pending(row, request.nonce)  # (1)
            now = context.clock()
            key = public_jwk(request.tee_pubkey)
            record.subject["tee_pubkey"] = thumbprint(key)
            claims = context.trust.verify(_evidence(row.tee, request), now=now)  # (2)
            record.subject["evidence"] = _summary(claims)
            expected = report_data(request.nonce, request.tee_pubkey, request.additional_evidence)
            check_report_data(claims.report_data, expected)  # (3)
            claims = with_devices(
                claims,
                request.additional_evidence,
                nonce=request.nonce,
                tee_pubkey=request.tee_pubkey,
                trust=context.trust,
                now=now,
            )
            record.subject["evidence"] = _summary(claims)
            workload, signers = self._workload(request, claims, record)  # (4)
            appraisal = context.default_policy.appraise(claims, now=now)  # (5)
            record.clauses = tuple(clause.to_json() for clause in appraisal.clauses)
            return self._accept(row, request, key, claims, workload, signers, appraisal, record)  # (6)
        except (RefusedError, UndecidedError) as exc:
            with context.repository.writing() as writer:
                self._purge(writer, context.clock())
                if row is not None:
                    writer.add_session(row)
                context.audit.append(writer, record.refusal(exc), context.clock())
            raise

    def _asked(self, session_id: str | None, record: Record) -> SessionRow:
        """What a session id says that this broker signed, as the spent challenge it is from now on."""
        if session_id is None:
            raise ChallengeUnknownError("the request carries no session cookie")
        try:
            said = open_jws(session_id, self.context.token_key.public, typ=_CHALLENGE_TYPE)
        except SignatureInvalidError as exc:
            raise ChallengeUnknownError("no such session") from exc
        record.subject.update(job=said["job"], role=said["role"], tee=said["tee"])
        return SessionRow(
            id_hash=_id_hash(session_id),
            nonce=said["nonce"],
            tee=said["tee"],
            job=said["job"],
            role=said["role"],
            created=self.context.clock(),
            expires=datetime.fromisoformat(said["expires"]),
            state="spent",
        )

    def _require_pending(self, row: SessionRow, nonce: str) -> None:
        with self.context.repository.reading() as reader:
            if reader.session(row.id_hash) is not None:
                raise ChallengeUnknownError("the session's challenge was used already")
        if self.context.clock() >= row.expires:
            raise ChallengeExpiredError(f"the challenge expired at {row.expires.isoformat(timespec='seconds')}")
        if not secrets.compare_digest(nonce.encode(), row.nonce.encode()):
            raise ChallengeUnknownError("the nonce is not the one this session was given")

    def _workload(
        self, request: AttestRequest, claims: Claims, record: Record
    ) -> tuple[Workload | None, frozenset[str]]:
        if request.init_format is None or request.init_body is None:
            return None, frozenset()
        workload = _parse(request.init_format, request.init_body)
        record.subject["workload"] = workload.digest
        if not carries_digest(claims.workload, workload.bound):
            got = "none" if claims.workload is None else f"{claims.workload[:24]}…"
            raise WorkloadDigestError(f"workload: the manifest has {workload.bound[:24]}…, the evidence {got}")
        return workload, verify_signers(request.signatures, workload.digest)

    def _name_owners(self, request: AttestRequest, record: Record) -> None:
        """Whom an attestation concerns: the owners of the datasets it names, also when it is refused, or a replay."""
        if request.init_format is None or request.init_body is None:
            return
        try:
            workload = _parse(request.init_format, request.init_body)
        except WorkloadDigestError:
            return  # refused for it in its turn
        names = dict.fromkeys(name.owner for zone in workload.zones for name in zone.datasets)
        unknown = [name for name in names if name not in self._owners]
        if unknown:
            with self.context.repository.reading() as reader:
                self._owners |= {name for name in unknown if reader.owner(name) is not None}
        record.owners = tuple(name for name in names if name in self._owners)

    def _accept(
        self,
        row: SessionRow,
        request: AttestRequest,
        key: Jwk,
        claims: Claims,
        workload: Workload | None,
        signers: frozenset[str],
        appraisal: Appraisal,
        record: Record,
    ) -> str:
        context, now, token_id = self.context, self.context.clock(), str(uuid.uuid4())
        token = tokens.issue(
            context.token_key,
            token_id=token_id,
            issuer=context.config.issuer,
            audience=[context.config.issuer, *context.config.audiences],
            claims=claims,
            appraisal=appraisal,
            tee_pubkey=key,
            now=now,
            nonce=request.nonce,
            workload=None if workload is None else workload.digest,
            init_data={"signers": sorted(signers)},
            job=row.job,
            role=row.role,
            lifetime=context.config.token_lifetime,
        )
        attested = AttestedRow(token_id, token)
        if workload is not None:
            attested = AttestedRow(token_id, token, workload.bound, request.init_format, request.init_body)
        expires = max(row.expires, now + context.config.token_lifetime)
        with context.repository.writing() as writer:
            self._purge(writer, now)
            if not writer.add_session(replace(row, state="attested", expires=expires, attested=attested)):
                raise ChallengeUnknownError("the session's challenge was used already")
            _bind_job(writer, row.job, workload, now)
            record.subject["token"] = token_id
            context.audit.append(writer, record.entry("accepted"), now)
        return token

    def _purge(self, writer: Writer, now: datetime) -> None:
        if self._purged is None or now - self._purged > _PURGE_EVERY:
            writer.purge(now - _KEPT)
            self._purged = now

    # --- using a session ---

    def by_cookie(self, session_id: str) -> Member:
        """The member whose session cookie this is; raises ``NotAttestedError`` or a ``TokenInvalidError``."""
        try:
            open_jws(session_id, self.context.token_key.public, typ=_CHALLENGE_TYPE)
        except SignatureInvalidError as exc:
            raise NotAttestedError("no such session") from exc
        with self.context.repository.reading() as reader:
            row = reader.session(_id_hash(session_id))
        if row is None or row.attested is None:
            raise NotAttestedError("the session has no accepted attestation")
        return self._member(row.attested)

    def by_token(self, token: str) -> Member:
        """The member whose token this is; raises ``NotAttestedError`` or a ``TokenInvalidError``."""
        result = self._verify(token)
        with self.context.repository.reading() as reader:
            row = reader.session_by_token(result.id)
        if row is None or row.attested is None or row.attested.token != token:
            raise NotAttestedError("the token's session is not known here any more")
        return self._member(row.attested, result)

    @cached_property
    def _keys(self) -> dict[str, Any]:
        return tokens.jwks(self.context.token_key.public)

    def _verify(self, token: str) -> tokens.AttestationResult:
        """What a token says; its signature is verified once, its expiry every time."""
        context, now = self.context, self.context.clock()
        with self._lock:
            known = self._verified.get(token)
        if known is not None and known.issued <= now < known.expires:
            return known
        result = tokens.verify(
            token,
            keys=self._keys,
            issuer=context.config.issuer,
            audience=context.config.issuer,
            now=now,
        )
        with self._lock:
            self._verified[token] = result
            if len(self._verified) > _REMEMBERED:
                self._verified.popitem(last=False)
        return result

    def _member(self, row: AttestedRow, result: tokens.AttestationResult | None = None) -> Member:
        result = result or self._verify(row.token)
        workload = None
        if row.workload_format is not None and row.workload_body is not None:
            workload = _parse(row.workload_format, row.workload_body)
            if workload.digest != result.workload or not carries_digest(result.claims.workload, workload.bound):
                raise WorkloadDigestError("the stored manifest is not the one in the token")
        module = result.raw["submods"]["cpu0"]["ear.veraison.annotated-evidence"]
        signers = frozenset(module["init_data_claims"].get("signers", ()))
        attested = Attested(result.job or "", Role(result.role or ""), result.claims, workload, signers)
        status = result.status if result.accepted else "contraindicated"
        return Member(attested, result.tee_pubkey, result.key_thumbprint, result.id, status)


def _evidence(tee: str, request: AttestRequest) -> Evidence:
    """The evidence; a TPM's with the digest that PCR 8 must prove, for nobody can read it out of the register."""
    body = request.primary_evidence
    if tee not in _PCR_TEES or "workload" in body or request.init_format is None or request.init_body is None:
        return Evidence(tee, body)
    return Evidence(tee, {**body, "workload": _parse(request.init_format, request.init_body).bound})


def _id_hash(session_id: str) -> str:
    """What a session is kept under: a hash of what was signed, since one ECDSA signature can be written as two."""
    return hashlib.sha256(session_id.rpartition(".")[0].encode()).hexdigest()


def _job_and_role(extra: object) -> tuple[str, Role]:
    own = extra.get("casemate") if isinstance(extra, dict) else None
    if own is None:
        return f"guest-{secrets.token_hex(12)}", Role.TASK
    if not isinstance(own, dict) or not isinstance(own.get("job"), str) or not _JOB.fullmatch(own["job"]):
        raise RequestMalformedError("extra-params.casemate.job: need letters, digits, '.', '_', '-', at most 64")
    if own["job"].startswith("guest-"):
        raise RequestMalformedError("extra-params.casemate.job: names that begin with guest- are the broker's own")
    try:
        return own["job"], Role(str(own.get("role")))
    except ValueError as exc:
        raise RequestMalformedError(
            f"extra-params.casemate.role: need one of {', '.join(role.value for role in Role)}"
        ) from exc


def _bind_job(writer: Writer, job: str, workload: Workload | None, now: datetime) -> None:
    """A job belongs to the workload that attested for it first."""
    digest = "none" if workload is None else workload.digest
    known = writer.job(job)
    if known is None:
        writer.add_job(JobRow(job, digest, now))
    elif known.workload != digest:
        raise JobWorkloadError(f"job {job} is of workload {known.workload[:24]}…, this one is {digest[:24]}…")


def _summary(claims: Claims) -> dict[str, Any]:
    """What the log keeps of the claims."""
    return {
        "platform": claims.platform,
        "simulated": claims.simulated,
        "debug": claims.debug,
        "measurement": claims.measurement,
        "workload": claims.workload,
        "workload_binding": None if claims.workload_binding is None else claims.workload_binding.value,
        "platform_id": claims.platform_id,
        "tcb_status": claims.tcb.status,
    }
