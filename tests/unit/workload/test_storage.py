"""Which of its own environment ``casemate run`` hands on as credentials of the storage."""

from __future__ import annotations

from casemate.workload.storage import storage_credential

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "id",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_SESSION_TOKEN": "",
    "CASEMATE_TOKEN": "not for programs",
}


def test_the_credentials_of_storage_are_handed_out_by_hadoop_s_names() -> None:
    assert storage_credential("fs.s3a.access.key", ENVIRONMENT) == "id"
    assert storage_credential("fs.s3a.secret.key", ENVIRONMENT) == "secret"


def test_an_empty_or_absent_credential_is_none() -> None:
    assert storage_credential("fs.s3a.session.token", ENVIRONMENT) is None
    assert storage_credential("fs.s3a.access.key", {}) is None


def test_nothing_else_of_the_environment_is_handed_out() -> None:
    for name in ("CASEMATE_TOKEN", "AWS_SECRET_ACCESS_KEY", "fs.s3a.bucket.x.secret.key", "ssl.keystore.password"):
        assert storage_credential(name, ENVIRONMENT) is None
