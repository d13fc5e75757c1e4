"""Reference values: signed by their builder, compared in words, pinned by a policy that can be used."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from casemate.attestation.claims import Claims
from casemate.attestation.policy import AppraisalPolicy, Outcome
from casemate.attestation.reference import (
    REFERENCE_TYPE,
    Input,
    Reference,
    changes,
    open_reference,
    policy_yaml,
    sign_reference,
    values_of_claims,
)
from casemate.attestation.reference_errors import (
    ReferenceBuilderUnknownError,
    ReferenceEmptyError,
    ReferenceExpiredError,
    ReferenceInputError,
    ReferenceMalformedError,
    ReferenceSignatureError,
)
from casemate.crypto.jose import KeyPair

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEY = KeyPair.generate()
SNP, RTMR, WORKLOAD = "6d" * 48, "3f" * 48, "ab" * 48
GOOD = Reference(
    name="runtime-0.1",
    values={"snp.measurement": SNP, "tdx.rtmr0": RTMR, "workload": WORKLOAD},
    inputs=(Input("ovmf", "OVMF.fd", "11" * 32, 4096), Input("event log", "ccel.bin", "22" * 32, 100)),
    parameters={"snp.vcpus": "1", "snp.append": "console=ttyS0"},
    tools={"casemate": "0.1.0", "sev-snp-measure": "0.0.13"},
    issued=NOW,
    expires=NOW + timedelta(days=365),
)


def test_a_document_opens_as_it_was_signed() -> None:
    found = open_reference(sign_reference(GOOD, KEY) + "\n", builder=KEY.public, now=NOW)
    assert found == replace(GOOD, builder=KEY.public)
    assert found.builder_thumbprint == KEY.thumbprint


def test_another_builder_is_refused() -> None:
    with pytest.raises(ReferenceBuilderUnknownError):
        open_reference(sign_reference(GOOD, KEY), builder=KeyPair.generate().public)


def test_an_expired_document_is_undecided() -> None:
    with pytest.raises(ReferenceExpiredError) as caught:
        open_reference(sign_reference(GOOD, KEY), now=NOW + timedelta(days=366))
    assert caught.value.exit_status == 3


def _parts(token: str) -> list[str]:
    return token.split(".")


def _encoded(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def test_a_changed_value_is_refused() -> None:
    header, payload, signature = _parts(sign_reference(GOOD, KEY))
    document = json.loads(base64.urlsafe_b64decode(payload + "=="))
    document["values"]["snp.measurement"] = "00" * 48
    with pytest.raises(ReferenceSignatureError):
        open_reference(f"{header}.{_encoded(document)}.{signature}", builder=KEY.public)


def test_the_builder_named_has_to_be_the_one_who_signed() -> None:
    stranger = KeyPair.generate()
    token = KEY.sign({**GOOD.to_json(), "builder": stranger.public}, typ=REFERENCE_TYPE)
    with pytest.raises(ReferenceSignatureError):
        open_reference(token, builder=stranger.public)


def test_a_signature_for_something_else_does_not_count() -> None:
    token = KEY.sign({**GOOD.to_json(), "builder": KEY.public}, typ="casemate-grant+jws")
    with pytest.raises(ReferenceMalformedError, match="type"):
        open_reference(token)


@pytest.mark.parametrize("token", ["", "a.b.c", "....", "e30.e30.", "x" * (1024 * 1024 + 1), "{}"])
def test_what_is_no_document_is_refused(token: str) -> None:
    with pytest.raises(ReferenceMalformedError):
        open_reference(token)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"extra": 1},
        {"name": "Not A Word"},
        {"name": 7},
        {"values": {}},
        {"values": {"snp.measurement": "zz"}},
        {"values": {"unknown": SNP}},
        {"values": []},
        {"issued": "yesterday"},
        {"expires": "2026-03-01T12:00:00"},
        {"expires": None},
        {"builder": None},
        {"builder": {"kty": "oct", "k": "AAAA"}},
        {"inputs": {}},
        {"inputs": [{"role": "ovmf"}]},
        {"inputs": [{"role": "ovmf", "name": 1, "sha256": "", "size": "1"}]},
        {"parameters": {"a": 1}},
        {"tools": None},
    ],
)
def test_a_document_of_another_form_is_refused(change: dict[str, Any]) -> None:
    token = KEY.sign({**GOOD.to_json(), "builder": KEY.public, **change}, typ=REFERENCE_TYPE)
    with pytest.raises(ReferenceMalformedError):
        open_reference(token)


def test_nothing_is_not_signed() -> None:
    with pytest.raises(ReferenceEmptyError):
        sign_reference(replace(GOOD, values={}), KEY)


# -- what changed ------------------------------------------------------------------------------------------------------
def test_the_same_build_has_no_changes() -> None:
    assert changes(GOOD, replace(GOOD, name="again", issued=NOW + timedelta(days=1))) == []


def test_a_changed_digest_names_the_input_that_changed_it() -> None:
    new = replace(
        GOOD,
        values={**GOOD.values, "snp.measurement": "7e" * 48},
        inputs=(replace(GOOD.inputs[0], sha256="99" * 32), GOOD.inputs[1]),
        parameters={**GOOD.parameters, "snp.append": "console=ttyS1"},
    )
    texts = [change.text() for change in changes(GOOD, new)]
    assert texts[0].startswith("the SNP launch digest changed from 6d6d")
    assert texts[0].endswith("because the input ovmf and the parameter snp.append changed")
    assert "the parameter snp.append changed from 'console=ttyS0' to 'console=ttyS1'" in texts


def test_what_is_new_or_gone_is_said() -> None:
    new = replace(GOOD, values={"snp.measurement": SNP, "workload": WORKLOAD, "sgx.measurement": "12" * 32})
    texts = [change.text() for change in changes(GOOD, new)]
    assert texts == [
        "MRENCLAVE is new: 121212121212121212121212…",
        "RTMR0 (firmware configuration) is gone: it was 3f3f3f3f3f3f3f3f3f3f3f3f…",
    ]


def test_a_change_of_builder_or_tool_is_said() -> None:
    old = replace(GOOD, builder=KEY.public)
    new = replace(GOOD, builder=KeyPair.generate().public, tools={**GOOD.tools, "sev-snp-measure": "0.0.14"})
    kinds = [(change.kind, change.name) for change in changes(old, new)]
    assert kinds == [("tool", "sev-snp-measure"), ("document", "builder")]


# -- policies ----------------------------------------------------------------------------------------------------------
def _claims(**changes: Any) -> Claims:
    made = Claims(platform="snp", simulated=False, debug=False, measurement=SNP, workload=WORKLOAD, report_data="")
    return replace(made, **changes)


def test_a_policy_pins_what_the_builder_signed() -> None:
    signed = open_reference(sign_reference(GOOD, KEY))
    policy = AppraisalPolicy.from_yaml(policy_yaml(signed, "snp"))
    assert policy.measurements == [SNP]
    assert policy.workloads == [WORKLOAD]
    other = policy.appraise(_claims(measurement="00" * 48), now=NOW)
    assert other.outcome is Outcome.REFUSED
    assert "measurement-mismatch" in other.codes
    assert "measurement-mismatch" not in policy.appraise(_claims(), now=NOW).codes


def test_rtmrs_are_pinned_with_their_firmware_only() -> None:
    with pytest.raises(ReferenceInputError, match="MRTD"):
        policy_yaml(GOOD, "tdx")
    policy = AppraisalPolicy.from_yaml(policy_yaml(GOOD, "tdx", "cd" * 48))
    assert policy.rtmrs == {"0": [RTMR]}
    assert policy.measurements == ["cd" * 48]


def test_a_simulated_value_makes_a_policy_that_says_so() -> None:
    only = replace(GOOD, values={"simulator.measurement": SNP})
    policy = AppraisalPolicy.from_yaml(policy_yaml(only))
    assert policy.allow_simulated
    assert not AppraisalPolicy.from_yaml(policy_yaml(GOOD, "snp")).allow_simulated


def test_the_platform_has_to_be_clear() -> None:
    with pytest.raises(ReferenceEmptyError, match="snp, tdx"):
        policy_yaml(GOOD)
    with pytest.raises(ReferenceEmptyError):
        policy_yaml(GOOD, "sgx")
    with pytest.raises(ReferenceEmptyError):
        policy_yaml(replace(GOOD, values={"workload": WORKLOAD}))


def test_evidence_shows_the_values_of_its_platform() -> None:
    assert values_of_claims(_claims()) == {"snp.measurement": SNP, "workload": WORKLOAD}
    tdx = values_of_claims(_claims(platform="tdx", rtmr=(RTMR,) * 4, workload="00" * 48))
    assert sorted(tdx) == ["tdx.rtmr0", "tdx.rtmr1", "tdx.rtmr2", "tdx.rtmr3"]
    assert values_of_claims(_claims(platform="tdx", simulated=True))["simulator.measurement"] == SNP
    assert set(values_of_claims(_claims(platform="tpm"))) == {"workload"}
