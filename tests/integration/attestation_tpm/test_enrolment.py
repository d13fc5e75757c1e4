"""Enrol attestation keys of real swtpms whose endorsement keys an authority certified, by the commands alone."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_public_key
from tests.support.cli import Done
from tests.support.swtpm import SoftwareTpm, require_swtpm
from tests.support.tpm_maker import TpmMaker

from casemate.attestation.platforms.tpm.attester import TpmAttester
from casemate.attestation.platforms.tpm.simulator import AkAuthority, SimulatedTpm
from casemate.attestation.platforms.tpm.structures import parse_tpmt_public
from casemate.attestation.trust_files import load_trust
from casemate.cli.main import invoke
from casemate.errors import CasemateError

require_swtpm("swtpm_setup", "swtpm_localca")

REPORT_DATA = bytes(range(64))
Cli = Callable[..., Done]


@pytest.fixture
def cli(home: Path, capfd: pytest.CaptureFixture[str]) -> Cli:
    """The command in this process: a quarter of the time, and there are many."""

    def run(*arguments: object) -> Done:
        capfd.readouterr()
        status = invoke([str(argument) for argument in arguments])
        return Done(status, *capfd.readouterr())

    return run


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> TpmMaker:
    return TpmMaker(tmp_path_factory.mktemp("maker"))


@pytest.fixture(scope="module")
def tpm(maker: TpmMaker) -> Iterator[SoftwareTpm]:
    with maker.make("tpm") as tpm:
        yield tpm


@pytest.fixture
def request_file(tpm: SoftwareTpm, tmp_path: Path, cli: Cli) -> Path:
    path = tmp_path / "request.json"
    assert cli("tpm", "request", "--tpm", tpm.tcti, "--out", path).status == 0
    return path


@pytest.fixture
def challenge_file(request_file: Path, maker: TpmMaker, tmp_path: Path, cli: Cli) -> Path:
    path = tmp_path / "challenge.json"
    done = cli("tpm", "challenge", request_file, "--ek-ca", maker.root, "--certs", maker.intermediate, "--out", path)
    assert done.status == 0, done
    assert "swtpm-localca" in done.err  # who certified it, for the administrator to compare
    return path


def changed(path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))
    return path


def code(done: Done) -> str:
    return done.err.split(": ")[1]


def verify(tcti: str, trust: Path) -> Any:
    with TpmAttester(tcti) as attester:
        return load_trust(trust).verify(attester.collect(REPORT_DATA), now=datetime.now(UTC))


def test_a_certified_tpm_is_enrolled_and_its_quotes_are_accepted(
    tpm: SoftwareTpm, challenge_file: Path, tmp_path: Path, home: Path, cli: Cli
) -> None:
    answer, trust = tmp_path / "answer.json", home / "broker" / "trust"
    assert cli("tpm", "answer", challenge_file, "--tpm", tpm.tcti, "--out", answer).status == 0
    with pytest.raises(CasemateError):
        verify(tpm.tcti, trust)
    done = cli("tpm", "enrol", answer, "--name", "worker 7")
    assert done.status == 0, done
    assert [path.name for path in (trust / "tpm" / "keys").iterdir()] == ["worker-7.pem"]
    claims = verify(tpm.tcti, trust)
    assert (claims.platform, claims.simulated, claims.platform_id) == ("tpm", False, done.out.strip())
    again = cli("tpm", "enrol", answer)
    assert (again.status, code(again)) == (1, "tpm-enrolment-unknown")


def test_another_tpm_cannot_answer(challenge_file: Path, maker: TpmMaker, cli: Cli) -> None:
    with maker.make("second") as second:
        done = cli("tpm", "answer", challenge_file, "--tpm", second.tcti)
    assert (done.status, code(done)) == (1, "tpm-credential")


def test_a_guessed_answer_is_refused_and_the_challenge_stays(challenge_file: Path, tmp_path: Path, cli: Cli) -> None:
    guess = tmp_path / "guess.json"
    guess.write_text(json.dumps({"id": json.loads(challenge_file.read_text())["id"], "secret": "AAAA"}))
    for _ in range(2):
        done = cli("tpm", "enrol", guess)
        assert (done.status, code(done)) == (1, "tpm-credential")


def test_a_certificate_of_another_maker_or_of_another_tpm_is_refused(
    request_file: Path, maker: TpmMaker, tmp_path: Path, cli: Cli
) -> None:
    stranger = tmp_path / "stranger.pem"
    authority = AkAuthority(datetime.now(UTC))
    stranger.write_bytes(authority.root.public_bytes(Encoding.PEM))
    done = cli("tpm", "challenge", request_file, "--ek-ca", stranger, "--certs", maker.intermediate)
    assert (done.status, code(done)) == (1, "tpm-ek-certificate-untrusted")
    with maker.make("third") as third:
        other = tmp_path / "other.json"
        cli("tpm", "request", "--tpm", third.tcti, "--out", other)
    foreign = json.loads(other.read_text())["ek_certificate"]
    changed(request_file, lambda value: value.update(ek_certificate=foreign))
    done = cli("tpm", "challenge", request_file, "--ek-ca", maker.root, "--certs", maker.intermediate)
    assert (done.status, code(done)) == (1, "tpm-ek-certificate-invalid")


def test_a_key_that_signs_anything_is_never_enrolled(request_file: Path, maker: TpmMaker, cli: Cli) -> None:
    loose = base64.b64encode(SimulatedTpm().tpmt_public(0x00040072)).decode()
    changed(request_file, lambda value: value.update(ak_public=loose))
    done = cli("tpm", "challenge", request_file, "--ek-ca", maker.root, "--certs", maker.intermediate)
    assert (done.status, code(done)) == (1, "tpm-key-attributes")


def test_an_attestation_key_certificate_of_the_makers_is_no_endorsement(
    request_file: Path, tmp_path: Path, cli: Cli
) -> None:
    """A certificate below the right root, but for another use."""
    authority = AkAuthority(datetime.now(UTC))
    ek = parse_tpmt_public(base64.b64decode(json.loads(request_file.read_text())["ek_public"]))
    wrong = authority.certify(ek.key).public_bytes(Encoding.DER)
    changed(request_file, lambda value: value.update(ek_certificate=base64.b64encode(wrong).decode()))
    root = tmp_path / "root.pem"
    root.write_bytes(authority.root.public_bytes(Encoding.PEM))
    done = cli("tpm", "challenge", request_file, "--ek-ca", root)
    assert (done.status, code(done)) == (1, "tpm-ek-certificate-invalid")


def test_a_stale_challenge_is_refused(
    challenge_file: Path, home: Path, tmp_path: Path, cli: Cli, tpm: SoftwareTpm
) -> None:
    answer = tmp_path / "answer.json"
    cli("tpm", "answer", challenge_file, "--tpm", tpm.tcti, "--out", answer)
    (kept,) = (home / "enrolments").iterdir()
    past = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    changed(kept, lambda value: value.update(expires=past))
    done = cli("tpm", "enrol", answer)
    assert (done.status, code(done)) == (1, "tpm-enrolment-unknown")


def test_a_tpm_without_a_certificate_says_so(tmp_path: Path, cli: Cli) -> None:
    with SoftwareTpm(tmp_path / "bare") as bare:
        done = cli("tpm", "request", "--tpm", bare.tcti)
    assert (done.status, code(done)) == (3, "tpm-ek-certificate-missing")


def test_keys_that_an_authority_of_ones_own_certified_are_accepted(
    tpm: SoftwareTpm, tmp_path: Path, challenge_file: Path, cli: Cli
) -> None:
    """The other road: the enrolled key goes to an authority, whose root is the broker's anchor."""
    answer, ak = tmp_path / "answer.json", tmp_path / "ak.pem"
    cli("tpm", "answer", challenge_file, "--tpm", tpm.tcti, "--out", answer)
    assert cli("tpm", "enrol", answer, "--out", ak).status == 0
    authority, trust = AkAuthority(datetime.now(UTC)), tmp_path / "trust"
    certificate = authority.certify(load_pem_public_key(ak.read_bytes()))
    chain = tmp_path / "chain.pem"
    chain.write_bytes(b"".join(c.public_bytes(Encoding.PEM) for c in (certificate, authority.intermediate)))
    for name, content in (("roots", authority.root.public_bytes(Encoding.PEM)), ("crls", authority.crl())):
        (trust / "tpm" / name).mkdir(parents=True)
        (trust / "tpm" / name / "authority").write_bytes(content)
    with TpmAttester(tpm.tcti, certificates=chain) as attester:
        claims = load_trust(trust).verify(attester.collect(REPORT_DATA), now=datetime.now(UTC))
    assert claims.extra["ak_trust"] == "certificate"
    assert claims.extra["ak_certificate"]["crls_checked"] == 1
    (trust / "tpm" / "crls" / "authority").write_bytes(authority.crl(certificate))
    with TpmAttester(tpm.tcti, certificates=chain) as attester, pytest.raises(CasemateError) as caught:
        load_trust(trust).verify(attester.collect(REPORT_DATA), now=datetime.now(UTC))
    assert caught.value.code == "tpm-ak-certificate-revoked"
