#!/usr/bin/env python3
"""Bring measured figures into the documentation: ``benchmark_page.py [--take DIR]``.

``--take DIR`` copies the ``.json`` and ``.svg`` of ``tpcds``, ``scan`` and ``io``, and ``io-newer-java.json``, in DIR
or one below it to ``docs/benchmarks``. Then the tables between the markers of ``docs/guides/benchmarks.md`` are written
from there.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FIGURES = ROOT / "docs/benchmarks"
PAGE = ROOT / "docs/guides/benchmarks.md"
NAMES = {
    "plain": "plain Parquet",
    "zone": "encrypted zone",
    "parquet_encryption": "Parquet Modular Encryption",
    "full": "zone, TLS, encrypted spill",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--take", metavar="DIR", type=Path)
    options = parser.parse_args()
    if options.take:
        FIGURES.mkdir(parents=True, exist_ok=True)
        for name in ("tpcds.json", "tpcds.svg", "scan.json", "scan.svg", "io.json", "io.svg", "io-newer-java.json"):
            for found in [*options.take.glob(name), *options.take.glob(f"*/{name}")][:1]:
                shutil.copyfile(found, FIGURES / name)
    text = PAGE.read_text(encoding="utf-8")
    for name, section in (("tpcds", tpcds), ("scan", scan), ("io", io)):
        path = FIGURES / f"{name}.json"
        if path.exists():
            made = f"\n\n{section(json.loads(path.read_text(encoding='utf-8')))}\n\n"
            pattern = rf"(<!-- {name}: written by scripts/benchmark_page.py -->).*?(<!-- end -->)"
            text = re.sub(pattern, lambda match, made=made: match[1] + made + match[2], text, flags=re.DOTALL)
    PAGE.write_text(text, encoding="utf-8")


def machine(value: dict[str, Any]) -> str:
    found, versions = value.get("machine", {}), value.get("versions", {})
    return (
        f"Measured on {found.get('cores')} cores of {found.get('processor')}, {found.get('memory_gib')} GiB, "
        f"{found.get('system')}; Spark {versions.get('spark')}, Java {versions.get('java')}, "
        f"Casemate {found.get('casemate')}; load of the machine at the start {found.get('load_at_start')}. "
        "The TEEs are simulated: their processes run at the speed of any other."
    )


def java(value: dict[str, Any]) -> str:
    version = value["versions"].get("java")
    return f"Java {version}" if version else ""


def io(value: dict[str, Any]) -> str:
    """Speeds of one core, and of all, in memory."""
    found = value["machine"]
    most = max(value["cores"], key=int)
    one, every = value["cores"]["1"]["processor"], value["cores"][most]["processor"]
    aims = value["aims"]
    newer = FIGURES / "io-newer-java.json"
    every_java = [value, *([json.loads(newer.read_text(encoding="utf-8"))] if newer.exists() else [])]
    lines = [
        f"Measured on {found['cores']} cores of {found['processor']}, {found['memory_gib']} GiB, {found['system']}; "
        f"{value['storage']}; {value['size_bytes'] >> 20} MiB, {value['repeats']} runs; load of the machine at the "
        f"start {found['load_at_start']}.",
        "",
        "![GiB per second of one core](../benchmarks/io.svg)",
        "",
        f"| GiB per second of one core | {' | '.join(map(java, every_java))} | aim |",
        f"|---|{'---:|' * len(every_java)}---:|",
    ]
    for name in value["gib_per_s"]:
        found_rates = [one["gib_per_s"][name] for one in every_java]
        rates = " | ".join("-" if rate is None else f"{rate:.2f}" for rate in found_rates)
        lines.append(f"| {name} | {rates} | {aims.get(name, '')} |")
    lines += ["", f"| | one core | {most} cores at once |", "|---|---:|---:|"]
    lines += [f"| {name} | {one[name]:.2f} | {every[name]:.2f} |" for name in one]
    small, large = value["processor"]["python_random_8k"], value["processor"]["python_random_1m"]
    lines += ["", f"Random reads by Python: {small:.2f} GiB/s in pieces of 8 KiB, {large:.2f} in pieces of 1 MiB."]
    return "\n".join(lines)


def tpcds(value: dict[str, Any]) -> str:
    count, wrong = len(value["queries"]), len(value["wrong_answers"])
    lines = [
        f"Scale {value['scale']:g}, {count} queries, {value['repeats']} measured run(s) of each; "
        f"warm-up: {value['warm_up']}; {value['answers_checked']} answers compared with DuckDB's, {wrong} wrong.",
        "",
        "| set-up | all queries, s | geometric mean over plain | aim | by processor time | over 2 s, slower than 1.3 |",
        "|---|---|---|---|---|---|",
        f"| {NAMES['plain']} | {value['total_seconds']['plain']:.1f} | 1 | | | |",
    ]
    for setup, ratio in value["geomean"].items():
        slow = [
            f"{entry['query']} ({entry['ratio']:.2f})" for entry in value["slow_queries"] if entry["setup"] == setup
        ]
        lines.append(
            f"| {NAMES[setup]} | {value['total_seconds'][setup]:.1f} | {ratio:.3f} | {value['aims'][setup]:.2f} "
            f"| {value['processor']['geomean'][setup]:.3f} | {', '.join(slow) or 'none'} |"
        )
    lines += ["", "![Time of each query over plain](../benchmarks/tpcds.svg)", "", machine(value), ""]
    setups = [setup for setup in NAMES if setup in value["total_seconds"]]
    lines += ['??? note "Seconds of every query"', "", f"    | query | {' | '.join(NAMES[s] for s in setups)} |"]
    lines += [f"    |{'---|' * (len(setups) + 1)}"]
    lines += [
        f"    | {query} | {' | '.join(f'{by[setup]:.2f}' for setup in setups)} |"
        for query, by in value["queries"].items()
    ]
    return "\n".join(lines)


def scan(value: dict[str, Any]) -> str:
    same = "the same" if value["same_layout"] else "NOT the same"
    lines = [
        f"One file of {value['size_bytes'] / 2**20:.0f} MiB of each format, a quarter of it written; median of "
        f"{value['repeats']} runs. Rows, tasks, splits and block boundaries of all formats: {same}.",
        "",
        "| format | tasks, plain and zone | scan, s: plain, zone | ratio | write, s: plain, zone | ratio |",
        "|---|---|---|---|---|---|",
    ]
    for kind, entry in value["formats"].items():
        read, write, tasks = entry["scan"], entry["write"], entry["tasks"]
        lines.append(
            f"| {kind} | {tasks['plain']}, {tasks['zone']} | {read['plain']:.2f}, {read['zone']:.2f} "
            f"| {read['ratio']:.2f} | {write['plain']:.2f}, {write['zone']:.2f} | {write['ratio']:.2f} |"
        )
    mean = value["geomean"]
    lines.append(f"| geometric mean | | | {mean['scan']:.3f} | | {mean['write']:.3f} |")
    return "\n".join([*lines, "", "![Seconds of each format](../benchmarks/scan.svg)", "", machine(value)])


if __name__ == "__main__":
    main()
