"""Pictures of what the benches measured: SVG for pages, PNG for everything else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from casemate.bench.errors import BenchUnavailableError

__all__ = ["plot_scan", "plot_tpcds"]

_COLOURS = {"zone": "#00897b", "parquet_encryption": "#5e35b1", "full": "#e65100"}
_NAMES = {
    "plain": "plain Parquet",
    "zone": "encrypted zone",
    "parquet_encryption": "Parquet Modular Encryption",
    "full": "zone, TLS, encrypted spill",
}


def plot_tpcds(value: Mapping[str, Any], out: Path) -> list[Path]:
    """Draw every query's time over plain, one panel for each protected set-up; gives the files, none without plain."""
    setups = [name for name in _COLOURS if name in value["geomean"]]
    if not setups:
        return []
    pyplot = _pyplot()
    queries = sorted(value["queries"], key=int)
    figure, panels = pyplot.subplots(
        len(setups), 1, figsize=(11, 2.4 * len(setups) + 1), sharex=True, sharey=True, squeeze=False
    )
    for setup, panel in zip(setups, panels[:, 0], strict=True):
        ratios = [value["queries"][query][setup] / value["queries"][query]["plain"] for query in queries]
        seconds = [value["queries"][query]["plain"] for query in queries]
        mean, aim = value["geomean"][setup], value["aims"][setup]
        panel.bar(
            range(len(queries)),
            [ratio - 1 for ratio in ratios],
            bottom=1,
            color=_COLOURS[setup],
            alpha=0.85,
            width=0.8,
        )
        panel.axhline(1, color="black", linewidth=0.8)
        panel.axhline(mean, color=_COLOURS[setup], linewidth=1.4, linestyle="--")
        panel.axhline(aim, color="grey", linewidth=1, linestyle=":")
        panel.set_title(f"{_NAMES[setup]}: geometric mean {mean:.3f}, aim {aim:.2f} (dotted)", fontsize=10, loc="left")
        panel.set_ylabel("time over plain")
        panel.set_xlim(-0.7, len(queries) - 0.3)
        panel.grid(axis="y", linewidth=0.3)
        for index, (ratio, plain) in enumerate(zip(ratios, seconds, strict=True)):
            if plain > 2:  # the ones that matter most: over two seconds on plain data
                panel.plot(index, max(ratio, 1), marker="v", color="black", markersize=3)
    low = min(0.7, *(value["queries"][q][s] / value["queries"][q]["plain"] for q in queries for s in setups))
    high = max(1.4, *(value["queries"][q][s] / value["queries"][q]["plain"] for q in queries for s in setups))
    panels[0, 0].set_ylim(max(0.0, low - 0.05), high + 0.08)
    step = max(1, len(queries) // 25)
    panels[-1, 0].set_xticks(range(0, len(queries), step), [queries[i] for i in range(0, len(queries), step)])
    panels[-1, 0].set_xlabel("TPC-DS query (mark: over 2 s on plain data)")
    machine = value.get("machine", {})
    processor = f"{machine.get('cores', '?')} cores, {machine.get('processor', 'unknown processor')}"
    figure.suptitle(
        f"TPC-DS scale {value['scale']:g} by Spark, {len(queries)} queries, "
        f"{len(value['wrong_answers'])} wrong answers; {processor}",
        fontsize=11,
    )
    return _save(figure, out / "tpcds", pyplot)


def plot_scan(value: Mapping[str, Any], out: Path) -> list[Path]:
    """Draw the seconds of each format, plain beside zone, for scanning and writing; gives the files."""
    pyplot = _pyplot()
    kinds = list(value["formats"])
    figure, panels = pyplot.subplots(1, 2, figsize=(11, 4))
    for work, panel in zip(("scan", "write"), panels, strict=True):
        for shift, side, colour in ((-0.2, "plain", "#9e9e9e"), (0.2, "zone", _COLOURS["zone"])):
            heights = [value["formats"][kind][work][side] for kind in kinds]
            places = [index + shift for index in range(len(kinds))]
            panel.bar(places, heights, width=0.4, color=colour, label=_NAMES[side] if side != "plain" else "plain")
        for index, kind in enumerate(kinds):
            entry = value["formats"][kind][work]
            panel.text(index, max(entry["plain"], entry["zone"]), f"{entry['ratio']:.2f}", ha="center", va="bottom")
        panel.set_title(f"{work}: geometric mean {value['geomean'][work]:.3f} times plain", fontsize=10, loc="left")
        panel.set_xticks(range(len(kinds)), kinds)
        panel.set_ylabel("seconds")
        panel.margins(y=0.12)
    size, machine = value["size_bytes"] / 2**20, value.get("machine", {})
    figure.suptitle(
        f"Spark on one file of {size:.0f} MiB of each format (a quarter of it written); "
        f"{machine.get('cores', '?')} cores, {machine.get('processor', 'unknown processor')}",
        fontsize=11,
    )
    labels = panels[0].get_legend_handles_labels()
    figure.legend(*labels, loc="lower center", ncols=2, frameon=False)
    return _save(figure, out / "scan", pyplot, rect=(0, 0.06, 1, 1))


def _pyplot() -> Any:
    try:
        import matplotlib
    except ImportError as exc:
        raise BenchUnavailableError("drawing needs matplotlib: pip install 'casemate[bench]'") from exc
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "casemate"  # the same figures draw the same file
    matplotlib.rcParams["svg.fonttype"] = "none"
    from matplotlib import pyplot

    return pyplot


def _save(figure: Any, path: Path, pyplot: Any, rect: tuple[float, float, float, float] = (0, 0, 1, 1)) -> list[Path]:
    figure.tight_layout(rect=rect)
    files: Sequence[Path] = [path.with_suffix(".svg"), path.with_suffix(".png")]
    for file in files:
        figure.savefig(file, dpi=120, metadata={"Date": None} if file.suffix == ".svg" else None)
    pyplot.close(figure)
    return list(files)
