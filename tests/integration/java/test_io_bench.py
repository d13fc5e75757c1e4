"""The bench of the JVM's streams gives every figure it promises and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

from casemate.bench.io_jvm import jvm_speeds

PROMISED = {
    *("raw_jvm", "raw_jvm_encrypt", "java_read", "java_write", "tink_java_read", "tink_java_write"),
    *("java_random_8k", "java_random_1m", "java_read_cold", "java_write_cold", "java_read_file", "java_write_file"),
    *("tink_java_read_file", "tink_java_write_file", "plain_java_read_file", "plain_java_write_file"),
}


def test_the_bench_measures_everything_it_promises(tmp_path: Path) -> None:
    speeds = jvm_speeds(tmp_path, 4 << 20, 1)
    assert speeds.keys() >= PROMISED
    assert all(speeds[name] > 0 for name in PROMISED)
    assert list(tmp_path.iterdir()) == []
