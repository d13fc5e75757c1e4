"""What every use case of the broker shares: storage, keys, audit log, settings, and the clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from casemate.attestation.claims import Claims
from casemate.attestation.evidence import Evidence
from casemate.attestation.policies import Policy
from casemate.attestation.token import TOKEN_LIFETIME
from casemate.broker.auditing import AuditLog
from casemate.broker.rootkey import RootKeyStore
from casemate.broker.storage.repository import Repository
from casemate.crypto.jose import KeyPair

__all__ = ["BrokerConfig", "BrokerContext", "EvidenceVerifier"]


class EvidenceVerifier(Protocol):
    """Picks the verifier for a piece of evidence: ``casemate.attestation.trust.TrustStore``."""

    def verify(self, evidence: Evidence, *, now: datetime) -> Claims: ...


@dataclass(frozen=True)
class BrokerConfig:
    """``issuer`` is the broker's URL, named in tokens; ``hosts`` are the ``host:port`` it answers for.

    ``audiences`` are the relying parties that its tokens are for, besides the broker itself."""

    issuer: str
    hosts: frozenset[str]
    broker_id: str
    challenge_lifetime: timedelta = timedelta(minutes=5)
    token_lifetime: timedelta = TOKEN_LIFETIME
    audiences: tuple[str, ...] = ()


@dataclass(frozen=True)
class BrokerContext:
    config: BrokerConfig
    repository: Repository
    root_keys: RootKeyStore
    token_key: KeyPair
    audit: AuditLog
    trust: EvidenceVerifier
    default_policy: Policy
    clock: Callable[[], datetime]
