"""The trust anchors and collateral a verifier is built with; it picks the platform's verifier for each evidence.

A real platform and the simulator never share an anchor: the anchor that an evidence's certificates end in is what
makes its claims say ``simulated``. No network, disk or clock; ``trust_files`` reads what this is made of.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from casemate.attestation.claims import Claims
from casemate.attestation.errors import MalformedEvidenceError
from casemate.attestation.evidence import Evidence, Verifier
from casemate.attestation.platforms.intel.collateral import Collateral, CollateralSource, CollateralStore
from casemate.attestation.platforms.intel.verifier import TrustAnchor
from casemate.attestation.platforms.sgx.verifier import SgxVerifier
from casemate.attestation.platforms.snp.body import build_body
from casemate.attestation.platforms.tdx.verifier import TdxVerifier
from casemate.attestation.platforms.tpm.azure import AzureVerifier
from casemate.attestation.trust_errors import EvidenceKindUnknownError, TrustAnchorError

__all__ = ["INTEL_ROOT_KEY_SHA384", "TrustStore", "is_intel_root"]

INTEL_ROOT_KEY_SHA384 = (
    "46e403bd34f05a3f2817ab9badcaacc7ffc98e0f261008cd30dae936cace18d5dcf58eef31463613de1570d516200993"
)
"""SHA-384 of the uncompressed public key point of the Intel SGX Root CA (valid 2018 to 2049).

The certificate itself:
https://certificates.trustedservices.intel.com/Intel_SGX_Provisioning_Certification_RootCA.cer; the address in it,
``IntelSGXRootCA.der``, is that of its revocation list."""


class TrustStore:
    """Verifies evidence of every kind it has anchors for. Immutable but for ``add_collateral``; safe to share.

    ``intel_root`` must be Intel's own (checked by the pinned digest of its key); ``simulator_root`` must not be.
    ``verifiers`` are those of further platforms by the name of their evidence (``snp``, ``tpm``, ``nvidia`` ...).
    Azure's (``az-snp-vtpm``, ``az-tdx-vtpm``) needs no anchors but those of the hardware it is bound to."""

    def __init__(
        self,
        *,
        intel_root: bytes | None = None,
        simulator_root: bytes | None = None,
        collateral: Iterable[Collateral] | CollateralSource = (),
        verifiers: Mapping[str, Verifier] | None = None,
    ) -> None:
        # A source that was given whole (one explicit document) is used as it is.
        self._collateral = CollateralStore(collateral) if isinstance(collateral, Iterable) else collateral
        anchors = []
        if intel_root is not None:
            if not is_intel_root(intel_root):
                raise TrustAnchorError(f"Intel root: expected key SHA-384 {INTEL_ROOT_KEY_SHA384[:16]}…, got another")
            anchors.append(TrustAnchor("Intel SGX Root CA", intel_root, self._collateral, simulated=False))
        if simulator_root is not None:
            if is_intel_root(simulator_root):
                raise TrustAnchorError("simulator root: is Intel's; a real platform and the simulator share no anchor")
            anchors.append(TrustAnchor("SIMULATED root", simulator_root, self._collateral, simulated=True))
        self._verifiers: dict[str, Verifier] = dict(verifiers or {})
        if anchors:
            self._verifiers |= {"sgx": SgxVerifier(anchors), "tdx": TdxVerifier(anchors)}
        azure = AzureVerifier(verify_snp=self._snp_report, verify_tdx=self._td_quote)
        for tee in self._verifiers.keys() & {"snp", "tdx"}:
            self._verifiers.setdefault(f"az-{tee}-vtpm", azure)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The names of evidence that can be verified."""
        return tuple(sorted(self._verifiers))

    def add_collateral(self, collateral: Collateral) -> None:
        """Take in fetched or imported collateral; what is there stays."""
        if not isinstance(self._collateral, CollateralStore):
            raise TrustAnchorError("collateral: this store was built with one explicit document")
        self._collateral.add(collateral)

    def verify(self, evidence: Evidence, *, now: datetime) -> Claims:
        """Claims of genuine evidence; raises a ``RefusedError`` or ``UndecidedError`` naming the step that failed.

        Claims are not acceptance: the caller compares the report data and applies its policy."""
        if now.tzinfo is None:
            raise ValueError("now: need a time with a time zone")
        if not isinstance(evidence.body, Mapping):
            raise MalformedEvidenceError("evidence: need a JSON object")
        verifier = self._verifiers.get(evidence.tee)
        if verifier is None:
            known = ", ".join(self.kinds) or "nothing (no trust anchor)"
            raise EvidenceKindUnknownError(f"evidence: expected one of {known}, got {evidence.tee!r}")
        return verifier.verify(evidence, now=now)

    def _snp_report(self, report: bytes, vek: bytes | None = None, *, now: datetime) -> Claims:
        return self.verify(Evidence("snp", build_body(report, vek)), now=now)

    def _td_quote(self, quote: bytes, *, now: datetime) -> Claims:
        return self.verify(Evidence("tdx", {"quote": base64.b64encode(quote).decode()}), now=now)


def is_intel_root(der: bytes) -> bool:
    """Whether a certificate has the key of the Intel SGX Root CA; raises ``TrustAnchorError`` for what is none."""
    try:
        key = x509.load_der_x509_certificate(der).public_key()
        point = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as exc:
        raise TrustAnchorError(f"trust anchor: not a DER certificate with an EC key ({exc})") from exc
    return hashlib.sha384(point).hexdigest() == INTEL_ROOT_KEY_SHA384
