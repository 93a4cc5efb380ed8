"""The table of a set of cases: medians, ratios, and on what machine they were measured."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from infra.bench.case import Case, Result

PACKAGES = ("bytewax", "polars", "numpy", "confluent-kafka")


def median_result(results: Sequence[Result]) -> Result:
    """The medians of several runs of one case."""
    return Result(
        readings=results[0].readings,
        wall_secs=median(one.wall_secs for one in results),
        cpu_secs=median(one.cpu_secs for one in results),
        peak_mib=median(one.peak_mib for one in results),
        note=results[0].note,
    )


def machine() -> str:
    """What a figure was measured on, in a line."""
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}, {packages}"


def markdown(name: str, results: Mapping[Case, Sequence[Result]]) -> str:
    """The table, a part a group; ratios are to the group's base, where it has one."""
    repeat = max(len(runs) for runs in results.values())
    lines = [
        f"# `./justw bench {name}`",
        "",
        f"{machine()}; load {os.getloadavg()[0]:.1f} at the end.",
        f"Medians of {repeat} runs, each in a process of its own with one Polars thread. Ratios are of CPU time.",
        "Compare within a part: the machine may have been busy.",
    ]
    for group in dict.fromkeys(case.group for case in results):
        lines += ["", f"## {group}", "", *_part({c: median_result(r) for c, r in results.items() if c.group == group})]
    return "\n".join(lines) + "\n"


def _part(results: Mapping[Case, Result]) -> list[str]:
    base = next((result.cpu_rate for case, result in results.items() if case.base), None)
    lines = ["| | readings/s | a CPU second | ratio | peak MiB | |", "|---|---|---|---|---|---|"]
    for case, result in results.items():
        ratio = f"{result.cpu_rate / base:.2f}" if base else ""
        cells = (case.name, _rate(result.rate), _rate(result.cpu_rate), ratio, f"{result.peak_mib:.0f}", result.note)
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _rate(rate: float) -> str:
    return f"{rate / 1e6:.2f} M" if rate >= 1e6 else f"{rate / 1e3:.0f} k"


def plain(results: Mapping[Case, Sequence[Result]]) -> str:
    """All runs, as JSON."""
    rows: list[dict[str, Any]] = [
        {"group": case.group, "name": case.name, "arguments": dict(case.arguments), "runs": [asdict(r) for r in runs]}
        for case, runs in results.items()
    ]
    return json.dumps({"machine": machine(), "cases": rows}, indent=1) + "\n"
