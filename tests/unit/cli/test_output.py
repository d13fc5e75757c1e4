"""Data on stdout, talk on stderr, colour only where it is seen."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys

import pytest

from casemate.cli.output import Format, Output, one_line, red, table


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_data_is_text_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    Output(Format.TEXT).data({"a": 1}, "one")
    assert capsys.readouterr().out == "one\n"
    Output(Format.JSON).data({"a": "é"}, "one")
    assert json.loads(capsys.readouterr().out) == {"a": "é"}


def test_talk_is_never_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output()
    output.say("a")
    output.warn("b")
    output.simulated("c")
    with output.progress("d", 3) as advance:
        advance(3)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "a\nwarning: b\nSIMULATED c\n"


def test_red_is_for_terminals_without_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert red("SIMULATED", Terminal()) == "\x1b[1;31mSIMULATED\x1b[0m"
    assert red("SIMULATED", io.StringIO()) == "SIMULATED"
    monkeypatch.setenv("NO_COLOR", "1")
    assert red("SIMULATED", Terminal()) == "SIMULATED"


def test_one_line_is_one_line_without_control_characters() -> None:
    assert one_line("a\n b\t\x1b[0m\x7f") == "a b \\x1b[0m\\x7f"
    assert len(one_line("x" * 9999)) == 2000


def test_a_table_aligns_and_escapes() -> None:
    assert table([("a", 1), ("long\n", 22)], ("name", "n")) == "name  n\na     1\nlong  22"
    assert table([], ("name", "n")) == "name  n"


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_a_bar_is_drawn_on_a_terminal_and_never_on_stdout(no_color: str, coloured: bool) -> None:
    code = (
        "from casemate.cli.output import Output\noutput = Output()\n"
        "with output.progress('encrypting', 10) as advance:\n    advance(10)\noutput.data({}, 'result')"
    )
    reader, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "NO_COLOR": no_color}
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=terminal, env=environment, check=True, text=True
    )
    os.close(terminal)
    shown = os.read(reader, 65536).decode()
    os.close(reader)
    assert done.stdout == "result\n"
    assert "encrypting" in shown
    assert ("\x1b[3" in shown) is coloured
