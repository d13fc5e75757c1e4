"""Why a broker says no. One class per reason; the code goes to the caller, the explanation to the owner's audit log."""

from __future__ import annotations

from casemate.errors import FailedError, RefusedError, UndecidedError, UsageError

__all__ = [
    "AlreadyInUseError",
    "AuditInconsistentError",
    "BrokerAnswerError",
    "BrokerUnreachableError",
    "ChallengeExpiredError",
    "ChallengeUnknownError",
    "DatasetExistsError",
    "DatasetUnknownError",
    "EntryUnknownError",
    "GrantAccessError",
    "GrantBindingError",
    "GrantConflictError",
    "GrantExhaustedError",
    "GrantExpiredError",
    "GrantMalformedError",
    "GrantMissingError",
    "GrantNotYetValidError",
    "GrantRecipientError",
    "GrantRevokedError",
    "GrantUnknownError",
    "GrantWorkloadError",
    "HostUnknownError",
    "JobWorkloadError",
    "KeyVersionUnknownError",
    "ListenFailedError",
    "NotAttestedError",
    "NotAuthorisedError",
    "OwnerExistsError",
    "OwnerUnknownError",
    "PolicyBusyError",
    "PolicyUnknownError",
    "ProofMissingError",
    "ProofReplayedError",
    "RefusalUnknownError",
    "RequestMalformedError",
    "RequestTooLargeError",
    "ResourceUnknownError",
    "RoleNotEntitledError",
    "RootKeyLockedError",
    "RootKeyMissingError",
    "SessionAppraisalError",
    "StateInUseError",
    "StorageDriverError",
    "StorageUnreachableError",
    "WorkloadDigestError",
    "WorkloadManifestMissingError",
    "WorkloadZoneError",
]


# --- who is asking -------------------------------------------------------------------------------------------------


class ProofMissingError(RefusedError):
    """The request carries no proof of possession (DPoP header) of an identity key."""

    code = "proof-missing"
    http_status = 401
    fix = "Sign the request with the owner's or administrator's key; the casemate client does so by itself."


class ProofReplayedError(RefusedError):
    """The same request proof was used before; somebody may be replaying recorded requests."""

    code = "proof-replayed"
    http_status = 401
    fix = "Make a fresh proof for every request."


class NotAuthorisedError(RefusedError):
    """The key that signed the request is not of somebody who may do this."""

    code = "not-authorised"
    fix = "Use the key of the dataset's owner, or of an administrator where administration is asked for."


class HostUnknownError(RefusedError):
    """The request names a host that this broker does not answer for, so that its proof could be meant for another."""

    code = "host-unknown"
    http_status = 421
    fix = "Use the name the broker was started with, or start it with `--name` for the name in the message."


# --- challenge, evidence, session ----------------------------------------------------------------------------------


class ChallengeUnknownError(RefusedError):
    """The challenge was never given out, or was used already: a replayed attestation."""

    code = "challenge-unknown"
    http_status = 401
    fix = "Ask for a fresh challenge; each is good for one attestation."


class ChallengeExpiredError(RefusedError):
    """The challenge is older than it may be."""

    code = "challenge-expired"
    http_status = 401
    fix = "Ask for a fresh challenge and answer it within five minutes."


class NotAttestedError(RefusedError):
    """The request carries neither a session cookie nor a token of an accepted attestation."""

    code = "not-attested"
    http_status = 401
    fix = "Attest first: /kbs/v0/auth, then /kbs/v0/attest."


class WorkloadDigestError(RefusedError):
    """The workload manifest that was sent is not the one the TEE was launched with."""

    code = "workload-digest-mismatch"
    fix = "Send the very manifest the TEE was launched with, as RFC 8785 JSON."


class JobWorkloadError(RefusedError):
    """The job was begun by another workload; a job belongs to one workload manifest."""

    code = "job-workload-mismatch"
    fix = "Use a fresh job id for another workload."


class RoleNotEntitledError(RefusedError):
    """The role this process attested for is not one that may have what it asks for."""

    code = "role-not-entitled"
    fix = "Only drivers, executors and tasks open datasets, and only members of a job get its secret and certificate."


class WorkloadManifestMissingError(RefusedError):
    """The attestation carried no workload manifest, so that nothing says where the workload reads and writes."""

    code = "workload-manifest-missing"
    fix = "Launch the TEE with a workload manifest as its init-data."


class SessionAppraisalError(RefusedError):
    """The evidence is genuine, but the broker's own default policy refuses it; jobs have accepted members only."""

    code = "appraisal-contraindicated"
    fix = "See the attestation's clauses in the audit log; the platform or the broker's default policy has to change."


# --- grants and release --------------------------------------------------------------------------------------------


class GrantMissingError(RefusedError):
    """No grant of the owner names the dataset."""

    code = "grant-missing"
    fix = "Ask the owner for a grant: `casemate grant create`."


class GrantExpiredError(RefusedError):
    """The grant's not-after time has passed."""

    code = "grant-expired"
    fix = "Ask the owner for a new grant."


class GrantNotYetValidError(RefusedError):
    """The grant's not-before time is still to come."""

    code = "grant-not-yet-valid"
    fix = "Wait until the grant begins, or ask the owner for another; check the clocks."


class GrantRevokedError(RefusedError):
    """The owner revoked the grant."""

    code = "grant-revoked"
    fix = "Ask the owner why, and for a new grant."


class GrantExhaustedError(RefusedError):
    """The grant's maximum number of releases is used up."""

    code = "grant-exhausted"
    fix = "Ask the owner for a new grant."


class GrantWorkloadError(RefusedError):
    """The grant names other workloads than this one: its program, arguments or settings differ from the agreed ones."""

    code = "grant-workload-mismatch"
    fix = "Run exactly what the owner agreed to, or ask for a grant that names this workload's digest."


class GrantAccessError(RefusedError):
    """The workload's manifest asks for more access to the dataset than the grant gives."""

    code = "grant-access-insufficient"
    fix = "Ask for less in the workload's zones, or ask the owner for a grant with that access."


class GrantRecipientError(RefusedError):
    """The workload would write into a dataset that the grant does not name among its recipients."""

    code = "grant-recipient-not-allowed"
    fix = "Write to an allowed recipient only, or ask the owner for a grant that names this one."


class GrantBindingError(RefusedError):
    """The grant wants the workload bound at launch by the hardware, and the evidence has it bound otherwise."""

    code = "grant-binding-insufficient"
    fix = "Launch one TEE per job, or ask the owner for a grant with binding `any`."


class WorkloadZoneError(RefusedError):
    """The workload's own manifest has no zone for this dataset, location or access."""

    code = "workload-zone-missing"
    fix = "Name the dataset in the workload's zones; that changes its digest, so the owner must grant it anew."


class PolicyUnknownError(RefusedError):
    """The appraisal policy that a grant names by digest was never given to the broker."""

    code = "policy-unknown"
    fix = "Upload the policy the grant was made with, byte for byte."


class GrantMalformedError(UsageError):
    """A grant has an unknown member, a value of the wrong type, or grants nothing."""

    code = "grant-malformed"
    fix = "Correct the member that the message names."


class GrantConflictError(UsageError):
    """Another grant with the same id exists; a grant never changes."""

    code = "grant-exists"
    http_status = 409
    fix = "Give the new grant a fresh id."


class GrantUnknownError(UsageError):
    """There is no grant with this id."""

    code = "grant-unknown"
    http_status = 404
    fix = "List the grants: `casemate grant list`."


# --- registry ------------------------------------------------------------------------------------------------------


class OwnerUnknownError(RefusedError):
    """No owner of this name, or with this key, is registered."""

    code = "owner-unknown"
    fix = "An administrator registers owners; `casemate key create` does it on the embedded broker."


class OwnerExistsError(UsageError):
    """The owner's name, or the key, is registered already."""

    code = "owner-exists"
    http_status = 409
    fix = "Choose another name; to act as the existing owner, use its key."


class DatasetUnknownError(RefusedError):
    """The broker holds no key for a dataset of this name."""

    code = "dataset-unknown"
    http_status = 404
    fix = "Check the name, or create its key: `casemate key create OWNER/DATASET`."


class DatasetExistsError(UsageError):
    """The dataset has a key already."""

    code = "dataset-exists"
    http_status = 409
    fix = "Use the existing key, or make a new version of it by rotation."


class KeyVersionUnknownError(RefusedError):
    """The dataset has no key of this version."""

    code = "key-version-unknown"
    http_status = 404
    fix = "Check the version in the file's header; the file may be of another broker."


class ResourceUnknownError(RefusedError):
    """There is no resource at this path."""

    code = "resource-unknown"
    http_status = 404
    fix = "Ask for owner/dataset/version, owner/dataset/current or job/<job id>/secret."


class RefusalUnknownError(UsageError):
    """There is no refusal of this id, or it concerns no dataset of yours."""

    code = "refusal-unknown"
    http_status = 404
    fix = "Copy the id from the refusal; only owners it concerns and administrators may read it."


class EntryUnknownError(UsageError):
    """The audit log has no entry, or no tree, of this index or size."""

    code = "audit-range"
    http_status = 404
    fix = "Ask within the size of the latest checkpoint."


# --- requests and the broker itself --------------------------------------------------------------------------------


class RequestMalformedError(UsageError):
    """The request is not of the form that the protocol defines."""

    code = "request-malformed"
    fix = "Correct what the message names; the OpenAPI description is at /v1/openapi.json."


class RequestTooLargeError(UsageError):
    """The request's body is larger than the broker reads."""

    code = "request-too-large"
    http_status = 413
    fix = "Evidence and manifests are far smaller than the limit; check what was sent."


class RootKeyLockedError(RefusedError):
    """The root key does not open: the passphrase is wrong, or its file was changed."""

    code = "root-key-locked"
    fix = "Give the passphrase the broker was set up with, or restore root.key.json from a backup."


class RootKeyMissingError(FailedError):
    """The broker has data but no root key; nothing it holds can be opened, and a new root key would not help."""

    code = "root-key-missing"
    fix = "Restore root.key.json (and its passphrase) from a backup."


class StateInUseError(FailedError):
    """Another broker runs on this state directory."""

    code = "state-in-use"
    fix = "Stop the other broker, or use another state directory."


class ListenFailedError(FailedError):
    """The broker cannot listen on its address, most often because the port is taken."""

    code = "listen-failed"
    fix = "Stop what uses the port, or choose another with `--port`."


class AuditInconsistentError(RefusedError):
    """The audit log is not what its signed checkpoints describe: edited, cut, reordered, forked or rolled back."""

    code = "audit-inconsistent"
    http_status = 500
    fix = "Restore the broker's database from a good copy and find out who changed it; do not trust this log."


class AlreadyInUseError(UsageError):
    """The same thing was created meanwhile by another request."""

    code = "conflict"
    http_status = 409
    fix = "Look at what exists now and try again."


class BrokerAnswerError(FailedError):
    """What answered is not a broker of this version: the answer has another form."""

    code = "broker-answer-invalid"
    fix = "Check that the address in config.json is the broker's, and that both sides are of matching versions."


class BrokerUnreachableError(UndecidedError):
    """The broker did not answer: it is not running, or the network or its certificate is in the way."""

    code = "broker-unreachable"
    fix = "Start the broker (`casemate up`) or check its address and CA, then try again."


class PolicyBusyError(UndecidedError):
    """Too many requests wait for the Rego policies of one owner, or these take too long together."""

    code = "policy-busy"
    fix = "Try again; if it stays so, ask the data's owner to simplify the policies of their grants."


class StorageUnreachableError(UndecidedError):
    """The broker's database did not answer, or went away in the middle; what was asked for may or may not be done."""

    code = "storage-unreachable"
    fix = "Try again; whoever runs the broker looks at its database and at its log."


class StorageDriverError(UsageError):
    """The broker's database URL names a database that it cannot use, or cannot use as it stands there."""

    code = "storage-url"
    fix = "Use SQLite, or `postgresql://` with `pip install 'casemate[postgres]'`; passwords belong into PGPASSFILE."
