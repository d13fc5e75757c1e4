"""Why SEV-SNP evidence is not accepted: one class per reason, each with its own code."""

from __future__ import annotations

from casemate.attestation.errors import (
    CollateralExpiredError,
    CollateralMissingError,
    EvidenceSignatureError,
    MalformedEvidenceError,
    UntrustedRootError,
)
from casemate.errors import RefusedError

__all__ = [
    "SnpArkUntrustedError",
    "SnpAskRevokedError",
    "SnpCertificateAlgorithmError",
    "SnpCertificateExpiredError",
    "SnpCertificateMalformedError",
    "SnpCertificateNotYetValidError",
    "SnpCertificateSignatureError",
    "SnpCertificateUsageError",
    "SnpChainMissingError",
    "SnpChipIdMaskedError",
    "SnpChipKeyMaskedError",
    "SnpCriticalExtensionError",
    "SnpCrlExpiredError",
    "SnpCrlIssuerError",
    "SnpCrlMalformedError",
    "SnpCrlMissingError",
    "SnpCrlNotYetValidError",
    "SnpCrlSignatureError",
    "SnpEvidenceMalformedError",
    "SnpExtensionDuplicateError",
    "SnpExtensionMalformedError",
    "SnpExtensionMissingError",
    "SnpHwidMismatchError",
    "SnpIssuerMismatchError",
    "SnpKdsReplyMalformedError",
    "SnpKdsUnavailableError",
    "SnpKdsUnknownChipError",
    "SnpPolicyBitError",
    "SnpProductMismatchError",
    "SnpProductUnknownError",
    "SnpReportReservedError",
    "SnpReportTrailingBytesError",
    "SnpReportTruncatedError",
    "SnpReportVersionError",
    "SnpReportVmplError",
    "SnpSignatureAlgorithmError",
    "SnpSignatureError",
    "SnpSignatureRangeError",
    "SnpSigningKeyError",
    "SnpTcbMismatchError",
    "SnpVekKeyError",
    "SnpVekKindMismatchError",
    "SnpVekMissingError",
    "SnpVekRevokedError",
]

_COLLECT = "Collect the report again with the guest's own tool (configfs-tsm) and pass it on byte for byte."
_OTHER_CERT = "Fetch the certificate for this chip and this reported TCB from AMD's key distribution service."


# -- the evidence and the report ---------------------------------------------------------------------------------------
class SnpEvidenceMalformedError(MalformedEvidenceError):
    """The evidence body is not the JSON object that the ``snp`` evidence type defines."""

    code = "snp-evidence-malformed"
    fix = "Send {attestation_report, cert_chain} as confidential-containers guests do, or {report: base64, cert_chain}."


class SnpReportTruncatedError(MalformedEvidenceError):
    """The attestation report is shorter than the 1184 bytes the firmware writes."""

    code = "snp-report-truncated"
    fix = _COLLECT


class SnpReportTrailingBytesError(MalformedEvidenceError):
    """More than 1184 bytes were given as one attestation report; what follows the report is signed by nobody."""

    code = "snp-report-trailing-bytes"
    fix = _COLLECT


class SnpReportVersionError(MalformedEvidenceError):
    """The attestation report is of a version that this verifier does not know."""

    code = "snp-report-version-unsupported"
    fix = "Versions 2 to 5 are read; for a newer one, upgrade Casemate."


class SnpReportReservedError(MalformedEvidenceError):
    """A field that the ABI reserves for this report version is not zero."""

    code = "snp-report-reserved-not-zero"
    fix = "The report was changed, or comes from firmware newer than this verifier; upgrade Casemate in that case."


class SnpReportVmplError(MalformedEvidenceError):
    """The report names no VM privilege level of a guest (0 to 3): the hypervisor asked for it, not the guest."""

    code = "snp-report-vmpl-invalid"
    fix = "Collect the report inside the guest."


class SnpPolicyBitError(MalformedEvidenceError):
    """Guest policy bit 17, which the ABI says must be one, is zero."""

    code = "snp-policy-bit17-clear"
    fix = _COLLECT


class SnpSignatureAlgorithmError(MalformedEvidenceError):
    """The report names a signature algorithm other than ECDSA P-384 with SHA-384 (1)."""

    code = "snp-signature-algorithm-unsupported"
    fix = _COLLECT


class SnpSigningKeyError(MalformedEvidenceError):
    """The report says that neither a VCEK nor a VLEK signed it."""

    code = "snp-signing-key-unsupported"
    fix = "Ask the host's operator not to mask the chip key, or to load a VLEK; unsigned reports prove nothing."


class SnpSignatureRangeError(EvidenceSignatureError):
    """A half of the report's signature is zero, not below the order of P-384, or wider than 48 bytes."""

    code = "snp-signature-out-of-range"
    fix = _COLLECT


class SnpSignatureError(EvidenceSignatureError):
    """The report's signature does not verify under the endorsement key: changed report, or another signer."""

    code = "snp-signature-invalid"
    fix = "Collect the report again, and take the certificate of the very chip it was made on."


class SnpChipKeyMaskedError(RefusedError):
    """The host masks the chip key, yet the report claims to be signed with it."""

    code = "snp-chip-key-masked"
    fix = "Ask the host's operator to switch MaskChipKey off, or to load a VLEK."


class SnpChipIdMaskedError(RefusedError):
    """The host masks the chip identity, so that the VCEK certificate cannot be tied to the machine."""

    code = "snp-chip-id-masked"
    fix = "Ask the host's operator to switch MaskChipId off, or to load a VLEK."


class SnpProductUnknownError(RefusedError):
    """The processor family and model in the report, or the product in a certificate, is none that AMD signs for."""

    code = "snp-product-unknown"
    fix = "Milan, Genoa (with Bergamo and Siena) and Turin are known; for a newer processor, upgrade Casemate."


class SnpProductMismatchError(RefusedError):
    """Report, endorsement key certificate and chain do not speak of the same processor product."""

    code = "snp-product-mismatch"
    fix = _OTHER_CERT


class SnpTcbMismatchError(RefusedError):
    """The endorsement key was issued for another TCB version than the report's reported TCB."""

    code = "snp-tcb-mismatch"
    fix = _OTHER_CERT


class SnpHwidMismatchError(RefusedError):
    """The VCEK certificate was issued for another chip than the one the report names."""

    code = "snp-hwid-mismatch"
    fix = _OTHER_CERT


class SnpVekKindMismatchError(RefusedError):
    """The report says VCEK and the certificate is a VLEK's, or the other way round."""

    code = "snp-vek-kind-mismatch"
    fix = "Give the certificate of the kind that the report's key information names."


class SnpVekMissingError(CollateralMissingError):
    """No certificate of the endorsement key (VCEK or VLEK) came with the evidence, and none was given."""

    code = "snp-vek-missing"
    fix = "Fetch the VCEK from the URL in the message, or take the VLEK from the guest's certificate table."


# -- certificates ------------------------------------------------------------------------------------------------------
class SnpCertificateMalformedError(MalformedEvidenceError):
    """A certificate is not the strict DER of an X.509 version 3 certificate."""

    code = "snp-certificate-malformed"
    fix = "Fetch the certificate again and pass it on byte for byte."


class SnpExtensionDuplicateError(MalformedEvidenceError):
    """A certificate has the same extension twice, so that two readers may see two values."""

    code = "snp-certificate-extension-duplicate"
    fix = _OTHER_CERT


class SnpExtensionMissingError(MalformedEvidenceError):
    """A certificate lacks an extension that AMD puts into every certificate of its kind."""

    code = "snp-certificate-extension-missing"
    fix = _OTHER_CERT


class SnpExtensionMalformedError(MalformedEvidenceError):
    """The value of an AMD certificate extension is not of the type or size AMD defines."""

    code = "snp-certificate-extension-malformed"
    fix = _OTHER_CERT


class SnpCriticalExtensionError(MalformedEvidenceError):
    """A certificate has a critical extension that this verifier does not know."""

    code = "snp-certificate-extension-critical"
    fix = "Upgrade Casemate; a critical extension must not be ignored."


class SnpCertificateUsageError(RefusedError):
    """A certificate is used for what it was not issued for: an issuer that is no CA, an endorsement key that is one."""

    code = "snp-certificate-usage-wrong"
    fix = "Give AMD's ARK, ASK and ASVK as issuers, and a VCEK or VLEK as endorsement key."


class SnpCertificateAlgorithmError(RefusedError):
    """A certificate or revocation list is signed by another scheme than RSASSA-PSS, SHA-384, 48 bytes of salt."""

    code = "snp-certificate-algorithm-unsupported"
    fix = _OTHER_CERT


class SnpCertificateSignatureError(EvidenceSignatureError):
    """A certificate's signature does not verify under its issuer's key."""

    code = "snp-certificate-signature-invalid"
    fix = _OTHER_CERT


class SnpVekKeyError(RefusedError):
    """The endorsement key is not an elliptic-curve key on P-384."""

    code = "snp-vek-key-unsupported"
    fix = _OTHER_CERT


class SnpArkUntrustedError(UntrustedRootError):
    """The chain's root is not the ARK that is pinned for this product."""

    code = "snp-ark-untrusted"
    fix = "Fetch the chain from AMD; only AMD's pinned roots, or a simulator root added on purpose, are trusted."


class SnpIssuerMismatchError(RefusedError):
    """The endorsement key was not issued by the intermediate for its kind: ASK for a VCEK, ASVK for a VLEK."""

    code = "snp-issuer-mismatch"
    fix = "Give the chain that issued the certificate: KDS /vcek/v1/<product>/cert_chain, /vlek/v1/... for a VLEK."


class SnpChainMissingError(CollateralMissingError):
    """The chain (ARK and ASK or ASVK) of the report's product is not at hand."""

    code = "snp-chain-missing"
    fix = "Fetch or import the chain of the named product from AMD's key distribution service."


class SnpCertificateExpiredError(CollateralExpiredError):
    """A certificate of the chain is past its end of validity."""

    code = "snp-certificate-expired"
    fix = "Fetch a fresh certificate; a VLEK is renewed every year by the cloud provider."


class SnpCertificateNotYetValidError(RefusedError):
    """A certificate of the chain was issued in the future."""

    code = "snp-certificate-not-yet-valid"
    fix = "Set the clock of the verifier; if it is right, the certificate is not AMD's."


# -- revocation --------------------------------------------------------------------------------------------------------
class SnpAskRevokedError(RefusedError):
    """AMD has revoked the intermediate (ASK or ASVK) that vouches for the endorsement key."""

    code = "snp-ask-revoked"
    fix = "Fetch the present chain and endorsement key certificate from AMD."


class SnpVekRevokedError(RefusedError):
    """AMD has revoked the endorsement key that signed the report."""

    code = "snp-vek-revoked"
    fix = "Do not use this machine until its firmware is updated and a new endorsement key is in use."


class SnpCrlMissingError(CollateralMissingError):
    """A revocation list is required, and none for this product is at hand."""

    code = "snp-crl-missing"
    fix = "Fetch or import the revocation list of the named product from AMD's key distribution service."


class SnpCrlExpiredError(CollateralExpiredError):
    """Every revocation list at hand for this product is past its next-update date, or has none."""

    code = "snp-crl-expired"
    fix = "Fetch or import a fresh revocation list of the named product."


class SnpCrlNotYetValidError(RefusedError):
    """A revocation list was issued in the future."""

    code = "snp-crl-not-yet-valid"
    fix = "Set the clock of the verifier; if it is right, the list is not AMD's."


class SnpCrlMalformedError(MalformedEvidenceError):
    """A revocation list cannot be read, or demands understanding of an extension that is unknown here."""

    code = "snp-crl-malformed"
    fix = "Fetch the revocation list again from AMD's key distribution service."


class SnpCrlIssuerError(RefusedError):
    """A revocation list was not issued by the ARK of the product it was given for."""

    code = "snp-crl-issuer-mismatch"
    fix = "Give each product its own revocation list."


class SnpCrlSignatureError(EvidenceSignatureError):
    """A revocation list's signature does not verify under the ARK."""

    code = "snp-crl-signature-invalid"
    fix = "Fetch the revocation list again from AMD's key distribution service."


# -- AMD's key distribution service ------------------------------------------------------------------------------------
class SnpKdsUnavailableError(CollateralMissingError):
    """AMD's key distribution service did not answer the request: rate limit (429), or an error on its side."""

    code = "snp-kds-unavailable"
    fix = "Wait and try again, or import the certificate from a machine that has it; the service limits its callers."


class SnpKdsUnknownChipError(RefusedError):
    """AMD's key distribution service knows no certificate for this chip and TCB (404)."""

    code = "snp-kds-unknown-chip"
    fix = "Check the product, the chip identity and the TCB; a report that was changed leads here as well."


class SnpKdsReplyMalformedError(MalformedEvidenceError):
    """The reply of the key distribution service is not a certificate, chain or list as its interface defines."""

    code = "snp-kds-reply-malformed"
    fix = "Check which server answered; a proxy's error page is the usual cause."
