"""``casemate attest``: what it prints and exits with, beside the judgement itself."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.unit.attest.conftest import Run
from tests.unit.attest.makers import CHALLENGE, Makers

from casemate.attestation.evidence import Evidence
from casemate.cli import attest
from casemate.cli.main import invoke

NOW = "2026-06-01T12:00:00Z"
TRIAL = "version: 1\nname: trial\nallow_simulated: true\nplatforms: [tdx]\n"


@pytest.fixture(scope="module")
def makers() -> Makers:
    return Makers()


@pytest.fixture
def files(tmp_path: Path, makers: Makers) -> list[str]:
    """The arguments of a command that accepts."""
    given = makers.tdx()
    (tmp_path / "quote.bin").write_bytes(given.content)
    (tmp_path / "collateral.json").write_text(given.collateral[0])
    (tmp_path / "root.der").write_bytes(given.trust_anchor or b"")
    (tmp_path / "trial.yaml").write_text(TRIAL)
    options = {"--collateral": "collateral.json", "--trust-anchor": "root.der", "--policy": "trial.yaml"}
    named = [part for name, file in options.items() for part in (name, str(tmp_path / file))]
    return [str(tmp_path / "quote.bin"), *named, "--at", NOW]


def test_accepted_is_silent_on_stderr_but_for_what_is_simulated(
    files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["attest", "verify", *files]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("accepted\n")
    assert "SIMULATED" in captured.out
    assert captured.err.startswith("SIMULATED")
    assert captured.err.count("\n") == 1


def test_a_refusal_is_one_line_and_a_hint(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["attest", "verify", *files, "--challenge", "00"]) == 1
    captured = capsys.readouterr()
    assert captured.out.startswith("refused: report-data-mismatch\n")
    lines = captured.err.splitlines()
    assert lines[1].startswith("refused: report-data-mismatch: challenge expected 00")
    assert lines[2].startswith("hint: ")


def test_undecided_exits_with_3(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    without = files[:1] + files[3:]
    assert invoke(["attest", "verify", *without]) == 3
    assert "undecided: collateral-missing: collateral: none given for tdx" in capsys.readouterr().err


def test_json_is_all_that_stdout_gets(files: list[str], run: Run) -> None:
    status, found = run(*files, "--challenge", CHALLENGE.hex())
    assert (status, found["outcome"], found["code"]) == (0, "accepted", None)
    assert found["claims"]["verified"] is True
    assert [c["clause"] for c in found["clauses"]][:2] == ["evidence", "challenge"]


def test_evidence_comes_by_stdin(files: list[str], run: Run, makers: Makers, monkeypatch: pytest.MonkeyPatch) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(makers.tdx().content))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert run("-", *files[1:])[0] == 0


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--at", "yesterday"], "usage"),
        (["--challenge", "xyz"], "challenge-malformed"),
        (["--challenge", ""], "challenge-malformed"),
        (["--challenge", "00" * 65], "challenge-malformed"),
        (["--platform", "cca"], "usage"),
        (["--collateral", "/nowhere.json"], "file-missing"),
        (["--certs", "/nowhere.pem"], "file-missing"),
        (["--policy", "/nowhere.yaml"], "file-missing"),
        (["--trust-anchor", "/dev/null"], "trust-anchor-invalid"),
        (["--event-log", "/"], "file-missing"),
    ],
)
def test_wrong_usage_exits_with_2(files: list[str], options: list[str], code: str, run: Run) -> None:
    status, found = run(*files, *options)
    assert (status, found["code"]) == (2, code)


def test_a_missing_file_and_a_bad_policy_are_usage(tmp_path: Path, files: list[str], run: Run) -> None:
    assert run(tmp_path / "none")[0] == 2
    (tmp_path / "empty.yaml").write_text("version: 1\nname: nothing\n")
    status, found = run(*files, "--policy", tmp_path / "empty.yaml")
    assert (status, found["code"]) == (2, "policy-malformed")


def test_an_event_log_for_evidence_without_registers_is_usage(makers: Makers, tmp_path: Path, run: Run) -> None:
    given = makers.snp()
    (tmp_path / "report.json").write_bytes(given.content)
    (tmp_path / "ark.der").write_bytes(given.trust_anchor or b"")
    (tmp_path / "chain.pem").write_bytes(given.certificates[0])
    arguments = (tmp_path / "report.json", "--certs", tmp_path / "chain.pem", "--trust-anchor", tmp_path / "ark.der")
    status, found = run(*arguments, "--at", NOW, "--event-log", tmp_path / "chain.pem")
    assert (status, found["code"]) == (2, "event-log-not-applicable")


def test_a_huge_file_is_refused_at_once(tmp_path: Path, run: Run) -> None:
    with (tmp_path / "huge.bin").open("wb") as file:
        file.truncate(3 << 30)
    status, found = run(tmp_path / "huge.bin")
    assert (status, found["code"]) == (1, "evidence-unrecognised")


class Machine:
    """A machine whose attester answers with a quote over the report data."""

    tee = "tdx"

    def __init__(self, makers: Makers) -> None:
        self.makers = makers

    def collect(self, report_data: bytes) -> Evidence:
        import base64

        quote = self.makers.tdx(report_data=report_data).content
        return Evidence("tdx", {"quote": base64.b64encode(quote).decode()})


def test_what_is_collected_is_what_is_verified(
    makers: Makers, files: list[str], tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attest, "find_attester", lambda: Machine(makers))
    out = tmp_path / "evidence.json"
    assert invoke(["attest", "collect", "--report-data", "00aabb", "--out", str(out)]) == 0
    assert json.loads(out.read_text())["tee"] == "tdx"
    assert run(out, *files[1:], "--challenge", "00aabb")[0] == 0
    assert run(out, *files[1:], "--challenge", "00aabc")[1]["code"] == "report-data-mismatch"


def test_without_a_tee_collect_says_what_was_looked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("CASEMATE_TEE_SOCKET", "CASEMATE_TPM"):
        monkeypatch.delenv(name, raising=False)
    real: Any = attest.find_attester
    monkeypatch.setattr(attest, "find_attester", lambda: real({}, root=Path("/nonexistent")))
    assert invoke(["attest", "collect"]) == 3
    captured = capsys.readouterr()
    assert captured.err.startswith("undecided: no-tee: no trusted execution environment here; looked for: ")
    assert json.loads(captured.out)["code"] == "no-tee"


@pytest.mark.parametrize("text", ["xyz", "0", "00" * 65])
def test_report_data_has_its_form(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["attest", "collect", "--report-data", text]) == 2
    assert json.loads(capsys.readouterr().out)["code"] == "challenge-malformed"
