"""``casemate policy`` on files, and the page that ``attest verify`` prints for people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.attest.conftest import Run
from tests.unit.attest.makers import CHALLENGE, Makers

from casemate.cli.main import invoke

NOW = "2026-06-01T12:00:00Z"
TRIAL = "version: 1\nname: trial\nallow_simulated: true\nplatforms: [tdx]\n"
OTHER = "version: 1\nname: other\nallow_simulated: true\nany: [{platforms: [sgx]}, {min_svn: 3}]\n"


@pytest.fixture(scope="module")
def makers() -> Makers:
    return Makers()


@pytest.fixture
def files(tmp_path: Path, makers: Makers) -> list[str]:
    """The arguments of evidence that the policy trial accepts, but for the policy."""
    given = makers.tdx()
    (tmp_path / "quote.bin").write_bytes(given.content)
    (tmp_path / "collateral.json").write_text(given.collateral[0])
    (tmp_path / "root.der").write_bytes(given.trust_anchor or b"")
    (tmp_path / "trial.yaml").write_text(TRIAL)
    (tmp_path / "other.yaml").write_text(OTHER)
    options = {"--collateral": "collateral.json", "--trust-anchor": "root.der"}
    named = [part for name, file in options.items() for part in (name, str(tmp_path / file))]
    return [str(tmp_path / "quote.bin"), *named, "--at", NOW, "--challenge", CHALLENGE.hex()]


def command(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = invoke(["policy", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_check_tells_the_digest_and_warns_of_what_is_relaxed(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = command(capsys, "check", tmp_path / "trial.yaml")
    assert (status, out.split()[:2], err) == (0, ["trial", "declarative"], "warning: accepts SIMULATED evidence\n")
    (tmp_path / "bad.yaml").write_text("version: 1\nname: bad\nmeasurement: [ab]\n")
    status, out, err = command(capsys, "check", tmp_path / "bad.yaml")
    assert (status, out) == (2, "")
    assert "measurement" in err


def test_explain_says_every_demand_in_words(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = command(capsys, "explain")[1]
    for name in ("allow_simulated", "insecure_allow_debug", "allow_attributes", "tcb.statuses", "collateral"):
        assert f"  {name} " in out
    out = command(capsys, "explain", tmp_path / "other.yaml")[1]
    assert "platforms  one of: sgx" in out
    assert "relaxes\n  accepts SIMULATED evidence" in out


def test_explain_lists_the_reference_values_that_rego_asks_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("regorus", reason="needs the extra casemate[rego]")
    rules = '# query_reference_value("not this")\nallow if input.claims.svn in query_reference_value("svn")\n'
    (tmp_path / "gate.rego").write_text("package casemate.policy\nimport rego.v1\n" + rules)
    out = command(capsys, "explain", tmp_path / "gate.rego")[1]
    assert "data.casemate.policy.allow is true" in out
    assert out.rstrip().endswith("svn  (not given)")
    (tmp_path / "values.json").write_text('{"svn": [1]}')
    out = command(capsys, "explain", tmp_path / "gate.rego", "--reference-values", tmp_path / "values.json")[1]
    assert out.rstrip().endswith("  svn")


def test_stored_results_are_judged_again(
    files: list[str], tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    result = tmp_path / "result.json"
    result.write_text(json.dumps(run(*files)[1]))
    trial, other = tmp_path / "trial.yaml", tmp_path / "other.yaml"
    assert command(capsys, "test", trial, result, "--at", NOW)[0] == 0
    status, out, _ = command(capsys, "test", other, result, "--at", NOW)
    assert (status, out.split()[0]) == (1, "refused")
    assert command(capsys, "test", other, result, "--at", NOW, "--expect", "refused")[0] == 0
    assert command(capsys, "test", trial, result, "--at", "2036-01-01")[0] == 3  # its collateral has expired by then
    result.write_text(json.dumps(run(files[0], *files[3:])[1]))
    assert "never verified" in command(capsys, "test", trial, result)[2]
    result.write_text("{}")
    assert command(capsys, "test", trial, result)[0] == 2


def test_the_schema_accepts_what_check_accepts(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = command(capsys, "schema")
    assert status == 0
    assert {"version", "name", "measurements", "any"} <= set(json.loads(out)["properties"])


# -- several policies, and the page ------------------------------------------------------------------------------------
def test_of_several_policies_all_hold_and_each_clause_names_its_own(files: list[str], tmp_path: Path, run: Run) -> None:
    both = ["--policy", tmp_path / "trial.yaml", "--policy", tmp_path / "other.yaml"]
    status, found = run(*files, *both)
    assert (status, found["code"]) == (1, "no-alternative-holds")
    failed = [c for c in found["clauses"] if not c["holds"]]
    assert [(c["clause"], c["policy"]) for c in failed] == [("any", "other")]
    assert {c.get("policy") for c in found["clauses"]} == {None, "trial", "other"}


def page(arguments: list[Any], capsys: pytest.CaptureFixture[str]) -> str:
    invoke(["attest", "verify", *map(str, arguments)])
    return capsys.readouterr().out


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_no_line_is_wider_than_the_terminal(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for options in ([], ["--policy", tmp_path / "other.yaml"], ["--challenge", "00"]):
        out = page([*files, *options], capsys)
        assert max(map(len, out.splitlines())) <= columns


def test_a_pipe_gets_digests_whole(
    files: list[str], capsys: pytest.CaptureFixture[str], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    measurement = run(*files)[1]["claims"]["measurement"]
    assert f"  measurement       {measurement}\n" in page(files, capsys)


def test_clauses_about_unverified_claims_are_marked(
    files: list[str], capsys: pytest.CaptureFixture[str], run: Run
) -> None:
    without = [files[0], *files[3:]]
    out = page(without, capsys)
    assert "claims, UNVERIFIED: they only explain" in out
    assert "policy strict-default, on claims that are UNVERIFIED: they only explain" in out
    assert "\n  (ok)  " in out
    assert "\n  ??  evidence" in out
    found = run(*without)[1]
    marked = {c["clause"]: c.get("unverified", False) for c in found["clauses"]}
    assert marked["evidence"] is False
    assert marked["tcb.statuses"] is True
    assert "unverified" not in json.dumps(run(*files)[1])
