"""What can be wrong with an encrypted file, a zone or a dataset's manifest. Every message names the file."""

from __future__ import annotations

from casemate.errors import FailedError, RefusedError, UndecidedError, UsageError

__all__ = [
    "AgentUnreachableError",
    "ArrowMissingError",
    "BigDLKeyError",
    "BigDLMalformedError",
    "BigDLTamperedError",
    "ColumnDeniedError",
    "ColumnMissingError",
    "DestinationExistsError",
    "FileMalformedError",
    "FileTamperedError",
    "FileTruncatedError",
    "FileWrongDatasetError",
    "IntegrityError",
    "KeyDeniedError",
    "ManifestFileForeignError",
    "ManifestFileMissingError",
    "ManifestFileSwappedError",
    "ManifestMissingError",
    "ManifestRolledBackError",
    "ManifestTamperedError",
    "ObjectStoreMissingError",
    "OutsideZonesError",
    "SourceChangedError",
    "SourceMissingError",
    "StorageFailedError",
    "UnsupportedOperationError",
    "ZoneAccessError",
]


class IntegrityError(RefusedError):
    """Stored data is not what was written and committed. One of its sub-codes says how."""

    code = "integrity"
    fix = "Restore the named file from a good copy; whoever can write to the storage has changed it."


class FileMalformedError(IntegrityError):
    """The file does not begin with an encrypted file's preamble, or a field of it is not as it must be."""

    code = "file-malformed"
    fix = "Put only encrypted files into a zone (`casemate encrypt`); if this one was encrypted, restore a good copy."


class FileTamperedError(IntegrityError):
    """A part of the file does not authenticate: it was changed, moved, cut or extended after it was written."""

    code = "file-tampered"
    fix = "Restore the named file from a good copy; its bytes were changed after it was written."


class FileTruncatedError(IntegrityError):
    """The file ends before its last segment: it was cut short, or its writer never finished."""

    code = "file-truncated"
    fix = "Restore the named file from a good copy, or write it again if its writer was interrupted."


class FileWrongDatasetError(IntegrityError):
    """The file is encrypted for another dataset than the zone or command names."""

    code = "file-wrong-dataset"
    fix = "Name the dataset the file was encrypted for, or move the file to its own dataset's zone."


class KeyDeniedError(RefusedError):
    """The dataset key was not given: no grant names this dataset and access, or the key version does not exist."""

    code = "key-denied"
    fix = "Ask the data owner for a grant that names the dataset, or check the dataset's name and key version."


class ColumnDeniedError(KeyDeniedError):
    """A column of a Parquet file is encrypted under a dataset whose key was not given; other columns can be read."""

    code = "column-denied"
    fix = "Leave the column out, or name its dataset in the job and ask its owner for a grant that does."


class ColumnMissingError(RefusedError):
    """A Parquet file to be written lacks a column that has a key of its own; it may be there under another name."""

    code = "column-missing"
    http_status = 422
    fix = "Name the column as the file does, or write files without it to a zone that has no key for it."


class OutsideZonesError(RefusedError):
    """A write would have put plaintext outside every zone, which the workload's `plaintext_output: deny` forbids."""

    code = "outside-zones"
    fix = "Write below one of the job's write zones, or add a zone for the path with `--write DATASET=PATH`."


class ZoneAccessError(RefusedError):
    """The path lies in a zone that does not allow this: a write to a read zone, a link out of it, and so on."""

    code = "zone-access-denied"
    fix = "Use a path that the zone's access mode covers, or ask for the access in the job and in the grant."


class UnsupportedOperationError(RefusedError):
    """This file operation cannot be done on encrypted files without handing out ciphertext or writing plaintext."""

    code = "operation-unsupported"
    http_status = 405
    fix = "Read the file and write a new one; encrypted files cannot be changed in place."


class ManifestMissingError(IntegrityError):
    """The dataset's manifest is not there, or nothing was ever committed at a place that is only read."""

    code = "manifest-missing"
    fix = "Restore `_casemate/`, or commit the data again with `casemate encrypt`."


class ManifestTamperedError(IntegrityError):
    """The dataset's manifest is not the one that was recorded, or does not authenticate under the dataset key."""

    code = "manifest-tampered"
    fix = "Restore `_casemate/` from a good copy of the latest generation, or commit the data again."


class ManifestRolledBackError(IntegrityError):
    """The stored dataset is an older generation than the one recorded at the broker."""

    code = "manifest-rolled-back"
    fix = "Restore the latest generation; an old copy of the dataset was put in its place."


class ManifestFileMissingError(IntegrityError):
    """A file that the manifest lists is not there."""

    code = "manifest-file-missing"
    fix = "Restore the named file; it was deleted after the dataset was committed."


class ManifestFileForeignError(IntegrityError):
    """A file lies in the dataset that the manifest does not list."""

    code = "manifest-file-foreign"
    fix = "Remove the named file, or commit the dataset again if the file belongs to it."


class ManifestFileSwappedError(IntegrityError):
    """A file is genuine but not the one the manifest lists under this name: swapped, copied, or an older version."""

    code = "manifest-file-swapped"
    fix = "Restore the named file; another file of the dataset, or an older version, was put in its place."


class SourceMissingError(UsageError):
    """The file or directory to read is not there, or holds no file."""

    code = "source-missing"
    http_status = 404
    fix = "Check the path; give a file, or a directory that holds at least one."


class SourceChangedError(FailedError):
    """A file was changed while it was encrypted, so that its parts would not have belonged together."""

    code = "source-changed"
    fix = "Run the command again when nobody writes to the named file."


class ObjectStoreMissingError(UsageError):
    """The library that reads and writes this kind of object store is not installed."""

    code = "object-store-missing"
    fix = "Install the extra that the message names, for example `pip install 'casemate[s3]'`."


class DestinationExistsError(UsageError):
    """The destination exists already and holds something."""

    code = "destination-exists"
    http_status = 409
    fix = "Choose an empty or new destination, or say that it may be overwritten (`--overwrite`)."


class StorageFailedError(FailedError):
    """The storage did not do as asked: full disk, no permission, an input or output error."""

    code = "storage-failed"
    fix = "Free space or mend permissions and run the command again; nothing was half-written."


class ArrowMissingError(FailedError):
    """PyArrow is not installed, or was built without Parquet encryption."""

    code = "arrow-missing"
    fix = "Install Casemate with the extra that brings PyArrow: `pip install 'casemate[spark]'`."


class AgentUnreachableError(UndecidedError):
    """The agent of `casemate run` does not answer on its socket."""

    code = "agent-unreachable"
    fix = "Start the program through `casemate run` or `casemate submit`, and look at its log if it did."


class BigDLMalformedError(IntegrityError):
    """The file or `.meta` is not of the form that BigDL PPML wrote."""

    code = "bigdl-malformed"
    fix = (
        "Give a directory that BigDL PPML 2.3 or later wrote in mode AES/CBC/PKCS5Padding; Parquet modes are not read."
    )


class BigDLTamperedError(IntegrityError):
    """A file of BigDL PPML does not fit its HMAC or its padding: it was changed, or the key is another."""

    code = "bigdl-tampered"
    fix = (
        "Check the key; if it is the right one, restore the file from a good copy: BigDL itself never noticed a change."
    )


class BigDLKeyError(UsageError):
    """The key given for files of BigDL PPML is not of the form it needs."""

    code = "bigdl-key"
    fix = "Give the simple KMS's primary key file, or a file with the data key that the other KMS unwrapped."
