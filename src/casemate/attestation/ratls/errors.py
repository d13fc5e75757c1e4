"""Why a peer's RA-TLS certificate, or what it proved after the handshake, was not accepted."""

from __future__ import annotations

from casemate.attestation.errors import MalformedEvidenceError, ReportDataMismatchError
from casemate.errors import RefusedError, UndecidedError, UsageError

__all__ = [
    "RatlsCertificateExpiredError",
    "RatlsCertificateMalformedError",
    "RatlsCertificateNotYetValidError",
    "RatlsChannelMismatchError",
    "RatlsClaimsMismatchError",
    "RatlsEvidenceMissingError",
    "RatlsEvidenceUnsupportedError",
    "RatlsExtraMissingError",
    "RatlsHandshakeError",
    "RatlsKeyMismatchError",
    "RatlsNonceMismatchError",
    "RatlsPeerChangedError",
    "RatlsProtocolError",
    "RatlsSelfSignatureError",
]


class RatlsCertificateMalformedError(MalformedEvidenceError):
    """A peer's certificate, or the evidence extension in it, is not of the form RA-TLS defines."""

    code = "ratls-certificate-malformed"
    fix = "Make the peer's certificate again; TCG DICE tagged evidence (2.23.133.5.4.9) and Gramine's form are read."


class RatlsEvidenceMissingError(RefusedError):
    """A peer's certificate carries no evidence, or the peer sent no certificate or no evidence where it must."""

    code = "ratls-evidence-missing"
    fix = "Let the peer make its certificate inside a TEE; an ordinary certificate proves nothing here."


class RatlsCertificateExpiredError(RefusedError):
    """A peer's RA-TLS certificate is past its end."""

    code = "ratls-certificate-expired"
    fix = "Let the peer make a new certificate; if they always expire, compare both clocks."


class RatlsCertificateNotYetValidError(RefusedError):
    """A peer's RA-TLS certificate begins in the future."""

    code = "ratls-certificate-not-yet-valid"
    fix = "Compare the clocks of both machines."


class RatlsSelfSignatureError(RefusedError):
    """A peer's RA-TLS certificate is not signed by its own key, so that anybody could have changed it."""

    code = "ratls-self-signature-invalid"
    fix = "Use the certificate as the TEE made it; certificates issued by an authority are not RA-TLS."


class RatlsKeyMismatchError(ReportDataMismatchError):
    """The evidence in a certificate was made for another key than the certificate's."""

    code = "ratls-key-mismatch"
    fix = "Let the peer make key, evidence and certificate together; evidence taken from elsewhere is good for nothing."


class RatlsClaimsMismatchError(ReportDataMismatchError):
    """The evidence in a certificate does not bind the claims that stand beside it."""

    code = "ratls-claims-mismatch"
    fix = "Let the peer make its certificate again; its claims were changed after the evidence was made."


class RatlsNonceMismatchError(ReportDataMismatchError):
    """The evidence in a certificate was made for another nonce than the one asked for, or for none."""

    code = "ratls-nonce-mismatch"
    fix = "Let the peer make a certificate for the nonce it was given."


class RatlsChannelMismatchError(ReportDataMismatchError):
    """Evidence made after the handshake was made for another connection: somebody relays between two."""

    code = "ratls-channel-mismatch"
    fix = "Connect to the peer itself. If you did, its certificate's key has been stolen: replace it and its machine."


class RatlsPeerChangedError(RefusedError):
    """Evidence made after the handshake is of another TEE or machine than the evidence in the certificate."""

    code = "ratls-peer-changed"
    fix = "Let one TEE hold the certificate's key and answer for the connection."


class RatlsProtocolError(RefusedError):
    """A peer's message about the connection is not of the form it must have."""

    code = "ratls-protocol-malformed"
    fix = "Let both sides bind the connection, with the same version of Casemate."


class RatlsHandshakeError(UndecidedError):
    """A connection ended, or the TLS handshake failed, before the peer was judged."""

    code = "ratls-handshake-failed"
    fix = "See whether the peer runs and speaks TLS 1.3; it may also have refused this side's certificate."


class RatlsEvidenceUnsupportedError(UsageError):
    """This machine's evidence is of a kind that no RA-TLS certificate carries."""

    code = "ratls-evidence-unsupported"
    fix = "Use a TEE of SGX, TDX or SEV-SNP for RA-TLS; other evidence goes to a broker, whose token it earns."


class RatlsExtraMissingError(UsageError):
    """Mutual RA-TLS and binding to the connection need a package that is not installed."""

    code = "ratls-extra-missing"
    fix = "Install it: `pip install 'casemate[ratls]'`."
