"""Job certificates: for the attested key itself, an hour at most, and good under their own job's CA alone."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from jwcrypto import jwk
from tests.unit.broker.support import START

from casemate.broker.job_ca import create_authority, ec_public_key, issue
from casemate.crypto.errors import InvalidKeyError
from casemate.crypto.jose import KeyPair
from casemate.errors import UsageError

CA, OTHER = create_authority("job", "job-1", now=START), create_authority("job", "job-1", now=START)
KEY = KeyPair.generate()


def made(names: list[str] | None = None) -> x509.Certificate:
    pem = issue(CA, KEY.public, common_name="driver", unit="job-1", names=names or ["localhost"], now=START)
    return x509.load_pem_x509_certificate(pem.encode())


def test_the_certificate_is_for_the_attested_key_and_says_role_and_job() -> None:
    certificate = made()
    assert certificate.public_key() == ec_public_key(KEY.public)
    assert certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "driver"
    assert certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)[0].value == "job-1"


def test_it_lives_for_an_hour_at_most() -> None:
    certificate = made()
    assert certificate.not_valid_after_utc == START + timedelta(hours=1)
    assert START - certificate.not_valid_before_utc <= timedelta(minutes=1)


def test_it_never_outlives_its_authority() -> None:
    short = create_authority("job", "job-1", now=START, lifetime=timedelta(minutes=5))
    pem = issue(short, KEY.public, common_name="driver", unit="job-1", names=["localhost"], now=START)
    assert x509.load_pem_x509_certificate(pem.encode()).not_valid_after_utc == START + timedelta(minutes=5)
    with pytest.raises(UsageError, match="ended"):
        issue(short, KEY.public, common_name="x", unit="y", names=["localhost"], now=START + timedelta(hours=1))


def test_a_verifier_accepts_it_under_its_own_ca_only() -> None:
    certificate = made(["localhost", "127.0.0.1", "node-1.cluster"])
    for name in ("localhost", "node-1.cluster"):
        for authority, good in ((CA, True), (OTHER, False)):
            store = Store([x509.load_pem_x509_certificate(authority.certificate_pem.encode())])
            verifier = PolicyBuilder().store(store).time(START).build_server_verifier(x509.DNSName(name))
            if good:
                verifier.verify(certificate, [])
            else:
                with pytest.raises(VerificationError):
                    verifier.verify(certificate, [])


@pytest.mark.parametrize("name", ["", "a b", "*.example", "-x", "x" * 64 + ".y", "a\n", "a..b", "127.0.0.1:80"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError):
        made([name])


def test_only_p256_keys_get_certificates() -> None:
    for kind in ({"kty": "RSA", "size": 2048}, {"kty": "EC", "crv": "P-521"}, {"kty": "OKP", "crv": "Ed25519"}):
        public = jwk.JWK.generate(**kind).export_public(as_dict=True)
        with pytest.raises(InvalidKeyError):
            issue(CA, public, common_name="x", unit="y", names=["localhost"], now=START)
    with pytest.raises(InvalidKeyError):
        ec_public_key({"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"})
