"""Whatever ends a command is one line, a hint and an exit status."""

from __future__ import annotations

import errno
import json

import pytest

from casemate.attestation.errors import AppraisalRefusedError
from casemate.cli.failure import as_casemate_error, print_outcome, report
from casemate.cli.output import Format, Output
from casemate.errors import FailedError, RefusedError, UndecidedError, UsageError


@pytest.fixture(autouse=True)
def _no_voice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Output, "current", None)
    monkeypatch.delenv("CASEMATE_DEBUG", raising=False)


@pytest.mark.parametrize(
    ("error", "status", "label"),
    [
        (RefusedError("no"), 1, "refused"),
        (FailedError("no"), 1, "failed"),
        (UsageError("no"), 2, "usage"),
        (UndecidedError("no"), 3, "undecided"),
    ],
)
def test_each_outcome_has_its_word_and_its_exit_status(
    error: Exception, status: int, label: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(error) == status
    captured = capsys.readouterr()
    assert captured.err.startswith(f"{label}: no\nhint: ")
    assert captured.out == ""


def test_a_code_of_its_own_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    report(AppraisalRefusedError("rtmr1 expected aa, got bb"))
    assert capsys.readouterr().err.startswith("refused: appraisal-refused: rtmr1 expected aa, got bb\n")


def test_a_refusal_id_leads_to_explain(capsys: pytest.CaptureFixture[str]) -> None:
    report(RefusedError("no", refusal_id="r-12"))
    assert "casemate explain r-12" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "status", "code"),
    [
        (errno.ENOSPC, 1, "disk-full"),
        (errno.EDQUOT, 1, "disk-full"),
        (errno.EACCES, 1, "permission-denied"),
        (errno.EROFS, 1, "permission-denied"),
        (errno.EADDRINUSE, 1, "port-in-use"),
        (errno.ENOENT, 2, "file-missing"),
        (errno.EISDIR, 2, "file-missing"),
        (errno.ECONNREFUSED, 3, "out-of-reach"),
        (errno.EIO, 1, "io-failed"),
    ],
)
def test_the_operating_systems_errors_are_typed(number: int, status: int, code: str) -> None:
    error = as_casemate_error(OSError(number, "reason", "/a/file"))
    assert error is not None
    assert (error.exit_status, error.code) == (status, code)
    assert "/a/file" in error.message


def test_a_message_cannot_write_to_the_terminal_or_add_lines(capsys: pytest.CaptureFixture[str]) -> None:
    report(RefusedError("bad\x1b[31mname\nrefused: nothing\r\x07"))
    err = capsys.readouterr().err
    assert err.count("\n") == 2
    assert "\x1b" not in err
    assert "\x07" not in err


def test_a_defect_is_one_line_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(KeyError("x")) == 1
    err = capsys.readouterr().err
    assert err.startswith("failed: internal error: KeyError")
    assert "Traceback" not in err


def test_ctrl_c_is_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_json_gets_the_same_as_an_object(capsys: pytest.CaptureFixture[str]) -> None:
    Output(Format.JSON)
    report(UsageError("what", refusal_id="r-1"))
    value = json.loads(capsys.readouterr().out)
    assert (value["outcome"], value["code"], value["message"], value["refusal_id"]) == ("usage", "usage", "what", "r-1")


def test_an_outcome_of_a_tee_looks_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    print_outcome("refused", "grant-missing", "no grant", "Run `casemate explain <refusal id>`.", "r-9")
    assert capsys.readouterr().err == "refused: grant-missing: no grant\nhint: Run `casemate explain r-9`.\n"
