"""``bench io``: every figure that others compare is there, and nothing is left behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from casemate.bench import memory_storage
from casemate.bench.errors import BenchProcessError
from casemate.bench.io import _Python, run
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


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
@pytest.mark.timeout(30)
def test_a_process_that_dies_beside_others_ends_the_bench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    measure = _Python._measure_beside

    def fail_in_one(self: _Python, name: str, directory: Path, answer: int, go: int) -> None:
        if directory.name == "core-0":
            raise OSError("no space left")
        measure(self, name, directory, answer, go)

    monkeypatch.setattr(_Python, "_measure_beside", fail_in_one)
    with pytest.raises(BenchProcessError, match="memcpy on 2 cores"):
        _Python(tmp_path, 2**20, tink=False)._fork("memcpy", 2)
    assert "no space left" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []
