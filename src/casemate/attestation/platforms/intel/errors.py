"""Why an Intel quote was not verified: one class per step that can fail, each with its own code."""

from __future__ import annotations

from casemate.attestation.errors import (
    CollateralExpiredError,
    EvidenceSignatureError,
    MalformedEvidenceError,
)
from casemate.errors import RefusedError

__all__ = [
    "AttestationKeyUnboundError",
    "AttestationKeyUnsupportedError",
    "CertificationDataUnsupportedError",
    "CollateralChainError",
    "CollateralMalformedError",
    "CollateralSignerExpiredError",
    "CollateralSignerRevokedError",
    "CollateralTeeMismatchError",
    "CollateralUntrustedError",
    "CrlExpiredError",
    "CrlInvalidError",
    "FmspcMismatchError",
    "NoMatchingTcbLevelError",
    "PckCaRevokedError",
    "PckChainError",
    "PckExpiredError",
    "PckRevokedError",
    "QeAttributesMismatchError",
    "QeDebugError",
    "QeIdentityExpiredError",
    "QeIdentityFutureError",
    "QeIdentityMalformedError",
    "QeIdentitySignatureError",
    "QeMiscselectMismatchError",
    "QeMrsignerMismatchError",
    "QeProductMismatchError",
    "QeReportSignatureError",
    "QeTcbUnknownError",
    "QeVendorUnknownError",
    "QuoteMalformedError",
    "QuoteRefusedError",
    "QuoteSignatureError",
    "QuoteVersionUnsupportedError",
    "ServiceTdError",
    "SgxAttributesError",
    "TcbInfoExpiredError",
    "TcbInfoFutureError",
    "TcbInfoMalformedError",
    "TcbInfoSignatureError",
    "TcbRevokedError",
    "TcbStatusUnknownError",
    "TdAttributesReservedError",
    "TdMigratableError",
    "TdProfilingError",
    "TdxModuleMismatchError",
    "XfamInvalidError",
]


class QuoteMalformedError(MalformedEvidenceError):
    """The quote's bytes do not have the layout that its version defines."""

    code = "quote-malformed"
    fix = "Collect the quote again and send it whole and unchanged."


class QuoteVersionUnsupportedError(MalformedEvidenceError):
    """The quote's version, TEE type or body type is not one this verifier reads (SGX 3; TDX 4 and 5)."""

    code = "quote-version-unsupported"
    fix = "Use a quoting service that makes one of these versions."


class AttestationKeyUnsupportedError(MalformedEvidenceError):
    """The quote is signed with another kind of key than ECDSA P-256."""

    code = "attestation-key-unsupported"
    fix = "Use a quoting enclave with ECDSA P-256 keys (type 2)."


class CertificationDataUnsupportedError(MalformedEvidenceError):
    """The quote names its platform certificate in a way this verifier does not follow."""

    code = "certification-data-unsupported"
    fix = "Configure the quoting service to put the PCK certificate chain (type 5) into the quote."


class QeVendorUnknownError(MalformedEvidenceError):
    """The quote was made by a quoting enclave of another vendor than Intel."""

    code = "qe-vendor-unknown"
    fix = "Use Intel's quoting enclave."


class QuoteSignatureError(EvidenceSignatureError):
    """The quote's signature does not verify under its attestation key: the quote was changed."""

    code = "quote-signature-invalid"
    fix = "Collect the quote again and send it unchanged."


class QeReportSignatureError(EvidenceSignatureError):
    """The quoting enclave's report is not signed by the platform's certificate."""

    code = "qe-report-signature-invalid"
    fix = "Collect the quote again; its parts come from different quotes."


class AttestationKeyUnboundError(EvidenceSignatureError):
    """The quoting enclave's report does not vouch for the key that signed the quote."""

    code = "attestation-key-unbound"
    fix = "Collect the quote again; its parts come from different quotes."


class PckChainError(EvidenceSignatureError):
    """The platform's certificate chain does not verify up to the trusted root."""

    code = "pck-chain-invalid"
    fix = "Collect the quote again; if it persists, register the platform with Intel again."


class PckExpiredError(EvidenceSignatureError):
    """A certificate in the platform's chain is past its date, or not valid yet."""

    code = "pck-certificate-expired"
    fix = "Register the platform again to get a current certificate; compare the clocks."


class PckRevokedError(RefusedError):
    """The platform's certificate is on the revocation list."""

    code = "pck-revoked"
    fix = "Do not use this machine; its keys are known or suspected to have leaked."


class PckCaRevokedError(RefusedError):
    """The authority that certified the platform is on the root's revocation list."""

    code = "pck-ca-revoked"
    fix = "Do not use this machine until it has a certificate of another authority."


class CollateralMalformedError(RefusedError):
    """A piece of collateral is not of the form its format defines."""

    code = "collateral-malformed"
    fix = "Fetch or import the named piece again."


class CollateralUntrustedError(RefusedError):
    """The collateral is signed under another root than the evidence."""

    code = "collateral-untrusted-root"
    fix = "Use the collateral that belongs to the evidence's maker; simulated collateral never judges real evidence."


class CollateralSignerRevokedError(RefusedError):
    """The key that signed the collateral is on the root's revocation list."""

    code = "collateral-signer-revoked"
    fix = "Fetch fresh collateral from its maker."


class CollateralChainError(RefusedError):
    """The certificate chain of the collateral's signer does not verify up to the trusted root."""

    code = "collateral-chain-invalid"
    fix = "Fetch or import the named piece again, with its issuer chain."


class CollateralTeeMismatchError(RefusedError):
    """The collateral is for the other kind of TEE (SGX for TDX, or the reverse)."""

    code = "collateral-tee-mismatch"
    fix = "Import the collateral of this kind of TEE."


class FmspcMismatchError(RefusedError):
    """The collateral is for another family of platforms than the one that made the quote."""

    code = "fmspc-mismatch"
    fix = "Import the collateral for the platform's FMSPC."


class TcbInfoExpiredError(CollateralExpiredError):
    """The TCB info is past its next-update date."""

    code = "tcb-info-expired"
    fix = "Fetch or import fresh TCB info."


class TcbInfoFutureError(RefusedError):
    """The TCB info was issued after the time of verification."""

    code = "tcb-info-from-the-future"
    fix = "Compare the clocks, or use the TCB info of that time."


class TcbInfoSignatureError(RefusedError):
    """The TCB info's signature does not verify."""

    code = "tcb-info-signature-invalid"
    fix = "Fetch or import the TCB info again, byte for byte."


class TcbInfoMalformedError(CollateralMalformedError):
    """The TCB info is not of the form its format defines."""

    code = "tcb-info-malformed"
    fix = "Fetch or import the TCB info again."


class QeIdentityExpiredError(CollateralExpiredError):
    """The quoting enclave's identity is past its next-update date."""

    code = "qe-identity-expired"
    fix = "Fetch or import a fresh quoting enclave identity."


class QeIdentityFutureError(RefusedError):
    """The quoting enclave's identity was issued after the time of verification."""

    code = "qe-identity-from-the-future"
    fix = "Compare the clocks, or use the identity of that time."


class QeIdentitySignatureError(RefusedError):
    """The signature of the quoting enclave's identity does not verify."""

    code = "qe-identity-signature-invalid"
    fix = "Fetch or import the quoting enclave identity again, byte for byte."


class QeIdentityMalformedError(CollateralMalformedError):
    """The quoting enclave's identity is not of the form its format defines."""

    code = "qe-identity-malformed"
    fix = "Fetch or import the quoting enclave identity again."


class CrlExpiredError(CollateralExpiredError):
    """A certificate revocation list is past its next-update date."""

    code = "crl-expired"
    fix = "Fetch or import fresh revocation lists."


class CrlInvalidError(RefusedError):
    """A certificate revocation list does not parse, or was not signed by the authority it speaks for."""

    code = "crl-invalid"
    fix = "Fetch or import the named revocation list again."


class CollateralSignerExpiredError(CollateralExpiredError):
    """The certificate of the collateral's signer is past its date."""

    code = "collateral-signer-expired"
    fix = "Fetch or import fresh collateral with its issuer chain."


class TcbRevokedError(RefusedError):
    """The maker has revoked the TCB level that the platform runs at."""

    code = "tcb-revoked"
    fix = "Update firmware and microcode; until then nothing this platform says can be trusted."


class NoMatchingTcbLevelError(RefusedError):
    """The platform's TCB is below every level that the TCB info lists."""

    code = "no-matching-tcb-level"
    fix = "Update firmware and microcode; pre-production hardware cannot be accepted."


class TcbStatusUnknownError(RefusedError):
    """The TCB info has a status this verifier does not know."""

    code = "tcb-status-unknown"
    fix = "Update Casemate, or fetch the TCB info again."


class QeMrsignerMismatchError(RefusedError):
    """The quoting enclave was signed by another signer than the maker's."""

    code = "qe-mrsigner-mismatch"
    fix = "Use the maker's quoting enclave."


class QeProductMismatchError(RefusedError):
    """The quoting enclave is another product than the maker's."""

    code = "qe-isvprodid-mismatch"
    fix = "Use the maker's quoting enclave for this kind of TEE."


class QeAttributesMismatchError(RefusedError):
    """The quoting enclave runs with other attributes than the maker demands."""

    code = "qe-attributes-mismatch"
    fix = "Use the maker's quoting enclave, unchanged."


class QeMiscselectMismatchError(RefusedError):
    """The quoting enclave runs with other MISCSELECT bits than the maker demands."""

    code = "qe-miscselect-mismatch"
    fix = "Use the maker's quoting enclave, unchanged."


class QeDebugError(RefusedError):
    """The quoting enclave runs in debug mode: its signing key is readable."""

    code = "qe-debug-enabled"
    fix = "Use the maker's quoting enclave, unchanged."


class QeTcbUnknownError(RefusedError):
    """The quoting enclave is older than every level that its identity lists."""

    code = "qe-no-matching-tcb-level"
    fix = "Update the quoting enclave."


class TdxModuleMismatchError(RefusedError):
    """The TDX module is not one that the TCB info describes."""

    code = "tdx-module-mismatch"
    fix = "Update the TDX module; a debug or foreign module cannot be accepted."


class TdAttributesReservedError(RefusedError):
    """The trust domain has attribute bits set that are reserved."""

    code = "td-attributes-reserved"
    fix = "Start the trust domain with defined attributes only."


class TdMigratableError(RefusedError):
    """The trust domain can be migrated, so that its host could move it to another machine."""

    code = "td-migratable"
    fix = "Start the trust domain without migration."


class TdProfilingError(RefusedError):
    """The trust domain can be profiled by its host."""

    code = "td-profiling-enabled"
    fix = "Start the trust domain without profiling attributes."


class ServiceTdError(RefusedError):
    """A service trust domain is bound to this one and can reach into it."""

    code = "service-td-bound"
    fix = "Start the trust domain without a service trust domain."


class XfamInvalidError(RefusedError):
    """The trust domain's XFAM has bits set that are reserved, or lacks those that must be set."""

    code = "xfam-invalid"
    fix = "Start the trust domain with defined XFAM bits only."


class SgxAttributesError(RefusedError):
    """The enclave's attributes are not those of an initialised 64-bit enclave."""

    code = "sgx-attributes-invalid"
    fix = "Collect the quote from a running enclave."


class QuoteRefusedError(RefusedError):
    """The quote verification library refused the quote for a reason this version does not know by name."""

    code = "quote-refused"
    fix = "Read the message; update Casemate if the reason is new."
