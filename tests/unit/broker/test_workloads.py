"""Init-data: canonical or refused, its digest over the very bytes, its signers checked."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from tests.unit.broker.support import PATIENTS, REPORT, digest, manifest, text, zone

from casemate.broker.errors import WorkloadDigestError
from casemate.broker.workloads import WORKLOAD_TYPE, parse_init_data, sign_workload, verify_signers
from casemate.crypto.errors import SignatureInvalidError
from casemate.crypto.jose import KeyPair
from casemate.model import Access, DatasetName


def test_a_manifest_gives_its_digest_zones_and_outputs() -> None:
    workload = parse_init_data("json", text(manifest()))
    assert workload.digest == workload.bound == digest(manifest())
    assert workload.access(PATIENTS) is Access.READ
    assert workload.access(REPORT) is Access.WRITE
    assert workload.outputs == ("hospital/report",)


def test_datasets_of_columns_are_asked_and_written_for_as_their_zone_is() -> None:
    keys = {"columns": {"clinic/notes": ["note"]}, "plaintext_footer": False, "algorithm": "AES_GCM_V1"}
    value = manifest(zones=[zone(PATIENTS, "read"), {**zone(REPORT, "write"), "parquet": keys}])
    workload = parse_init_data("json", text(value))
    notes = DatasetName("clinic", "notes")
    assert workload.access(notes) is Access.WRITE
    assert workload.outputs == ("hospital/report", "clinic/notes")
    assert not workload.covers(notes, "file:///vault/report", write=True)  # what is committed there is the zone's own


BAD: list[tuple[str, str]] = [
    ("not JSON", "{"),
    ("a list", "[]"),
    ("spaces", json.dumps(manifest())),
    ("a trailing line end", text(manifest()) + "\n"),
    ("a duplicate member", '{"zones":[],"zones":[]}'),
    ("zones that are no list", '{"zones":{}}'),
    ("a zone without dataset", '{"zones":[{"access":"read","prefix":"file:///x"}]}'),
    ("an unknown access", text({"zones": [zone(PATIENTS, "append")]})),
    ("a relative prefix", text({"zones": [zone(PATIENTS, "read", "vault/x")]})),
    ("a prefix that climbs", text({"zones": [zone(PATIENTS, "read", "file:///vault/../etc")]})),
    ("columns of no dataset", text({"zones": [{**zone(PATIENTS, "read"), "parquet": {"columns": {}}}]})),
    ("too many zones", text({"zones": [zone(PATIENTS, "read")] * 1025})),
    ("a bottomless nest", "[" * 100_000),
]


@pytest.mark.parametrize("body", [b for _, b in BAD], ids=[n for n, _ in BAD])
def test_what_is_not_a_canonical_manifest_is_refused(body: str) -> None:
    with pytest.raises(WorkloadDigestError):
        parse_init_data("json", body)


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(WorkloadDigestError, match="format"):
        parse_init_data("xml", "<x/>")


@pytest.mark.parametrize("value", ["allow", None, True, "DENY"])
def test_anything_but_deny_counts_as_plaintext_output(value: Any) -> None:
    assert "plaintext" in parse_init_data("json", text(manifest(plaintext_output=value))).outputs


@pytest.mark.parametrize("algorithm", ["sha-256", "sha-384", "sha-512"])
def test_a_confidential_containers_document_may_carry_a_manifest(algorithm: str) -> None:
    inner = text(manifest())
    body = f'version = "0.1.0"\nalgorithm = "{algorithm}"\n\n[data]\n"aa.toml" = "x"\n"casemate.json" = \'{inner}\'\n'
    workload = parse_init_data("toml", body)
    assert workload.bound == hashlib.new(algorithm.replace("-", ""), body.encode()).hexdigest()
    assert workload.digest == digest(manifest())
    assert workload.access(PATIENTS) is Access.READ


def test_a_document_without_one_has_no_zones() -> None:
    workload = parse_init_data("toml", 'version = "0.1.0"\nalgorithm = "sha-384"\n[data]\n"policy.rego" = "x"\n')
    assert not workload.has_manifest
    assert workload.access(PATIENTS) is None


@pytest.mark.parametrize("body", ["", "data = 3", 'algorithm = "md5"\n[data]\n', 'algorithm = "sha-384"', "= ="])
def test_a_document_of_another_form_is_refused(body: str) -> None:
    with pytest.raises(WorkloadDigestError):
        parse_init_data("toml", body)


def test_a_signer_is_known_by_its_thumbprint() -> None:
    key = KeyPair.generate()
    assert verify_signers([sign_workload("ab" * 48, key)], "ab" * 48) == {key.thumbprint}
    assert verify_signers([], "ab" * 48) == frozenset()


def test_a_signature_for_another_digest_of_another_type_or_by_another_key_is_refused() -> None:
    key, other = KeyPair.generate(), KeyPair.generate()
    payload = {"version": 1, "workload": "ab" * 48}
    for jws in (
        sign_workload("cd" * 48, key),
        key.sign(payload, typ="casemate-grant+jws", header={"jwk": key.public}),
        key.sign(payload, typ=WORKLOAD_TYPE),
        key.sign(payload, typ=WORKLOAD_TYPE, header={"jwk": other.public}),
        "not.a.jws",
    ):
        with pytest.raises(SignatureInvalidError):
            verify_signers([jws], "ab" * 48)
