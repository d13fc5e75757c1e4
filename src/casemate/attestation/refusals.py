"""One class per reason for which a policy clause does not hold: its ``code`` is what callers, logs and tests see."""

from __future__ import annotations

from casemate.attestation.errors import AppraisalRefusedError, CollateralExpiredError

__all__ = [
    "ATTRIBUTE_REASONS",
    "AdvisoryNotAcceptedError",
    "AttributeNotAcceptedError",
    "ClaimMismatchError",
    "ClaimsCollateralExpiredError",
    "CollateralExpiresSoonError",
    "CollateralTooOldError",
    "DebugEnabledError",
    "EinittokenKeyError",
    "ExcludedEvidenceError",
    "KeyLockerEnabledError",
    "MeasurementMismatchError",
    "NoAlternativeHoldsError",
    "PerfmonEnabledError",
    "PksEnabledError",
    "PlatformIdNotAllowedError",
    "PlatformNotAcceptedError",
    "ProductIdMismatchError",
    "ProvisionKeyError",
    "RtmrMismatchError",
    "SeptVeEnabledError",
    "SignerMismatchError",
    "SimulatedEvidenceError",
    "SvnTooLowError",
    "TcbBelowFloorError",
    "TcbEvaluationNumberTooLowError",
    "TcbStatusNotAcceptedError",
    "VmplNotAcceptedError",
    "WorkloadBindingMismatchError",
    "WorkloadMismatchError",
]


class PlatformNotAcceptedError(AppraisalRefusedError):
    """The evidence comes from a kind of platform that the policy does not name."""

    code = "platform-not-accepted"
    fix = "Run on a platform that `platforms` names, or add this one to it."


class SimulatedEvidenceError(AppraisalRefusedError):
    """The evidence was made by the simulator, which protects nothing."""

    code = "simulated-evidence"
    fix = "Run on real hardware; for trials only, set `allow_simulated: true` in the policy."


class DebugEnabledError(AppraisalRefusedError):
    """The TEE runs in debug mode: its host can read its memory."""

    code = "debug-enabled"
    fix = "Start the TEE without debug; for trials only, set `insecure_allow_debug: true` in the policy."


class AttributeNotAcceptedError(AppraisalRefusedError):
    """The TEE was started with an attribute (for example `perfmon`) that widens what its host or guest can reach."""

    code = "attribute-not-accepted"
    fix = "Start the TEE without the named attribute, or name it in `allow_attributes`."


class PksEnabledError(AttributeNotAcceptedError):
    """The trust domain may use supervisor protection keys, which the policy does not accept."""

    code = "pks-enabled"
    fix = "Start the TEE without it, or name `pks` in `allow_attributes`."


class KeyLockerEnabledError(AttributeNotAcceptedError):
    """The trust domain may use Key Locker, whose state its host can influence."""

    code = "key-locker-enabled"
    fix = "Start the TEE without it, or name `key-locker` in `allow_attributes`."


class PerfmonEnabledError(AttributeNotAcceptedError):
    """The trust domain may use performance counters, a side channel between it and its neighbours."""

    code = "perfmon-enabled"
    fix = "Start the TEE without it, or name `perfmon` in `allow_attributes`."


class SeptVeEnabledError(AttributeNotAcceptedError):
    """The host can inject exceptions into the trust domain by removing pages (SEPT_VE_DISABLE is clear)."""

    code = "sept-ve-not-disabled"
    fix = "Start the TEE without it, or name `sept-ve` in `allow_attributes`."


class ProvisionKeyError(AttributeNotAcceptedError):
    """The enclave may derive the platform's provisioning key, a right of the platform's own enclaves."""

    code = "provision-key-allowed"
    fix = "Start the TEE without it, or name `provision-key` in `allow_attributes`."


class EinittokenKeyError(AttributeNotAcceptedError):
    """The enclave may derive the launch key, a right of launch enclaves only."""

    code = "einittoken-key-allowed"
    fix = "Start the TEE without it, or name `einittoken-key` in `allow_attributes`."


class MeasurementMismatchError(AppraisalRefusedError):
    """The measurement of what was started (MRTD, MRENCLAVE, launch digest) is not one the policy names."""

    code = "measurement-mismatch"
    fix = "Start the agreed image, or add this measurement to `measurements` after checking what changed."


class SignerMismatchError(AppraisalRefusedError):
    """The signer of the started image is not one the policy names."""

    code = "signer-mismatch"
    fix = "Use an image signed by an agreed signer, or add this signer to `signers`."


class ProductIdMismatchError(AppraisalRefusedError):
    """The product number of the started image is not one the policy names."""

    code = "product-id-mismatch"
    fix = "Use the agreed product, or add its number to `product_ids`."


class SvnTooLowError(AppraisalRefusedError):
    """The security version of the started image is lower than the policy demands."""

    code = "svn-too-low"
    fix = "Update the image, or lower `min_svn`."


class RtmrMismatchError(AppraisalRefusedError):
    """A run-time measurement register has a value that the policy does not name."""

    code = "rtmr-mismatch"
    fix = "Boot the agreed firmware, kernel and command line; the event log shows what was measured."


class WorkloadMismatchError(AppraisalRefusedError):
    """The TEE was launched for another workload than those the policy names."""

    code = "workload-mismatch"
    fix = "Submit the agreed workload unchanged, or add its digest (`casemate workload show`) to `workloads`."


class WorkloadBindingMismatchError(AppraisalRefusedError):
    """The workload digest is not bound to the evidence in the way the policy demands."""

    code = "workload-binding-mismatch"
    fix = "Launch one TEE per job, or relax `workload_binding`."


class TcbStatusNotAcceptedError(AppraisalRefusedError):
    """The maker does not call the platform's trusted computing base up to date."""

    code = "tcb-status-not-accepted"
    fix = "Update firmware and microcode of the machine, or name the status in `tcb.statuses`."


class AdvisoryNotAcceptedError(AppraisalRefusedError):
    """A security advisory applies to the platform that the policy does not tolerate."""

    code = "advisory-not-accepted"
    fix = "Update the machine, or change `tcb.advisories` after reading the advisory."


class TcbBelowFloorError(AppraisalRefusedError):
    """A component of the trusted computing base has a lower security version than the policy's floor."""

    code = "tcb-below-floor"
    fix = "Update the firmware of the machine, or lower `tcb.floors`."


class TcbEvaluationNumberTooLowError(AppraisalRefusedError):
    """The platform was judged by older TCB information than the policy demands."""

    code = "tcb-evaluation-number-too-low"
    fix = "Fetch newer collateral, or lower `tcb.min_evaluation_number`."


class ClaimsCollateralExpiredError(CollateralExpiredError):
    """The collateral behind stored claims has expired since they were made, so that they say nothing any more."""

    code = "claims-collateral-expired"
    fix = "Attest again with fresh collateral."


class CollateralTooOldError(AppraisalRefusedError):
    """The collateral was issued longer ago than the policy allows."""

    code = "collateral-too-old"
    fix = "Fetch newer collateral, or raise `collateral.max_age_days`."


class CollateralExpiresSoonError(AppraisalRefusedError):
    """The collateral expires sooner than the policy allows."""

    code = "collateral-expires-soon"
    fix = "Fetch newer collateral, or lower `collateral.min_remaining_hours`."


class PlatformIdNotAllowedError(AppraisalRefusedError):
    """The machine (PIID, PPID, CHIP_ID) is not on the policy's allow-list, or does not say which it is."""

    code = "platform-id-not-allowed"
    fix = "Run on a listed machine, or add this one to `platform_ids`."


class VmplNotAcceptedError(AppraisalRefusedError):
    """The evidence was requested from a virtual machine privilege level that the policy does not accept."""

    code = "vmpl-not-accepted"
    fix = "Request the report from a level that `vmpls` names."


class ClaimMismatchError(AppraisalRefusedError):
    """A platform-specific claim does not have the value the policy demands."""

    code = "claim-mismatch"
    fix = "Compare expected and got; change the platform's configuration or `extra`."


class NoAlternativeHoldsError(AppraisalRefusedError):
    """None of the alternatives under `any` holds."""

    code = "no-alternative-holds"
    fix = "Make one of the alternatives hold; `parts` explains each."


class ExcludedEvidenceError(AppraisalRefusedError):
    """The evidence has all the properties that the policy excludes under `not`."""

    code = "excluded-evidence"
    fix = "Change the platform so that one of the excluded properties does not hold."


ATTRIBUTE_REASONS: dict[str, type[AttributeNotAcceptedError]] = {
    "pks": PksEnabledError,
    "key-locker": KeyLockerEnabledError,
    "perfmon": PerfmonEnabledError,
    "sept-ve": SeptVeEnabledError,
    "provision-key": ProvisionKeyError,
    "einittoken-key": EinittokenKeyError,
}
"""The reason for each attribute that a policy has to allow by name; others give ``AttributeNotAcceptedError``."""
