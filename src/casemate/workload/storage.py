"""Credentials of the storage: given to ``casemate run`` by whoever operates it, handed on through the agent alone.

They open ciphertext, which is worthless without the keys; still they are no setting, no argument and no environment of
the program, where logs, event logs and child processes would carry them on.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["STORAGE_VARIABLES", "storage_credential"]

STORAGE_VARIABLES = {
    "fs.s3a.access.key": "AWS_ACCESS_KEY_ID",
    "fs.s3a.secret.key": "AWS_SECRET_ACCESS_KEY",
    "fs.s3a.session.token": "AWS_SESSION_TOKEN",
}
"""What Hadoop calls a credential, and the variable of ``casemate run``'s own environment that holds it."""


def storage_credential(name: str, environment: Mapping[str, str]) -> str | None:
    """The credential that Hadoop calls ``name``; None when there is none, or when it is not a credential of storage."""
    variable = STORAGE_VARIABLES.get(name)
    return (environment.get(variable) or None) if variable else None
