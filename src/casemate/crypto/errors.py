"""What can go wrong with ciphertexts, keys and signatures."""

from __future__ import annotations

from casemate.errors import RefusedError, UsageError

__all__ = ["DecryptionError", "InvalidKeyError", "SignatureInvalidError", "UnsealError", "UnwrapError"]


class InvalidKeyError(UsageError):
    """A key has the wrong type, size or encoding."""

    code = "key-invalid"
    fix = "Give a key of the type and size that the message names."


class UnwrapError(RefusedError):
    """A wrapped key does not open: another wrapping key, another context, or it was changed."""

    code = "unwrap-failed"
    fix = "Use the dataset and key version the file was written with; if they are right, the file header was changed."


class UnsealError(RefusedError):
    """A sealed message (JWE) does not open with this private key, or was changed."""

    code = "unseal-failed"
    fix = "Attest again to get the message sealed to the current key."


class SignatureInvalidError(RefusedError):
    """A signature does not verify under the expected key, or the signed document is of another type."""

    code = "signature-invalid"
    fix = "Check that the document was signed by the expected key and was not edited afterwards."


class DecryptionError(RefusedError):
    """An authentication tag does not match: the ciphertext, its position or its associated data was changed."""

    code = "decryption-failed"
    fix = "Restore the ciphertext from a good copy; this one was changed after it was written."
