"""Why TPM evidence was refused: one class, and one code, for each reason."""

from __future__ import annotations

from casemate.attestation.errors import (
    CollateralExpiredError,
    EvidenceSignatureError,
    MalformedEvidenceError,
    ReportDataMismatchError,
    UntrustedRootError,
)
from casemate.errors import RefusedError, UndecidedError

__all__ = [
    "TpmAkCertificateError",
    "TpmAkCertificateExpiredError",
    "TpmAkCertificateRevokedError",
    "TpmAkCertificateUntrustedError",
    "TpmAkUntrustedError",
    "TpmAttestTypeError",
    "TpmCredentialError",
    "TpmCrlExpiredError",
    "TpmEkCertificateError",
    "TpmEkCertificateMissingError",
    "TpmEkCertificateUntrustedError",
    "TpmEnrolmentUnknownError",
    "TpmEvidenceMalformedError",
    "TpmHashUnsupportedError",
    "TpmHclBindingError",
    "TpmHclKeyMissingError",
    "TpmHclMalformedError",
    "TpmHclReportTypeError",
    "TpmHclUserDataError",
    "TpmKeyAttributesError",
    "TpmKeyMismatchError",
    "TpmKeyUnsupportedError",
    "TpmMagicError",
    "TpmNonceMismatchError",
    "TpmOversizedError",
    "TpmPcrBankError",
    "TpmPcrDigestMismatchError",
    "TpmPcrMissingError",
    "TpmPcrNotQuotedError",
    "TpmPcrRequiredError",
    "TpmPcrSelectionError",
    "TpmPcrSizeError",
    "TpmQuotesInconsistentError",
    "TpmSchemeUnsupportedError",
    "TpmSignatureError",
    "TpmTrailingBytesError",
    "TpmTruncatedError",
    "TpmUnavailableError",
    "TpmWorkloadMismatchError",
    "TpmWorkloadMissingError",
    "TpmWorkloadRegisterUsedError",
    "TpmWorkloadRepeatedError",
]


class TpmEvidenceMalformedError(MalformedEvidenceError):
    """The TPM evidence is not the JSON object it should be: a member is missing, unknown in kind, or badly encoded."""

    code = "tpm-evidence-malformed"
    fix = "Send the evidence as the attester made it: quote message, signature, PCR values and attestation key."


class TpmTruncatedError(MalformedEvidenceError):
    """A TPM structure ends in the middle of a field."""

    code = "tpm-truncated"
    fix = "Collect the quote again and pass it on whole."


class TpmOversizedError(MalformedEvidenceError):
    """A TPM structure, or a length in it, is larger than the TPM 2.0 specification allows."""

    code = "tpm-oversized"
    fix = "Collect the quote again; no TPM makes fields of this size."


class TpmTrailingBytesError(MalformedEvidenceError):
    """Bytes follow the end of a TPM structure; they are not part of what was signed or meant."""

    code = "tpm-trailing-bytes"
    fix = "Send the structure alone, without padding or framing."


class TpmMagicError(MalformedEvidenceError):
    """The signed structure does not start with TPM_GENERATED, so the TPM did not make it: it only signed it."""

    code = "tpm-magic-wrong"
    fix = "Quote with a restricted key inside the TPM; signatures over foreign data prove nothing."


class TpmAttestTypeError(MalformedEvidenceError):
    """The TPM made the structure, but it is not a quote (a certified key, an audit digest, a time ...)."""

    code = "tpm-attest-type-wrong"
    fix = "Send the result of TPM2_Quote."


class TpmHashUnsupportedError(MalformedEvidenceError):
    """A hash algorithm that is unknown here, or too weak to sign with (SHA-1)."""

    code = "tpm-hash-unsupported"
    fix = "Quote SHA-256, SHA-384 or SHA-512 banks, signed with SHA-256 or better."


class TpmSchemeUnsupportedError(MalformedEvidenceError):
    """The signature scheme is none of RSASSA, RSAPSS and ECDSA."""

    code = "tpm-scheme-unsupported"
    fix = "Use an attestation key with one of these schemes."


class TpmKeyUnsupportedError(MalformedEvidenceError):
    """The attestation key is of a type, curve or size that is not accepted, or does not fit the signature's scheme."""

    code = "tpm-key-unsupported"
    fix = "Use an RSA key of at least 2048 bits, or ECC on P-256, P-384 or P-521."


class TpmKeyAttributesError(RefusedError):
    """The attestation key is not a restricted signing key bound to its TPM, so it could have signed a forged quote."""

    code = "tpm-key-attributes"
    fix = "Create the key as fixedTPM, fixedParent, sensitiveDataOrigin, restricted and sign, not decrypt."


class TpmKeyMismatchError(RefusedError):
    """The evidence names one attestation key in two places, and they differ."""

    code = "tpm-key-mismatch"
    fix = "Send the certificate that was issued for the key that signed the quote."


class TpmSignatureError(EvidenceSignatureError):
    """The quote's signature does not verify under the attestation key."""

    code = "tpm-signature-invalid"
    fix = "Collect the quote again; it was changed, or another key signed it."


class TpmNonceMismatchError(ReportDataMismatchError):
    """The quote is genuine, but it answers another challenge: a replay, or a quote made for somebody else."""

    code = "tpm-nonce-mismatch"
    fix = "Quote again with the fresh challenge as qualifying data."


class TpmPcrBankError(RefusedError):
    """The PCR bank stated is not the one quoted, or only a SHA-1 bank was quoted."""

    code = "tpm-pcr-bank"
    fix = "Quote the SHA-256 or SHA-384 bank and state that bank."


class TpmPcrSelectionError(MalformedEvidenceError):
    """The quote's PCR selection is empty, selects a bank twice, or names PCRs that do not exist."""

    code = "tpm-pcr-selection"
    fix = "Quote at least one PCR of one bank."


class TpmPcrSizeError(MalformedEvidenceError):
    """A PCR value does not have the size of its bank's digest."""

    code = "tpm-pcr-size"
    fix = "Send each PCR's full value in the quoted bank."


class TpmPcrMissingError(RefusedError):
    """The quote selects a PCR whose value was not sent along."""

    code = "tpm-pcr-missing"
    fix = "Send the value of every PCR in the quote's selection."


class TpmPcrNotQuotedError(RefusedError):
    """A PCR value was sent that the quote does not cover; nothing vouches for it."""

    code = "tpm-pcr-not-quoted"
    fix = "Send only the PCRs of the quote's selection, or quote them all."


class TpmPcrRequiredError(RefusedError):
    """The quote is sound but leaves out a PCR that this verifier was told to demand."""

    code = "tpm-pcr-required"
    fix = "Quote all PCRs that the message names."


class TpmPcrDigestMismatchError(RefusedError):
    """The PCR values sent along do not hash to the digest in the signed quote."""

    code = "tpm-pcr-digest-mismatch"
    fix = "Read the PCRs and quote again; a PCR was changed in transit, or extended between reading and quoting."


class TpmQuotesInconsistentError(RefusedError):
    """Several quotes were sent as one piece of evidence, but they come from different boots, keys or challenges."""

    code = "tpm-quotes-inconsistent"
    fix = "Quote all banks in one go, with one key and one challenge."


class TpmAkUntrustedError(RefusedError):
    """Nothing vouches for the attestation key: it has no certificate and is on no allow-list. Anybody can make such a
    key."""

    code = "tpm-ak-untrusted"
    fix = "Add the key to the allow-list after checking whose TPM it is in, or send its certificate."


class TpmAkCertificateError(MalformedEvidenceError):
    """The attestation key's certificate, or one above it, is unreadable, wrongly signed, or not made for its use."""

    code = "tpm-ak-certificate-invalid"
    fix = "Send the certificate and intermediates that the TPM's maker or cloud issued."


class TpmAkCertificateExpiredError(RefusedError):
    """A certificate on the attestation key's path is expired or not yet valid."""

    code = "tpm-ak-certificate-expired"
    fix = "Have the certificate renewed; if it is valid today, check the time given to the verifier."


class TpmAkCertificateUntrustedError(UntrustedRootError):
    """The attestation key's certificate path ends in a root that is not trusted, or an intermediate is missing."""

    code = "tpm-ak-certificate-untrusted"
    fix = "Add the missing intermediate, or, after checking it, the root."


class TpmAkCertificateRevokedError(RefusedError):
    """A certificate on the attestation key's path was revoked by its issuer."""

    code = "tpm-ak-certificate-revoked"
    fix = "Do not use this machine until its operator says why the certificate was revoked."


class TpmCrlExpiredError(CollateralExpiredError):
    """A CRL that speaks of the attestation key's path is past its next update."""

    code = "tpm-crl-expired"
    fix = "Fetch the issuer's current CRL and try again."


class TpmWorkloadMismatchError(RefusedError):
    """PCR 8 holds another workload than the one that was stated, or more than one."""

    code = "tpm-workload-mismatch"
    fix = "Start the workload from a fresh boot and extend PCR 8 with its digest and nothing else."


class TpmWorkloadMissingError(RefusedError):
    """PCR 8 is still zero although a workload was stated: the TPM was reset since, or nobody measured the workload."""

    code = "tpm-workload-missing"
    fix = "Launch the workload again; `casemate run` extends PCR 8 with its digest before it attests."


class TpmWorkloadRepeatedError(RefusedError):
    """PCR 8 was extended twice with the stated workload, so that something began anew in the same boot."""

    code = "tpm-workload-repeated"
    fix = "Restart the machine, so that PCR 8 is zero, and launch the workload once."


class TpmWorkloadRegisterUsedError(RefusedError):
    """PCR 8 of this machine's TPM already holds another workload; it can only be extended, never set back."""

    code = "tpm-workload-register-used"
    fix = "Restart the machine, so that PCR 8 is zero: a TPM vouches for one workload a boot."


class TpmEkCertificateMissingError(UndecidedError):
    """The TPM has no certificate of its maker for the RSA endorsement key, or it cannot be read."""

    code = "tpm-ek-certificate-missing"
    fix = "Get the certificate from the TPM's maker and give it with --ek-certificate."


class TpmEkCertificateError(RefusedError):
    """The endorsement key's certificate is for another key, of no endorsement key, unreadable, expired or revoked."""

    code = "tpm-ek-certificate-invalid"
    fix = "Read the certificate from this TPM again; one from another TPM says nothing about it."


class TpmEkCertificateUntrustedError(UntrustedRootError):
    """The endorsement key's certificate does not end in an authority that was named for it."""

    code = "tpm-ek-certificate-untrusted"
    fix = "Name the maker's root with --ek-ca, and what lies between with --certs."


class TpmEnrolmentUnknownError(RefusedError):
    """An answer belongs to no challenge that is waiting here: it was used, it is too old, or it was made elsewhere."""

    code = "tpm-enrolment-unknown"
    fix = "Make a new challenge with `casemate tpm challenge`; it is good for a day and for one answer."


class TpmHclMalformedError(MalformedEvidenceError):
    """The Azure HCL report is not of the known form."""

    code = "tpm-hcl-malformed"
    fix = "Read the report from the vTPM's NV index again and pass it on whole."


class TpmHclReportTypeError(RefusedError):
    """The Azure HCL report is for another kind of TEE than the evidence says, or its hardware report is missing."""

    code = "tpm-hcl-report-type"
    fix = "Send az-snp-vtpm evidence from SEV-SNP machines and az-tdx-vtpm evidence from TDX machines."


class TpmHclBindingError(RefusedError):
    """The hardware report does not contain the hash of the HCL claims, so nothing binds the vTPM's key to the TEE."""

    code = "tpm-hcl-binding"
    fix = "Send the HCL report and hardware quote that belong together, unchanged."


class TpmHclKeyMissingError(RefusedError):
    """The HCL claims hold no usable attestation key named HCLAkPub, or more than one."""

    code = "tpm-hcl-key-missing"
    fix = "Read the HCL report again; every Azure confidential VM has exactly one."


class TpmHclUserDataError(ReportDataMismatchError):
    """Evidence of version 2 binds the challenge into the HCL claims too, and there it is another one than in the
    quote."""

    code = "tpm-hcl-user-data"
    fix = "Write the challenge to the vTPM's user-data index before reading the HCL report."


class TpmCredentialError(RefusedError):
    """A credential does not open: it was made for another endorsement key, another attestation key, or was changed."""

    code = "tpm-credential"
    fix = "Make the credential for this TPM's endorsement key and for the attestation key that is loaded in it."


class TpmUnavailableError(UndecidedError):
    """There is no TPM to quote with, it does not answer, or its Python binding is not installed."""

    code = "tpm-unavailable"
    fix = "Install the `tpm` extra and check that the TPM device or socket can be opened."
