"""What a certificate with evidence proves, and how each flaw in one is refused for its own reason."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

import cbor2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.ratls.conftest import World

from casemate.attestation.errors import EvidenceSignatureError, UntrustedRootError
from casemate.attestation.platforms.intel.verifier import quote_of
from casemate.attestation.policy import default_policy
from casemate.attestation.ratls import cbor, extension
from casemate.attestation.ratls.certificate import build_certificate, parse_certificate, spki_of
from casemate.attestation.ratls.errors import (
    RatlsCertificateExpiredError,
    RatlsCertificateMalformedError,
    RatlsCertificateNotYetValidError,
    RatlsChannelMismatchError,
    RatlsClaimsMismatchError,
    RatlsEvidenceMissingError,
    RatlsEvidenceUnsupportedError,
    RatlsKeyMismatchError,
    RatlsNonceMismatchError,
    RatlsPeerChangedError,
    RatlsSelfSignatureError,
)
from casemate.attestation.ratls.extension import (
    DICE_OID,
    GRAMINE_OID,
    QUOTE_TAG,
    SNP_TAG,
    build_claims,
    claims_report_data,
    decode_dice,
    encode_dice,
)
from casemate.attestation.ratls.identity import create_identity
from casemate.attestation.ratls.peer import PeerRules, Side, channel_report_data
from casemate.attestation.refusals import (
    DebugEnabledError,
    PlatformIdNotAllowedError,
    SimulatedEvidenceError,
)
from casemate.attestation.trust import TrustStore
from casemate.errors import CasemateError, RefusedError

HOUR = timedelta(hours=1)


def made(world: World, now: datetime, value: bytes, *, oid: str = DICE_OID, key: ec.EllipticCurvePrivateKey) -> bytes:
    return build_certificate(key, value, not_before=now - HOUR, not_after=now + HOUR, oid=oid)


@pytest.mark.parametrize("tee", ["tdx", "sgx", "snp"])
def test_a_certificate_made_in_a_tee_proves_the_tee_and_its_key(world: World, now: datetime, tee: str) -> None:
    identity = world.identity(tee)
    peer = world.rules().appraise(identity.certificate, now=now)
    assert (peer.claims.platform, peer.claims.simulated, peer.spki) == (tee, True, identity.spki)
    assert peer.key_sha256 == hashlib.sha256(identity.spki).hexdigest()
    assert peer.appraisal.code is None


@pytest.mark.parametrize(("tee", "tag", "parts"), [("tdx", 60000, 2), ("sgx", 60000, 2), ("snp", SNP_TAG, 3)])
def test_another_implementation_reads_the_extension(world: World, tee: str, tag: int, parts: int) -> None:
    """cbor2 shares no code with ours; the shape is the one Gramine documents."""
    identity = world.identity(tee, nonce=b"n" * 32)
    certificate = x509.load_der_x509_certificate(identity.certificate)
    value = certificate.extensions.get_extension_for_oid(x509.ObjectIdentifier("2.23.133.5.4.9")).value
    tagged = cbor2.loads(value.value)  # type: ignore[attr-defined]
    assert (tagged.tag, len(tagged.value)) == (tag, parts)
    claims = cbor2.loads(tagged.value[1])
    assert claims["nonce"] == b"n" * 32
    assert cbor2.loads(claims["pubkey-hash"]) == [1, hashlib.sha256(identity.spki).digest()]
    assert identity.attester.asked == [hashlib.sha256(tagged.value[1]).digest() + bytes(32)]  # type: ignore[attr-defined]


def test_a_certificate_another_implementation_made_is_read(world: World, now: datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    digest = hashlib.sha384(spki_of(key.public_key())).digest()
    claims = cbor2.dumps({"pubkey-hash": cbor2.dumps([7, digest]), "extra": "ignored, but bound"})
    quote = quote_of(world.attester().collect(hashlib.sha256(claims).digest() + bytes(32)))
    value = cbor2.dumps(cbor2.CBORTag(QUOTE_TAG, [quote, claims]))
    assert world.rules().appraise(made(world, now, value, key=key), now=now).claims.platform == "tdx"


def test_the_older_form_of_gramine_is_read(world: World, now: datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    report_data = hashlib.sha256(spki_of(key.public_key())).digest() + bytes(32)
    quote = quote_of(world.attester("sgx").collect(report_data))
    certificate = made(world, now, quote, oid=GRAMINE_OID, key=key)
    assert bytes.fromhex("06092a864886f84d8a3906") in certificate
    assert world.rules().appraise(certificate, now=now).claims.platform == "sgx"
    other = made(world, now, quote, oid=GRAMINE_OID, key=ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(RatlsKeyMismatchError):
        world.rules().appraise(other, now=now)


def test_evidence_of_another_key_is_refused(world: World, now: datetime) -> None:
    """The claims are those of the victim's certificate, and bound; the certificate is the thief's."""
    victim = parse_certificate(world.identity().certificate).carried
    assert victim.claims is not None
    thief = ec.generate_private_key(ec.SECP256R1())
    stolen = made(world, now, encode_dice(victim.evidence, victim.claims), key=thief)
    with pytest.raises(RatlsKeyMismatchError):
        world.rules().appraise(stolen, now=now)


def test_claims_rewritten_for_another_key_are_refused(world: World, now: datetime) -> None:
    victim = parse_certificate(world.identity().certificate).carried
    thief = ec.generate_private_key(ec.SECP256R1())
    value = encode_dice(victim.evidence, build_claims(spki_of(thief.public_key())))
    with pytest.raises(RatlsClaimsMismatchError):
        world.rules().appraise(made(world, now, value, key=thief), now=now)


def test_tampered_evidence_is_refused(world: World, now: datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    claims = build_claims(spki_of(key.public_key()))
    quote = bytearray(quote_of(world.attester().collect(claims_report_data(claims))))
    quote[200] ^= 1  # in the measurement
    value = cbor.encode([bytes(quote), claims], tag=QUOTE_TAG)
    with pytest.raises(EvidenceSignatureError):
        world.rules().appraise(made(world, now, value, key=key), now=now)


def test_an_expired_and_a_future_certificate_are_refused(world: World, now: datetime) -> None:
    identity = create_identity(world.attester(), now=now, lifetime=HOUR)
    with pytest.raises(RatlsCertificateExpiredError):
        world.rules().appraise(identity.certificate, now=now + HOUR + timedelta(seconds=1))
    with pytest.raises(RatlsCertificateNotYetValidError):
        world.rules().appraise(identity.certificate, now=now - HOUR)


def test_a_self_signed_certificate_without_evidence_is_refused(world: World, now: datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    plain = made(world, now, b"\x05\x00", oid="1.3.6.1.4.1.99999.1", key=key)
    with pytest.raises(RatlsEvidenceMissingError):
        world.rules().appraise(plain, now=now)


def test_a_certificate_that_does_not_sign_itself_is_refused(world: World, now: datetime) -> None:
    identity = world.identity()
    spoiled = bytearray(identity.certificate)
    spoiled[-1] ^= 1
    with pytest.raises(RatlsSelfSignatureError):
        world.rules().appraise(bytes(spoiled), now=now)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "an authority")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).serial_number(1)
    builder = builder.public_key(identity.key.public_key()).not_valid_before(now).not_valid_after(now + HOUR)
    value = encode_dice(*_carried(identity.certificate))
    builder = builder.add_extension(x509.UnrecognizedExtension(x509.ObjectIdentifier(DICE_OID), value), False)
    issued = builder.sign(ec.generate_private_key(ec.SECP256R1()), SHA256()).public_bytes(Encoding.DER)
    with pytest.raises(RatlsSelfSignatureError):
        world.rules().appraise(issued, now=now)


def test_the_policy_decides(world: World, now: datetime) -> None:
    certificate = world.identity().certificate
    with pytest.raises(SimulatedEvidenceError):
        PeerRules(world.trust, default_policy()).appraise(certificate, now=now)
    with pytest.raises(DebugEnabledError):
        world.rules().appraise(world.identity(td_attributes=1 << 28 | 1).certificate, now=now)
    other = World()
    with pytest.raises(UntrustedRootError):
        PeerRules(TrustStore(simulator_root=other.pki.root.der), world.rules().policy).appraise(certificate, now=now)


def test_only_machines_on_the_list_are_accepted(world: World, now: datetime) -> None:
    certificate = world.identity().certificate
    piid = bytes(range(16, 32)).hex()
    assert world.rules(platform_ids=[piid]).appraise(certificate, now=now).claims.platform_id == piid
    with pytest.raises(PlatformIdNotAllowedError):
        world.rules(platform_ids=["00" * 16]).appraise(certificate, now=now)


def test_a_demanded_nonce_has_to_be_in_the_certificate(world: World, now: datetime) -> None:
    rules = world.rules(nonce=b"fresh" * 4)
    rules.appraise(world.identity(nonce=b"fresh" * 4).certificate, now=now)
    for nonce in (None, b"stale" * 4):
        with pytest.raises(RatlsNonceMismatchError):
            rules.appraise(world.identity(nonce=nonce).certificate, now=now)


def test_evidence_of_other_kinds_is_no_ratls_evidence(world: World) -> None:
    from casemate.attestation.evidence import Evidence

    with pytest.raises(RatlsEvidenceUnsupportedError):
        encode_dice(Evidence("tpm", {}), b"")


CLAIMS = build_claims(b"key")
MALFORMED = {
    "no tag": cbor.encode([b"", CLAIMS]),
    "foreign tag": cbor.encode([b"", CLAIMS], tag=60001),
    "one part": cbor.encode([b""], tag=QUOTE_TAG),
    "text for bytes": cbor.encode(["quote", CLAIMS], tag=QUOTE_TAG),
    "no quote": cbor.encode([b"quote", CLAIMS], tag=QUOTE_TAG),
    "no report": cbor.encode([b"report", CLAIMS, b""], tag=SNP_TAG),
    "trailing byte": cbor.encode([b"", CLAIMS], tag=QUOTE_TAG) + b"\0",
    "indefinite length": bytes.fromhex("d9ea609fff"),
    "a gigabyte announced": bytes.fromhex("d9ea60825a40000000"),
    "sixteen exabytes announced": bytes.fromhex("d9ea60825bffffffffffffffff"),
    "a million items announced": bytes.fromhex("d9ea609a000f4240"),
    "nested": bytes.fromhex("d9ea60") + b"\x81" * 5000 + b"\x00",
    "empty": b"",
    "too large": bytes(extension.MAX_EXTENSION_SIZE + 1),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_extension_is_refused(name: str) -> None:
    with pytest.raises(RatlsCertificateMalformedError):
        decode_dice(MALFORMED[name])


@pytest.mark.parametrize(
    "claims",
    [
        b"",
        cbor.encode([]),
        cbor.encode({}),
        cbor.encode({"pubkey-hash": b"\x01"}),
        cbor.encode({"pubkey-hash": cbor.encode([2, b"x" * 32])}),
        bytes.fromhex("a2616100616100"),
    ],
)
def test_malformed_claims_are_refused_even_when_bound(world: World, now: datetime, claims: bytes) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    value = encode_dice(world.attester().collect(claims_report_data(claims)), claims)
    with pytest.raises(RatlsCertificateMalformedError):
        world.rules().appraise(made(world, now, value, key=key), now=now)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_certificate_or_our_error(raw: bytes) -> None:
    for read in (parse_certificate, decode_dice, extension.decode_gramine):
        with pytest.raises(RefusedError):
            read(raw)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_bent_certificate_is_accepted(world: World, now: datetime, data: st.DataObject) -> None:
    spoiled = bytearray(world.identity().certificate if not _ONE else _ONE[0])
    _ONE[:] = _ONE or [bytes(spoiled)]
    at = data.draw(st.integers(0, len(spoiled) - 1))
    spoiled[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(CasemateError):
        world.rules().appraise(bytes(spoiled), now=now)


_ONE: list[bytes] = []
VALUES = st.recursive(
    st.integers(0, 2**64 - 1) | st.binary(max_size=300) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(VALUES)
def test_our_cbor_is_what_cbor2_writes_and_reads(value: object) -> None:
    raw = cbor.encode(value)
    assert cbor2.loads(raw) == value
    assert raw == cbor2.dumps(value, canonical=True)


# -- the connection ----------------------------------------------------------------------------------------------------
def test_evidence_for_one_connection_is_good_for_it_alone(world: World, now: datetime) -> None:
    identity, rules = world.identity(), world.rules()
    peer = rules.appraise(identity.certificate, now=now)
    expected = channel_report_data(b"e" * 32, b"n" * 32, sender=Side.SERVER, spki=identity.spki)
    evidence = identity.attester.collect(expected)
    assert rules.appraise_channel(peer, evidence, expected, now=now).platform == "tdx"
    for changed in (
        channel_report_data(b"x" * 32, b"n" * 32, sender=Side.SERVER, spki=identity.spki),
        channel_report_data(b"e" * 32, b"x" * 32, sender=Side.SERVER, spki=identity.spki),
        channel_report_data(b"e" * 32, b"n" * 32, sender=Side.CLIENT, spki=identity.spki),
        channel_report_data(b"e" * 32, b"n" * 32, sender=Side.SERVER, spki=b"another key"),
    ):
        with pytest.raises(RatlsChannelMismatchError):
            rules.appraise_channel(peer, evidence, changed, now=now)


@pytest.mark.parametrize("changes", [{"mrtd": bytes([2] * 48)}, {"mr_config_id": bytes([3] * 48)}])
def test_the_connection_is_answered_for_by_the_tee_in_the_certificate(
    world: World, now: datetime, changes: dict[str, bytes]
) -> None:
    identity, rules = world.identity(), world.rules()
    peer = rules.appraise(identity.certificate, now=now)
    expected = channel_report_data(b"e" * 32, b"n" * 32, sender=Side.SERVER, spki=identity.spki)
    with pytest.raises(RatlsPeerChangedError):
        rules.appraise_channel(peer, world.attester(**changes).collect(expected), expected, now=now)


def test_an_identity_does_not_show_its_key(world: World) -> None:
    assert "EllipticCurvePrivateKey" not in repr(world.identity())


def _carried(der: bytes) -> tuple:  # type: ignore[type-arg]
    carried = parse_certificate(der).carried
    return carried.evidence, carried.claims
