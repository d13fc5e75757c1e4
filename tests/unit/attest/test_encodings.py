"""Evidence and collateral in the encodings that attesters, clouds and caching services write them in."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import struct
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote as url_quote

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from tests.unit.attest.makers import CHALLENGE, Given, Makers

from casemate.attestation.platforms.intel.errors import CollateralMalformedError
from casemate.attestation.platforms.intel.layouts import read_pieces
from casemate.attestation.platforms.snp.endorsement import VekKind
from casemate.attestation.policy import Outcome


@pytest.fixture(scope="module")
def makers() -> Makers:
    return Makers()


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def accepted(given: Given) -> None:
    judgement = given.judge()
    assert judgement.outcome is Outcome.ACCEPTED, judgement.reason


def dump(raw: bytes, form: str, group: int) -> bytes:
    lines = []
    for at in range(0, len(raw), 16):
        row = raw[at : at + 16]
        seen = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        lines.append(form.format(at, row.hex(" ", -group), seen) + "\n")
    return "".join(lines).encode()


def reordered(raw: bytes, order: tuple[int, ...]) -> bytes:
    """The quote with the certificates of its chain in another order."""
    found = list(re.finditer(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", raw, re.DOTALL))
    parts, end = [], 0
    for match, index in zip(found, order, strict=True):
        parts += [raw[end : match.start()], found[index][0]]
        end = match.end()
    return b"".join([*parts, raw[end:]])


QUOTES: dict[str, Callable[[bytes], bytes]] = {
    "raw": bytes,
    "zero_padded": lambda raw: raw.ljust(8000, b"\0"),
    "hex": lambda raw: raw.hex().encode(),
    "hex_upper_with_prefix": lambda raw: b"0x" + raw.hex().upper().encode() + b"\n",
    "hex_in_lines": lambda raw: b"\n".join(raw.hex().encode()[i : i + 60] for i in range(0, 2 * len(raw), 60)),
    "base64": lambda raw: b64(raw).encode(),
    "base64_in_lines": base64.encodebytes,
    "base64url": lambda raw: base64.urlsafe_b64encode(raw).rstrip(b"="),
    "json": lambda raw: as_json({"quote": b64(raw)}),
    "json_hex": lambda raw: as_json({"quote": raw.hex()}),
    "json_array": lambda raw: as_json({"quote": list(raw)}),
    "collected": lambda raw: as_json({"tee": "tdx", "evidence": {"quote": b64(raw)}}),
    "hex_with_colons": lambda raw: raw.hex(":").encode(),
    "hex_with_spaces": lambda raw: raw.hex(" ").upper().encode(),
    "c_array": lambda raw: b"{" + b",\n".join(b"0x%02x" % byte for byte in raw) + b"};",
    "xxd": lambda raw: dump(raw, "{:08x}: {}  {}", 2),
    "xxd_without_characters": lambda raw: dump(raw, "{:08x}: {}", 2),
    "hex_in_words": lambda raw: raw.hex(" ", -4).encode(),
    "hexdump": lambda raw: dump(raw, "{:08x}  {}  |{}|", 1) + b"%08x\n" % len(raw),
    "armour": lambda raw: b"-----BEGIN QUOTE-----\n" + base64.encodebytes(raw) + b"-----END QUOTE-----\n",
    "json_with_byte_order_mark": lambda raw: b"\xef\xbb\xbf" + as_json({"quote": b64(raw)}),
    "hex_in_utf_16": lambda raw: raw.hex().encode("utf-16"),
    "json_numbers": lambda raw: as_json(list(raw)),
    "json_text": lambda raw: as_json(b64(raw)),
    "trust_authority_request": lambda raw: as_json({"policy_ids": [], "tdx": {"quote": b64(raw), "runtime_data": ""}}),
    "root_first": lambda raw: reordered(raw, (2, 1, 0)),
    "intermediate_last": lambda raw: reordered(raw, (0, 2, 1)),
    "intermediate_first": lambda raw: reordered(raw, (1, 0, 2)),
    "kbs_request": lambda raw: as_json({"tee-evidence": {"primary_evidence": {"quote": b64(raw)}}}),
}


@pytest.mark.parametrize("encode", QUOTES.values(), ids=QUOTES.keys())
def test_quotes_are_read_in_every_encoding(makers: Makers, encode: Callable[[bytes], bytes]) -> None:
    for given in (makers.tdx(), makers.sgx()):
        accepted(given.but(content=encode(given.content)))


def response(report: bytes) -> bytes:
    """MSG_REPORT_RSP as /dev/sev-guest returns it."""
    return struct.pack("<II", 0, len(report)) + bytes(24) + report


def with_table(report: bytes, vek: bytes) -> bytes:
    """A report and the certificate table of an extended request."""
    guid = uuid.UUID("63da758d-e664-4564-adc5-f4b93be8accd").bytes_le
    return report + guid + struct.pack("<II", 48, len(vek)) + bytes(24) + vek


REPORTS: dict[str, Callable[[bytes, bytes], bytes]] = {
    "raw": lambda report, vek: report,
    "zero_padded_page": lambda report, vek: report.ljust(4096, b"\0"),
    "hex": lambda report, vek: report.hex().encode(),
    "base64": lambda report, vek: b64(report).encode(),
    "device_response": lambda report, vek: response(report).ljust(4000, b"\0"),
    "with_certificate_table": with_table,
    "json_base64": lambda report, vek: as_json({"report": b64(report)}),
    "json_hex": lambda report, vek: as_json({"attestation_report": report.hex()}),
    "json_with_vcek": lambda report, vek: as_json({"report": b64(report), "vcek": b64(vek)}),
    "json_array_with_chain": lambda report, vek: as_json(
        {"attestation_report": list(report), "cert_chain": [{"cert_type": "VCEK", "data": list(vek)}]}
    ),
}


@pytest.mark.parametrize("encode", REPORTS.values(), ids=REPORTS.keys())
@pytest.mark.parametrize("version", [2, 3, 4, 5])
def test_reports_are_read_in_every_encoding(
    makers: Makers, version: int, encode: Callable[[bytes, bytes], bytes]
) -> None:
    vek = makers.vek
    report = makers.amd.report(vek, version=version, report_data=CHALLENGE)
    given = makers.snp()
    accepted(given.but(content=encode(report, vek.der), certificates=(*given.certificates, vek.der)))


def test_a_vlek_beside_the_report_is_found_among_other_certificates(makers: Makers) -> None:
    vlek = makers.amd.vek(VekKind.VLEK)
    heap = b"".join((makers.amd.certificates["ASVK"], vlek.der, makers.amd.certificates["ARK"]))
    report = makers.amd.report(vlek, report_data=CHALLENGE)
    accepted(makers.snp().but(content=report, certificates=(heap, makers.pki.root.der, makers.tpm_key.spki)))


def test_an_event_log_inside_the_evidence_has_to_fit(makers: Makers) -> None:
    given = makers.tdx()
    body = {"quote": b64(given.content), "cc_eventlog": b64(bytes(200))}
    assert given.but(content=as_json(body)).judge().code == "eventlog-malformed"


def test_a_log_of_one_json_object_per_event_has_to_fit(makers: Makers) -> None:
    digests = [bytes([n]) * 48 for n in (1, 2)]
    rtmr = hashlib.sha384(hashlib.sha384(bytes(48) + digests[0]).digest() + digests[1]).digest()
    good = makers.tdx(rtmr=(rtmr, bytes(48), bytes(48), bytes(48)))
    events = [{"imr": 0, "event_type": 4, "digest": d.hex(), "event": "", "event_payload": ""} for d in digests]
    for log in (events, json.dumps(events)):
        accepted(good.but(content=as_json({"quote": good.content.hex(), "event_log": log})))
    accepted(good.but(event_log=as_json(events)))
    for bad in (events[::-1], events[:1], [{**events[0], "imr": 1}, events[1]]):
        assert good.but(event_log=as_json(bad)).judge().code == "eventlog-mismatch"
    for bad in ([{}], [{**events[0], "imr": 4}], [{**events[0], "digest": "00"}], [{**events[0], "event_type": -1}]):
        assert good.but(event_log=as_json(bad)).judge().code == "eventlog-malformed"


def test_a_token_is_no_evidence_and_is_told_so(makers: Makers) -> None:
    judged = makers.tdx().but(content=b"eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJ4In0.c2ln").judge()
    assert judged.code == "evidence-unrecognised"
    assert judged.reason is not None
    assert "token (JWT)" in judged.reason.got


def test_gpu_evidence_is_read_as_a_report_and_as_a_list(makers: Makers) -> None:
    given = makers.gpu()
    devices = json.loads(given.content)["device_evidence_list"]
    accepted(given.but(content=as_json(devices)))
    accepted(given.but(content=as_json(devices[0])))
    chain = (makers.device.chain(makers.device.ca, makers.device.root), makers.device.leaf.public_bytes(Encoding.DER))
    report = base64.b64decode(devices[0]["evidence"])
    for content in (report, report.hex().encode(), b64(report).encode()):
        accepted(given.but(content=content, certificates=chain))


# -- collateral -----------------------------------------------------------------------------------------------------
def wrapped(text: str, name: str, signature: str) -> str:
    """As a PCS replies: the signed text inside an object, untouched."""
    return f'{{"{name}": {text} , "signature" : "{signature}"}}'


def camel(value: dict[str, str]) -> dict[str, Any]:
    return {"".join([*name.split("_")[:1], *(p.title() for p in name.split("_")[1:])]): v for name, v in value.items()}


def replies(value: dict[str, Any]) -> dict[str, Any]:
    out = {name: text for name, text in value.items() if not name.endswith("signature")}
    out["tcb_info"] = wrapped(value["tcb_info"], "tcbInfo", value["tcb_info_signature"])
    out["qe_identity"] = wrapped(value["qe_identity"], "enclaveIdentity", value["qe_identity_signature"])
    return out


def objects(value: dict[str, Any]) -> str:
    """Signed documents as objects in the document, their text untouched."""
    rest = json.dumps({name: text for name, text in value.items() if name not in ("tcb_info", "qe_identity")})
    return f'{{"tcb_info": {value["tcb_info"]}, "qe_identity": {value["qe_identity"]}, {rest[1:]}'


def crls(value: dict[str, Any], write: Callable[[bytes], Any]) -> dict[str, Any]:
    return value | {name: write(bytes.fromhex(value[name])) for name in ("root_ca_crl", "pck_crl")}


def pem_crl(der: bytes) -> str:
    return f"-----BEGIN X509 CRL-----\n{base64.encodebytes(der).decode()}-----END X509 CRL-----\n"


LAYOUTS: dict[str, Callable[[dict[str, Any]], str]] = {
    "plain": json.dumps,
    "indented": lambda value: json.dumps(value, indent=4),
    "camel_case": lambda value: json.dumps(camel(value)),
    "replies_inside": lambda value: json.dumps(replies(value)),
    "objects_inside": objects,
    "objects_indented": lambda value: json.dumps(json.loads(objects(value)), indent=2),
    "crls_base64": lambda value: json.dumps(crls(value, b64)),
    "crls_base64_of_hex": lambda value: json.dumps(crls(value, lambda der: b64(der.hex().encode()))),
    "crls_pem": lambda value: json.dumps(crls(value, pem_crl)),
    "crls_array": lambda value: json.dumps(crls(value, list)),
    "chains_as_in_http_headers": lambda value: json.dumps(
        {name: url_quote(text) if name.endswith("chain") else text for name, text in value.items()}
    ),
    "in_a_member": lambda value: json.dumps({"collateral": value, "version": 3}),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_collateral_is_read_in_every_layout(makers: Makers, layout: Callable[[dict[str, Any]], str]) -> None:
    for given in (makers.tdx(), makers.sgx()):
        accepted(given.but(collateral=(layout(json.loads(given.collateral[0])),)))


def test_collateral_comes_in_pieces(makers: Makers) -> None:
    """Replies of a PCS as files, chains and lists as certificate files."""
    given = makers.tdx()
    value = json.loads(given.collateral[0])
    tcb_info = wrapped(value["tcb_info"], "tcbInfo", value["tcb_info_signature"])
    identity = wrapped(value["qe_identity"], "enclaveIdentity", value["qe_identity_signature"])
    files = [
        makers.pki.root.der,
        makers.pki.tcb_signer.pem.encode(),
        makers.pki.pck_ca.pem.encode(),
        bytes.fromhex(value["root_ca_crl"]),
        pem_crl(bytes.fromhex(value["pck_crl"])).encode(),
    ]
    accepted(given.but(collateral=(tcb_info, identity), certificates=tuple(files)))
    accepted(
        given.but(collateral=(identity, tcb_info), certificates=(b"".join((files[1], files[2])), files[0], *files[3:]))
    )
    for missing in range(len(files)):
        rest = tuple(content for index, content in enumerate(files) if index != missing)
        judgement = given.but(collateral=(tcb_info, identity), certificates=rest).judge()
        assert (judgement.outcome, judgement.code) == (Outcome.UNDECIDED, "collateral-missing")
    for pieces in ((tcb_info,), (identity,)):
        judgement = given.but(collateral=pieces, certificates=tuple(files)).judge()
        assert judgement.code == "collateral-missing"


def test_of_several_whole_documents_the_right_one_is_taken(makers: Makers) -> None:
    tdx, sgx = makers.tdx(), makers.sgx()
    both = (*sgx.collateral, *tdx.collateral)
    accepted(tdx.but(collateral=both))
    accepted(sgx.but(collateral=both))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{",
        '{"tcb_info": 1}',
        '{"tcb_info": "x"}',
        '{"a": 1, "a": 2}',
        "[" * 50_000,
        '{"pck_crl": {}}',
    ],
)
def test_malformed_collateral_is_refused_by_name(text: str) -> None:
    with pytest.raises(CollateralMalformedError):
        read_pieces(text)


def test_certificates_of_other_makers_in_the_heap_do_no_harm(makers: Makers, vectors: Path) -> None:
    """One heap of every maker's certificates serves all platforms."""
    heap = tuple(path.read_bytes() for path in sorted(vectors.glob("*/*ask_ark*.pem")))
    heap += tuple(path.read_bytes() for path in sorted(vectors.glob("tpm/*.c*r*")))
    heap += ((vectors / "gpu/hopper_cert_chain_case1.txt").read_bytes(),)
    heap += ((vectors / "snp/coco_milan_v2.vcek.der").read_bytes(), makers.pki.root.der)
    for name in ("gpu/hopperAttestationReport.txt", "snp/coco_milan_v2.report", "tpm/gce_cos85_no_nonce.json"):
        accepted(Given((vectors / name).read_bytes(), certificates=heap, challenge=None, policy=None))
