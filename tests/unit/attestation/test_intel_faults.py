"""Every fault the simulated maker can make, each refused for its own reason and never for another's."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from casemate.attestation.claims import Claims
from casemate.attestation.evidence import Evidence
from casemate.attestation.platforms.intel.collateral import CollateralSource, SingleCollateral, parse_collateral
from casemate.attestation.platforms.simulator import pki as make
from casemate.attestation.platforms.simulator.pki import CollateralEdits, PlatformIdentity, SimulatedPki
from casemate.attestation.platforms.simulator.quote import EnclaveReport, QuotingEnclave, TdReport
from casemate.attestation.policy import AppraisalPolicy
from casemate.attestation.trust import TrustStore
from casemate.errors import CasemateError, UndecidedError

SIMULATED = AppraisalPolicy.from_yaml("version: 1\nname: simulated\nallow_simulated: true\nplatforms: [tdx, sgx]\n")


class World:
    """One simulated maker with a machine, and a verifier that trusts it."""

    def __init__(self, pki: SimulatedPki, enclave: QuotingEnclave, now: datetime) -> None:
        self.pki, self.enclave, self.now = pki, enclave, now

    def verify(
        self,
        quote: bytes,
        *,
        tee: str = "tdx",
        edits: CollateralEdits | None = None,
        members: dict[str, str] | None = None,
        now: datetime | None = None,
        source: CollateralSource | None = None,
    ) -> Claims:
        document = self.pki.collateral(tee, self.now, edits) | (members or {})
        collateral = source or SingleCollateral(parse_collateral(json.dumps(document)))
        store = TrustStore(simulator_root=self.pki.root.der, collateral=collateral)
        claims = store.verify(Evidence(tee, {"quote": base64.b64encode(quote).decode()}), now=now or self.now)
        SIMULATED.appraise(claims, now=now or self.now).require()
        return claims

    def tdx(self, **fields: Any) -> bytes:
        return self.enclave.tdx_quote(TdReport(**fields))

    def sgx(self, **fields: Any) -> bytes:
        return self.enclave.sgx_quote(EnclaveReport(**fields))


@pytest.fixture(scope="module")
def world(pki: SimulatedPki, enclave: QuotingEnclave, now: datetime) -> World:
    return World(pki, enclave, now)


Fault = Callable[[World], object]
FAULTS: dict[str, tuple[str, Fault]] = {}


def fault(code: str) -> Callable[[Fault], Fault]:
    def register(function: Fault) -> Fault:
        FAULTS[function.__name__] = (code, function)
        return function

    return register


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_refused_for_its_own_reason(world: World, name: str) -> None:
    code, function = FAULTS[name]
    with pytest.raises(CasemateError) as caught:
        function(world)
    assert (caught.value.code, caught.value.message) == (code, caught.value.message)


def test_without_a_fault_all_is_accepted(world: World) -> None:
    for quote, tee in (
        (world.tdx(), "tdx"),
        (world.enclave.tdx_quote(TdReport(), version=5), "tdx"),
        (world.enclave.tdx_quote(TdReport(), version=5, td15=True), "tdx"),
        (world.sgx(), "sgx"),
    ):
        claims = world.verify(quote, tee=tee)
        assert (claims.tcb.status, claims.simulated, claims.debug) == ("UpToDate", True, False)
        assert claims.platform_id == world.pki.platform.piid.hex()
        assert claims.collateral_expires == world.now + timedelta(days=29)


def test_the_fields_of_a_quote_arrive_in_the_claims(world: World) -> None:
    rtmr = tuple(bytes([i] * 48) for i in range(1, 5))
    report = TdReport(bytes([7] * 48), bytes([8] * 48), bytes([9] * 64), rtmr)  # type: ignore[arg-type]
    claims = world.verify(world.enclave.tdx_quote(report))
    assert (claims.measurement, claims.workload, claims.report_data) == ("07" * 48, "08" * 48, "09" * 64)
    assert claims.rtmr == tuple(r.hex() for r in rtmr)
    assert str(claims.workload_binding) == "launch"
    enclave = EnclaveReport(
        bytes([1] * 32), bytes([2] * 32), bytes([3] * 64), product_id=4, svn=5, config_id=b"\6" * 64
    )
    claims = world.verify(world.enclave.sgx_quote(enclave), tee="sgx")
    assert (claims.measurement, claims.signer, claims.product_id, claims.svn) == ("01" * 32, "02" * 32, 4, 5)
    assert (claims.report_data, claims.workload) == ("03" * 64, "06" * 64)


def test_debug_never_hides_another_fault(world: World) -> None:
    """Debug TEEs are judged apart from the library; each other fault must still come first."""
    spoiled = {
        "revoked": CollateralEdits(revoke=(world.pki.pck.certificate,)),
        "expired": CollateralEdits(issued=world.now - timedelta(days=90)),
        "level": CollateralEdits(tcb_info=lambda t: t["tcbLevels"][0].update(tcbStatus="Revoked")),
        "fmspc": CollateralEdits(tcb_info=lambda t: t.update(fmspc="00606A000000")),
        "signer": CollateralEdits(qe_identity=lambda q: q.update(mrsigner="12" * 32)),
        "product": CollateralEdits(qe_identity=lambda q: q.update(isvprodid=9)),
    }
    debug = TdReport(td_attributes=1 | 1 << 28)
    for name, edits in spoiled.items():
        with pytest.raises(CasemateError) as caught:
            world.verify(world.enclave.tdx_quote(debug), edits=edits)
        assert caught.value.code not in ("debug-enabled", "quote-refused"), name
    for other in (1 << 29, 1 << 4, 1 << 20, 1 << 62):
        with pytest.raises(CasemateError) as caught:
            world.verify(world.enclave.tdx_quote(replace(debug, td_attributes=1 | 1 << 28 | other)))
        assert caught.value.code in ("td-migratable", "td-profiling-enabled", "td-attributes-reserved")
    tampered = bytearray(world.enclave.tdx_quote(debug))
    tampered[200] ^= 1
    with pytest.raises(CasemateError) as caught:
        world.verify(bytes(tampered))
    assert caught.value.code == "quote-signature-invalid"


def test_out_of_date_is_a_claim_and_the_advisories_come_with_it(world: World) -> None:
    def old(tcb_info: dict[str, Any]) -> None:
        tcb_info["tcbLevels"][0].update(tcbStatus="OutOfDate", advisoryIDs=["INTEL-SA-00001"])

    for attributes in (1 << 28, 1 | 1 << 28):
        quote = world.enclave.tdx_quote(TdReport(td_attributes=attributes))
        document = world.pki.collateral("tdx", world.now, CollateralEdits(tcb_info=old))
        source = SingleCollateral(parse_collateral(json.dumps(document)))
        store = TrustStore(simulator_root=world.pki.root.der, collateral=source)
        claims = store.verify(Evidence("tdx", {"quote": base64.b64encode(quote).decode()}), now=world.now)
        assert (claims.tcb.status, claims.tcb.advisories) == ("OutOfDate", ("INTEL-SA-00001",))


# The quote and its signatures


def _changed(quote: bytes, at: int, xor: int = 1) -> bytes:
    spoiled = bytearray(quote)
    spoiled[at] ^= xor
    return bytes(spoiled)


_AUTH_V4 = 48 + 584 + 4  # where the signature data of a version 4 quote begins
_QE_V4 = _AUTH_V4 + 128 + 6  # where its QE report begins


@fault("quote-signature-invalid")
def changed_mrtd(w: World) -> object:
    return w.verify(_changed(w.tdx(), 48 + 136))


@fault("quote-signature-invalid")
def changed_report_data(w: World) -> object:
    return w.verify(_changed(w.tdx(), 48 + 520))


@fault("quote-signature-invalid")
def changed_header_user_data(w: World) -> object:
    return w.verify(_changed(w.tdx(), 28))


@fault("quote-signature-invalid")
def changed_mrenclave(w: World) -> object:
    return w.verify(_changed(w.sgx(), 48 + 64), tee="sgx")


@fault("quote-signature-invalid")
def changed_signature(w: World) -> object:
    return w.verify(_changed(w.tdx(), _AUTH_V4 + 3))


@fault("attestation-key-unbound")
def quote_signed_by_another_attestation_key(w: World) -> object:
    key = ec.generate_private_key(ec.SECP256R1())
    return w.verify(replace(w.enclave, key=key).tdx_quote(TdReport()))


@fault("attestation-key-unbound")
def changed_qe_authentication_data(w: World) -> object:
    return w.verify(_changed(w.tdx(), _QE_V4 + 384 + 64 + 2))


@fault("qe-report-signature-invalid")
def changed_qe_report(w: World) -> object:
    return w.verify(_changed(w.tdx(), _QE_V4 + 300))


@fault("qe-report-signature-invalid")
def qe_report_signed_by_another_platform(w: World) -> object:
    other = make.make_pck(w.pki.pck_ca, PlatformIdentity(), w.now)
    stranger = QuotingEnclave.create(replace(w.pki, pck=other))
    return w.verify(replace(stranger, pki=w.pki).tdx_quote(TdReport()))


# Framing


@fault("quote-malformed")
def empty_quote(w: World) -> object:
    return w.verify(b"")


@fault("quote-malformed")
def truncated_quote(w: World) -> object:
    return w.verify(w.tdx()[:-1])


@fault("quote-malformed")
def signature_length_too_small(w: World) -> object:
    quote = bytearray(w.tdx())
    struct.pack_into("<I", quote, _AUTH_V4 - 4, struct.unpack_from("<I", quote, _AUTH_V4 - 4)[0] - 1)
    return w.verify(bytes(quote))


@fault("quote-malformed")
def signature_length_of_a_gigabyte(w: World) -> object:
    quote = bytearray(w.tdx())
    struct.pack_into("<I", quote, _AUTH_V4 - 4, 1 << 30)
    return w.verify(bytes(quote))


@fault("quote-malformed")
def slack_in_the_signature_length(w: World) -> object:
    quote = bytearray(w.tdx() + bytes(8))
    struct.pack_into("<I", quote, _AUTH_V4 - 4, struct.unpack_from("<I", quote, _AUTH_V4 - 4)[0] + 8)
    return w.verify(bytes(quote))


@fault("quote-malformed")
def quote_too_large(w: World) -> object:
    return w.verify(w.tdx() + bytes(70_000))


@fault("quote-version-unsupported")
def unknown_version(w: World) -> object:
    return w.verify(_changed(w.tdx(), 0, 2))


@fault("quote-version-unsupported")
def sgx_quote_of_version_4(w: World) -> object:
    return w.verify(struct.pack("<H", 4) + w.sgx()[2:], tee="sgx")


@fault("quote-version-unsupported")
def sgx_body_in_a_version_5_quote(w: World) -> object:
    quote = bytearray(w.enclave.tdx_quote(TdReport(), version=5))
    struct.pack_into("<H", quote, 48, 1)
    return w.verify(bytes(quote))


@fault("quote-version-unsupported")
def tdx_quote_as_sgx_evidence(w: World) -> object:
    return w.verify(w.tdx(), tee="sgx")


@fault("attestation-key-unsupported")
def p384_attestation_key(w: World) -> object:
    return w.verify(_changed(w.tdx(), 2, 1))


@fault("qe-vendor-unknown")
def unknown_qe_vendor(w: World) -> object:
    return w.verify(_changed(w.tdx(), 12))


@fault("certification-data-unsupported")
def outer_certification_type_is_not_a_qe_report(w: World) -> object:
    return w.verify(w.enclave.tdx_quote(TdReport(), outer_type=5))


@fault("certification-data-unsupported")
def inner_certification_type_is_unknown(w: World) -> object:
    quote = w.tdx()
    return w.verify(_changed(quote, quote.index(b"-----BEGIN") - 6, 5 ^ 4))


@fault("collateral-missing")
def certification_by_encrypted_ppid_without_a_chain(w: World) -> object:
    quote = w.tdx()
    return w.verify(_changed(quote, quote.index(b"-----BEGIN") - 6, 5 ^ 3))


@fault("quote-malformed")
def certification_data_without_a_certificate(w: World) -> object:
    return w.verify(w.tdx().replace(b"-----BEGIN", b"-----BEGUN"))


@fault("evidence-malformed")
def quote_is_not_base64(w: World) -> object:
    return TrustStore(simulator_root=w.pki.root.der).verify(Evidence("tdx", {"quote": "*"}), now=w.now)


@fault("evidence-malformed")
def quote_member_is_missing(w: World) -> object:
    return TrustStore(simulator_root=w.pki.root.der).verify(Evidence("tdx", {}), now=w.now)


@fault("evidence-kind-unknown")
def evidence_of_an_unknown_kind(w: World) -> object:
    return TrustStore(simulator_root=w.pki.root.der).verify(Evidence("sample", {}), now=w.now)


# The platform's certificates


@fault("untrusted-root")
def evidence_of_another_maker(w: World) -> object:
    other = SimulatedPki.create(w.now)
    return w.verify(QuotingEnclave.create(other).tdx_quote(TdReport()))


@fault("pck-chain-invalid")
def leaf_of_another_maker_with_this_maker_s_chain(w: World) -> object:
    other = SimulatedPki.create(w.now, w.pki.platform)
    mixed = replace(w.pki, pck=other.pck)
    return w.verify(QuotingEnclave.create(mixed).tdx_quote(TdReport()))


@fault("pck-chain-invalid")
def authority_of_another_maker_under_this_root(w: World) -> object:
    other = SimulatedPki.create(w.now, w.pki.platform)
    mixed = replace(w.pki, pck=other.pck, pck_ca=other.pck_ca)
    return w.verify(QuotingEnclave.create(mixed).tdx_quote(TdReport()))


@fault("pck-chain-invalid")
def platform_certificate_used_as_an_authority(w: World) -> object:
    leaf = make.make_pck(w.pki.pck, w.pki.platform, w.now)
    mixed = replace(w.pki, pck=leaf, pck_ca=w.pki.pck)
    return w.verify(QuotingEnclave.create(mixed).tdx_quote(TdReport()))


@fault("pck-chain-invalid")
def leaf_without_the_sgx_extension(w: World) -> object:
    leaf = make.make_authority("SIMULATED SGX PCK Certificate", w.pki.pck_ca, w.now, years=1)
    return w.verify(QuotingEnclave.create(replace(w.pki, pck=leaf)).tdx_quote(TdReport()))


@fault("pck-certificate-expired")
def expired_platform_certificate(w: World) -> object:
    leaf = make.make_pck(w.pki.pck_ca, w.pki.platform, w.now - timedelta(days=800), years=1)
    return w.verify(QuotingEnclave.create(replace(w.pki, pck=leaf)).tdx_quote(TdReport()))


@fault("pck-certificate-expired")
def platform_certificate_from_the_future(w: World) -> object:
    leaf = make.make_pck(w.pki.pck_ca, w.pki.platform, w.now + timedelta(days=3))
    return w.verify(QuotingEnclave.create(replace(w.pki, pck=leaf)).tdx_quote(TdReport()))


@fault("pck-revoked")
def revoked_platform(w: World) -> object:
    return w.verify(w.tdx(), edits=CollateralEdits(revoke=(w.pki.pck.certificate,)))


@fault("pck-ca-revoked")
def revoked_platform_authority(w: World) -> object:
    return w.verify(w.tdx(), edits=CollateralEdits(revoke=(w.pki.pck_ca.certificate,)))


# Collateral


@fault("collateral-signer-revoked")
def revoked_collateral_signer(w: World) -> object:
    return w.verify(w.tdx(), edits=CollateralEdits(revoke=(w.pki.tcb_signer.certificate,)))


@fault("tcb-info-expired")
def expired_tcb_info(w: World) -> object:
    return w.verify(w.tdx(), edits=CollateralEdits(tcb_info=_dates(w, -40, -10)))


@fault("tcb-info-from-the-future")
def tcb_info_from_the_future(w: World) -> object:
    return w.verify(w.tdx(), edits=CollateralEdits(tcb_info=_dates(w, 1, 30)))


@fault("qe-identity-expired")
def expired_qe_identity(w: World) -> object:
    return w.verify(w.tdx(), edits=CollateralEdits(qe_identity=_dates(w, -40, -10)))


@fault("qe-identity-from-the-future")
def qe_identity_from_the_future(w: World) -> object:
    return w.verify(w.tdx(), edits=CollateralEdits(qe_identity=_dates(w, 1, 30)))


@fault("crl-expired")
def expired_revocation_lists(w: World) -> object:
    return w.verify(w.tdx(), edits=CollateralEdits(crl_expires=w.now - timedelta(hours=1)))


@fault("crl-invalid")
def revocation_list_signed_by_somebody_else(w: World) -> object:
    impostor = make.make_authority("SIMULATED Intel SGX PCK Platform CA", None, w.now, years=1, path_length=0)
    return w.verify(w.tdx(), edits=CollateralEdits(crl_signer=impostor))


@fault("collateral-malformed")
def revocation_list_that_is_none(w: World) -> object:
    return w.verify(w.tdx(), members={"pck_crl": "00"})


@fault("tcb-info-signature-invalid")
def tcb_info_edited_after_signing(w: World) -> object:
    text = w.pki.collateral("tdx", w.now)["tcb_info"].replace('DataNumber":20', 'DataNumber":21')
    return w.verify(w.tdx(), members={"tcb_info": text})


@fault("qe-identity-signature-invalid")
def qe_identity_edited_after_signing(w: World) -> object:
    text = w.pki.collateral("tdx", w.now)["qe_identity"].replace('DataNumber":20', 'DataNumber":21')
    return w.verify(w.tdx(), members={"qe_identity": text})


@fault("collateral-chain-invalid")
def tcb_info_chain_without_its_signer(w: World) -> object:
    return w.verify(w.tdx(), members={"tcb_info_issuer_chain": w.pki.root.pem})


@fault("collateral-chain-invalid")
def qe_identity_chain_without_its_signer(w: World) -> object:
    return w.verify(w.tdx(), members={"qe_identity_issuer_chain": w.pki.root.pem})


@fault("collateral-chain-invalid")
def tcb_info_signed_by_an_impostor_under_this_root_s_name(w: World) -> object:
    impostor_root = make.make_authority("SIMULATED SGX Root CA", None, w.now, years=2, path_length=1)
    impostor = make.make_authority("SIMULATED SGX TCB Signing", impostor_root, w.now, years=1)
    return w.verify(w.tdx(), edits=CollateralEdits(tcb_signer=impostor))


@fault("collateral-untrusted-root")
def collateral_of_another_maker(w: World) -> object:
    other = SimulatedPki.create(w.now, w.pki.platform)
    source = SingleCollateral(parse_collateral(json.dumps(other.collateral("tdx", w.now))))
    return w.verify(w.tdx(), source=source)


@fault("collateral-chain-invalid")
def authority_certificate_used_to_sign_tcb_info(w: World) -> object:
    return w.verify(w.tdx(), edits=CollateralEdits(tcb_signer=w.pki.pck_ca))


@fault("collateral-signer-expired")
def collateral_signer_whose_certificate_has_expired(w: World) -> object:
    old = make.make_authority("SIMULATED SGX TCB Signing", w.pki.root, w.now - timedelta(days=800), years=1)
    return w.verify(w.tdx(), edits=CollateralEdits(tcb_signer=old))


@fault("tcb-info-malformed")
def tcb_info_that_is_not_json(w: World) -> object:
    return w.verify(w.tdx(), members={"tcb_info": "{"})


@fault("qe-identity-malformed")
def qe_identity_that_is_not_json(w: World) -> object:
    return w.verify(w.tdx(), members={"qe_identity": "[]"})


@fault("fmspc-mismatch")
def collateral_of_another_platform_family(w: World) -> object:
    return w.verify(w.tdx(), edits=CollateralEdits(tcb_info=lambda t: t.update(fmspc="00606A000000")))


@fault("collateral-tee-mismatch")
def sgx_tcb_info_for_a_tdx_quote(w: World) -> object:
    document = w.pki.collateral("sgx", w.now)
    return w.verify(w.tdx(), source=SingleCollateral(parse_collateral(json.dumps(document))))


@fault("collateral-missing")
def no_collateral_at_all(w: World) -> object:
    store = TrustStore(simulator_root=w.pki.root.der)
    return store.verify(Evidence("tdx", {"quote": base64.b64encode(w.tdx()).decode()}), now=w.now)


def _dates(w: World, issued_days: int, expires_days: int) -> Callable[[dict[str, Any]], None]:
    def edit(document: dict[str, Any]) -> None:
        for name, days in (("issueDate", issued_days), ("nextUpdate", expires_days)):
            document[name] = (w.now + timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")

    return edit


# TCB levels, the TDX module, the quoting enclave


@fault("tcb-revoked")
def revoked_tcb_level(w: World) -> object:
    return w.verify(w.tdx(), edits=CollateralEdits(tcb_info=_level(tcbStatus="Revoked")))


@fault("tcb-revoked")
def revoked_tdx_module(w: World) -> object:
    def edit(tcb_info: dict[str, Any]) -> None:
        tcb_info["tdxModuleIdentities"][0]["tcbLevels"][0]["tcbStatus"] = "Revoked"

    return w.verify(w.tdx(), edits=CollateralEdits(tcb_info=edit))


@fault("tcb-revoked")
def revoked_quoting_enclave(w: World) -> object:
    def edit(identity: dict[str, Any]) -> None:
        identity["tcbLevels"][0]["tcbStatus"] = "Revoked"

    return w.verify(w.tdx(), edits=CollateralEdits(qe_identity=edit))


@fault("tcb-status-unknown")
def status_nobody_knows(w: World) -> object:
    return w.verify(w.tdx(), edits=CollateralEdits(tcb_info=_level(tcbStatus="Splendid")))


@fault("tcb-status-not-accepted")
def status_out_of_date(w: World) -> object:
    return w.verify(w.tdx(), edits=CollateralEdits(tcb_info=_level(tcbStatus="OutOfDate")))


@fault("tcb-status-not-accepted")
def status_configuration_needed(w: World) -> object:
    return w.verify(w.tdx(), edits=CollateralEdits(tcb_info=_level(tcbStatus="ConfigurationNeeded")))


@fault("no-matching-tcb-level")
def sgx_component_below_every_level(w: World) -> object:
    return w.verify(w.tdx(), edits=CollateralEdits(tcb_info=_component("sgxtcbcomponents", 7, 6)))


@fault("no-matching-tcb-level")
def tdx_component_below_every_level(w: World) -> object:
    return w.verify(w.tdx(), edits=CollateralEdits(tcb_info=_component("tdxtcbcomponents", 2, 9)))


@fault("no-matching-tcb-level")
def pce_below_every_level(w: World) -> object:
    return w.verify(w.tdx(), edits=CollateralEdits(tcb_info=lambda t: t["tcbLevels"][0]["tcb"].update(pcesvn=14)))


@fault("tdx-module-mismatch")
def tdx_module_of_another_signer(w: World) -> object:
    return w.verify(w.tdx(mr_signer_seam=bytes([1] * 48)))


@fault("tdx-module-mismatch")
def tdx_module_with_debug_attributes(w: World) -> object:
    return w.verify(w.tdx(seam_attributes=bytes([1]) + bytes(7)))


@fault("tdx-module-mismatch")
def tdx_module_of_an_unlisted_version(w: World) -> object:
    return w.verify(w.tdx(tee_tcb_svn=bytes([3, 2, 6]) + bytes(13)))


@fault("tdx-module-mismatch")
def tdx_module_below_every_level(w: World) -> object:
    def edit(tcb_info: dict[str, Any]) -> None:
        tcb_info["tdxModuleIdentities"][0]["tcbLevels"][0]["tcb"]["isvsvn"] = 4

    return w.verify(w.tdx(), edits=CollateralEdits(tcb_info=edit))


@fault("tcb-info-malformed")
def tcb_info_without_a_tdx_module(w: World) -> object:
    return w.verify(w.tdx(), edits=CollateralEdits(tcb_info=lambda t: t.pop("tdxModule")))


@fault("tcb-info-malformed")
def tcb_info_with_too_few_components(w: World) -> object:
    def edit(tcb_info: dict[str, Any]) -> None:
        tcb_info["tcbLevels"][0]["tcb"]["sgxtcbcomponents"].pop()

    return w.verify(w.tdx(), edits=CollateralEdits(tcb_info=edit))


@fault("qe-mrsigner-mismatch")
def quoting_enclave_of_another_signer(w: World) -> object:
    return w.verify(_with_qe(w, mrsigner=bytes(32)))


@fault("qe-isvprodid-mismatch")
def quoting_enclave_of_another_product(w: World) -> object:
    return w.verify(_with_qe(w, product_id=7))


@fault("qe-attributes-mismatch")
def quoting_enclave_with_other_attributes(w: World) -> object:
    return w.verify(_with_qe(w, flags=0x31))


@fault("qe-debug-enabled")
def quoting_enclave_in_debug_mode(w: World) -> object:
    return w.verify(_with_qe(w, flags=0x13))


@fault("qe-miscselect-mismatch")
def quoting_enclave_with_other_miscselect(w: World) -> object:
    return w.verify(_with_qe(w, misc_select=1))


@fault("qe-no-matching-tcb-level")
def quoting_enclave_below_every_level(w: World) -> object:
    return w.verify(_with_qe(w, svn=1))


def _with_qe(w: World, **fields: int | bytes) -> bytes:
    return QuotingEnclave.create(w.pki, **fields).tdx_quote(TdReport())


def _level(**members: str) -> Callable[[dict[str, Any]], None]:
    return lambda tcb_info: tcb_info["tcbLevels"][0].update(members)


def _component(kind: str, index: int, svn: int) -> Callable[[dict[str, Any]], None]:
    return lambda tcb_info: tcb_info["tcbLevels"][0]["tcb"][kind][index].update(svn=svn)


# Attributes of the TEE itself


@fault("debug-enabled")
def debug_trust_domain(w: World) -> object:
    return w.verify(w.tdx(td_attributes=1 | 1 << 28))


@fault("debug-enabled")
def debug_enclave(w: World) -> object:
    return w.verify(w.sgx(flags=0x07), tee="sgx")


@fault("sept-ve-not-disabled")
def sept_ve_not_disabled(w: World) -> object:
    return w.verify(w.tdx(td_attributes=0))


@fault("pks-enabled")
def protection_keys(w: World) -> object:
    return w.verify(w.tdx(td_attributes=1 << 28 | 1 << 30))


@fault("key-locker-enabled")
def key_locker(w: World) -> object:
    return w.verify(w.tdx(td_attributes=1 << 28 | 1 << 31))


@fault("perfmon-enabled")
def performance_counters(w: World) -> object:
    return w.verify(w.tdx(td_attributes=1 << 28 | 1 << 63))


@fault("td-migratable")
def migratable(w: World) -> object:
    return w.verify(w.tdx(td_attributes=1 << 28 | 1 << 29))


@fault("td-profiling-enabled")
def profiled(w: World) -> object:
    return w.verify(w.tdx(td_attributes=1 << 28 | 1 << 5))


@fault("td-attributes-reserved")
def reserved_attribute(w: World) -> object:
    return w.verify(w.tdx(td_attributes=1 << 28 | 1 << 40))


@fault("xfam-invalid")
def reserved_xfam(w: World) -> object:
    return w.verify(w.tdx(xfam=0x602E7 | 1 << 40))


@fault("xfam-invalid")
def xfam_without_x87(w: World) -> object:
    return w.verify(w.tdx(xfam=0x602E6))


@fault("service-td-bound")
def service_td(w: World) -> object:
    return w.verify(w.enclave.tdx_quote(TdReport(mr_service_td=bytes([1] * 48)), version=5, td15=True))


@fault("sgx-attributes-invalid")
def enclave_that_was_never_initialised(w: World) -> object:
    return w.verify(w.sgx(flags=0x04), tee="sgx")


@fault("provision-key-allowed")
def enclave_with_the_provisioning_key(w: World) -> object:
    return w.verify(w.sgx(flags=0x15), tee="sgx")


@fault("einittoken-key-allowed")
def enclave_with_the_launch_key(w: World) -> object:
    return w.verify(w.sgx(flags=0x25), tee="sgx")


def test_undecided_is_exactly_what_is_missing_or_expired(world: World) -> None:
    for name, (code, function) in FAULTS.items():
        with pytest.raises(CasemateError) as caught:
            function(world)
        out_of_reach = code.endswith(("-missing", "-expired")) and not code.startswith("pck-")
        assert isinstance(caught.value, UndecidedError) is out_of_reach, name


def test_a_chain_without_its_root_finds_its_anchor(world: World) -> None:
    class Rootless(SimulatedPki):
        @property
        def pck_chain(self) -> str:
            return self.pck.pem + self.pck_ca.pem

    rootless = Rootless(**vars(world.pki))
    assert world.verify(replace(world.enclave, pki=rootless).tdx_quote(TdReport())).simulated


def test_a_certificate_that_only_claims_the_root_s_name_finds_no_anchor(world: World) -> None:
    impostor = make.make_authority("SIMULATED SGX Root CA", None, world.now, years=1, path_length=1)
    assert impostor.certificate.subject == world.pki.root.certificate.subject
    mixed = replace(world.pki, root=impostor)
    with pytest.raises(CasemateError) as caught:
        world.verify(replace(world.enclave, pki=mixed).tdx_quote(TdReport()))
    assert caught.value.code == "untrusted-root"
