"""Key stores and secrets of one Spark process, as files in TEE-private memory.

Spark reads PKCS#12 stores for TLS. Their password guards nothing that the private directory does not guard already;
it goes to the process in its environment, as Spark itself hands it on to executors. The authentication secret goes in
a Hadoop credentials file, which Spark asks before any setting: so it is in no setting, no argument, no environment.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    KeySerializationEncryption,
    PrivateFormat,
    load_pem_private_key,
    pkcs12,
)

from casemate.crypto.errors import InvalidKeyError
from casemate.crypto.secret import Secret
from casemate.errors import FailedError
from casemate.files import write_whole
from casemate.workload.kbs import JobCertificate
from casemate.workload.session import AttestedSession

__all__ = ["PASSWORD_VARIABLES", "SECRET_VARIABLES", "SparkIdentity", "credentials_file", "write_identity"]

PASSWORD_VARIABLES = (
    "_SPARK_SSL_RPC_KEY_PASSWORD",
    "_SPARK_SSL_RPC_KEY_STORE_PASSWORD",
    "_SPARK_SSL_RPC_TRUST_STORE_PASSWORD",
)
SECRET_VARIABLES = (*PASSWORD_VARIABLES, "_SPARK_SSL_RPC_PRIVATE_KEY_PASSWORD", "_SPARK_AUTH_SECRET")
_SECRET_CONTEXT = b"casemate:spark:authenticate:v1"
_ALIAS = b"casemate"
_SECRET_NAME = b"sparkCookie"  # what Spark's SecurityManager looks its secret up by
_ROUNDS = 2048  # the password has 256 random bits, so that more would only cost time


@dataclass(frozen=True)
class SparkIdentity:
    """Where one process's stores lie, and the password of both."""

    key_store: Path
    trust_store: Path
    credentials: Path
    password: str

    @property
    def directory(self) -> Path:
        """Where all of it lies, and the same as PEM for Python's end of the gateway to the JVM."""
        return self.key_store.parent

    def environment(self) -> dict[str, str]:
        """What the process itself needs; never what it may pass on."""
        return {
            **dict.fromkeys(PASSWORD_VARIABLES, self.password),
            "HADOOP_TOKEN_FILE_LOCATION": str(self.credentials),
        }


def write_identity(session: AttestedSession, password: str | None = None) -> SparkIdentity:
    """Write key store, trust store and credentials of ``session``; again, with the same password, after a renewal."""
    directory = session.private_dir / "tls"
    directory.mkdir(mode=0o700, exist_ok=True)
    identity = SparkIdentity(
        directory / "key.p12", directory / "trust.p12", directory / "credentials", password or secrets.token_urlsafe(32)
    )
    if session.certificate is None or session.job_secret is None:
        raise FailedError("Spark: the session has no job certificate")
    key = load_pem_private_key(session.key_pair.to_pem(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise InvalidKeyError("Spark: need an EC key")
    certificate, authority = _certificates(session.certificate)
    encryption = _encryption(identity.password)
    write_whole(
        identity.key_store,
        pkcs12.serialize_key_and_certificates(_ALIAS, key, certificate, [authority], encryption),
        durable=False,
    )
    write_whole(
        identity.directory / "gateway.pem",
        session.key_pair.to_pem() + session.certificate.certificate.encode(),
        durable=False,
    )
    write_whole(identity.directory / "authority.pem", session.certificate.ca.encode(), durable=False)
    trusted = [pkcs12.PKCS12Certificate(authority, _ALIAS)]
    write_whole(identity.trust_store, pkcs12.serialize_java_truststore(trusted, encryption), durable=False)
    write_whole(identity.credentials, credentials_file(authentication_secret(session.job_secret)), durable=False)
    return identity


def authentication_secret(job_secret: Secret) -> Secret:
    """The text that all members of the job authenticate with: HMAC-SHA256 of a fixed context under the job secret."""
    return Secret(hmac.digest(job_secret.reveal(), _SECRET_CONTEXT, "sha256").hex().encode())


def credentials_file(secret: Secret) -> bytes:
    """Hadoop's token storage format 0: no token, one secret key. Lengths below 128 are one byte (WritableUtils)."""
    value = secret.reveal()
    return b"HDTS\0\0\1" + bytes([len(_SECRET_NAME)]) + _SECRET_NAME + bytes([len(value)]) + value


def _certificates(issued: JobCertificate) -> tuple[x509.Certificate, x509.Certificate]:
    try:
        return (
            x509.load_pem_x509_certificate(issued.certificate.encode()),
            x509.load_pem_x509_certificate(issued.ca.encode()),
        )
    except ValueError as exc:
        raise InvalidKeyError("job certificate: not a PEM certificate") from exc


def _encryption(password: str) -> KeySerializationEncryption:
    builder = PrivateFormat.PKCS12.encryption_builder()
    return (
        builder.kdf_rounds(_ROUNDS)
        .key_cert_algorithm(pkcs12.PBES.PBESv2SHA256AndAES256CBC)
        .hmac_hash(SHA256())
        .build(password.encode())
    )
