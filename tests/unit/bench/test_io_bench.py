"""``bench io``: every figure that others compare is there, and nothing is left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from casemate.bench import memory_storage
from casemate.bench.io import run
from casemate.bench.io_plot import plot_io


def test_it_measures_everything_in_turn_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_storage, "_SHARED", tmp_path)
    monkeypatch.setattr(memory_storage, "_mount_large_pages", lambda directory, size: False)
    value = run(size=8 * 2**20, repeats=1, jvm=False).to_json()
    rates = value["gib_per_s"]
    assert set(rates) == {
        *("raw_openssl", "raw_jvm", "python_read", "python_write", "java_read", "java_write"),
        *("tink_python_read", "tink_java_read", "tink_java_write", "memcpy"),
    }
    assert {name for name, rate in rates.items() if rate is None} == {
        *("raw_jvm", "java_read", "java_write", "tink_java_read", "tink_java_write")
    }
    assert all(rate > 0 for rate in rates.values() if rate is not None)
    assert value["processor"]["python_random_8k"] > 0
    assert value["cores"]["1"]["wall"]["python_read"] > 0
    assert list(tmp_path.iterdir()) == []
    picture = plot_io(value, tmp_path / "io.svg").read_text()
    assert "Casemate Python, read" in picture or "<path" in picture
