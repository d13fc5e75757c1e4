"""Why GPU evidence was refused: one class, and one code, for each reason."""

from __future__ import annotations

from casemate.attestation.errors import (
    CollateralExpiredError,
    EvidenceSignatureError,
    MalformedEvidenceError,
    ReportDataMismatchError,
    UntrustedRootError,
)
from casemate.errors import RefusedError

__all__ = [
    "GpuArchitectureError",
    "GpuCertificateError",
    "GpuCertificateExpiredError",
    "GpuCertificateRevokedError",
    "GpuCertificateUntrustedError",
    "GpuCrlExpiredError",
    "GpuEvidenceMalformedError",
    "GpuFirmwareIdError",
    "GpuMeasurementError",
    "GpuNonceMismatchError",
    "GpuOpaqueDataError",
    "GpuOversizedError",
    "GpuSignatureError",
    "GpuSpdmMessageError",
    "GpuTrailingBytesError",
    "GpuTruncatedError",
]


class GpuEvidenceMalformedError(MalformedEvidenceError):
    """The GPU evidence is not a list of devices, each with a report and a certificate chain."""

    code = "gpu-evidence-malformed"
    fix = "Send `device_evidence_list` with `arch`, `evidence` and `certificate` for each device."


class GpuTruncatedError(MalformedEvidenceError):
    """A GPU attestation report ends in the middle of a field."""

    code = "gpu-truncated"
    fix = "Collect the report again and pass it on whole."


class GpuOversizedError(MalformedEvidenceError):
    """A GPU attestation report, or the number of devices, is larger than any real machine's."""

    code = "gpu-oversized"
    fix = "Collect the report again; a real one has some 4000 bytes."


class GpuTrailingBytesError(MalformedEvidenceError):
    """Bytes follow the end of a GPU attestation report or of a field in it."""

    code = "gpu-trailing-bytes"
    fix = "Send the report alone, without padding."


class GpuSpdmMessageError(MalformedEvidenceError):
    """The report is not a signed SPDM 1.1 GET_MEASUREMENTS request with its MEASUREMENTS response."""

    code = "gpu-spdm-message"
    fix = "Collect the report with the driver's attestation call; it asks for all measurements, signed."


class GpuMeasurementError(MalformedEvidenceError):
    """The measurement record does not hold the blocks it says it holds, each once and of the DMTF form."""

    code = "gpu-measurement-malformed"
    fix = "Collect the report again; if it is fresh, the driver is of a version this verifier does not read."


class GpuOpaqueDataError(MalformedEvidenceError):
    """The device's own data at the end of the report (driver version, board, firmware id ...) is not of the known
    form."""

    code = "gpu-opaque-data"
    fix = "Collect the report again; if it is fresh, the driver is of a version this verifier does not read."


class GpuSignatureError(EvidenceSignatureError):
    """The report's signature does not verify under the device certificate's key."""

    code = "gpu-signature-invalid"
    fix = "Send the report together with the chain of the same device, unchanged."


class GpuNonceMismatchError(ReportDataMismatchError):
    """The report is genuine, but it answers another challenge than the CPU's evidence does."""

    code = "gpu-nonce-mismatch"
    fix = "Ask every device with the first 32 bytes of the device report data of this session."


class GpuCertificateError(MalformedEvidenceError):
    """The device's certificate, or one above it, is unreadable, wrongly signed, or not made for its use."""

    code = "gpu-certificate-invalid"
    fix = "Send the whole chain as the driver gives it, the device's own certificate first."


class GpuCertificateExpiredError(RefusedError):
    """A certificate on the device's path is expired or not yet valid."""

    code = "gpu-certificate-expired"
    fix = "Check the time given to the verifier; NVIDIA's device certificates do not expire."


class GpuCertificateUntrustedError(UntrustedRootError):
    """The device's certificate path does not reach NVIDIA's device root: a link is missing, or it is another root."""

    code = "gpu-certificate-untrusted"
    fix = "Send the whole chain as the driver gives it."


class GpuCertificateRevokedError(RefusedError):
    """A certificate on the device's path was revoked by NVIDIA."""

    code = "gpu-certificate-revoked"
    fix = "Update the device's firmware, or replace the device."


class GpuCrlExpiredError(CollateralExpiredError):
    """A CRL that speaks of the device's path is past its next update."""

    code = "gpu-crl-expired"
    fix = "Fetch NVIDIA's current CRL and try again."


class GpuFirmwareIdError(RefusedError):
    """The firmware id in the report is not the one that the device's certificate was issued for."""

    code = "gpu-firmware-id"
    fix = "Reset the GPU so that its firmware makes a fresh certificate, and collect the evidence again."


class GpuArchitectureError(RefusedError):
    """The device's architecture is unknown, or not the one its certificate names."""

    code = "gpu-architecture"
    fix = "State HOPPER or BLACKWELL, as the device's certificate does."
