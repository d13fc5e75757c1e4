"""The broker's use cases in one place. Storage, keys, trust anchors, settings and the clock are handed in."""

from __future__ import annotations

from casemate.broker.context import BrokerContext
from casemate.broker.errors import NotAuthorisedError, ProofReplayedError
from casemate.broker.identity import Principal
from casemate.broker.jobs import Jobs
from casemate.broker.registry import Registry
from casemate.broker.releases import Releases
from casemate.broker.sessions import Member, Sessions
from casemate.crypto.errors import SignatureInvalidError
from casemate.crypto.proof import PROOF_LIFETIME, Proof, verify_proof

__all__ = ["Broker"]


class Broker:
    """Sessions (challenge, attest), releases, jobs, registry, audit log; and who signed a request."""

    def __init__(self, context: BrokerContext) -> None:
        self.context = context
        self.sessions = Sessions(context)
        self.releases = Releases(context)
        self.jobs = Jobs(context)
        self.registry = Registry(context)
        self.audit = context.audit

    def principal(self, proof: str, *, method: str, url: str) -> Principal:
        """The owner or administrator who signed a request; raises a ``RefusedError`` for anybody else."""
        with self.audit.recording("authenticate", method=method, url=url):
            checked = self._use_proof(proof, method=method, url=url, token=None)
            with self.context.repository.reading() as reader:
                owner = reader.owner_by_thumbprint(checked.thumbprint)
                admin = reader.is_admin(checked.thumbprint)
            if owner is None and not admin:
                raise NotAuthorisedError(f"the key {checked.thumbprint} is of no owner and no administrator")
        return Principal(checked.thumbprint, None if owner is None else owner.name, admin)

    def member(self, token: str, proof: str, *, method: str, url: str) -> Member:
        """The attested process that holds a token *and* the key its evidence binds."""
        with self.audit.recording("authenticate", method=method, url=url):
            checked = self._use_proof(proof, method=method, url=url, token=token)
            member = self.sessions.by_token(token)
            if checked.thumbprint != member.thumbprint:
                raise SignatureInvalidError("request proof: not signed by the key that the token's evidence binds")
        return member

    def _use_proof(self, proof: str, *, method: str, url: str, token: str | None) -> Proof:
        now = self.context.clock()
        checked = verify_proof(proof, method=method, url=url, now=now, token=token)
        with self.context.repository.writing() as writer:
            # Kept for as long as its date would be accepted, ahead of our clock or behind it.
            if not writer.add_proof(checked.thumbprint, checked.jti, now + 3 * PROOF_LIFETIME):
                raise ProofReplayedError("the request proof was used before")
        return checked

    def close(self) -> None:
        self.releases.lanes.close()
        self.context.repository.close()
