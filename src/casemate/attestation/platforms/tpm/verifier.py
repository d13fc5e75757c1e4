"""Verify TPM 2.0 evidence: quotes of one or more banks, the attestation key, the event log, the workload in PCR 8.

No network, disk or clock. What a policy may differ on (which PCR values, clock, firmware) goes into the claims.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from casemate.attestation.claims import Claims, WorkloadBinding
from casemate.attestation.eventlog import EventLog, check_pcrs, parse_event_log
from casemate.attestation.evidence import REPORT_DATA_SIZE, Evidence
from casemate.attestation.platforms.tpm.errors import (
    TpmAkUntrustedError,
    TpmPcrBankError,
    TpmPcrRequiredError,
    TpmQuotesInconsistentError,
)
from casemate.attestation.platforms.tpm.evidence import BankQuote, TpmEvidence, parse_evidence
from casemate.attestation.platforms.tpm.gce import instance_claims
from casemate.attestation.platforms.tpm.quote import check_nonce, verify_quote
from casemate.attestation.platforms.tpm.structures import AkPublic, Quote, Signature
from casemate.attestation.platforms.tpm.trust import AkTrust, TpmTrust, key_id
from casemate.attestation.platforms.tpm.workload import prove_workload
from casemate.errors import RefusedError, UsageError

__all__ = ["TpmVerifier", "VerifiedQuotes", "claimed_report_data", "log_claims", "quote_claims", "verify_quotes"]

LIBTPMS_FIRMWARE = 0x2019102300163636  # compiled into libtpms, so in every swtpm


@dataclass(frozen=True)
class VerifiedQuotes:
    """The quotes of one piece of evidence, all by one key in one boot, and the PCRs they prove, per bank."""

    quote: Quote  # of the strongest bank
    signature: Signature
    pcrs: Mapping[str, Mapping[int, bytes]]


def verify_quotes(quotes: Iterable[BankQuote], key: AkPublic) -> VerifiedQuotes:
    """Verify each quote and that they belong together; at least one bank must be stronger than SHA-1."""
    verified: list[tuple[Quote, BankQuote]] = []
    pcrs: dict[str, Mapping[int, bytes]] = {}
    for item in quotes:
        if item.bank in pcrs:
            raise TpmPcrBankError(f"PCR bank {item.bank}: quoted twice")
        quote = verify_quote(item.message, item.signature, key, {item.bank: item.pcrs})
        pcrs[item.bank] = item.pcrs
        verified.append((quote, item))
    first = verified[0][0]
    for quote, item in verified[1:]:
        same_boot = (quote.reset_count, quote.restart_count) == (first.reset_count, first.restart_count)
        if not same_boot or quote.nonce != first.nonce or quote.qualified_signer != first.qualified_signer:
            raise TpmQuotesInconsistentError(f"quotes: {item.bank} has another boot, key or challenge than the first")
    if set(pcrs) == {"sha1"}:
        raise TpmPcrBankError("PCR bank: only SHA-1 was quoted, need SHA-256 or better")
    quote, item = max(verified, key=lambda pair: ("sha1", "sha256", "sha384", "sha512").index(pair[1].bank))
    return VerifiedQuotes(quote, item.signature, pcrs)


class TpmVerifier:
    """A ``Verifier`` of TPM evidence (tee ``tpm``; Google Cloud's alike).

    ``simulator_trust`` may vouch for software TPMs: claims then say ``simulated``. Both sets may share no anchor.
    ``required_pcrs`` must be quoted in every bank but SHA-1. ``insecure_allow_unknown_ak`` lets keys pass that nothing
    vouches for; claims then say ``ak_trust: none``, and whoever asked has to refuse them."""

    def __init__(
        self,
        trust: TpmTrust,
        *,
        simulator_trust: TpmTrust | None = None,
        required_pcrs: Iterable[int] = (),
        insecure_allow_unknown_ak: bool = False,
    ) -> None:
        if trust.simulated or (simulator_trust is not None and not simulator_trust.simulated):
            raise UsageError("TPM trust: simulated anchors go into simulator_trust, and only they")
        if simulator_trust is not None and trust.anchors & simulator_trust.anchors:
            raise UsageError("TPM trust: an anchor is both a real and a simulated one")
        given = (trust,) if simulator_trust is None else (trust, simulator_trust)
        self._trusts = tuple(one for one in given if one.anchors) or (trust,)  # an empty set has no reason to tell
        self._required = frozenset(required_pcrs)
        self._allow_unknown = insecure_allow_unknown_ak

    def verify(
        self,
        evidence: Evidence,
        *,
        now: datetime,
        challenge: bytes | None = None,
        event_log: bytes | None = None,
        workload: bytes | None = None,
    ) -> Claims:
        """Claims of genuine evidence; raises a ``RefusedError`` or ``UndecidedError`` naming the step.

        ``challenge``, ``event_log`` and ``workload`` (a digest) are checked when given; the latter two may also come
        with the evidence. Without ``challenge`` the caller compares ``report_data``."""
        # 1. Read it.                                    5. Challenge.
        # 2. Signatures, PCR values, one boot.           6. Event log.
        # 3. Whose key it is, at ``now``.                7. Workload in PCR 8.
        # 4. The PCRs that were demanded.
        parsed = parse_evidence(evidence.body)  # (1)
        quotes = verify_quotes(parsed.quotes, parsed.key)  # (2)
        trust = self._trust(parsed, now)  # (3)
        self._check_required(quotes)  # (4)
        for expected in (challenge, parsed.nonce):
            if expected is not None:
                check_nonce(quotes.quote, expected)  # (5)
        extra = quote_claims(quotes, parsed.key, trust)
        raw_log = event_log if event_log is not None else parsed.event_log
        if raw_log is not None:
            extra["event_log"] = log_claims(parse_event_log(raw_log), quotes.pcrs)  # (6)
        digest = workload if workload is not None else parsed.workload
        proven = None if digest is None else prove_workload(digest, quotes.pcrs).hex()  # (7)
        return Claims(
            platform="tpm",
            simulated=trust.simulated,
            debug=False,
            workload=proven,
            workload_binding=WorkloadBinding.LAUNCH if proven else None,
            report_data=claimed_report_data(quotes.quote),
            platform_id=key_id(parsed.key),
            collateral_expires=trust.path.expires if trust.path else None,
            extra=extra,
        )

    def _trust(self, parsed: TpmEvidence, now: datetime) -> AkTrust:
        refusal: RefusedError | None = None
        for trust in self._trusts:
            try:
                return trust.appraise_key(parsed.key, parsed.certificate, parsed.chain, now=now)
            except RefusedError as exc:
                # The real set's reason is the one to tell, unless it was only that it does not know the key.
                if refusal is None or isinstance(refusal, TpmAkUntrustedError):
                    refusal = exc
        if self._allow_unknown and isinstance(refusal, TpmAkUntrustedError):
            return AkTrust("none")
        raise refusal or TpmAkUntrustedError("attestation key: no trust was configured")

    def _check_required(self, quotes: VerifiedQuotes) -> None:
        for bank, values in quotes.pcrs.items():
            missing = sorted(self._required - values.keys())
            if missing and bank != "sha1":
                raise TpmPcrRequiredError(f"quote of {bank}: PCRs {missing} are demanded, it covers {sorted(values)}")


def claimed_report_data(quote: Quote) -> str | None:
    """The challenge as report data: padded with zeros to 64 bytes, as TEEs do; None when the quote has none."""
    return quote.nonce.ljust(REPORT_DATA_SIZE, b"\0").hex() if quote.nonce else None


def quote_claims(quotes: VerifiedQuotes, key: AkPublic, trust: AkTrust) -> dict[str, Any]:
    """What only TPMs say, under the specification's names; PCR values as ``pcrs.<bank>.<number>``."""
    quote = quotes.quote
    claims: dict[str, Any] = {
        "pcrs": {b: {str(n): values[n].hex() for n in sorted(values)} for b, values in quotes.pcrs.items()},
        "nonce": quote.nonce.hex(),
        "ak_trust": trust.kind,
        "ak_id": key_id(key),
        "ak_public": base64.b64encode(key.spki).decode(),
        "ak_restricted": key.restricted,
        "signature": f"{quotes.signature.scheme}-{quotes.signature.hash}",
        "qualified_signer": quote.qualified_signer.hex(),
        "clock_ms": quote.clock_ms,
        "clock_safe": quote.clock_safe,
        "reset_count": quote.reset_count,
        "restart_count": quote.restart_count,
        "firmware_version": f"{quote.firmware_version:016x}",
        "software_tpm": quote.firmware_version == LIBTPMS_FIRMWARE,
    }
    if trust.path is not None:
        claims["ak_certificate"] = {
            "serial": f"{trust.path.leaf.serial_number:x}",
            "root": trust.path.certificates[-1].subject.rfc4514_string(),
            "crls_checked": trust.path.crls_checked,
        }
        claims.update(instance_claims(trust.path.leaf))
    return claims


def log_claims(log: EventLog, pcrs: Mapping[str, Mapping[int, bytes]]) -> dict[str, Any]:
    """Replay ``log`` in every quoted bank it has; raises ``EventLogMismatchError`` or ``EventLogBankError``."""
    banks = [bank for bank in pcrs if bank in log.banks] or list(pcrs)[:1]
    explained = {bank: list(check_pcrs(log, bank, pcrs[bank])) for bank in banks}
    return {"events": len(log.events), "explained_pcrs": explained}
