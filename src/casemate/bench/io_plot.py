"""A picture of ``bench io``: who encrypts and decrypts how fast, on one core and on all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from casemate.bench.errors import BenchUnavailableError

__all__ = ["plot_io"]

_BARS = (  # label, key, colour
    ("memory copy", "memcpy", "#9e9e9e"),
    ("OpenSSL AES-256-GCM", "raw_openssl", "#9e9e9e"),
    ("JVM AES-256-GCM", "raw_jvm", "#9e9e9e"),
    ("Casemate Python, read", "python_read", "#00897b"),
    ("Casemate Python, write", "python_write", "#4db6ac"),
    ("tink Python, read", "tink_python_read", "#e65100"),
    ("Casemate Java, read", "java_read", "#00897b"),
    ("Casemate Java, write", "java_write", "#4db6ac"),
    ("tink-java, read", "tink_java_read", "#e65100"),
    ("tink-java, write", "tink_java_write", "#fb8c00"),
)


def plot_io(value: Mapping[str, Any], path: Path) -> Path:
    """Draw ``value`` (the JSON of ``bench io``) into ``path`` (.svg or .png). Raises ``BenchUnavailableError``."""
    try:
        import matplotlib
    except ImportError as exc:
        raise BenchUnavailableError("drawing needs matplotlib: pip install 'casemate[bench]'") from exc
    matplotlib.use("agg")
    matplotlib.rcParams["svg.hashsalt"] = "casemate"  # the same figures draw the same file
    from matplotlib import pyplot

    rates = value["gib_per_s"]
    bars = [(label, key, colour) for label, key, colour in _BARS if rates.get(key) is not None]
    figure, panel = pyplot.subplots(figsize=(9, 0.42 * len(bars) + 1.4))
    places = range(len(bars), 0, -1)
    panel.barh(list(places), [rates[key] for _, key, _ in bars], color=[colour for _, _, colour in bars])
    aims = value.get("aims", {})
    for place, (_, key, _) in zip(places, bars, strict=True):
        panel.text(rates[key] + 0.05, place, f"{rates[key]:.2f}", va="center", fontsize=9)
        if key in aims:
            panel.plot([aims[key]] * 2, [place - 0.42, place + 0.42], color="black", linewidth=1.5)
    panel.set_yticks(list(places), [label for label, _, _ in bars])
    panel.set_xlabel("GiB per second of one core's time, in memory (black mark: the aim)")
    panel.spines[["top", "right"]].set_visible(False)
    machine = value.get("machine", {})
    panel.set_title(f"{machine.get('processor', 'unknown processor')}, {value['storage']}", fontsize=10, loc="left")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)
    return path
