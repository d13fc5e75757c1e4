"""Decide about a peer: its certificate's evidence, the policy, and the connection it answers for. No I/O, no clock."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from casemate.attestation.claims import Claims
from casemate.attestation.evidence import REPORT_DATA_SIZE, Evidence
from casemate.attestation.policy import Appraisal, AppraisalPolicy
from casemate.attestation.ratls.certificate import parse_certificate
from casemate.attestation.ratls.errors import RatlsChannelMismatchError, RatlsPeerChangedError
from casemate.attestation.trust import TrustStore
from casemate.crypto.canonical import canonical_json

__all__ = ["EXPORTER_LABEL", "EXPORTER_SIZE", "Peer", "PeerRules", "Side", "channel_report_data"]

EXPORTER_LABEL = b"EXPERIMENTAL-casemate-ratls-v1"  # RFC 5705 section 4: such labels need no registration
EXPORTER_SIZE = 32  # bytes
_IDENTITY = ("platform", "simulated", "measurement", "signer", "workload", "platform_id")


class Side(StrEnum):
    """Who speaks; bound into the evidence, so that neither side's can be sent back as the other's."""

    CLIENT = "client"
    SERVER = "server"

    @property
    def other(self) -> Side:
        return Side.SERVER if self is Side.CLIENT else Side.CLIENT


@dataclass(frozen=True)
class Peer:
    """A peer whose evidence the policy accepted. ``spki`` is the key it proved to hold in the handshake."""

    claims: Claims
    appraisal: Appraisal
    spki: bytes
    certificate: bytes

    @property
    def key_sha256(self) -> str:
        return hashlib.sha256(self.spki).hexdigest()


@dataclass(frozen=True)
class PeerRules:
    """What a peer has to be. An allow-list of machines is the policy's ``platform_ids``.

    ``nonce``: the one that the peer was given for its certificate, where there is a way to give one."""

    trust: TrustStore
    policy: AppraisalPolicy
    nonce: bytes | None = None

    def appraise(self, der: bytes, *, now: datetime) -> Peer:
        """The peer behind a certificate (DER); raises the error of the step that failed.

        It proves who made the key, not who holds it now: see ``appraise_channel``."""
        # 1. Form and own signature.   3. The evidence is genuine.        5. The policy.
        # 2. Dates.                    4. It binds this key (and nonce).
        certificate = parse_certificate(der)  # (1)
        certificate.check_dates(now)  # (2)
        claims = self.trust.verify(certificate.carried.evidence, now=now)  # (3)
        certificate.carried.check(certificate.spki, claims.report_data, self.nonce)  # (4)
        appraisal = self.policy.appraise(claims, now=now)
        appraisal.require()  # (5)
        return Peer(claims, appraisal, certificate.spki, der)

    def appraise_channel(self, peer: Peer, evidence: Evidence, expected: bytes, *, now: datetime) -> Claims:
        """Claims of evidence that ``peer`` made for this very connection; ``expected`` is its report data.

        A relay that holds a stolen key cannot have it made: the TEE makes it only for connections of its own."""
        # 1. The evidence is genuine.   2. For this connection.   3. Of the TEE in the certificate.   4. The policy.
        claims = self.trust.verify(evidence, now=now)  # (1)
        if claims.report_data != expected.hex():  # (2)
            raise RatlsChannelMismatchError(
                f"connection: report data expected {expected.hex()[:24]}…, got {(claims.report_data or 'none')[:24]}…"
            )
        for name in _IDENTITY:  # (3)
            before, after = getattr(peer.claims, name), getattr(claims, name)
            if before != after:
                raise RatlsPeerChangedError(f"connection: {name} was {before} in the certificate, now {after}")
        self.policy.appraise(claims, now=now).require()  # (4)
        return claims


def channel_report_data(exported: bytes, nonce: bytes, *, sender: Side, spki: bytes) -> bytes:
    """The 64 bytes of report data for one connection: SHA-384 over RFC 8785 JSON, then zeros.

    ``exported`` is RFC 5705 keying material of the connection, ``nonce`` the other's, ``spki`` the sender's key."""
    bound = {
        "purpose": EXPORTER_LABEL.decode(),
        "exported": exported.hex(),
        "nonce": nonce.hex(),
        "sender": str(sender),
        "key": hashlib.sha256(spki).hexdigest(),
    }
    return hashlib.sha384(canonical_json(bound)).digest().ljust(REPORT_DATA_SIZE, b"\0")
